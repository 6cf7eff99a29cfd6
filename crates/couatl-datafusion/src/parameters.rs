//! Parameters: what a statement wants, what a client bound, and rows of them as the rows of one INSERT.
//!
//! A client that binds a thousand rows to `INSERT INTO s VALUES (?, ?)` means one INSERT of a thousand rows: one call
//! of the sink for each batch, not for each row. The SELECT of its values, which reads nothing, reads them instead:
//!
//! ```text
//!   Projection: $1, upper($2)              Projection: parameters.$1, upper(parameters.$2)
//!     EmptyRelation                 ──>      TableScan: parameters
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use couatl_core::{Error, Result};
use couatl_sql::{Statement, StatementKind};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ParamValues, ScalarValue};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{DmlStatement, EmptyRelation, Expr, LogicalPlan, LogicalPlanBuilder, Values, WriteOp};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use futures::StreamExt;

use crate::once::Once;
use crate::store::{exactly, storable, store};
use crate::table::StreamTable;
use crate::{from_datafusion, uuid_text};

const TABLE: &str = "parameters";

/// The most parameters that a statement has.
const MOST_PARAMETERS: usize = 65_535;

/// Whether a statement wants any. Those of PREPARE are given by EXECUTE.
pub(crate) fn has_placeholders(statement: &Statement) -> bool {
    let StatementKind::Other(tokens) = &statement.kind else { return false };
    let prepares = statement.text.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("prepare"));
    !prepares && tokens.iter().any(|token| matches!(token.token, Token::Placeholder(_)))
}

/// The error for parameters in a text of several statements.
pub(crate) fn lonely_parameters() -> Error {
    Error::invalid_argument("parameters go with a single statement; send this one by itself")
}

/// The placeholders of a plan as fields, in their order.
///
/// # Errors
/// Those with names: nothing could be bound to them.
pub(crate) fn parameters(plan: &LogicalPlan) -> Result<Schema> {
    let found = plan.get_parameter_types().map_err(from_datafusion)?;
    let counts = counts(plan).map_err(from_datafusion)?;
    let count = last(found.keys())?;
    let field = |number: usize| {
        let name = format!("${number}");
        let known = found.get(&name).cloned().flatten();
        let data_type = known.unwrap_or(if counts.contains(&name) { DataType::Int64 } else { DataType::Null });
        Field::new(name, data_type, true)
    };
    Ok(Schema::new((1..=count).map(field).collect::<Vec<_>>()))
}

/// How many parameters a statement takes.
///
/// # Errors
/// Those with names, as above.
pub(crate) fn count(tokens: &[TokenWithSpan]) -> Result<usize> {
    last(tokens.iter().filter_map(|token| match &token.token {
        Token::Placeholder(id) => Some(id),
        _ => None,
    }))
}

/// The parameters of a statement with this plan, from which values may have taken some.
pub(crate) fn expected(plan: &LogicalPlan, tokens: &[TokenWithSpan]) -> Result<Schema> {
    let planned = parameters(plan)?;
    let rest = (planned.fields().len()..count(tokens)?).map(|index| unknown(index + 1));
    let fields = planned.fields().iter().cloned().chain(rest.map(Arc::new));
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// The number of a placeholder, which is from one on.
pub(crate) fn number(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse().ok().filter(|number| (1..=MOST_PARAMETERS).contains(number))
}

/// A parameter of which no type is known.
pub(crate) fn unknown(number: usize) -> Field {
    Field::new(format!("${number}"), DataType::Null, true)
}

/// The number of the last of some placeholders.
fn last<'a>(ids: impl Iterator<Item = &'a String>) -> Result<usize> {
    let mut numbers = ids.map(|id| {
        let message = || {
            format!(
                "expected parameters as ? or $1, $2, … up to ${MOST_PARAMETERS}, which are bound by their place; found {id}"
            )
        };
        number(id).ok_or_else(|| Error::invalid_argument(message()))
    });
    numbers.try_fold(0, |most, number| Ok(most.max(number?)))
}

/// The placeholders that LIMIT and OFFSET have, in which planning sees no type.
fn counts(plan: &LogicalPlan) -> DataFusionResult<HashSet<String>> {
    placeholders(plan, |node| match node {
        LogicalPlan::Limit(limit) => [&limit.skip, &limit.fetch].into_iter().flatten().map(|expr| &**expr).collect(),
        _ => Vec::new(),
    })
}

/// The placeholders that conditions have.
fn compared(plan: &LogicalPlan) -> DataFusionResult<HashSet<String>> {
    placeholders(plan, |node| match node {
        LogicalPlan::Filter(filter) => vec![&filter.predicate],
        _ => Vec::new(),
    })
}

/// The placeholders in some of the expressions of a plan.
fn placeholders(
    plan: &LogicalPlan,
    expressions: impl Fn(&LogicalPlan) -> Vec<&Expr>,
) -> DataFusionResult<HashSet<String>> {
    let mut found = HashSet::new();
    plan.apply_with_subqueries(|node| {
        for expr in expressions(node) {
            expr.apply(|expr| {
                if let Expr::Placeholder(Placeholder { id, .. }) = expr {
                    found.insert(id.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Refuses too many and too few.
pub(crate) fn check_count(expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let plural = if expected == 1 { "" } else { "s" };
    let found = if found == 0 { "none".to_owned() } else { found.to_string() };
    Err(Error::invalid_argument(format!("expected {expected} parameter{plural}, got {found}")))
}

/// The values as they are to be planned with: their own types, so that SQL's rules bring them together with the others,
/// and nothing of them is lost; but text becomes what the statement wants, as literals do. What an update takes is
/// converted where it arrives.
pub(crate) fn typed(values: ParamValues, expected: &Schema, is_update: bool) -> Result<ParamValues> {
    let ParamValues::List(values) = values else { return Ok(values) };
    check_count(expected.fields().len(), values.len())?;
    let fields = expected.fields();
    let cast = |value: &ScalarValue, wanted: &DataType| match (value.data_type(), wanted) {
        // What is no number may be meant as text: the rules of literals say.
        (DataType::Utf8 | DataType::LargeUtf8, wanted) if wanted.is_numeric() => {
            Ok(value.cast_to(wanted).unwrap_or_else(|_| value.clone()))
        }
        (_, DataType::Null) => Ok(value.clone()),
        // What is added to a time, or taken from it, is announced as one.
        (DataType::Duration(_), DataType::Timestamp(_, _)) => Ok(value.clone()),
        (DataType::Utf8 | DataType::LargeUtf8, DataType::FixedSizeBinary(16)) => {
            uuid_text::scalar(value).map(|uuid| uuid.unwrap_or_else(|| value.clone()))
        }
        (DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::Duration(_), _) => {
            value.cast_to(wanted)
        }
        _ => Ok(value.clone()),
    };
    let values = values.into_iter().zip(fields).map(|(mut value, field)| {
        let is_text = matches!(value.value.data_type(), DataType::Utf8 | DataType::LargeUtf8);
        if is_update && is_text && *field.data_type() == DataType::FixedSizeBinary(16) {
            // What is no uuid is refused where it arrives.
            if let Ok(Some(uuid)) = uuid_text::scalar(&value.value) {
                value.value = uuid;
            }
        }
        if !is_update {
            value.value = cast(&value.value, field.data_type()).map_err(|error| {
                Error::invalid_argument(format!("parameter {}: {}", field.name(), from_datafusion(error)))
            })?;
        }
        Ok(value)
    });
    values.collect::<Result<Vec<_>>>().map(ParamValues::List)
}

/// The columns of a table that parameters go to, as they were found in planning an INSERT: the table, and for each
/// parameter its field where it has a type. None for a stream, whose sink converts exactly, and for other statements.
fn columns(plan: &LogicalPlan) -> Result<Option<(String, Vec<Option<FieldRef>>)>> {
    let LogicalPlan::Dml(DmlStatement { table_name, target, op: WriteOp::Insert(_), .. }) = plan else {
        return Ok(None);
    };
    if source_as_provider(target).is_ok_and(|table| table.is::<StreamTable>()) {
        return Ok(None);
    }
    let schema = parameters(plan)?;
    let names = targets(plan);
    let fields = schema.fields().iter().map(|field| {
        let name = names.get(field.name()).unwrap_or(field.name());
        (!field.data_type().is_null()).then(|| Arc::new(field.as_ref().clone().with_name(name)))
    });
    Ok(Some((format!("table '{table_name}'"), fields.collect())))
}

/// The columns that parameters go to as they are, by their placeholders.
fn targets(insert: &LogicalPlan) -> HashMap<String, String> {
    let LogicalPlan::Dml(DmlStatement { input, .. }) = insert else { return HashMap::new() };
    let LogicalPlan::Projection(projection) = &**input else { return HashMap::new() };
    let row = match &*projection.input {
        LogicalPlan::Values(values) => {
            values.schema.columns().into_iter().zip(values.values.first().into_iter().flatten()).collect()
        }
        _ => Vec::new(),
    };
    let placeholder = |expr: &Expr| match bare(expr) {
        Expr::Placeholder(placeholder) => Some(placeholder.id.clone()),
        _ => None,
    };
    let found = projection.expr.iter().zip(projection.schema.fields()).filter_map(|(expr, field)| {
        let id = match bare(expr) {
            Expr::Column(column) => placeholder(row.iter().find(|(name, _)| name == column)?.1),
            expr => placeholder(expr),
        };
        Some((id?, field.name().clone()))
    });
    found.collect()
}

/// An expression without its name and its casts.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr),
        Expr::Cast(cast) => bare(&cast.expr),
        other => other,
    }
}

/// Values for an INSERT into a table, as its columns hold them. Those of an UPDATE become what they are compared and set
/// with, where they fit: drivers send the widest types that they have.
pub(crate) fn stored(values: ParamValues, plan: &LogicalPlan) -> Result<ParamValues> {
    let values = counted(values, plan)?;
    if let LogicalPlan::Dml(DmlStatement { op: WriteOp::Update, .. }) = plan {
        return fitted(values, plan);
    }
    let Some((table, columns)) = columns(plan)? else { return Ok(values) };
    let ParamValues::List(mut values) = values else { return Ok(values) };
    for (value, field) in values.iter_mut().zip(columns) {
        let Some(field) = field else { continue };
        let array = value.value.to_array().map_err(from_datafusion)?;
        storable(&table, array.data_type(), &field)?;
        let array = store(&array, &field).map_err(|misfit| misfit.into_error(&table, 0, &field))?;
        value.value = ScalarValue::try_from_array(&array, 0).map_err(from_datafusion)?;
    }
    Ok(ParamValues::List(values))
}

/// Values of which the text of a number has become one where LIMIT and OFFSET take it.
fn counted(values: ParamValues, plan: &LogicalPlan) -> Result<ParamValues> {
    let ParamValues::List(mut values) = values else { return Ok(values) };
    let counts = counts(plan).map_err(from_datafusion)?;
    for (index, value) in values.iter_mut().enumerate() {
        if value.value.try_as_str().is_some() && counts.contains(&format!("${}", index + 1)) {
            value.value = value.value.cast_to(&DataType::Int64).map_err(from_datafusion)?;
        }
    }
    Ok(ParamValues::List(values))
}

/// Values with the types of a plan's parameters, where they fit; exactly, where they are compared: what a SELECT does not
/// find is not changed.
fn fitted(values: ParamValues, plan: &LogicalPlan) -> Result<ParamValues> {
    let ParamValues::List(mut values) = values else { return Ok(values) };
    let compared = compared(plan).map_err(from_datafusion)?;
    for (value, field) in values.iter_mut().zip(parameters(plan)?.fields()) {
        let array = value.value.to_array().map_err(from_datafusion)?;
        if field.data_type().is_null() || storable("", array.data_type(), field).is_err() {
            continue;
        }
        let Ok(stored) = store(&array, field) else { continue };
        let stored = ScalarValue::try_from_array(&stored, 0).map_err(from_datafusion)?;
        let is_same = || stored.cast_to(array.data_type()).is_ok_and(|back| back == value.value);
        if !compared.contains(field.name()) || is_same() {
            value.value = stored;
        }
    }
    Ok(ParamValues::List(values))
}

/// Rows of values for an INSERT into a table, as its columns hold them.
pub(crate) fn stored_rows(rows: SendableRecordBatchStream, plan: &LogicalPlan) -> Result<SendableRecordBatchStream> {
    match columns(plan)? {
        Some((table, columns)) => exactly(rows, table, columns),
        None => Ok(rows),
    }
}

/// Whether a plan is an INSERT of one row of values, which are nothing else than expressions.
pub(crate) fn takes_rows(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let (mut rows, mut others) = (0, 0);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, .. }) => rows += 1,
            LogicalPlan::Values(values) => rows += values.values.len(),
            LogicalPlan::Dml(_) | LogicalPlan::Projection(_) => {}
            _ => others += 1,
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(matches!(plan, LogicalPlan::Dml(_)) && rows == 1 && others == 0)
}

/// Such a plan with rows of parameters in the place of its one row.
pub(crate) fn over_rows(plan: LogicalPlan, rows: SendableRecordBatchStream) -> DataFusionResult<LogicalPlan> {
    let table = table(rows)?;
    let replaced = plan.transform_up(|node| {
        let scan = || LogicalPlanBuilder::scan(TABLE, provider_as_source(table.clone()), None);
        if let LogicalPlan::EmptyRelation(_) = node {
            return scan()?.build().map(Transformed::yes);
        }
        if let LogicalPlan::Values(Values { schema, values }) = &node {
            let row = values.first().into_iter().flatten().zip(schema.columns());
            let row = row.map(|(expr, column)| Ok(bound(expr.clone())?.data.alias(column.name)));
            return scan()?.project(row.collect::<DataFusionResult<Vec<_>>>()?)?.build().map(Transformed::yes);
        }
        // What is above knows the expressions by their names.
        let names = NamePreserver::new(&node);
        let bound = node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(bound(expr)?.update_data(|expr| name.restore(expr)))
        })?;
        bound.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(replaced.data)
}

/// An expression with columns in the place of its parameters.
fn bound(expr: Expr) -> DataFusionResult<Transformed<Expr>> {
    expr.transform_up(|expr| match expr {
        Expr::Placeholder(Placeholder { id, .. }) => Ok(Transformed::yes(Expr::Column(Column::new(Some(TABLE), id)))),
        other => Ok(Transformed::no(other)),
    })
}

/// The values of one row, for statements that take one at a time.
///
/// # Errors
/// `unsupported` for a type of which there are no values.
pub fn row_values(rows: &RecordBatch, row: usize) -> Result<ParamValues> {
    let values = rows.columns().iter().map(|column| {
        // The field's metadata stays behind: an extension type that a driver puts on a plain value, or does not put on
        // one of ours, would be a type of its own to the planner.
        ScalarValue::try_from_array(column, row).map(|value| ScalarAndMetadata::new(value, None))
    });
    values.collect::<DataFusionResult<_>>().map(ParamValues::List).map_err(from_datafusion)
}

/// Rows as a table that can be read once, with columns named as parameters are.
pub(crate) fn table(rows: SendableRecordBatchStream) -> DataFusionResult<Arc<dyn TableProvider>> {
    let schema = rows.schema();
    let named = schema.fields().iter().enumerate().map(|(position, field)| {
        // Without metadata, as above.
        Field::new(format!("${}", position + 1), field.data_type().clone(), true)
    });
    let schema = Arc::new(Schema::new(named.collect::<Vec<_>>()));
    let renamed = schema.clone();
    let rows = rows.map(move |batch| Ok(RecordBatch::try_new(renamed.clone(), batch?.columns().to_vec())?));
    let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema.clone(), rows));
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(Once::new(rows))])?))
}
