//! The catalog of a session: streams and tables by name, views that follow what they read, and `system`.
//!
//! ```text
//!   couatl.public    streams, tables, views        ManagedSchema
//!   couatl.system    queries                       SystemSchema
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use datafusion::catalog::memory::MemoryCatalogProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::{ResolvedTableReference, SchemaReference, TableReference, exec_err};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::Result;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::FutureExt;
use parking_lot::RwLock;

use crate::functions::Functions;
use crate::queries::Queries;
use crate::query::Query;
use crate::show;
use crate::table::StreamTable;
use crate::view;

/// The default catalog of a session.
pub(crate) const CATALOG: &str = "couatl";
/// The default schema, where streams live.
pub(crate) const SCHEMA: &str = "public";
/// The schema that describes what runs.
pub(crate) const SYSTEM: &str = "system";

/// What the schemas of a session, and of those that share its streams, have in common.
#[derive(Debug, Default)]
pub(crate) struct Home {
    /// The session that reads views: its state owns the catalog, so the way back is weak.
    pub(crate) state: RwLock<Option<Weak<RwLock<SessionState>>>>,
    pub(crate) functions: Functions,
}

/// The catalog of a new session.
pub(crate) fn new_catalog(queries: Arc<Queries>, home: Arc<Home>) -> Result<Arc<dyn CatalogProvider>> {
    let catalog = Arc::new(MemoryCatalogProvider::new());
    catalog.register_schema(SCHEMA, new_schema(CATALOG, SCHEMA, &home))?;
    catalog.register_schema(SYSTEM, Arc::new(SystemSchema { queries }))?;
    Ok(catalog)
}

/// A schema whose views are read by that session.
pub(crate) fn new_schema(catalog: &str, schema: &str, home: &Arc<Home>) -> Arc<dyn SchemaProvider> {
    let place = (catalog.to_owned(), schema.to_owned());
    Arc::new(ManagedSchema { place, tables: RwLock::default(), home: Arc::clone(home) })
}

/// The stream of a name, if there is one and it lives in a schema of ours.
pub(crate) fn stream(
    catalogs: &dyn CatalogProviderList,
    name: &ResolvedTableReference,
) -> Option<Arc<dyn TableProvider>> {
    let schema = schema(catalogs, &name.catalog, &name.schema)?;
    let table = schema.downcast_ref::<ManagedSchema>()?.tables.read().get(&*name.table)?.clone();
    table.downcast_ref::<StreamTable>().is_some().then_some(table)
}

/// Whether a schema is one of those that every session has.
pub(crate) fn is_own_schema(name: &SchemaReference, default_catalog: &str) -> bool {
    let (catalog, schema) = parts(name, default_catalog);
    catalog == CATALOG && [SCHEMA, SYSTEM].contains(&schema)
}

/// The catalog and the schema that a name of a schema means.
fn parts<'n>(name: &'n SchemaReference, default_catalog: &'n str) -> (&'n str, &'n str) {
    match name {
        SchemaReference::Bare { schema } => (default_catalog, schema),
        SchemaReference::Full { schema, catalog } => (catalog, schema),
    }
}

fn schema(catalogs: &dyn CatalogProviderList, catalog: &str, schema: &str) -> Option<Arc<dyn SchemaProvider>> {
    catalogs.catalog(catalog)?.schema(schema)
}

/// The tables that a name may mean, whatever the defaults are.
pub(crate) fn named(state: &SessionState, name: &TableReference) -> Vec<ResolvedTableReference> {
    let catalogs = state.catalog_list();
    let mut found = Vec::new();
    for catalog in
        catalogs.catalog_names().iter().filter(|catalog| name.catalog().is_none_or(|wanted| wanted == *catalog))
    {
        let names = catalogs.catalog(catalog).map_or_else(Vec::new, |catalog| catalog.schema_names());
        for place in names.iter().filter(|schema| name.schema().is_none_or(|wanted| wanted == *schema)) {
            if schema(catalogs.as_ref(), catalog, place).is_some_and(|schema| schema.table_exist(name.table())) {
                found.push(whole(catalog, place, name.table()));
            }
        }
    }
    found
}

/// The tables in a schema.
pub(crate) fn tables_in(state: &SessionState, name: &SchemaReference) -> Vec<ResolvedTableReference> {
    let (catalog, place) = parts(name, &state.config_options().catalog.default_catalog);
    let found = schema(state.catalog_list().as_ref(), catalog, place);
    let names = found.iter().flat_map(|found| found.table_names());
    names.map(|name| whole(catalog, place, &name)).collect()
}

/// Whether a name is that of this very table, now. A view is none: it is its query.
pub(crate) fn is_bound(state: &SessionState, name: &ResolvedTableReference, table: &Arc<dyn TableProvider>) -> bool {
    schema(state.catalog_list().as_ref(), &name.catalog, &name.schema).is_some_and(|schema| {
        // Tables that are there are found at once.
        let is_view = matches!(schema.table_type(&name.table).now_or_never(), Some(Ok(Some(TableType::View))));
        !is_view
            && matches!(schema.table(&name.table).now_or_never(), Some(Ok(Some(found))) if Arc::ptr_eq(&found, table))
    })
}

fn whole(catalog: &str, schema: &str, table: &str) -> ResolvedTableReference {
    ResolvedTableReference { catalog: catalog.into(), schema: schema.into(), table: table.into() }
}

/// Whether the name belongs to a schema of ours.
pub(crate) fn is_managed(catalogs: &dyn CatalogProviderList, name: &ResolvedTableReference) -> bool {
    schema(catalogs, &name.catalog, &name.schema).is_some_and(|schema| schema.downcast_ref::<ManagedSchema>().is_some())
}

/// Gives a table its name, in the place of whatever has it where it `replaces` that; in a schema of ours at once.
pub(crate) fn put(
    schema: &Arc<dyn SchemaProvider>,
    name: &str,
    table: Arc<dyn TableProvider>,
    replaces: bool,
) -> Result<()> {
    match schema.downcast_ref::<ManagedSchema>() {
        Some(managed) if replaces => {
            managed.tables.write().insert(name.to_owned(), table);
        }
        _ => {
            if replaces && schema.table_exist(name) {
                schema.deregister_table(name)?;
            }
            schema.register_table(name.to_owned(), table)?;
        }
    }
    Ok(())
}

/// Tables by name. A view is planned anew each time it is looked up, and so reads what its names mean then.
#[derive(Debug)]
pub(crate) struct ManagedSchema {
    place: (String, String),
    tables: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
    home: Arc<Home>,
}

impl ManagedSchema {
    /// Takes a stream away.
    pub(crate) fn remove(&self, name: &str) {
        self.tables.write().remove(name);
    }

    fn state(&self) -> Option<SessionState> {
        let state = self.home.state.read().as_ref().and_then(Weak::upgrade)?;
        let mut state = state.read().clone();
        self.home.functions.install(&mut state);
        Some(state)
    }
}

#[async_trait]
impl SchemaProvider for ManagedSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.read().keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let place = whole(&self.place.0, &self.place.1, name);
        view::check(&place)?;
        let Some(table) = self.tables.read().get(name).cloned() else { return Ok(None) };
        if let Some(view) = table.downcast_ref::<ViewTable>()
            && let Some(definition) = view.definition()
            && let Some(state) = self.state()
        {
            return view::current(&place, &table, definition, &state, &self.home).await.map(Some);
        }
        Ok(Some(table))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        // A view need not be planned to be known as one.
        Ok(self.tables.read().get(name).map(|table| table.table_type()))
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut tables = self.tables.write();
        if tables.contains_key(&name) {
            return exec_err!("'{name}' already exists");
        }
        Ok(tables.insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut tables = self.tables.write();
        // DROP TABLE, and CREATE OR REPLACE of a table or a view, come here; DROP STREAM does not.
        if tables.get(name).is_some_and(|table| table.downcast_ref::<StreamTable>().is_some()) {
            return exec_err!("'{name}' is a stream; DROP STREAM drops it");
        }
        Ok(tables.remove(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.read().contains_key(name)
    }
}

/// What the server says of itself.
#[derive(Debug)]
struct SystemSchema {
    queries: Arc<Queries>,
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        vec!["queries".into()]
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name != "queries" {
            return Ok(None);
        }
        let rows = Arc::new(QueryRows { queries: self.queries.clone(), schema: show::queries_schema() });
        Ok(Some(Arc::new(StreamingTable::try_new(show::queries_schema(), vec![rows])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == "queries"
    }

    fn register_table(&self, name: String, _table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        exec_err!("the schema 'system' describes what runs: '{name}' cannot be made there, but in '{SCHEMA}'")
    }
}

/// The rows of `system.queries`: every query but the one that asks.
#[derive(Debug)]
struct QueryRows {
    queries: Arc<Queries>,
    schema: arrow::datatypes::SchemaRef,
}

impl PartitionStream for QueryRows {
    fn schema(&self) -> &arrow::datatypes::SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let asking = Query::of(&context);
        let caller = asking.as_ref().map(|asking| asking.caller().clone()).unwrap_or_default();
        let mut queries = self.queries.shown_to(&caller);
        queries.retain(|query| asking.as_ref().is_none_or(|asking| asking.id() != query.query_id));
        let batch = show::queries(&queries).map_err(crate::into_datafusion);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter([batch])))
    }
}
