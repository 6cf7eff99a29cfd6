//! The order that a stream promises with `order_by`, and the check that it keeps it.
//!
//! What stands on the order (groups that are over when the next one opens, windows, joins within a band) gives wrong
//! answers where it is broken, and says nothing. So rows are compared as they go by, and the first one that goes back
//! fails the query.
//!
//! A query that reads some of the columns sees the order by those that come before the first one that it does not
//! read: it is enough for what it can ask, and a column that nobody reads is not converted for its order's sake.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DynComparator, RecordBatch, UInt64Array, make_comparator};
use arrow::compute::kernels::cmp;
use arrow::compute::{SortOptions, take_arrays};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use couatl_core::Error;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalSortExpr};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::into_datafusion;

/// Ascending, NULLs last: what SQL means by ORDER BY.
const ASCENDING: SortOptions = SortOptions { descending: false, nulls_first: false };

/// The most characters of a value that a message shows.
const MOST_CHARS: usize = 40;

/// The columns by which the rows of a scan ascend, as positions in what it delivers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order(Vec<usize>);

impl Order {
    /// What is left of the promise about these columns of a stream where only some are delivered.
    pub(crate) fn projected(columns: &[usize], projection: &[usize]) -> Self {
        let places = columns.iter().map(|column| projection.iter().position(|projected| projected == column));
        Self(places.map_while(|place| place).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the columns, as a message and EXPLAIN show them.
    pub(crate) fn names(&self, schema: &SchemaRef) -> String {
        let names: Vec<_> = self.0.iter().map(|index| couatl_core::quoted(schema.field(*index).name())).collect();
        names.join(", ")
    }

    /// What a planner may know of the rows.
    pub(crate) fn properties(&self, schema: &SchemaRef) -> EquivalenceProperties {
        let column = |index: &usize| Arc::new(Column::new(schema.field(*index).name(), *index));
        let order: Vec<_> = self.0.iter().map(|index| PhysicalSortExpr::new(column(index), ASCENDING)).collect();
        match order.is_empty() {
            true => EquivalenceProperties::new(schema.clone()),
            false => EquivalenceProperties::new_with_orderings(schema.clone(), [order]),
        }
    }

    /// The same rows, up to the first that goes back; an error takes its place.
    pub(crate) fn checked(
        self,
        stream: String,
        rows: BoxStream<'static, Result<RecordBatch>>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        if self.is_empty() {
            return rows;
        }
        let check = Check { stream, columns: self.0, last: Vec::new(), rows: 0 };
        stream::try_unfold((check, rows, None), |(mut check, mut rows, failure)| async move {
            if let Some(failure) = failure {
                return Err(into_datafusion(failure));
            }
            let Some(batch) = rows.try_next().await? else { return Ok(None) };
            match check.first_break(&batch)? {
                None => Ok(Some((batch, (check, rows, None)))),
                Some((0, failure)) => Err(into_datafusion(failure)),
                // The rows before it are in order.
                Some((row, failure)) => Ok(Some((batch.slice(0, row), (check, rows, Some(failure))))),
            }
        })
        .boxed()
    }
}

/// Compares each row with the one before it.
struct Check {
    stream: String,
    columns: Vec<usize>,
    /// The last row so far: one value of each column, and nothing before there is one.
    last: Vec<ArrayRef>,
    /// How many rows there were before the batch.
    rows: usize,
}

impl Check {
    /// The first row of the batch that goes back, and what is to be said about it.
    fn first_break(&mut self, batch: &RecordBatch) -> Result<Option<(usize, Error)>> {
        let Some(following) = batch.num_rows().checked_sub(1) else { return Ok(None) };
        let columns: Vec<_> = self.columns.iter().map(|column| batch.column(*column).clone()).collect();
        let first: Vec<_> = columns.iter().map(|column| column.slice(0, 1)).collect();
        if !self.last.is_empty() && compare(&comparators(&self.last, &first)?, 0).is_gt() {
            return Ok(Some((0, self.failure(batch, 0, &self.last, &first)?)));
        }
        let before: Vec<_> = columns.iter().map(|column| column.slice(0, following)).collect();
        let after: Vec<_> = columns.iter().map(|column| column.slice(1, following)).collect();
        if let Some(row) = first_descent(&before, &after)? {
            let (before, after) = (rows_at(&columns, row)?, rows_at(&columns, row + 1)?);
            return Ok(Some((row + 1, self.failure(batch, row + 1, &before, &after)?)));
        }
        // Copied: a slice would keep the whole batch alive.
        self.last = rows_at(&columns, following)?;
        self.rows += batch.num_rows();
        Ok(None)
    }

    fn failure(&self, batch: &RecordBatch, row: usize, before: &[ArrayRef], after: &[ArrayRef]) -> Result<Error> {
        let schema = batch.schema();
        // Columns before the one that goes back are equal, those after it do not matter.
        let equal = |index: &usize| {
            Ok::<_, arrow::error::ArrowError>(
                compare(&comparators(&before[*index..=*index], &after[*index..=*index])?, 0).is_eq(),
            )
        };
        let mut column = 0;
        while column + 1 < before.len() && equal(&column)? {
            column += 1;
        }
        let name = schema.field(self.columns[column]).name();
        let within = match column {
            0 => String::new(),
            _ => format!(" within {}", Order(self.columns[..column].to_vec()).names(&schema)),
        };
        let (before, after) = (shown(&before[column])?, shown(&after[column])?);
        let order = Order(self.columns.clone()).names(&schema);
        let (stream, row) = (&self.stream, self.rows + row + 1);
        Ok(Error::invalid_argument(format!(
            "stream '{stream}', row {row}: column '{name}' goes back{within} from {before} to {after}, though order_by = \
             '{order}' promises ascending rows, NULLs last; yield them in order, or drop the setting"
        )))
    }
}

/// The first place at which a row of `before` is greater than that of `after`.
fn first_descent(before: &[ArrayRef], after: &[ArrayRef]) -> Result<Option<usize>> {
    if let ([before], [after]) = (before, after)
        && before.logical_null_count() == 0
        && after.logical_null_count() == 0
    {
        let descents = cmp::gt(before, after)?;
        return Ok(descents.values().set_indices().next());
    }
    let rows = before.first().map_or(0, |column| column.len());
    let comparators = comparators(before, after)?;
    Ok((0..rows).find(|row| compare(&comparators, *row).is_gt()))
}

fn comparators(left: &[ArrayRef], right: &[ArrayRef]) -> Result<Vec<DynComparator>, arrow::error::ArrowError> {
    left.iter().zip(right).map(|(left, right)| make_comparator(left, right, ASCENDING)).collect()
}

fn compare(comparators: &[DynComparator], row: usize) -> Ordering {
    comparators.iter().map(|compare| compare(row, row)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn rows_at(columns: &[ArrayRef], row: usize) -> Result<Vec<ArrayRef>> {
    Ok(take_arrays(columns, &UInt64Array::from(vec![row as u64]), None)?)
}

fn shown(value: &ArrayRef) -> Result<String> {
    let options = FormatOptions::new().with_null("NULL");
    let text = ArrayFormatter::try_new(value, &options)?.value(0).to_string();
    Ok(match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    })
}
