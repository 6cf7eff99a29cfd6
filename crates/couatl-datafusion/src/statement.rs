//! A statement before and after it has run.

use arrow::datatypes::SchemaRef;
use couatl_sql::{Statement, StatementKind};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::parser::{DFParserBuilder, Statement as DataFusionStatement};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

/// A text that has been parsed and planned, and not run. It keeps the statements: each execution plans them anew, so
/// that streams may be replaced in between.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) sql: String,
    /// What runs before the last statement, in order.
    pub(crate) leading: Vec<Statement>,
    pub(crate) last: Statement,
    pub(crate) is_update: bool,
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: SchemaRef,
}

impl Prepared {
    /// The text, as it came.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Whether it changes something (DDL, INSERT, COPY, SET …) rather than giving rows.
    pub fn is_update(&self) -> bool {
        self.is_update
    }

    /// Whether other statements come before the last: then they must run before its schema is certain, see
    /// [`Session::run_leading`](crate::Session::run_leading).
    pub fn has_leading(&self) -> bool {
        !self.leading.is_empty()
    }

    /// The schema of its rows, the same that its execution delivers; without view types. Empty for an update.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The parameters in order, named `$1`, `$2`, …, with the types that planning found; Null where it found none.
    pub fn parameters(&self) -> SchemaRef {
        self.parameters.clone()
    }
}

/// What an execution gives.
pub enum Outcome {
    /// Rows, with the schema that was prepared; dropping the stream cancels the query.
    Rows(SendableRecordBatchStream),
    /// Done; with the number of rows written where the statement counts them.
    Updated(Option<u64>),
}

/// DataFusion's statement for tokens.
pub(crate) fn parse_tokens(tokens: Vec<TokenWithSpan>) -> Result<DataFusionStatement> {
    let mut statements = DFParserBuilder::new(tokens).build()?.parse_statements()?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => plan_err!("expected one statement"),
    }
}

/// DataFusion's statement for a text that holds one.
pub(crate) fn datafusion_statement(text: &str) -> Result<DataFusionStatement> {
    let mut statements = couatl_sql::parse(text).map_err(crate::into_datafusion)?;
    match (statements.pop().map(|statement| statement.kind), statements.is_empty()) {
        (Some(StatementKind::Other(tokens)), true) => parse_tokens(tokens),
        _ => plan_err!("expected one statement of SQL"),
    }
}
