//! Values of fixed and of variable length under construction: as short as can be, to be part of the loops that fill them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, FixedSizeBinaryArray, NullBufferBuilder, PrimitiveArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType};
use couatl_core::Result;

use super::misfit::{Appended, Misfit};

/// Values of one length.
pub(super) struct Fixed<T: ArrowPrimitiveType> {
    data_type: DataType,
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Fixed<T> {
    pub(super) fn new(data_type: DataType, rows: usize) -> Self {
        Self { data_type, values: Vec::with_capacity(rows), nulls: NullBufferBuilder::new(rows) }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: Option<T::Native>) {
        match value {
            Some(value) => {
                self.values.push(value);
                self.nulls.append_non_null();
            }
            None => {
                self.values.push(T::Native::default());
                self.nulls.append_null();
            }
        }
    }

    /// Whether the last value is a null.
    pub(super) fn ends_in_null(&self) -> bool {
        !self.nulls.is_empty() && self.nulls.as_slice().is_some() && !self.nulls.is_valid(self.nulls.len() - 1)
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let values = std::mem::take(&mut self.values).into();
        Arc::new(PrimitiveArray::<T>::new(values, self.nulls.finish()).with_data_type(self.data_type.clone()))
    }
}

/// Sixteen bytes each.
pub(super) struct Uuids {
    values: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Uuids {
    pub(super) fn new(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows * 16), nulls: NullBufferBuilder::new(rows) }
    }

    pub(super) fn push(&mut self, value: Option<[u8; 16]>) {
        self.values.extend_from_slice(&value.unwrap_or_default());
        self.nulls.append(value.is_some());
    }

    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        let values = std::mem::take(&mut self.values).into();
        Ok(Arc::new(FixedSizeBinaryArray::try_new(16, values, self.nulls.finish())?))
    }
}

/// Values of any length: text, or bytes.
pub(super) struct Variable {
    data: Vec<u8>,
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Variable {
    pub(super) fn new(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { data: Vec::new(), offsets, nulls: NullBufferBuilder::new(rows) }
    }

    /// How many bytes the values have.
    #[inline(always)]
    pub(super) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Appends a value, where the bytes of all still have offsets.
    #[inline(always)]
    pub(super) fn push(&mut self, value: &[u8]) -> Appended {
        let Some(end) = self.data.len().checked_add(value.len()).and_then(|end| i32::try_from(end).ok()) else {
            return Err(Misfit::because(
                "a column of one batch holds at most 2 GiB; lower batch_size, or split the value",
            ));
        };
        append(&mut self.data, value);
        self.offsets.push(end);
        self.nulls.append_non_null();
        Ok(())
    }

    #[inline(always)]
    pub(super) fn push_null(&mut self) {
        self.offsets.push(self.data.len() as i32);
        self.nulls.append_null();
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Vec<u8>, Option<NullBuffer>) {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        (OffsetBuffer::new(offsets.into()), std::mem::take(&mut self.data), self.nulls.finish())
    }

    pub(super) fn finish_binary(&mut self) -> ArrayRef {
        let (offsets, data, nulls) = self.finish();
        Arc::new(BinaryArray::new(offsets, data.into(), nulls))
    }

    /// The values, all of which were pushed as text.
    ///
    /// # Safety
    /// Each of them must be UTF-8.
    pub(super) unsafe fn finish_text(&mut self) -> ArrayRef {
        let (offsets, data, nulls) = self.finish();
        // SAFETY: the offsets ascend and end where the data does, as they were pushed; values are UTF-8, as the caller
        // says.
        Arc::new(unsafe { StringArray::new_unchecked(offsets, data.into(), nulls) })
    }
}

/// What `extend_from_slice` does, without a call for values as short as most are.
#[inline(always)]
fn append(data: &mut Vec<u8>, value: &[u8]) {
    const SHORT: usize = 16;
    if value.len() > SHORT {
        return data.extend_from_slice(value);
    }
    data.reserve(SHORT);
    let end = data.len();
    // SAFETY: there is room for `SHORT` bytes after the end, and at least as many as the value has are written before
    // the length says so. The two pieces of a value overlap where it is no power of two long.
    unsafe {
        let (from, to) = (value.as_ptr(), data.as_mut_ptr().add(end));
        match value.len() {
            0 => {}
            1 => to.write(*from),
            2..4 => pieces::<2>(from, to, value.len()),
            4..8 => pieces::<4>(from, to, value.len()),
            _ => pieces::<8>(from, to, value.len()),
        }
        data.set_len(end + value.len());
    }
}

/// Copies the first `N` bytes and the last.
///
/// # Safety
/// Both must have `length` bytes, which must be `N` or more, and at most twice as many.
#[inline(always)]
unsafe fn pieces<const N: usize>(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: as the caller says; arrays of bytes need no alignment.
    unsafe {
        let (first, last) = (from.cast::<[u8; N]>().read(), from.add(length - N).cast::<[u8; N]>().read());
        to.cast::<[u8; N]>().write(first);
        to.add(length - N).cast::<[u8; N]>().write(last);
    }
}
