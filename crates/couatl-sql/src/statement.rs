//! Statements: which are ours, and which are DataFusion's.
//!
//! The first words decide. Once they say that a statement is ours, every error in it is ours too; a statement is
//! DataFusion's only if its first words are none of ours.

use std::fmt;

use couatl_core::{Error, Result};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::create::CreateStream;
use crate::depth;
use crate::function::{self, CreateFunction};
use crate::lexer::{self, Lexed};
use crate::name::StreamName;
use crate::placeholders;
use crate::table_function;
use crate::tokens::{Tokens, error_at, prefixed};

/// A statement, and the text that it was parsed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// What it says.
    pub kind: StatementKind,
    /// Its own text, to the letter: from its first token to its last, without what separates it from its neighbours.
    pub text: String,
    /// Which statement of its text it is.
    pub place: Place,
}

/// Which statement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its number; the first is 1.
    pub number: usize,
    /// How many statements the text has.
    pub of: usize,
}

impl Place {
    /// An error of this statement: where there are several, its message says once which one it is.
    pub fn mark(self, error: Error) -> Error {
        let place = format!("statement {} of {}", self.number, self.of);
        match self.of < 2 || error.to_string().starts_with(&place) {
            true => error,
            false => prefixed(error, &place),
        }
    }
}

/// What may be done with a stream or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Privilege {
    /// Read its rows.
    Select,
    /// Write rows to it.
    Insert,
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
        })
    }
}

/// What a statement says.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq)]
pub enum StatementKind {
    /// `CREATE EXTERNAL STREAM`
    CreateStream(Box<CreateStream>),
    /// `DROP STREAM`
    DropStream {
        /// The stream to drop.
        name: StreamName,
        /// Whether it is no error that there is none.
        if_exists: bool,
    },
    /// `CREATE FUNCTION`
    CreateFunction(Box<CreateFunction>),
    /// `DROP FUNCTION`
    DropFunction {
        /// The function to drop.
        name: String,
        /// Whether it is no error that there is none.
        if_exists: bool,
    },
    /// `SHOW CREATE FUNCTION`
    ShowCreateFunction(String),
    /// `SHOW STREAMS`
    ShowStreams,
    /// `SHOW CONNECTORS`
    ShowConnectors,
    /// `SHOW CREATE STREAM`
    ShowCreateStream(StreamName),
    /// `DESCRIBE name` or `DESC name`, and no more.
    Describe {
        /// What to describe: a stream, or anything else that DataFusion knows by this name.
        name: StreamName,
        /// The whole statement, for DataFusion's parser where the name is no stream's.
        tokens: Vec<TokenWithSpan>,
    },
    /// `SHOW QUERIES`
    ShowQueries,
    /// `KILL QUERY`
    KillQuery {
        /// The id that `SHOW QUERIES` lists.
        query_id: String,
    },
    /// `GRANT … ON … TO …` and `REVOKE … ON … FROM …`
    Grant {
        /// What may be done, or no more.
        privileges: Vec<Privilege>,
        /// With which stream or table.
        name: StreamName,
        /// By whom.
        user: String,
        /// Whether it is granted, or revoked.
        granted: bool,
    },
    /// Any other statement, for DataFusion's parser (`DFParserBuilder::new(tokens)`). Each `?` of it is numbered:
    /// `$1`, `$2`, … Places count from the start of [`Statement::text`].
    Other(Vec<TokenWithSpan>),
}

/// Parses a text of any number of statements, separated by semicolons. Statements without content are skipped.
///
/// All of the text is parsed before anything is returned: a text with an error has no statements.
///
/// # Errors
/// `invalid-syntax`, `invalid-setting` and `invalid-definition`, for statements of this language. Statements that are
/// DataFusion's are only cut into tokens, and must not be too deep to be planned.
///
/// ```
/// use couatl_sql::{StatementKind, parse};
///
/// let statements = parse("SHOW STREAMS; -- and then\n SELECT ';', ? ;")?;
/// assert_eq!(statements[0].kind, StatementKind::ShowStreams);
/// assert_eq!(statements[1].text, "SELECT ';', ?");
/// assert!(matches!(&statements[1].kind, StatementKind::Other(tokens) if tokens.last().unwrap().to_string() == "$1"));
///
/// let error = parse("CREATE EXTERNAL STREAM s (n strng) AS $$ $$ SETTINGS type = 'python'").unwrap_err();
/// assert_eq!(error.to_string(), "unknown type 'strng' at line 1, column 29; did you mean 'string'?");
/// # Ok::<(), couatl_core::Error>(())
/// ```
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    let lexed = lexer::statements(text)?;
    let of = lexed.len();
    let parsed = lexed.into_iter().enumerate().map(|(i, Lexed { text, tokens })| {
        let kind = match ours(&tokens).transpose() {
            Some(kind) => kind,
            None => other(tokens),
        };
        let place = Place { number: i + 1, of };
        Ok(Statement { kind: kind.map_err(|error| place.mark(error))?, text, place })
    });
    parsed.collect()
}

fn ours(all: &[TokenWithSpan]) -> Result<Option<StatementKind>> {
    let tokens = &mut Tokens::new(all);
    let starts = |words: &[&str]| tokens.at_words(words);

    let creates_external = starts(&["create", "external"]) || starts(&["create", "or", "replace", "external"]);
    let creates_table =
        starts(&["create", "external", "table"]) || starts(&["create", "or", "replace", "external", "table"]);
    if creates_external && !creates_table {
        return CreateStream::parse(tokens).map(|create| Some(StatementKind::CreateStream(Box::new(create))));
    }
    if CreateFunction::is_next(tokens) {
        return CreateFunction::parse(tokens).map(|create| Some(StatementKind::CreateFunction(Box::new(create))));
    }
    if starts(&["create", "stream"]) || starts(&["create", "or", "replace", "stream"]) {
        return Err(error_at(Error::invalid_syntax, tokens.location(), |at| {
            format!(
                "found CREATE STREAM{at}; expected CREATE EXTERNAL STREAM name (column type, …) AS $$ … $$ \
                 SETTINGS type = 'python'"
            )
        }));
    }
    if starts(&["drop", "external", "stream"]) {
        return Err(error_at(Error::invalid_syntax, tokens.location(), |at| {
            format!("found DROP EXTERNAL STREAM{at}; expected DROP STREAM [IF EXISTS] name")
        }));
    }

    let kind = if tokens.eat_words(&["drop", "stream"]) {
        let if_exists = tokens.eat_words(&["if", "exists"]);
        StatementKind::DropStream { name: StreamName::parse(tokens)?, if_exists }
    } else if tokens.eat_words(&["drop", "function"]) || tokens.eat_words(&["drop", "aggregate", "function"]) {
        let if_exists = tokens.eat_words(&["if", "exists"]);
        StatementKind::DropFunction { name: function::name(tokens)?, if_exists }
    } else if tokens.eat_words(&["show", "create", "function"]) {
        StatementKind::ShowCreateFunction(function::name(tokens)?)
    } else if tokens.eat_words(&["show", "streams"]) {
        StatementKind::ShowStreams
    } else if tokens.eat_words(&["show", "connectors"]) {
        StatementKind::ShowConnectors
    } else if tokens.eat_words(&["show", "create", "stream"]) {
        StatementKind::ShowCreateStream(StreamName::parse(tokens)?)
    } else if tokens.eat_words(&["show", "queries"]) {
        StatementKind::ShowQueries
    } else if tokens.eat_words(&["kill"]) {
        tokens.word("query")?;
        let query_id = tokens.string("the id of a query in quotes, as SHOW QUERIES lists it")?.to_owned();
        StatementKind::KillQuery { query_id }
    } else if tokens.eat_words(&["grant"]) {
        grant(tokens, true)?
    } else if tokens.eat_words(&["revoke"]) {
        grant(tokens, false)?
    } else {
        return Ok(None);
    };
    tokens.end("the end of the statement")?;
    Ok(Some(kind))
}

/// What follows GRANT or REVOKE.
fn grant(tokens: &mut Tokens<'_>, granted: bool) -> Result<StatementKind> {
    let mut privileges = Vec::new();
    loop {
        privileges.push(match () {
            () if tokens.eat_words(&["select"]) => Privilege::Select,
            () if tokens.eat_words(&["insert"]) => Privilege::Insert,
            () => return Err(tokens.expected("SELECT or INSERT")),
        });
        if !tokens.eat(&Token::Comma) {
            break;
        }
    }
    tokens.word("on")?;
    // Streams and tables share their names.
    let _ = (tokens.peek(1).is_some_and(|next| matches!(next, Token::Word(_) | Token::DoubleQuotedString(_)))
        && !tokens.at_words(&["to"]))
        && (tokens.eat_words(&["stream"]) || tokens.eat_words(&["table"]));
    let name = StreamName::parse(tokens)?;
    tokens.word(if granted { "to" } else { "from" })?;
    let user = tokens.name("the name of a user")?;
    Ok(StatementKind::Grant { privileges, name, user, granted })
}

fn other(mut tokens: Vec<TokenWithSpan>) -> Result<StatementKind> {
    if let Some(name) = described(&tokens) {
        return Ok(StatementKind::Describe { name, tokens });
    }
    table_function::unwrap(&mut tokens);
    depth::check(&tokens)?;
    placeholders::number(&mut tokens)?;
    Ok(StatementKind::Other(tokens))
}

/// The name of a statement that is `DESCRIBE name` and nothing more.
fn described(tokens: &[TokenWithSpan]) -> Option<StreamName> {
    let tokens = &mut Tokens::new(tokens);
    let describes = tokens.eat_words(&["describe"]) || tokens.eat_words(&["desc"]);
    if !describes || !matches!(tokens.peek(0), Some(Token::Word(_))) {
        return None;
    }
    let name = StreamName::parse(tokens).ok()?;
    tokens.end("").is_ok().then_some(name)
}
