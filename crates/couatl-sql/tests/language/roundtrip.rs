//! Printing a definition and parsing it is the identity; a type and its spelling are inverse; no text panics.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use couatl_core::{Body, Functions, Init, Mode, StreamDefinition, WriteFormat, quoted, type_spelling};
use couatl_sql::{create_statement, parse, parse_columns, parse_type};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::definition;

/// A name that a column or a member may have: words that are keywords, and anything in quotes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,8}",
        "\\PC{1,6}",
        "[\\$\"'` .;\\-A-Z\\n]{1,5}",
        prop::sample::select(vec![
            "key",
            "index",
            "not",
            "null",
            "array",
            "double",
            "timestamp",
            "as",
            "settings",
            "if"
        ])
        .prop_map(str::to_owned),
    ]
}

fn spelling() -> impl Strategy<Value = String> {
    let scalars = vec![
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
    let leaf = prop_oneof![
        4 => prop::sample::select(scalars).prop_map(str::to_owned),
        1 => (1..=76u8, 0..=76u8).prop_map(|(p, s)| format!("decimal({p}, {})", s.min(p))),
        1 => (0..=9u8).prop_map(|p| format!("datetime64({p})")),
        1 => (0..=9u8, prop::sample::select(vec!["UTC", "Europe/Paris", "-03:00"]))
            .prop_map(|(p, zone)| format!("datetime64({p}, '{zone}')")),
        1 => (any::<bool>(), prop::collection::btree_map("[\\PC\\n]{0,4}", any::<i8>(), 1..5)).prop_map(|(wide, codes)| {
            let mut seen = std::collections::HashSet::new();
            let codes: Vec<_> = codes.iter().filter(|(_, code)| seen.insert(**code)).collect();
            let codes: Vec<_> = codes.iter().map(|(name, code)| format!("'{}' = {code}", name.replace('\'', "''"))).collect();
            format!("enum{}({})", if wide { 16 } else { 8 }, codes.join(", "))
        }),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let members = prop::collection::btree_map(name(), inner.clone(), 1..4);
        prop_oneof![
            inner.clone().prop_map(|item| format!("array({item})")),
            inner.clone().prop_map(|item| format!("array<{item}>")),
            inner.clone().prop_map(|item| format!("{item}[]")),
            inner.clone().prop_map(|item| format!("nullable({item})")),
            (inner.clone(), inner.clone()).prop_map(|(key, value)| format!("map({key}, {value})")),
            vec(inner, 1..4).prop_map(|members| format!("tuple({})", members.join(", "))),
            members.prop_map(|members| {
                let members: Vec<_> =
                    members.iter().map(|(name, member)| format!("{} {member}", quoted(name))).collect();
                format!("struct({})", members.join(", "))
            }),
        ]
    })
}

fn schema() -> impl Strategy<Value = Schema> {
    prop::collection::btree_map(name(), (spelling(), any::<bool>()), 1..5).prop_map(|columns| {
        let fields = columns
            .into_iter()
            .map(|(name, (spelling, nullable))| parse_type(&spelling).unwrap().with_name(name).with_nullable(nullable));
        Schema::new(fields.collect::<Vec<_>>())
    })
}

fn body() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\PC\\s]{0,40}",
        "[\\$a]{0,12}",
        "(\\$|body|1|2|\\$\\$|\\$body\\$|\\$body1\\$|x| |\\r\\n|;|'|--){0,20}"
    ]
}

fn functions() -> impl Strategy<Value = Functions> {
    let function = || option::of("[a-zA-Z_é'$]{1,8}");
    (function(), function(), function(), option::of("[\\PC\\n]{0,10}"), function()).prop_map(
        |(read, write, init, parameters, deinit)| {
            let init = init.map(|function| Init { function, parameters });
            Functions { read, write, init, deinit }
        },
    )
}

fn any_definition() -> impl Strategy<Value = StreamDefinition> {
    let modes = prop::sample::select(vec![Mode::Auto, Mode::Streaming, Mode::Batch]);
    let formats = prop::sample::select(vec![WriteFormat::List, WriteFormat::Arrow]);
    let numbers = (1..=1usize << 20, 0..=60_000u64);
    (name(), schema(), body(), functions(), modes, formats, option::of(numbers)).prop_map(
        |(name, schema, body, functions, mode, write_format, numbers)| {
            let mut definition = StreamDefinition::new(name, Arc::new(schema), Body::new(body));
            (definition.functions, definition.mode, definition.write_format) = (functions, mode, write_format);
            if let Some((rows, linger)) = numbers {
                definition.batch_rows = NonZeroUsize::new(rows).unwrap();
                definition.linger = Duration::from_millis(linger);
            }
            definition
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_spelling_spells_its_type(spelling in spelling()) {
        let field = parse_type(&spelling).unwrap();
        prop_assert_eq!(parse_type(&type_spelling(&field)).unwrap(), field);
    }

    #[test]
    fn print_and_parse_is_the_identity(printed in any_definition()) {
        let statement = create_statement(&printed);
        let mut parsed = definition(&statement);
        // The body begins where the printed statement has it.
        parsed.body.first_line = printed.body.first_line;
        prop_assert_eq!(parsed, printed);
    }

    #[test]
    fn columns_between_parentheses_are_columns(printed in any_definition()) {
        let statement = create_statement(&printed);
        let columns = &statement[statement.find(" (\n").unwrap() + 2..];
        prop_assert!(parse_columns(&columns[..columns.find("\n)\nAS $").unwrap()]).is_ok());
    }

    #[test]
    fn statements_are_pieces_of_the_text(text in "([a-z]{1,3}|[\\PC]| |;|\\n|\\r\\n|'|\"|\\$\\$|\\$t\\$|--|/\\*|\\*/|\\?|>>|[0-9.]){0,30}") {
        let mut rest = text.as_str();
        for statement in parse(&text).unwrap_or_default() {
            let start = rest.find(&statement.text);
            prop_assert!(start.is_some());
            rest = &rest[start.unwrap() + statement.text.len()..];
            prop_assert_eq!(parse(&statement.text).unwrap(), vec![statement]);
        }
    }

    #[test]
    fn no_create_statement_panics(
        pieces in vec(prop::sample::select(vec![
            "CREATE", "OR REPLACE", "EXTERNAL", "STREAM", "IF NOT EXISTS", "s", ".", "(", ")", "a", "int", "array", "<",
            ">>", ">", "[", "]", ",", "enum8", "'x'", "=", "-", "1", "NOT NULL", "AS", "$$ $$", "SETTINGS", "type",
            "'python'", ";", "$", "tuple", "datetime64", "decimal",
        ]), 0..24),
        prefix in prop::sample::select(vec!["", "CREATE EXTERNAL STREAM s (", "CREATE EXTERNAL STREAM s (a int) AS $$ $$ "]),
    ) {
        let _ = parse(&format!("{prefix}{}", pieces.join(" ")));
    }
}
