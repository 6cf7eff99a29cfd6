//! The columns that a class gives as an Arrow schema, in the types that streams have.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use couatl_core::is_uuid;

use super::column::Column;
use crate::values::same_values;

/// The schema with each column in the type of streams that has the same values.
///
/// # Errors
/// The first column for which there is none.
pub(crate) fn declared(schema: &Schema) -> Result<Schema, FieldRef> {
    let column = |field: &FieldRef| {
        let found = field_of(field);
        if Column::new(&found, 0).is_ok() { Ok(found) } else { Err(Arc::clone(field)) }
    };
    Ok(Schema::new(schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?))
}

fn field_of(field: &Field) -> Field {
    let data_type = if is_uuid(field) { field.data_type().clone() } else { type_of(field.data_type()) };
    field.clone().with_data_type(data_type)
}

fn type_of(data_type: &DataType) -> DataType {
    match data_type {
        DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::List(item) => DataType::List(Arc::new(field_of(item))),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(field_of(entries)), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| field_of(field)).collect()),
        DataType::Dictionary(key, value) => DataType::Dictionary(key.clone(), Box::new(type_of(value))),
        other => same_values(other).map_or_else(|| other.clone(), |same| type_of(&same)),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{IntervalUnit, TimeUnit};

    use super::*;

    fn one(data_type: DataType) -> Result<DataType, FieldRef> {
        declared(&Schema::new(vec![Field::new("a", data_type, true)])).map(|schema| schema.field(0).data_type().clone())
    }

    #[test]
    fn types_of_streams_stand_for_those_with_the_same_values() {
        let text = || Arc::new(Field::new("item", DataType::LargeUtf8, true));
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        for (given, expected) in [
            (DataType::Int64, DataType::Int64),
            (DataType::LargeUtf8, DataType::Utf8),
            (DataType::Utf8View, DataType::Utf8),
            (DataType::LargeBinary, DataType::Binary),
            (DataType::FixedSizeBinary(3), DataType::Binary),
            (DataType::LargeList(text()), list.clone()),
            (DataType::FixedSizeList(text(), 3), list.clone()),
            (DataType::List(text()), list),
            (DataType::Float16, DataType::Float32),
            (DataType::Decimal64(10, 2), DataType::Decimal128(10, 2)),
            (DataType::Date64, DataType::Date32),
            (DataType::Time32(TimeUnit::Second), DataType::Time64(TimeUnit::Microsecond)),
            (DataType::Duration(TimeUnit::Second), DataType::Interval(IntervalUnit::MonthDayNano)),
            (
                DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8)),
                DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
            ),
        ] {
            assert_eq!(one(given), Ok(expected));
        }
    }

    #[test]
    fn a_column_of_no_such_type_is_told() {
        for given in [DataType::Null, DataType::List(Arc::new(Field::new("item", DataType::Null, true)))] {
            let refused = one(given.clone()).unwrap_err();
            assert_eq!((refused.name().as_str(), refused.data_type()), ("a", &given));
        }
    }
}
