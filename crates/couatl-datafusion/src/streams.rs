//! The streams of a session: made, dropped, found by their names.

use std::sync::Arc;

use couatl_core::{Columns, Error, ErrorKind, OpenContext, OptionValue, Result, check_secret_references};
use couatl_sql::{CreateStream, StreamName, parse_columns};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{ResolvedTableReference, TableReference};
use datafusion::datasource::TableType;

use crate::access::{Privilege, Role};
use crate::catalog::{self, ManagedSchema};
use crate::from_datafusion;
use crate::session::Session;
use crate::table::StreamTable;

impl Session {
    pub(crate) async fn create(&self, create: &CreateStream) -> Result<()> {
        self.needs(Role::Developer, "create streams: their Python runs on the server")?;
        // Another one may have come meanwhile, which is replaced, or stays, in its turn.
        while !self.created(create).await? {}
        Ok(())
    }

    /// Whether there is one, of this statement or of an earlier one.
    async fn created(&self, create: &CreateStream) -> Result<bool> {
        let (name, schema) = self.place(&create.name)?;
        let existing = schema.table(&name.table).await.map_err(from_datafusion)?;
        if let Some(existing) = &existing {
            let is_stream = existing.downcast_ref::<StreamTable>().is_some();
            if create.if_not_exists {
                return Ok(true);
            }
            self.may_replace(&name)?;
            if !create.or_replace || !is_stream {
                let kind = if is_stream { "stream" } else { "table or view" };
                let way_out = if is_stream { "use CREATE OR REPLACE, or drop it first" } else { "choose another name" };
                return Err(Error::already_exists(format!(
                    "a {kind} named '{}' exists already; {way_out}",
                    create.name
                )));
            }
        }
        let mut definition = create.definition.clone();
        let init = definition.functions.init.as_ref();
        init.and_then(|init| init.parameters.as_deref()).map_or(Ok(()), check_secret_references)?;
        for (_, value) in definition.options() {
            if let OptionValue::Text(text) = value {
                check_secret_references(text)?;
            }
        }
        let context = OpenContext::new(Arc::clone(&self.queries().secrets), None);
        let checked = self.on_host(move |host| {
            if definition.schema.fields().is_empty() {
                definition.schema = match host.columns(&definition, &context)? {
                    Columns::Text(text) => Arc::new(parse_columns(&text).map_err(|error| {
                        let name = &definition.name;
                        Error::invalid_definition(format!(
                            "stream '{name}': the columns of its class, '{text}': {error}"
                        ))
                    })?),
                    Columns::Schema(schema) => schema,
                };
                definition.order_columns()?;
            }
            host.stream(Arc::new(definition))
        });
        let stream = checked.await?;
        let owners = self.caller().names().collect();
        let table: Arc<dyn TableProvider> = Arc::new(StreamTable::owned(stream, owners));
        match catalog::put(&schema, &name.table, table, existing.is_some()).map_err(from_datafusion) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && (create.or_replace || create.if_not_exists) => {
                Ok(false)
            }
            put => put.map(|()| true),
        }
    }

    /// Gives a stream a name, in the place of a stream that has it.
    ///
    /// # Errors
    /// `already-exists`, where a table or a view has the name.
    pub async fn register(&self, name: &str, stream: Arc<StreamTable>) -> Result<()> {
        let (place, schema) = self.resolve(TableReference::bare(name))?;
        let existing = schema.table(&place.table).await.map_err(from_datafusion)?;
        if existing.as_ref().is_some_and(|existing| !existing.is::<StreamTable>()) {
            return Err(Error::already_exists(format!("a table or view named '{name}' exists already")));
        }
        catalog::put(&schema, &place.table, stream, existing.is_some()).map_err(from_datafusion)
    }

    /// Who may not write into a stream may not put another in its place either.
    fn may_replace(&self, name: &ResolvedTableReference) -> Result<()> {
        self.caller().principals().try_for_each(|user| self.grants().check(user, name, Privilege::Insert))
    }

    pub(crate) async fn drop_stream(&self, name: &StreamName, if_exists: bool) -> Result<()> {
        self.needs(Role::Developer, "drop streams")?;
        let (resolved, schema) = self.place(name)?;
        let Some(table) = schema.table(&resolved.table).await.map_err(from_datafusion)? else {
            return if if_exists { Ok(()) } else { Err(no_stream(name)) };
        };
        table_of(&table, name)?;
        self.may_replace(&resolved)?;
        match schema.downcast_ref::<ManagedSchema>() {
            Some(managed) => managed.remove(&resolved.table),
            None => drop(schema.deregister_table(&resolved.table).map_err(from_datafusion)?),
        }
        self.grants().forget(&[resolved]);
        Ok(())
    }

    pub(crate) async fn stream(&self, name: &StreamName) -> Result<Arc<dyn TableProvider>> {
        let (resolved, schema) = self.place(name)?;
        let table = schema.table(&resolved.table).await.map_err(from_datafusion)?.ok_or_else(|| no_stream(name))?;
        table_of(&table, name)?;
        Ok(table)
    }

    /// The full name, and the schema that it is in.
    pub(crate) fn place(&self, name: &StreamName) -> Result<(ResolvedTableReference, Arc<dyn SchemaProvider>)> {
        let reference = match (name.catalog(), name.schema()) {
            (Some(catalog), Some(schema)) => TableReference::full(catalog, schema, name.name()),
            (_, Some(schema)) => TableReference::partial(schema, name.name()),
            _ => TableReference::bare(name.name()),
        };
        self.resolve(reference)
    }

    /// Every stream of every catalog, with where it is.
    pub(crate) async fn streams(&self) -> Vec<(String, String, Arc<couatl_core::StreamDefinition>)> {
        let mut found = Vec::new();
        for catalog_name in self.context().catalog_names() {
            let Some(catalog) = self.context().catalog(&catalog_name) else { continue };
            for schema_name in catalog.schema_names() {
                let Some(schema) = catalog.schema(&schema_name) else { continue };
                for name in schema.table_names() {
                    // A view need not be planned to be known as none.
                    if !matches!(schema.table_type(&name).await, Ok(Some(TableType::Base))) {
                        continue;
                    }
                    if let Ok(Some(table)) = schema.table(&name).await
                        && let Some(stream) = table.downcast_ref::<StreamTable>()
                    {
                        found.push((catalog_name.clone(), schema_name.clone(), stream.definition().clone()));
                    }
                }
            }
        }
        found
    }
}

fn no_stream(name: &StreamName) -> Error {
    Error::not_found(format!("there is no stream '{name}'; SHOW STREAMS lists them"))
}

pub(crate) fn table_of<'t>(table: &'t Arc<dyn TableProvider>, name: &StreamName) -> Result<&'t StreamTable> {
    let stream = table.downcast_ref::<StreamTable>();
    stream.ok_or_else(|| {
        let kind = if table.table_type() == TableType::View { "view" } else { "table" };
        Error::invalid_argument(format!("'{name}' is a {kind}, and no stream"))
    })
}
