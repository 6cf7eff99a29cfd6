//! Results in parts that clients fetch side by side, in any order, each as often as they like.
//!
//! Only a result is cut whose parts have nothing to do with each other: rows of tables at rest, filtered and computed one
//! by one. What brings rows together (a sort, an aggregate, a join, a LIMIT) would run once for each part, or wait for
//! parts that nobody fetches; and a stream is one sequence of rows.

use std::fmt;
use std::sync::Arc;

use datafusion::common::ParamValues;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

use crate::root::QueryExec;
use crate::session::{Session, physical};
use crate::{Prepared, from_datafusion, parameters};

/// One part of a result.
#[derive(Debug, Clone)]
pub struct Part {
    plan: Arc<dyn ExecutionPlan>,
    partition: usize,
    context: Arc<TaskContext>,
}

impl Part {
    /// Its rows, as a query of its own.
    ///
    /// # Errors
    /// Those of opening it; all others come with the rows.
    pub fn rows(&self) -> couatl_core::Result<SendableRecordBatchStream> {
        self.plan.execute(self.partition, Arc::clone(&self.context)).map_err(from_datafusion)
    }
}

impl Session {
    /// The parts of a query's result, as many as the setting `couatl.result_partitions` says at most; none where it
    /// cannot be cut.
    ///
    /// # Errors
    /// Those of planning.
    pub async fn parts(&self, prepared: &Prepared, values: Option<ParamValues>) -> couatl_core::Result<Vec<Part>> {
        let wanted = self.wire_options().result_partitions;
        // Each part counts by itself, and knows nothing of the others.
        let limits = self.queries().gate.limits(self.caller().name().map(|name| &**name));
        let is_limited = limits.query_rows.is_some() || limits.query_bytes.is_some();
        if wanted < 2 || is_limited || prepared.is_update() || prepared.has_leading() {
            return Ok(Vec::new());
        }
        let values = values
            .map(|values| parameters::typed(values, &prepared.described.parameters, prepared.is_update()))
            .transpose()?;
        let session = self.fork();
        {
            let state = session.context().state_ref();
            let mut state = state.write();
            let options = state.config_mut().options_mut();
            options.execution.target_partitions = wanted;
            // What one part does not read must not have been read by another.
            options.execution.enable_file_stream_work_stealing = false;
            options.optimizer.enable_round_robin_repartition = false;
            options.optimizer.repartition_file_min_size = 0;
        }
        let (plan, context) = physical(session.data_frame(&prepared.last, values).await?).await?;
        let Some(query) = plan.downcast_ref::<QueryExec>() else { return Ok(Vec::new()) };
        let plan = query.uncoalesced().unwrap_or_else(|| Arc::clone(&plan));
        if !is_row_by_row(&plan) {
            return Ok(Vec::new());
        }
        let plan = cut(plan, wanted, context.session_config().options()).map_err(from_datafusion)?;
        let count = plan.output_partitioning().partition_count();
        if count < 2 {
            return Ok(Vec::new());
        }
        let part = |partition| Part { plan: Arc::clone(&plan), partition, context: Arc::clone(&context) };
        Ok((0..count).map(part).collect())
    }
}

/// Whether each partition of a plan is made of one partition of what it reads, row by row.
fn is_row_by_row(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let known = plan.is::<QueryExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<UnionExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<DataSourceExec>();
    known && plan.fetch().is_none() && plan.children().into_iter().all(is_row_by_row)
}

/// The query in as many partitions as it has, or as are wanted, where these are fewer.
fn cut(query: Arc<dyn ExecutionPlan>, wanted: usize, options: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
    let query = query.transform_up(|node| spread(node, wanted, options))?.data;
    let input = query.children().into_iter().next().cloned();
    match input {
        Some(input) if input.output_partitioning().partition_count() > wanted => {
            let grouped = vec![Arc::new(GroupedExec::new(input, wanted)) as _];
            query.replace_children(grouped, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
        }
        _ => Ok(query),
    }
}

/// A table in memory in more partitions. The planner leaves one whole that has fewer batches than it wants partitions.
fn spread(
    node: Arc<dyn ExecutionPlan>,
    wanted: usize,
    options: &ConfigOptions,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let table = node.downcast_ref::<DataSourceExec>();
    let batches = table.and_then(|table| table.data_source().downcast_ref::<MemorySourceConfig>());
    let Some(batches) = batches.map(|table| table.partitions().iter().map(Vec::len).sum::<usize>()) else {
        return Ok(Transformed::no(node));
    };
    Ok(match node.repartitioned(batches.min(wanted), options)? {
        Some(spread) => Transformed::yes(spread),
        None => Transformed::no(node),
    })
}

/// The rows of its input in fewer partitions, each of them several of the input's, one after the other.
#[derive(Debug)]
struct GroupedExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl GroupedExec {
    fn new(input: Arc<dyn ExecutionPlan>, groups: usize) -> Self {
        let properties = PlanProperties::clone(input.properties());
        let properties = Arc::new(properties.with_partitioning(Partitioning::UnknownPartitioning(groups)));
        Self { input, properties }
    }

    fn groups(&self) -> usize {
        self.properties.partitioning.partition_count()
    }
}

impl DisplayAs for GroupedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupedExec")
    }
}

impl ExecutionPlan for GroupedExec {
    fn name(&self) -> &str {
        "GroupedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0), self.groups())))
    }

    fn execute(&self, group: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = Arc::clone(&self.input);
        let partitions = input.output_partitioning().partition_count();
        let first = |group: usize| group * partitions / self.groups();
        let rows = stream::iter(first(group)..first(group + 1))
            .map(move |partition| input.execute(partition, Arc::clone(&context)))
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
