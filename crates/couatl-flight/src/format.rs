//! How rows look over HTTP.
//!
//! Each format makes of a batch the bytes that can be sent at once, and of the end those that close what is open.

use std::collections::HashSet;
use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::json::{Writer as JsonWriter, WriterBuilder as JsonWriterBuilder};
use couatl_core::{Error, Result, is_uuid, type_spelling, value_text};
use datafusion::parquet::arrow::ArrowWriter;
use parking_lot::Mutex;
use uuid::Uuid;

/// A row group is sent when it holds so much, or when rows come so long after its first ones.
const ROW_GROUP_BYTES: usize = 16 * 1024 * 1024;
const ROW_GROUP_TIME: Duration = Duration::from_secs(5);

/// A format that `format=` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    TabSeparated,
    Json,
    JsonEachRow,
    Csv,
    ArrowStream,
    Parquet,
}

const NAMES: [(&str, Format); 6] = [
    ("TabSeparated", Format::TabSeparated),
    ("JSON", Format::Json),
    ("JSONEachRow", Format::JsonEachRow),
    ("CSV", Format::Csv),
    ("ArrowStream", Format::ArrowStream),
    ("Parquet", Format::Parquet),
];

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, format)| *format).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            Error::invalid_argument(format!("there is no format '{text}'; there are {}", names.join(", ")))
        })
    }
}

impl Format {
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::TabSeparated => "text/tab-separated-values; charset=utf-8",
            Self::Json => "application/json",
            Self::JsonEachRow => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::ArrowStream => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// A writer of rows of these columns.
    pub(crate) fn writer(self, schema: &SchemaRef) -> Result<Writer> {
        let out = Out::default();
        let mut names = HashSet::new();
        let twice = schema.fields().iter().find(|field| !names.insert(field.name()));
        if let Some(twice) = twice.filter(|_| matches!(self, Self::Json | Self::JsonEachRow)) {
            return Err(Error::invalid_argument(format!(
                "two columns are named '{}', and who reads JSON has one place for them: name one of them otherwise, with AS",
                twice.name()
            )));
        }
        let encoder: Box<dyn Encoder> = match self {
            Self::TabSeparated => Box::new(Tabs(out.clone())),
            Self::Json => Box::new(Json { schema: Arc::clone(schema), out: out.clone(), rows: 0, writer: None }),
            Self::JsonEachRow => Box::new(explicit_nulls().build::<_, LineDelimited>(out.clone())),
            Self::Csv => Box::new(Csv { writer: csv::Writer::new(out.clone()), schema: Arc::clone(schema) }),
            Self::ArrowStream => Box::new(StreamWriter::try_new(out.clone(), schema)?),
            Self::Parquet => Box::new(Parquet {
                writer: ArrowWriter::try_new(out.clone(), Arc::clone(schema), None).map_err(parquet)?,
                began: None,
            }),
        };
        let is_text = !matches!(self, Self::ArrowStream | Self::Parquet);
        Ok(Writer { encoder, out, has_uuids: is_text && schema.fields().iter().any(|field| is_uuid(field)) })
    }
}

/// Makes bytes of rows.
pub(crate) struct Writer {
    encoder: Box<dyn Encoder>,
    out: Out,
    /// Whether there are such columns, which text has in their own way.
    has_uuids: bool,
}

impl Writer {
    /// Those that a batch adds.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        if self.has_uuids {
            self.encoder.write(&with_uuid_texts(batch)?)?;
        } else {
            self.encoder.write(batch)?;
        }
        Ok(self.out.take())
    }

    /// Those that close what is open.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>> {
        self.encoder.finish()?;
        Ok(self.out.take())
    }
}

/// The batch with the texts of its uuids.
fn with_uuid_texts(batch: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let bytes = column.as_fixed_size_binary_opt().filter(|_| is_uuid(field));
        let texts = bytes.map(|bytes| {
            let text = |bytes: &[u8]| Uuid::from_slice(bytes).map_or_else(|_| String::new(), |uuid| uuid.to_string());
            StringArray::from_iter(bytes.iter().map(|value| value.map(text)))
        });
        match texts {
            Some(texts) => {
                fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())));
                columns.push(Arc::new(texts) as ArrayRef);
            }
            None => {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(column));
            }
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Writes rows to an [`Out`] in one format.
trait Encoder: Send {
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    fn finish(&mut self) -> Result<()>;
}

/// What a writer has written, until it is sent.
#[derive(Debug, Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Out {
    fn put(&self, text: &str) {
        self.0.lock().extend_from_slice(text.as_bytes());
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A line for each row, without a header; NULL is `\N`.
struct Tabs(Out);

impl Encoder for Tabs {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut out = String::new();
        for row in 0..batch.num_rows() {
            for (position, column) in batch.columns().iter().enumerate() {
                if position > 0 {
                    out.push('\t');
                }
                match column.data_type() {
                    _ if is_null(column, row) => out.push_str("\\N"),
                    nested if nested.is_nested() => put_item(&mut out, column, row),
                    _ => escape(&mut out, &value_text(column, row)),
                }
            }
            out.push('\n');
        }
        self.0.put(&out);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            c => out.push(c),
        }
    }
}

/// Arrays of the Null type have no bits that say it.
fn is_null(column: &dyn Array, row: usize) -> bool {
    column.data_type().is_null() || column.is_null(row)
}

/// A value as it stands inside of others, as ClickHouse writes it: `['a, b','c']`, `{'k':1}`, `(1,NULL)`.
fn put_item(out: &mut String, column: &dyn Array, row: usize) {
    if is_null(column, row) {
        return out.push_str("NULL");
    }
    match column.data_type() {
        DataType::List(_) => put_items(out, &column.as_list::<i32>().value(row)),
        DataType::FixedSizeList(_, _) => put_items(out, &column.as_fixed_size_list().value(row)),
        DataType::Struct(_) => {
            let members = column.as_struct().columns();
            enclose(out, ['(', ')'], members.len(), |out, position| put_item(out, &members[position], row));
        }
        DataType::Map(_, _) => {
            let entries = column.as_map().value(row);
            enclose(out, ['{', '}'], entries.len(), |out, entry| {
                put_item(out, entries.column(0), entry);
                out.push(':');
                put_item(out, entries.column(1), entry);
            });
        }
        plain if plain.is_numeric() || matches!(plain, DataType::Boolean | DataType::Union(_, _)) => {
            escape(out, &value_text(column, row));
        }
        _ => {
            out.push('\'');
            for (position, text) in value_text(column, row).split('\'').enumerate() {
                if position > 0 {
                    out.push_str("\\'");
                }
                escape(out, text);
            }
            out.push('\'');
        }
    }
}

fn put_items(out: &mut String, items: &dyn Array) {
    enclose(out, ['[', ']'], items.len(), |out, position| put_item(out, items, position));
}

fn enclose(out: &mut String, [open, close]: [char; 2], count: usize, put: impl Fn(&mut String, usize)) {
    out.push(open);
    for position in 0..count {
        if position > 0 {
            out.push(',');
        }
        put(out, position);
    }
    out.push(close);
}

fn explicit_nulls() -> JsonWriterBuilder {
    JsonWriterBuilder::new().with_explicit_nulls(true)
}

/// An object for each row and line.
impl Encoder for JsonWriter<Out, LineDelimited> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(JsonWriter::write(self, batch)?)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(JsonWriter::finish(self)?)
    }
}

/// One object: the columns, the rows, and how many they are.
struct Json {
    schema: SchemaRef,
    out: Out,
    rows: usize,
    writer: Option<JsonWriter<Out, JsonArray>>,
}

impl Json {
    fn begin(&mut self) -> &mut JsonWriter<Out, JsonArray> {
        let (schema, out) = (&self.schema, &self.out);
        self.writer.get_or_insert_with(|| {
            let columns: Vec<_> = schema
                .fields()
                .iter()
                .map(|field| serde_json::json!({"name": field.name(), "type": type_spelling(field)}))
                .collect();
            let head = format!("{{\"meta\":{},\"data\":", serde_json::Value::from(columns));
            out.put(&head);
            explicit_nulls().build(out.clone())
        })
    }
}

impl Encoder for Json {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        Ok(self.begin().write(batch)?)
    }

    fn finish(&mut self) -> Result<()> {
        self.begin().finish()?;
        self.out.put(&format!(",\"rows\":{}}}\n", self.rows));
        Ok(())
    }
}

/// A header, and a line for each row.
struct Csv {
    writer: csv::Writer<Out>,
    schema: SchemaRef,
}

impl Encoder for Csv {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        // What CSV has no form for is written as text.
        let columns = batch.columns().iter().map(|column| match column.data_type().is_nested() {
            true => Arc::new(texts(column)) as arrow::array::ArrayRef,
            false => Arc::clone(column),
        });
        let names = self.schema.fields().iter().map(|field| field.name());
        Ok(self.writer.write(&RecordBatch::try_from_iter(names.zip(columns))?)?)
    }

    fn finish(&mut self) -> Result<()> {
        // The header comes with the first batch.
        if self.schema.fields().is_empty() {
            Ok(())
        } else {
            self.write(&RecordBatch::new_empty(Arc::clone(&self.schema)))
        }
    }
}

fn texts(column: &dyn Array) -> arrow::array::StringArray {
    let text = |row| {
        let mut text = String::new();
        put_item(&mut text, column, row);
        text
    };
    (0..column.len()).map(|row| column.is_valid(row).then(|| text(row))).collect()
}

/// Arrow's own stream.
impl Encoder for StreamWriter<Out> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        Ok(StreamWriter::write(self, batch)?)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(StreamWriter::finish(self)?)
    }
}

/// A file of row groups, each of which is sent when it is closed.
struct Parquet {
    writer: ArrowWriter<Out>,
    /// When the first rows of the row group that is open came.
    began: Option<Instant>,
}

impl Encoder for Parquet {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let began = *self.began.get_or_insert_with(Instant::now);
        self.writer.write(batch).map_err(parquet)?;
        if self.writer.memory_size() >= ROW_GROUP_BYTES || began.elapsed() >= ROW_GROUP_TIME {
            self.writer.flush().map_err(parquet)?;
            // It keeps the last bytes of a row group in a buffer of its own.
            self.writer.sync().map_err(|error| parquet(error.into()))?;
            self.began = None;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.writer.finish().map(drop).map_err(parquet)
    }
}

fn parquet(error: datafusion::parquet::errors::ParquetError) -> Error {
    Error::invalid_argument(format!("cannot write Parquet: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, ListArray, MapArray, NullArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, TimeUnit};

    use super::*;

    fn written(format: Format, batches: &[RecordBatch]) -> String {
        let mut writer = format.writer(&rows().schema()).unwrap();
        let mut bytes: Vec<u8> = batches.iter().flat_map(|batch| writer.write(batch).unwrap()).collect();
        bytes.extend(writer.finish().unwrap());
        String::from_utf8(bytes).unwrap()
    }

    fn rows() -> RecordBatch {
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("s", Arc::new(StringArray::from(vec!["a\tb\\", "x,\"y\""]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn text_formats_escape_what_they_must() {
        let (one, two) = (rows().slice(0, 1), rows().slice(1, 1));
        for (format, expected, nothing) in [
            (Format::TabSeparated, "1\ta\\tb\\\\\n\\N\tx,\"y\"\n", ""),
            (Format::Csv, "n,s\n1,a\tb\\\n,\"x,\"\"y\"\"\"\n", "n,s\n"),
            (Format::JsonEachRow, "{\"n\":1,\"s\":\"a\\tb\\\\\"}\n{\"n\":null,\"s\":\"x,\\\"y\\\"\"}\n", ""),
            (
                Format::Json,
                "{\"meta\":[{\"name\":\"n\",\"type\":\"int64\"},{\"name\":\"s\",\"type\":\"string\"}],\"data\":\
                 [{\"n\":1,\"s\":\"a\\tb\\\\\"},{\"n\":null,\"s\":\"x,\\\"y\\\"\"}],\"rows\":2}\n",
                "{\"meta\":[{\"name\":\"n\",\"type\":\"int64\"},{\"name\":\"s\",\"type\":\"string\"}],\"data\":[],\"rows\":0}\n",
            ),
        ] {
            assert_eq!(written(format, &[one.clone(), two.clone()]), expected);
            assert_eq!(written(format, &[]), nothing, "{format:?}");
        }
    }

    /// NULL, a list of texts, a tuple of a number and a list of NULL, and a map.
    fn nested() -> RecordBatch {
        let texts = StringArray::from(vec![Some("a, b"), Some("it's\n"), None]);
        let item = |items: &dyn Array| Arc::new(Field::new("item", items.data_type().clone(), true));
        let list = ListArray::new(item(&texts), OffsetBuffer::new(vec![0, 3].into()), Arc::new(texts), None);
        let nulls = NullArray::new(1);
        let nulls = ListArray::new(item(&nulls), OffsetBuffer::new(vec![0, 1].into()), Arc::new(nulls), None);
        let pair = |names: [&str; 2], first: ArrayRef, second: ArrayRef| {
            let key = Arc::new(Field::new(names[0], first.data_type().clone(), false));
            let value = Arc::new(Field::new(names[1], second.data_type().clone(), true));
            StructArray::from(vec![(key, first), (value, second)])
        };
        let tuple = pair(["a", "b"], Arc::new(Int64Array::from(vec![1])), Arc::new(nulls));
        let entries =
            pair(["key", "value"], Arc::new(StringArray::from(vec!["k"])), Arc::new(Int64Array::from(vec![2])));
        let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
        let map = MapArray::new(field, OffsetBuffer::new(vec![0, 1].into()), entries, None, false);
        let columns: [(&str, ArrayRef); 4] = [
            ("nothing", Arc::new(NullArray::new(1))),
            ("list", Arc::new(list)),
            ("tuple", Arc::new(tuple)),
            ("map", Arc::new(map)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn items_of_nested_values_are_told_apart() {
        let written = |format: Format| {
            let mut writer = format.writer(&nested().schema()).unwrap();
            let mut bytes = writer.write(&nested()).unwrap();
            bytes.extend(writer.finish().unwrap());
            String::from_utf8(bytes).unwrap()
        };
        let tabs = "\\N\t['a, b','it\\'s\\n',NULL]\t(1,[NULL])\t{'k':2}\n";
        assert_eq!(written(Format::TabSeparated), tabs);
        let csv = "nothing,list,tuple,map\n,\"['a, b','it\\'s\\n',NULL]\",\"(1,[NULL])\",{'k':2}\n";
        assert_eq!(written(Format::Csv), csv);
    }

    #[test]
    fn types_have_one_manner_of_names() {
        let names: Vec<_> = nested().schema().fields().iter().map(|field| type_spelling(field)).collect();
        assert_eq!(names, ["null", "array(string)", "tuple(a int64, b array(null))", "map(string, int64)"]);
        for (data_type, expected) in [
            (DataType::Float16, "float16"),
            (DataType::Time32(TimeUnit::Second), "time(0)"),
            (DataType::Time64(TimeUnit::Microsecond), "time"),
            (DataType::Time64(TimeUnit::Nanosecond), "time(9)"),
            (DataType::Duration(TimeUnit::Millisecond), "duration"),
        ] {
            assert_eq!(type_spelling(&Field::new("f", data_type, true)), expected);
        }
    }

    #[test]
    fn a_row_group_is_sent_when_it_is_large_or_old() {
        let batch = |rows: std::ops::Range<usize>| {
            let texts: StringArray = rows.map(|n| Some(format!("{n:0>50000}"))).collect();
            RecordBatch::try_from_iter([("s", Arc::new(texts) as ArrayRef)]).unwrap()
        };
        let mut writer = Format::Parquet.writer(&batch(0..1).schema()).unwrap();
        assert!(writer.write(&batch(0..1)).unwrap().len() < 50_000);
        assert!(writer.write(&batch(1..400)).unwrap().len() > ROW_GROUP_BYTES);
        assert!(writer.write(&batch(400..401)).unwrap().is_empty());

        let out = Out::default();
        let inner = ArrowWriter::try_new(out.clone(), batch(0..1).schema(), None).unwrap();
        let mut writer = Parquet { writer: inner, began: Instant::now().checked_sub(ROW_GROUP_TIME) };
        writer.write(&batch(0..1)).unwrap();
        assert!(out.take().len() > 50_000);
        writer.write(&batch(1..2)).unwrap();
        assert!(out.take().is_empty());
    }

    #[test]
    fn a_format_is_named() {
        assert_eq!("jsoneachrow".parse::<Format>().unwrap(), Format::JsonEachRow);
        let error = "xml".parse::<Format>().unwrap_err().to_string();
        assert!(error.starts_with("there is no format 'xml'; there are TabSeparated, JSON, "), "{error}");
    }
}
