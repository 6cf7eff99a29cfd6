//! Streams under DataFusion, with sources in Rust that a test drives step by step: when rows arrive, who is told that
//! a query is over, and in which order.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod band;
mod depth;
mod join_answers;
mod joins;
mod order;
mod scripted;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use couatl_core::ErrorKind;
use couatl_datafusion::{Outcome, Session, SessionSettings, from_datafusion};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::scripted::{ScriptedHost, Shared, Step};

/// A session with streams `a` (unbounded) and `b` (bounded), each of one column `n`.
async fn session() -> (Session, Arc<ScriptedHost>) {
    let host = Arc::new(ScriptedHost::default());
    let session = Session::new(Arc::new(Shared(host.clone()))).unwrap();
    for (name, mode) in [("a", "streaming"), ("b", "batch")] {
        session.sql(&create(name, "n int64", mode)).await.unwrap();
    }
    (session, host)
}

fn create(name: &str, columns: &str, mode: &str) -> String {
    format!("CREATE OR REPLACE EXTERNAL STREAM {name} ({columns}) AS $$ $$ SETTINGS type = 'python', mode = '{mode}'")
}

async fn start(session: &Session, sql: &str) -> SendableRecordBatchStream {
    session.sql(sql).await.unwrap().execute_stream().await.unwrap()
}

fn numbers(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

async fn next(rows: &mut SendableRecordBatchStream) -> Vec<i64> {
    numbers(&rows.next().await.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_row_arrives_before_its_successor_exists() {
    for sql in [
        "SELECT n FROM a",
        "SELECT n FROM a WHERE n > 0",
        "SELECT n + 0 AS n FROM a WHERE n > 0 AND n % 2 = 1",
        "SELECT n FROM (SELECT n, n + 1 AS m FROM a) WHERE m > 1 LIMIT 100",
    ] {
        let (session, host) = session().await;
        let script = host.script("a");
        let mut rows = start(&session, sql).await;
        for n in [1, 3, 5] {
            script.send(Step::Rows(vec![n])).unwrap();
            // Time stands still: nothing but the row itself can wake the query.
            assert_eq!(next(&mut rows).await, [n], "{sql}");
        }
    }
}

#[tokio::test]
async fn a_killed_query_ends_with_cancelled_after_its_cleanup() {
    let (session, host) = session().await;
    let script = host.script("a");
    let mut rows = start(&session, "SELECT n FROM a").await;
    script.send(Step::Rows(vec![1])).unwrap();
    assert_eq!(next(&mut rows).await, [1]);
    let query = session.queries().list().remove(0);
    assert_eq!((query.state, query.rows, query.sql.as_str()), ("running", 1, "SELECT n FROM a"));
    session.sql(&format!("KILL QUERY '{}'", query.query_id)).await.unwrap();
    let error = from_datafusion(rows.next().await.unwrap().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(host.log.take(), ["open a", "close a"]);
    assert!(rows.next().await.is_none());
    drop(rows);
    assert!(session.queries().list().is_empty());
    let error = session.sql("KILL QUERY 'x'").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn dropping_the_rows_closes_the_source() {
    let (session, host) = session().await;
    let script = host.script("a");
    let mut rows = start(&session, "SELECT n FROM a WHERE n > 0").await;
    script.send(Step::Rows(vec![1])).unwrap();
    next(&mut rows).await;
    drop(rows);
    assert_eq!(host.log.take(), ["open a", "close a"]);
    assert!(session.queries().list().is_empty());
}

#[tokio::test]
async fn limit_ends_the_query_and_closes_the_source() {
    let (session, host) = session().await;
    let script = host.script("a");
    script.send(Step::Rows(vec![1, 2, 3])).unwrap();
    let rows = session.sql("SELECT n FROM a LIMIT 2").await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().flat_map(numbers).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(host.log.take(), ["open a", "close a"]);
}

#[tokio::test]
async fn a_failing_cleanup_after_the_last_row_fails_the_query() {
    let (session, host) = session().await;
    host.failing.lock().push("a".into());
    let script = host.script("a");
    script.send(Step::Rows(vec![1, 2, 3])).unwrap();
    let mut rows = start(&session, "SELECT n FROM a LIMIT 2").await;
    assert_eq!(next(&mut rows).await, [1, 2]);
    assert_eq!(rows.next().await.unwrap().unwrap_err().to_string(), "External error: the cleanup failed");
}

#[tokio::test]
async fn an_error_arrives_after_the_rows_before_it() {
    let (session, host) = session().await;
    let script = host.script("b");
    script.send(Step::Rows(vec![1])).unwrap();
    script.send(Step::Fail("boom")).unwrap();
    let mut rows = start(&session, "SELECT n FROM b").await;
    assert_eq!(next(&mut rows).await, [1]);
    assert_eq!(from_datafusion(rows.next().await.unwrap().unwrap_err()).to_string(), "boom");
    assert_eq!(host.log.take(), ["open b", "close b"]);
}

#[tokio::test(start_paused = true)]
async fn a_cleanup_that_never_ends_is_listed_as_stuck_and_holds_nobody() {
    let (session, host) = session().await;
    host.stuck.lock().push("a".into());
    let script = host.script("a");
    script.send(Step::Rows(vec![1])).unwrap();
    let rows = session.sql("SELECT n FROM a LIMIT 1").await.unwrap().collect().await.unwrap();
    assert_eq!(rows.len(), 1, "the rows are there all the same");
    assert_eq!(session.queries().list().len(), 1);
    session.shutdown(Duration::from_secs(1)).await;
    host.release();
    assert!(session.queries().list().is_empty());
}

#[tokio::test]
async fn what_could_never_answer_is_refused_in_a_sentence() {
    let (session, _host) = session().await;
    for (sql, start) in [
        ("SELECT count(*) FROM a", "an aggregate would never answer: it needs all rows, and the stream 'a' has no end"),
        ("SELECT n FROM a ORDER BY n", "ORDER BY would never answer"),
    ] {
        let data_frame = session.sql(sql).await.unwrap();
        let Err(error) = data_frame.execute_stream().await else { panic!("{sql} was planned") };
        let message = from_datafusion(error).to_string();
        assert!(message.starts_with(start), "{message}");
        assert!(message.contains("LIMIT in a subquery"), "{message}");
    }
}

#[tokio::test]
async fn limit_makes_an_endless_stream_countable() {
    let (session, host) = session().await;
    let script = host.script("a");
    script.send(Step::Rows(vec![1, 2, 3])).unwrap();
    let rows = session.sql("SELECT count(*) FROM (SELECT n FROM a LIMIT 2)").await.unwrap().collect().await.unwrap();
    assert_eq!(numbers(&rows[0]), [2]);
}

#[tokio::test]
async fn a_query_that_keeps_too_much_fails_and_says_what_to_do() {
    let host = Arc::new(ScriptedHost::default());
    let settings = SessionSettings { memory_limit: Some(1 << 20), ..SessionSettings::default() };
    let session = Session::with_settings(Arc::new(Shared(host.clone())), settings).unwrap();
    session.sql(&create("c", "n int64", "streaming")).await.unwrap();
    let script = host.script("c");
    script.send(Step::Rows((0..1_000_000).collect())).unwrap();
    drop(script);
    let sql = "SELECT count(DISTINCT n) FROM (SELECT n FROM c LIMIT 1000000)";
    let error = session.sql(sql).await.unwrap().collect().await.unwrap_err();
    let error = from_datafusion(error);
    assert_eq!(error.kind(), ErrorKind::ResourcesExhausted);
    assert!(
        error.to_string().starts_with("the memory limit is reached: raise it, or let the query keep fewer"),
        "{error}"
    );
}

#[tokio::test]
async fn an_insert_writes_commits_and_counts() {
    let (session, host) = session().await;
    let prepared = session.prepare("INSERT INTO a VALUES (1), (2)").await.unwrap();
    assert!(prepared.is_update());
    assert!(host.log.take().is_empty(), "preparing has no side effect");
    let Outcome::Updated(count) = session.execute(&prepared, None).await.unwrap() else { panic!("rows") };
    assert_eq!(count, Some(2));
    assert_eq!(host.log.take(), ["open a", "write 2 rows to a", "commit a"]);
}

#[tokio::test]
async fn an_insert_whose_write_or_input_fails_is_aborted() {
    let (session, host) = session().await;
    host.failing.lock().push("a".into());
    let error = session.sql("INSERT INTO a VALUES (1)").await.unwrap().collect().await.unwrap_err();
    assert_eq!(from_datafusion(error).to_string(), "the write failed");
    assert_eq!(host.log.take(), ["open a", "write 1 rows to a", "abort a"]);
    host.failing.lock().clear();
    let script = host.script("b");
    script.send(Step::Rows(vec![1])).unwrap();
    script.send(Step::Fail("boom")).unwrap();
    let error = session.sql("INSERT INTO a SELECT n FROM b").await.unwrap().collect().await.unwrap_err();
    assert_eq!(from_datafusion(error).to_string(), "boom\nthe write function had accepted 1 row before");
    assert!(host.log.take().contains(&"abort a".to_owned()));
}

#[tokio::test]
async fn an_insert_whose_client_has_left_is_cancelled() {
    let (session, host) = session().await;
    let script = host.script("b");
    script.send(Step::Rows(vec![1])).unwrap();
    let mut counts = start(&session, "INSERT INTO a SELECT n FROM b").await;
    assert!(futures::poll!(counts.next()).is_pending());
    drop(counts);
    while !session.queries().list().is_empty() {
        tokio::task::yield_now().await;
    }
    let log = host.log.take();
    assert!(!log.contains(&"commit a".to_owned()), "{log:?}");
}

#[tokio::test]
async fn views_and_prepared_statements_follow_the_stream_they_name() {
    let (session, host) = session().await;
    session.sql("CREATE VIEW v AS SELECT n FROM b").await.unwrap();
    session.sql("PREPARE p AS SELECT n FROM b").await.unwrap();
    let prepared = session.prepare("SELECT * FROM b").await.unwrap();
    session.sql(&create("b", "n int64, m int64", "batch")).await.unwrap();
    for sql in ["SELECT * FROM v", "SELECT m FROM b", "EXECUTE p"] {
        let script = host.script("b");
        script.send(Step::Rows(vec![7])).unwrap();
        drop(script);
        assert_eq!(numbers(&session.sql(sql).await.unwrap().collect().await.unwrap()[0]), [7], "{sql}");
    }
    let script = host.script("b");
    script.send(Step::Rows(vec![7])).unwrap();
    drop(script);
    let Outcome::Rows(mut rows) = session.execute(&prepared, None).await.unwrap() else { panic!("an update") };
    assert_eq!(rows.next().await.unwrap().unwrap().num_columns(), 2);
    session.sql("DROP STREAM b").await.unwrap();
    let error = session.sql("SELECT * FROM v").await.unwrap().collect().await.unwrap_err();
    assert_eq!(from_datafusion(error).kind(), ErrorKind::NotFound);
    let columns = session.sql("SELECT count(*) FROM information_schema.columns WHERE table_name = 'v'").await.unwrap();
    assert_eq!(numbers(&columns.collect().await.unwrap()[0]), [1], "it is still known, with the columns it had");
    session.sql("DROP VIEW v").await.unwrap();
}

#[tokio::test]
async fn explain_opens_nothing() {
    let (session, host) = session().await;
    session.sql("EXPLAIN SELECT n FROM a WHERE n > 1").await.unwrap().collect().await.unwrap();
    assert!(host.log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn explain_analyze_of_an_endless_stream_ends_by_itself() {
    let (session, host) = session().await;
    let script = host.script("a");
    script.send(Step::Rows(vec![1])).unwrap();
    let batches = session.sql("EXPLAIN ANALYZE SELECT n FROM a").await.unwrap().collect().await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert!(text.contains("was ended after 5 s"), "{text}");
    assert_eq!(host.log.take(), ["open a", "close a"]);
}

#[tokio::test(start_paused = true)]
async fn explain_analyze_waits_for_the_cleanup_once() {
    let (session, host) = session().await;
    host.stuck.lock().push("a".into());
    let _script = host.script("a");
    let start = tokio::time::Instant::now();
    let batches = session.sql("EXPLAIN ANALYZE SELECT n FROM a").await.unwrap().collect().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10, "five to watch it, five for its cleanup");
    let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    assert!(text.contains("output_batches=0]"), "a time of nothing is left out: {text}");
}
