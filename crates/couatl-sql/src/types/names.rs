//! The names of types: one table, for reading them and for guessing what a misspelled one meant.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};

use crate::parameters::nearest;
use crate::tokens::shortened;

/// What a name of a type asks for.
pub(super) enum Kind {
    /// A type without parameters.
    Plain(DataType),
    Decimal,
    Timestamp,
    TimestampTz,
    DateTime64,
    Uuid,
    Json,
    Array,
    Map,
    Tuple,
    Nullable,
    LowCardinality,
    Enum8,
    Enum16,
}

static NAMES: &[(&str, Kind)] = &[
    ("bool", Kind::Plain(DataType::Boolean)),
    ("boolean", Kind::Plain(DataType::Boolean)),
    ("int8", Kind::Plain(DataType::Int8)),
    ("tinyint", Kind::Plain(DataType::Int8)),
    ("int16", Kind::Plain(DataType::Int16)),
    ("smallint", Kind::Plain(DataType::Int16)),
    ("int32", Kind::Plain(DataType::Int32)),
    ("int", Kind::Plain(DataType::Int32)),
    ("integer", Kind::Plain(DataType::Int32)),
    ("int64", Kind::Plain(DataType::Int64)),
    ("bigint", Kind::Plain(DataType::Int64)),
    ("uint8", Kind::Plain(DataType::UInt8)),
    ("uint16", Kind::Plain(DataType::UInt16)),
    ("uint32", Kind::Plain(DataType::UInt32)),
    ("uint64", Kind::Plain(DataType::UInt64)),
    ("float32", Kind::Plain(DataType::Float32)),
    ("float", Kind::Plain(DataType::Float32)),
    ("real", Kind::Plain(DataType::Float32)),
    ("float64", Kind::Plain(DataType::Float64)),
    ("double", Kind::Plain(DataType::Float64)),
    ("decimal", Kind::Decimal),
    ("numeric", Kind::Decimal),
    ("string", Kind::Plain(DataType::Utf8)),
    ("varchar", Kind::Plain(DataType::Utf8)),
    ("text", Kind::Plain(DataType::Utf8)),
    ("char", Kind::Plain(DataType::Utf8)),
    ("binary", Kind::Plain(DataType::Binary)),
    ("bytea", Kind::Plain(DataType::Binary)),
    ("blob", Kind::Plain(DataType::Binary)),
    ("date", Kind::Plain(DataType::Date32)),
    ("time", Kind::Plain(DataType::Time64(TimeUnit::Microsecond))),
    ("interval", Kind::Plain(DataType::Interval(IntervalUnit::MonthDayNano))),
    ("timestamp", Kind::Timestamp),
    ("datetime", Kind::Timestamp),
    ("timestamptz", Kind::TimestampTz),
    ("datetime64", Kind::DateTime64),
    ("uuid", Kind::Uuid),
    ("json", Kind::Json),
    ("array", Kind::Array),
    ("map", Kind::Map),
    ("tuple", Kind::Tuple),
    ("struct", Kind::Tuple),
    ("nullable", Kind::Nullable),
    ("low_cardinality", Kind::LowCardinality),
    // As ClickHouse spells it, once its capitals are folded.
    ("lowcardinality", Kind::LowCardinality),
    ("enum8", Kind::Enum8),
    ("enum16", Kind::Enum16),
];

/// Names that other systems have. Theirs would be guessed wrongly by their letters: PostgreSQL's `int4` has 32 bits.
const FOREIGN: &[(&str, &str)] = &[
    ("int2", "int16"),
    ("int4", "int32"),
    ("long", "int64"),
    ("short", "int16"),
    ("byte", "int8"),
    ("float4", "float32"),
    ("float8", "float64"),
    ("number", "decimal"),
    ("str", "string"),
    ("bytes", "binary"),
    ("list", "array"),
    ("dict", "map"),
    ("row", "tuple"),
    ("enum", "enum8"),
];

/// What a name in lower case asks for.
pub(super) fn kind(name: &str) -> Option<&'static Kind> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
}

/// The message for a name that is none, found ` at line …`.
pub(super) fn unknown(name: &str, at: &str) -> String {
    let folded = name.to_ascii_lowercase();
    let foreign = FOREIGN.iter().find(|(foreign, _)| *foreign == folded).map(|(_, ours)| *ours);
    let meant = foreign.or_else(|| nearest(&folded, NAMES.iter().map(|(known, _)| *known)));
    let name = shortened(name);
    match meant {
        Some(meant) => format!("unknown type '{name}'{at}; did you mean '{meant}'?"),
        None => format!("unknown type '{name}'{at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_once_and_guesses_are_names() {
        for (position, (name, _)) in NAMES.iter().enumerate() {
            assert_eq!(NAMES.iter().position(|(other, _)| other == name), Some(position), "{name}");
        }
        for (foreign, ours) in FOREIGN {
            assert!(kind(foreign).is_none() && kind(ours).is_some(), "{foreign}");
        }
    }
}
