//! Values that a statement gives to types and settings: whole numbers within a range, and the nearest known word.

use std::ops::RangeInclusive;

use couatl_core::{Error, Result};
use sqlparser::tokenizer::Token;

use crate::tokens::{Tokens, error_at};

/// Reads a whole number within a range, with its sign.
pub(crate) fn whole_number(tokens: &mut Tokens<'_>, range: RangeInclusive<i64>, what: &str) -> Result<i64> {
    let negative = tokens.peek(0) == Some(&Token::Minus);
    let number = match tokens.peek(usize::from(negative)) {
        Some(Token::Number(digits, false)) => digits.parse::<i64>().ok(),
        _ => None,
    };
    let expected = || format!("{what} from {} to {}", range.start(), range.end());
    match number.map(|number| if negative { -number } else { number }) {
        Some(number) if range.contains(&number) => {
            (0..=usize::from(negative)).for_each(|_| tokens.advance());
            Ok(number)
        }
        Some(number) => Err(error_at(Error::invalid_definition, tokens.location(), |at| {
            format!("expected {}, found {number}{at}", expected())
        })),
        None => Err(tokens.expected(&expected())),
    }
}

/// The known word that someone who wrote this one most likely meant, if any is near.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time by the product of the lengths, and no known word is this long.
    if word.len() > 100 {
        return None;
    }
    let known: Vec<_> = known.into_iter().collect();
    // The beginning of a longer word says which one is meant, however much is missing.
    if word.len() >= 4
        && let Some(whole) = known.iter().find(|candidate| candidate.starts_with(word))
    {
        return Some(whole);
    }
    let most_edits = (word.chars().count() / 3).max(1);
    let scored = known.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    scored.filter(|(edits, _)| *edits <= most_edits).min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}
