//! How a column's type is spelled in a statement, from its Arrow field.
//!
//! It stands here, below the language, because messages about values name types too. `couatl-sql` parses what this
//! prints: the two are inverse. Where one Arrow type has several names, the one printed is the first of the
//! documentation's table.

use std::fmt::Write;

use arrow::array::Array;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The metadata key under which an enum's names and codes are kept, as [`enum_metadata`] writes them.
pub const ENUM_METADATA_KEY: &str = "couatl.enum";

const EXTENSION_NAME: &str = "ARROW:extension:name";

/// Whether the field is a UUID, Arrow's canonical extension over sixteen bytes.
pub fn is_uuid(field: &Field) -> bool {
    has_extension(field, "arrow.uuid")
}

/// Whether the field is JSON, Arrow's canonical extension over text.
pub fn is_json(field: &Field) -> bool {
    has_extension(field, "arrow.json")
}

fn has_extension(field: &Field, name: &str) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|found| found == name)
}

/// A value as text, for messages. A time that no calendar has is the number that it is made of.
pub fn value_text(array: &dyn Array, row: usize) -> String {
    let text = |array: &dyn Array| {
        let options = FormatOptions::new().with_display_error(false);
        ArrayFormatter::try_new(array, &options).and_then(|formatter| formatter.value(row).try_to_string())
    };
    let text = text(array).or_else(|_| text(&cast(array, &DataType::Int64)?));
    text.unwrap_or_else(|_| "a value".to_owned())
}

/// The metadata value that keeps an enum's names and codes: `code:length:name`, one after the other.
pub fn enum_metadata(codes: &[(String, i16)]) -> String {
    codes.iter().map(|(name, code)| format!("{code}:{}:{name}", name.len())).collect()
}

/// The names and codes of an enum field, in declared order; `None` for any other field.
pub fn enum_codes(field: &Field) -> Option<Vec<(String, i16)>> {
    let mut rest = field.metadata().get(ENUM_METADATA_KEY)?.as_str();
    let mut codes = Vec::new();
    while !rest.is_empty() {
        let (code, tail) = rest.split_once(':')?;
        let (length, tail) = tail.split_once(':')?;
        let (name, tail) = tail.split_at_checked(length.parse().ok()?)?;
        codes.push((name.to_owned(), code.parse().ok()?));
        rest = tail;
    }
    Some(codes)
}

/// The type of a field, as a statement spells it: `int32`, `array(string)`, `datetime64(3, 'UTC')`.
///
/// One that no statement can spell is printed in the same manner; unions and the like as Arrow prints them.
pub fn type_spelling(field: &Field) -> String {
    if is_uuid(field) {
        return "uuid".into();
    }
    if is_json(field) {
        return "json".into();
    }
    if let (Some(codes), DataType::Dictionary(key, _)) = (enum_codes(field), field.data_type()) {
        let mut out = String::from(if **key == DataType::Int8 { "enum8(" } else { "enum16(" });
        for (i, (name, code)) in codes.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let _ = write!(out, "{comma}'{}' = {code}", name.replace('\'', "''"));
        }
        return out + ")";
    }
    match field.data_type() {
        DataType::Boolean => "bool".into(),
        DataType::Int8 => "int8".into(),
        DataType::Int16 => "int16".into(),
        DataType::Int32 => "int32".into(),
        DataType::Int64 => "int64".into(),
        DataType::UInt8 => "uint8".into(),
        DataType::UInt16 => "uint16".into(),
        DataType::UInt32 => "uint32".into(),
        DataType::UInt64 => "uint64".into(),
        DataType::Float32 => "float32".into(),
        DataType::Float64 => "float64".into(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("decimal({p}, {s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".into()
        }
        DataType::Date32 => "date".into(),
        DataType::Time64(TimeUnit::Microsecond) => "time".into(),
        DataType::Interval(_) => "interval".into(),
        // What no column is declared with, and queries give.
        DataType::Null => "null".into(),
        DataType::Float16 => "float16".into(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => format!("decimal({p}, {s})"),
        DataType::Time32(TimeUnit::Second) => "time(0)".into(),
        DataType::Time32(_) => "time(3)".into(),
        DataType::Time64(_) => "time(9)".into(),
        DataType::Duration(_) => "duration".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".into(),
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if &**zone == "UTC" => "timestamptz".into(),
        DataType::Timestamp(unit, zone) => {
            let precision = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            match zone {
                Some(zone) => format!("datetime64({precision}, '{}')", zone.replace('\'', "''")),
                None => format!("datetime64({precision})"),
            }
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("array({})", type_spelling(item))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("map({}, {})", type_spelling(&fields[0]), type_spelling(&fields[1]))
            }
            other => other.to_string(),
        },
        DataType::Struct(fields) => {
            let members: Vec<_> =
                fields.iter().map(|field| format!("{} {}", quoted(field.name()), type_spelling(field))).collect();
            format!("tuple({})", members.join(", "))
        }
        DataType::Dictionary(_, value) => {
            let value = Field::new("", (**value).clone(), true);
            format!("low_cardinality({})", type_spelling(&value))
        }
        other => other.to_string(),
    }
}

/// A name as a statement must write it: quoted unless it is a plain lower-case word.
pub fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    if name.chars().all(plain) && name.starts_with(|c: char| !c.is_ascii_digit()) {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn enum_metadata_survives_any_name() {
        let codes: Vec<(String, i16)> =
            [("a", 1), ("", -2), ("b:3:c", 300), ("é\n'", 0)].map(|(name, code)| (name.to_owned(), code)).into();
        let key = DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8));
        let metadata = HashMap::from([(ENUM_METADATA_KEY.to_owned(), enum_metadata(&codes))]);
        let field = Field::new("e", key, true).with_metadata(metadata);
        assert_eq!(enum_codes(&field), Some(codes));
        assert_eq!(type_spelling(&field), "enum16('a' = 1, '' = -2, 'b:3:c' = 300, 'é\n''' = 0)");
    }

    #[test]
    fn names_are_quoted_where_a_statement_needs_it() {
        let names = ["a_1", "A", "1a", "", "a b", "a\"b"];
        let expected = ["a_1", "\"A\"", "\"1a\"", "\"\"", "\"a b\"", "\"a\"\"b\""];
        assert_eq!(names.map(quoted), expected);
    }
}
