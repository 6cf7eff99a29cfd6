//! The arrays of an Arrow stream, through the C stream interface.
//!
//! Arrow's own reader of such streams makes batches at once; here they come as data, so that what [`super::import`]
//! mends in an array is mended in those of streams, too.

use std::ffi::CStr;

use arrow::array::ArrayData;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow::ffi_stream::FFI_ArrowArrayStream;

use super::release::elsewhere;

type Result<T> = std::result::Result<T, ArrowError>;

/// A stream and the type of its arrays.
pub(crate) struct ArrowStream {
    stream: FFI_ArrowArrayStream,
    data_type: DataType,
}

impl ArrowStream {
    /// Asks the stream for its type.
    pub(super) fn new(mut stream: FFI_ArrowArrayStream) -> Result<Self> {
        let mut schema = FFI_ArrowSchema::empty();
        let Some(get_schema) = stream.get_schema else { return Err(failure(&mut stream)) };
        // SAFETY: the stream is valid, and not released: it has its callbacks. Both outlive the call.
        let code = unsafe { get_schema(&raw mut stream, &raw mut schema) };
        if code != 0 {
            return Err(failure(&mut stream));
        }
        Ok(Self { data_type: DataType::try_from(&schema)?, stream })
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The next array; `None` at the end. To be called without the GIL: callbacks take it where they need it.
    pub(super) fn next(&mut self) -> Result<Option<ArrayData>> {
        let mut array = FFI_ArrowArray::empty();
        let Some(get_next) = self.stream.get_next else { return Err(failure(&mut self.stream)) };
        // SAFETY: as above.
        let code = unsafe { get_next(&raw mut self.stream, &raw mut array) };
        if code != 0 {
            return Err(failure(&mut self.stream));
        }
        if array.is_released() {
            return Ok(None);
        }
        // SAFETY: the stream says that its arrays are of this type; their layout is checked against it.
        unsafe { from_ffi_and_data_type(elsewhere(array), self.data_type.clone()) }.map(Some)
    }
}

/// What the stream says of its last failure.
fn failure(stream: &mut FFI_ArrowArrayStream) -> ArrowError {
    let text = stream.get_last_error.and_then(|get_last_error| {
        // SAFETY: the stream is valid; the text, if there is one, lives until its next callback.
        unsafe {
            let text = get_last_error(&raw mut *stream);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    });
    ArrowError::CDataInterface(text.unwrap_or_else(|| "it does not say why".into()))
}
