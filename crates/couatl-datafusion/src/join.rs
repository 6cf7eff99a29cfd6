//! A join of a stream with what is at rest, that keeps no row back.
//!
//! DataFusion's joins gather their rows into full batches and do not let go of them while their input is idle. This one
//! collects the side at rest once, and then answers each batch of the stream with what it has to say about it, at once.
//!
//! ```text
//!   side at rest ──> Resting (all of it: one batch, and its rows by the hashes of their keys)
//!                       │
//!   stream ── batch ──> Probing: pairs, residual filter, answers ──> parts of at most batch_size rows
//! ```
//!
//! The stream may be on either side of the SQL. Only kinds of joins whose rows are known when a row of the stream is
//! there can be answered so: those that speak of rows at rest that match nothing wait for the last row.

mod probing;
mod resting;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinSide, JoinType, NullEquality, exec_datafusion_err, plan_err, project_schema};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::equivalence::{ProjectionMapping, join_equivalence_properties};
use datafusion::physical_expr::{PhysicalExpr, PhysicalExprRef};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter, build_join_schema};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::projection::{EmbeddedProjection, ProjectionExec, try_embed_projection};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements,
    Partitioning, PlanProperties, SendableRecordBatchStream, apply_expression_roots,
};
use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use self::probing::Probing;
use self::resting::Resting;
use crate::scan::limited;

/// What a join computes, whoever computes it.
#[derive(Debug, Clone)]
pub(crate) struct JoinDefinition {
    pub(crate) join_type: JoinType,
    /// Equal keys, of the left and of the right; none where each row is compared with all.
    pub(crate) on: Vec<(PhysicalExprRef, PhysicalExprRef)>,
    /// What a pair must satisfy besides.
    pub(crate) filter: Option<JoinFilter>,
    pub(crate) null_equality: NullEquality,
    /// NOT IN: a null is equal to nothing, and different from nothing.
    pub(crate) null_aware: bool,
}

/// What a row of the stream is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Itself with each match.
    Matches,
    /// Itself with each match, or with nulls.
    MatchesOrNulls,
    /// Itself, where there is a match.
    IfMatched,
    /// Itself, where there is none.
    IfUnmatched,
    /// Itself, and whether there is a match.
    Marked,
}

impl Answer {
    /// What a kind of join says of a row of that side; nothing if it has to wait for the last of them.
    pub(crate) fn of(join_type: JoinType, stream: JoinSide) -> Option<Self> {
        match (join_type, stream) {
            (JoinType::Inner, JoinSide::Left | JoinSide::Right) => Some(Self::Matches),
            (JoinType::Left, JoinSide::Left) | (JoinType::Right, JoinSide::Right) => Some(Self::MatchesOrNulls),
            (JoinType::LeftSemi, JoinSide::Left) | (JoinType::RightSemi, JoinSide::Right) => Some(Self::IfMatched),
            (JoinType::LeftAnti, JoinSide::Left) | (JoinType::RightAnti, JoinSide::Right) => Some(Self::IfUnmatched),
            (JoinType::LeftMark, JoinSide::Left) | (JoinType::RightMark, JoinSide::Right) => Some(Self::Marked),
            _ => None,
        }
    }

    /// Whether rows at rest are in it.
    fn shows_matches(self) -> bool {
        matches!(self, Self::Matches | Self::MatchesOrNulls)
    }
}

/// All that answering a batch needs to know.
#[derive(Debug)]
struct Matching {
    answer: Answer,
    /// The keys of the stream, and those of the side at rest.
    stream_keys: Vec<PhysicalExprRef>,
    resting_keys: Vec<PhysicalExprRef>,
    stream: JoinSide,
    filter: Option<JoinFilter>,
    null_equality: NullEquality,
    null_aware: bool,
    /// Where each column of the output is from.
    columns: Vec<ColumnIndex>,
    schema: SchemaRef,
}

/// The side at rest, on its way; errors are shared between partitions, too.
type Collecting = BoxFuture<'static, Result<Arc<Resting>, Arc<DataFusionError>>>;

/// The join. Partitions of the stream share the side at rest.
pub(crate) struct PromptJoinExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    stream: JoinSide,
    definition: JoinDefinition,
    projection: Option<Vec<usize>>,
    fetch: Option<usize>,
    matching: Arc<Matching>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    /// Held for the partitions that have not begun: a query that was left holds nothing.
    waiting: Mutex<Option<(Shared<Collecting>, usize)>>,
}

impl PromptJoinExec {
    /// `stream` is the side whose rows are answered; the other one is collected.
    pub(crate) fn try_new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        stream: JoinSide,
        definition: JoinDefinition,
        projection: Option<Vec<usize>>,
        fetch: Option<usize>,
    ) -> Result<Self> {
        let Some(answer) = Answer::of(definition.join_type, stream) else {
            return plan_err!("a {} join cannot answer rows of its {stream} side one by one", definition.join_type);
        };
        let (schema, columns) = build_join_schema(&left.schema(), &right.schema(), &definition.join_type);
        let all = Arc::new(schema);
        let schema = project_schema(&all, projection.as_ref())?;
        let columns = match &projection {
            Some(projection) => projection.iter().map(|index| columns[*index].clone()).collect(),
            None => columns,
        };
        let (left_keys, right_keys) = definition.on.iter().cloned().unzip();
        let (stream_keys, resting_keys) =
            if stream == JoinSide::Left { (left_keys, right_keys) } else { (right_keys, left_keys) };
        let matching = Matching {
            answer,
            stream_keys,
            resting_keys,
            stream,
            filter: definition.filter.clone(),
            null_equality: definition.null_equality,
            null_aware: definition.null_aware,
            columns,
            schema,
        };
        let properties = properties(&left, &right, stream, &definition, &all, projection.as_deref(), fetch)?;
        Ok(Self {
            left,
            right,
            stream,
            definition,
            projection,
            fetch,
            matching: Arc::new(matching),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            waiting: Mutex::default(),
        })
    }

    /// The side whose rows are answered, then the one that is collected.
    fn sides(&self) -> (&Arc<dyn ExecutionPlan>, &Arc<dyn ExecutionPlan>) {
        if self.stream == JoinSide::Left { (&self.left, &self.right) } else { (&self.right, &self.left) }
    }

    /// The side at rest, for one partition: all of an execution wait for the same.
    fn collected(&self, context: &Arc<TaskContext>) -> Shared<Collecting> {
        let mut waiting = self.waiting.lock();
        if let Some((shared, partitions)) = waiting.take() {
            if partitions > 1 {
                *waiting = Some((shared.clone(), partitions - 1));
            }
            return shared;
        }
        let (matching, resting) = (self.matching.clone(), self.sides().1.clone());
        let (metrics, context) = (resting::BuildMetrics::new(&self.metrics), context.clone());
        let collected = async move { resting::collect(&resting, &matching, context, metrics).await };
        let shared = collected.map(|collected| collected.map(Arc::new).map_err(Arc::new)).boxed().shared();
        let others = self.properties.output_partitioning().partition_count().saturating_sub(1);
        *waiting = (others > 0).then(|| (shared.clone(), others));
        shared
    }

    /// The same join, of these parts.
    fn changed(&self, projection: Option<Vec<usize>>, fetch: Option<usize>) -> Result<Self> {
        let (left, right) = (self.left.clone(), self.right.clone());
        Self::try_new(left, right, self.stream, self.definition.clone(), projection, fetch)
    }
}

fn properties(
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
    stream: JoinSide,
    definition: &JoinDefinition,
    schema: &SchemaRef,
    projection: Option<&[usize]>,
    fetch: Option<usize>,
) -> Result<PlanProperties> {
    let mut equivalence = join_equivalence_properties(
        left.equivalence_properties().clone(),
        right.equivalence_properties().clone(),
        &definition.join_type,
        schema.clone(),
        &order_kept(stream),
        Some(stream),
        &definition.on,
    )?;
    if let Some(projection) = projection {
        let mapping = ProjectionMapping::from_indices(projection, schema)?;
        equivalence = equivalence.project(&mapping, Arc::new(schema.project(projection)?));
    }
    let (stream, resting) = if stream == JoinSide::Left { (left, right) } else { (right, left) };
    let partitioning = Partitioning::UnknownPartitioning(stream.output_partitioning().partition_count());
    let emission = if resting.boundedness().is_unbounded() { EmissionType::Final } else { stream.pipeline_behavior() };
    let boundedness = match fetch {
        _ if resting.boundedness().is_unbounded() => resting.boundedness(),
        Some(_) => Boundedness::Bounded,
        None => stream.boundedness(),
    };
    Ok(PlanProperties::new(equivalence, partitioning, emission, boundedness))
}

fn order_kept(stream: JoinSide) -> [bool; 2] {
    [stream == JoinSide::Left, stream == JoinSide::Right]
}

impl fmt::Debug for PromptJoinExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptJoinExec")
            .field("left", &self.left)
            .field("right", &self.right)
            .field("stream", &self.stream)
            .field("definition", &self.definition)
            .finish_non_exhaustive()
    }
}

impl DisplayAs for PromptJoinExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let definition = &self.definition;
        let on: Vec<_> = definition.on.iter().map(|(left, right)| format!("({left}, {right})")).collect();
        let mut parts = vec![format!("stream={}", self.stream), format!("join_type={}", definition.join_type)];
        if !on.is_empty() {
            parts.push(format!("on=[{}]", on.join(", ")));
        }
        if let Some(filter) = &definition.filter {
            parts.push(format!("filter={}", filter.expression()));
        }
        if let Some(projection) = &self.projection {
            let fields = self.matching.schema.fields();
            let columns = fields.iter().zip(projection).map(|(field, index)| format!("{}@{index}", field.name()));
            parts.push(format!("projection=[{}]", columns.collect::<Vec<_>>().join(", ")));
        }
        if !definition.on.is_empty() && definition.null_equality == NullEquality::NullEqualsNull {
            parts.push("NullsEqual: true".into());
        }
        if let Some(fetch) = self.fetch {
            parts.push(format!("fetch={fetch}"));
        }
        if definition.null_aware {
            parts.push("null_aware".into());
        }
        match format {
            DisplayFormatType::TreeRender => f.write_str(&parts.join("\n")),
            _ => write!(f, "PromptJoinExec: {}", parts.join(", ")),
        }
    }
}

impl EmbeddedProjection for PromptJoinExec {
    fn with_projection(&self, projection: Option<Vec<usize>>) -> Result<Self> {
        let projection = match (projection, &self.projection) {
            (Some(outer), Some(inner)) => Some(outer.into_iter().map(|index| inner[index]).collect()),
            (Some(outer), None) => Some(outer),
            (None, inner) => inner.clone(),
        };
        self.changed(projection, self.fetch)
    }
}

impl ExecutionPlan for PromptJoinExec {
    fn name(&self) -> &str {
        "PromptJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let mut required = vec![Distribution::SinglePartition; 2];
        required[usize::from(self.stream == JoinSide::Right)] = Distribution::UnspecifiedDistribution;
        InputDistributionRequirements::new(required)
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false, false]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        order_kept(self.stream).to_vec()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let keys = self.definition.on.iter().flat_map(|(left, right)| [left.clone(), right.clone()]);
        let filter = self.definition.filter.iter().map(|filter| filter.expression().clone());
        apply_expression_roots(keys.chain(filter), f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [left, right] = <[_; 2]>::try_from(children)
            .map_err(|children| exec_datafusion_err!("a join has 2 inputs, not {}", children.len()))?;
        let definition = self.definition.clone();
        Ok(Arc::new(Self::try_new(left, right, self.stream, definition, self.projection.clone(), self.fetch)?))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(self.changed(self.projection.clone(), limit).ok()?))
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if self.projection.is_some() {
            return Ok(None);
        }
        try_embed_projection(projection, self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (matching, collected) = (self.matching.clone(), self.collected(&context));
        let stream = self.sides().0.clone();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let time = metrics.elapsed_compute().clone();
        let rows = stream::once(async move {
            let resting = collected.await.map_err(alone)?;
            if resting.is_empty() && matches!(matching.answer, Answer::Matches | Answer::IfMatched) {
                // Nothing will ever match: the stream is not even opened.
                return Ok::<_, DataFusionError>(stream::empty().boxed());
            }
            let batch_rows = context.session_config().batch_size();
            let input = stream.execute(partition, context)?;
            Ok(answers(input, move |batch| Probing::try_new(&matching, &resting, batch, batch_rows, &time)))
        });
        let rows = limited(rows.try_flatten(), self.fetch).map_ok(move |batch| batch.record_output(&metrics));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// The answers to each batch, before the next one is asked for.
fn answers(
    input: SendableRecordBatchStream,
    probe: impl Fn(RecordBatch) -> Result<Probing> + Send + 'static,
) -> BoxStream<'static, Result<RecordBatch>> {
    let state = (input, probe, None::<Probing>);
    let answers = stream::try_unfold(state, |(mut input, probe, mut probing)| async move {
        loop {
            if let Some(current) = &mut probing {
                while let Some(part) = current.next_part()? {
                    // A row that is compared with very many lets others run, and its own cancel be heard.
                    tokio::task::consume_budget().await;
                    if part.num_rows() > 0 {
                        return Ok(Some((part, (input, probe, probing))));
                    }
                }
            }
            match input.next().await {
                Some(batch) => probing = Some(probe(batch?)?),
                None => return Ok(None),
            }
        }
    });
    answers.boxed()
}

/// An error that nobody else waits for is itself again.
fn alone(error: Arc<DataFusionError>) -> DataFusionError {
    Arc::try_unwrap(error).unwrap_or_else(DataFusionError::Shared)
}
