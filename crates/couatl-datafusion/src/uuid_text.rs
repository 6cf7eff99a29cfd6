//! UUIDs as text: in comparisons, in IN and BETWEEN, in casts.
//!
//! A uuid column holds sixteen bytes. Where SQL compares it with text, the text is read as a UUID: literals while planning, with an error that shows them, other expressions by the function `to_uuid`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use couatl_core::is_uuid;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{Between, Cast, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast;

/// The function `to_uuid(text)`.
pub(crate) fn to_uuid() -> ScalarUDF {
    ScalarUDF::from(ToUuid { signature: Signature::any(1, Volatility::Immutable) })
}

/// The function `uuid_to_text(uuid)`, which casts become.
pub(crate) fn uuid_to_text() -> ScalarUDF {
    ScalarUDF::from(UuidToText {
        signature: Signature::exact(vec![DataType::FixedSizeBinary(16)], Volatility::Immutable),
    })
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

/// The type `uuid` in casts.
#[derive(Debug)]
pub(crate) struct UuidType;

impl TypePlanner for UuidType {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        match sql_type {
            ast::DataType::Uuid => Ok(Some(uuid_field("uuid", true))),
            _ => Ok(None),
        }
    }
}

fn uuid_field(name: &str, nullable: bool) -> FieldRef {
    let metadata = [("ARROW:extension:name", "arrow.uuid"), ("ARROW:extension:metadata", "")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Arc::new(Field::new(name, DataType::FixedSizeBinary(16), nullable).with_metadata(metadata.into()))
}

/// IN, BETWEEN and casts, before types are brought together.
#[derive(Debug)]
pub(crate) struct TextUuids;

impl AnalyzerRule for TextUuids {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            // Columns keep the names that the statement gave them.
            let names = NamePreserver::new(&node);
            node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(|expr| rewrite(expr, &schema))?.update_data(|expr| name.restore(expr)))
            })
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &str {
        "text_uuids"
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8);
    match expr {
        Expr::Cast(Cast { expr, field }) if is_uuid(&field) => Ok(Transformed::yes(to_uuid().call(vec![*expr]))),
        Expr::Cast(Cast { expr, field }) if is_text(field.data_type()) && is_uuid_expr(&expr, schema) => {
            Ok(Transformed::yes(uuid_to_text().call(vec![*expr])))
        }
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

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.return_type(&[arguments.arg_fields[0].data_type().clone()])?;
        Ok(uuid_field(self.name(), true))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        Ok(ColumnarValue::Array(uuids(&arrays[0])?))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct UuidToText {
    signature: Signature,
}

impl ScalarUDFImpl for UuidToText {
    fn name(&self) -> &str {
        "uuid_to_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let Some(uuids) = arrays[0].as_fixed_size_binary_opt() else {
            return plan_err!("uuid_to_text takes a uuid, not {}", arrays[0].data_type());
        };
        let text = |bytes: &[u8]| uuid::Uuid::from_slice(bytes).map(|uuid| uuid.hyphenated().to_string());
        let texts: StringArray = uuids.iter().map(|bytes| bytes.and_then(|bytes| text(bytes).ok())).collect();
        Ok(ColumnarValue::Array(Arc::new(texts)))
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
