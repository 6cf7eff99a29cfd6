//! A batch under construction: the columns that a query reads, filled row by row.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, SchemaRef};
use couatl_core::{Error, Result, Subject, type_spelling};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::column::Column;
use super::dict::Members;
use super::misfit::{Misfit, describe};
use super::time;

/// Bytes of variable length after which a batch counts as full, however few rows it has; all its columns together.
const FULL_BYTES: usize = 8 << 20;
/// What each column may have of them at least.
const FULL_COLUMN_BYTES: usize = 1 << 20;

/// How many rows ahead of its turn a value is asked for: it may be anywhere in memory.
const AHEAD: usize = 8;

/// What a scan wants of its rows; shared by all the batches of the scan.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Whose rows they are, for messages.
    pub(crate) subject: Subject,
    /// Every declared column: the width of a row.
    pub(crate) declared: SchemaRef,
    /// The columns to convert, as positions in `declared`.
    pub(crate) projection: Vec<usize>,
    /// The schema of the batches: the projected columns.
    pub(crate) schema: SchemaRef,
    /// Rows after which a batch is full.
    pub(crate) batch_rows: usize,
}

/// The builders of one batch.
pub(crate) struct Rows {
    layout: Arc<Layout>,
    columns: Vec<Target>,
    /// Bytes of variable length that make a column full.
    most: usize,
    rows: usize,
    full: bool,
}

/// Where the values of one place of a row go.
struct Target {
    position: usize,
    nullable: bool,
    column: Column,
}

impl Layout {
    /// Whether a list or a tuple is a value of the first column, and so not a row. An interval may be a tuple, too.
    pub(crate) fn first_takes_tuple(&self) -> bool {
        let takes = |field: &Field| Column::is_nested(field) || matches!(field.data_type(), DataType::Interval(_));
        self.declared.fields().first().is_some_and(|field| takes(field))
    }

    /// Whether a list is a value of the only column, and so not a row.
    pub(crate) fn only_takes_list(&self) -> bool {
        self.declared.fields().len() == 1 && Column::is_nested(self.declared.field(0))
    }

    /// Whether a dict is a value of the only column, and so not a row.
    fn only_takes_dict(&self) -> bool {
        self.only_takes_list() && !matches!(self.declared.field(0).data_type(), DataType::List(_))
    }

    #[cold]
    fn misfit(&self, misfit: Misfit, number: u64, position: usize, value: &Bound<'_, PyAny>) -> Error {
        misfit.into_error(&self.subject, number, self.declared.field(position), value)
    }
}

impl Rows {
    /// Empty builders with room for so many rows.
    pub(crate) fn new(py: Python<'_>, layout: Arc<Layout>, rows: usize) -> Result<Self> {
        time::import_datetime(py);
        let target = |&position: &usize| {
            let field = layout.declared.field(position);
            Ok(Target { position, nullable: field.is_nullable(), column: Column::new(field, rows)? })
        };
        let columns: Vec<_> = layout.projection.iter().map(target).collect::<Result<_>>()?;
        let variable = columns.iter().filter(|target| target.column.is_variable()).count();
        let most = (FULL_BYTES / variable.max(1)).max(FULL_COLUMN_BYTES);
        Ok(Self { layout, columns, most, rows: 0, full: false })
    }

    /// The rows that wait.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Whether the batch should leave before another row is added.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Appends one row: a tuple, a dict, a list in a batch's place of a row, or the value of the only column.
    /// `number` counts the scan's rows from 1, for messages.
    ///
    /// After an error the rows before this one can still be delivered, and no more be added.
    #[inline(always)]
    pub(crate) fn push(&mut self, row: &Bound<'_, PyAny>, number: u64) -> Result<()> {
        match row.cast::<PyTuple>() {
            Ok(tuple) => self.push_tuple(tuple, number),
            Err(_) => self.push_other(row, number),
        }
    }

    /// Appends rows until one does not fit, or the batch is full; gives how many. All must be as wide as a row.
    pub(crate) fn extend(&mut self, rows: &[Bound<'_, PyTuple>], number: u64) -> (usize, Result<()>) {
        self.append(rows.len(), number, |row, position| {
            if let Some(later) = rows.get(row + AHEAD) {
                prefetch(&later.as_slice()[position]);
            }
            &rows[row].as_slice()[position]
        })
    }

    /// Appends values of the only column until one does not fit, or the batch is full; gives how many.
    pub(crate) fn values(&mut self, values: &[Bound<'_, PyAny>], number: u64) -> (usize, Result<()>) {
        self.append(values.len(), number, |row, _| &values[row])
    }

    /// Appends rows, column by column: `value` gives the value of a row at a position.
    #[inline(always)]
    fn append<'r, 'py: 'r>(
        &mut self,
        rows: usize,
        number: u64,
        value: impl Fn(usize, usize) -> &'r Bound<'py, PyAny>,
    ) -> (usize, Result<()>) {
        let mut fit = rows;
        let mut misfit = None;
        for Target { position, nullable, column } in &mut self.columns {
            let mut taken = 0;
            let values = (0..fit).map(|row| {
                taken += 1;
                let value = value(row, *position);
                (!value.is_none()).then_some(value)
            });
            match column.extend(values, *nullable, self.most) {
                Ok(full) => {
                    self.full |= full;
                    if taken < fit {
                        // What does not fit comes after this batch, and is met again in the next.
                        misfit = None;
                        fit = taken;
                    }
                }
                // The row before is the last that all columns have; what they hold beyond it is cut off.
                Err(found) => {
                    fit = taken - 1;
                    misfit = Some((found, *position));
                }
            }
        }
        self.count(fit);
        let fits = misfit.map_or(Ok(()), |(misfit, position)| {
            Err(self.layout.misfit(misfit, number + fit as u64, position, value(fit, position)))
        });
        (fit, fits)
    }

    /// So many more rows are in all columns.
    #[inline]
    fn count(&mut self, rows: usize) {
        self.rows += rows;
        self.full |= self.rows >= self.layout.batch_rows;
    }

    fn push_tuple(&mut self, row: &Bound<'_, PyTuple>, number: u64) -> Result<()> {
        let values = row.as_slice();
        if values.len() != self.layout.declared.fields().len() {
            return Err(self.width_error(number, values.len(), row.as_any()));
        }
        for Target { position, nullable, column } in &mut self.columns {
            let value = &values[*position];
            let pushed = match column.push(value, self.most) {
                Some(full) => Ok(full),
                None => column.extend(std::iter::once((!value.is_none()).then_some(value)), *nullable, self.most),
            };
            match pushed {
                Ok(full) => self.full |= full,
                Err(misfit) => return Err(self.layout.misfit(misfit, number, *position, value)),
            }
        }
        self.count(1);
        Ok(())
    }

    fn push_other(&mut self, row: &Bound<'_, PyAny>, number: u64) -> Result<()> {
        let layout = self.layout.clone();
        let width = layout.declared.fields().len();
        if let Ok(dict) = row.cast::<PyDict>()
            && !layout.only_takes_dict()
        {
            return self.push_dict(dict, number);
        }
        // Inside a batch, a list in the place of a row is one, unless it is the only column's value.
        if let Ok(list) = row.cast::<PyList>()
            && !layout.only_takes_list()
        {
            return self.push_tuple(&list.to_tuple(), number);
        }
        if width != 1 {
            let expected =
                format!("a tuple of {width} values, a dict by column name, a list of rows, or an Arrow object");
            return Err(Error::type_mismatch(format!(
                "{}, row {number}: expected {expected}, got {}",
                layout.subject,
                describe(row)
            )));
        }
        self.append(1, number, |_, _| row).1
    }

    fn push_dict(&mut self, row: &Bound<'_, PyDict>, number: u64) -> Result<()> {
        let layout = self.layout.clone();
        let names = || layout.declared.fields().iter().map(|field| field.name().as_str());
        let mut found = Members::new(row);
        let mut values = Vec::with_capacity(row.len());
        for name in names() {
            let value = found.get(name).map_err(|error| {
                // A key compares itself with the name.
                let message = format!("{}, row {number}: a key of the dict raised {error}", layout.subject);
                Error::type_mismatch(message).with_source(error)
            })?;
            let Some(value) = value else {
                return Err(Error::type_mismatch(format!(
                    "{}, row {number}: the dict has no '{name}'; expected the columns {}",
                    layout.subject,
                    names().collect::<Vec<_>>().join(", ")
                )));
            };
            values.push(value);
        }
        if row.len() != layout.declared.fields().len() {
            let known = |key: &Bound<'_, PyAny>| {
                key.cast::<pyo3::types::PyString>().is_ok_and(|key| names().any(|name| key == name))
            };
            let extra = row.keys().iter().find(|key| !known(key));
            let extra = extra.map_or_else(String::new, |key| describe(&key));
            return Err(Error::type_mismatch(format!(
                "{}, row {number}: the dict has the key {extra}, which is no column; expected the columns {}",
                layout.subject,
                names().collect::<Vec<_>>().join(", ")
            )));
        }
        self.append(1, number, |_, position| &values[position]).1
    }

    #[cold]
    fn width_error(&self, number: u64, found: usize, row: &Bound<'_, PyAny>) -> Error {
        let names: Vec<_> = self.layout.declared.fields().iter().map(|field| field.name().as_str()).collect();
        let plural = if found == 1 { "" } else { "s" };
        Error::type_mismatch(format!(
            "{}, row {number}: expected {} value{} ({}), got {found} value{plural}: {}",
            self.layout.subject,
            names.len(),
            if names.len() == 1 { "" } else { "s" },
            names.join(", "),
            describe(row)
        ))
    }

    /// The rows as a batch. The builders are empty afterwards. Needs no Python.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        self.full = false;
        let arrays = self.columns.iter_mut().map(|target| target.column.finish(rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.layout.schema.clone(), arrays, &options)?)
    }
}

/// The error for a null in a NOT NULL column, found in a batch.
pub(super) fn null_error(subject: &Subject, row: u64, field: &Field) -> Error {
    let (column, data_type) = (field.name(), type_spelling(field));
    Error::type_mismatch(format!(
        "{subject}, row {row}, column '{column}' ({data_type}): cannot store a null: the column is NOT NULL"
    ))
}

/// Asks for a value that is wanted soon.
#[inline(always)]
fn prefetch(value: &Bound<'_, PyAny>) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every such processor has the instruction, which reads nothing that the program could see.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(value.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
