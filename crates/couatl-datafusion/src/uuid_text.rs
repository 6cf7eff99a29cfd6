//! UUIDs as text: in comparisons, in IN and BETWEEN, and as what is inserted.
//!
//! A uuid column holds sixteen bytes. Where SQL compares it with text or inserts text into it, the text is read as a
//! UUID: literals while planning, with an error that shows them, other expressions by the function `to_uuid`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray};
use arrow::datatypes::DataType;
use couatl_core::is_uuid;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, SetExpr, TableFactor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// The function `to_uuid(text)`.
pub(crate) fn to_uuid() -> ScalarUDF {
    ScalarUDF::from(ToUuid { signature: Signature::any(1, Volatility::Immutable) })
}

fn parse(text: &str) -> Result<[u8; 16]> {
    match uuid::Uuid::parse_str(text) {
        Ok(uuid) => Ok(uuid.into_bytes()),
        Err(_) => plan_err!("'{text}' is not the text of a UUID"),
    }
}

/// The value as sixteen bytes, where it is text.
pub(crate) fn scalar(value: &ScalarValue) -> Result<Option<ScalarValue>> {
    let Some(text) = value.try_as_str() else { return Ok(None) };
    let bytes = text.map(parse).transpose()?;
    Ok(Some(ScalarValue::FixedSizeBinary(16, bytes.map(Vec::from))))
}

fn is_uuid_expr(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| is_uuid(&field))
}

/// The expression as a UUID, if it is text.
fn as_uuid(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    if let Expr::Literal(value, metadata) = &expr {
        return Ok(scalar(value)?.map_or(expr.clone(), |value| Expr::Literal(value, metadata.clone())));
    }
    match expr.get_type(schema) {
        Ok(DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => Ok(to_uuid().call(vec![expr])),
        _ => Ok(expr),
    }
}

/// Comparisons, while SQL is planned: before types are checked.
#[derive(Debug)]
pub(crate) struct CompareUuids;

impl ExprPlanner for CompareUuids {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let RawBinaryExpr { op, left, right } = expr;
        let compares = matches!(
            op,
            ast::BinaryOperator::Eq
                | ast::BinaryOperator::NotEq
                | ast::BinaryOperator::Lt
                | ast::BinaryOperator::LtEq
                | ast::BinaryOperator::Gt
                | ast::BinaryOperator::GtEq
        );
        let (left, right) = match compares {
            true if is_uuid_expr(&left, schema) => (left, as_uuid(right, schema)?),
            true if is_uuid_expr(&right, schema) => (as_uuid(left, schema)?, right),
            _ => (left, right),
        };
        Ok(PlannerResult::Original(RawBinaryExpr { op, left, right }))
    }
}

/// IN and BETWEEN, before their types are brought together.
#[derive(Debug)]
pub(crate) struct ListUuids;

impl AnalyzerRule for ListUuids {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            node.map_expressions(|expr| expr.transform_up(|expr| rewrite(expr, &schema)))
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &str {
        "list_uuids"
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::InList(InList { expr, list, negated }) if is_uuid_expr(&expr, schema) => {
            let list = list.into_iter().map(|item| as_uuid(item, schema)).collect::<Result<_>>()?;
            Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_uuid_expr(&expr, schema) => {
            let low = Box::new(as_uuid(*low, schema)?);
            let high = Box::new(as_uuid(*high, schema)?);
            Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// An INSERT whose rows pass through `to_uuid` where `uuids` says so, column by column of the INSERT.
pub(crate) fn insert(statement: &mut Statement, uuids: &[bool]) -> Result<()> {
    let Statement::Statement(inner) = statement else { return Ok(()) };
    let ast::Statement::Insert(insert) = &mut **inner else { return Ok(()) };
    let Some(mut source) = insert.source.take() else { return Ok(()) };
    if let SetExpr::Values(values) = &mut *source.body {
        for row in &mut values.rows {
            for (value, _) in row.content.iter_mut().zip(uuids).filter(|(_, uuid)| **uuid) {
                let mut call = Parser::new(&GenericDialect {}).try_with_sql("to_uuid(0)")?.parse_expr()?;
                if let ast::Expr::Function(function) = &mut call
                    && let ast::FunctionArguments::List(list) = &mut function.args
                    && let Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument))) = list.args.first_mut()
                {
                    std::mem::swap(argument, value);
                }
                *value = call;
            }
        }
        insert.source = Some(source);
        return Ok(());
    }
    // A frame around the rows; what was written stays as it was parsed, in the place of the inner SELECT.
    let names: Vec<_> = (0..uuids.len()).map(|column| format!("c{column}")).collect();
    let values: Vec<_> = (names.iter().zip(uuids))
        .map(|(name, uuid)| if *uuid { format!("to_uuid({name})") } else { name.clone() })
        .collect();
    let frame = format!("SELECT {} FROM (SELECT 1) AS rows ({})", values.join(", "), names.join(", "));
    let mut frame = Parser::new(&GenericDialect {}).try_with_sql(&frame)?.parse_query()?;
    if let SetExpr::Select(select) = &mut *frame.body
        && let Some(from) = select.from.first_mut()
        && let TableFactor::Derived { subquery, .. } = &mut from.relation
    {
        *subquery = source;
    }
    insert.source = Some(frame);
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ToUuid {
    signature: Signature,
}

impl ScalarUDFImpl for ToUuid {
    fn name(&self) -> &str {
        "to_uuid"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match &arguments[0] {
            DataType::Null
            | DataType::Utf8
            | DataType::Utf8View
            | DataType::LargeUtf8
            | DataType::Binary
            | DataType::FixedSizeBinary(16) => Ok(DataType::FixedSizeBinary(16)),
            other => plan_err!("to_uuid takes text or sixteen bytes, not {other}"),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        Ok(ColumnarValue::Array(uuids(&arrays[0])?))
    }
}

fn uuids(array: &ArrayRef) -> Result<ArrayRef> {
    let to = DataType::FixedSizeBinary(16);
    match array.data_type() {
        DataType::FixedSizeBinary(16) => Ok(array.clone()),
        DataType::Null => Ok(arrow::array::new_null_array(&to, array.len())),
        DataType::Binary => Ok(arrow::compute::cast(array, &to)?),
        _ => {
            let texts = arrow::compute::cast(array, &DataType::Utf8)?;
            let parsed = texts.as_string::<i32>().iter().map(|text| text.map(parse).transpose());
            let parsed = parsed.collect::<Result<Vec<_>>>()?;
            let out = FixedSizeBinaryArray::try_from_sparse_iter_with_size(parsed.into_iter(), 16);
            Ok(Arc::new(out.map_err(DataFusionError::from)?))
        }
    }
}
