//! `CREATE EXTERNAL STREAM`: its columns, its body, and where the body stands.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use couatl_core::{Body, Error, Result, StreamDefinition};
use sqlparser::tokenizer::Token;

use crate::lexer;
use crate::name::StreamName;
use crate::settings::Settings;
use crate::tokens::{Tokens, error_at};
use crate::types::Type;

/// A `CREATE EXTERNAL STREAM` statement.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateStream {
    /// Whether a stream of this name is to be replaced. Never together with `if_not_exists`.
    pub or_replace: bool,
    /// Whether a stream of this name is to be left alone.
    pub if_not_exists: bool,
    /// The name as the statement gives it; the definition has its last part.
    pub name: StreamName,
    /// What the stream is.
    pub definition: StreamDefinition,
}

impl CreateStream {
    /// Reads the whole statement, of which it is known that it starts with `CREATE [OR REPLACE] EXTERNAL`.
    pub(crate) fn parse(tokens: &mut Tokens<'_>) -> Result<Self> {
        tokens.word("create")?;
        let or_replace = tokens.eat_words(&["or", "replace"]);
        tokens.word("external")?;
        if !tokens.eat_words(&["stream"]) {
            return Err(tokens.expected("STREAM or TABLE after EXTERNAL"));
        }
        let place = tokens.location();
        let if_not_exists = tokens.eat_words(&["if", "not", "exists"]);
        if or_replace && if_not_exists {
            return Err(error_at(Error::invalid_syntax, place, |at| {
                format!("expected OR REPLACE or IF NOT EXISTS, found both{at}: one replaces a stream, one keeps it")
            }));
        }
        let name = StreamName::parse(tokens)?;

        let place = tokens.location();
        let missing = tokens.expected("'(' and the columns of the stream");
        let has_columns = tokens.eat(&Token::LParen);
        let mut schema = Schema::empty();
        if has_columns {
            if tokens.eat(&Token::RParen) {
                return Err(error_at(Error::invalid_definition, place, |at| {
                    format!("stream '{}' has no columns{at}: expected at least one, as in (id int64)", name.name())
                }));
            }
            schema = columns(tokens)?;
            if !tokens.eat(&Token::RParen) {
                return Err(tokens.expected("',' or ')' after a column"));
            }
        }
        // A class has a body elsewhere, and may know its columns.
        let missing = if has_columns { tokens.expected("AS") } else { missing };
        let has_body = tokens.eat_words(&["as"]);
        let body = if has_body { body(tokens)? } else { Body::new("") };
        let settings = Settings::parse(tokens)?;
        if !(settings.name_connector() || has_columns && has_body) {
            return Err(missing);
        }
        let next = if settings.is_empty() { "SETTINGS" } else { "',' or the end of the statement" };
        tokens.end(next)?;

        let mut definition = StreamDefinition::new(name.name(), Arc::new(schema), body);
        settings.apply(&mut definition, has_body)?;
        Ok(Self { or_replace, if_not_exists, name, definition })
    }
}

/// Parses columns as a `CREATE EXTERNAL STREAM` has them between its parentheses, for programs that register a stream
/// without a statement.
///
/// # Errors
/// `invalid-syntax`, and `invalid-definition` where a type is unknown or two columns have one name.
///
/// ```
/// use arrow::datatypes::{DataType, Field, Schema};
///
/// let schema = couatl_sql::parse_columns("id int64 NOT NULL, key string")?;
/// let fields = vec![Field::new("id", DataType::Int64, false), Field::new("key", DataType::Utf8, true)];
/// assert_eq!(schema, Schema::new(fields));
/// # Ok::<(), couatl_core::Error>(())
/// ```
pub fn parse_columns(text: &str) -> Result<Schema> {
    let tokens = lexer::tokens(text)?;
    let mut tokens = Tokens::new(&tokens);
    let schema = columns(&mut tokens)?;
    tokens.end("',' or the end of the columns")?;
    Ok(schema)
}

pub(crate) fn columns(tokens: &mut Tokens<'_>) -> Result<Schema> {
    let mut fields: Vec<Field> = Vec::new();
    let mut names = HashSet::new();
    loop {
        let place = tokens.location();
        let field = column(tokens)?;
        if !names.insert(field.name().clone()) {
            return Err(error_at(Error::invalid_definition, place, |at| {
                format!("two columns are named '{}'{at}", field.name())
            }));
        }
        fields.push(field);
        if !tokens.eat(&Token::Comma) {
            return Ok(Schema::new(fields));
        }
    }
}

/// Any word may be the name: a column has no other place for a keyword but after its type.
fn column(tokens: &mut Tokens<'_>) -> Result<Field> {
    let name = tokens.name("the name of a column")?;
    let parsed = Type::parse(tokens)?;
    let place = tokens.location();
    let not_null = tokens.eat_words(&["not", "null"]);
    if !not_null {
        tokens.eat_words(&["null"]);
    } else if parsed.is_nullable {
        return Err(error_at(Error::invalid_definition, place, |at| {
            format!("column '{name}' is both nullable(…) and NOT NULL{at}")
        }));
    }
    Ok(parsed.into_field(name, !not_null))
}

pub(crate) fn body(tokens: &mut Tokens<'_>) -> Result<Body> {
    let line = tokens.location().line;
    let Some(Token::DollarQuotedString(quoted)) = tokens.peek(0) else {
        return Err(tokens.expected("the body between $$ and $$"));
    };
    tokens.advance();
    // Quotes and the text between them begin on one line.
    Ok(Body { text: Arc::from(quoted.value.as_str()), first_line: u32::try_from(line).unwrap_or(u32::MAX) })
}
