//! Functions of Python that give rows: a relation in SQL, a node in the plan, and what runs them over the rows of a table.
//!
//! ```text
//!   FROM repeat(clock, n => 2)        couatl-sql's and DataFusion's parser: arguments, and (SELECT * FROM clock)
//!     TableFunctions                  the planner of such relations
//!       Call(n => 2)                  logical; its input is the plan of the table
//!         TableFunctionExec           hands the input's rows to the Python, and gives what that yields
//!         StreamScanExec              where there is no input
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use couatl_core::{
    Error, Function, FunctionDefinition, Input, InputEvent, Metrics, Mode, Parameter, Returns, TableFunction,
    type_spelling,
};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{EmissionType, SchedulingType};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectNamePart, TableFactor, VisitMut, VisitorMut,
};
use futures::SinkExt;
use futures::channel::mpsc::{self, Sender};
use futures::future::{FusedFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use crate::calling::{Defined, shown};
use crate::catalog::Home;
use crate::memory::has_subquery;
use crate::prepared::value_of;
use crate::scan::{Opened, StreamScanExec, metrics_set};
use crate::statistics::Access;
use crate::store::{can_store, store};
use crate::{from_datafusion, into_datafusion};

/// Writes the tables that functions read as queries, so that they are found as every other table is.
pub(crate) fn with_queries(home: &Home, statement: &mut datafusion::sql::parser::Statement) {
    use datafusion::sql::parser::{CopyToSource, Statement};
    let mut tables = Tables { home };
    let _ = match statement {
        Statement::Statement(statement) => VisitMut::visit(&mut **statement, &mut tables),
        Statement::Explain(explain) => return with_queries(home, &mut explain.statement),
        Statement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => VisitMut::visit(&mut **query, &mut tables),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    };
}

struct Tables<'a> {
    home: &'a Home,
}

impl VisitorMut for Tables<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let Some((function, arguments)) = called(self.home, factor) else { return ControlFlow::Continue(()) };
        let mut by_place = function.definition.parameters.iter();
        for argument in arguments {
            let (parameter, value) = match argument {
                FunctionArg::Unnamed(value) => (by_place.next(), value),
                FunctionArg::Named { name, arg, .. } => {
                    let name = folded(name);
                    (function.definition.parameters.iter().find(|parameter| parameter.name() == name), arg)
                }
                FunctionArg::ExprNamed { .. } => continue,
            };
            if let (Some(Parameter::Rows { .. }), FunctionArgExpr::Expr(expr)) = (parameter, value) {
                query_of(self.home, expr);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The function that a relation calls, and with what.
fn called<'f>(home: &Home, factor: &'f mut TableFactor) -> Option<(Arc<Defined>, &'f mut Vec<FunctionArg>)> {
    let TableFactor::Table { name, args: Some(arguments), .. } = factor else { return None };
    let function = function_of(home, name).filter(|function| gives_rows(function))?;
    Some((function, &mut arguments.args))
}

fn folded(name: &ast::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

/// The function of a name, if it is one in Python.
fn function_of(home: &Home, name: &ast::ObjectName) -> Option<Arc<Defined>> {
    let [ObjectNamePart::Identifier(name)] = &name.0[..] else { return None };
    home.functions.get(&folded(name))
}

fn gives_rows(function: &Defined) -> bool {
    matches!(function.function, Function::Table(_))
}

/// `name`, `TABLE(name)` and a call of another function, as a query of all its rows.
fn query_of(home: &Home, expr: &mut ast::Expr) {
    let table = match expr {
        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => expr.to_string(),
        ast::Expr::Nested(inner) => {
            *expr = std::mem::replace(&mut **inner, ast::Expr::value(ast::Value::Null));
            return query_of(home, expr);
        }
        ast::Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("table") => {
            let inner = match &mut function.args {
                FunctionArguments::List(list) => match &mut list.args[..] {
                    [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))] => Some(inner.clone()),
                    _ => None,
                },
                FunctionArguments::Subquery(query) => Some(ast::Expr::Subquery(query.clone())),
                FunctionArguments::None => None,
            };
            if let Some(inner) = inner {
                *expr = inner;
                query_of(home, expr);
            }
            return;
        }
        ast::Expr::Function(call) if function_of(home, &call.name).is_some_and(|function| gives_rows(&function)) => {
            expr.to_string()
        }
        _ => return,
    };
    let query = format!("SELECT * FROM {table}");
    let parsed = datafusion::sql::parser::DFParser::parse_sql(&query).ok();
    if let Some(datafusion::sql::parser::Statement::Statement(statement)) =
        parsed.and_then(|mut found| found.pop_front())
        && let ast::Statement::Query(query) = *statement
    {
        *expr = ast::Expr::Subquery(query);
    }
}

/// Plans relations that are calls of functions.
#[derive(Debug)]
pub(crate) struct TableFunctions(pub(crate) Arc<Home>);

impl RelationPlanner for TableFunctions {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some((defined, arguments)) = called(&self.0, &mut relation) else {
            no_value(&self.0, &relation)?;
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let arguments = std::mem::take(arguments);
        let TableFactor::Table { alias, .. } = relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let given = matched(&defined.definition, arguments, context)?;
        let mut values = Vec::new();
        let mut input = None;
        for (parameter, expr) in defined.definition.parameters.iter().zip(given) {
            match (parameter, expr) {
                (Parameter::Value(field), expr) => {
                    let shown = expr.to_string();
                    let expr = context.sql_to_expr(expr, &DFSchema::empty()).ok().filter(|expr| !has_subquery(expr));
                    let expr = expr.ok_or_else(|| {
                        let message = format!("expected a constant for '{}', found {shown}", field.name());
                        invalid(&defined.definition, &message)
                    })?;
                    values.push(match expr {
                        // What a client gives is of the parameter's type.
                        Expr::Placeholder(Placeholder { id, field: None }) => {
                            Expr::Placeholder(Placeholder { id, field: Some(Arc::clone(field)) })
                        }
                        expr => expr,
                    });
                }
                (Parameter::Rows { .. }, ast::Expr::Subquery(mut subquery)) => {
                    keep_order(&mut subquery);
                    let derived = TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
                    input = Some(context.plan(derived)?);
                }
                (Parameter::Rows { name, .. }, found) => {
                    return Err(invalid(
                        &defined.definition,
                        &format!("expected a table, or a query in parentheses, for '{name}', found {found}"),
                    ));
                }
            }
        }
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(TableCall::new(defined, values, input)?) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation { plan, alias })))
    }
}

/// Lets a query keep its ORDER BY, which DataFusion takes out of subqueries: what skips no row is taken for a LIMIT.
fn keep_order(query: &mut ast::Query) {
    if query.order_by.is_some() && query.limit_clause.is_none() && query.fetch.is_none() {
        let none = ast::Expr::value(ast::Value::Number("0".to_owned(), false));
        let offset = Some(ast::Offset { value: none, rows: ast::OffsetRows::None });
        query.limit_clause = Some(ast::LimitClause::LimitOffset { limit: None, offset, limit_by: Vec::new() });
    }
}

/// Refuses a function that gives values in the place of a relation.
fn no_value(home: &Home, relation: &TableFactor) -> Result<()> {
    let TableFactor::Table { name, args: Some(_), .. } = relation else { return Ok(()) };
    match function_of(home, name) {
        Some(function) if !gives_rows(&function) => {
            Err(invalid(&function.definition, &format!("it gives a value, as in SELECT {name}(…), and no rows")))
        }
        _ => Ok(()),
    }
}

fn invalid(definition: &FunctionDefinition, message: &str) -> DataFusionError {
    into_datafusion(Error::invalid_argument(format!("function '{}': {message}", definition.name)))
}

/// The arguments of a call, in the order of the parameters.
fn matched(
    definition: &FunctionDefinition,
    arguments: Vec<FunctionArg>,
    context: &dyn RelationPlannerContext,
) -> Result<Vec<ast::Expr>> {
    let parameters = &definition.parameters;
    let mut given: Vec<Option<ast::Expr>> = vec![None; parameters.len()];
    let mut next = 0;
    for argument in arguments {
        let (place, value) = match argument {
            FunctionArg::Unnamed(value) => {
                next += 1;
                (Some(next - 1).filter(|place| *place < parameters.len()), value)
            }
            FunctionArg::Named { name, arg, .. } => {
                let name = context.normalize_ident(name);
                let place = parameters.iter().position(|parameter| parameter.name() == name);
                if place.is_none() {
                    return Err(invalid(
                        definition,
                        &format!("there is no parameter '{name}'; it takes {}", shown(definition)),
                    ));
                }
                (place, arg)
            }
            FunctionArg::ExprNamed { name, .. } => {
                return Err(invalid(definition, &format!("expected the name of a parameter, found {name}")));
            }
        };
        let (Some(place), FunctionArgExpr::Expr(value)) = (place, value) else {
            return Err(invalid(definition, &format!("it takes {}", shown(definition))));
        };
        if given[place].replace(value).is_some() {
            let name = parameters[place].name();
            return Err(invalid(definition, &format!("'{name}' is given twice")));
        }
    }
    let whole = given.into_iter().zip(parameters).map(|(value, parameter)| {
        value.ok_or_else(|| {
            invalid(definition, &format!("'{}' is missing; it takes {}", parameter.name(), shown(definition)))
        })
    });
    whole.collect()
}

/// A function in lists of what there is. Its calls are planned by [`TableFunctions`], but for those that are LATERAL.
#[derive(Debug)]
pub(crate) struct Listed(pub(crate) Arc<Defined>);

impl TableFunctionImpl for Listed {
    fn call_with_args(&self, _arguments: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        Err(invalid(
            &self.0.definition,
            "it cannot be joined LATERAL: give it a table, or a query, as in f((SELECT …))",
        ))
    }
}

/// A call in a logical plan.
#[derive(Debug, Clone)]
pub(crate) struct TableCall {
    defined: Arc<Defined>,
    values: Vec<Expr>,
    input: Option<Arc<LogicalPlan>>,
    /// Those about no column, which the optimizer moves below a node whatever it is.
    conditions: Vec<Expr>,
    schema: DFSchemaRef,
}

impl TableCall {
    fn new(defined: Arc<Defined>, values: Vec<Expr>, input: Option<LogicalPlan>) -> Result<Self> {
        let name = TableReference::bare(defined.definition.name.as_str());
        let schema = Arc::new(DFSchema::try_from_qualified_schema(name, &columns(&defined.definition))?);
        Ok(Self { defined, values, input: input.map(Arc::new), conditions: Vec::new(), schema })
    }

    /// Whether it makes rows by itself, which may come slowly.
    pub(crate) fn is_stream(&self) -> bool {
        self.input.is_none() && self.defined.definition.mode != Mode::Batch
    }
}

fn columns(definition: &FunctionDefinition) -> SchemaRef {
    match &definition.returns {
        Returns::Table(schema) => Arc::clone(schema),
        Returns::Value(_) => Arc::new(Schema::empty()),
    }
}

impl PartialEq for TableCall {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.defined, &other.defined)
            && self.values == other.values
            && self.conditions == other.conditions
            && self.input == other.input
    }
}

impl Eq for TableCall {}

impl Hash for TableCall {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.defined.definition.name, &self.values, &self.input).hash(state);
    }
}

impl PartialOrd for TableCall {
    fn partial_cmp(&self, _other: &Self) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for TableCall {
    fn name(&self) -> &'static str {
        "TableFunction"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.input.iter().map(|input| &**input).collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.values.iter().chain(&self.conditions).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<_> = self.values.iter().map(ToString::to_string).collect();
        write!(f, "TableFunction: {}({})", self.defined.definition.name, values.join(", "))
    }

    fn with_exprs_and_inputs(&self, mut values: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut conditions = values.split_off(self.values.len());
        let input = match (inputs.pop(), &self.input) {
            // It is about what the function gives, and not about what that reads.
            (Some(LogicalPlan::Filter(filter)), Some(before))
                if filter.predicate.column_refs().is_empty() && filter.input == *before =>
            {
                conditions.push(filter.predicate);
                Some(filter.input)
            }
            (input, _) => input.map(Arc::new),
        };
        Ok(Self { values, conditions, input, ..self.clone() })
    }
}

/// Plans [`TableCall`]s.
#[derive(Debug)]
pub(crate) struct TableCallPlanner;

#[async_trait]
impl ExtensionPlanner for TableCallPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(call) = node.as_any().downcast_ref::<TableCall>() else { return Ok(None) };
        let Some(state) = session.as_any().downcast_ref::<SessionState>() else { return Ok(None) };
        let definition = &call.defined.definition;
        let Function::Table(function) = &call.defined.function else { return Ok(None) };
        let mut values = Vec::new();
        for (expr, field) in call.values.iter().zip(definition.values()) {
            let evaluated = constant(planner, expr, state, context);
            let value = evaluated.map_err(|error| {
                let error = from_datafusion(error);
                invalid(definition, &format!("expected a constant for '{}': {error}", field.name()))
            })?;
            let misfit = |reason: &str| {
                let (name, to) = (field.name(), type_spelling(field));
                invalid(definition, &format!("argument '{name}' ({to}): cannot take {reason}"))
            };
            if !can_store(value.data_type(), field) {
                let found = type_spelling(&arrow::datatypes::Field::new("", value.data_type().clone(), true));
                return Err(misfit(&format!("a value of {found}")));
            }
            values.push(store(&value, field).map_err(|found| misfit(&found.reason))?);
        }
        let source = function.source(values.clone());
        let Some(input) = physical_inputs.first() else {
            let all = (0..source.schema().fields().len()).collect();
            let scan = StreamScanExec::try_new(source, all, None, Vec::new(), call.defined.owners.clone())?;
            return Ok(Some(Arc::new(scan)));
        };
        let function = Arc::clone(function);
        let mut plan: Arc<dyn ExecutionPlan> =
            Arc::new(TableFunctionExec::new(call.defined.clone(), function, values, Arc::clone(input)));
        for condition in &call.conditions {
            let condition = planner.create_physical_expr(condition, &call.schema, state, context)?;
            plan = Arc::new(FilterExec::try_new(condition, plan)?);
        }
        Ok(Some(plan))
    }
}

/// The value of an expression that reads nothing, as an array of one.
fn constant(
    planner: &dyn PhysicalPlanner,
    expr: &Expr,
    state: &SessionState,
    context: &PhysicalPlanningContext,
) -> Result<ArrayRef> {
    let schema = DFSchema::empty();
    let _ = expr.get_type(&schema)?;
    value_of(&*planner.create_physical_expr(expr, &schema, state, context)?)
}

/// Hands the rows of its input to a function, and gives those that it yields.
#[derive(Debug)]
pub(crate) struct TableFunctionExec {
    defined: Arc<Defined>,
    function: Arc<dyn TableFunction>,
    values: Vec<ArrayRef>,
    input: Arc<dyn ExecutionPlan>,
    /// In which the rows are to come, where their query says so.
    order: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
    metrics: Arc<Metrics>,
}

impl TableFunctionExec {
    fn new(
        defined: Arc<Defined>,
        function: Arc<dyn TableFunction>,
        values: Vec<ArrayRef>,
        input: Arc<dyn ExecutionPlan>,
    ) -> Self {
        let partitions = input.output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(columns(&defined.definition)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            input.boundedness(),
        );
        let properties = Arc::new(properties.with_scheduling_type(SchedulingType::Cooperative));
        let order = input.output_ordering().cloned();
        Self { defined, function, values, input, order, properties, metrics: Arc::default() }
    }

    fn is_apart(&self) -> bool {
        self.defined.definition.input().is_some_and(|(_, apart)| apart)
    }
}

impl DisplayAs for TableFunctionExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableFunctionExec: function={}", self.defined.definition.name)
    }
}

impl ExecutionPlan for TableFunctionExec {
    fn name(&self) -> &'static str {
        "TableFunctionExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![if self.is_apart() { Distribution::UnspecifiedDistribution } else { Distribution::SinglePartition }]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.order.clone().map(OrderingRequirements::from)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![self.is_apart()]
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
        let input = children.swap_remove(0);
        let made = Self::new(self.defined.clone(), self.function.clone(), self.values.clone(), input);
        Ok(Arc::new(Self { order: self.order.clone(), ..made }))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(metrics_set(&self.metrics))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let (sender, events) = mpsc::channel(0);
        let (access, owners, metrics) = (Access::Call, self.defined.owners.clone(), self.metrics.clone());
        let source = self.function.source(self.values.clone());
        let all = (0..source.schema().fields().len()).collect();
        let input_rows = Input { schema: input.schema(), events };
        let rows = Opened { source, access, owners, metrics }.rows(&context, all, None, Some(input_rows));
        let failure = Failure::default();
        let feeding = Box::pin(feed(input, sender, Arc::clone(&failure)));
        let fed = fed(Box::pin(rows), feeding, failure);
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(self.schema(), fed))))
    }
}

/// Why rows could not be had, once that is so.
type Failure = Arc<Mutex<Option<DataFusionError>>>;

/// Hands rows over until there are no more, or nobody takes them.
async fn feed(mut input: SendableRecordBatchStream, mut sender: Sender<InputEvent>, failure: Failure) {
    loop {
        let event = match input.try_next().await {
            Ok(Some(batch)) if batch.num_rows() == 0 => continue,
            Ok(Some(batch)) => InputEvent::Batch(batch),
            Ok(None) => InputEvent::End,
            Err(error) => {
                *failure.lock() = Some(error);
                InputEvent::Failed
            }
        };
        let is_last = !matches!(event, InputEvent::Batch(_));
        if sender.send(event).await.is_err() || is_last {
            return;
        }
    }
}

/// The rows, while what they are made of is handed over. An error there is one here, after the rows that were made before.
fn fed(
    rows: impl futures::Stream<Item = Result<RecordBatch>> + Send + Unpin + 'static,
    feeding: impl Future<Output = ()> + Send + Unpin + 'static,
    failure: Failure,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    stream::try_unfold((rows, feeding.fuse(), failure), |(mut rows, mut feeding, failure)| async move {
        loop {
            tokio::select! {
                biased;
                row = rows.next() => return match row {
                    Some(Ok(batch)) => Ok(Some((batch, (rows, feeding, failure)))),
                    last => match failure.lock().take() {
                        Some(error) => Err(error),
                        None => last.transpose().map(|_| None),
                    },
                },
                () = &mut feeding, if !feeding.is_terminated() => {}
            }
        }
    })
}
