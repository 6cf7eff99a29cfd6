//! The catalog as clients list it: catalogs, schemas, tables, table types, keys.
//!
//! Names are filtered before anything is loaded: a filter over ten thousand streams opens those that match. LIKE
//! patterns are arrow's: `%`, `_`, and `\` before either to mean itself.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

use arrow::array::{ArrayRef, BinaryBuilder, Int32Array, RecordBatch, StringArray, StringBuilder, new_null_array};
use arrow::compute::kernels::comparison::like;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder};
use arrow_flight::sql::{CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables};
use arrow_flight::{IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use couatl_core::{Error, Result};
use couatl_datafusion::from_datafusion;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Constraint;
use datafusion::datasource::TableType;
use datafusion::prelude::SessionContext;
use parking_lot::Mutex;
use tracing::warn;

use crate::column::{Origin, described};
use crate::wire::Dictionaries;

/// The schema of CommandGetPrimaryKeys: the order of the last two is that of the reference implementations.
pub(crate) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

/// The schema of CommandGetExportedKeys, CommandGetImportedKeys and CommandGetCrossReference.
pub(crate) static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

/// The names of DataFusion's kinds of tables in JDBC's words, sorted.
const TABLE_TYPES: [TableType; 3] = [TableType::Temporary, TableType::Base, TableType::View];

fn table_type_name(table_type: TableType) -> &'static str {
    match table_type {
        TableType::Base => "TABLE",
        TableType::View => "VIEW",
        TableType::Temporary => "LOCAL TEMPORARY",
    }
}

/// All catalogs.
pub(crate) fn catalogs(context: &SessionContext) -> Result<RecordBatch> {
    let mut builder = GetCatalogsBuilder::new();
    for name in context.catalog_names() {
        builder.append(name);
    }
    builder.build().map_err(unbuilt)
}

/// The schemas that a command asks for.
pub(crate) fn schemas(context: &SessionContext, command: CommandGetDbSchemas) -> Result<RecordBatch> {
    let mut builder = GetDbSchemasBuilder::new(None::<String>, None::<String>);
    for found in found_schemas(context, command.catalog.as_deref(), command.db_schema_filter_pattern.as_deref())? {
        builder.append(found.catalog, found.name);
    }
    builder.build().map_err(unbuilt)
}

/// The tables that a command asks for, with their schemas where it says so, in the order of their names.
pub(crate) async fn tables(
    context: SessionContext,
    known: Arc<KnownColumns>,
    dictionaries: Dictionaries,
    command: CommandGetTables,
) -> Result<RecordBatch> {
    let wanted = |name: &str| command.table_types.is_empty() || command.table_types.iter().any(|wanted| wanted == name);
    let mut rows = TableRows::default();
    let mut found = found_schemas(&context, command.catalog.as_deref(), command.db_schema_filter_pattern.as_deref())?;
    found.sort_by(|one, other| (&one.catalog, &one.name).cmp(&(&other.catalog, &other.name)));
    for FoundSchema { catalog, name, provider } in found {
        let mut names = matching(provider.table_names(), command.table_name_filter_pattern.as_deref())?;
        names.sort();
        for table in names {
            // Where no type is asked for, a table that is opened anyhow says its own.
            let opened = match command.include_schema && command.table_types.is_empty() {
                true => opened(&*provider, &table).await,
                false => None,
            };
            let table_type = match &opened {
                Some(opened) => Some(opened.table_type()),
                None => provider.table_type(&table).await.map_err(from_datafusion)?,
            };
            // None is a table that was dropped since its name was read.
            let Some(table_type) = table_type.map(table_type_name).filter(|name: &&str| wanted(name)) else { continue };
            let opened = match command.include_schema {
                true if opened.is_none() => self::opened(&*provider, &table).await,
                _ => opened,
            };
            let columns = opened.map(|opened| known.encoded(&name, &opened.schema(), dictionaries)).transpose()?;
            rows.append([&catalog, &name, &table, table_type], columns);
        }
    }
    rows.finish(command.include_schema)
}

/// A table, as far as it can be opened. One that cannot (its file is gone, say) is listed without columns: it must not
/// make all the others unlistable.
async fn opened(provider: &dyn SchemaProvider, table: &str) -> Option<Arc<dyn TableProvider>> {
    provider.table(table).await.unwrap_or_else(|error| {
        warn!(table, %error, "a table is listed without its columns");
        None
    })
}

/// What [`tables`] has found.
#[derive(Default)]
struct TableRows {
    names: [StringBuilder; 4],
    columns: BinaryBuilder,
}

impl TableRows {
    fn append(&mut self, values: [&str; 4], columns: Option<Bytes>) {
        self.names.iter_mut().zip(values).for_each(|(names, value)| names.append_value(value));
        self.columns.append_value(columns.as_deref().unwrap_or(&NO_COLUMNS));
    }

    fn finish(mut self, with_columns: bool) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = self.names.iter_mut().map(|names| Arc::new(names.finish()) as _).collect();
        if with_columns {
            columns.push(Arc::new(self.columns.finish()));
        }
        Ok(RecordBatch::try_new(tables_schema(with_columns), columns)?)
    }
}

/// The columns of no table, encoded.
static NO_COLUMNS: LazyLock<Bytes> = LazyLock::new(|| encode(&Schema::empty()).unwrap_or_default());

/// The columns of tables, encoded as they were last listed: of ten thousand tables, few are new since then. They are
/// known by the address of their schema, which is no other's for as long as there is a weak reference to it.
#[derive(Debug, Default)]
pub(crate) struct KnownColumns(Mutex<HashMap<usize, (Weak<Schema>, Bytes)>>);

impl KnownColumns {
    /// The columns of a table of a schema, as its rows would be sent.
    fn encoded(&self, place: &str, schema: &SchemaRef, dictionaries: Dictionaries) -> Result<Bytes> {
        let encode = |dictionaries| encode(&described(schema, dictionaries, |_| Origin::Listed(place)));
        if dictionaries == Dictionaries::Kept {
            return encode(dictionaries);
        }
        let mut known = self.0.lock();
        let address = Arc::as_ptr(schema) as usize;
        if let Some((_, encoded)) = known.get(&address) {
            return Ok(encoded.clone());
        }
        let encoded = encode(dictionaries)?;
        // Those of tables that are gone go when there would be more than ever.
        if known.len() == known.capacity() {
            known.retain(|_, (of, _)| of.strong_count() > 0);
        }
        known.insert(address, (Arc::downgrade(schema), encoded.clone()));
        Ok(encoded)
    }
}

fn encode(schema: &Schema) -> Result<Bytes> {
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()))?;
    Ok(message.0)
}

/// The schema of [`tables`].
pub(crate) fn tables_schema(include_schema: bool) -> SchemaRef {
    GetTablesBuilder::new(None::<String>, None::<String>, None::<String>, None::<String>, include_schema).schema()
}

/// All table types.
pub(crate) fn table_types() -> Result<RecordBatch> {
    let mut builder = CommandGetTableTypes {}.into_builder();
    for table_type in TABLE_TYPES {
        builder.append(table_type_name(table_type));
    }
    builder.build().map_err(unbuilt)
}

/// The primary keys of the tables of a name, in the order of their columns.
pub(crate) async fn primary_keys(context: SessionContext, command: CommandGetPrimaryKeys) -> Result<RecordBatch> {
    let mut names: [StringBuilder; 4] = Default::default();
    let mut sequence = Vec::new();
    for FoundSchema { catalog, name, provider } in found_schemas(&context, command.catalog.as_deref(), None)? {
        if command.db_schema.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        let Some(table) = opened(&*provider, &command.table).await else { continue };
        let schema = table.schema();
        let keys = table.constraints().into_iter().flat_map(|constraints| constraints.iter());
        let columns = keys.filter_map(|key| match key {
            Constraint::PrimaryKey(columns) => Some(columns),
            Constraint::Unique(_) => None,
        });
        for (at, column) in columns.flat_map(|columns| columns.iter().enumerate()) {
            let values = [&catalog, &name, &command.table, schema.field(*column).name()];
            names.iter_mut().zip(values).for_each(|(names, value)| names.append_value(value));
            sequence.push(at as i32 + 1);
        }
    }
    let mut columns: Vec<ArrayRef> = names.iter_mut().map(|names| Arc::new(names.finish()) as _).collect();
    columns.push(Arc::new(Int32Array::from(sequence)));
    columns.push(new_null_array(&DataType::Utf8, columns[0].len()));
    Ok(RecordBatch::try_new(SchemaRef::clone(&PRIMARY_KEYS), columns)?)
}

struct FoundSchema {
    catalog: String,
    name: String,
    provider: Arc<dyn SchemaProvider>,
}

/// The schemas that the filters leave.
fn found_schemas(
    context: &SessionContext,
    catalog_filter: Option<&str>,
    schema_pattern: Option<&str>,
) -> Result<Vec<FoundSchema>> {
    let mut found = Vec::new();
    for catalog in context.catalog_names() {
        if catalog_filter.is_some_and(|filter| filter != catalog) {
            continue;
        }
        let Some(provider) = context.catalog(&catalog) else { continue };
        let mut names = provider.schema_names();
        // DataFusion finds it in every catalog, and lists it in none.
        let with_information = context.state().config().information_schema();
        if with_information && !names.iter().any(|name| name == INFORMATION_SCHEMA) {
            names.push(INFORMATION_SCHEMA.to_owned());
        }
        for name in matching(names, schema_pattern)? {
            let information = || (with_information && name == INFORMATION_SCHEMA).then(|| information_schema(context));
            if let Some(provider) = provider.schema(&name).or_else(information) {
                found.push(FoundSchema { catalog: catalog.clone(), name, provider });
            }
        }
    }
    Ok(found)
}

fn information_schema(context: &SessionContext) -> Arc<dyn SchemaProvider> {
    Arc::new(InformationSchemaProvider::new(Arc::clone(context.state().catalog_list())))
}

/// The names that a LIKE pattern matches; all, where there is none.
fn matching(names: Vec<String>, pattern: Option<&str>) -> Result<Vec<String>> {
    let Some(pattern) = pattern else { return Ok(names) };
    let kept = like(&StringArray::from_iter_values(&names), &StringArray::new_scalar(pattern))
        .map_err(|error| Error::invalid_argument(format!("cannot use the pattern '{pattern}': {error}")))?;
    Ok(names.into_iter().zip(kept.values()).filter_map(|(name, kept)| kept.then_some(name)).collect())
}

fn unbuilt(error: FlightError) -> Error {
    Error::internal(error.to_string()).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::util::pretty::pretty_format_batches;
    use arrow_flight::IpcMessage;
    use datafusion::prelude::SessionConfig;
    use expect_test::{Expect, expect};

    use super::*;

    async fn context() -> SessionContext {
        let config = SessionConfig::new().with_default_catalog_and_schema("couatl", "public");
        let context = SessionContext::new_with_config(config);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        for name in ["a_b", "axb", "50%", "it's", "do.ts", "\"q\"", "back\\slash"] {
            let batch = RecordBatch::try_from_iter([("n", Arc::clone(&column))]).unwrap();
            let table = datafusion::datasource::MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
            context.register_table(datafusion::common::TableReference::bare(name), Arc::new(table)).unwrap();
        }
        context.sql("CREATE VIEW v AS SELECT md5('x') AS hash").await.unwrap().collect().await.unwrap();
        context.sql("CREATE SCHEMA other").await.unwrap().collect().await.unwrap();
        context
    }

    fn check(batch: &RecordBatch, expected: Expect) {
        expected.assert_eq(&pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string());
    }

    async fn names(pattern: &str) -> Vec<String> {
        let command = CommandGetTables { table_name_filter_pattern: Some(pattern.to_owned()), ..Default::default() };
        let batch = tables(context().await, Arc::default(), Dictionaries::Flat, command).await.unwrap();
        batch.column(2).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn catalogs_and_schemas_are_listed() {
        let context = context().await;
        check(
            &catalogs(&context).unwrap(),
            expect![[r#"
            +--------------+
            | catalog_name |
            +--------------+
            | couatl       |
            +--------------+"#]],
        );
        check(
            &schemas(&context, CommandGetDbSchemas::default()).unwrap(),
            expect![[r#"
            +--------------+----------------+
            | catalog_name | db_schema_name |
            +--------------+----------------+
            | couatl       | other          |
            | couatl       | public         |
            +--------------+----------------+"#]],
        );
        let other = |catalog: Option<&str>, pattern: Option<&str>| CommandGetDbSchemas {
            catalog: catalog.map(str::to_owned),
            db_schema_filter_pattern: pattern.map(str::to_owned),
        };
        assert_eq!(schemas(&context, other(None, Some("p%"))).unwrap().num_rows(), 1);
        assert_eq!(schemas(&context, other(Some("couatl"), None)).unwrap().num_rows(), 2);
        assert_eq!(schemas(&context, other(Some("couat_"), None)).unwrap().num_rows(), 0);
        assert_eq!(schemas(&context, other(Some(""), None)).unwrap().num_rows(), 0);
        assert_eq!(schemas(&context, other(None, Some(""))).unwrap().num_rows(), 0);
    }

    #[tokio::test]
    async fn tables_are_listed_in_order() {
        check(
            &tables(context().await, Arc::default(), Dictionaries::Flat, CommandGetTables::default()).await.unwrap(),
            expect![[r#"
            +--------------+----------------+------------+------------+
            | catalog_name | db_schema_name | table_name | table_type |
            +--------------+----------------+------------+------------+
            | couatl       | public         | "q"        | TABLE      |
            | couatl       | public         | 50%        | TABLE      |
            | couatl       | public         | a_b        | TABLE      |
            | couatl       | public         | axb        | TABLE      |
            | couatl       | public         | back\slash | TABLE      |
            | couatl       | public         | do.ts      | TABLE      |
            | couatl       | public         | it's       | TABLE      |
            | couatl       | public         | v          | VIEW       |
            +--------------+----------------+------------+------------+"#]],
        );
    }

    #[tokio::test]
    async fn patterns_match_what_they_say() {
        for (pattern, expected) in [
            ("a_b", &["a_b", "axb"][..]),
            (r"a\_b", &["a_b"]),
            (r"50\%", &["50%"]),
            ("50%", &["50%"]),
            ("%'%", &["it's"]),
            ("do.ts", &["do.ts"]),
            ("do_ts", &["do.ts"]),
            ("\"q\"", &["\"q\""]),
            (r"back\\slash", &[r"back\slash"]),
            (r"%\\%", &[r"back\slash"]),
            ("A_B", &[]),
            ("", &[]),
            ("%%", &["\"q\"", "50%", "a_b", "axb", r"back\slash", "do.ts", "it's", "v"]),
        ] {
            assert_eq!(names(pattern).await, expected, "{pattern}");
        }
    }

    #[tokio::test]
    async fn types_narrow_the_list() {
        let listed = |types: &[&str]| CommandGetTables {
            table_types: types.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        for (types, expected) in [(&["VIEW"][..], 1), (&["TABLE"], 7), (&["TABLE", "VIEW"], 8), (&["SYSTEM TABLE"], 0)]
        {
            assert_eq!(
                tables(context().await, Arc::default(), Dictionaries::Flat, listed(types)).await.unwrap().num_rows(),
                expected,
                "{types:?}"
            );
        }
        check(
            &table_types().unwrap(),
            expect![[r#"
            +-----------------+
            | table_type      |
            +-----------------+
            | LOCAL TEMPORARY |
            | TABLE           |
            | VIEW            |
            +-----------------+"#]],
        );
    }

    #[tokio::test]
    async fn a_table_comes_with_the_schema_that_its_rows_have_on_the_wire() {
        let context = context().await;
        let view = context.table("v").await.unwrap();
        assert_eq!(view.schema().field(0).data_type(), &DataType::Utf8View);
        let command = CommandGetTables {
            table_name_filter_pattern: Some("v".to_owned()),
            include_schema: true,
            ..Default::default()
        };
        let batch = tables(context, Arc::default(), Dictionaries::Flat, command).await.unwrap();
        assert_eq!(batch.schema(), tables_schema(true));
        let message = IpcMessage(batch.column(4).as_binary::<i32>().value(0).to_vec().into());
        assert_eq!(Schema::try_from(message).unwrap().field(0).data_type(), &DataType::Utf8);
    }

    #[tokio::test]
    async fn the_information_schema_is_listed_where_it_can_be_queried() {
        let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let listed = schemas(&context, CommandGetDbSchemas::default()).unwrap();
        assert!(listed.column(1).as_string::<i32>().iter().flatten().any(|name| name == INFORMATION_SCHEMA));
        let command = CommandGetTables {
            db_schema_filter_pattern: Some(INFORMATION_SCHEMA.to_owned()),
            include_schema: true,
            ..Default::default()
        };
        let listed = tables(context, Arc::default(), Dictionaries::Flat, command).await.unwrap();
        assert!(listed.column(2).as_string::<i32>().iter().flatten().any(|name| name == "columns"));
    }
}
