//! Bulk ingestion: rows that come without a statement go into a table that is there, or into one that is made of them.
//!
//! Either way it is an INSERT by column names, which is listed, cancelled and converted as any other. A table that is
//! made appears before its rows do, and goes again, or gives its place back to the one it replaced, where they fail.

use std::sync::Arc;

use couatl_core::{Error, Result};
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::TableType;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::ast::Ident;
use tracing::error;

use crate::from_datafusion;
use crate::session::Session;
use crate::table::StreamTable;

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// The table, or the stream.
    pub table: TableReference,
    /// Whether it is made, in memory, where it is not there.
    pub create: bool,
    /// What happens where it is.
    pub if_exists: IfExists,
}

/// What happens where a table is there that rows are ingested into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Nothing: it is an error.
    Fail,
    /// They are appended to it.
    Append,
    /// It is replaced, once they are all there. A stream, whose function would be lost, is not.
    Replace,
}

impl Session {
    /// Writes rows into a table or a stream, columns by their names; gives how many they were.
    ///
    /// # Errors
    /// `not-found` and `already-exists`, as [`Ingest`] says; what an INSERT of the rows fails with; and theirs. Then a
    /// table has no more and no less than it had before; a stream has what its function accepted.
    pub async fn ingest(&self, ingest: Ingest, rows: SendableRecordBatchStream) -> Result<u64> {
        let Ingest { table, create, if_exists } = ingest;
        let (place, schema) = self.resolve(table.clone())?;
        let existing = schema.table(&place.table).await.map_err(from_datafusion)?;
        let made = match (&existing, if_exists) {
            (None, _) if !create => {
                let text = format!("there is no table or stream '{table}': create it first, or use a mode that does");
                return Err(Error::not_found(text));
            }
            (Some(_), IfExists::Append) => None,
            (Some(_), IfExists::Fail) => {
                let text = format!("'{table}' exists already: use a mode that appends or replaces, or another name");
                return Err(Error::already_exists(text));
            }
            (Some(other), IfExists::Replace) if !other.is::<MemTable>() => {
                let kind = match other.table_type() {
                    TableType::View => "a view",
                    _ if other.is::<StreamTable>() => "a stream",
                    _ => "a table that is not in memory",
                };
                let text = format!("'{table}' is {kind}, which rows cannot replace: drop it first");
                return Err(Error::invalid_argument(text));
            }
            (_, _) => {
                let empty = MemTable::try_new(rows.schema(), vec![vec![]]).map_err(from_datafusion)?;
                Some(Made::put(schema, &place.table, Arc::new(empty))?)
            }
        };

        let quoted = |name: &str| Ident::with_quote('"', name).to_string();
        let fields = rows.schema();
        let columns: Vec<_> = fields.fields().iter().map(|field| quoted(field.name())).collect();
        let values: Vec<_> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        let target = [&place.catalog, &place.schema, &place.table].map(|part| quoted(part)).join(".");
        let insert = format!("INSERT INTO {target} ({}) SELECT {}", columns.join(", "), values.join(", "));
        let count = self.execute_rows(&self.prepare(&insert).await?, rows).await?;
        if let Some(made) = made {
            made.keep();
        }
        count.ok_or_else(|| Error::internal("an INSERT gave no count"))
    }
}

/// A table that was made, for as long as it is not known to stay.
struct Made {
    schema: Arc<dyn SchemaProvider>,
    name: String,
    before: Option<Arc<dyn TableProvider>>,
    stays: bool,
}

impl Made {
    fn put(schema: Arc<dyn SchemaProvider>, name: &str, table: Arc<dyn TableProvider>) -> Result<Self> {
        let before = match schema.table_exist(name) {
            true => schema.deregister_table(name).map_err(from_datafusion)?,
            false => None,
        };
        let made = Self { schema, name: name.to_owned(), before, stays: false };
        made.schema.register_table(name.to_owned(), table).map_err(from_datafusion)?;
        Ok(made)
    }

    fn keep(mut self) {
        self.stays = true;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let there = self.schema.table_exist(&self.name);
        let gone = if there { self.schema.deregister_table(&self.name).map(drop) } else { Ok(()) };
        let back = gone.and_then(|()| match self.before.take() {
            Some(before) => self.schema.register_table(self.name.clone(), before).map(drop),
            None => Ok(()),
        });
        if let Err(error) = back {
            error!(table = self.name, %error, "an ingestion failed, and what was there before cannot be put back");
        }
    }
}
