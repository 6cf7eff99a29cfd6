//! Types that every client can read: views become plain strings and binaries at the root of each plan.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};

/// The plan, with view types cast away in its output, nested ones included.
pub(crate) fn without_views(plan: LogicalPlan) -> Result<LogicalPlan> {
    let fields = plan.schema().fields();
    if fields.iter().all(|field| plain(field.data_type()) == *field.data_type()) {
        return Ok(plan);
    }
    let columns = plan.schema().iter().map(|(qualifier, field)| {
        let column = Expr::from((qualifier, field));
        let data_type = plain(field.data_type());
        if data_type == *field.data_type() {
            return Ok(column);
        }
        Ok(column.cast_to(&data_type, plan.schema())?.alias_qualified(qualifier.cloned(), field.name()))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// The type without views.
fn plain(data_type: &DataType) -> DataType {
    let inner =
        |field: &FieldRef| -> FieldRef { Arc::new(Field::clone(field).with_data_type(plain(field.data_type()))) };
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(inner(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::Map(entries, sorted) => DataType::Map(inner(entries), *sorted),
        DataType::Dictionary(key, value) => DataType::Dictionary(key.clone(), Box::new(plain(value))),
        other => other.clone(),
    }
}
