//! What a join within a band keeps of one side: rows that may still match, found by their keys, and let go of in the
//! order in which they came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, make_comparator};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, concat, concat_batches, filter, filter_record_batch, interleave, is_not_null, not};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;

/// Rows that come one by one are put together up to this many: each batch has a cost of its own.
const CHUNK_ROWS: usize = 1024;

/// About how many bytes it takes to find a row by its keys.
const INDEX_BYTES: usize = 96;

/// The keys of a row, in a form that compares as bytes; `None` where one is NULL and NULLs match nothing.
pub(crate) type Key = Option<Arc<[u8]>>;

/// Where a row is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    chunk: u64,
    row: usize,
}

/// One side.
pub(crate) struct Side {
    schema: SchemaRef,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    converter: RowConverter,
    nulls_match: bool,
    /// What is compared with the other side's progress.
    bound: Arc<dyn PhysicalExpr>,
    /// What tells the other side of this one's progress.
    progress: Arc<dyn PhysicalExpr>,
    /// The other side's progress: rows whose bound is less are over.
    pub(crate) horizon: Option<ArrayRef>,
    /// Whether rows that found no partner are delivered when they are over.
    pub(crate) delivers_unmatched: bool,
    pub(crate) ended: bool,
    chunks: VecDeque<Chunk>,
    /// How many chunks there were before those that are kept.
    dropped_chunks: u64,
    /// By their keys, the rows in the order in which they came.
    index: HashMap<Arc<[u8]>, VecDeque<Place>>,
    rows: usize,
    chunk_bytes: usize,
}

/// Rows in succession, of which those before `start` are over.
struct Chunk {
    batch: RecordBatch,
    bound: ArrayRef,
    keys: Vec<Key>,
    matched: Vec<bool>,
    start: usize,
}

impl Side {
    pub(crate) fn try_new(
        schema: &SchemaRef,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        nulls_match: bool,
        bound: &Arc<dyn PhysicalExpr>,
        progress: &Arc<dyn PhysicalExpr>,
    ) -> Result<Self> {
        let fields = keys.iter().map(|key| Ok(SortField::new(key.data_type(schema)?))).collect::<Result<_>>()?;
        Ok(Self {
            schema: schema.clone(),
            keys,
            converter: RowConverter::new(fields)?,
            nulls_match,
            bound: bound.clone(),
            progress: progress.clone(),
            horizon: None,
            delivers_unmatched: false,
            ended: false,
            chunks: VecDeque::new(),
            dropped_chunks: 0,
            index: HashMap::new(),
            rows: 0,
            chunk_bytes: 0,
        })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows are kept.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.chunk_bytes + self.rows * INDEX_BYTES
    }

    /// The keys of each row.
    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<Vec<Key>> {
        let columns = self.keys.iter().map(|key| key.evaluate(batch)?.into_array(batch.num_rows()));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let nulls = columns.iter().fold(None, |nulls: Option<NullBuffer>, column| {
            NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
        });
        let matchable = |row: usize| self.nulls_match || nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let rows = self.converter.convert_columns(&columns)?;
        Ok(rows.iter().enumerate().map(|(row, key)| matchable(row).then(|| Arc::from(key.as_ref()))).collect())
    }

    /// How far this side is, with the last row of a batch.
    pub(crate) fn progress(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let last = batch.slice(batch.num_rows() - 1, 1);
        self.progress.evaluate(&last)?.into_array(1)
    }

    /// Pairs of equal keys: rows of the one who asks, and places here.
    pub(crate) fn candidates(&self, keys: &[Key]) -> (Vec<u32>, Vec<Place>) {
        let places = |key: &Key| key.as_ref().and_then(|key| self.index.get(key)).into_iter().flatten().copied();
        (0u32..).zip(keys).flat_map(|(row, key)| places(key).map(move |place| (row, place))).unzip()
    }

    /// Notes that a row has found a partner; whether it is its first.
    pub(crate) fn first_match(&mut self, place: Place) -> bool {
        let chunk = (place.chunk - self.dropped_chunks) as usize;
        self.chunks.get_mut(chunk).is_some_and(|chunk| !std::mem::replace(&mut chunk.matched[place.row], true))
    }

    /// The values of a column in these places.
    pub(crate) fn column(&self, column: usize, places: &[Place]) -> Result<ArrayRef> {
        let mut chunks: Vec<_> = places.iter().map(|place| place.chunk).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let arrays = chunks.iter().map(|chunk| &self.chunks[(chunk - self.dropped_chunks) as usize]);
        let arrays: Vec<&dyn Array> = arrays.map(|chunk| chunk.batch.column(column).as_ref()).collect();
        if arrays.is_empty() {
            return Ok(arrow::array::new_empty_array(self.schema.field(column).data_type()));
        }
        let indices = places.iter().map(|place| (chunks.partition_point(|chunk| *chunk < place.chunk), place.row));
        Ok(interleave(&arrays, &indices.collect::<Vec<_>>())?)
    }

    /// Keeps a batch, but for the rows that have no place in the order: they match nothing. Gives those of them that
    /// are to be delivered.
    pub(crate) fn keep(
        &mut self,
        batch: &RecordBatch,
        matched: Vec<bool>,
        keys: Vec<Key>,
    ) -> Result<Option<RecordBatch>> {
        let bound = self.bound.evaluate(batch)?.into_array(batch.num_rows())?;
        if bound.logical_null_count() == 0 {
            self.push(Chunk { batch: batch.clone(), bound, keys, matched, start: 0 })?;
            return Ok(None);
        }
        let placed = is_not_null(&bound)?;
        let mut flags = placed.values().iter();
        let keys = keys.into_iter().filter(|_| flags.next().unwrap_or(false)).collect();
        let mut flags = placed.values().iter();
        let matched = matched.into_iter().filter(|_| flags.next().unwrap_or(false)).collect();
        let (kept, bound) = (filter_record_batch(batch, &placed)?, filter(&bound, &placed)?);
        self.push(Chunk { batch: kept, bound, keys, matched, start: 0 })?;
        Ok(match self.delivers_unmatched {
            true => Some(filter_record_batch(batch, &not(&placed)?)?),
            false => None,
        })
    }

    fn push(&mut self, chunk: Chunk) -> Result<()> {
        let added = chunk.batch.num_rows();
        if added == 0 {
            return Ok(());
        }
        let keys = chunk.keys.clone();
        let row = match self.chunks.back_mut() {
            Some(last) if last.batch.num_rows() + added <= CHUNK_ROWS => {
                self.chunk_bytes -= last.batch.get_array_memory_size();
                let row = last.batch.num_rows();
                last.batch = concat_batches(&self.schema, [&last.batch, &chunk.batch])?;
                last.bound = concat(&[&last.bound, &chunk.bound])?;
                last.keys.extend(chunk.keys);
                last.matched.extend(chunk.matched);
                row
            }
            _ => {
                self.chunks.push_back(chunk);
                0
            }
        };
        self.chunk_bytes += self.chunks.back().map_or(0, |last| last.batch.get_array_memory_size());
        let chunk = self.dropped_chunks + self.chunks.len() as u64 - 1;
        for (row, key) in (row..).zip(keys) {
            if let Some(key) = key {
                self.index.entry(key).or_default().push_back(Place { chunk, row });
            }
        }
        self.rows += added;
        Ok(())
    }

    /// Lets go of the rows that are over, or of all; gives those that are to be delivered because they found no
    /// partner.
    pub(crate) fn drop_over(&mut self, all: bool) -> Result<Option<RecordBatch>> {
        let mut unmatched = Vec::new();
        while let Some(chunk) = self.chunks.front_mut() {
            let rows = chunk.batch.num_rows();
            let end = match &self.horizon {
                _ if all => rows,
                None => chunk.start,
                Some(horizon) => first_not_over(&chunk.bound, horizon, chunk.start)?,
            };
            for key in chunk.keys[chunk.start..end].iter().flatten() {
                if let Some(places) = self.index.get_mut(key) {
                    places.pop_front();
                    if places.is_empty() {
                        self.index.remove(key);
                    }
                }
            }
            if self.delivers_unmatched && end > chunk.start {
                let lonely: BooleanArray =
                    chunk.matched[chunk.start..end].iter().map(|matched| Some(!matched)).collect();
                unmatched.push(filter_record_batch(&chunk.batch.slice(chunk.start, end - chunk.start), &lonely)?);
            }
            self.rows -= end - chunk.start;
            chunk.start = end;
            if end < rows {
                break;
            }
            self.chunk_bytes -= chunk.batch.get_array_memory_size();
            self.chunks.pop_front();
            self.dropped_chunks += 1;
        }
        let unmatched: Vec<_> = unmatched.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        if unmatched.is_empty() { Ok(None) } else { Ok(Some(concat_batches(&self.schema, &unmatched)?)) }
    }
}

/// The first row, from `start`, whose bound the horizon has not passed.
fn first_not_over(bound: &ArrayRef, horizon: &ArrayRef, start: usize) -> Result<usize> {
    let compare = make_comparator(bound, horizon, SortOptions { descending: false, nulls_first: false })?;
    let (mut low, mut high) = (start, bound.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if compare(middle, 0).is_lt() { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}
