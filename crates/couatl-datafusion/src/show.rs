//! What the statements that show something show.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use couatl_core::{Registered, Result, StreamDefinition, type_spelling};

use crate::queries::QueryInfo;

fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect::<Vec<_>>()))
}

fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// The columns of `SHOW STREAMS`.
pub(crate) fn streams_schema() -> SchemaRef {
    text_schema(&["catalog", "schema", "name", "type", "mode"])
}

/// Streams, each with its catalog and schema.
pub(crate) fn streams(streams: &[(String, String, Arc<StreamDefinition>)]) -> Result<RecordBatch> {
    let columns = vec![
        texts(streams.iter().map(|(catalog, ..)| catalog.as_str())),
        texts(streams.iter().map(|(_, schema, _)| schema.as_str())),
        texts(streams.iter().map(|(.., definition)| definition.name.as_str())),
        texts(streams.iter().map(|(.., definition)| match &definition.connector {
            Some(connector) if connector.is_registered() => connector.class.as_str(),
            _ => "python",
        })),
        texts(streams.iter().map(|(.., definition)| definition.mode.as_str())),
    ];
    Ok(RecordBatch::try_new(streams_schema(), columns)?)
}

/// The columns of `SHOW CONNECTORS`.
pub(crate) fn connectors_schema() -> SchemaRef {
    text_schema(&["name", "kind", "distribution", "version", "state", "options"])
}

/// Connectors, as rows.
pub(crate) fn connectors(connectors: &[Registered]) -> Result<RecordBatch> {
    let columns = vec![
        texts(connectors.iter().map(|connector| connector.name.as_str())),
        texts(connectors.iter().map(|connector| connector.kind.as_str())),
        texts(connectors.iter().map(|connector| connector.distribution.as_str())),
        texts(connectors.iter().map(|connector| connector.version.as_str())),
        texts(connectors.iter().map(|connector| connector.state.as_str())),
        texts(connectors.iter().map(|connector| connector.options.as_str())),
    ];
    Ok(RecordBatch::try_new(connectors_schema(), columns)?)
}

/// The columns of `SHOW CREATE STREAM`.
pub(crate) fn statement_schema() -> SchemaRef {
    text_schema(&["statement"])
}

/// A statement, as a row.
pub(crate) fn statement(text: &str) -> Result<RecordBatch> {
    Ok(RecordBatch::try_new(statement_schema(), vec![texts([text])])?)
}

/// The columns of `DESCRIBE`, as DataFusion has them.
pub(crate) fn columns_schema() -> SchemaRef {
    text_schema(&["column_name", "data_type", "is_nullable"])
}

/// A stream's columns, with the types as its statement spells them.
pub(crate) fn columns(definition: &StreamDefinition) -> Result<RecordBatch> {
    let fields = definition.schema.fields();
    let types: Vec<_> = fields.iter().map(|field| type_spelling(field)).collect();
    let columns = vec![
        texts(fields.iter().map(|field| field.name().as_str())),
        texts(types.iter().map(String::as_str)),
        texts(fields.iter().map(|field| if field.is_nullable() { "YES" } else { "NO" })),
    ];
    Ok(RecordBatch::try_new(columns_schema(), columns)?)
}

/// The columns of `SHOW QUERIES` and `system.queries`.
pub(crate) fn queries_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("query_id", DataType::Utf8, false),
        Field::new("state", DataType::Utf8, false),
        Field::new("rows", DataType::UInt64, false),
        Field::new("started", time, false),
        Field::new("elapsed_ms", DataType::UInt64, false),
        Field::new("user", DataType::Utf8, true),
        Field::new("sql", DataType::Utf8, false),
    ]))
}

/// Queries, as rows.
pub(crate) fn queries(queries: &[QueryInfo]) -> Result<RecordBatch> {
    let micros = |query: &QueryInfo| query.started.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as i64);
    let started = TimestampMicrosecondArray::from_iter_values(queries.iter().map(micros)).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        texts(queries.iter().map(|query| query.query_id.as_str())),
        texts(queries.iter().map(|query| query.state)),
        Arc::new(UInt64Array::from_iter_values(queries.iter().map(|query| query.rows))),
        Arc::new(started),
        Arc::new(UInt64Array::from_iter_values(queries.iter().map(|query| query.elapsed.as_millis() as u64))),
        Arc::new(StringArray::from_iter(queries.iter().map(|query| query.user.as_deref()))),
        texts(queries.iter().map(|query| query.sql.as_str())),
    ];
    Ok(RecordBatch::try_new(queries_schema(), columns)?)
}
