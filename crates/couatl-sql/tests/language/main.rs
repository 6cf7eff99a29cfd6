//! The language, as whoever executes it sees it: tables of texts, and what they say.
//!
//! `UPDATE_EXPECT=1 cargo test -p couatl-sql` rewrites the expectations.

#![expect(clippy::unwrap_used, reason = "clippy does not see that functions between tests are tests too")]

mod bodies;
mod columns;
mod errors;
mod functions;
mod length;
mod roundtrip;
mod settings;
mod statements;
mod types;

use arrow::datatypes::Field;
use couatl_core::{Body, Error, StreamDefinition, type_spelling};
use couatl_sql::{Statement, StatementKind, parse};
use expect_test::Expect;

/// Compares what each text says with what is expected.
fn check(texts: &[&str], expect: Expect) {
    let say = |text: &str| match parse(text) {
        Ok(statements) => statements.iter().map(shown).collect::<Vec<_>>().join("\n"),
        Err(error) => failure(&error),
    };
    expect.assert_eq(&table(texts, say));
}

/// Each text, and below it what is said about it.
fn table(texts: &[&str], say: impl Fn(&str) -> String) -> String {
    let indented = |lines: String| lines.lines().map(|line| format!("    {line}\n")).collect::<String>();
    texts.iter().map(|text| format!("{}\n{}", text.replace('\n', "\\n"), indented(say(text)))).collect()
}

/// An error with its kind, as a client sees both.
fn failure(error: &Error) -> String {
    format!("{}: {error}", error.kind())
}

fn shown(statement: &Statement) -> String {
    match &statement.kind {
        StatementKind::CreateStream(create) => {
            let flags = [(create.or_replace, " or replace"), (create.if_not_exists, " if not exists")];
            let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
            let definition = &create.definition;
            let columns: Vec<_> = definition.schema.fields().iter().map(|field| column(field)).collect();
            let Body { text, first_line } = &definition.body;
            format!("create{flags} {} ({}), body {text:?} from line {first_line}", create.name, columns.join(", "))
        }
        StatementKind::Other(tokens) => {
            format!("other {}", tokens.iter().map(|token| token.to_string()).collect::<String>())
        }
        StatementKind::Describe { name, tokens } => format!("describe {name} ({} tokens)", tokens.len()),
        kind => format!("{kind:?}"),
    }
}

/// A column as `name type [NOT NULL]`.
fn column(field: &Field) -> String {
    let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
    format!("{:?} {}{not_null}", field.name(), type_spelling(field))
}

/// The definition that the only statement of a text makes.
fn definition(text: &str) -> StreamDefinition {
    let statements = match parse(text) {
        Ok(statements) => statements,
        Err(error) => unreachable!("{}", failure(&error)),
    };
    match statements.into_iter().map(|statement| statement.kind).next() {
        Some(StatementKind::CreateStream(create)) => create.definition,
        kind => unreachable!("{kind:?}"),
    }
}
