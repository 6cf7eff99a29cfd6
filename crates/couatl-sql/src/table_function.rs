//! `table(name)`, as streaming databases write a stream that is read to its end: here it is the name.

use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::lexer::is_significant;

/// Takes away `table(` and `)` around each name that stands where a relation does.
pub(crate) fn unwrap(tokens: &mut Vec<TokenWithSpan>) {
    let mut gone = Vec::new();
    let places: Vec<usize> = (0..tokens.len()).filter(|at| is_significant(&tokens[*at])).collect();
    let at = |place: usize| places.get(place).map(|place| &tokens[*place].token);
    for place in 0..places.len() {
        let begins_relation =
            place > 0 && matches!(at(place - 1), Some(token) if is_word(token, "from") || is_word(token, "join"));
        let opens = at(place).is_some_and(|token| is_word(token, "table")) && at(place + 1) == Some(&Token::LParen);
        if !(begins_relation && opens) {
            continue;
        }
        let mut end = place + 2;
        while matches!(at(end), Some(Token::Word(_) | Token::Period)) {
            end += 1;
        }
        if end > place + 2 && at(end) == Some(&Token::RParen) {
            gone.extend([places[place], places[place + 1], places[end]]);
        }
    }
    let mut index = 0;
    tokens.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}

fn is_word(token: &Token, expected: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(expected))
}

#[cfg(test)]
mod tests {
    use crate::{StatementKind, parse};

    #[test]
    fn only_names_where_relations_stand_are_unwrapped() {
        for (text, expected) in [
            ("SELECT count() FROM table(users)", "SELECT count() FROM users"),
            ("SELECT * FROM a JOIN TABLE ( public.b ) AS c", "SELECT * FROM a JOIN   public.b  AS c"),
            ("SELECT table(users) FROM t", "SELECT table(users) FROM t"),
            ("SELECT * FROM table(f(1))", "SELECT * FROM table(f(1))"),
            ("SELECT * FROM table()", "SELECT * FROM table()"),
        ] {
            let StatementKind::Other(tokens) = &parse(text).unwrap()[0].kind else { panic!("{text}") };
            let found: String = tokens.iter().map(|token| token.to_string()).collect();
            assert_eq!(found, expected);
        }
    }
}
