//! Columns whose values hold values: lists, maps, tuples.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, MapArray, NullBufferBuilder, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{FieldRef, Fields};
use couatl_core::Result;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::column::Column;
use super::dict::{Members, Pairs};
use super::misfit::{Appended, Misfit, place_of};
use super::scalar::type_name;

pub(super) struct ListColumn {
    item: FieldRef,
    spans: Spans,
    values: Box<Column>,
}

pub(super) struct MapColumn {
    entries: FieldRef,
    /// Those of an entry: the key's and the value's.
    fields: Fields,
    spans: Spans,
    keys: Box<Column>,
    values: Box<Column>,
}

pub(super) struct StructColumn {
    fields: Fields,
    nulls: NullBufferBuilder,
    members: Vec<Column>,
}

/// Which items belong to which list: those of one follow those of the other.
struct Spans {
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Default for Spans {
    fn default() -> Self {
        Self { offsets: vec![0], nulls: NullBufferBuilder::new(0) }
    }
}

impl Spans {
    /// How many items there are.
    fn end(&self) -> usize {
        self.offsets.last().map_or(0, |last| *last as usize)
    }

    fn append(&mut self, count: usize) -> Appended {
        let end = i32::try_from(self.end() + count);
        let end = end.map_err(|_| Misfit::because("one batch holds at most 2^31 items; yield fewer rows at once"))?;
        self.offsets.push(end);
        self.nulls.append_non_null();
        Ok(())
    }

    fn append_null(&mut self) -> Appended {
        self.offsets.push(*self.offsets.last().unwrap_or(&0));
        self.nulls.append_null();
        Ok(())
    }

    /// The first `rows` offsets with their nulls, and how many items they reach to.
    fn finish(&mut self, rows: usize) -> (OffsetBuffer<i32>, Option<NullBuffer>, usize) {
        let mut offsets = std::mem::replace(&mut self.offsets, vec![0]);
        offsets.truncate(rows + 1);
        let length = offsets.last().map_or(0, |last| *last as usize);
        (OffsetBuffer::new(offsets.into()), self.nulls.finish().map(|nulls| nulls.slice(0, rows)), length)
    }
}

impl ListColumn {
    pub(super) fn new(item: &FieldRef, rows: usize) -> Result<Self> {
        let values = Box::new(Column::new(item, rows)?);
        Ok(Self { item: item.clone(), spans: Spans::default(), values })
    }

    pub(super) fn append(&mut self, value: Option<&Bound<'_, PyAny>>) -> Appended {
        let Some(value) = value else { return self.spans.append_null() };
        let items = items(value)?;
        let mut count = 0;
        // By position: the list is the user's, and its values' own code may change it while we look.
        let each = std::iter::from_fn(|| {
            let item = items.get(count)?;
            count += 1;
            Some((!item.is_none()).then_some(item))
        });
        if let Err(misfit) = self.values.extend(each, true, usize::MAX) {
            let last = count - 1;
            return Err(misfit.inside(format!("[{last}]"), &items.get(last).unwrap_or_else(|| value.clone())));
        }
        self.spans.append(count)
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.variable_bytes() + self.spans.end()
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let (offsets, nulls, length) = self.spans.finish(rows);
        Ok(Arc::new(ListArray::try_new(self.item.clone(), offsets, self.values.finish(length)?, nulls)?))
    }
}

impl MapColumn {
    pub(super) fn new(entries: &FieldRef, fields: &Fields, rows: usize) -> Result<Self> {
        let (keys, values) = (Column::new(&fields[0], rows)?, Column::new(&fields[1], rows)?);
        Ok(Self {
            entries: entries.clone(),
            fields: fields.clone(),
            spans: Spans::default(),
            keys: keys.into(),
            values: values.into(),
        })
    }

    pub(super) fn append(&mut self, value: Option<&Bound<'_, PyAny>>) -> Appended {
        let Some(value) = value else { return self.spans.append_null() };
        let mut count = 0;
        let mut entry = |key: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>| {
            if key.is_none() {
                return Err(Misfit::because("a key of a map cannot be None"));
            }
            self.keys.append(Some(key)).map_err(|misfit| misfit.inside(place_of(key), key))?;
            if self.keys.ends_in_null() {
                return Err(Misfit::because("a key of a map cannot be None"));
            }
            self.values.append(Some(item)).map_err(|misfit| misfit.inside(place_of(key), item))?;
            count += 1;
            Ok(())
        };
        if let Ok(dict) = value.cast::<PyDict>() {
            let length = dict.len();
            for (key, item) in Pairs::new(dict).take(length) {
                entry(&key, &item)?;
            }
            if count != length || dict.len() != length {
                return Err(Misfit::because("its values changed it while they were read"));
            }
        } else {
            let pairs = items(value)?;
            let mut index = 0;
            while let Some(pair) = pairs.get(index) {
                let Ok((key, item)) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() else {
                    return Err(Misfit::because("a map is a dict, or a list of pairs"));
                };
                entry(&key, &item)?;
                index += 1;
            }
        }
        self.spans.append(count)
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.variable_bytes() + self.values.variable_bytes() + self.spans.end()
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let (offsets, nulls, length) = self.spans.finish(rows);
        let members = vec![self.keys.finish(length)?, self.values.finish(length)?];
        let entries = StructArray::try_new(self.fields.clone(), members, None)?;
        Ok(Arc::new(MapArray::try_new(self.entries.clone(), offsets, entries, nulls, false)?))
    }
}

impl StructColumn {
    pub(super) fn new(fields: &Fields, rows: usize) -> Result<Self> {
        let members = fields.iter().map(|field| Column::new(field, rows)).collect::<Result<_>>()?;
        Ok(Self { fields: fields.clone(), nulls: NullBufferBuilder::new(0), members })
    }

    pub(super) fn append(&mut self, value: Option<&Bound<'_, PyAny>>) -> Appended {
        let Some(value) = value else {
            self.nulls.append_null();
            return self.members.iter_mut().try_for_each(|member| member.append(None));
        };
        if let Ok(dict) = value.cast::<PyDict>() {
            let mut found = Members::new(dict);
            for (field, member) in self.fields.iter().zip(&mut self.members) {
                let Some(item) = found.get(field.name())? else {
                    return Err(Misfit::because(format!("it has no '{}'", field.name())));
                };
                member.append(Some(&item)).map_err(|misfit| misfit.inside(format!(".{}", field.name()), &item))?;
            }
            if dict.len() != self.members.len() {
                return Err(wrong_count(dict.len(), self.members.len()));
            }
        } else if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyList>() {
            let items = items(value)?;
            if items.len() != self.members.len() {
                return Err(wrong_count(items.len(), self.members.len()));
            }
            for (index, (field, member)) in self.fields.iter().zip(&mut self.members).enumerate() {
                let Some(item) = items.get(index) else { return Err(wrong_count(index, self.fields.len())) };
                member.append(Some(&item)).map_err(|misfit| misfit.inside(format!(".{}", field.name()), &item))?;
            }
        } else {
            return Err(Misfit::plain());
        }
        self.nulls.append_non_null();
        Ok(())
    }

    pub(super) fn is_variable(&self) -> bool {
        self.members.iter().any(Column::is_variable)
    }

    pub(super) fn bytes(&self) -> usize {
        self.members.iter().map(Column::variable_bytes).sum()
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        let members = self.members.iter_mut().map(|member| member.finish(rows)).collect::<Result<Vec<_>>>()?;
        let nulls = self.nulls.finish().map(|nulls| nulls.slice(0, rows));
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), members, nulls, rows)?))
    }
}

fn wrong_count(found: usize, expected: usize) -> Misfit {
    let plural = if found == 1 { "" } else { "s" };
    Misfit::because(format!("it has {found} member{plural}, and the type has {expected}"))
}

/// The items of a value that is a sequence: a list or tuple itself, a list made of anything else with a length.
enum Items<'py> {
    List(Bound<'py, PyList>),
    Tuple(Bound<'py, PyTuple>),
}

impl<'py> Items<'py> {
    fn len(&self) -> usize {
        match self {
            Items::List(list) => list.len(),
            Items::Tuple(tuple) => tuple.len(),
        }
    }

    #[inline]
    fn get(&self, index: usize) -> Option<Bound<'py, PyAny>> {
        match self {
            // SAFETY: attached; the list is as long as it says right now, and nothing runs in between.
            Items::List(list) => (index < list.len()).then(|| unsafe { list.get_item_unchecked(index) }),
            Items::Tuple(tuple) => tuple.as_slice().get(index).cloned(),
        }
    }
}

fn items<'py>(value: &Bound<'py, PyAny>) -> std::result::Result<Items<'py>, Misfit> {
    if let Ok(list) = value.cast::<PyList>() {
        return Ok(Items::List(list.clone()));
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return Ok(Items::Tuple(tuple.clone()));
    }
    let py = value.py();
    let text = value.is_instance_of::<pyo3::types::PyString>()
        || value.is_instance_of::<pyo3::types::PyBytes>()
        || value.is_instance_of::<pyo3::types::PyByteArray>()
        || value.is_instance_of::<PyDict>();
    // Without a length it may be endless.
    if text || !value.hasattr(intern!(py, "__len__"))? || !value.hasattr(intern!(py, "__iter__"))? {
        return Err(Misfit::plain());
    }
    // numpy gives plain Python values this way, many at once.
    if type_name(value) == "numpy.ndarray" {
        let list = value.call_method0(intern!(py, "tolist"))?;
        return list.cast_into::<PyList>().map(Items::List).map_err(|_| Misfit::plain());
    }
    Ok(Items::List(py.get_type::<PyList>().call1((value,))?.cast_into::<PyList>().map_err(PyErr::from)?))
}
