//! How much memory rows take, whatever larger arrays they are part of.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// The bytes of the rows of a batch, with the values of its dictionaries.
pub(crate) fn size(batch: &RecordBatch) -> u64 {
    let sizes = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Dictionary(_, _) => sliced_bytes(column) + sliced_bytes(column.as_any_dictionary().values()),
        _ => sliced_bytes(column),
    });
    sizes.map(|bytes| bytes as u64).sum()
}

/// The bytes of the values that an array holds, of dictionaries those of the keys.
pub fn sliced_bytes(array: &ArrayRef) -> usize {
    let offsets_and_child = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            Some((ends(list.value_offsets()), size_of_val(list.value_offsets()), Arc::clone(list.values())))
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            Some((ends(list.value_offsets()), size_of_val(list.value_offsets()), Arc::clone(list.values())))
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let entries = Arc::new(map.entries().clone()) as ArrayRef;
            Some((ends(map.value_offsets()), size_of_val(map.value_offsets()), entries))
        }
        DataType::FixedSizeList(_, _) => return sliced_bytes(array.as_fixed_size_list().values()),
        DataType::Struct(_) => return array.as_struct().columns().iter().map(sliced_bytes).sum(),
        // The values come once, whatever is cut.
        DataType::Dictionary(_, _) => return sliced_bytes(&array.as_any_dictionary().keys().slice(0, array.len())),
        _ => None,
    };
    match offsets_and_child {
        Some(((first, last), offsets, child)) => offsets + sliced_bytes(&child.slice(first, last - first)),
        None => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

/// Where the values of lists with these offsets begin and end.
fn ends<O: arrow::array::OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    match offsets {
        [first, .., last] => (first.as_usize(), last.as_usize()),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn a_slice_takes_its_part_alone() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..1000).map(|n| Some(vec![Some(n); 100])));
        let texts = StringArray::from_iter_values((0..1000).map(|n| format!("{n:0100}")));
        let columns: [(&str, ArrayRef); 2] = [("l", Arc::new(lists)), ("s", Arc::new(texts))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let (whole, part) = (size(&batch), size(&batch.slice(500, 10)));
        assert!((900_000..1_000_000).contains(&whole), "{whole}");
        assert!((9_000..10_000).contains(&part), "{part}");
    }
}
