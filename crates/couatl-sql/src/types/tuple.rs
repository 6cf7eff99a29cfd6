//! Tuples: the one type whose parameters may have names.

use std::collections::HashSet;

use arrow::datatypes::{DataType, Field, Fields};
use couatl_core::Result;
use sqlparser::tokenizer::{Location, Token};

use super::{Bracket, Type, invalid};
use crate::tokens::Tokens;

/// Reads the members. Either all of them have names or none has: the first one decides.
pub(super) fn parse(tokens: &mut Tokens<'_>, level: usize, place: Location) -> Result<Type> {
    let close = Bracket::open(tokens)?;
    let named = starts_with_a_name(tokens);
    let mut members: Vec<Field> = Vec::new();
    let mut names = HashSet::new();
    let mut levels = 0;
    loop {
        let member_place = tokens.location();
        if matches!(tokens.peek(0), Some(Token::Word(_))) && starts_with_a_name(tokens) != named {
            return Err(invalid(member_place, |at| {
                format!("expected names for all members of a tuple or for none, found both{at}")
            }));
        }
        let name = match named {
            true => tokens.name("the name of a member")?,
            false => (members.len() + 1).to_string(),
        };
        if !names.insert(name.clone()) {
            return Err(invalid(member_place, |at| format!("two members of a tuple are named '{name}'{at}")));
        }
        let member = Type::parse_inside(tokens, level + 1)?;
        levels = levels.max(member.levels);
        members.push(member.into_field(name, true));
        if !tokens.eat(&Token::Comma) {
            break;
        }
    }
    close.close(tokens)?;
    Type::nested(DataType::Struct(Fields::from(members)), levels, place)
}

/// Two words in a row are a name and a type, unless they are one of the types of several words.
fn starts_with_a_name(tokens: &Tokens<'_>) -> bool {
    const TYPES: &[[&str; 2]] = &[
        ["double", "precision"],
        ["timestamp", "with"],
        ["timestamp", "without"],
        ["datetime", "with"],
        ["datetime", "without"],
    ];
    let words = [tokens.peek(0), tokens.peek(1)];
    words.iter().all(|token| matches!(token, Some(Token::Word(_)))) && !TYPES.iter().any(|words| tokens.at_words(words))
}
