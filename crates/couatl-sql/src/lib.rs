//! The language of Couatl: what a text says, never what becomes of it.
//!
//! Statements about streams are parsed here. The rest of SQL passes through as tokens for DataFusion's parser, so that
//! no text is ever printed to be parsed again. This crate knows types and grammar; it does not know whether a stream
//! exists, what a body does, or how a query runs.
//!
//! ```text
//!   text --lexer--> statements of tokens --statement--> CreateStream    (create: columns via types, settings)
//!                                                  |--> DropStream, ShowStreams, Describe, KillQuery …
//!                                                  '--> Other           (placeholders numbered, depth checked)
//!   StreamDefinition --print--> text
//! ```
//!
//! # Grammar
//!
//! ```text
//! CREATE [OR REPLACE] EXTERNAL STREAM [IF NOT EXISTS] name (column type [NOT NULL | NULL], …)
//!     AS $$ … $$                       -- or $tag$ … $tag$
//!     SETTINGS type = 'python', …
//! DROP STREAM [IF EXISTS] name
//! SHOW STREAMS
//! SHOW CREATE STREAM name
//! DESCRIBE name                        -- or DESC
//! SHOW QUERIES
//! KILL QUERY 'id'
//! ```
//!
//! A name has up to three parts. Words that are not quoted are folded to lower case, any word may name a column, and
//! comments may stand anywhere. The types are listed at [`parse_type`].
//!
//! # Errors
//!
//! Every error is of kind `invalid-syntax` (the text does not follow the grammar), `invalid-setting`, or
//! `invalid-definition` (it does, but its columns and types do not hold together). Lines and columns count within the
//! statement: line 1 is the line of its first token. They are in the message and in the context `line` and `column`. Where
//! a text holds several statements, the message starts with the number of the one that is wrong.

mod create;
mod depth;
mod function;
mod lexer;
mod name;
mod parameters;
mod placeholders;
mod print;
mod settings;
mod statement;
mod table_function;
mod tokens;
mod types;

pub use create::{CreateStream, parse_columns};
pub use function::{CreateFunction, create_function_statement};
pub use name::StreamName;
pub use print::create_statement;
pub use statement::{Place, Privilege, Statement, StatementKind, parse};
pub use types::parse_type;
