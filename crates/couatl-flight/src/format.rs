//! How rows look over HTTP.
//!
//! Each format makes of a batch the bytes that can be sent at once, and of the end those that close what is open.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::json::{Writer as JsonWriter, WriterBuilder as JsonWriterBuilder};
use couatl_core::{Error, Result, type_spelling, value_text};
use datafusion::parquet::arrow::ArrowWriter;
use parking_lot::Mutex;

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
        let encoder: Box<dyn Encoder> = match self {
            Self::TabSeparated => Box::new(Tabs(out.clone())),
            Self::Json => Box::new(Json { schema: Arc::clone(schema), out: out.clone(), rows: 0, writer: None }),
            Self::JsonEachRow => Box::new(explicit_nulls().build::<_, LineDelimited>(out.clone())),
            Self::Csv => Box::new(Csv { writer: csv::Writer::new(out.clone()), schema: Arc::clone(schema) }),
            Self::ArrowStream => Box::new(StreamWriter::try_new(out.clone(), schema)?),
            Self::Parquet => Box::new(ArrowWriter::try_new(out.clone(), Arc::clone(schema), None).map_err(parquet)?),
        };
        Ok(Writer { encoder, out })
    }
}

/// Makes bytes of rows.
pub(crate) struct Writer {
    encoder: Box<dyn Encoder>,
    out: Out,
}

impl Writer {
    /// Those that a batch adds.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        self.encoder.write(batch)?;
        Ok(self.out.take())
    }

    /// Those that close what is open.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>> {
        self.encoder.finish()?;
        Ok(self.out.take())
    }
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
                match column.is_null(row) {
                    true => out.push_str("\\N"),
                    false => escape(&mut out, &value_text(column, row)),
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
    (0..column.len()).map(|row| column.is_valid(row).then(|| value_text(column, row))).collect()
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

/// A file of row groups, which are sent as they fill up.
impl Encoder for ArrowWriter<Out> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        ArrowWriter::write(self, batch).map_err(parquet)
    }

    fn finish(&mut self) -> Result<()> {
        ArrowWriter::finish(self).map(drop).map_err(parquet)
    }
}

fn parquet(error: datafusion::parquet::errors::ParquetError) -> Error {
    Error::invalid_argument(format!("cannot write Parquet: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

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

    #[test]
    fn a_format_is_named() {
        assert_eq!("jsoneachrow".parse::<Format>().unwrap(), Format::JsonEachRow);
        let error = "xml".parse::<Format>().unwrap_err().to_string();
        assert!(error.starts_with("there is no format 'xml'; there are TabSeparated, JSON, "), "{error}");
    }
}
