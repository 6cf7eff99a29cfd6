//! Rows as text: a table, CSV, or a JSON object per line.
//!
//! Text goes to a buffer, never to a file: what it looks like is known here, what becomes of it is not.
//!
//! What Arrow's own writers refuse or spell for machines is made readable first: a UUID becomes its text form, a map
//! gets text for keys (JSON), a nested value becomes JSON text (CSV), and JSON text becomes part of the JSON around it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::array::{FixedSizeBinaryArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, NullableEncoder, make_encoder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use couatl_core::{Result, is_json, is_uuid};
use uuid::Uuid;

use crate::args::Format;
use crate::table::Table;

/// Prints one result after the other.
#[derive(Debug)]
pub(crate) struct Renderer {
    format: Format,
    schema: SchemaRef,
    table: Table,
    rows: u64,
    opened: bool,
    after_result: bool,
}

impl Renderer {
    /// A renderer that has printed nothing.
    pub(crate) fn new(format: Format) -> Self {
        let schema = Arc::new(Schema::empty());
        Self { format, table: Table::new(&schema), schema, rows: 0, opened: false, after_result: false }
    }

    /// Begins with a result. Nothing is printed before its first row or its end: it may fail without either.
    pub(crate) fn begin(&mut self, schema: SchemaRef) {
        self.table = Table::new(&schema);
        self.schema = schema;
        self.rows = 0;
        self.opened = false;
    }

    /// Prints some of its rows.
    pub(crate) fn rows(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.open(out)?;
        self.rows += batch.num_rows() as u64;
        match self.format {
            Format::Table => self.table.rows(&readable(batch, false)?, out)?,
            Format::Csv => csv(batch, false, out)?,
            Format::Json => arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .with_encoder_factory(Arc::new(EmbeddedJson))
                .build::<_, LineDelimited>(out)
                .write(&readable(batch, true)?)?,
        }
        Ok(())
    }

    /// Ends a result; one that was cut off before its first row leaves nothing.
    pub(crate) fn end(&mut self, whole: bool, out: &mut Vec<u8>) -> Result<()> {
        if whole {
            self.open(out)?;
        }
        if self.format == Format::Table && self.opened {
            self.table.header(out);
            out.extend_from_slice(format!("{}\n", count(self.rows)).as_bytes());
        }
        Ok(())
    }

    /// Prints what stands before the first row, once.
    fn open(&mut self, out: &mut Vec<u8>) -> Result<()> {
        if std::mem::replace(&mut self.opened, true) {
            return Ok(());
        }
        if self.format != Format::Json {
            self.separate(out);
        }
        if self.format == Format::Csv {
            csv(&RecordBatch::new_empty(Arc::clone(&self.schema)), true, out)?;
        }
        self.after_result = true;
        Ok(())
    }

    /// Prints what came of a statement that gives no rows; in CSV and JSON there is no place for it, and the text that
    /// belongs elsewhere is returned.
    pub(crate) fn updated(&mut self, written: Option<u64>, out: &mut Vec<u8>) -> Option<String> {
        let text = match written {
            Some(rows) => format!("{} written\n", count(rows)),
            None => "ok\n".to_owned(),
        };
        if self.format != Format::Table {
            return Some(text);
        }
        self.separate(out);
        out.extend_from_slice(text.as_bytes());
        None
    }

    /// An empty line, after a result.
    fn separate(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.after_result) {
            out.push(b'\n');
        }
    }
}

fn count(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

fn csv(batch: &RecordBatch, header: bool, out: &mut Vec<u8>) -> Result<()> {
    let batch = readable(batch, true)?;
    let options = EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(EmbeddedJson));
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let flat: Vec<(FieldRef, ArrayRef)> = columns
        .map(|(field, array)| match field.data_type().is_nested() {
            true => Ok((text_field(field), json_text(field, array, &options)?)),
            false => Ok((Arc::clone(field), Arc::clone(array))),
        })
        .collect::<Result<_, ArrowError>>()?;
    arrow::csv::WriterBuilder::new().with_header(header).build(out).write(&assemble(flat, batch.num_rows())?)?;
    Ok(())
}

/// Each value as JSON text.
fn json_text(field: &FieldRef, array: &ArrayRef, options: &EncoderOptions) -> Result<ArrayRef, ArrowError> {
    let mut encoder = make_encoder(field, array, options)?;
    let texts = (0..array.len()).map(|row| {
        if array.is_null(row) {
            return Ok(None);
        }
        let mut text = Vec::new();
        encoder.encode(row, &mut text);
        String::from_utf8(text).map(Some).map_err(|error| ArrowError::ExternalError(Box::new(error)))
    });
    Ok(Arc::new(texts.collect::<Result<StringArray, _>>()?))
}

/// The batch with every UUID as text, and if asked for every key of a map too, however deep they are.
fn readable(batch: &RecordBatch, text_keys: bool) -> Result<RecordBatch, ArrowError> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, array)| column(field, array, text_keys)).collect::<Result<Vec<_>, _>>()?;
    assemble(columns, batch.num_rows())
}

fn assemble(columns: Vec<(FieldRef, ArrayRef)>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
}

fn column(field: &FieldRef, array: &ArrayRef, text_keys: bool) -> Result<(FieldRef, ArrayRef), ArrowError> {
    if is_uuid(field) {
        let bytes = cast(array, &DataType::FixedSizeBinary(16))?;
        return Ok((text_field(field), uuid_text(bytes.as_fixed_size_binary())));
    }
    let array: ArrayRef = match field.data_type() {
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let (item, values) = column(item, list.values(), text_keys)?;
            Arc::new(ListArray::try_new(item, list.offsets().clone(), values, list.nulls().cloned())?)
        }
        DataType::Struct(_) => Arc::new(members(array.as_struct(), text_keys)?),
        DataType::Map(entries, sorted) => {
            let map = array.as_map();
            let mut pairs = members(map.entries(), text_keys)?;
            if text_keys {
                pairs = with_text_keys(pairs)?;
            }
            let entries = Field::new(entries.name(), pairs.data_type().clone(), false);
            let offsets = map.offsets().clone();
            Arc::new(MapArray::try_new(Arc::new(entries), offsets, pairs, map.nulls().cloned(), *sorted)?)
        }
        _ => return Ok((Arc::clone(field), Arc::clone(array))),
    };
    Ok((Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone())), array))
}

fn members(array: &StructArray, text_keys: bool) -> Result<StructArray, ArrowError> {
    let members = array.fields().iter().zip(array.columns());
    let members = members.map(|(field, array)| column(field, array, text_keys)).collect::<Result<Vec<_>, _>>()?;
    let (fields, arrays): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    StructArray::try_new_with_length(fields.into(), arrays, array.nulls().cloned(), array.len())
}

fn with_text_keys(pairs: StructArray) -> Result<StructArray, ArrowError> {
    let (fields, mut arrays, nulls) = pairs.into_parts();
    let mut fields: Vec<_> = fields.iter().cloned().collect();
    if let (Some(field), Some(keys)) = (fields.first_mut(), arrays.first_mut()) {
        *keys = cast(keys, &DataType::Utf8)?;
        *field = text_field(field);
    }
    StructArray::try_new(Fields::from(fields), arrays, nulls)
}

fn text_field(field: &Field) -> FieldRef {
    Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable()))
}

fn uuid_text(bytes: &FixedSizeBinaryArray) -> ArrayRef {
    let text = |bytes: &[u8]| Uuid::from_slice(bytes).ok().map(|uuid| uuid.to_string());
    Arc::new(bytes.iter().map(|bytes| bytes.and_then(text)).collect::<StringArray>())
}

/// Prints a column of JSON text as the JSON that it is.
#[derive(Debug)]
struct EmbeddedJson;

impl EncoderFactory for EmbeddedJson {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let Some(texts) = array.as_string_opt::<i32>().filter(|_| is_json(field)) else { return Ok(None) };
        Ok(Some(NullableEncoder::new(Box::new(RawJson(texts)), texts.nulls().cloned())))
    }
}

struct RawJson<'a>(&'a StringArray);

impl Encoder for RawJson<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let text = self.0.value(row);
        if serde_json::from_str::<serde_json::Value>(text).is_ok() {
            // A line break can only stand between tokens, and a row is one line.
            out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        } else {
            out.extend(serde_json::Value::from(text).to_string().bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{Int32Array, Int32Builder, MapBuilder, StringBuilder};
    use arrow::buffer::OffsetBuffer;
    use expect_test::{Expect, expect};

    use super::*;

    fn extension(field: Field, name: &str) -> FieldRef {
        Arc::new(field.with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), name.to_owned())])))
    }

    fn uuids() -> (FieldRef, ArrayRef) {
        let bytes = [Some([0x11; 16]), None].into_iter();
        let array = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 16).unwrap();
        (extension(Field::new("id", DataType::FixedSizeBinary(16), true), "arrow.uuid"), Arc::new(array))
    }

    fn everything() -> RecordBatch {
        let (id, id_values) = uuids();
        let offsets = OffsetBuffer::new(vec![0, 2, 2].into());
        let ids = ListArray::new(Arc::clone(&id), offsets, Arc::clone(&id_values), None);
        let mut map = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
        map.keys().append_value(7);
        map.values().append_value("seven, \"7\"");
        map.append(true).unwrap();
        map.append(false).unwrap();
        let map = map.finish();
        let json = StringArray::from(vec!["{\"x\":\n [1, null]}", "not json"]);
        assemble(
            vec![
                (Arc::new(Field::new("n", DataType::Int32, true)), Arc::new(Int32Array::from(vec![None, Some(1)]))),
                (id, id_values),
                (Arc::new(Field::new("ids", ids.data_type().clone(), true)), Arc::new(ids)),
                (Arc::new(Field::new("m", map.data_type().clone(), true)), Arc::new(map)),
                (extension(Field::new("j", DataType::Utf8, true), "arrow.json"), Arc::new(json)),
            ],
            2,
        )
        .unwrap()
    }

    fn rendered(format: Format, run: impl FnOnce(&mut Renderer, &mut Vec<u8>)) -> String {
        let (mut renderer, mut out) = (Renderer::new(format), Vec::new());
        run(&mut renderer, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn check(format: Format, batches: &[RecordBatch], expected: Expect) {
        let text = rendered(format, |renderer, out| {
            renderer.begin(batches[0].schema());
            for batch in batches {
                renderer.rows(batch, out).unwrap();
            }
            renderer.end(true, out).unwrap();
        });
        expected.assert_eq(&text);
    }

    #[test]
    fn table() {
        check(
            Format::Table,
            &[everything()],
            expect![[r#"
                n | id                                   | ids                                          | m               | j
            ------+--------------------------------------+----------------------------------------------+-----------------+-------------
             NULL | 11111111-1111-1111-1111-111111111111 | [11111111-1111-1111-1111-111111111111, NULL] | {7: seven, "7"} | {"x":
                  |                                      |                                              |                 |  [1, null]}
                1 | NULL                                 | []                                           | NULL            | not json
            2 rows
        "#]],
        );
        check(
            Format::Table,
            &[everything().slice(0, 0)],
            expect![[r#"
             n | id | ids | m | j
            ---+----+-----+---+---
            0 rows
        "#]],
        );
    }

    #[test]
    fn csv() {
        check(
            Format::Csv,
            &[everything(), everything().slice(1, 1)],
            expect![[r#"
            n,id,ids,m,j
            ,11111111-1111-1111-1111-111111111111,"[""11111111-1111-1111-1111-111111111111"",null]","{""7"":""seven, \""7\""""}","{""x"":
             [1, null]}"
            1,,[],,not json
            1,,[],,not json
        "#]],
        );
        check(
            Format::Csv,
            &[everything().slice(0, 0)],
            expect![[r#"
            n,id,ids,m,j
        "#]],
        );
    }

    #[test]
    fn json() {
        check(
            Format::Json,
            &[everything(), everything().slice(1, 1)],
            expect![[r#"
            {"n":null,"id":"11111111-1111-1111-1111-111111111111","ids":["11111111-1111-1111-1111-111111111111",null],"m":{"7":"seven, \"7\""},"j":{"x":  [1, null]}}
            {"n":1,"id":null,"ids":[],"m":null,"j":"not json"}
            {"n":1,"id":null,"ids":[],"m":null,"j":"not json"}
        "#]],
        );
        check(Format::Json, &[everything().slice(0, 0)], expect![[""]]);
    }

    #[test]
    fn results_stand_apart() {
        let (field, array) = uuids();
        let batch = assemble(vec![(field, array)], 2).unwrap();
        let script = |renderer: &mut Renderer, out: &mut Vec<u8>| {
            assert_eq!(renderer.updated(None, out).is_none(), renderer.format == Format::Table);
            for rows in [0, 1, 2] {
                renderer.begin(batch.schema());
                renderer.rows(&batch.slice(0, rows), out).unwrap();
                renderer.end(true, out).unwrap();
            }
            assert_eq!(renderer.updated(Some(1), out).is_none(), renderer.format == Format::Table);
        };
        expect![[r#"
            ok
             id
            ----
            0 rows

             id
            --------------------------------------
             11111111-1111-1111-1111-111111111111
            1 row

             id
            --------------------------------------
             11111111-1111-1111-1111-111111111111
             NULL
            2 rows

            1 row written
        "#]]
        .assert_eq(&rendered(Format::Table, script));
        expect![[r#"
            id

            id
            11111111-1111-1111-1111-111111111111

            id
            11111111-1111-1111-1111-111111111111
            ""
        "#]]
        .assert_eq(&rendered(Format::Csv, script));
        expect![[r#"
            {"id":"11111111-1111-1111-1111-111111111111"}
            {"id":"11111111-1111-1111-1111-111111111111"}
            {"id":null}
        "#]]
        .assert_eq(&rendered(Format::Json, script));
    }

    #[test]
    fn a_result_that_was_cut_off_counts_what_it_showed() {
        let batch = everything().project(&[0]).unwrap();
        let cut = |rows| {
            rendered(Format::Table, |renderer, out| {
                renderer.begin(batch.schema());
                renderer.rows(&batch.slice(0, rows), out).unwrap();
                renderer.end(false, out).unwrap();
            })
        };
        expect![""].assert_eq(&cut(0));
        expect![[r#"
                n
            ------
             NULL
            1 row
        "#]]
        .assert_eq(&cut(1));
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let batch = assemble(Vec::new(), 3).unwrap();
        check(
            Format::Table,
            &[batch],
            expect![[r#"
            3 rows
        "#]],
        );
    }
}
