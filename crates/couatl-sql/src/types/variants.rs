//! Enums: the names that a column may hold, and their codes.
//!
//! Arrow stores an enum as a dictionary, whose keys are positions. The codes are kept beside it, as metadata.

use std::collections::{HashMap, HashSet};

use arrow::datatypes::DataType;
use couatl_core::{ENUM_METADATA_KEY, Result, enum_metadata};
use sqlparser::tokenizer::{Location, Token};

use super::{Type, invalid};
use crate::parameters::whole_number;
use crate::tokens::Tokens;

/// Reads the names and codes of an enum whose keys are of this type, Int8 or Int16.
///
/// A name without a code has the one after its predecessor's, and the first one 1, as ClickHouse numbers them.
pub(super) fn parse(tokens: &mut Tokens<'_>, key: DataType, place: Location) -> Result<Type> {
    let (range, spelling) = match key {
        DataType::Int8 => (i64::from(i8::MIN)..=i64::from(i8::MAX), "enum8"),
        _ => (i64::from(i16::MIN)..=i64::from(i16::MAX), "enum16"),
    };
    tokens.token(&Token::LParen)?;
    let mut variants: Vec<(&str, i64)> = Vec::new();
    let (mut names, mut by_code) = (HashSet::new(), HashMap::new());
    loop {
        let variant_place = tokens.location();
        let name = tokens.string("a name in quotes")?;
        let code = match tokens.eat(&Token::Eq) {
            true => whole_number(tokens, range.clone(), "a code")?,
            false => variants.last().map_or(1, |(_, last)| last + 1),
        };
        if !range.contains(&code) {
            return Err(invalid(variant_place, |at| {
                format!("'{name}' would have the code {code}{at}, and codes of an {spelling} end at {}", range.end())
            }));
        }
        if !names.insert(name) {
            return Err(invalid(variant_place, |at| format!("an enum has the name '{name}' twice{at}")));
        }
        if let Some(other) = by_code.insert(code, name) {
            return Err(invalid(variant_place, |at| {
                format!("the names '{other}' and '{name}' of an enum have the same code {code}{at}")
            }));
        }
        variants.push((name, code));
        if !tokens.eat(&Token::Comma) {
            break;
        }
    }
    tokens.token(&Token::RParen)?;

    // Codes may be negative, positions are not: of an enum8's 256 codes, 128 fit.
    let most = *range.end() as usize + 1;
    if variants.len() > most {
        return Err(invalid(place, |at| {
            format!("an {spelling} has at most {most} names, found {}{at}", variants.len())
        }));
    }
    // Codes are within the range, which i16 holds.
    let codes: Vec<_> = variants.into_iter().map(|(name, code)| (name.to_owned(), code as i16)).collect();
    let data_type = DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8));
    Ok(Type::extension(data_type, &[(ENUM_METADATA_KEY, &enum_metadata(&codes))]))
}
