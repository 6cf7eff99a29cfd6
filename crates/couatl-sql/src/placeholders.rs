//! Placeholders of statements that DataFusion parses.
//!
//! DataFusion tells parameters apart by their id, and every `?` has the same one. They are numbered here, as tokens:
//! a `?` inside a string, a comment or a body is none.

use couatl_core::{Error, Result};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::tokens::error_at;

/// Rewrites each `?` to `$1`, `$2`, … in the order of the text, and `?7` to `$7`.
///
/// # Errors
/// A statement that has both `?` and numbered or named placeholders: nobody could say which value goes where.
pub(crate) fn number(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let mut positional = 0;
    let mut first_named = None;
    for token in tokens {
        let place = token.span.start;
        let Token::Placeholder(id) = &mut token.token else { continue };
        if id == "?" {
            positional += 1;
            *id = format!("${positional}");
        } else {
            first_named.get_or_insert_with(|| (id.clone(), place));
            if let Some(number) = id.strip_prefix('?') {
                *id = format!("${number}");
            }
        }
    }
    match first_named {
        Some((id, place)) if positional > 0 => Err(error_at(Error::invalid_syntax, place, |at| {
            format!("expected one kind of placeholder in a statement, found both '?' and '{id}'{at}")
        })),
        _ => Ok(()),
    }
}
