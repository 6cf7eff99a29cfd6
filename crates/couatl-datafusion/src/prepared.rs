//! `PREPARE`, `EXECUTE` and `DEALLOCATE`: what a session keeps is the statement as it was written. Each execution plans it
//! anew, so that its names mean what they mean then, and binds its values as those of a driver are bound: exactly.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema};
use couatl_core::{Error, ErrorKind, Result, type_spelling};
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ParamValues, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Execute, Expr, LogicalPlan, Prepare, Statement as PlanStatement};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::sql::parser::Statement as DataFusionStatement;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use parking_lot::RwLock;

use crate::session::Session;
use crate::statement::{datafusion_statement, parse_tokens};
use crate::store::{storable, store};
use crate::{from_datafusion, parameters, untyped, uuid_text};

/// The most statements that a session keeps.
const MOST_STATEMENTS: usize = 1_000;
/// The most bytes that they take, all together.
const MOST_BYTES: usize = 64 << 20;

/// What a session keeps, by name.
pub(crate) type PreparedStatements = RwLock<HashMap<String, Arc<Kept>>>;

/// A statement that was prepared.
pub(crate) struct Kept {
    tokens: Vec<TokenWithSpan>,
    /// The types that its parameters were declared with.
    types: Vec<DataType>,
    bytes: usize,
}

/// What a statement does with what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Prepare,
    Execute,
    Deallocate,
}

/// Whether a statement begins with one of the verbs, or asks how an EXECUTE would go.
pub(crate) fn verb(tokens: &[TokenWithSpan]) -> Option<Verb> {
    let mut keywords = tokens.iter().filter_map(|token| match &token.token {
        Token::Whitespace(_) => None,
        Token::Word(word) => Some(word.keyword),
        _ => Some(Keyword::NoKeyword),
    });
    match keywords.next()? {
        Keyword::PREPARE => Some(Verb::Prepare),
        Keyword::EXECUTE => Some(Verb::Execute),
        Keyword::DEALLOCATE => Some(Verb::Deallocate),
        Keyword::EXPLAIN => {
            let statement = keywords.find(|word| ![Keyword::ANALYZE, Keyword::VERBOSE].contains(word));
            (statement == Some(Keyword::EXECUTE)).then_some(Verb::Execute)
        }
        _ => None,
    }
}

/// An EXECUTE, and what asks how it would go.
fn explained(mut tokens: Vec<TokenWithSpan>) -> (Vec<TokenWithSpan>, Vec<TokenWithSpan>) {
    let is_execute =
        |token: &TokenWithSpan| matches!(&token.token, Token::Word(word) if word.keyword == Keyword::EXECUTE);
    let execute = tokens.split_off(tokens.iter().position(is_execute).unwrap_or_default());
    (tokens, execute)
}

/// What stands behind the first AS that is outside of parentheses.
fn behind_as(tokens: &[TokenWithSpan]) -> &[TokenWithSpan] {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 && word.keyword == Keyword::AS && word.quote_style.is_none() => {
                return &tokens[index + 1..];
            }
            _ => {}
        }
    }
    &[]
}

impl Kept {
    /// About how much it is in memory: a token takes some 150 bytes beside its text.
    fn weight(&self) -> usize {
        self.bytes + 150 * self.tokens.len()
    }
}

impl Session {
    /// About how many bytes the statements take that PREPARE has kept.
    pub fn prepared_bytes(&self) -> usize {
        self.prepared_statements().read().values().map(|kept| kept.weight()).sum()
    }

    /// Forgets what PREPARE has kept: the session has ended, and only results that were made in it hold it.
    pub fn forget_prepared(&self) {
        self.prepared_statements().write().clear();
    }

    /// Keeps what a PREPARE says.
    pub(crate) async fn keep(&self, state: &SessionState, tokens: Vec<TokenWithSpan>) -> Result<()> {
        let (name, kept) = self.read_prepare(state, tokens).await?;
        let mut all = self.prepared_statements().write();
        if all.contains_key(&name) {
            return Err(Error::already_exists(format!(
                "a statement is prepared as '{name}' already: DEALLOCATE {name} gives the name back"
            )));
        }
        let weight = all.values().map(|kept| kept.weight()).sum::<usize>() + kept.weight();
        if all.len() >= MOST_STATEMENTS || weight > MOST_BYTES {
            return Err(Error::new(
                ErrorKind::ResourcesExhausted,
                format!(
                    "the session keeps {} prepared statements, and has no room for another one of this size: DEALLOCATE some",
                    all.len()
                ),
            ));
        }
        all.insert(name, Arc::new(kept));
        self.mark_changed();
        Ok(())
    }

    /// What a PREPARE is to keep, planned once, so that what is wrong with it is said now.
    pub(crate) async fn read_prepare(
        &self,
        state: &SessionState,
        tokens: Vec<TokenWithSpan>,
    ) -> Result<(String, Kept)> {
        let inner = behind_as(&tokens).to_vec();
        if verb(&inner).is_some() {
            return Err(Error::invalid_argument(
                "PREPARE keeps a statement that is none of PREPARE, EXECUTE and DEALLOCATE",
            ));
        }
        let bytes = inner.iter().map(|token| token.token.to_string().len()).sum();
        let (name, types) = declared(state, tokens).await?;
        match self.plan(state, inner.clone(), &untyped::nulls(&types)?).await {
            Ok(plan) => drop(parameters::parameters(&plan)?),
            Err(error) => drop(untyped::parameters_of(&inner, error)?),
        }
        Ok((name, Kept { tokens: inner, types, bytes }))
    }

    /// What an EXECUTE runs, and the values of its parameters.
    pub(crate) async fn executed(
        &self,
        state: &SessionState,
        tokens: Vec<TokenWithSpan>,
    ) -> Result<(Vec<TokenWithSpan>, ParamValues)> {
        let (mut whole, tokens) = explained(tokens);
        let plan =
            state.statement_to_plan(parse_tokens(tokens).map_err(from_datafusion)?).await.map_err(from_datafusion)?;
        let LogicalPlan::Statement(PlanStatement::Execute(Execute { name, parameters })) = plan else {
            return Err(Error::internal("an EXECUTE that is none"));
        };
        let kept = self.prepared_statements().read().get(&name).cloned();
        let kept = kept.ok_or_else(|| Error::not_found(format!("no statement is prepared as '{name}'")))?;
        let values = parameters.into_iter().enumerate().map(|(index, expr)| {
            let value = constant(state, expr)?;
            let value = match kept.types.get(index) {
                Some(declared) => exactly(&value, declared, index + 1)?,
                None => value,
            };
            Ok(ScalarAndMetadata::new(value, None))
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        parameters::check_count(parameters::count(&kept.tokens)?, values.len())?;
        let known: Vec<_> = values.iter().map(|value| value.value.clone()).collect();
        let values = ParamValues::List(values);
        let plan = self.plan(state, kept.tokens.clone(), &known).await?;
        let is_update = matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_));
        let values = parameters::typed(values, &parameters::expected(&plan, &kept.tokens)?, is_update)?;
        whole.extend(kept.tokens.iter().cloned());
        Ok((whole, values))
    }

    /// Forgets what a DEALLOCATE names.
    pub(crate) fn forget(&self, tokens: Vec<TokenWithSpan>) -> Result<()> {
        let statement = parse_tokens(tokens).map_err(from_datafusion)?;
        let DataFusionStatement::Statement(statement) = statement else {
            return Err(Error::internal("a DEALLOCATE that is none"));
        };
        let ast::Statement::Deallocate { name, .. } = *statement else {
            return Err(Error::internal("a DEALLOCATE that is none"));
        };
        let is_all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all");
        let name = if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() };
        if is_all {
            self.forget_prepared();
            return Ok(());
        }
        match self.prepared_statements().write().remove(&name) {
            Some(_) => Ok(()),
            None => Err(Error::not_found(format!("no statement is prepared as '{name}'"))),
        }
    }
}

/// The name and the declared types of a PREPARE.
async fn declared(state: &SessionState, tokens: Vec<TokenWithSpan>) -> Result<(String, Vec<DataType>)> {
    let mut statement = parse_tokens(tokens).map_err(from_datafusion)?;
    // DataFusion plans the types; the statement itself is planned in our way.
    if let (DataFusionStatement::Statement(outer), DataFusionStatement::Statement(one)) =
        (&mut statement, datafusion_statement("SELECT 1").map_err(from_datafusion)?)
        && let ast::Statement::Prepare { statement, .. } = &mut **outer
    {
        *statement = one;
    }
    match state.statement_to_plan(statement).await.map_err(from_datafusion)? {
        LogicalPlan::Statement(PlanStatement::Prepare(Prepare { name, fields, .. })) => {
            Ok((name, fields.iter().map(|field| field.data_type().clone()).collect()))
        }
        _ => Err(Error::internal("a PREPARE that is none")),
    }
}

/// What an expression without columns gives, as an array of one.
pub(crate) fn value_of(expr: &dyn PhysicalExpr) -> datafusion::error::Result<ArrayRef> {
    let row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &row)?;
    expr.evaluate(&row)?.into_array(1)
}

/// The value of an expression without columns.
fn constant(state: &SessionState, expr: Expr) -> Result<ScalarValue> {
    if let Expr::Literal(value, _) = expr {
        return Ok(value);
    }
    if expr.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_)))).unwrap_or(true) {
        return Err(Error::invalid_argument("EXECUTE takes values: write them out in the place of its parameters"));
    }
    let evaluated = || {
        let mut state = state.clone();
        state.mark_start_execution();
        let context = SimplifyContext::builder()
            .with_config_options(Arc::clone(state.config_options()))
            .with_query_execution_start_time(state.execution_props().query_execution_start_time);
        let simplifier = ExprSimplifier::new(context.build());
        // The time is a value by then.
        let expr = simplifier.simplify(simplifier.coerce(expr, &DFSchema::empty())?)?;
        let expr = state.create_physical_expr(expr, &DFSchema::empty())?;
        ScalarValue::try_from_array(&value_of(&*expr)?, 0)
    };
    evaluated().map_err(from_datafusion)
}

/// A value in the type that its parameter was declared with.
fn exactly(value: &ScalarValue, declared: &DataType, number: usize) -> Result<ScalarValue> {
    let array = value.to_array().map_err(from_datafusion)?;
    let field = Field::new(format!("${number}"), declared.clone(), true);
    let is_text = matches!(array.data_type(), DataType::Utf8 | DataType::LargeUtf8);
    if is_text && *declared == DataType::FixedSizeBinary(16) {
        let uuid = uuid_text::scalar(value).map_err(from_datafusion)?;
        return Ok(uuid.unwrap_or_else(|| value.clone()));
    }
    if storable("", array.data_type(), &field).is_err() {
        if is_text {
            return value.cast_to(declared).map_err(from_datafusion);
        }
        let (spelling, from) = (type_spelling(&field), array.data_type());
        return Err(Error::invalid_argument(format!(
            "parameter ${number} ({spelling}): cannot take a value of {from}"
        )));
    }
    let stored = store(&array, &field).map_err(|misfit| {
        let spelling = type_spelling(&field);
        Error::invalid_argument(format!("parameter ${number} ({spelling}): cannot take {}", misfit.reason))
    })?;
    ScalarValue::try_from_array(&stored, 0).map_err(from_datafusion)
}
