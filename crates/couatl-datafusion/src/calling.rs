//! Which query a function of Python is called for.
//!
//! A plan is made before there is a query, and a function is called far below it, on whatever task: each plan has functions
//! of its own, which find there whose call it is. A function that no plan has taken is not called at all, so planning,
//! which would compute what is constant, runs no user code.
//!
//! ```text
//!   FunctionDefinition ──> Defined ──bound(plan)──> Defined + Run <── begins ── QueryExec ── its Query
//!                                                      '── calls() ──> the use of the function in that query
//! ```

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use arrow::array::ArrayRef;
use couatl_core::{Call, Calls, Error, Function, FunctionDefinition, Parameter, Result, type_spelling};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::{
    AggregateUDF, DocSection, Documentation, EmptyRelation, Expr, LogicalPlan, Projection, ScalarUDF, Union,
    WindowFunctionDefinition,
};
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::aggregate::PythonAggregate;
use crate::into_datafusion;
use crate::query::Query;
use crate::scalar::PythonScalar;
use crate::statistics::Access;

/// A function of a session.
pub(crate) struct Defined {
    pub(crate) definition: Arc<FunctionDefinition>,
    pub(crate) function: Function,
    /// Who created it.
    pub(crate) owners: Arc<[Arc<str>]>,
    /// What `SHOW FUNCTIONS` says of it.
    pub(crate) documentation: Documentation,
}

impl Defined {
    pub(crate) fn new(definition: Arc<FunctionDefinition>, function: Function, owners: Arc<[Arc<str>]>) -> Self {
        let description = format!("in Python, {}", definition.volatility.as_str());
        let call = format!("{}{}", definition.name, shown(&definition));
        let named = Documentation::builder(DocSection::default(), description, call);
        let arguments = definition.values().map(|field| (field.name(), type_spelling(field)));
        let named = arguments.fold(named, |named, (name, spelling)| named.with_argument(name, spelling));
        Self { definition, function, owners, documentation: named.build() }
    }
}

/// The parameters of a function, as they are declared.
pub(crate) fn shown(definition: &FunctionDefinition) -> String {
    let parameters = definition.parameters.iter().map(|parameter| match parameter {
        Parameter::Value(field) => format!("{} {}", field.name(), type_spelling(field)),
        Parameter::Rows { name, .. } => format!("{name} TABLE"),
    });
    format!("({})", parameters.collect::<Vec<_>>().join(", "))
}

impl fmt::Debug for Defined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Defined").field("name", &self.definition.name).finish_non_exhaustive()
    }
}

/// The execution of a plan: its query, once it has begun.
#[derive(Debug, Default)]
pub(crate) struct Run(Mutex<Weak<Query>>);

impl Run {
    /// It is executed for this query.
    ///
    /// # Errors
    /// `unsupported`, where it is executed for another one at this moment.
    pub(crate) fn begin(&self, query: &Arc<Query>) -> Result<()> {
        let mut current = self.0.lock();
        if current.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, query) && other.calls_functions()) {
            return Err(Error::unsupported(
                "a plan that calls functions in Python is executed for one query at a time: plan it again",
            ));
        }
        *current = Arc::downgrade(query);
        Ok(())
    }

    fn query(&self) -> Option<Arc<Query>> {
        self.0.lock().upgrade()
    }
}

/// A function, and the execution for which it is called where a plan has taken it.
#[derive(Debug, Clone)]
pub(crate) struct Callee {
    pub(crate) defined: Arc<Defined>,
    run: Option<Arc<Run>>,
}

impl Callee {
    pub(crate) fn new(defined: Arc<Defined>) -> Self {
        Self { defined, run: None }
    }

    /// What it is called by.
    pub(crate) fn name(&self) -> &str {
        &self.defined.definition.name
    }

    /// Its use in the query for which it is called.
    pub(crate) fn open(&self) -> PlanResult<Opened> {
        let query = self.run.as_ref().and_then(|run| run.query()).ok_or_else(|| self.no_constant())?;
        let calls = query.calls(&self.defined).map_err(|error| self.told(&query, error))?;
        Ok(Opened { callee: self.clone(), query, calls })
    }

    fn no_constant(&self) -> DataFusionError {
        into_datafusion(Error::unsupported(format!(
            "function '{}' is written in Python, and called when a query runs: here a constant is expected",
            self.name()
        )))
    }

    fn told(&self, query: &Arc<Query>, error: Error) -> DataFusionError {
        query.failed(self.name(), Access::Call, error.kind());
        Query::told(Some(query), error, &self.defined.owners)
    }

    fn in_run(&self, run: &Arc<Run>) -> Self {
        Self { defined: Arc::clone(&self.defined), run: Some(Arc::clone(run)) }
    }
}

impl PartialEq for Callee {
    fn eq(&self, other: &Self) -> bool {
        let run = |callee: &Self| callee.run.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.defined, &other.defined) && run(self) == run(other)
    }
}

impl Eq for Callee {}

impl Hash for Callee {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.defined).hash(state);
    }
}

/// A function that is in use by a query.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    callee: Callee,
    query: Arc<Query>,
    calls: Arc<dyn Calls>,
}

impl Opened {
    /// Calls it, and waits for the answer; on a runtime with other threads, what else this one would do goes on there.
    pub(crate) fn call(&self, call: Call) -> PlanResult<ArrayRef> {
        let call = || self.calls.call(call);
        let answer = match Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(call),
            _ => call(),
        };
        answer.map_err(|error| self.callee.told(&self.query, error))
    }

    /// Lets it forget an aggregation.
    pub(crate) fn forget(&self, aggregation: u64) {
        self.calls.forget(aggregation);
    }
}

/// Refuses what functions of Python are not offered with.
pub(crate) fn check(plan: &LogicalPlan) -> PlanResult<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let (LogicalPlan::Limit(_), Some(callee)) = (node, callee(expr)) {
                    return Err(callee.no_constant());
                }
                let Expr::AggregateFunction(call) = expr else { return Ok(TreeNodeRecursion::Continue) };
                let Some(callee) = aggregate(&call.func) else { return Ok(TreeNodeRecursion::Continue) };
                let what = match () {
                    () if !call.params.order_by.is_empty() => "ORDER BY among its arguments",
                    () if call.params.distinct && call.params.args.len() > 1 => "DISTINCT of several arguments",
                    () => return Ok(TreeNodeRecursion::Continue),
                };
                Err(into_datafusion(Error::unsupported(format!(
                    "function '{}' is an aggregate in Python, for which {what} is not offered: do that in a subquery",
                    callee.name()
                ))))
            })
        })
    })
    .map(drop)
}

/// A plan whose functions are its own, and what says whose calls they are; the plan as it is, where it has none.
pub(crate) fn bound(plan: LogicalPlan) -> PlanResult<(LogicalPlan, Option<Arc<Run>>)> {
    if !calls(&plan)? {
        return Ok((plan, None));
    }
    let run = Arc::new(Run::default());
    let bound = plan.transform_down_with_subqueries(|node| {
        let taken = node.map_expressions(|expr| expr.transform_up(|expr| Ok(Transformed::yes(taken(expr, &run)))))?;
        Ok(Transformed::yes(computed_later(taken.data)?))
    })?;
    Ok((bound.data, Some(run)))
}

/// Whether a plan calls functions.
pub(crate) fn calls(plan: &LogicalPlan) -> PlanResult<bool> {
    any(plan, &|_| true)
}

/// Whether it calls some that must be called for every row.
pub(crate) fn calls_volatile(plan: &LogicalPlan) -> PlanResult<bool> {
    any(plan, &|callee| callee.defined.definition.volatility == couatl_core::Volatility::Volatile)
}

fn any(plan: &LogicalPlan, is_one: &dyn Fn(&Callee) -> bool) -> PlanResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(callee(expr).is_some_and(is_one)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// VALUES are computed while they are planned: those that call functions are rows of their own instead.
fn computed_later(node: LogicalPlan) -> PlanResult<LogicalPlan> {
    let calls = matches!(node, LogicalPlan::Values(_)) && calls(&node)?;
    let LogicalPlan::Values(values) = node else { return Ok(node) };
    if !calls {
        return Ok(LogicalPlan::Values(values));
    }
    let one = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: Arc::new(DFSchema::empty()) });
    let one = Arc::new(one);
    let schema = values.schema;
    let row = |exprs: Vec<Expr>| {
        let named = exprs.into_iter().zip(schema.fields()).map(|(expr, field)| expr.alias(field.name()));
        let row = Projection::try_new_with_schema(named.collect(), Arc::clone(&one), Arc::clone(&schema))?;
        Ok(Arc::new(LogicalPlan::Projection(row)))
    };
    let mut rows = values.values.into_iter().map(row).collect::<PlanResult<Vec<_>>>()?;
    Ok(match rows.len() {
        1 => Arc::unwrap_or_clone(rows.swap_remove(0)),
        _ => LogicalPlan::Union(Union { inputs: rows, schema }),
    })
}

fn callee(expr: &Expr) -> Option<&Callee> {
    match expr {
        Expr::ScalarFunction(call) => scalar(&call.func),
        Expr::AggregateFunction(call) => aggregate(&call.func),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => aggregate(function),
            WindowFunctionDefinition::WindowUDF(_) => None,
        },
        _ => None,
    }
}

fn scalar(function: &ScalarUDF) -> Option<&Callee> {
    let function: &dyn Any = function.inner().as_ref();
    function.downcast_ref::<PythonScalar>().map(PythonScalar::callee)
}

fn aggregate(function: &AggregateUDF) -> Option<&Callee> {
    let function: &dyn Any = function.inner().as_ref();
    function.downcast_ref::<PythonAggregate>().map(PythonAggregate::callee)
}

/// A call in a plan that is executed so.
fn taken(expr: Expr, run: &Arc<Run>) -> Expr {
    let of_run = |function: &AggregateUDF| {
        aggregate(function).map(|callee| Arc::new(AggregateUDF::from(PythonAggregate::new(callee.in_run(run)))))
    };
    match expr {
        Expr::ScalarFunction(call) => match scalar(&call.func) {
            Some(callee) => {
                let func = Arc::new(ScalarUDF::from(PythonScalar::new(callee.in_run(run))));
                Expr::ScalarFunction(ScalarFunction { func, ..call })
            }
            None => Expr::ScalarFunction(call),
        },
        Expr::AggregateFunction(call) => match of_run(&call.func) {
            Some(func) => Expr::AggregateFunction(AggregateFunction { func, ..call }),
            None => Expr::AggregateFunction(call),
        },
        Expr::WindowFunction(call) => {
            let WindowFunctionDefinition::AggregateUDF(function) = &call.fun else { return Expr::WindowFunction(call) };
            match of_run(function) {
                Some(function) => Expr::WindowFunction(Box::new(WindowFunction {
                    fun: WindowFunctionDefinition::AggregateUDF(function),
                    ..*call
                })),
                None => Expr::WindowFunction(call),
            }
        }
        other => other,
    }
}
