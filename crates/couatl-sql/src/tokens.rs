//! A cursor over the tokens of one text, for a parser that reads from left to right.
//!
//! It is the one place that says "expected …, found … at line …, column …".

use couatl_core::{Error, Result};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Word};

use crate::lexer::is_significant;

/// What is left to read. Blanks and comments are not seen.
pub(crate) struct Tokens<'a> {
    tokens: Vec<&'a TokenWithSpan>,
    next: usize,
    /// Whether the first half of a `>>` has been read: it closes two levels of `array<array<T>>`.
    inside_shift: bool,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(tokens: &'a [TokenWithSpan]) -> Self {
        Self { tokens: tokens.iter().filter(|token| is_significant(token)).collect(), next: 0, inside_shift: false }
    }

    /// The token `ahead` places from here, 0 being the next one.
    pub(crate) fn peek(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.next + ahead).map(|token| &token.token)
    }

    /// Where the next token starts, or where the last one ends.
    pub(crate) fn location(&self) -> Location {
        match self.tokens.get(self.next) {
            Some(token) => token.span.start,
            None => self.tokens.last().map_or(Location::new(1, 1), |token| token.span.end),
        }
    }

    pub(crate) fn advance(&mut self) {
        self.next += 1;
    }

    /// Whether the next tokens are these words, in any case and not quoted.
    pub(crate) fn at_words(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| self.peek(ahead).is_some_and(|token| is_word(token, word)))
    }

    /// Reads these words if they are next.
    pub(crate) fn eat_words(&mut self, words: &[&str]) -> bool {
        let found = self.at_words(words);
        if found {
            self.next += words.len();
        }
        found
    }

    /// Reads this word.
    pub(crate) fn word(&mut self, word: &str) -> Result<()> {
        if self.eat_words(&[word]) { Ok(()) } else { Err(self.expected(&word.to_ascii_uppercase())) }
    }

    /// Reads this token if it is next.
    pub(crate) fn eat(&mut self, token: &Token) -> bool {
        let found = self.peek(0) == Some(token);
        if found {
            self.next += 1;
        }
        found
    }

    /// Reads this token.
    pub(crate) fn token(&mut self, token: &Token) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.expected(&format!("'{token}'"))) }
    }

    /// Reads one `>`, which may be half of a `>>`.
    pub(crate) fn eat_greater(&mut self) -> bool {
        match self.peek(0) {
            Some(Token::Gt) => self.advance(),
            Some(Token::ShiftRight) if self.inside_shift => {
                self.inside_shift = false;
                self.advance();
            }
            Some(Token::ShiftRight) => self.inside_shift = true,
            _ => return false,
        }
        true
    }

    /// Reads a name, folded as DataFusion folds it: to lower case unless quoted.
    pub(crate) fn name(&mut self, what: &str) -> Result<String> {
        match self.peek(0) {
            Some(Token::Word(word)) if !word.value.is_empty() => {
                self.advance();
                Ok(folded(word))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Reads a string.
    pub(crate) fn string(&mut self, what: &str) -> Result<&'a str> {
        match self.peek(0) {
            Some(Token::SingleQuotedString(text)) => {
                self.advance();
                Ok(text)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self, what: &str) -> Result<()> {
        if self.next < self.tokens.len() { Err(self.expected(what)) } else { Ok(()) }
    }

    /// The error of finding the next token where something else is expected.
    pub(crate) fn expected(&self, what: &str) -> Error {
        let found = self.peek(0).map_or("the end of the text".to_owned(), describe);
        error_at(Error::invalid_syntax, self.location(), |at| format!("expected {what}, found {found}{at}"))
    }
}

/// An error about a place: the message is made from its wording (` at line 1, column 2`).
pub(crate) fn error_at(
    kind: impl FnOnce(String) -> Error,
    place: Location,
    message: impl FnOnce(&str) -> String,
) -> Error {
    let at = format!(" at line {}, column {}", place.line, place.column);
    kind(message(&at)).with_context("line", place.line.to_string()).with_context("column", place.column.to_string())
}

/// The same error, whose message says first what it is in.
pub(crate) fn prefixed(error: Error, place: &str) -> Error {
    let prefixed = Error::new(error.kind(), format!("{place}: {error}"));
    let prefixed = error.context().fold(prefixed, |prefixed, (key, value)| prefixed.with_context(key, value));
    prefixed.with_source(error)
}

fn is_word(token: &Token, expected: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

fn folded(word: &Word) -> String {
    match word.quote_style {
        Some(_) => word.value.clone(),
        None => word.value.to_ascii_lowercase(),
    }
}

/// A token as an error quotes it.
fn describe(token: &Token) -> String {
    match token {
        Token::DollarQuotedString(_) => "a text in dollar quotes".to_owned(),
        Token::SingleQuotedString(text) => format!("the string '{}'", shortened(text)),
        other => format!("'{}'", shortened(&other.to_string())),
    }
}

/// A text as an error quotes it: it may be a megabyte.
pub(crate) fn shortened(text: &str) -> String {
    const MOST_CHARS: usize = 40;
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
