//! A text, cut into statements of tokens.
//!
//! sqlparser's tokenizer is the only lexer: what it takes for a string, a comment or a dollar-quoted body is what
//! DataFusion's parser would take for one, and it hands bodies over to the letter. What it does not do is done here:
//! cutting at `;`, keeping each statement's own text, counting lines from the statement's first token, and saying where
//! an unclosed quote opens (its own errors point at the end of the text).

use std::any::TypeId;

use couatl_core::{Error, Result};
use sqlparser::dialect::{Dialect, GenericDialect};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, TokenizerError};

use crate::tokens::{error_at, prefixed};

/// One statement: its own text, and its tokens with places relative to that text.
pub(crate) struct Lexed {
    pub(crate) text: String,
    /// Blanks and comments between the tokens included, for DataFusion's parser; those around them not.
    pub(crate) tokens: Vec<TokenWithSpan>,
}

/// Cuts a text at its semicolons. Statements without a token are skipped.
pub(crate) fn statements(text: &str) -> Result<Vec<Lexed>> {
    let mut walk = Walk::new(text);
    let mut out = Vec::new();
    let mut current = Vec::new();
    let tokens = lex(text).map_err(|stopped| {
        let statements: Vec<_> = stopped.read.split(|token| token.token == Token::SemiColon).collect();
        let first = statements.last().and_then(|current| current.iter().find(|token| is_significant(token)));
        let origin = first.map_or(stopped.place(), |token| token.span.start);
        // The rest cannot be read: nobody knows how many more there are.
        let before = statements.iter().rev().skip(1).filter(|statement| statement.iter().any(is_significant)).count();
        let error = stopped.into_error(text, origin);
        if before == 0 { error } else { prefixed(error, &format!("statement {}", before + 1)) }
    })?;
    for token in tokens {
        if token.token == Token::SemiColon {
            out.extend(statement(&mut walk, std::mem::take(&mut current)));
        } else {
            current.push(token);
        }
    }
    out.extend(statement(&mut walk, current));
    Ok(out)
}

/// The tokens of a text that is no statement.
pub(crate) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    lex(text).map_err(|stopped| stopped.into_error(text, Location::new(1, 1)))
}

fn lex(text: &str) -> std::result::Result<Vec<TokenWithSpan>, Stopped> {
    let mut read = Vec::new();
    match Tokenizer::new(&Lexis, text).tokenize_with_location_into_buf(&mut read) {
        Ok(()) => Ok(read),
        Err(error) => Err(Stopped { read, error }),
    }
}

fn statement(walk: &mut Walk<'_>, mut tokens: Vec<TokenWithSpan>) -> Option<Lexed> {
    let last = tokens.iter().rposition(is_significant)?;
    tokens.truncate(last + 1);
    let first = tokens.iter().position(is_significant)?;
    tokens.drain(..first);

    let (start, end) = (tokens.first()?.span.start, tokens.last()?.span.end);
    let bytes = walk.seek(start)..walk.seek(end);
    for token in &mut tokens {
        token.span = Span::new(relative(token.span.start, start), relative(token.span.end, start));
    }
    Some(Lexed { text: walk.text[bytes].to_owned(), tokens })
}

pub(crate) fn is_significant(token: &TokenWithSpan) -> bool {
    !matches!(token.token, Token::Whitespace(_))
}

/// A place in the text as a place in the statement that starts at `origin`.
fn relative(place: Location, origin: Location) -> Location {
    let column = if place.line == origin.line { place.column - origin.column + 1 } else { place.column };
    Location::new(place.line - origin.line + 1, column)
}

/// A tokenizer that gave up, and what it had read by then.
struct Stopped {
    read: Vec<TokenWithSpan>,
    error: TokenizerError,
}

impl Stopped {
    /// Where the token starts that could not be read: where the last one ends that could.
    fn place(&self) -> Location {
        self.read.last().map_or(Location::new(1, 1), |token| token.span.end)
    }

    /// The error, with its place relative to an origin.
    fn into_error(self, text: &str, origin: Location) -> Error {
        let rest = &text[Walk::new(text).seek(self.place())..];
        let place = relative(self.place(), origin);
        let message = self.error.message.trim_end_matches('.');
        let unclosed = ["Unterminated", "Unexpected EOF while in", "Expected close"];
        if !unclosed.iter().any(|start| message.starts_with(start)) {
            let mut message = message.to_owned();
            if let Some(first) = message.get_mut(..1) {
                first.make_ascii_lowercase();
            }
            return error_at(Error::invalid_syntax, place, |at| message + at);
        }
        let (what, doubt) = match rest.chars().next() {
            Some('$') => (format!("text in {} quotes", dollar_quote(rest)), ""),
            Some('"' | '`') => ("quoted name".to_owned(), ""),
            Some('/') => ("comment".to_owned(), ""),
            // Of these the tokenizer says no more when an escape is malformed.
            Some('e' | 'E') => ("string".to_owned(), ", or has an escape that is none"),
            _ => ("string".to_owned(), ""),
        };
        error_at(Error::invalid_syntax, place, |at| format!("the {what} that opens{at} is not closed{doubt}"))
    }
}

/// The `$$` or `$tag$` that a text starts with.
fn dollar_quote(text: &str) -> &str {
    let end = text.match_indices('$').nth(1).map_or(text.len(), |(second, dollar)| second + dollar.len());
    &text[..end]
}

/// Turns the tokenizer's places, asked for in ascending order, into byte offsets, in one pass over the text.
struct Walk<'a> {
    text: &'a str,
    byte: usize,
    place: Location,
}

impl<'a> Walk<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, byte: 0, place: Location::new(1, 1) }
    }

    fn seek(&mut self, to: Location) -> usize {
        for char in self.text[self.byte..].chars() {
            if self.place >= to {
                break;
            }
            self.byte += char.len_utf8();
            self.place = match char {
                '\n' => Location::new(self.place.line + 1, 1),
                _ => Location::new(self.place.line, self.place.column + 1),
            };
        }
        self.byte
    }
}

/// The lexical rules of DataFusion's default dialect, but for MySQL's `/*! … */`, which is a comment here as it looks:
/// [`GenericDialect`] would splice what it holds into the statement.
#[derive(Debug)]
struct Lexis;

/// Forwards what the tokenizer asks of a dialect.
macro_rules! as_generic {
    ($($name:ident($($arg:ident: $type:ty)?);)*) => {
        $(fn $name(&self, $($arg: $type)?) -> bool { GenericDialect.$name($($arg)?) })*
    };
}

impl Dialect for Lexis {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn supports_multiline_comment_hints(&self) -> bool {
        false
    }

    as_generic! {
        ignores_wildcard_escapes();
        is_custom_operator_part(ch: char);
        is_delimited_identifier_start(ch: char);
        is_identifier_part(ch: char);
        is_identifier_start(ch: char);
        requires_single_line_comment_whitespace();
        supports_dollar_as_money_prefix();
        supports_dollar_placeholder();
        supports_geometric_types();
        supports_nested_comments();
        supports_numeric_literal_underscores();
        supports_numeric_prefix();
        supports_pipe_operator();
        supports_quote_delimited_string();
        supports_string_escape_constant();
        supports_string_literal_backslash_escape();
        supports_triple_quoted_string();
        supports_unicode_string_literal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line for each thing that the tokenizer decides by dialect.
    const SAMPLES: &[&str] = &[
        "select a$b, #c, @d, _e, é1 from `t` \"u\"\"v\"",
        "'a\\' 'it''s' '''' e'\\n\\'' E'x' n'y' N'z' q'[it's]' nq'{a}' x'ff' b'01' r'a\\b' r'''c'''  U&'d\\0061'",
        "1_000 1e5 1.5 .5 0xff 10L 1a t.1 a._b",
        "-- c\n --d\n /* a /* b */ c */ // # e",
        "? ?1 $1 $x $$a$b$$ $t$ $$ $t$",
        "a |> b || c | d <-> e @> f <@ g -> h ->> i #> j ~* k ?| l ?& m << >> & ^ %x ! !!",
    ];

    #[test]
    fn lexes_as_datafusion_does() {
        for sample in SAMPLES {
            let ours = Tokenizer::new(&Lexis, sample).tokenize_with_location().unwrap();
            assert_eq!(ours, Tokenizer::new(&GenericDialect, sample).tokenize_with_location().unwrap(), "{sample}");
            assert!(ours.len() > 10);
        }
        let hint = "select /*!50110 1; */ 2";
        assert_eq!(statements(hint).unwrap().len(), 1);
        assert!(Tokenizer::new(&GenericDialect, hint).tokenize().unwrap().contains(&Token::SemiColon));
    }
}
