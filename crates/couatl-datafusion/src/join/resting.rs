//! The side of a join that is at rest: all its rows, found by the hashes of their keys.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::common::{NullEquality, internal_err, resources_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::PhysicalExprRef;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, Gauge, MetricBuilder, Time};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;

use super::Matching;

/// What collecting costs.
pub(super) struct BuildMetrics {
    rows: Count,
    time: Time,
    memory: Gauge,
}

impl BuildMetrics {
    pub(super) fn new(metrics: &ExecutionPlanMetricsSet) -> Self {
        Self {
            rows: MetricBuilder::new(metrics).counter("build_input_rows", 0),
            time: MetricBuilder::new(metrics).subset_time("build_time", 0),
            memory: MetricBuilder::new(metrics).gauge("build_mem_used", 0),
        }
    }
}

/// The rows, in the order in which they came.
pub(super) struct Resting {
    pub(super) batch: RecordBatch,
    /// None where each row is compared with all.
    pub(super) index: Option<Index>,
    _memory: MemoryReservation,
}

impl Resting {
    pub(super) fn is_empty(&self) -> bool {
        self.batch.num_rows() == 0
    }
}

/// Reads all of it.
pub(super) async fn collect(
    resting: &Arc<dyn ExecutionPlan>,
    matching: &Matching,
    context: Arc<TaskContext>,
    metrics: BuildMetrics,
) -> Result<Resting> {
    let partitions = resting.output_partitioning().partition_count();
    if partitions > 1 {
        return internal_err!("the side of a join that is at rest comes in one partition, not in {partitions}");
    }
    let memory = MemoryConsumer::new("PromptJoinExec").register(context.memory_pool());
    let mut input = resting.execute(0, context)?;
    let mut batches = Vec::new();
    while let Some(batch) = input.next().await {
        let batch = batch?;
        memory.try_grow(get_record_batch_memory_size(&batch))?;
        metrics.rows.add(batch.num_rows());
        batches.push(batch);
    }
    drop(input);
    let timer = metrics.time.timer();
    let batch = concat_batches(&resting.schema(), &batches)?;
    let index = match matching.resting_keys.is_empty() {
        true => None,
        false => {
            memory.try_grow(Index::bytes(batch.num_rows()))?;
            Some(Index::try_new(evaluate(&matching.resting_keys, &batch)?, batch.num_rows(), matching.null_equality)?)
        }
    };
    timer.done();
    metrics.memory.set(memory.size());
    Ok(Resting { batch, index, _memory: memory })
}

/// Where rows of a hash are: each bucket starts a chain, in the order of the rows. Positions are one more than the row;
/// zero ends a chain.
pub(super) struct Index {
    pub(super) keys: Vec<ArrayRef>,
    hashes: Vec<u64>,
    buckets: Vec<u32>,
    next: Vec<u32>,
    /// Rows with a null among their keys, where nulls are equal to nothing.
    pub(super) nulls: Vec<u32>,
}

impl Index {
    fn try_new(keys: Vec<ArrayRef>, rows: usize, null_equality: NullEquality) -> Result<Self> {
        let count = u32::try_from(rows).ok().filter(|count| *count < u32::MAX);
        let Some(count) = count else {
            return Err(resources_datafusion_err!("a join takes fewer than 2^32 rows of its side at rest, not {rows}"));
        };
        let hashes = hashes(&keys, rows)?;
        let unmatchable = unmatchable(&keys, null_equality);
        let mut index =
            Self { keys, hashes, buckets: vec![0; rows.next_power_of_two()], next: vec![0; rows], nulls: Vec::new() };
        // From the last one, so that each chain begins with its first row.
        for row in (0..count).rev() {
            if unmatchable.as_ref().is_some_and(|nulls| nulls.is_null(row as usize)) {
                index.nulls.push(row);
                continue;
            }
            let bucket = index.bucket(index.hashes[row as usize]);
            index.next[row as usize] = std::mem::replace(&mut index.buckets[bucket], row + 1);
        }
        index.nulls.reverse();
        Ok(index)
    }

    fn bytes(rows: usize) -> usize {
        rows * (size_of::<u64>() + size_of::<u32>()) + rows.next_power_of_two() * size_of::<u32>()
    }

    fn bucket(&self, hash: u64) -> usize {
        // The length is a power of two; both halves of the hash count.
        (hash ^ (hash >> 32)) as usize & (self.buckets.len() - 1)
    }

    /// The position of the first row that may have this hash.
    pub(super) fn first(&self, hash: u64) -> u32 {
        self.buckets[self.bucket(hash)]
    }

    /// The row at a position, its hash, and the position after it.
    pub(super) fn at(&self, position: u32) -> Option<(u32, u64, u32)> {
        let row = position.checked_sub(1)?;
        Some((row, self.hashes[row as usize], self.next[row as usize]))
    }
}

/// The values of keys, of comparable types: a dictionary's are its values.
pub(super) fn evaluate(keys: &[PhysicalExprRef], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let plain = |key: &PhysicalExprRef| {
        let values = key.evaluate(batch)?.into_array(batch.num_rows())?;
        match values.data_type() {
            DataType::Dictionary(_, inner) => Ok(cast(&values, inner)?),
            _ => Ok(values),
        }
    };
    keys.iter().map(plain).collect()
}

pub(super) fn hashes(keys: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(keys, &RandomState::default(), &mut hashes)?;
    Ok(hashes)
}

/// Rows of which no other row is an equal, as nulls; none where there is no such row.
pub(super) fn unmatchable(keys: &[ArrayRef], null_equality: NullEquality) -> Option<NullBuffer> {
    match null_equality {
        NullEquality::NullEqualsNull => None,
        NullEquality::NullEqualsNothing => {
            let nulls: Vec<_> = keys.iter().map(|key| key.logical_nulls()).collect();
            NullBuffer::union_many(nulls.iter().map(Option::as_ref)).filter(|nulls| nulls.null_count() > 0)
        }
    }
}
