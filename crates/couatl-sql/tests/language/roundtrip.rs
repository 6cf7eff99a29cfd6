//! Printing a definition and parsing it is the identity; a type and its spelling are inverse; no text panics.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::num::NonZeroUsize;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema};
use couatl_core::{Body, Functions, Init, Mode, StreamDefinition, WriteFormat, quoted, type_spelling};
use couatl_sql::{Place, Statement, create_statement, parse, parse_columns, parse_type};
use fastrand::Rng;

use crate::definition;

/// What each property is checked for. To repeat a failure, make it the one seed that the failure names.
const SEEDS: Range<u64> = 0..2_000;

/// How many types may stand inside each other, around a type that has none inside.
const LEVELS: usize = 4;

/// Checks a property of what is made from each seed.
fn for_each_seed<T: Debug>(make: impl Fn(&mut Rng) -> T, property: impl Fn(&T)) {
    for seed in SEEDS {
        let mut case = Case { seed, made: None };
        property(case.made.insert(make(&mut Rng::with_seed(seed))));
    }
}

/// What is made from a seed. It is shown when the property panics, wherever that may be.
struct Case<T: Debug> {
    seed: u64,
    /// `None` while it is being made.
    made: Option<T>,
}

impl<T: Debug> Drop for Case<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed for seed {}, which makes {:?}", self.seed, self.made);
        }
    }
}

fn one<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

fn one_of(rng: &mut Rng, chars: &str) -> char {
    chars.chars().nth(rng.usize(..chars.chars().count())).unwrap()
}

fn maybe<T>(rng: &mut Rng, make: impl Fn(&mut Rng) -> T) -> Option<T> {
    rng.bool().then(|| make(rng))
}

/// So many of what is made: a collection, or a text of such pieces.
fn several<T, C: FromIterator<T>>(rng: &mut Rng, count: RangeInclusive<usize>, make: impl Fn(&mut Rng) -> T) -> C {
    let count = rng.usize(count);
    (0..count).map(|_| make(rng)).collect()
}

/// Any character but controls; half of them are ASCII, which is where the grammar is.
fn printable(rng: &mut Rng) -> char {
    match rng.u8(..4) {
        0 | 1 => rng.char(' '..='~'),
        2 => rng.char('\u{a0}'..='\u{ffff}'),
        _ => rng.char('\u{a0}'..),
    }
}

/// Printable characters, and ends of lines between them.
fn lines(rng: &mut Rng, count: RangeInclusive<usize>) -> String {
    several(rng, count, |rng| if rng.u8(..8) == 0 { '\n' } else { printable(rng) })
}

/// A name that a column or a member may have: words that are keywords, and anything in quotes.
fn name(rng: &mut Rng) -> String {
    const KEYWORDS: &[&str] = &["key", "index", "not", "null", "array", "double", "timestamp", "as", "settings", "if"];
    match rng.u8(..4) {
        0 => {
            let first = one_of(rng, "abcdefghijklmnopqrstuvwxyz_");
            let rest: String = several(rng, 0..=8, |rng| one_of(rng, "abcdefghijklmnopqrstuvwxyz0123456789_"));
            format!("{first}{rest}")
        }
        1 => several(rng, 1..=6, printable),
        2 => several(rng, 1..=5, |rng| if rng.bool() { rng.uppercase() } else { one_of(rng, "$\"'` .;-\n") }),
        _ => one(rng, KEYWORDS).to_owned(),
    }
}

/// The spelling of a type, with no more than so many levels of types around the innermost.
fn spelling(rng: &mut Rng, levels: usize) -> String {
    if levels == 0 || rng.u8(..3) == 0 {
        return flat_spelling(rng);
    }
    let inner = |rng: &mut Rng| spelling(rng, levels - 1);
    match rng.u8(..7) {
        0 => format!("array({})", inner(rng)),
        1 => format!("array<{}>", inner(rng)),
        2 => format!("{}[]", inner(rng)),
        3 => format!("nullable({})", inner(rng)),
        4 => format!("map({}, {})", inner(rng), inner(rng)),
        5 => {
            let members: Vec<String> = several(rng, 1..=3, inner);
            format!("tuple({})", members.join(", "))
        }
        _ => {
            let members: BTreeMap<String, String> = several(rng, 1..=3, |rng| (name(rng), inner(rng)));
            let members: Vec<_> = members.iter().map(|(name, member)| format!("{} {member}", quoted(name))).collect();
            format!("struct({})", members.join(", "))
        }
    }
}

fn flat_spelling(rng: &mut Rng) -> String {
    const SCALARS: &[&str] = &[
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float32",
        "float64",
        "string",
        "binary",
        "date",
        "time",
        "interval",
        "timestamp",
        "timestamptz",
        "uuid",
        "json",
        "decimal",
        "double precision",
        "timestamp with time zone",
        "low_cardinality(string)",
        "lowcardinality(int64)",
    ];
    match rng.u8(..8) {
        0 => {
            let precision = rng.u8(1..=76);
            format!("decimal({precision}, {})", rng.u8(..=precision))
        }
        1 => format!("datetime64({})", rng.u8(..=9)),
        2 => format!("datetime64({}, '{}')", rng.u8(..=9), one(rng, &["UTC", "Europe/Paris", "-03:00"])),
        3 => enum_spelling(rng),
        _ => one(rng, SCALARS).to_owned(),
    }
}

fn enum_spelling(rng: &mut Rng) -> String {
    let bits = one(rng, &[8, 16]);
    let codes: BTreeMap<String, i8> = several(rng, 1..=4, |rng| (lines(rng, 0..=4), rng.i8(..)));
    let mut seen = HashSet::new();
    let codes = codes.iter().filter(|(_, code)| seen.insert(**code));
    let codes: Vec<_> = codes.map(|(name, code)| format!("'{}' = {code}", name.replace('\'', "''"))).collect();
    format!("enum{bits}({})", codes.join(", "))
}

fn schema(rng: &mut Rng) -> Schema {
    let columns: BTreeMap<String, Field> = several(rng, 1..=4, |rng| {
        let field = parse_type(&spelling(rng, LEVELS)).unwrap();
        (name(rng), field.with_nullable(rng.bool()))
    });
    Schema::new(columns.into_iter().map(|(name, field)| field.with_name(name)).collect::<Vec<_>>())
}

fn body(rng: &mut Rng) -> String {
    const BLANKS: &str = " \t\n\r\u{b}\u{c}\u{85}\u{a0}\u{2028}\u{3000}";
    const PIECES: &[&str] = &["$", "body", "1", "2", "$$", "$body$", "$body1$", "x", " ", "\r\n", ";", "'", "--"];
    match rng.u8(..3) {
        0 => several(rng, 0..=40, |rng| if rng.u8(..8) == 0 { one_of(rng, BLANKS) } else { printable(rng) }),
        1 => several(rng, 0..=12, |rng| one_of(rng, "$a")),
        _ => several(rng, 0..=20, |rng| one(rng, PIECES)),
    }
}

fn functions(rng: &mut Rng) -> Functions {
    let init = |rng: &mut Rng| Init { function: function(rng), parameters: maybe(rng, |rng| lines(rng, 0..=10)) };
    Functions {
        read: maybe(rng, function),
        write: maybe(rng, function),
        init: maybe(rng, init),
        deinit: maybe(rng, function),
    }
}

fn function(rng: &mut Rng) -> String {
    several(rng, 1..=8, |rng| if rng.u8(..4) == 0 { one_of(rng, "_é'$") } else { rng.alphabetic() })
}

fn any_definition(rng: &mut Rng) -> StreamDefinition {
    let mut definition = StreamDefinition::new(name(rng), Arc::new(schema(rng)), Body::new(body(rng)));
    definition.functions = functions(rng);
    definition.mode = one(rng, &[Mode::Auto, Mode::Streaming, Mode::Batch]);
    definition.write_format = one(rng, &[WriteFormat::List, WriteFormat::Arrow]);
    if rng.bool() {
        definition.batch_rows = NonZeroUsize::new(rng.usize(1..=1 << 20)).unwrap();
        definition.linger = Duration::from_millis(rng.u64(..=60_000));
    }
    let mut names: Vec<_> = definition.schema.fields().iter().map(|field| field.name().clone()).collect();
    rng.shuffle(&mut names);
    for name in names.into_iter().take(rng.usize(..3)) {
        definition.order_by.push(name);
        if definition.order_columns().is_err() {
            definition.order_by.pop();
        }
    }
    definition
}

/// A text of pieces that the lexer has a rule for.
fn any_text(rng: &mut Rng) -> String {
    const PIECES: &[&str] = &[" ", ";", "\n", "\r\n", "'", "\"", "$$", "$t$", "--", "/*", "*/", "?", ">>"];
    several(rng, 0..=30, |rng| match rng.u8(..16) {
        0 => several(rng, 1..=3, Rng::lowercase),
        1 => printable(rng).to_string(),
        2 => one_of(rng, "0123456789.").to_string(),
        _ => one(rng, PIECES).to_owned(),
    })
}

/// A text of pieces that a statement is made of, mostly in a wrong order, after a beginning that may be right.
fn almost_create(rng: &mut Rng) -> String {
    const PREFIXES: &[&str] = &["", "CREATE EXTERNAL STREAM s (", "CREATE EXTERNAL STREAM s (a int) AS $$ $$ "];
    const PIECES: &[&str] = &[
        "CREATE",
        "OR REPLACE",
        "EXTERNAL",
        "STREAM",
        "IF NOT EXISTS",
        "s",
        ".",
        "(",
        ")",
        "a",
        "int",
        "array",
        "<",
        ">>",
        ">",
        "[",
        "]",
        ",",
        "enum8",
        "'x'",
        "=",
        "-",
        "1",
        "NOT NULL",
        "AS",
        "$$ $$",
        "SETTINGS",
        "type",
        "'python'",
        ";",
        "$",
        "tuple",
        "datetime64",
        "decimal",
    ];
    let prefix = one(rng, PREFIXES);
    let pieces: Vec<&str> = several(rng, 0..=23, |rng| one(rng, PIECES));
    format!("{prefix}{}", pieces.join(" "))
}

#[test]
fn a_spelling_spells_its_type() {
    for_each_seed(
        |rng| spelling(rng, LEVELS),
        |spelling| {
            let field = parse_type(spelling).unwrap();
            assert_eq!(parse_type(&type_spelling(&field)).unwrap(), field);
        },
    );
}

#[test]
fn print_and_parse_is_the_identity() {
    for_each_seed(any_definition, |printed| {
        let statement = create_statement(printed);
        let mut parsed = definition(&statement);
        // The body begins where the printed statement has it.
        parsed.body.first_line = printed.body.first_line;
        assert_eq!(parsed, *printed, "printed as {statement}");
    });
}

#[test]
fn columns_between_parentheses_are_columns() {
    for_each_seed(any_definition, |printed| {
        let statement = create_statement(printed);
        let columns = &statement[statement.find(" (\n").unwrap() + 2..];
        parse_columns(&columns[..columns.find("\n)\nAS $").unwrap()]).unwrap();
    });
}

#[test]
fn statements_are_pieces_of_the_text() {
    for_each_seed(any_text, |text| {
        let mut rest = text.as_str();
        let statements = parse(text).unwrap_or_default();
        let of = statements.len();
        for (i, statement) in statements.into_iter().enumerate() {
            let start = rest.find(&statement.text).unwrap();
            rest = &rest[start + statement.text.len()..];
            assert_eq!(statement.place, Place { number: i + 1, of });
            let alone = Statement { place: Place { number: 1, of: 1 }, ..statement };
            assert_eq!(parse(&alone.text).unwrap(), vec![alone]);
        }
    });
}

#[test]
fn no_create_statement_panics() {
    for_each_seed(almost_create, |text| {
        let _ = parse(text);
    });
}
