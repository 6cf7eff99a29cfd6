//! What BI tools and drivers read of a column beside its Arrow type: metadata of its field, in Flight SQL's own words.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use couatl_core::{is_json, is_uuid, type_spelling};
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::common::ResolvedTableReference;

use crate::wire::{Dictionaries, schema_with};

const PREFIX: &str = "ARROW:FLIGHT:SQL:";

/// The schemas whose tables say what there is, and are not written to.
const READ_ONLY: [&str; 2] = ["system", INFORMATION_SCHEMA];

/// Where the values of a column come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'o> {
    /// A column of this table.
    Table(&'o ResolvedTableReference),
    /// A column of a table of this schema, in whose row of a listing it stands, which need not be named again: ten
    /// thousand tables would take twice the bytes.
    Listed(&'o str),
    /// An expression.
    Nowhere,
}

/// A schema in its wire form, each of its columns described.
pub(crate) fn described<'o>(
    schema: &Schema,
    dictionaries: Dictionaries,
    mut origin: impl FnMut(usize) -> Origin<'o>,
) -> SchemaRef {
    let wire = schema_with(schema, dictionaries);
    // A dictionary has a type of its own, views are but another form of theirs.
    let typed = schema_with(schema, Dictionaries::Kept);
    let columns = typed.fields().iter().zip(wire.fields()).enumerate();
    let fields = columns.map(|(at, (field, wire))| {
        let mut metadata = wire.metadata().clone();
        metadata.extend(description(field, origin(at)));
        Field::clone(wire).with_metadata(metadata)
    });
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), wire.metadata().clone()).into()
}

/// A field that a client sends, which may be one that it was given: what it says of where it comes from is left out.
pub(crate) fn undescribed(field: &FieldRef) -> FieldRef {
    if !field.metadata().keys().any(|key| key.starts_with(PREFIX)) {
        return FieldRef::clone(field);
    }
    let metadata = field.metadata().iter().filter(|(key, _)| !key.starts_with(PREFIX));
    let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.clone(), value.clone())).collect();
    Field::clone(field).with_metadata(metadata).into()
}

fn description(field: &Field, origin: Origin<'_>) -> Vec<(String, String)> {
    let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
    let (precision, scale) = digits(field);
    let mut said = vec![
        ("TYPE_NAME", type_spelling(field)),
        ("IS_AUTO_INCREMENT", flag(false)),
        ("IS_CASE_SENSITIVE", flag(is_text(field.data_type()))),
        ("IS_READ_ONLY", flag(is_read_only(origin))),
        ("IS_SEARCHABLE", flag(true)),
    ];
    said.extend(precision.map(|digits| ("PRECISION", digits.to_string())));
    said.extend(scale.map(|digits| ("SCALE", digits.to_string())));
    if let Origin::Table(ResolvedTableReference { catalog, schema, table }) = origin {
        // The definition of the protocol has one name for the schema, the clients of Java and Go another.
        said.extend([("CATALOG_NAME", catalog.to_string()), ("TABLE_NAME", table.to_string())]);
        said.extend(["DB_SCHEMA_NAME", "SCHEMA_NAME"].map(|key| (key, schema.to_string())));
    }
    said.into_iter().map(|(key, value)| (format!("{PREFIX}{key}"), value)).collect()
}

fn is_read_only(origin: Origin<'_>) -> bool {
    match origin {
        Origin::Table(table) => READ_ONLY.contains(&&*table.schema),
        Origin::Listed(schema) => READ_ONLY.contains(&schema),
        Origin::Nowhere => true,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        _ => false,
    }
}

/// How many digits, or characters, a value has at most, and how many of them after the point, where it has any.
fn digits(field: &Field) -> (Option<u32>, Option<u32>) {
    let fraction = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    // The point counts, where there is one.
    let with_fraction = |whole: u32, unit| whole + fraction(unit) + u32::from(fraction(unit) > 0);
    let (precision, scale) = match field.data_type() {
        _ if is_uuid(field) => (36, None),
        _ if is_json(field) => return (None, None),
        DataType::Boolean => (1, None),
        DataType::Int8 | DataType::UInt8 => (3, Some(0)),
        DataType::Int16 | DataType::UInt16 => (5, Some(0)),
        DataType::Int32 | DataType::UInt32 => (10, Some(0)),
        DataType::Int64 => (19, Some(0)),
        DataType::UInt64 => (20, Some(0)),
        DataType::Float32 => (7, None),
        DataType::Float64 => (15, None),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (u32::from(*precision), u32::try_from(*scale).ok()),
        DataType::Date32 | DataType::Date64 => (10, None),
        DataType::Time32(unit) | DataType::Time64(unit) => (with_fraction(8, unit), Some(fraction(unit))),
        DataType::Timestamp(unit, zone) => {
            let zone = if zone.is_some() { "+00:00".len() as u32 } else { 0 };
            (with_fraction(19, unit) + zone, Some(fraction(unit)))
        }
        DataType::FixedSizeBinary(size) => (u32::try_from(*size).unwrap_or_default(), None),
        _ => return (None, None),
    };
    (Some(precision), scale)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;

    use super::*;

    #[test]
    fn columns_are_described() {
        let codes = couatl_core::enum_metadata(&[("on".to_owned(), 1)]);
        let key = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let metadata = HashMap::from([(couatl_core::ENUM_METADATA_KEY.to_owned(), codes)]);
        let schema = Schema::new(vec![
            Field::new("id", DataType::UInt64, false),
            Field::new("price", DataType::Decimal128(10, 2), true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
            Field::new("state", key, true).with_metadata(metadata),
        ]);
        let table = ResolvedTableReference { catalog: "c".into(), schema: "s".into(), table: "t".into() };
        let described =
            described(&schema, Dictionaries::Flat, |at| if at < 2 { Origin::Table(&table) } else { Origin::Nowhere });
        let lines = described.fields().iter().flat_map(|field| {
            let mut said: Vec<_> =
                field.metadata().iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value))).collect();
            said.sort();
            let name = format!("{} {}", field.name(), field.data_type());
            std::iter::once(name).chain(said.into_iter().map(|(key, value)| format!("  {key} {value}")))
        });
        expect![[r#"
            id UInt64
              CATALOG_NAME c
              DB_SCHEMA_NAME s
              IS_AUTO_INCREMENT 0
              IS_CASE_SENSITIVE 0
              IS_READ_ONLY 0
              IS_SEARCHABLE 1
              PRECISION 20
              SCALE 0
              SCHEMA_NAME s
              TABLE_NAME t
              TYPE_NAME uint64
            price Decimal128(10, 2)
              CATALOG_NAME c
              DB_SCHEMA_NAME s
              IS_AUTO_INCREMENT 0
              IS_CASE_SENSITIVE 0
              IS_READ_ONLY 0
              IS_SEARCHABLE 1
              PRECISION 10
              SCALE 2
              SCHEMA_NAME s
              TABLE_NAME t
              TYPE_NAME decimal(10, 2)
            at Timestamp(ms, "UTC")
              IS_AUTO_INCREMENT 0
              IS_CASE_SENSITIVE 0
              IS_READ_ONLY 1
              IS_SEARCHABLE 1
              PRECISION 29
              SCALE 3
              TYPE_NAME datetime64(3, 'UTC')
            state Utf8
              IS_AUTO_INCREMENT 0
              IS_CASE_SENSITIVE 1
              IS_READ_ONLY 1
              IS_SEARCHABLE 1
              TYPE_NAME enum8('on' = 1)"#]]
        .assert_eq(&lines.collect::<Vec<_>>().join("\n"));
        let sent = undescribed(&described.fields()[3]);
        assert_eq!(sent.metadata().len(), 1, "what is no description stays");
        assert!(undescribed(&Arc::clone(&described.fields()[0])).metadata().is_empty());
    }

    #[test]
    fn tables_that_say_what_there_is_are_not_written_to() {
        for (schema, expected) in [("public", false), ("system", true), ("information_schema", true)] {
            let table = ResolvedTableReference { catalog: "c".into(), schema: schema.into(), table: "t".into() };
            assert_eq!(is_read_only(Origin::Table(&table)), expected, "{schema}");
        }
    }
}
