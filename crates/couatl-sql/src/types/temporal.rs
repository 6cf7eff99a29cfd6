//! Timestamps: their precision and their zone.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::datatypes::{DataType, TimeUnit};
use couatl_core::Result;
use sqlparser::tokenizer::Token;

use super::{Type, invalid};
use crate::parameters::whole_number;
use crate::tokens::Tokens;

const UTC: &str = "UTC";

/// What follows `timestamp` or `datetime`.
pub(super) fn timestamp(tokens: &mut Tokens<'_>) -> Result<Type> {
    let unit = unit(tokens)?;
    if tokens.eat_words(&["with", "time", "zone"]) {
        return Ok(in_zone(unit, UTC));
    }
    tokens.eat_words(&["without", "time", "zone"]);
    Ok(Type::plain(DataType::Timestamp(unit, None)))
}

/// What follows `timestamptz`.
pub(super) fn timestamptz(tokens: &mut Tokens<'_>) -> Result<Type> {
    Ok(in_zone(unit(tokens)?, UTC))
}

/// What follows `datetime64`.
pub(super) fn datetime64(tokens: &mut Tokens<'_>) -> Result<Type> {
    if !tokens.eat(&Token::LParen) {
        return Ok(Type::plain(DataType::Timestamp(TimeUnit::Millisecond, None)));
    }
    let unit = precision(tokens)?;
    let mut parsed = Type::plain(DataType::Timestamp(unit, None));
    if tokens.eat(&Token::Comma) {
        let place = tokens.location();
        let zone = tokens.string("a time zone in quotes")?;
        // Arrow reads a zone each time it prints or casts a value: better refused here than there.
        if zone.parse::<Tz>().is_err() {
            return Err(invalid(place, |at| {
                format!(
                    "unknown time zone '{zone}'{at}; expected a name like 'Europe/Paris' or an offset like '+02:00'"
                )
            }));
        }
        parsed = in_zone(unit, zone);
    }
    tokens.token(&Token::RParen)?;
    Ok(parsed)
}

fn in_zone(unit: TimeUnit, zone: &str) -> Type {
    Type::plain(DataType::Timestamp(unit, Some(Arc::from(zone))))
}

/// An optional `(p)`; without one, microseconds.
fn unit(tokens: &mut Tokens<'_>) -> Result<TimeUnit> {
    if !tokens.eat(&Token::LParen) {
        return Ok(TimeUnit::Microsecond);
    }
    let unit = precision(tokens)?;
    tokens.token(&Token::RParen)?;
    Ok(unit)
}

/// Digits of a second, as the coarsest unit that holds them.
fn precision(tokens: &mut Tokens<'_>) -> Result<TimeUnit> {
    Ok(match whole_number(tokens, 0..=9, "a precision")? {
        0 => TimeUnit::Second,
        1..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    })
}
