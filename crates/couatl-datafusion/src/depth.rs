//! Plans are trees, and what walks a tree takes a piece of the stack for each of its levels: planning has a stack of its
//! own, and plans that would be too deep for the threads that run them are refused.
//!
//! The depth of expressions is bounded where they are parsed, in couatl-sql. What is bounded here is how deep relations
//! stand on each other: views on views, one common table expression on the other.

use std::pin::pin;

use couatl_core::Error;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;

use crate::into_datafusion;

/// What planning has at least, wherever it is called from.
const PLANNING_STACK_BYTES: usize = 64 << 20;
/// Where less is left, a new stack is made.
const LEAST_STACK_BYTES: usize = 16 << 20;

/// The deepest plan that is taken.
const MOST_LEVELS: usize = 300;

/// The largest: the optimizer walks it many times.
const MOST_NODES: usize = 10_000;

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

/// Refuses a plan that is too deep.
///
/// # Errors
/// `invalid-argument`, which says how deep it is.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let (levels, nodes) = size(plan);
    if nodes > MOST_NODES {
        return Err(into_datafusion(Error::invalid_argument(format!(
            "the query has more than {MOST_NODES} steps, with those of the views that it reads: a view that is read \
             twice counts twice; keep some of its steps in tables"
        ))));
    }
    if levels <= MOST_LEVELS {
        return Ok(());
    }
    Err(into_datafusion(Error::invalid_argument(format!(
        "the query is {levels} levels deep, and the limit is {MOST_LEVELS}: views, subqueries, joins and set operations \
         take a level or two each; keep some of its steps in tables"
    ))))
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
