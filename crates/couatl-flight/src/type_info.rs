//! The types that a column may have, in the words of JDBC and ODBC: the answer to CommandGetXdbcTypeInfo.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use couatl_core::{Error, Result};

use XdbcDataType as Xdbc;

/// How the literal of a type is written, and what is counted in its size.
enum Class {
    Plain,
    Exact,
    Unsigned,
    Approximate,
    Scaled,
    Quoted,
    Bytes,
    Time(XdbcDatetimeSubcode),
    Interval,
}

/// Name, as CREATE TABLE and CAST take it, type, size, class. Sizes are digits, bits (of floats) or characters.
const TYPES: [(&str, XdbcDataType, Option<i32>, Class); 19] = [
    ("boolean", Xdbc::XdbcBit, Some(1), Class::Plain),
    ("tinyint", Xdbc::XdbcTinyint, Some(3), Class::Exact),
    ("smallint", Xdbc::XdbcSmallint, Some(5), Class::Exact),
    ("integer", Xdbc::XdbcInteger, Some(10), Class::Exact),
    ("bigint", Xdbc::XdbcBigint, Some(19), Class::Exact),
    ("tinyint unsigned", Xdbc::XdbcTinyint, Some(3), Class::Unsigned),
    ("smallint unsigned", Xdbc::XdbcSmallint, Some(5), Class::Unsigned),
    ("integer unsigned", Xdbc::XdbcInteger, Some(10), Class::Unsigned),
    ("bigint unsigned", Xdbc::XdbcBigint, Some(20), Class::Unsigned),
    ("real", Xdbc::XdbcReal, Some(24), Class::Approximate),
    ("double", Xdbc::XdbcDouble, Some(53), Class::Approximate),
    ("decimal", Xdbc::XdbcDecimal, Some(76), Class::Scaled),
    ("varchar", Xdbc::XdbcVarchar, None, Class::Quoted),
    ("bytea", Xdbc::XdbcVarbinary, None, Class::Bytes),
    ("date", Xdbc::XdbcDate, Some(10), Class::Time(XdbcDatetimeSubcode::XdbcSubcodeYear)),
    ("time", Xdbc::XdbcTime, Some(15), Class::Time(XdbcDatetimeSubcode::XdbcSubcodeTime)),
    ("timestamp", Xdbc::XdbcTimestamp, Some(26), Class::Time(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
    ("interval", Xdbc::XdbcInterval, None, Class::Interval),
    ("uuid", Xdbc::XdbcBinary, Some(36), Class::Quoted),
];

/// The schema of CommandGetXdbcTypeInfo.
pub(crate) fn schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

/// The types that have a given code; all, where none is given.
pub(crate) fn type_info(data_type: Option<i32>) -> Result<RecordBatch> {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, size, class) in &TYPES {
        builder.append(info(name, *data_type, *size, class));
    }
    let infos = builder.build().and_then(|data| data.record_batch(data_type));
    infos.map_err(|error| Error::internal(error.to_string()).with_source(error))
}

fn info(name: &str, data_type: XdbcDataType, size: Option<i32>, class: &Class) -> XdbcTypeInfo {
    let number = matches!(class, Class::Exact | Class::Unsigned | Class::Approximate | Class::Scaled);
    let (prefix, suffix) = match class {
        Class::Quoted => (Some("'".to_owned()), Some("'".to_owned())),
        Class::Bytes => (Some("x'".to_owned()), Some("'".to_owned())),
        Class::Time(_) | Class::Interval => (Some(format!("{name} '")), Some("'".to_owned())),
        _ => (None, None),
    };
    let scale = match class {
        Class::Exact | Class::Unsigned => (Some(0), Some(0)),
        Class::Scaled => (Some(0), Some(76)),
        _ => (None, None),
    };
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size: size,
        literal_prefix: prefix,
        literal_suffix: suffix,
        create_params: matches!(class, Class::Scaled).then(|| vec!["precision".to_owned(), "scale".to_owned()]),
        nullable: Nullable::NullabilityNullable,
        case_sensitive: matches!(class, Class::Quoted),
        searchable: Searchable::Full,
        unsigned_attribute: number.then_some(matches!(class, Class::Unsigned)),
        fixed_prec_scale: false,
        auto_increment: number.then_some(false),
        local_type_name: Some(name.to_owned()),
        minimum_scale: scale.0,
        maximum_scale: scale.1,
        sql_data_type: if matches!(class, Class::Time(_)) { Xdbc::XdbcDatetime } else { data_type },
        datetime_subcode: if let Class::Time(subcode) = class { Some(*subcode) } else { None },
        num_prec_radix: match class {
            Class::Approximate => Some(2),
            _ => number.then_some(10),
        },
        interval_precision: None,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    #[test]
    fn types_are_listed_and_narrowed() {
        let all = type_info(None).unwrap();
        assert_eq!((all.num_rows(), all.schema()), (TYPES.len(), schema()));
        let integers = type_info(Some(Xdbc::XdbcInteger as i32)).unwrap();
        let names: Vec<&str> = integers.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(names, ["integer", "integer unsigned"]);
        assert_eq!(type_info(Some(Xdbc::XdbcInterval as i32)).unwrap().num_rows(), 1);
    }
}
