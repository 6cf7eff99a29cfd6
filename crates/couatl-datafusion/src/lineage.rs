//! From which table a column of a result comes, where it comes from one unchanged.

use datafusion::common::{JoinType, TableReference};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, UNNAMED_TABLE};

/// The table of each column of a plan; none for what is computed.
pub(crate) fn origins(plan: &LogicalPlan) -> Vec<Option<&TableReference>> {
    (0..plan.schema().fields().len()).map(|column| origin(plan, column)).collect()
}

fn origin(plan: &LogicalPlan, column: usize) -> Option<&TableReference> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(&scan.table_name).filter(|name| is_table(name.table())),
        LogicalPlan::Projection(projection) => {
            let Expr::Column(source) = projection.expr.get(column)?.clone().unalias() else { return None };
            origin(&projection.input, projection.input.schema().maybe_index_of_column(&source)?)
        }
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full if column >= left => {
                    origin(&join.right, column - left)
                }
                JoinType::RightSemi | JoinType::RightAnti => origin(&join.right, column),
                JoinType::Inner
                | JoinType::Left
                | JoinType::Right
                | JoinType::Full
                | JoinType::LeftSemi
                | JoinType::LeftAnti => origin(&join.left, column),
                _ => None,
            }
        }
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, column),
        LogicalPlan::Filter(filter) => origin(&filter.input, column),
        LogicalPlan::Sort(sort) => origin(&sort.input, column),
        LogicalPlan::Limit(limit) => origin(&limit.input, column),
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, column),
        _ => None,
    }
}

/// Whether it is a table that has the name: the planner calls what a function gives by the function's, with parentheses.
fn is_table(name: &str) -> bool {
    name != UNNAMED_TABLE && !name.ends_with("()")
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn columns_are_followed_to_their_tables() {
        let context = SessionContext::new();
        for table in ["CREATE TABLE a (n INT, s TEXT)", "CREATE TABLE b (n INT, t TEXT)"] {
            context.sql(table).await.unwrap();
        }
        for (sql, expected) in [
            ("SELECT * FROM a", "a a"),
            ("SELECT s AS x, n + 1, 1 FROM a WHERE n > 1 ORDER BY n LIMIT 3", "a - -"),
            ("SELECT DISTINCT y.t, x.n FROM a x JOIN b y ON x.n = y.n", "b a"),
            ("SELECT * FROM (SELECT t FROM b) AS c LEFT JOIN a ON a.s = c.t", "b a a"),
            ("SELECT t FROM b WHERE n IN (SELECT n FROM a)", "b"),
            ("SELECT n FROM a UNION ALL SELECT n FROM b", "-"),
            ("SELECT count(*), s FROM a GROUP BY s", "- -"),
            ("SELECT value, n FROM generate_series(1, 3) JOIN a ON n = value", "- a"),
        ] {
            let plan = context.sql(sql).await.unwrap().into_unoptimized_plan();
            let names = origins(&plan).into_iter().map(|origin| origin.map_or("-".to_owned(), ToString::to_string));
            assert_eq!(names.collect::<Vec<_>>().join(" "), expected, "{sql}");
        }
    }
}
