//! Bulk ingestion: rows that come without a statement go into a table that is there, or into one that is made of them.
//!
//! Either way it is an INSERT by column names, which is listed, cancelled and converted as any other. A table that is
//! made gets its name when all its rows are there.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use couatl_core::{Error, Result};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{Column, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, WriteOp};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::Ident;
use futures::stream;

use crate::access::{Privilege, Role};
use crate::session::{Session, split};
use crate::store::exactly;
use crate::table::StreamTable;
use crate::{catalog, from_datafusion, parameters};

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
    /// table has what it had before; a stream has what its function accepted.
    pub async fn ingest(&self, ingest: Ingest, rows: SendableRecordBatchStream) -> Result<u64> {
        let Ingest { table, create, if_exists } = &ingest;
        if table.table().is_empty() {
            return Err(Error::invalid_argument("a table has a name of at least one character, found ''"));
        }
        let (place, schema) = self.resolve(table.clone())?;
        let existing = schema.table(&place.table).await.map_err(from_datafusion)?;
        if existing.is_none() && !create {
            let text = format!("there is no table or stream '{table}': create it first, or use a mode that does");
            return Err(Error::not_found(text));
        }
        let insert = insert_text([&place.catalog, &place.schema, &place.table], &rows.schema());
        if let Some(existing) = &existing
            && *if_exists == IfExists::Append
        {
            return self.append(table, existing, &insert, rows).await;
        }
        ingest.may_take(existing)?;
        self.needs(Role::Writer, "create tables")?;
        let may_write = |user| self.grants().check(user, &place, Privilege::Insert);
        self.caller().principals().try_for_each(may_write)?;

        let fields = rows.schema();
        let made = Arc::new(MemTable::try_new(fields.clone(), vec![vec![]]).map_err(from_datafusion)?);
        let plan = fill(table, &made, rows).map_err(from_datafusion)?;
        let count = self.update(DataFrame::new(self.state(&split(&insert)?.1), plan)).await?.unwrap_or_default();
        let existing = schema.table(&place.table).await.map_err(from_datafusion)?;
        if let Some(existing) = &existing
            && *if_exists == IfExists::Append
        {
            // Somebody else has made it meanwhile.
            let batches: Vec<RecordBatch> = made.batches[0].read().await.clone();
            let rows = Box::pin(RecordBatchStreamAdapter::new(fields, stream::iter(batches.into_iter().map(Ok))));
            return self.append(table, existing, &insert, rows).await;
        }
        ingest.may_take(existing)?;
        catalog::put(&schema, &place.table, made, *if_exists == IfExists::Replace).map_err(from_datafusion)?;
        Ok(count)
    }

    async fn append(
        &self,
        name: &TableReference,
        table: &Arc<dyn TableProvider>,
        insert: &str,
        rows: SendableRecordBatchStream,
    ) -> Result<u64> {
        // A stream's own sink converts exactly.
        let rows = if table.is::<StreamTable>() {
            rows
        } else {
            let (schema, fields) = (table.schema(), rows.schema());
            // What has no column is refused by its name.
            let target = |field: &FieldRef| schema.fields().find(field.name()).map(|(_, field)| field.clone());
            exactly(rows, format!("table '{name}'"), fields.fields().iter().map(target).collect())?
        };
        let count = self.execute_rows(&self.prepare(insert).await?, rows).await?;
        count.ok_or_else(|| Error::internal("an INSERT gave no count"))
    }
}

impl Ingest {
    /// Refuses to take the place of what has the name.
    fn may_take(&self, existing: Option<Arc<dyn TableProvider>>) -> Result<()> {
        let table = &self.table;
        let Some(existing) = existing else { return Ok(()) };
        if self.if_exists == IfExists::Fail {
            let text = format!("'{table}' exists already: use a mode that appends or replaces, or another name");
            return Err(Error::already_exists(text));
        }
        let kind = match existing.table_type() {
            _ if existing.is::<MemTable>() => return Ok(()),
            TableType::View => "a view",
            _ if existing.is::<StreamTable>() => "a stream",
            _ => "a table that is not in memory",
        };
        Err(Error::invalid_argument(format!("'{table}' is {kind}, which rows cannot replace: drop it first")))
    }
}

/// The INSERT that an ingestion is.
fn insert_text(target: [&str; 3], fields: &SchemaRef) -> String {
    let quoted = |name: &str| Ident::with_quote('"', name).to_string();
    let columns: Vec<_> = fields.fields().iter().map(|field| quoted(field.name())).collect();
    let values: Vec<_> = (1..=columns.len()).map(|number| format!("${number}")).collect();
    format!("INSERT INTO {} ({}) SELECT {}", target.map(quoted).join("."), columns.join(", "), values.join(", "))
}

/// The plan that puts rows into a table of their own columns, which has no name yet.
fn fill(
    name: &TableReference,
    table: &Arc<MemTable>,
    rows: SendableRecordBatchStream,
) -> datafusion::error::Result<LogicalPlan> {
    let scan = LogicalPlanBuilder::scan("rows", provider_as_source(parameters::table(rows)?), None)?.build()?;
    let columns: Vec<Expr> = scan
        .schema()
        .columns()
        .into_iter()
        .zip(table.schema().fields())
        .map(|(column, field): (Column, _)| Expr::Column(column).alias(field.name()))
        .collect();
    let rows = LogicalPlanBuilder::from(scan).project(columns)?.build()?;
    let insert = WriteOp::Insert(InsertOp::Append);
    Ok(LogicalPlan::Dml(DmlStatement::new(name.clone(), provider_as_source(table.clone()), insert, Arc::new(rows))))
}
