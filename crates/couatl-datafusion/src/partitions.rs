//! Results in parts that clients fetch side by side, in any order, each as often as they like.
//!
//! Only a result is cut whose parts have nothing to do with each other: rows of tables at rest, filtered and computed one
//! by one. What brings rows together (a sort, an aggregate, a join, a LIMIT) would run once for each part, or wait for
//! parts that nobody fetches; and a stream is one sequence of rows.

use std::sync::Arc;

use couatl_core::Result;
use datafusion::common::ParamValues;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

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
    pub fn rows(&self) -> Result<SendableRecordBatchStream> {
        self.plan.execute(self.partition, Arc::clone(&self.context)).map_err(from_datafusion)
    }
}

impl Session {
    /// The parts of a query's result, as many as the setting `couatl.result_partitions` says at most; none where it
    /// cannot be cut.
    ///
    /// # Errors
    /// Those of planning.
    pub async fn parts(&self, prepared: &Prepared, values: Option<ParamValues>) -> Result<Vec<Part>> {
        let wanted = self.wire_options().result_partitions;
        if wanted < 2 || prepared.is_update() || prepared.has_leading() {
            return Ok(Vec::new());
        }
        let values = values.map(|values| parameters::typed(values, prepared)).transpose()?;
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
        let Some(plan) = plan.downcast_ref::<QueryExec>().and_then(QueryExec::uncoalesced) else {
            return Ok(Vec::new());
        };
        let count = plan.output_partitioning().partition_count();
        if count < 2 || !is_row_by_row(&plan) {
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
