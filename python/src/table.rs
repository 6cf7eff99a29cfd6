//! A stream for DataFusion's own Python package, and for whoever else takes tables through its C interface.

use std::sync::Arc;

use couatl::{ForeignTable, StreamTable};
use datafusion_ffi::proto::logical_extension_codec::FFI_LogicalExtensionCodec;
use datafusion_ffi::table_provider::FFI_TableProvider;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::session::{between, known_mode, name_of, raised, runtime};

const CODEC: &std::ffi::CStr = c"datafusion_logical_extension_codec";

/// Python functions as a table of a `datafusion.SessionContext`.
#[pyclass(frozen, module = "couatl._couatl")]
pub(crate) struct PythonTable(Arc<StreamTable>);

#[pymethods]
impl PythonTable {
    #[new]
    #[pyo3(signature = (columns, *, read = None, write = None, mode = "auto", name = None))]
    fn new(
        py: Python<'_>,
        columns: &str,
        read: Option<Py<PyAny>>,
        write: Option<Py<PyAny>>,
        mode: &str,
        name: Option<String>,
    ) -> PyResult<Self> {
        let (read, write) = (read.filter(|read| !read.is_none(py)), write.filter(|write| !write.is_none(py)));
        let Some(callable) = read.as_ref().or(write.as_ref()) else {
            return Err(PyTypeError::new_err(
                "expected read, write, or both: callables, or classes of couatl.sources and sinks",
            ));
        };
        let name = name.unwrap_or_else(|| name_of(py, callable));
        let failed = |error: couatl::Error| raised(py, &error);
        let table = couatl::PythonTable::from_source(name, columns, "").map_err(failed)?.mode(known_mode(py, mode)?);
        between(py, table, read, write).build().map(|table| Self(Arc::new(table))).map_err(failed)
    }

    /// The table, for DataFusion: `SessionContext.register_table` asks for it, and says for which session since version 52.
    #[pyo3(signature = (session = None))]
    fn __datafusion_table_provider__<'py>(
        &self,
        py: Python<'py>,
        session: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let ours = datafusion_ffi::version();
        let other = |theirs: &str| {
            let message = format!(
                "this couatl is for DataFusion {ours}, and the session is of {theirs}: install datafusion {ours}"
            );
            PyValueError::new_err(message)
        };
        let Some(session) = session else { return Err(other("an older one")) };
        // A catalog hands over what a session would give.
        let codec = match session.getattr_opt("__datafusion_logical_extension_codec__")? {
            Some(give) => give.call0()?,
            None => session.clone(),
        };
        let codec = codec.cast_into::<PyCapsule>()?;
        #[expect(unsafe_code, reason = "the interface hands pointers over")]
        // SAFETY: a capsule of this name holds such a codec, as the interface has it.
        let codec: &FFI_LogicalExtensionCodec = unsafe { codec.pointer_checked(Some(CODEC))?.cast().as_ref() };
        // SAFETY: it says what it is of, in all versions.
        #[expect(unsafe_code, reason = "the interface hands functions over")]
        let theirs = unsafe { (codec.version)() };
        if theirs != ours {
            return Err(other(&format!("DataFusion {theirs}")));
        }
        let table = Arc::new(ForeignTable::new(Arc::clone(&self.0)));
        let runtime = runtime()?.handle().clone();
        let provider = FFI_TableProvider::new_with_ffi_codec(table, false, Some(runtime), codec.clone());
        PyCapsule::new_with_value(py, provider, c"datafusion_table_provider")
    }
}
