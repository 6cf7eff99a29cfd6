//! Types: from their spelling in a statement to Arrow.
//!
//! The way back, from Arrow to a spelling, is [`couatl_core::type_spelling`]; the two are inverse. Not every type fits
//! an Arrow `DataType`: a uuid, a json and an enum are one plus metadata, so that what is parsed here becomes a field.

mod names;
mod temporal;
mod tuple;
mod variants;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Field, Fields};
use couatl_core::{Error, Result};
use names::Kind;
use sqlparser::tokenizer::{Location, Token};

use crate::lexer;
use crate::parameters::whole_number;
use crate::tokens::{Tokens, error_at};

const EXTENSION_NAME: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";

/// How many types may stand inside each other. Everything that walks a type later does so recursively.
const MOST_LEVELS: usize = 64;

/// A type as it was spelled.
#[derive(Debug)]
pub(crate) struct Type {
    data_type: DataType,
    metadata: HashMap<String, String>,
    /// How many types stand inside each other here, this one included.
    levels: usize,
    /// Whether it was spelled `nullable(…)`.
    pub(crate) is_nullable: bool,
}

impl Type {
    fn plain(data_type: DataType) -> Self {
        Self { data_type, metadata: HashMap::new(), levels: 1, is_nullable: false }
    }

    fn extension(data_type: DataType, metadata: &[(&str, &str)]) -> Self {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { metadata, ..Self::plain(data_type) }
    }

    /// A type around others.
    fn nested(data_type: DataType, inner_levels: usize, place: Location) -> Result<Self> {
        check_levels(inner_levels + 1, place)?;
        Ok(Self { levels: inner_levels + 1, ..Self::plain(data_type) })
    }

    pub(crate) fn into_field(self, name: impl Into<String>, nullable: bool) -> Field {
        Field::new(name, self.data_type, nullable).with_metadata(self.metadata)
    }
}

fn check_levels(levels: usize, place: Location) -> Result<()> {
    if levels <= MOST_LEVELS {
        return Ok(());
    }
    Err(invalid(place, |at| format!("expected types nested at most {MOST_LEVELS} deep, found more{at}")))
}

fn invalid(place: Location, message: impl FnOnce(&str) -> String) -> Error {
    error_at(Error::invalid_definition, place, message)
}

/// Parses a type. The field that comes back has no name and is nullable; its metadata says what its data type cannot:
/// that it is a uuid or a json (Arrow's canonical extensions), or the names and codes of an enum.
///
/// | names, in any case | Arrow |
/// | --- | --- |
/// | bool, boolean | Boolean |
/// | int8/tinyint, int16/smallint, int32/int/integer, int64/bigint, uint8 … uint64 | Int8 … UInt64 |
/// | float32/float/real, float64/double/double precision | Float32, Float64 |
/// | decimal(p, s), numeric(p, s) | Decimal128, Decimal256 beyond 38 digits |
/// | string, varchar, text, char | Utf8; a length is refused, as nothing would hold a value to it |
/// | binary, bytea, blob | Binary |
/// | date; time; interval | Date32; Time64(µs); Interval(MonthDayNano) |
/// | timestamp, datetime; timestamptz, timestamp with time zone | Timestamp(µs); Timestamp(µs, UTC); each takes a (p) |
/// | datetime64(p), datetime64(p, 'zone') | Timestamp of the coarsest unit that holds p digits (p is 3 unless given) |
/// | uuid | FixedSizeBinary(16), `arrow.uuid` |
/// | json | Utf8, `arrow.json` |
/// | array(T), array\<T\>, T\[\] | List |
/// | map(K, V) | Map; keys are not null |
/// | tuple(a T, …), tuple(T, …), struct(…) | Struct; members without names are called 1, 2, … |
/// | nullable(T) | T |
/// | low_cardinality(T) | Dictionary(Int32, T), of a plain T |
/// | enum8('a' = 1, …), enum16(…) | Dictionary(Int8 or Int16, Utf8); a name without a code has the one after its predecessor's, the first one 1 |
///
/// `decimal(p)` has a scale of 0, as SQL has it; `decimal` alone is DataFusion's decimal(38, 10).
///
/// Children have the names of the Arrow specification, which pyarrow and DataFusion use too: `item` in a list;
/// `entries`, `key` and `value` in a map (arrow-rs's `MapBuilder` says `keys` and `values` unless told otherwise).
/// Except for entries and keys, all of them are nullable.
///
/// # Errors
/// `invalid-syntax`, and `invalid-definition` where the type is unknown or its parameters do not make one.
///
/// ```
/// use arrow::datatypes::{DataType, TimeUnit};
/// use couatl_core::type_spelling;
/// use couatl_sql::parse_type;
///
/// assert_eq!(parse_type("BIGINT")?.data_type(), &DataType::Int64);
/// assert_eq!(parse_type("datetime64")?.data_type(), &DataType::Timestamp(TimeUnit::Millisecond, None));
/// assert_eq!(type_spelling(&parse_type("Map(varchar, uuid[])")?), "map(string, array(uuid))");
/// assert_eq!(
///     parse_type("array(strng)").unwrap_err().to_string(),
///     "unknown type 'strng' at line 1, column 7; did you mean 'string'?",
/// );
/// # Ok::<(), couatl_core::Error>(())
/// ```
pub fn parse_type(text: &str) -> Result<Field> {
    let tokens = lexer::tokens(text)?;
    let mut tokens = Tokens::new(&tokens);
    let parsed = Type::parse(&mut tokens)?;
    tokens.end("the end of the type")?;
    Ok(parsed.into_field("", true))
}

impl Type {
    /// Reads a type, as far as it goes.
    pub(crate) fn parse(tokens: &mut Tokens<'_>) -> Result<Self> {
        Self::parse_inside(tokens, 1)
    }

    /// Reads a type that stands at a level. The level bounds this recursion; what bounds the type is its own depth,
    /// which `T[]` adds to without descending.
    fn parse_inside(tokens: &mut Tokens<'_>, level: usize) -> Result<Self> {
        let place = tokens.location();
        check_levels(level, place)?;
        let mut parsed = Self::parse_named(tokens, level)?;
        while tokens.eat(&Token::LBracket) {
            tokens.token(&Token::RBracket)?;
            parsed = Self::array(parsed, place)?;
        }
        Ok(parsed)
    }

    fn parse_named(tokens: &mut Tokens<'_>, level: usize) -> Result<Self> {
        let place = tokens.location();
        let Some(Token::Word(word)) = tokens.peek(0) else { return Err(tokens.expected("a type")) };
        let name = word.value.to_ascii_lowercase();
        let kind = names::kind(&name).ok_or_else(|| invalid(place, |at| names::unknown(&word.value, at)))?;
        tokens.advance();
        if matches!(kind, Kind::Plain(_) | Kind::Uuid | Kind::Json) && tokens.peek(0) == Some(&Token::LParen) {
            return Err(invalid(tokens.location(), |at| match kind {
                Kind::Plain(DataType::Utf8) => {
                    format!("type '{name}' takes no length{at}: it holds strings of any length")
                }
                _ => format!("type '{name}' takes no parameters{at}"),
            }));
        }
        match kind {
            Kind::Plain(data_type) => {
                if name == "double" {
                    tokens.eat_words(&["precision"]);
                }
                Ok(Self::plain(data_type.clone()))
            }
            Kind::Decimal => Self::decimal(tokens),
            Kind::Timestamp => temporal::timestamp(tokens),
            Kind::TimestampTz => temporal::timestamptz(tokens),
            Kind::DateTime64 => temporal::datetime64(tokens),
            Kind::Uuid => Ok(Self::extension(DataType::FixedSizeBinary(16), &[(EXTENSION_NAME, "arrow.uuid")])),
            Kind::Json => {
                let metadata = [(EXTENSION_NAME, "arrow.json"), (EXTENSION_METADATA, "")];
                Ok(Self::extension(DataType::Utf8, &metadata))
            }
            Kind::Array => {
                let [item] = Self::parameters(tokens, level)?;
                Self::array(item, place)
            }
            Kind::Map => {
                let [key, value] = Self::parameters(tokens, level)?;
                Self::map(key, value, place)
            }
            Kind::Tuple => tuple::parse(tokens, level, place),
            Kind::Nullable => {
                let [inner] = Self::parameters(tokens, level)?;
                // It adds a level, though Arrow knows nothing of it, so that what is accepted is bounded as spelled.
                check_levels(inner.levels + 1, place)?;
                Ok(Self { is_nullable: true, levels: inner.levels + 1, ..inner })
            }
            Kind::LowCardinality => {
                let [value] = Self::parameters(tokens, level)?;
                Self::low_cardinality(value, place)
            }
            Kind::Enum8 => variants::parse(tokens, DataType::Int8, place),
            Kind::Enum16 => variants::parse(tokens, DataType::Int16, place),
        }
    }

    fn decimal(tokens: &mut Tokens<'_>) -> Result<Self> {
        let (mut precision, mut scale) = (DECIMAL128_MAX_PRECISION, 10);
        if tokens.eat(&Token::LParen) {
            let most = i64::from(DECIMAL256_MAX_PRECISION);
            let digits = whole_number(tokens, 1..=most, "a number of digits")?;
            let fraction = match tokens.eat(&Token::Comma) {
                true => whole_number(tokens, 0..=digits, "a number of digits after the point")?,
                false => 0,
            };
            tokens.token(&Token::RParen)?;
            // Both are at most 76.
            (precision, scale) = (digits as u8, fraction as i8);
        }
        Ok(Self::plain(match precision <= DECIMAL128_MAX_PRECISION {
            true => DataType::Decimal128(precision, scale),
            false => DataType::Decimal256(precision, scale),
        }))
    }

    /// A dictionary, whose values are a bare data type: there is no field that could hold metadata.
    fn low_cardinality(value: Self, place: Location) -> Result<Self> {
        let is_dictionary = matches!(value.data_type, DataType::Dictionary(..));
        if is_dictionary || value.data_type.is_nested() || !value.metadata.is_empty() {
            return Err(invalid(place, |at| {
                format!("type 'low_cardinality' takes a plain type{at}: no uuid, json, enum or nested type")
            }));
        }
        let data_type = DataType::Dictionary(Box::new(DataType::Int32), Box::new(value.data_type));
        Self::nested(data_type, value.levels, place)
    }

    fn array(item: Self, place: Location) -> Result<Self> {
        let levels = item.levels;
        Self::nested(DataType::List(Arc::new(item.into_field(Field::LIST_FIELD_DEFAULT_NAME, true))), levels, place)
    }

    fn map(key: Self, value: Self, place: Location) -> Result<Self> {
        let levels = key.levels.max(value.levels);
        let members = Fields::from(vec![key.into_field("key", false), value.into_field("value", true)]);
        let entries = Field::new("entries", DataType::Struct(members), false);
        Self::nested(DataType::Map(Arc::new(entries), false), levels, place)
    }

    /// Reads the types that are parameters of the type whose name has just been read.
    fn parameters<const COUNT: usize>(tokens: &mut Tokens<'_>, level: usize) -> Result<[Self; COUNT]> {
        let close = Bracket::open(tokens)?;
        let mut parameters = Vec::with_capacity(COUNT);
        for index in 0..COUNT {
            if index > 0 {
                tokens.token(&Token::Comma)?;
            }
            parameters.push(Self::parse_inside(tokens, level + 1)?);
        }
        close.close(tokens)?;
        parameters.try_into().map_err(|_| Error::internal("a type has lost a parameter"))
    }
}

/// What encloses parameters that are types: `(…)`, or `<…>` as Spark and Flink have it.
#[derive(Clone, Copy)]
enum Bracket {
    Round,
    Angular,
}

impl Bracket {
    fn open(tokens: &mut Tokens<'_>) -> Result<Self> {
        if tokens.eat(&Token::Lt) {
            return Ok(Self::Angular);
        }
        tokens.token(&Token::LParen)?;
        Ok(Self::Round)
    }

    fn close(self, tokens: &mut Tokens<'_>) -> Result<()> {
        match self {
            Self::Round if tokens.eat(&Token::RParen) => Ok(()),
            Self::Round => Err(tokens.expected("')'")),
            Self::Angular if tokens.eat_greater() => Ok(()),
            Self::Angular => Err(tokens.expected("'>'")),
        }
    }
}
