//! One batch of the stream, on its way through the join: which rows at rest it meets, and what is said of that.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::{JoinSide, NullEquality, internal_err};
use datafusion::error::Result;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinKeyComparator};
use datafusion::physical_plan::metrics::Time;

use super::resting::{Resting, evaluate, hashes, unmatchable};
use super::{Answer, Matching};

/// It stops wherever a part is full, be it between two matches of a row, and goes on from there.
pub(super) struct Probing {
    matching: Arc<Matching>,
    resting: Arc<Resting>,
    batch: RecordBatch,
    keys: Option<Keys>,
    part_rows: usize,
    time: Time,
    /// The row that comes next, what it is to be compared with next, and whether it has met a match.
    row: usize,
    next: Candidate,
    matched: bool,
}

struct Keys {
    hashes: Vec<u64>,
    unmatchable: Option<NullBuffer>,
    comparator: JoinKeyComparator,
}

/// What a row is compared with next.
#[derive(Debug, Clone, Copy)]
enum Candidate {
    /// A position in the index.
    Chain(u32),
    /// One of the rows whose keys are null: NOT IN cannot tell them from any.
    Null(usize),
    /// This row, then all after it.
    All(u32),
    None,
}

/// Rows at rest, and the rows of the batch that they were found for.
#[derive(Default)]
struct Pairs {
    resting: Vec<u32>,
    stream: Vec<u32>,
}

/// What leaves: rows of the batch, each with a row at rest, or with whether there is one.
#[derive(Default)]
struct Part {
    stream: Vec<u32>,
    resting: Vec<Option<u32>>,
    marks: Vec<bool>,
}

impl Probing {
    pub(super) fn try_new(
        matching: &Arc<Matching>,
        resting: &Arc<Resting>,
        batch: RecordBatch,
        part_rows: usize,
        time: &Time,
    ) -> Result<Self> {
        let _timer = time.timer();
        let keys = match &resting.index {
            None => None,
            Some(index) => {
                let keys = evaluate(&matching.stream_keys, &batch)?;
                let options = vec![SortOptions::default(); keys.len()];
                // Nulls that are equal to nothing do not get as far as this.
                let nulls = NullEquality::NullEqualsNull;
                Some(Keys {
                    hashes: hashes(&keys, batch.num_rows())?,
                    unmatchable: unmatchable(&keys, matching.null_equality),
                    comparator: JoinKeyComparator::new(&index.keys, &keys, &options, nulls)?,
                })
            }
        };
        let (matching, resting, time) = (matching.clone(), resting.clone(), time.clone());
        let part_rows = part_rows.max(1);
        let next = Candidate::None;
        let mut probing = Self { matching, resting, batch, keys, part_rows, time, row: 0, next, matched: false };
        probing.begin(0);
        Ok(probing)
    }

    /// The next part, which may be empty; none when all has been said.
    pub(super) fn next_part(&mut self) -> Result<Option<RecordBatch>> {
        if self.row == self.batch.num_rows() {
            return Ok(None);
        }
        let time = self.time.clone();
        let _timer = time.timer();
        let from = self.row;
        let pairs = self.pairs();
        let holds = self.holds(&pairs)?;
        let part = self.answer(from, &pairs, holds.as_ref());
        self.output(part).map(Some)
    }

    fn begin(&mut self, row: usize) {
        self.row = row;
        self.next = match &self.keys {
            _ if row == self.batch.num_rows() => Candidate::None,
            None => Candidate::All(0),
            Some(keys) if keys.unmatchable.as_ref().is_some_and(|nulls| nulls.is_null(row)) => {
                if self.matching.null_aware { Candidate::All(0) } else { Candidate::None }
            }
            Some(keys) => self
                .resting
                .index
                .as_ref()
                .map_or(Candidate::None, |index| Candidate::Chain(index.first(keys.hashes[row]))),
        };
    }

    /// As many pairs of equal keys as make a part, and the rows that are through with them.
    fn pairs(&mut self) -> Pairs {
        let first_suffices = !self.matching.answer.shows_matches();
        if first_suffices && self.matched {
            self.next = Candidate::None;
        }
        let from = self.row;
        let mut pairs = Pairs::default();
        while self.row < self.batch.num_rows() && pairs.stream.len() + (self.row - from) < self.part_rows {
            let Some(resting) = self.next_candidate() else {
                self.begin(self.row + 1);
                continue;
            };
            pairs.resting.push(resting);
            pairs.stream.push(self.row as u32);
            if first_suffices && self.matching.filter.is_none() {
                self.next = Candidate::None;
            }
        }
        pairs
    }

    fn next_candidate(&mut self) -> Option<u32> {
        loop {
            match (self.next, &self.resting.index, &self.keys) {
                (Candidate::All(row), ..) if (row as usize) < self.resting.batch.num_rows() => {
                    self.next = Candidate::All(row + 1);
                    return Some(row);
                }
                (Candidate::Chain(position), Some(index), Some(keys)) => match index.at(position) {
                    Some((row, hash, next)) => {
                        self.next = Candidate::Chain(next);
                        if hash == keys.hashes[self.row] && keys.comparator.is_equal(row as usize, self.row) {
                            return Some(row);
                        }
                    }
                    None if self.matching.null_aware => self.next = Candidate::Null(0),
                    None => return None,
                },
                (Candidate::Null(count), Some(index), _) => {
                    self.next = Candidate::Null(count + 1);
                    return index.nulls.get(count).copied();
                }
                _ => return None,
            }
        }
    }

    /// Which pairs satisfy the filter.
    fn holds(&self, pairs: &Pairs) -> Result<Option<BooleanArray>> {
        let Some(filter) = &self.matching.filter else { return Ok(None) };
        let (stream, resting) = (UInt32Array::from(pairs.stream.clone()), UInt32Array::from(pairs.resting.clone()));
        let batch = self.compose(filter.schema(), filter.column_indices(), &stream, &resting, None)?;
        let holds = filter.expression().evaluate(&batch)?.into_array(batch.num_rows())?;
        match holds.as_boolean_opt() {
            Some(holds) => Ok(Some(holds.clone())),
            None => internal_err!("a join's filter is not boolean"),
        }
    }

    /// What is said of the rows since `from`: of those that are through with their pairs, and of the one that is not.
    fn answer(&mut self, from: usize, pairs: &Pairs, holds: Option<&BooleanArray>) -> Part {
        let holds = |pair: usize| holds.is_none_or(|holds| holds.is_valid(pair) && holds.value(pair));
        let answer = self.matching.answer;
        let mut part = Part::default();
        let mut pair = 0;
        for row in from..=self.row.min(self.batch.num_rows() - 1) {
            let mut matched = std::mem::take(&mut self.matched);
            while pair < pairs.stream.len() && pairs.stream[pair] as usize == row {
                if holds(pair) {
                    match answer {
                        Answer::Matches | Answer::MatchesOrNulls => part.pair(row, Some(pairs.resting[pair])),
                        Answer::IfMatched if !matched => part.stream.push(row as u32),
                        _ => {}
                    }
                    matched = true;
                }
                pair += 1;
            }
            if row == self.row {
                self.matched = matched;
                break;
            }
            match answer {
                Answer::MatchesOrNulls if !matched => part.pair(row, None),
                Answer::IfUnmatched if !matched => part.stream.push(row as u32),
                Answer::Marked => {
                    part.stream.push(row as u32);
                    part.marks.push(matched);
                }
                _ => {}
            }
        }
        part
    }

    fn output(&self, part: Part) -> Result<RecordBatch> {
        let marks = (self.matching.answer == Answer::Marked).then(|| Arc::new(BooleanArray::from(part.marks)) as _);
        let (stream, resting) = (UInt32Array::from(part.stream), UInt32Array::from(part.resting));
        self.compose(&self.matching.schema, &self.matching.columns, &stream, &resting, marks)
    }

    fn compose(
        &self,
        schema: &SchemaRef,
        columns: &[ColumnIndex],
        stream: &UInt32Array,
        resting: &UInt32Array,
        marks: Option<ArrayRef>,
    ) -> Result<RecordBatch> {
        let run = run(stream);
        let column = |from: &ColumnIndex| -> Result<ArrayRef> {
            if from.side == JoinSide::None {
                return match &marks {
                    Some(marks) => Ok(marks.clone()),
                    None => internal_err!("a join that marks nothing has no mark"),
                };
            }
            if from.side == self.matching.stream {
                let values = self.batch.column(from.index);
                return Ok(match run {
                    Some(first) => values.slice(first, stream.len()),
                    None => take(values, stream, None)?,
                });
            }
            let values = self.resting.batch.column(from.index);
            if resting.null_count() == resting.len() {
                return Ok(new_null_array(values.data_type(), resting.len()));
            }
            Ok(take(values, resting, None)?)
        };
        let columns = columns.iter().map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(stream.len()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
    }
}

impl Part {
    fn pair(&mut self, stream: usize, resting: Option<u32>) {
        self.stream.push(stream as u32);
        self.resting.push(resting);
    }
}

/// The first of rows that follow each other: they need no copy.
fn run(rows: &UInt32Array) -> Option<usize> {
    let rows = rows.values();
    let follow = rows.windows(2).all(|pair| pair[1] == pair[0] + 1);
    rows.first().filter(|_| follow).map(|first| *first as usize)
}
