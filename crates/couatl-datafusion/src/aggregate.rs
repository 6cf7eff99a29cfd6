//! An aggregate of Python, as DataFusion calls it: an object for each group, which lives where the Python does. What is
//! here knows its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::{and, filter, prep_null_mask_filter};
use arrow::datatypes::{DataType, Field, FieldRef};
use couatl_core::{Call, Error, FunctionDefinition};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, Signature};

use crate::calling::{Callee, Opened};
use crate::into_datafusion;
use crate::scalar::{check_arguments, returned, signature, stored, without_nulls};

/// About what the object of a group takes, in bytes.
const GROUP_BYTES: usize = 512;

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct PythonAggregate {
    callee: Callee,
    signature: Signature,
}

impl PythonAggregate {
    pub(crate) fn new(callee: Callee) -> Self {
        let signature = signature(&callee.defined.definition);
        Self { callee, signature }
    }

    pub(crate) fn callee(&self) -> &Callee {
        &self.callee
    }

    fn groups(&self, arguments: &AccumulatorArgs<'_>) -> Result<Groups> {
        if arguments.is_distinct {
            return Err(into_datafusion(Error::unsupported(format!(
                "function '{}' is an aggregate in Python, for which DISTINCT is not offered beside other aggregates: \
                 select the distinct rows in a subquery",
                self.callee.name()
            ))));
        }
        Ok(Groups::new(self.callee.clone()))
    }
}

impl AggregateUDFImpl for PythonAggregate {
    fn name(&self) -> &str {
        self.callee.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.callee.defined.documentation)
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(returned(&self.callee.defined.definition).data_type().clone())
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        check_arguments(&self.callee.defined.definition, arguments)?;
        Ok(Arc::new(returned(&self.callee.defined.definition)))
    }

    fn is_nullable(&self) -> bool {
        returned(&self.callee.defined.definition).is_nullable()
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let state = Field::new(format!("{}[state]", arguments.name), DataType::Binary, true);
        Ok([Arc::new(state)].into_iter().chain(arguments.ordering_fields.to_vec()).collect())
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OneGroup(self.groups(&arguments)?)))
    }

    fn create_sliding_accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Err(into_datafusion(Error::unsupported(format!(
            "function '{}' is an aggregate in Python, which takes rows and gives none back: a window must begin at UNBOUNDED \
             PRECEDING",
            self.callee.name()
        ))))
    }

    /// What it gives of no rows.
    fn default_value(&self, _data_type: &DataType) -> Result<ScalarValue> {
        OneGroup(Groups::new(self.callee.clone())).evaluate()
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&arguments)?))
    }
}

/// A condition that is false where it is unknown.
fn without_unknown(condition: &BooleanArray) -> BooleanArray {
    if condition.null_count() > 0 { prep_null_mask_filter(condition) } else { condition.clone() }
}

/// An aggregation: its groups are where the Python is.
#[derive(Debug)]
struct Groups {
    callee: Callee,
    /// Its number, of all there are.
    number: u64,
    opened: Option<Opened>,
    count: usize,
}

impl Groups {
    fn new(callee: Callee) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { callee, number: NEXT.fetch_add(1, Relaxed), opened: None, count: 0 }
    }

    fn definition(&self) -> &FunctionDefinition {
        &self.callee.defined.definition
    }

    fn call(&mut self, call: Call) -> Result<ArrayRef> {
        let opened = match &self.opened {
            Some(opened) => opened,
            None => self.opened.insert(self.callee.open()?),
        };
        opened.call(call)
    }

    /// Rows for their groups, of those that a condition takes.
    fn process(&mut self, columns: Vec<ArrayRef>, groups: &[usize], taken: Option<&BooleanArray>) -> Result<()> {
        let columns = stored(self.definition(), columns)?;
        let whole = without_nulls(self.definition(), &columns);
        let taken = match (taken.map(without_unknown), whole) {
            (Some(taken), Some(whole)) => Some(and(&taken, &whole)?),
            (taken, whole) => taken.or(whole),
        };
        let (columns, groups) = match taken {
            None => (columns, groups.to_vec()),
            Some(taken) => {
                let columns = columns.iter().map(|column| filter(column, &taken));
                let groups = groups.iter().zip(taken.values().iter()).filter(|(_, taken)| *taken);
                (columns.collect::<std::result::Result<_, _>>()?, groups.map(|(group, _)| *group).collect())
            }
        };
        if groups.is_empty() {
            return Ok(());
        }
        let (aggregation, count) = (self.number, self.count);
        self.call(Call::Process { aggregation, arguments: columns, groups, count }).map(drop)
    }

    /// The states of parts of their groups.
    fn merge(&mut self, states: &[ArrayRef], groups: Vec<usize>) -> Result<()> {
        let (aggregation, count) = (self.number, self.count);
        self.call(Call::Merge { aggregation, states: Arc::clone(&states[0]), groups, count }).map(drop)
    }

    fn values(&mut self, first: usize, keeps: bool) -> Result<ArrayRef> {
        let values = self.call(Call::Values { aggregation: self.number, first, keeps })?;
        if !keeps {
            self.count -= first;
        }
        Ok(values)
    }

    fn states(&mut self, first: usize) -> Result<ArrayRef> {
        let states = self.call(Call::States { aggregation: self.number, first })?;
        self.count -= first;
        Ok(states)
    }

    fn first(&self, emitted: EmitTo) -> usize {
        match emitted {
            EmitTo::All => self.count,
            EmitTo::First(first) => first,
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        if let Some(opened) = &self.opened {
            opened.forget(self.number);
        }
    }
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        taken: Option<&BooleanArray>,
        count: usize,
    ) -> Result<()> {
        self.count = count;
        self.process(values.to_vec(), groups, taken)
    }

    fn evaluate(&mut self, emitted: EmitTo) -> Result<ArrayRef> {
        self.values(self.first(emitted), false)
    }

    fn state(&mut self, emitted: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.states(self.first(emitted))?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], count: usize) -> Result<()> {
        self.count = count;
        self.merge(states, groups.to_vec())
    }

    fn convert_to_state(&self, values: &[ArrayRef], taken: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, Array::len);
        let mut groups = Self::new(self.callee.clone());
        groups.count = rows;
        groups.process(values.to_vec(), &(0..rows).collect::<Vec<_>>(), taken)?;
        Ok(vec![groups.states(rows)?])
    }

    fn size(&self) -> usize {
        self.count * GROUP_BYTES
    }
}

/// An aggregation with one group.
#[derive(Debug)]
struct OneGroup(Groups);

impl OneGroup {
    /// The aggregation, whose group is there.
    fn one(&mut self) -> &mut Groups {
        self.0.count = 1;
        &mut self.0
    }
}

impl Accumulator for OneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, Array::len);
        self.one().process(values.to_vec(), &vec![0; rows], None)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.one().values(1, true)?, 0)
    }

    fn size(&self) -> usize {
        GROUP_BYTES
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(&self.one().states(1)?, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.one().merge(states, vec![0; states[0].len()])
    }
}
