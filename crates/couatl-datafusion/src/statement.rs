//! A statement before and after it has run.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use couatl_core::Error;
use couatl_sql::{Statement, StatementKind};
use datafusion::common::{ResolvedTableReference, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::{DFParserBuilder, Statement as DataFusionStatement};
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::catalog::{Home, is_managed};
use crate::session::resolved;
use crate::table_function::with_queries;
use crate::{calling, depth, expansion, from_datafusion, insert, into_datafusion, untyped, view};

/// A text that has been parsed and planned, and not run. It keeps the statements: each execution plans them anew, so
/// that streams may be replaced in between.
///
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) sql: Arc<str>,
    /// What runs before the last statement, in order.
    pub(crate) leading: Arc<[Statement]>,
    pub(crate) last: Arc<Statement>,
    pub(crate) described: Description,
}

/// What planning a statement tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    /// Whether there is a plan; else there will be with what runs before it, or with the types of its parameters.
    pub(crate) is_planned: bool,
    pub(crate) is_update: bool,
    /// Whether running it changes something; every update does.
    pub(crate) changes: bool,
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: SchemaRef,
    /// The table of each column, as [`Prepared::origin`] gives it.
    pub(crate) origins: Arc<[Option<ResolvedTableReference>]>,
}

impl Description {
    /// Of what changes something.
    pub(crate) fn update() -> Self {
        Self { is_update: true, changes: true, ..Self::rows(Arc::new(Schema::empty())) }
    }

    /// Of rows with these columns.
    pub(crate) fn rows(schema: SchemaRef) -> Self {
        Self {
            is_planned: true,
            is_update: false,
            changes: false,
            schema,
            parameters: Arc::new(Schema::empty()),
            origins: Arc::default(),
        }
    }
}

impl Prepared {
    /// The text, as it came.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// About how many bytes it holds: the text, and its statements with their tokens.
    pub fn bytes(&self) -> usize {
        const TIMES: usize = 5;
        self.sql.len().saturating_mul(TIMES)
    }

    /// Whether its schema is known: that of `SELECT ? || ?` depends on the types of its values, see
    /// [`Session::bind`](crate::Session::bind).
    pub fn has_schema(&self) -> bool {
        self.described.is_planned || self.described.is_update
    }

    /// Whether it changes something (DDL, INSERT, COPY, SET …) rather than giving rows.
    pub fn is_update(&self) -> bool {
        self.described.is_update
    }

    /// Whether running it changes something: an update does, and so does one whose time is measured.
    pub fn changes(&self) -> bool {
        self.described.changes || self.has_leading()
    }

    /// Whether other statements come before the last: then they must run before its schema is certain, see
    /// [`Session::run_leading`](crate::Session::run_leading).
    pub fn has_leading(&self) -> bool {
        !self.leading.is_empty()
    }

    /// The schema of its rows, the same that its execution delivers; without view types. Empty for an update, and where it
    /// is not known.
    pub fn schema(&self) -> SchemaRef {
        self.described.schema.clone()
    }

    /// The table that a column comes from as it is, where there is one.
    pub fn origin(&self, column: usize) -> Option<&ResolvedTableReference> {
        self.described.origins.get(column)?.as_ref()
    }

    /// The parameters in order, named `$1`, `$2`, …, with the types that planning found; Null where it found none.
    pub fn parameters(&self) -> SchemaRef {
        self.described.parameters.clone()
    }
}

/// What an execution gives.
pub enum Outcome {
    /// Rows, with the schema that was prepared; dropping the stream cancels the query.
    Rows(SendableRecordBatchStream),
    /// Done; with the number of rows written where the statement counts them.
    Updated(Option<u64>),
}

/// Parses a text of any number of statements: those of streams as [`couatl_sql::parse`] does, and the others as far as
/// DataFusion's grammar goes. A text in which a statement is malformed has none, and so nothing of it runs.
///
/// # Errors
/// What is wrong with the text, with the number of the statement where there are several.
pub fn parse(text: &str) -> couatl_core::Result<Vec<Statement>> {
    let statements = couatl_sql::parse(text)?;
    for statement in &statements {
        if let StatementKind::Other(tokens) = &statement.kind {
            let parsed = depth::with_stack(|| parse_tokens(tokens.clone()).map(drop));
            parsed.map_err(|error| statement.place.mark(from_datafusion(error)))?;
        }
    }
    Ok(statements)
}

/// Deeper than any statement that couatl-sql takes: the parser, which reads some forms anew when it has come to its
/// limit, is never to come to it.
const PARSER_LEVELS: usize = 10_000;

/// DataFusion's statement for tokens.
pub(crate) fn parse_tokens(tokens: Vec<TokenWithSpan>) -> Result<DataFusionStatement> {
    let mut statements =
        DFParserBuilder::new(tokens).with_recursion_limit(PARSER_LEVELS).build()?.parse_statements()?;
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

/// The plan of a statement whose parameters have these values, where they are known. A view reads no parameters and not
/// itself, and what is planned must not be too deep.
pub(crate) async fn plan(
    state: &SessionState,
    home: &Home,
    tokens: Vec<TokenWithSpan>,
    values: &[ScalarValue],
) -> Result<LogicalPlan> {
    let types: Vec<_> = values.iter().map(ScalarValue::data_type).collect();
    match planned(state, home, tokens.clone(), &types).await {
        Err(error) if !values.is_empty() && untyped::is_of_types(&error) => {
            let (state, tokens) = untyped::with_stand_ins(state, tokens, values)?;
            untyped::without_stand_ins(planned(&state, home, tokens, &types).await?)
        }
        planned => planned,
    }
}

async fn planned(
    state: &SessionState,
    home: &Home,
    tokens: Vec<TokenWithSpan>,
    types: &[DataType],
) -> Result<LogicalPlan> {
    let has_parameters = tokens.iter().any(|token| matches!(token.token, Token::Placeholder(_)));
    let mut statement = parse_tokens(tokens)?;
    with_queries(home, &mut statement);
    no_transactions(&statement)?;
    expansion::check(state, &statement)?;
    no_enforced_keys(&statement)?;
    let plan = match created_view(&statement) {
        Some(_) if has_parameters => {
            let message = "a view cannot have parameters: those who read it give none; write their values out";
            return Err(into_datafusion(Error::invalid_argument(message)));
        }
        Some(name) => {
            let name =
                object_name_to_table_reference(name, state.config_options().sql_parser.enable_ident_normalization)?;
            let name = resolved(state, name);
            let planning = insert::statement_to_plan(state, statement, types);
            match is_managed(state.catalog_list().as_ref(), &name) {
                true => view::created(&name, planning).await?,
                false => planning.await?,
            }
        }
        None => insert::statement_to_plan(state, statement, types).await?,
    };
    calling::check(&plan)?;
    depth::check(&plan)?;
    Ok(plan)
}

fn no_transactions(statement: &DataFusionStatement) -> Result<()> {
    use ast::Statement::{Commit, ReleaseSavepoint, Rollback, Savepoint, StartTransaction};
    let DataFusionStatement::Statement(statement) = statement else { return Ok(()) };
    match **statement {
        StartTransaction { .. } | Commit { .. } | Rollback { .. } | Savepoint { .. } | ReleaseSavepoint { .. } => {
            let message = "transactions are not offered: each statement takes effect on its own";
            Err(into_datafusion(Error::unsupported(message)))
        }
        _ => Ok(()),
    }
}

/// Refuses a key that rows would be held to: tables in memory take any row, and plans trust in keys.
fn no_enforced_keys(statement: &DataFusionStatement) -> Result<()> {
    let DataFusionStatement::Statement(statement) = statement else { return Ok(()) };
    let ast::Statement::CreateTable(table) = &**statement else { return Ok(()) };
    let of_columns = table.columns.iter().flat_map(|column| &column.options).map(|option| match &option.option {
        ast::ColumnOption::PrimaryKey(key) => Some(("PRIMARY KEY", &key.characteristics)),
        ast::ColumnOption::Unique(key) => Some(("UNIQUE", &key.characteristics)),
        _ => None,
    });
    let of_table = table.constraints.iter().map(|constraint| match constraint {
        ast::TableConstraint::PrimaryKey(key) => Some(("PRIMARY KEY", &key.characteristics)),
        ast::TableConstraint::Unique(key) => Some(("UNIQUE", &key.characteristics)),
        _ => None,
    });
    let enforced = |characteristics: &Option<ast::ConstraintCharacteristics>| {
        characteristics.as_ref().and_then(|said| said.enforced) != Some(false)
    };
    match of_columns.chain(of_table).flatten().find(|(_, characteristics)| enforced(characteristics)) {
        None => Ok(()),
        Some((key, _)) => Err(into_datafusion(Error::unsupported(format!(
            "a table in memory does not hold its rows to {key}: leave it out, or say {key} NOT ENFORCED where you see \
             to it yourself"
        )))),
    }
}

/// Whether a statement that cannot be planned yet looks like one that gives rows.
pub(crate) fn gives_rows(statement: &Statement) -> bool {
    let word = statement.text.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty()).unwrap_or("");
    let words = ["select", "with", "values", "table", "show", "describe", "desc", "explain", "execute"];
    words.iter().any(|query| word.eq_ignore_ascii_case(query))
}

/// The name of the view that a statement makes.
fn created_view(statement: &DataFusionStatement) -> Option<ast::ObjectName> {
    match statement {
        DataFusionStatement::Statement(statement) => match &**statement {
            ast::Statement::CreateView(view) => Some(view.name.clone()),
            _ => None,
        },
        _ => None,
    }
}
