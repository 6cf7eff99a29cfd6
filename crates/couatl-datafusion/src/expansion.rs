//! How large a statement becomes while it is planned: what is written once may be planned many times over.
//!
//! A common table expression is planned once, and copied for each mention of it; `CUBE` of n columns is 2^n groupings.
//! A function that is called by its second name (`ifnull`, which is `nvl`) is a column that has both its names, of which
//! each has both those of a call inside. All of it is counted on the syntax tree, before there is a plan that could be
//! measured.

use std::ops::ControlFlow;

use couatl_core::Error;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, ObjectNamePart, Query, Visit, Visitor};

use crate::into_datafusion;

/// The most relations of a query, with those of the common table expressions that it mentions.
const MOST_RELATIONS: usize = 10_000;
/// The most of all queries of a statement together: each is planned, mentioned or not.
const MOST_PLANNED: usize = 100_000;
/// The most groupings of a query.
const MOST_GROUPINGS: usize = 4_096;
/// The most calls by a second name inside one another.
const MOST_SECOND_NAMES: usize = 12;

/// Refuses a statement that grows too large.
///
/// # Errors
/// `invalid-argument`, which says by what.
pub(crate) fn check(state: &SessionState, statement: &Statement) -> Result<()> {
    let mut expansion = Expansion { state, open: Vec::new(), known: Vec::new(), planned: 0, second_names: 0 };
    let grown = match statement {
        Statement::Statement(statement) => statement.visit(&mut expansion),
        Statement::Explain(explain) => return check(state, &explain.statement),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => query.visit(&mut expansion),
            CopyToSource::Relation(_) => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    };
    match grown {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(into_datafusion(Error::invalid_argument(what))),
    }
}

/// A query that is being walked.
struct Open {
    /// The names of its common table expressions, which are walked first, and how many of them have been.
    tables: Vec<String>,
    done: usize,
    /// How many names were known before it.
    known: usize,
    relations: usize,
    groupings: usize,
}

struct Expansion<'a> {
    state: &'a SessionState,
    open: Vec<Open>,
    /// The common table expressions that are known, with their relations; the nearest last.
    known: Vec<(String, usize)>,
    planned: usize,
    /// How many calls by a second name are open.
    second_names: usize,
}

impl Visitor for Expansion<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        let tables = tables.map(|table| folded(&table.alias.name)).collect();
        self.open.push(Open { tables, done: 0, known: self.known.len(), relations: 1, groupings: 1 });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<String> {
        let Some(query) = self.open.pop() else { return ControlFlow::Continue(()) };
        self.known.truncate(query.known);
        self.planned += query.relations;
        if self.planned > MOST_PLANNED {
            return ControlFlow::Break(format!(
                "the statement reads more than {MOST_PLANNED} relations, with those of its common table expressions, \
                 which count wherever they are mentioned; keep some of its steps in tables"
            ));
        }
        let Some(outer) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        match outer.tables.get(outer.done) {
            Some(name) => {
                outer.done += 1;
                self.known.push((name.clone(), query.relations));
                ControlFlow::Continue(())
            }
            None => self.read(query.relations),
        }
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<String> {
        let known = match &relation.0[..] {
            [ObjectNamePart::Identifier(name)] => {
                let name = folded(name);
                self.known.iter().rev().find(|(known, _)| *known == name)
            }
            _ => None,
        };
        let relations = known.map_or(1, |(_, relations)| *relations);
        self.read(relations)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        if self.is_second_name(expr) {
            self.second_names += 1;
            if self.second_names > MOST_SECOND_NAMES {
                return ControlFlow::Break(format!(
                    "the statement has more than {MOST_SECOND_NAMES} calls inside one another of functions by their \
                     second names, such as ifnull; use the first, such as nvl"
                ));
            }
        }
        let sets = match expr {
            Expr::Cube(columns) => u32::try_from(columns.len()).ok().and_then(|count| 2usize.checked_pow(count)),
            Expr::Rollup(columns) => Some(columns.len() + 1),
            Expr::GroupingSets(sets) => Some(sets.len()),
            _ => return ControlFlow::Continue(()),
        };
        let Some(query) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        query.groupings = query.groupings.saturating_mul(sets.unwrap_or(usize::MAX));
        if query.groupings <= MOST_GROUPINGS {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(format!(
            "the query has more than {MOST_GROUPINGS} groupings: CUBE of n columns is 2^n of them, and those of several \
             multiply; list the ones that are needed in GROUPING SETS"
        ))
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        self.second_names -= usize::from(self.is_second_name(expr));
        ControlFlow::Continue(())
    }
}

impl Expansion<'_> {
    /// Whether an expression is a call of a function by another name than its first.
    fn is_second_name(&self, expr: &Expr) -> bool {
        let Expr::Function(call) = expr else { return false };
        let [ObjectNamePart::Identifier(name)] = &call.name.0[..] else { return false };
        let name = folded(name);
        self.state.scalar_functions().get(&name).is_some_and(|function| function.name() != name)
    }

    /// The innermost query reads so many relations.
    fn read(&mut self, relations: usize) -> ControlFlow<String> {
        let Some(query) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        query.relations += relations;
        if query.relations <= MOST_RELATIONS {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(format!(
            "the query reads more than {MOST_RELATIONS} relations, with those of its common table expressions: one that \
             is mentioned twice counts twice; keep some of its steps in tables"
        ))
    }
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::datafusion_statement;

    fn problem(text: &str) -> Option<String> {
        let state = datafusion::prelude::SessionContext::new().state();
        check(&state, &datafusion_statement(text).unwrap()).err().map(|error| crate::from_datafusion(error).to_string())
    }

    fn chain(count: usize, next: &str) -> String {
        let tables = (1..count).map(|i| format!(", a{i} AS ({})", next.replace('$', &format!("a{}", i - 1))));
        format!("WITH a0 AS (SELECT 1 AS x){} SELECT * FROM A{}", tables.collect::<String>(), count - 1)
    }

    #[test]
    fn tables_count_wherever_they_are_mentioned() {
        let twice = "SELECT * FROM $ UNION ALL SELECT * FROM (SELECT * FROM $)";
        assert_eq!(problem(&chain(8, twice)), None);
        for text in [chain(25, twice), format!("SELECT 1 IN ({})", chain(25, twice)), chain(25, "SELECT * FROM $, $ b")]
        {
            assert!(problem(&text).unwrap().starts_with("the query reads more than 10000 relations"), "{text}");
            assert!(problem(&format!("CREATE VIEW v AS {text}")).is_some());
            assert!(problem(&format!("EXPLAIN {text}")).is_some());
            assert!(problem(&format!("COPY ({text}) TO 'x.csv'")).is_some());
        }
        assert_eq!(problem(&chain(250, "SELECT * FROM $")), None);
        assert!(problem(&chain(2000, "SELECT * FROM $")).unwrap().contains("more than 100000 relations"));
    }

    #[test]
    fn names_are_those_in_sight() {
        // Inner ones hide outer ones, and are forgotten afterwards.
        let inner = "SELECT * FROM (WITH a24 AS (SELECT 1) SELECT * FROM a24, a24 b), other.a24";
        assert_eq!(problem(&format!("WITH \"A24\" AS (SELECT 1) {inner}")), None);
        let many = vec!["(WITH a AS (SELECT 1) SELECT * FROM a, a b)"; 400].join(" UNION ALL ");
        assert_eq!(problem(&many), None);
    }

    #[test]
    fn calls_by_second_names_are_few() {
        let calls =
            |name: &str, count: usize| format!("SELECT {}1{}", format!("{name}(").repeat(count), ")".repeat(count));
        for (name, most) in [("ifnull", 12), ("CHAR_LENGTH", 12), ("nvl", 40), ("replace", 40)] {
            assert_eq!(problem(&calls(name, most)), None, "{name}");
            assert_eq!(problem(&calls(name, most + 1)).is_some(), most == 12, "{name}");
        }
        assert_eq!(problem(&format!("SELECT {}", vec!["ifnull(1, 2)"; 50].join(", "))), None);
    }

    #[test]
    fn groupings_multiply() {
        assert_eq!(problem("SELECT 1 FROM t GROUP BY CUBE (a, b, c), ROLLUP (d, e)"), None);
        let columns = |count: usize| vec!["a"; count].join(", ");
        assert_eq!(problem(&format!("SELECT 1 FROM t GROUP BY CUBE ({})", columns(12))), None);
        for sets in [format!("CUBE ({})", columns(13)), format!("CUBE ({0}), CUBE ({0})", columns(7))] {
            assert!(problem(&format!("SELECT 1 FROM t GROUP BY {sets}")).unwrap().contains("more than 4096 groupings"));
        }
        assert!(problem(&format!("SELECT 1 FROM t GROUP BY CUBE ({})", columns(200))).is_some());
    }
}
