//! Tables in memory: made of the rows of a query, and written to by INSERT. Both are whole, or have not been: what fails
//! or is cancelled has changed nothing, and what is replaced is there until the other is.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use couatl_core::{ENUM_METADATA_KEY, Error, Result, is_json};
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Constraint, Constraints};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source_as_provider;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{CreateMemoryTable, Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, collect,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OwnedRwLockWriteGuard;

use crate::query::Query;
use crate::session::resolved;
use crate::size::size;
use crate::table::StreamTable;
use crate::{catalog, from_datafusion, into_datafusion};

/// Makes the table that a CREATE TABLE describes, of the rows of its query.
///
/// # Errors
/// `already-exists`, `invalid-argument` for a query without end, and whatever the query fails with: then what had the name
/// has it still.
pub(crate) async fn create(state: SessionState, table: CreateMemoryTable) -> Result<()> {
    let CreateMemoryTable { name, input, if_not_exists, or_replace, constraints, column_defaults, temporary } = table;
    let place = resolved(&state, name.clone());
    if temporary {
        return Err(Error::unsupported("there are no temporary tables: DROP TABLE takes one away"));
    }
    if if_not_exists && or_replace {
        return Err(Error::invalid_syntax("expected IF NOT EXISTS or OR REPLACE, found both"));
    }
    if let Some((column, _)) = column_defaults.iter().find(|(_, value)| !is_constant(value)) {
        return Err(Error::invalid_argument(format!(
            "the DEFAULT of column '{column}' reads rows: those who insert would read them; expected an expression of \
             values alone"
        )));
    }
    let schema = state.schema_for_ref(place.clone()).map_err(from_datafusion)?;
    let existing = schema.table(&place.table).await.map_err(from_datafusion)?;
    if let Some(existing) = &existing {
        if if_not_exists {
            return Ok(());
        }
        if or_replace && existing.is::<StreamTable>() {
            return Err(Error::already_exists(format!("'{name}' is a stream; DROP STREAM drops it")));
        }
        if !or_replace {
            return Err(Error::already_exists(format!("Table '{name}' already exists")));
        }
    }
    let replaced = existing.as_ref().and_then(|existing| existing.downcast_ref::<MemTable>());
    let seen = match replaced {
        Some(replaced) => rows_of(replaced).await,
        None => Vec::new(),
    };
    let columns = stored(input.schema().as_arrow())?;
    let plan = state.create_physical_plan(&input).await.map_err(from_datafusion)?;
    if plan.boundedness().is_unbounded() {
        return Err(Error::invalid_argument(
            "CREATE TABLE would never end: it keeps all rows in memory, and the query has no end; bound its rows with \
             LIMIT, or create a view",
        ));
    }
    let batches = collect(plan, state.task_ctx()).await.map_err(from_datafusion)?;
    // Whose client has left while it ran ends here.
    tokio::task::yield_now().await;
    let batches = batches.into_iter().map(|batch| compact(with_schema(batch, &columns)?));
    let batches = batches.collect::<DataFusionResult<_>>();
    let made = MemTable::try_new(columns, vec![batches.map_err(from_datafusion)?]).map_err(from_datafusion)?;
    let made = made.with_constraints(keys(constraints)).with_column_defaults(column_defaults.into_iter().collect());
    // What it replaces is what was there, and nobody has written to it; nor can they from here on.
    let schema = state.schema_for_ref(place.clone()).map_err(from_datafusion)?;
    let now = schema.table(&place.table).await.map_err(from_datafusion)?;
    let is_same = match (&existing, &now) {
        (Some(existing), Some(now)) => replaced.is_none() && !now.is::<StreamTable>() || Arc::ptr_eq(existing, now),
        (None, None) => true,
        _ => false,
    };
    let locked = match replaced {
        Some(replaced) => held(replaced).await,
        None => Vec::new(),
    };
    if !is_same || !are_same_rows(&locked, &seen) {
        return Err(Error::already_exists(format!(
            "'{name}' was made, dropped, replaced or written to meanwhile: nothing has been changed; run the statement again"
        )));
    }
    catalog::put(&schema, &place.table, Arc::new(made), or_replace).map_err(from_datafusion)
}

/// The columns of a table for rows of these: without what only streams hold their values to.
fn stored(rows: &Schema) -> Result<SchemaRef> {
    let mut columns = Vec::new();
    for field in rows.fields() {
        if columns.iter().any(|column: &arrow::datatypes::Field| column.name() == field.name()) {
            return Err(Error::invalid_definition(format!(
                "two columns are named '{}': give one of them another name with AS",
                field.name()
            )));
        }
        let mut column = field.as_ref().clone();
        column.metadata_mut().remove(ENUM_METADATA_KEY);
        if is_json(&column) {
            column.metadata_mut().clear();
        }
        columns.push(column);
    }
    Ok(Arc::new(Schema::new_with_metadata(columns, rows.metadata().clone())))
}

/// The keys that plans may trust in. What is UNIQUE may be NULL more than once, which they do not know.
fn keys(constraints: Constraints) -> Constraints {
    let keys = constraints.iter().filter(|constraint| matches!(constraint, Constraint::PrimaryKey(_))).cloned();
    Constraints::new_unverified(keys.collect())
}

fn is_constant(value: &Expr) -> bool {
    !has_subquery(value) && !value.contains_outer() && value.column_refs().is_empty()
}

/// Whether an expression reads rows of its own.
pub(crate) fn has_subquery(expr: &Expr) -> bool {
    let is_subquery = |expr: &Expr| {
        Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    };
    expr.exists(is_subquery).unwrap_or(true)
}

/// The rows of a table as they are, by partition.
pub(crate) async fn rows_of(table: &MemTable) -> Vec<Vec<RecordBatch>> {
    let mut rows = Vec::new();
    for partition in &table.batches {
        rows.push(partition.read().await.clone());
    }
    rows
}

/// The same, which nobody else reads or writes meanwhile.
pub(crate) async fn held(table: &MemTable) -> Vec<OwnedRwLockWriteGuard<Vec<RecordBatch>>> {
    let mut held = Vec::new();
    for partition in &table.batches {
        held.push(Arc::clone(partition).write_owned().await);
    }
    held
}

/// Whether what is held are the rows that were seen.
pub(crate) fn are_same_rows(held: &[OwnedRwLockWriteGuard<Vec<RecordBatch>>], seen: &[Vec<RecordBatch>]) -> bool {
    held.len() == seen.len() && held.iter().zip(seen).all(|(now, seen)| are_same(now, seen))
}

/// Whether these are the very same rows.
fn are_same(now: &[RecordBatch], seen: &[RecordBatch]) -> bool {
    let same = |(now, seen): (&RecordBatch, &RecordBatch)| {
        now.num_rows() == seen.num_rows()
            && now.columns().iter().zip(seen.columns()).all(|(now, seen)| Arc::ptr_eq(now, seen))
    };
    now.len() == seen.len() && now.iter().zip(seen).all(same)
}

/// The same rows as those of a table, which says more of its columns, or less, than a query does: names, whether there may
/// be NULLs, metadata.
pub(crate) fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> DataFusionResult<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns().to_vec(), &options)?)
}

/// The same rows in memory of about their size: a few may be in the buffers of many.
fn compact(batch: RecordBatch) -> DataFusionResult<RecordBatch> {
    /// What is not worth a copy.
    const LITTLE: u64 = 4096;
    if batch.get_array_memory_size() as u64 <= 2 * size(&batch) + LITTLE {
        return Ok(batch);
    }
    let all = UInt64Array::from_iter_values(0..batch.num_rows() as u64);
    Ok(take_record_batch(&batch, &all)?)
}

/// Puts what makes an INSERT whole into a plan that writes to a table in memory.
pub(crate) fn whole_inserts(
    logical: &LogicalPlan,
    plan: Arc<dyn ExecutionPlan>,
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let inserts = logical.exists(|node| match node {
        LogicalPlan::Dml(dml) => Ok(source_as_provider(&dml.target)?.is::<MemTable>()),
        _ => Ok(false),
    })?;
    if !inserts {
        return Ok(plan);
    }
    let whole = plan.transform_down(|node| {
        let Some(sink) = node.downcast_ref::<DataSinkExec>() else { return Ok(Transformed::no(node)) };
        let input = Arc::new(WholeExec { input: sink.input().clone(), schema: sink.sink().schema().clone() });
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::new(node.replace_children(vec![input], recompute)?, true, TreeNodeRecursion::Jump))
    });
    Ok(whole?.data)
}

/// The account of the rows that a statement leaves in memory, while it runs.
#[derive(Debug)]
pub(crate) struct Account(MemoryReservation);

impl Account {
    pub(crate) fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        Self(MemoryConsumer::new("rows of a table in memory").register(pool))
    }

    /// Counts rows that take the place of others, as far as they are larger.
    ///
    /// # Errors
    /// Where there would be too much.
    pub(crate) fn replace(&mut self, before: &[RecordBatch], after: &[RecordBatch]) -> DataFusionResult<()> {
        let all = |batches: &[RecordBatch]| batches.iter().map(size).sum::<u64>();
        self.grow(all(after).saturating_sub(all(before)))
    }

    /// Counts so many bytes.
    ///
    /// # Errors
    /// Where there would be too many.
    pub(crate) fn grow(&mut self, bytes: u64) -> DataFusionResult<()> {
        self.0.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

/// Gives the rows for a table in memory, and no end where their query was cancelled before it: the table is written to when
/// there is one.
#[derive(Debug)]
struct WholeExec {
    input: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
}

impl DisplayAs for WholeExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WholeExec")
    }
}

impl ExecutionPlan for WholeExec {
    fn name(&self) -> &'static str {
        "WholeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self { input: children.swap_remove(0), schema: self.schema.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context.clone())?;
        let schema = self.schema.clone();
        let mut kept = Account::new(context.memory_pool());
        let rows = rows.map(move |batch| {
            let batch = compact(with_schema(batch?, &schema)?)?;
            kept.grow(size(&batch))?;
            Ok(batch)
        });
        let end = stream::once(async move {
            not_cancelled(&context).await?;
            Ok(None)
        });
        let rows = rows.map_ok(Some).chain(end).try_filter_map(|batch| async { Ok(batch) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)))
    }
}

/// Whether what was computed may be put in its place: its query has not been cancelled, nor left by its client.
pub(crate) async fn not_cancelled(context: &TaskContext) -> DataFusionResult<()> {
    // A task that nobody waits for any more ends here.
    tokio::task::yield_now().await;
    match Query::of(context) {
        Some(query) if query.is_cancelled() => {
            Err(into_datafusion(Error::cancelled("the query was cancelled, and has changed nothing")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn a_row_does_not_keep_the_memory_of_many() {
        let numbers = Arc::new(Int64Array::from_iter_values(0..100_000)) as ArrayRef;
        let texts = Arc::new(StringArray::from_iter_values((0..100_000).map(|n| n.to_string()))) as ArrayRef;
        let many = RecordBatch::try_from_iter([("n", numbers), ("s", texts)]).unwrap();
        let few = many.slice(50_000, 2);
        assert!(few.get_array_memory_size() > 1_000_000);
        let kept = compact(few.clone()).unwrap();
        assert_eq!(kept, few);
        assert!(kept.get_array_memory_size() < 4096);
        let whole = compact(many.clone()).unwrap();
        assert!(Arc::ptr_eq(whole.column(0), many.column(0)), "what is worth it is not copied");
    }
}
