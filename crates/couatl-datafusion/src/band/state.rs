//! What a join within a band computes: pairs, and rows that found no partner.
//!
//! It waits for nothing: [`super::join`] reads. What is kept is in [`super::side`].

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::SymmetricHashJoinExec;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter, build_join_schema};

use super::Band;
use super::side::{Place, Side};

/// Both sides of a join, and what it makes of their rows.
pub(crate) struct Joining {
    left: Side,
    right: Side,
    join_type: JoinType,
    filter: Option<JoinFilter>,
    schema: SchemaRef,
    columns: Vec<ColumnIndex>,
}

impl Joining {
    pub(crate) fn try_new(join: &SymmetricHashJoinExec, band: &Band) -> Result<Self> {
        use JoinType::{Full, Left, LeftAnti, Right, RightAnti};
        let kind = *join.join_type();
        let nulls_match = join.null_equality() == NullEquality::NullEqualsNull;
        let (left_keys, right_keys): (Vec<_>, Vec<_>) = join.on().iter().cloned().unzip();
        let (lower, upper) = (&band.lower, &band.upper);
        let (left_schema, right_schema) = (join.left().schema(), join.right().schema());
        let mut left = Side::try_new(&left_schema, left_keys, nulls_match, &lower.left, &upper.left)?;
        let mut right = Side::try_new(&right_schema, right_keys, nulls_match, &upper.right, &lower.right)?;
        left.delivers_unmatched = matches!(kind, Left | Full | LeftAnti);
        right.delivers_unmatched = matches!(kind, Right | Full | RightAnti);
        let (_, columns) = build_join_schema(&left_schema, &right_schema, &kind);
        Ok(Self { left, right, join_type: kind, filter: join.filter().cloned(), schema: join.schema(), columns })
    }

    /// Whether the next batch of a side may lead to anything. Never false for both before both have ended: a side that
    /// is not read has rows, and the other one has none.
    pub(crate) fn reads(&self, side: JoinSide) -> bool {
        let (own, other) = match side {
            JoinSide::Left => (&self.left, &self.right),
            _ => (&self.right, &self.left),
        };
        !own.ended && (other.rows() > 0 || other.ended || own.rows() == 0)
    }

    pub(crate) fn kept_rows(&self) -> usize {
        self.left.rows() + self.right.rows()
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.left.size_bytes() + self.right.size_bytes()
    }

    /// Takes a batch of a side, and gives what follows from it.
    pub(crate) fn arrived(&mut self, side: JoinSide, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let keys = self.side(side).keys(batch)?;
        let (rows, places) = self.side(side.negate()).candidates(&keys);
        let (rows, places) = self.passing(side, batch, rows, places)?;
        let mut matched = vec![false; batch.num_rows()];
        rows.iter().for_each(|row| matched[*row as usize] = true);
        let other = self.side(side.negate());
        let fresh: Vec<_> = places.iter().copied().filter(|place| other.first_match(*place)).collect();
        let mut out = match (self.join_type, side) {
            (JoinType::LeftAnti | JoinType::RightAnti, _) => Vec::new(),
            (JoinType::LeftSemi, JoinSide::Left) | (JoinType::RightSemi, JoinSide::Right) => {
                vec![filter_record_batch(batch, &matched.clone().into())?]
            }
            (JoinType::LeftSemi | JoinType::RightSemi, _) => {
                vec![self.assembled(&self.schema, &self.columns, fresh.len(), |index| {
                    self.other(side).column(index.index, &fresh)
                })?]
            }
            _ => vec![self.pairs(side, batch, &self.schema, &self.columns, &rows, &places)?],
        };
        let progress = self.side(side).progress(batch)?;
        self.side(side.negate()).horizon = Some(progress);
        let other_ended = self.side(side.negate()).ended;
        let own = self.side(side);
        let mut alone = vec![own.keep(batch, matched, keys)?, own.drop_over(other_ended)?];
        out.extend(self.alone(side, alone.drain(..))?);
        let over = self.side(side.negate()).drop_over(false)?;
        out.extend(self.alone(side.negate(), [over])?);
        out.retain(|batch| batch.num_rows() > 0);
        Ok(out)
    }

    /// Takes the end of a side: no row of the other side has anything left to wait for.
    pub(crate) fn ended(&mut self, side: JoinSide) -> Result<Vec<RecordBatch>> {
        self.side(side).ended = true;
        let over = self.side(side.negate()).drop_over(true)?;
        self.alone(side.negate(), [over])
    }

    fn side(&mut self, side: JoinSide) -> &mut Side {
        if side == JoinSide::Left { &mut self.left } else { &mut self.right }
    }

    fn other(&self, side: JoinSide) -> &Side {
        if side == JoinSide::Left { &self.right } else { &self.left }
    }

    /// Those candidates for which the rest of the condition holds.
    fn passing(
        &self,
        side: JoinSide,
        batch: &RecordBatch,
        rows: Vec<u32>,
        places: Vec<Place>,
    ) -> Result<(Vec<u32>, Vec<Place>)> {
        let Some(filter) = &self.filter else { return Ok((rows, places)) };
        if rows.is_empty() {
            return Ok((rows, places));
        }
        let pairs = self.pairs(side, batch, filter.schema(), filter.column_indices(), &rows, &places)?;
        let passes = filter.expression().evaluate(&pairs)?.into_array(pairs.num_rows())?;
        let Some(passes) = passes.as_boolean_opt() else {
            return Err(DataFusionError::Internal("a join's condition is not boolean".into()));
        };
        let holds = |index: &usize| passes.is_valid(*index) && passes.value(*index);
        Ok((0..rows.len()).filter(holds).map(|index| (rows[index], places[index])).unzip())
    }

    /// Rows of the batch next to rows of the other side.
    fn pairs(
        &self,
        side: JoinSide,
        batch: &RecordBatch,
        schema: &SchemaRef,
        columns: &[ColumnIndex],
        rows: &[u32],
        places: &[Place],
    ) -> Result<RecordBatch> {
        let indices = UInt32Array::from(rows.to_vec());
        self.assembled(schema, columns, rows.len(), |index| match index.side == side {
            true => Ok(take(batch.column(index.index), &indices, None)?),
            false => self.other(side).column(index.index, places),
        })
    }

    /// Rows of a side next to nothing.
    fn alone(
        &self,
        side: JoinSide,
        batches: impl IntoIterator<Item = Option<RecordBatch>>,
    ) -> Result<Vec<RecordBatch>> {
        let padded = |batch: RecordBatch| {
            self.assembled(&self.schema, &self.columns, batch.num_rows(), |index| match index.side == side {
                true => Ok(batch.column(index.index).clone()),
                false => {
                    let schema = self.other(side).schema();
                    Ok(new_null_array(schema.field(index.index).data_type(), batch.num_rows()))
                }
            })
        };
        batches.into_iter().flatten().map(padded).collect()
    }

    fn assembled(
        &self,
        schema: &SchemaRef,
        columns: &[ColumnIndex],
        rows: usize,
        column: impl Fn(&ColumnIndex) -> Result<ArrayRef>,
    ) -> Result<RecordBatch> {
        let columns = columns.iter().map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}
