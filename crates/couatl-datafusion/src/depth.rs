//! Plans are trees, and what walks a tree takes a piece of the stack for each of its levels: planning has a stack of its
//! own, and plans that would be too deep for the threads that run them are refused.
//!
//! The depth of one expression is bounded where it is parsed, in couatl-sql. What is bounded here is how deep relations
//! stand on each other: views on views, one common table expression on the other; and what becomes of expressions when
//! the optimizer writes out the columns that they read, each of which may be an expression of the view below.

use std::pin::pin;

use couatl_core::Error;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::into_datafusion;

/// What planning has at least, wherever it is called from.
const PLANNING_STACK_BYTES: usize = 64 << 20;
/// Where less is left, a new stack is made.
const LEAST_STACK_BYTES: usize = 16 << 20;

/// The deepest plan that is taken.
const MOST_LEVELS: usize = 300;

/// The largest: the optimizer walks it many times.
const MOST_NODES: usize = 10_000;

/// The most subqueries inside one another, in expressions: the optimizer takes twice as long for each.
const MOST_SUBQUERIES: usize = 12;

/// The deepest expression, with the columns that it reads written out.
const MOST_DEPTH: usize = 1_500;

/// The largest expression that the optimizer makes of a smaller one, by writing its parts several times.
const MOST_GROWN: usize = 100_000;

/// By how much an expression may grow, whatever its size.
const MOST_GROWTH: usize = 10;

/// The largest condition, with the columns that it reads written out: the optimizer does so to test it early.
const MOST_TERMS: usize = 100_000;

/// Polls a future that plans on a stack that is large enough for it. Nothing of the user's may run in it: Python wants
/// to be where the thread's own stack is.
pub(crate) async fn planned<F: Future>(planning: F) -> F::Output {
    let mut planning = pin!(planning);
    std::future::poll_fn(move |context| with_stack(|| planning.as_mut().poll(context))).await
}

/// The same, for what does not wait.
pub(crate) fn with_stack<T>(plan: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(LEAST_STACK_BYTES, PLANNING_STACK_BYTES, plan)
}

/// Refuses a plan that is too deep, or too large.
///
/// # Errors
/// `invalid-argument`, which says what it has too much of.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let (levels, nodes) = size(plan);
    if nodes > MOST_NODES {
        return Err(into_datafusion(Error::invalid_argument(format!(
            "the query has more than {MOST_NODES} steps, with those of the views that it reads: a view that is read \
             twice counts twice; keep some of its steps in tables"
        ))));
    }
    if levels > MOST_LEVELS {
        return Err(into_datafusion(Error::invalid_argument(format!(
            "the query is {levels} levels deep, and the limit is {MOST_LEVELS}: views, subqueries, joins and set \
             operations take a level or two each; keep some of its steps in tables"
        ))));
    }
    let subqueries = with_stack(|| subqueries(plan))?;
    if subqueries > MOST_SUBQUERIES {
        return Err(into_datafusion(Error::invalid_argument(format!(
            "the query has {subqueries} subqueries inside one another in its expressions, with those of the views that \
             it reads, and the limit is {MOST_SUBQUERIES}; join them instead, or keep some of its steps in tables"
        ))));
    }
    with_stack(|| columns(plan)).map(drop)
}

/// How many subqueries are inside one another in the expressions of a plan.
fn subqueries(plan: &LogicalPlan) -> Result<usize> {
    let mut most = 0;
    for input in plan.inputs() {
        most = most.max(subqueries(input)?);
    }
    plan.apply_subqueries(|subquery| {
        most = most.max(subqueries(subquery)? + 1);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(most)
}

/// How many levels a plan has, and how many nodes.
fn size(plan: &LogicalPlan) -> (usize, usize) {
    let (mut level, mut levels, mut nodes) = (vec![plan], 0, 0);
    while !level.is_empty() && nodes <= MOST_NODES {
        levels += 1;
        nodes += level.len();
        let mut next = Vec::new();
        let mut inputs: Vec<_> = level.into_iter().flat_map(LogicalPlan::inputs).collect();
        // A chain of UNION is a union of many.
        while let Some(input) = inputs.pop() {
            match input {
                LogicalPlan::Union(union) => inputs.extend(union.inputs.iter().map(|input| &**input)),
                input => next.push(input),
            }
        }
        level = next;
    }
    (levels, nodes)
}

/// What an expression is made of, where each column that it reads counts as the expression that computes it.
#[derive(Debug, Clone, Copy, Default)]
struct Terms {
    depth: usize,
    size: usize,
    /// The size, when what the optimizer writes several times counts as often.
    grown: usize,
}

impl Terms {
    fn max(self, other: Self) -> Self {
        let (depth, size) = (self.depth.max(other.depth), self.size.max(other.size));
        Self { depth, size, grown: self.grown.max(other.grown) }
    }
}

/// The terms of each column of a plan.
fn columns(plan: &LogicalPlan) -> Result<Vec<Terms>> {
    let inputs = plan.inputs().into_iter().map(columns).collect::<Result<Vec<_>>>()?;
    let width = plan.schema().fields().len();
    if let LogicalPlan::Union(_) = plan {
        let at = |column: usize| inputs.iter().filter_map(move |input| input.get(column)).copied();
        return Ok((0..width).map(|column| at(column).fold(Terms::default(), Terms::max)).collect());
    }
    let is_condition = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
    let (schema, below) = (merge_schema(&plan.inputs()), inputs.concat());
    let mut computed = Vec::new();
    plan.apply_expressions(|expr| {
        let terms = terms(expr, &schema, &below)?;
        computed.push(terms);
        let Terms { depth, size, grown } = terms;
        let (what, count, most) = match () {
            () if depth > MOST_DEPTH => ("an expression", format!("{depth} levels"), MOST_DEPTH),
            () if grown > MOST_GROWN && grown / MOST_GROWTH > size => {
                let why = "as casts, coalesce, nvl, BETWEEN and short IN lists inside one another look at their parts";
                ("an expression", format!("{grown} terms, {why} several times"), MOST_GROWN)
            }
            () if is_condition && size > MOST_TERMS => ("a condition", format!("{size} terms"), MOST_TERMS),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Err(into_datafusion(Error::invalid_argument(format!(
            "{what} of the query has {count}, and the limit is {most}: where it reads a column that a view or a \
             subquery computes, it counts with all that it computes; keep some of its steps in tables"
        ))))
    })?;
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => computed.truncate(width),
        _ => computed = below,
    }
    // What is not known, a new column of a window or an unnesting, is a column of its own.
    computed.resize(width, Terms::default());
    Ok(computed)
}

fn terms(expr: &Expr, schema: &DFSchema, below: &[Terms]) -> Result<Terms> {
    if let Expr::Column(column) = expr {
        let position = schema.maybe_index_of_column(column);
        return Ok(position.and_then(|position| below.get(position)).copied().unwrap_or_default());
    }
    let times = times_written(expr);
    let mut all = Terms::default();
    let mut children = 0;
    expr.apply_children(|child| {
        let child = terms(child, schema, below)?;
        let times = if times.all || children == 0 { times.count } else { 1 };
        children += 1;
        all.depth = all.depth.max(child.depth);
        all.size = all.size.saturating_add(child.size);
        all.grown = all.grown.saturating_add(child.grown.saturating_mul(times));
        Ok(TreeNodeRecursion::Continue)
    })?;
    if let Expr::ScalarSubquery(subquery) = expr {
        all = columns(&subquery.subquery)?.into_iter().fold(all, Terms::max);
    }
    Ok(Terms {
        depth: all.depth.saturating_add(1),
        size: all.size.saturating_add(1),
        grown: all.grown.saturating_add(1),
    })
}

/// How often the optimizer writes parts of an expression: all of them, or the first.
struct Times {
    count: usize,
    all: bool,
}

fn times_written(expr: &Expr) -> Times {
    match expr {
        // a BETWEEN b AND c: a >= b AND a <= c
        Expr::Between(_) => Times { count: 2, all: false },
        // a IN (b, c): a = b OR a = c
        Expr::InList(list) => Times { count: list.list.len().clamp(1, 3), all: false },
        // coalesce(a, b): CASE WHEN a IS NOT NULL THEN a ELSE b END
        Expr::ScalarFunction(call) if matches!(call.name(), "coalesce" | "nvl" | "ifnull" | "nvl2") => {
            Times { count: 2, all: true }
        }
        // (a + b)::text: its type is asked for anew at each level.
        Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. })
            if !matches!(**expr, Expr::Column(_) | Expr::Literal(..) | Expr::Cast(_) | Expr::TryCast(_)) =>
        {
            Times { count: 3, all: true }
        }
        _ => Times { count: 1, all: false },
    }
}
