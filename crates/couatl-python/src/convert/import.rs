//! Arrow objects of any Python library, taken over through the PyCapsule interface without copying.

use std::ffi::CStr;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, StructArray, make_array};
use arrow::datatypes::{DataType, Schema, UnionMode};
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use arrow::ffi_stream::FFI_ArrowArrayStream;
use couatl_core::{Error, ErrorKind, Result};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};
use pyo3::{ffi, intern};

use super::release::elsewhere;
use super::stream::ArrowStream;

/// The batches of one Arrow object.
pub(crate) enum ArrowBatches {
    /// One batch, or one column where a stream has only one.
    Array(Option<ArrayRef>),
    /// Batches that the object gives one after the other. To be pulled without the GIL: its callbacks take it where
    /// they need it.
    Stream(ArrowStream),
    /// A pyarrow reader, asked for its batches in Python: there, what its generator raises arrives as itself; the C
    /// interface would give no more than its text.
    Reader(Py<PyAny>),
}

impl ArrowBatches {
    /// The next batch; `None` at the end. What a reader raises is the exception.
    pub(crate) fn next(&mut self, py: Python<'_>, only_column: Option<&str>) -> PyResult<Result<Option<RecordBatch>>> {
        match self {
            ArrowBatches::Array(array) => Ok(array.take().map(|array| as_batch(&array, only_column)).transpose()),
            ArrowBatches::Stream(stream) => match py.detach(|| stream.next()) {
                Ok(Some(data)) => Ok(array_of(data).and_then(|array| as_batch(&array, only_column)).map(Some)),
                Ok(None) => Ok(Ok(None)),
                Err(error) => {
                    // The producer's own failure, of which no more than a text is left.
                    let message = format!("the Arrow stream failed: {error}");
                    Ok(Err(Error::new(ErrorKind::PythonException, message).with_source(error)))
                }
            },
            ArrowBatches::Reader(reader) => {
                let batch = match reader.bind(py).call_method0(intern!(py, "read_next_batch")) {
                    Ok(batch) => batch,
                    Err(error) if error.is_instance_of::<PyStopIteration>(py) => return Ok(Ok(None)),
                    Err(error) => return Err(error),
                };
                match import(&batch)? {
                    Some(Ok(mut batch)) => batch.next(py, only_column),
                    Some(Err(error)) => Ok(Err(error)),
                    None => Ok(Err(Error::type_mismatch("expected the Arrow reader to give record batches"))),
                }
            }
        }
    }
}

/// Whether it is an object that [`import`] takes over.
pub(crate) fn is_arrow(object: &Bound<'_, PyAny>) -> bool {
    ["__arrow_c_array__", "__arrow_c_stream__"].iter().any(|method| object.hasattr(method).unwrap_or(false))
}

/// Takes over an object with `__arrow_c_array__` or `__arrow_c_stream__`; `None` if it has neither.
pub(crate) fn import(object: &Bound<'_, PyAny>) -> PyResult<Option<Result<ArrowBatches>>> {
    let py = object.py();
    if let Some(method) = object.getattr_opt(intern!(py, "__arrow_c_array__"))? {
        let capsules = method.call0()?.cast_into::<PyTuple>()?;
        let (schema, array) = capsules.extract::<(Bound<'_, PyCapsule>, Bound<'_, PyCapsule>)>()?;
        return Ok(Some(import_array(&schema, &array)?));
    }
    if let Some(method) = object.getattr_opt(intern!(py, "__arrow_c_stream__"))? {
        if object.hasattr(intern!(py, "read_next_batch"))? {
            return Ok(Some(Ok(ArrowBatches::Reader(object.clone().unbind()))));
        }
        let capsule = method.call0()?.cast_into::<PyCapsule>()?;
        let stream = pointer(&capsule, c"arrow_array_stream")?.cast::<FFI_ArrowArrayStream>();
        // SAFETY: a capsule of this name holds a valid stream, as its interface says; `from_raw` moves the stream out
        // and leaves a released one behind, which the capsule's destructor then leaves alone.
        let stream = unsafe { FFI_ArrowArrayStream::from_raw(stream) };
        return Ok(Some(ArrowStream::new(stream).map_err(|error| unreadable(&error)).and_then(|stream| {
            match stream.data_type() {
                DataType::Struct(fields) if fields.is_empty() => {
                    Err(Error::type_mismatch("expected Arrow records with the stream's columns, got some without any"))
                }
                _ => Ok(ArrowBatches::Stream(stream)),
            }
        })));
    }
    Ok(None)
}

/// Takes over the columns of an object with `__arrow_c_schema__`; `None` if it has none.
pub(crate) fn import_schema(object: &Bound<'_, PyAny>) -> PyResult<Option<Result<Schema>>> {
    let py = object.py();
    let Some(method) = object.getattr_opt(intern!(py, "__arrow_c_schema__"))? else { return Ok(None) };
    let capsule = method.call0()?.cast_into::<PyCapsule>()?;
    let schema = pointer(&capsule, c"arrow_schema")?.cast::<FFI_ArrowSchema>();
    // SAFETY: a capsule of this name holds a valid schema, as its interface says; `from_raw` moves it out and leaves a
    // released one behind.
    let schema = unsafe { FFI_ArrowSchema::from_raw(schema) };
    Ok(Some(Schema::try_from(&schema).map_err(|error| unreadable(&error))))
}

fn import_array(schema: &Bound<'_, PyCapsule>, array: &Bound<'_, PyCapsule>) -> PyResult<Result<ArrowBatches>> {
    let schema = pointer(schema, c"arrow_schema")?.cast::<FFI_ArrowSchema>();
    let array = pointer(array, c"arrow_array")?.cast::<FFI_ArrowArray>();
    // SAFETY: capsules of these names hold a valid array and its schema, as their interface says. `from_raw` moves both
    // out and leaves released ones behind; `from_ffi` checks the layout against the schema.
    let data = unsafe {
        let schema = FFI_ArrowSchema::from_raw(schema);
        from_ffi(elsewhere(FFI_ArrowArray::from_raw(array)), &schema)
    };
    let array = data.map_err(|error| unreadable(&error)).and_then(array_of);
    Ok(array.map(|array| ArrowBatches::Array(Some(array))))
}

fn array_of(mut data: ArrayData) -> Result<ArrayRef> {
    // Foreign buffers may be less aligned than Rust's types want; those alone are copied.
    data.align_buffers();
    settled(data).map(make_array).map_err(|error| unreadable(&error))
}

/// The data with the offsets of records, and of the like, moved into their members. `make_array` does that by slicing
/// the members; where one of them is of records itself, its own offset then counts twice, and other rows' values arrive.
fn settled(data: ArrayData) -> std::result::Result<ArrayData, ArrowError> {
    let (offset, length) = (data.offset(), data.len());
    let window = match data.data_type() {
        DataType::Struct(_) | DataType::Union(_, UnionMode::Sparse) => Some((offset, length)),
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or(0);
            Some((offset * size, length * size))
        }
        _ => None,
    };
    if data.child_data().is_empty() {
        return Ok(data);
    }
    let children = data.child_data().iter().cloned().map(|child| {
        let Some((start, length)) = window else { return settled(child) };
        if start + length > child.len() {
            let found = child.len();
            return Err(ArrowError::CDataInterface(format!("a member has {found} values, fewer than its records")));
        }
        let nulls = child.nulls().map(|nulls| nulls.slice(start, length));
        let offset = child.offset() + start;
        // SAFETY: a part of a valid array: its end was checked.
        settled(unsafe { child.into_builder().offset(offset).len(length).nulls(nulls).build_unchecked() })
    });
    let children = children.collect::<std::result::Result<_, _>>()?;
    let nulls = data.nulls().cloned();
    // Of those that have a window, a union alone has a buffer of its own, with a byte a value.
    let (skipped, offset) = if window.is_some() { (offset, 0) } else { (0, offset) };
    let buffers = data.buffers().iter().map(|buffer| buffer.slice(skipped.min(buffer.len()))).collect();
    let settled = data.into_builder().offset(offset).nulls(nulls).buffers(buffers).child_data(children);
    // SAFETY: the same values: what the offset left out is left out of the children, and of the nulls already.
    Ok(unsafe { settled.build_unchecked() })
}

fn pointer(capsule: &Bound<'_, PyCapsule>, name: &'static CStr) -> PyResult<*mut std::ffi::c_void> {
    // SAFETY: attached; the call checks the capsule's name and sets an exception where it is another.
    let pointer = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), name.as_ptr()) };
    if pointer.is_null() { Err(PyErr::fetch(capsule.py())) } else { Ok(pointer) }
}

fn unreadable(error: &ArrowError) -> Error {
    Error::type_mismatch(format!("the Arrow object cannot be read: {error}"))
}

fn as_batch(array: &ArrayRef, only_column: Option<&str>) -> Result<RecordBatch> {
    match (array.data_type(), only_column) {
        (DataType::Struct(_), _) => {
            let records = array.as_any().downcast_ref::<StructArray>();
            match records {
                // A record that is null as a whole has no row to become.
                Some(records) if records.null_count() > 0 => {
                    Err(Error::type_mismatch("the Arrow object has null records; a row is never null as a whole"))
                }
                Some(records) => Ok(RecordBatch::from(records)),
                None => Err(Error::internal("a struct array that is none")),
            }
        }
        (_, Some(name)) => Ok(RecordBatch::try_from_iter_with_nullable([(name, array.clone(), true)])?),
        (other, None) => Err(Error::type_mismatch(format!(
            "expected Arrow records with the stream's columns, got an array of {other}"
        ))),
    }
}
