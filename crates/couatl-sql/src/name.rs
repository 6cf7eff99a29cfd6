//! The name of a stream, with the catalog and the schema that a statement gives it.

use std::fmt;

use couatl_core::{Error, Result, quoted};
use sqlparser::tokenizer::Token;

use crate::tokens::{Tokens, error_at};

/// A name of one to three parts: `name`, `schema.name` or `catalog.schema.name`. Where parts are missing, whoever
/// executes the statement fills in the defaults.
///
/// Its `Display` is the name as a statement spells it, quoted where it must be.
///
/// ```
/// use couatl_sql::{StatementKind, parse};
///
/// let statements = parse(r#"DROP STREAM Public."Users""#)?;
/// let StatementKind::DropStream { name, .. } = &statements[0].kind else { unreachable!() };
/// assert_eq!(name.parts(), ["public", "Users"]);
/// assert_eq!((name.catalog(), name.schema(), name.name()), (None, Some("public"), "Users"));
/// assert_eq!(name.to_string(), r#"public."Users""#);
/// # Ok::<(), couatl_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamName {
    /// All but the last part, outermost first: at most two.
    qualifiers: Vec<String>,
    name: String,
}

impl StreamName {
    /// The stream's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The schema, where one is given.
    pub fn schema(&self) -> Option<&str> {
        self.qualifiers.last().map(String::as_str)
    }

    /// The catalog, where one is given.
    pub fn catalog(&self) -> Option<&str> {
        self.qualifiers.iter().rev().nth(1).map(String::as_str)
    }

    /// The parts that are given, outermost first: one to three.
    pub fn parts(&self) -> Vec<&str> {
        self.qualifiers.iter().chain([&self.name]).map(String::as_str).collect()
    }

    pub(crate) fn parse(tokens: &mut Tokens<'_>) -> Result<Self> {
        let start = tokens.location();
        let mut parts = Vec::new();
        let mut name = tokens.name("the name of a stream")?;
        while tokens.eat(&Token::Period) {
            parts.push(std::mem::replace(&mut name, tokens.name("the next part of the name")?));
        }
        if parts.len() > 2 {
            return Err(error_at(Error::invalid_syntax, start, |at| {
                format!("expected a name of at most three parts (catalog.schema.name), found {}{at}", parts.len() + 1)
            }));
        }
        Ok(Self { qualifiers: parts, name })
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for qualifier in &self.qualifiers {
            write!(f, "{}.", quoted(qualifier))?;
        }
        write!(f, "{}", quoted(&self.name))
    }
}
