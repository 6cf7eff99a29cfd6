//! Refuses what could never answer, and what would keep rows of an endless stream back, in one sentence.
//!
//! DataFusion has a check of its own, whose message prints the whole plan. This one comes just before it.

use std::sync::Arc;

use couatl_core::Error;
use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PiecewiseMergeJoinExec, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use crate::into_datafusion;
use crate::operators::kept_back;
use crate::scan::StreamScanExec;
use crate::sink::StreamSink;

/// The rule. It changes no plan.
#[derive(Debug)]
pub(crate) struct RefuseEndless;

impl PhysicalOptimizerRule for RefuseEndless {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        // From the root down, so that the last one found is the lowest: it is the reason, the others follow from it.
        let (mut never, mut late) = (None, None);
        // A window's rows are sorted first: it is the window that was asked for.
        let mut sort_of_window = None;
        plan.apply(|node| {
            let of_window = sort_of_window.take().is_some_and(|sort| Arc::ptr_eq(&sort, node));
            if node.is::<WindowAggExec>() || node.is::<BoundedWindowAggExec>() {
                sort_of_window = node.children().first().map(|input| Arc::clone(input));
            }
            if let Some(objection) = objection(node, of_window)
                && let streams = endless_streams(node)?
                && !streams.is_empty()
            {
                let refusal = if matches!(objection, Objection::KeepsBack { .. }) { &mut late } else { &mut never };
                *refusal = Some(objection.sentence(&streams));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        match never.or(late) {
            None => Ok(plan),
            Some(sentence) => Err(into_datafusion(Error::invalid_argument(sentence))),
        }
    }

    fn name(&self) -> &str {
        "refuse_endless"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What is wrong with an operator above an endless stream.
enum Objection {
    /// `who` would never answer: `why`.
    NeverAnswers { who: String, why: &'static str, way_out: Option<&'static str> },
    /// Its rows would be late.
    KeepsBack { operator: String, why: String },
}

impl Objection {
    fn sentence(self, streams: &[String]) -> String {
        let (plural, verb) = if streams.len() == 1 { ("stream", "has") } else { ("streams", "have") };
        let streams = streams.join(", ");
        match self {
            Self::NeverAnswers { who, why, way_out } => format!(
                "{who} would never answer: {why}, and the {plural} {streams} {verb} no end (mode 'streaming'); {}bound \
                 the rows with LIMIT in a subquery, or create the stream with mode 'auto' or 'batch' if its rows end",
                way_out.map_or_else(String::new, |way_out| format!("{way_out}; or "))
            ),
            Self::KeepsBack { operator, why } => format!(
                "operator {operator} above {plural} {streams} {why}; bound the rows with LIMIT in a subquery, or \
                 create the stream with mode 'auto' to take what comes"
            ),
        }
    }
}

const ONE_SIDE: &str = "it needs all rows of one of its sides";
const BAND: &str = "join streams that have order_by = 'ts' on equal keys AND a.ts BETWEEN b.ts - interval '1 minute' AND \
                    b.ts + interval '1 minute'";

fn objection(node: &Arc<dyn ExecutionPlan>, of_window: bool) -> Option<Objection> {
    let never = |who: &str, why, way_out| Some(Objection::NeverAnswers { who: who.to_owned(), why, way_out });
    // Those within a band have been replaced.
    if node.is::<SymmetricHashJoinExec>() {
        return never("this join", "it keeps the rows of both sides", Some(BAND));
    }
    let inputs = node.children();
    if !inputs.iter().any(|input| input.boundedness().is_unbounded()) {
        return None;
    }
    if let Some(join_type) = join_type(node) {
        return match join_type {
            JoinType::Inner => never("this join", ONE_SIDE, Some(BAND)),
            JoinType::Left | JoinType::Right | JoinType::Full => never(
                "this outer join",
                "it keeps rows of the other side that match nothing, which is known when all rows have come",
                Some("keep the rows of the stream instead"),
            ),
            _ => never("this IN, EXISTS or semi join", "it asks whether any of all rows matches", None),
        };
    }
    if node.downcast_ref::<ScalarSubqueryExec>().is_some() {
        let endless = inputs.iter().skip(1).any(|subquery| subquery.boundedness().is_unbounded());
        return if endless {
            never("a scalar subquery", "it is read to its end before the query begins", None)
        } else {
            None
        };
    }
    if let Some(write) = node.downcast_ref::<DataSinkExec>() {
        let ours = write.sink().downcast_ref::<StreamSink>().is_some();
        return if ours { None } else { never("this write", "what it writes is complete with the last row", None) };
    }
    let needs_all = match node.boundedness() {
        Boundedness::Bounded => false,
        Boundedness::Unbounded { requires_infinite_memory } => {
            requires_infinite_memory || node.pipeline_behavior() == EmissionType::Final
        }
    };
    if needs_all {
        let is_distinct =
            node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| aggregate.aggr_expr().is_empty());
        let (who, way_out) = match node.name() {
            name if of_window && name.starts_with("Sort") => (
                "a window function",
                Some(
                    "let it take the rows as they come, as OVER (PARTITION BY … ORDER BY ts) does where the stream has order_by = 'ts'",
                ),
            ),
            "AggregateExec" if is_distinct => (
                "DISTINCT, or GROUP BY,",
                Some(
                    "have ts or date_bin(interval '1 minute', ts) among its columns where the stream has order_by = 'ts'",
                ),
            ),
            "AggregateExec" => (
                "an aggregate",
                Some("group by date_bin(interval '1 minute', ts), or by ts, where the stream has order_by = 'ts'"),
            ),
            name if name.starts_with("Sort") => ("ORDER BY", Some("order by ts where the stream has order_by = 'ts'")),
            "WindowAggExec" | "BoundedWindowAggExec" => (
                "a window function",
                Some("end its frame at a row, as OVER (ORDER BY ts) does where the stream has order_by = 'ts'"),
            ),
            other => (other, None),
        };
        return never(who, "it needs all rows", way_out);
    }
    kept_back(node.name()).map(|why| Objection::KeepsBack { operator: node.name().to_owned(), why })
}

/// The kind of one of DataFusion's joins.
fn join_type(node: &Arc<dyn ExecutionPlan>) -> Option<JoinType> {
    None.or_else(|| node.downcast_ref::<HashJoinExec>().map(|join| *join.join_type()))
        .or_else(|| node.downcast_ref::<NestedLoopJoinExec>().map(|join| *join.join_type()))
        .or_else(|| node.downcast_ref::<SortMergeJoinExec>().map(SortMergeJoinExec::join_type))
        .or_else(|| node.downcast_ref::<PiecewiseMergeJoinExec>().map(PiecewiseMergeJoinExec::join_type))
        .or_else(|| node.downcast_ref::<CrossJoinExec>().map(|_| JoinType::Inner))
}

/// The streams whose rows come to a node without an end, quoted.
pub(crate) fn endless_streams(node: &Arc<dyn ExecutionPlan>) -> Result<Vec<String>> {
    let mut streams = Vec::new();
    for input in node.children() {
        input.apply(|below| {
            if !below.boundedness().is_unbounded() {
                return Ok(TreeNodeRecursion::Jump);
            }
            if let Some(scan) = below.downcast_ref::<StreamScanExec>() {
                let name = format!("'{}'", scan.stream_name());
                if !streams.contains(&name) {
                    streams.push(name);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(streams)
}
