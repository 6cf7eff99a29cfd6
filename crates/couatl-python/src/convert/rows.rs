//! A batch under construction: the columns that a query reads, filled row by row.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, SchemaRef};
use couatl_core::{Error, Result, type_spelling};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::column::Column;
use super::dict::Members;
use super::misfit::{Misfit, describe};
use super::time;

/// Bytes of variable length after which a batch counts as full, however few rows it has.
const FULL_BYTES: usize = 8 << 20;

/// What a scan wants of its rows; shared by all the batches of the scan.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The stream, for messages.
    pub(crate) stream: String,
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
    columns: Vec<Column>,
    /// Whether the bytes in the columns need counting.
    is_variable: bool,
    rows: usize,
    /// The number of the first of them.
    first: u64,
    full: bool,
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
}

impl Rows {
    /// Empty builders.
    pub(crate) fn new(py: Python<'_>, layout: Arc<Layout>) -> Result<Self> {
        time::import_datetime(py);
        let columns: Vec<_> = layout.schema.fields().iter().map(|field| Column::new(field)).collect::<Result<_>>()?;
        let is_variable = columns.iter().any(Column::is_variable);
        Ok(Self { layout, columns, is_variable, rows: 0, first: 0, full: false })
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
    #[inline]
    pub(crate) fn push(&mut self, row: &Bound<'_, PyAny>, number: u64) -> Result<()> {
        if let Ok(tuple) = row.cast::<PyTuple>() {
            self.push_tuple(tuple, number)?;
        } else {
            self.push_other(row, number)?;
        }
        if self.rows == 0 {
            self.first = number;
        }
        self.rows += 1;
        self.full = self.rows >= self.layout.batch_rows || self.is_variable && self.variable_bytes() >= FULL_BYTES;
        Ok(())
    }

    fn variable_bytes(&self) -> usize {
        self.columns.iter().map(Column::variable_bytes).sum()
    }

    fn push_tuple(&mut self, row: &Bound<'_, PyTuple>, number: u64) -> Result<()> {
        let width = self.layout.declared.fields().len();
        if row.len() != width {
            return Err(self.width_error(number, row.len(), row.as_any()));
        }
        for (column, &position) in self.columns.iter_mut().zip(&self.layout.projection) {
            // SAFETY: positions are of declared columns, of which the tuple has as many items; it never changes.
            let value = unsafe { row.get_borrowed_item_unchecked(position) };
            if let Err(misfit) = append(&self.layout, column, position, &value) {
                return Err(self.misfit(misfit, number, position, &value));
            }
        }
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
                "stream '{}', row {number}: expected {expected}, got {}",
                layout.stream,
                describe(row)
            )));
        }
        for column in &mut self.columns {
            if let Err(misfit) = append(&layout, column, 0, row) {
                return Err(self.misfit(misfit, number, 0, row));
            }
        }
        Ok(())
    }

    fn push_dict(&mut self, row: &Bound<'_, PyDict>, number: u64) -> Result<()> {
        let layout = self.layout.clone();
        let names = || layout.declared.fields().iter().map(|field| field.name().as_str());
        let mut found = Members::new(row);
        let mut values = Vec::with_capacity(row.len());
        for name in names() {
            let value = found.get(name).map_err(|error| {
                // A key compares itself with the name.
                let message = format!("stream '{}', row {number}: a key of the dict raised {error}", layout.stream);
                Error::type_mismatch(message).with_source(error)
            })?;
            let Some(value) = value else {
                return Err(Error::type_mismatch(format!(
                    "stream '{}', row {number}: the dict has no '{name}'; expected the columns {}",
                    layout.stream,
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
                "stream '{}', row {number}: the dict has the key {extra}, which is no column; expected the columns {}",
                layout.stream,
                names().collect::<Vec<_>>().join(", ")
            )));
        }
        for (column, &position) in self.columns.iter_mut().zip(&layout.projection) {
            let value = &values[position];
            if let Err(misfit) = append(&layout, column, position, value) {
                return Err(self.misfit(misfit, number, position, value));
            }
        }
        Ok(())
    }

    #[cold]
    fn misfit(&self, misfit: Misfit, number: u64, position: usize, value: &Bound<'_, PyAny>) -> Error {
        misfit.into_error(&self.layout.stream, number, self.layout.declared.field(position), value)
    }

    #[cold]
    fn width_error(&self, number: u64, found: usize, row: &Bound<'_, PyAny>) -> Error {
        let names: Vec<_> = self.layout.declared.fields().iter().map(|field| field.name().as_str()).collect();
        let plural = if found == 1 { "" } else { "s" };
        Error::type_mismatch(format!(
            "stream '{}', row {number}: expected {} value{} ({}), got {found} value{plural}: {}",
            self.layout.stream,
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
        let arrays = self.columns.iter_mut().map(|column| column.finish(rows)).collect::<Result<Vec<_>>>()?;
        for (field, array) in self.layout.schema.fields().iter().zip(&arrays) {
            // A NaT is a null that does not look like one.
            if !field.is_nullable()
                && let Some(row) =
                    (0..array.len()).take_while(|_| array.null_count() > 0).find(|row| array.is_null(*row))
            {
                return Err(null_error(&self.layout.stream, self.first + row as u64, field));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.layout.schema.clone(), arrays, &options)?)
    }
}

#[inline]
fn append(
    layout: &Layout,
    column: &mut Column,
    position: usize,
    value: &Bound<'_, PyAny>,
) -> std::result::Result<(), Misfit> {
    if value.is_none() && !layout.declared.field(position).is_nullable() {
        return Err(Misfit::null());
    }
    column.append(value)
}

/// The error for a null in a NOT NULL column, found in a batch.
pub(super) fn null_error(stream: &str, row: u64, field: &Field) -> Error {
    let (column, data_type) = (field.name(), type_spelling(field));
    Error::type_mismatch(format!(
        "stream '{stream}', row {row}, column '{column}' ({data_type}): cannot store a null: the column is NOT NULL"
    ))
}
