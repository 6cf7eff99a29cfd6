//! From logical plans to physical ones, for plans that read or write streams.
//!
//! Stock planning is right for tables that are at rest. Above a stream it would hold rows back and scramble their
//! order, so a plan with a stream in it (any but a `batch` one) is made without parallelism of the operators, and its
//! filters and joins are replaced by prompt ones.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use couatl_core::Mode;
use couatl_sql::{Place, Statement};
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{DmlStatement, LogicalPlan, TableScan, TableSource, UNNAMED_TABLE};
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::explain::ExplainExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};

use crate::analyze::TimeBoxExec;
use crate::band::BAND_JOINS;
use crate::caller::Caller;
use crate::catalog::SYSTEM;
use crate::endless::RefuseEndless;
use crate::held::BetweenLimits;
use crate::prompt::{BOUND_LIMITS, PARTIAL_SORTS, PROMPT_FILTERS, PROMPT_JOINS, PROMPT_WINDOWS, WHOLE_GROUPING_SETS};
use crate::queries::Queries;
use crate::root::QueryExec;
use crate::table::StreamTable;
use crate::table_function::{TableCall, TableCallPlanner};
use crate::{calling, changes, depth, memory};

/// How long `EXPLAIN ANALYZE` watches a stream.
const ANALYZE_TIME: Duration = Duration::from_secs(5);

/// Gives a session of your own the behaviour that streams need: rows leave filters at once, joins and aggregates over
/// streams are planned without repartitioning.
///
/// ```
/// use datafusion::execution::SessionStateBuilder;
/// use datafusion::prelude::SessionContext;
///
/// let state = couatl_datafusion::install_streaming(SessionStateBuilder::new().with_default_features()).build();
/// let context = SessionContext::new_with_state(state);
/// ```
pub fn install_streaming(builder: SessionStateBuilder) -> SessionStateBuilder {
    let mut builder = builder;
    let rules = builder.physical_optimizers().take().unwrap_or_default().rules;
    let mut rules = builder.physical_optimizer_rules().take().unwrap_or(rules);
    if let Some(sorts) = rules.iter_mut().find(|rule| rule.name() == "EnsureRequirements") {
        *sorts = Arc::new(BetweenLimits(Arc::clone(sorts)));
    }
    // Before DataFusion's own check of the finished plan, which says less in more words.
    let check = rules.iter().position(|rule| rule.name() == "SanityCheckPlan").unwrap_or(rules.len());
    rules.insert(check, Arc::new(RefuseEndless));
    rules.insert(check, Arc::new(BAND_JOINS));
    rules.insert(check, Arc::new(BOUND_LIMITS));
    rules.insert(check, Arc::new(PROMPT_FILTERS));
    rules.insert(check, Arc::new(PARTIAL_SORTS));
    // Before sides are swapped by their sizes, and sorts are left out for the orders that joins keep.
    let selection = rules.iter().position(|rule| rule.name() == "join_selection").unwrap_or(0);
    rules.insert(selection, Arc::new(WHOLE_GROUPING_SETS));
    rules.insert(selection, Arc::new(PROMPT_WINDOWS));
    rules.insert(selection, Arc::new(PROMPT_JOINS));
    let optimizer = builder.optimizer().take().unwrap_or_default();
    let builder = builder.with_optimizer_rules(crate::distinct::prompt(optimizer.rules));
    builder.with_query_planner(Arc::new(Planner { queries: None })).with_physical_optimizer_rules(rules)
}

/// The planner of a session that keeps a list of its queries.
pub(crate) fn install_session(builder: SessionStateBuilder, queries: Arc<Queries>) -> SessionStateBuilder {
    install_streaming(builder).with_query_planner(Arc::new(Planner { queries: Some(queries) }))
}

/// A statement, on its way to the query that it becomes.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatementText {
    pub(crate) text: String,
    pub(crate) place: Option<Place>,
    pub(crate) caller: Caller,
    /// Whether its rows stay here, in a table: they are no result.
    pub(crate) is_stored: bool,
}

impl StatementText {
    pub(crate) fn of(statement: &Statement, caller: Caller) -> Self {
        Self { text: statement.text.clone(), place: Some(statement.place), caller, is_stored: false }
    }
}

#[derive(Debug)]
struct Planner {
    queries: Option<Arc<Queries>>,
}

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
            return Err(DataFusionError::Internal("the session has no SessionState".into()));
        };
        let logical_plan = changes::checked(with_current_streams(logical_plan, state)?)?;
        let (logical_plan, run) = calling::bound(logical_plan)?;
        let is_metadata = run.is_none() && is_metadata(&logical_plan)?;
        let streaming = reads_streams(&logical_plan)?;
        let is_volatile = run.is_some() && calling::calls_volatile(&logical_plan)?;
        let adjusted = match streaming {
            true => Some(streaming_state(state)),
            false => writes_stream(&logical_plan).then(|| in_order(state)),
        };
        let once = is_volatile.then(|| called_once(adjusted.as_ref().unwrap_or(state)));
        let state = once.as_ref().or(adjusted.as_ref()).unwrap_or(state);
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![
            Arc::new(changes::ChangePlanner),
            Arc::new(TableCallPlanner),
        ]);
        if streaming && let LogicalPlan::Explain(explain) = &logical_plan {
            // EXPLAIN shows a plan that cannot be made as one that is not there; this says why.
            planner.create_physical_plan(&explain.plan, state).await?;
        }
        let plan = depth::planned(planner.create_physical_plan(&logical_plan, state)).await?;
        let plan = memory::whole_inserts(&logical_plan, plan)?;
        let plan = if streaming { time_boxed(plan)? } else { plan };
        let Some(queries) = &self.queries else { return Ok(plan) };
        if plan.downcast_ref::<ExplainExec>().is_some() {
            return Ok(plan);
        }
        let statement = state.config().get_extension::<StatementText>().unwrap_or_default();
        let plan = match plan.output_partitioning().partition_count() {
            1 => plan,
            _ => Arc::new(CoalescePartitionsExec::new(plan)),
        };
        Ok(Arc::new(QueryExec::new(plan, queries.clone(), statement, is_metadata, run)))
    }
}

/// A plan may be older than its streams (a prepared statement, a `DataFrame`): each is looked up by its name again.
fn with_current_streams(plan: &LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
    let current = |name: &TableReference, source: &Arc<dyn TableSource>| -> Result<Option<Arc<dyn TableSource>>> {
        let Some(old) = stream_table(source) else { return Ok(None) };
        let resolved = crate::session::resolved(state, name.clone());
        let new = crate::catalog::stream(state.catalog_list().as_ref(), &resolved);
        match new {
            // A stream that is not in a catalog of ours was registered by hand and is what it is.
            None if crate::catalog::is_managed(state.catalog_list().as_ref(), &resolved) => {
                Err(DataFusionError::Plan(format!("stream '{name}' was not found: it has been dropped")))
            }
            None => Ok(None),
            Some(new) if std::ptr::addr_eq(old, Arc::as_ptr(&new)) => Ok(None),
            Some(new) if new.schema() != old.schema() => Err(DataFusionError::Plan(format!(
                "stream '{name}' has been replaced by one with other columns; prepare the statement, or create the view, again"
            ))),
            Some(new) => Ok(Some(datafusion::datasource::provider_as_source(new))),
        }
    };
    let refreshed = plan.clone().transform_down_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => match current(&scan.table_name, &scan.source)? {
            Some(source) => Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan }))),
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        LogicalPlan::Dml(dml) => match current(&dml.table_name, &dml.target)? {
            Some(target) => Ok(Transformed::yes(LogicalPlan::Dml(DmlStatement { target, ..dml }))),
            None => Ok(Transformed::no(LogicalPlan::Dml(dml))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(refreshed.data)
}

fn stream_table(source: &Arc<dyn TableSource>) -> Option<&StreamTable> {
    // `source_as_provider` would give a new reference; what is asked for is inside this one.
    let source = source.downcast_ref::<datafusion::datasource::DefaultTableSource>()?;
    source.table_provider.downcast_ref::<StreamTable>()
}

/// Whether rows of the plan may come slowly.
pub(crate) fn reads_streams(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<StreamTable>()
            && table.definition().mode != Mode::Batch
        {
            found = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        if let LogicalPlan::Extension(extension) = node
            && extension.node.as_any().downcast_ref::<TableCall>().is_some_and(TableCall::is_stream)
        {
            found = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// How many tables clients bring together that ask what there is.
const MOST_METADATA_TABLES: usize = 6;

/// Whether a plan is about what there is and what runs alone: nobody waits for that. `SELECT 1`, by which clients ask
/// whether a server is there, is too.
fn is_metadata(plan: &LogicalPlan) -> Result<bool> {
    let (mut found, mut reads, mut gathers) = (true, 0, false);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                reads += 1;
                let provider = source_as_provider(&scan.source)?;
                found &= match scan.table_name.schema() {
                    // A schema of that name may hold anything, where it is made in another catalog.
                    Some(schema) => [INFORMATION_SCHEMA, SYSTEM].contains(&schema) && provider.is::<StreamingTable>(),
                    // What a statement of ours shows.
                    None => scan.table_name.table() == UNNAMED_TABLE,
                };
            }
            // All rows of one with all of another: as many as one likes.
            LogicalPlan::Join(join) if join.on.is_empty() && join.filter.is_none() => found = false,
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::DescribeTable(_) => {}
            LogicalPlan::Sort(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Values(_) => gathers = true,
            _ => found = false,
        }
        Ok(if found { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    // Rows that are computed from none can be as many as one likes, and so can those of several tables together.
    Ok(found && reads <= MOST_METADATA_TABLES && (reads > 0 || !gathers))
}

fn streaming_state(state: &SessionState) -> SessionState {
    let mut config = state.config().clone();
    let options = config.options_mut();
    options.execution.target_partitions = 1;
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.allow_symmetric_joins_without_pruning = false;
    options.optimizer.enable_piecewise_merge_join = false;
    options.optimizer.prefer_hash_join = true;
    SessionStateBuilder::new_from_existing(state.clone()).with_config(config).build()
}

fn writes_stream(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Dml(dml) => stream_table(&dml.target).is_some(),
        LogicalPlan::Explain(explain) => writes_stream(&explain.plan),
        LogicalPlan::Analyze(analyze) => writes_stream(&analyze.input),
        _ => false,
    }
}

/// Rows arrive at a sink in the order in which a query without further ado gives them: messages count them.
fn in_order(state: &SessionState) -> SessionState {
    let mut config = state.config().clone();
    config.options_mut().optimizer.enable_round_robin_repartition = false;
    SessionStateBuilder::new_from_existing(state.clone()).with_config(config).build()
}

/// Conditions stay where they are: below what they are about, DataFusion would compute a volatile value once more.
fn called_once(state: &SessionState) -> SessionState {
    let rules = state.physical_optimizers().iter().filter(|rule| !rule.name().starts_with("FilterPushdown"));
    let rules = rules.cloned().collect();
    SessionStateBuilder::new_from_existing(state.clone()).with_physical_optimizer_rules(rules).build()
}

fn time_boxed(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.downcast_ref::<AnalyzeExec>().is_none() {
        return Ok(plan);
    }
    let boxed: Vec<Arc<dyn ExecutionPlan>> =
        plan.children().into_iter().map(|input| Arc::new(TimeBoxExec::new(input.clone(), ANALYZE_TIME)) as _).collect();
    plan.replace_children(boxed, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
