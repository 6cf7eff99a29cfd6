//! Which side of a join is the stream whose rows are answered, and which is collected.
//!
//! What never ends must not be collected, nor what may not end: an `auto` stream says that it is bounded, and may be
//! endless all the same. What ends for certain, be it by a LIMIT, is collected before anything else is.

use std::sync::Arc;

use datafusion::common::{JoinSide, JoinType};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::join::Answer;
use crate::scan::StreamScanExec;

/// How long the rows of a plan go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Length {
    /// No stream is below.
    AtRest,
    /// A stream's rows, of which there is a last one.
    Ends,
    /// Those of an `auto` stream.
    Unknown,
    Endless,
}

impl Length {
    fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        if plan.boundedness().is_unbounded() {
            return Self::Endless;
        }
        if let Some(scan) = plan.downcast_ref::<StreamScanExec>() {
            return match (scan.is_streaming(), scan.fetch()) {
                (false, _) => Self::AtRest,
                (true, Some(_)) => Self::Ends,
                (true, None) => Self::Unknown,
            };
        }
        let longest = plan.children().into_iter().map(Self::of).max().unwrap_or(Self::AtRest);
        // What gives all at the end, like an aggregate, needs the end; probing it would make nothing prompt.
        let ends = plan.fetch().is_some() || plan.pipeline_behavior() == EmissionType::Final;
        if ends { longest.min(Self::Ends) } else { longest }
    }
}

/// The side to answer row by row; none where no stream is below, or the join has to wait for the last row of it.
pub(crate) fn stream_side(
    join_type: JoinType,
    left: &Arc<dyn ExecutionPlan>,
    right: &Arc<dyn ExecutionPlan>,
) -> Option<JoinSide> {
    let (left, right) = (Length::of(left), Length::of(right));
    let answers = |side: &JoinSide| Answer::of(join_type, *side).is_some();
    match left.cmp(&right) {
        // DataFusion would keep both, and drop what can meet no other row any more.
        _ if left.min(right) == Length::Endless => None,
        _ if left.max(right) == Length::AtRest => None,
        std::cmp::Ordering::Greater => Some(JoinSide::Left).filter(answers),
        std::cmp::Ordering::Less => Some(JoinSide::Right).filter(answers),
        // Either may be collected: DataFusion collects the left one.
        std::cmp::Ordering::Equal => [JoinSide::Right, JoinSide::Left].into_iter().find(answers),
    }
}
