//! Statements that have no plan before their parameters have types: `ts + ?`, `? || ?`, `sum(?)`.
//!
//! They are prepared without a plan, since drivers prepare before they give values. With values, calls of functions that
//! give them stand in for the parameters while the statement is planned, and are parameters again in its plan:
//!
//! ```text
//!   SELECT $1 || $2  ──>  SELECT "$1"() || "$2"()  ──>  Projection: $1 || $2
//! ```

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use couatl_core::{Error, Result};
use couatl_sql::{Statement, StatementKind};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::prepared::verb;
use crate::statement::{Description, gives_rows};
use crate::{from_datafusion, parameters};

/// What is known of a statement that cannot be planned yet, for this reason.
pub(crate) fn described(statement: &Statement, error: Error) -> Result<Description> {
    let StatementKind::Other(tokens) = &statement.kind else { return Err(error) };
    // The parameters of a PREPARE are those of its EXECUTE.
    if verb(tokens).is_some() {
        return Err(error);
    }
    let parameters = (1..=parameters_of(tokens, error)?).map(parameters::unknown);
    let parameters = Arc::new(Schema::new(parameters.collect::<Vec<_>>()));
    Ok(Description { is_planned: false, is_update: !gives_rows(statement), parameters, ..Description::update() })
}

/// How many parameters a statement takes that could not be planned for want of their types; the error, if that is not it.
pub(crate) fn parameters_of(tokens: &[TokenWithSpan], error: Error) -> Result<usize> {
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<DataFusionError>());
    match parameters::count(tokens)? {
        count if count > 0 && source.is_some_and(is_of_types) => Ok(count),
        _ => Err(error),
    }
}

/// Whether types may be what a statement lacks: names that mean nothing do so with all values.
pub(crate) fn is_of_types(error: &DataFusionError) -> bool {
    use DataFusionError::{ArrowError, Execution, Internal, NotImplemented, Plan};
    match error.find_root() {
        Plan(text) | Execution(text) | Internal(text) => {
            !["Invalid function", "Unsupported"].iter().any(|start| text.starts_with(start))
                && !text.contains("not found")
        }
        NotImplemented(text) => text.contains("null"),
        ArrowError(..) => true,
        _ => false,
    }
}

/// Nothing but types, as values.
pub(crate) fn nulls(types: &[DataType]) -> Result<Vec<ScalarValue>> {
    types.iter().map(|data_type| ScalarValue::try_new_null(data_type).map_err(from_datafusion)).collect()
}

/// A statement in which values stand in for its parameters, and the state to plan it in.
pub(crate) fn with_stand_ins(
    state: &SessionState,
    tokens: Vec<TokenWithSpan>,
    values: &[ScalarValue],
) -> DataFusionResult<(SessionState, Vec<TokenWithSpan>)> {
    let mut state = state.clone();
    for (index, value) in values.iter().enumerate() {
        let name = format!("${}", index + 1);
        let stand_in = StandIn { name, value: value.clone(), signature: Signature::nullary(Volatility::Immutable) };
        state.register_udf(Arc::new(ScalarUDF::from(stand_in)))?;
    }
    Ok((state, tokens.into_iter().flat_map(|token| called(token, values.len())).collect()))
}

/// The plan of such a statement, with its parameters.
pub(crate) fn without_stand_ins(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let replaced = node.map_expressions(|expr| expr.transform_up(|expr| Ok(parameter(expr))))?;
        if replaced.transformed { replaced.map_data(LogicalPlan::recompute_schema) } else { Ok(replaced) }
    });
    Ok(plan?.data)
}

/// One of so many placeholders as a call; every other token as it is.
fn called(token: TokenWithSpan, count: usize) -> Vec<TokenWithSpan> {
    let Token::Placeholder(id) = &token.token else { return vec![token] };
    if parameters::number(id).is_none_or(|number| number > count) {
        return vec![token];
    }
    let call = [Token::make_word(id, Some('"')), Token::LParen, Token::RParen];
    call.map(|called| TokenWithSpan { token: called, span: token.span }).into()
}

/// A call of a stand-in as the parameter that it stands for.
fn parameter(expr: Expr) -> Transformed<Expr> {
    let Expr::ScalarFunction(call) = &expr else { return Transformed::no(expr) };
    let Some(stand_in) = call.func.inner().downcast_ref::<StandIn>() else { return Transformed::no(expr) };
    let field = Field::new(&stand_in.name, stand_in.value.data_type(), true);
    Transformed::yes(Expr::Placeholder(Placeholder { id: stand_in.name.clone(), field: Some(Arc::new(field)) }))
}

/// A function that gives the value of a parameter, and has its name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct StandIn {
    name: String,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for StandIn {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }

    fn schema_name(&self, _arguments: &[Expr]) -> DataFusionResult<String> {
        Ok(self.name.clone())
    }
}
