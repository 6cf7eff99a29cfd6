//! Any text, to the language's three parsers: none panics, none takes longer than its text is long, each refuses with a
//! documented kind, and what is accepted is printed and parsed again without a difference.
#![no_main]

use std::fmt::Debug;
use std::time::{Duration, Instant};

use arrow::datatypes::Field;
use couatl_core::{ErrorKind, Result, type_spelling};
use couatl_sql::{CreateStream, StatementKind, create_statement, parse, parse_columns, parse_type};
use libfuzzer_sys::fuzz_target;

/// What a parser may take: several times what an instrumented one does, and far less than a square of the length.
const PER_BYTE: Duration = Duration::from_micros(20);
const AT_LEAST: Duration = Duration::from_millis(50);

fuzz_target!(|text: &str| {
    for statement in checked(text, parse).unwrap_or_default() {
        if let StatementKind::CreateStream(create) = statement.kind {
            assert_printed_parses(create);
        }
    }
    for field in checked(text, parse_columns).iter().flat_map(|schema| schema.fields()) {
        assert_spelling_parses(field);
    }
    if let Some(field) = checked(text, parse_type) {
        assert_spelling_parses(&field);
    }
});

/// What the text is parsed as; `None` where it is refused as it may be.
fn checked<T: Debug>(text: &str, parse: impl Fn(&str) -> Result<T>) -> Option<T> {
    let budget = AT_LEAST + PER_BYTE * u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut took = Duration::MAX;
    let mut parsed = None;
    // Another process may have had the processor meanwhile: what is slow is slow each time.
    for _ in 0..5 {
        let start = Instant::now();
        parsed = Some(parse(text));
        took = took.min(start.elapsed());
        if took <= budget {
            break;
        }
    }
    assert!(took <= budget, "{} bytes took {took:?}", text.len());
    match parsed? {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            let documented = [ErrorKind::InvalidSyntax, ErrorKind::InvalidSetting, ErrorKind::InvalidDefinition];
            assert!(documented.contains(&error.kind()), "undocumented: {error:?}");
            None
        }
    }
}

fn assert_printed_parses(create: CreateStream) {
    let mut definition = create.definition;
    let printed = create_statement(&definition);
    let statements = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    let [statement] = &statements[..] else { panic!("not one statement\n{printed}") };
    let StatementKind::CreateStream(again) = &statement.kind else { panic!("another statement\n{printed}") };
    // The body of the printed statement begins on a line of its own.
    definition.body.first_line = again.definition.body.first_line;
    assert_eq!(again.definition, definition, "{printed}");
    assert_eq!(create_statement(&again.definition), printed);
}

fn assert_spelling_parses(field: &Field) {
    let spelling = type_spelling(field);
    let again = parse_type(&spelling).unwrap_or_else(|error| panic!("{error}\n{spelling}"));
    assert_eq!((again.data_type(), again.metadata()), (field.data_type(), field.metadata()), "{spelling}");
    assert_eq!(type_spelling(&again), spelling);
}
