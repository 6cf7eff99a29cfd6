//! Statements that are deep: what is taken is planned, run and dropped on a thread of 2 MiB, the least that runtimes
//! give; what is deeper is an error.

use std::sync::Arc;

use couatl_datafusion::{Session, from_datafusion};
use datafusion::datasource::ViewTable;

use crate::scripted::{ScriptedHost, Shared};

const LEVELS: usize = 480;

/// Runs statements, the rows of the last as the program that embeds a session would, on a small stack.
fn run(statements: Vec<String>) -> Result<usize, String> {
    let run = async move {
        let session = Session::new(Arc::new(Shared(Arc::new(ScriptedHost::default())))).unwrap();
        session.sql("CREATE TABLE t AS SELECT * FROM (VALUES (1), (2), (3)) AS t (n)").await.unwrap();
        let mut rows = 0;
        for statement in statements {
            session.prepare(&statement).await.map_err(|error| format!("{}: {error}", error.kind()))?;
            let data_frame = session.sql(&statement).await.map_err(|error| format!("{}: {error}", error.kind()))?;
            rows = data_frame.count().await.map_err(|error| error.to_string())?;
        }
        Ok(rows)
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    thread.spawn(move || runtime().block_on(async { tokio::spawn(run).await.unwrap() })).unwrap().join().unwrap()
}

fn chain(first: &str, next: &str, count: usize) -> String {
    format!("{first}{}", next.repeat(count))
}

/// Chains of so many levels: a cast takes three of them, a join two.
fn chains(levels: usize) -> Vec<String> {
    let joins = (1..levels / 2).map(|i| format!(" JOIN t AS t{i} ON t{i}.n = t0.n"));
    vec![
        chain("SELECT n", " + n", levels) + " FROM t",
        chain("SELECT n FROM t WHERE n = 1", " OR n = 2", levels),
        chain("SELECT n FROM t WHERE n + 1 > 1", " AND n % 7 < 5", levels),
        chain("SELECT n::text", " || n::text", levels) + " FROM t",
        chain("SELECT n", "::text::bigint", levels / 6) + " FROM t",
        chain("SELECT n FROM t", " UNION ALL SELECT n FROM t", levels),
        joins.fold("SELECT t0.n FROM t AS t0".to_owned(), |text, join| text + &join),
    ]
}

#[test]
fn a_long_chain_runs() {
    for statement in chains(LEVELS) {
        let start = statement[..40].to_owned();
        assert!(run(vec![statement]).is_ok_and(|rows| rows > 0), "{start}");
    }
}

#[test]
fn a_longer_chain_is_an_error() {
    for statement in chains(20_000) {
        let error = run(vec![statement]).unwrap_err();
        assert!(error.starts_with("invalid-syntax: the statement is too deep: "), "{error}");
    }
}

#[test]
fn long_lists_run() {
    let numbers = |format: fn(usize) -> String| (1..12_000).map(format).collect::<Vec<_>>().join(", ");
    let numbers_in = format!("SELECT n FROM t WHERE n IN ({})", numbers(|n| n.to_string()));
    assert_eq!(run(vec![numbers_in]), Ok(3));
    assert_eq!(run(vec![format!("VALUES {}", numbers(|n| format!("({n}, -{n})")))]), Ok(11_999));
}

#[test]
fn relations_on_relations_run_or_are_refused() {
    let steps = |count: usize| {
        let step = |i: usize| format!(", t{i} AS (SELECT sum(n) AS n FROM t{})", i - 1);
        let steps: String = (1..count).map(step).collect();
        format!("WITH t0 AS (SELECT n FROM t){steps} SELECT * FROM t{}", count - 1)
    };
    assert_eq!(run(vec![steps(90)]), Ok(1));
    let error = run(vec![steps(400)]).unwrap_err();
    assert!(error.contains("and the limit is 300: views, subqueries"), "{error}");
}

fn views(count: usize) -> Vec<String> {
    let view = |i: usize| format!("CREATE VIEW v{i} AS SELECT n + 1 AS n FROM v{}", i - 1);
    let first = "CREATE VIEW v0 AS SELECT n FROM t".to_owned();
    std::iter::once(first).chain((1..count).map(view)).chain([format!("SELECT * FROM v{}", count - 1)]).collect()
}

#[test]
fn views_on_views_run_or_are_refused() {
    assert_eq!(run(views(50)), Ok(3));
    let error = run(views(200)).unwrap_err();
    assert!(error.starts_with("invalid-argument: view 'v"), "{error}");
    assert!(error.contains("reads a chain of more than 64 views"), "{error}");
}

#[tokio::test]
async fn a_view_that_has_come_to_read_itself_says_so_and_can_be_dropped() {
    let session = Session::new(Arc::new(Shared(Arc::new(ScriptedHost::default())))).unwrap();
    // A program may register what CREATE VIEW would refuse.
    for (view, read) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let plan = session.sql("SELECT 1 AS x").await.unwrap().logical_plan().clone();
        let definition = format!("CREATE VIEW {view} AS SELECT * FROM {read}");
        session.context().register_table(view, Arc::new(ViewTable::new(plan, Some(definition)))).unwrap();
    }
    session.sql("CREATE VIEW reader AS SELECT * FROM a").await.unwrap_err();
    let error = session.sql("SELECT * FROM b").await.unwrap().collect().await.unwrap_err();
    assert_eq!(from_datafusion(error).to_string(), "view 'b' reads itself: b reads c reads a reads b");
    session.sql("SELECT * FROM information_schema.columns").await.unwrap().collect().await.unwrap();
    session.sql("DROP VIEW b").await.unwrap();
}
