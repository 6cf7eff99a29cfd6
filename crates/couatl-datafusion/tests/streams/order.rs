//! What stands on `order_by`: that each row arrives as soon as nothing that may come could change it, and that a stream
//! which breaks its promise fails.
//!
//! No clock is read. A script gives its next rows only when all that follows from those before has arrived; a row that
//! is held back lets the (paused) time run out.
#![expect(clippy::panic, reason = "clippy does not see that functions between tests are tests too")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use couatl_core::{Body, Host, StreamDefinition};
use couatl_datafusion::{Session, StreamTable, from_datafusion};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::scripted::{ScriptedHost, Shared, Step};

/// A row of a stream: seconds, a key, a value.
pub(crate) type Row = (Option<i64>, &'static str, i64);

/// A session with endless streams `s` and `t`, both in this order.
pub(crate) async fn session(order_by: &str) -> (Session, Arc<ScriptedHost>) {
    let host = Arc::new(ScriptedHost::default());
    let session = Session::new(Arc::new(Shared(host.clone()))).unwrap();
    for name in ["s", "t"] {
        let create = format!(
            "CREATE EXTERNAL STREAM {name} (ts timestamp, k string, v int64) AS $$ $$ \
             SETTINGS type = 'python', mode = 'streaming', order_by = '{order_by}'"
        );
        session.sql(&create).await.unwrap();
    }
    (session, host)
}

pub(crate) fn batch(rows: &[Row]) -> Step {
    let seconds = rows.iter().map(|row| row.0.map(|seconds| seconds * 1_000_000));
    let columns: [(&str, ArrayRef); 3] = [
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter(seconds))),
        ("k", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("v", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    Step::Batch(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap())
}

/// Rows of one batch, their times without the date.
pub(crate) fn shown(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL").with_timestamp_format(Some("%M:%S"));
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    let row = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" ");
    (0..batch.num_rows()).map(row).collect()
}

/// Waits for rows, as many as are expected.
pub(crate) async fn expect(rows: &mut SendableRecordBatchStream, expected: &[&str], of: &str) {
    let mut arrived = Vec::new();
    while arrived.len() < expected.len() {
        match tokio::time::timeout(Duration::from_secs(3600), rows.next()).await {
            Ok(Some(batch)) => arrived.extend(shown(&batch.unwrap())),
            Ok(None) => panic!("{of}: it has ended with {arrived:?}, without {expected:?}"),
            Err(_) => panic!("{of}: rows are held back: {expected:?} expected, {arrived:?} arrived"),
        }
    }
    assert_eq!(arrived, expected, "{of}");
}

/// Runs a query of the stream `s`; after each step, these rows arrive, before there is another step.
async fn check(order_by: &str, sql: &str, steps: &[(&[Row], &[&str])]) {
    let (session, host) = session(order_by).await;
    let script = host.script("s");
    let planned = session.sql(sql).await.unwrap().execute_stream().await;
    let mut rows = planned.unwrap_or_else(|error| panic!("{sql}: {}", from_datafusion(error)));
    for (step, expected) in steps {
        script.send(batch(step)).unwrap();
        expect(&mut rows, expected, sql).await;
    }
}

pub(crate) const fn at(seconds: i64, k: &'static str, v: i64) -> Row {
    (Some(seconds), k, v)
}

#[tokio::test(start_paused = true)]
async fn a_group_arrives_when_the_next_one_opens() {
    const STEPS: &[(&[Row], &[&str])] = &[
        (&[at(1, "a", 1), at(4, "b", 2)], &[]),
        (&[at(9, "a", 3)], &[]),
        (&[at(10, "a", 4)], &["00:00 3 6"]),
        (&[at(25, "a", 5), at(31, "b", 6)], &["00:10 1 4", "00:20 1 5"]),
        (&[at(31, "a", 7), at(40, "a", 1)], &["00:30 2 13"]),
    ];
    for bin in ["date_bin(interval '10 seconds', ts)", "date_bin(interval '10 seconds', ts, timestamp '2020-01-01')"] {
        check("ts", &format!("SELECT {bin} AS b, count(*), sum(v) FROM s GROUP BY b"), STEPS).await;
        check("ts", &format!("SELECT {bin} AS b, count(*), sum(v) FROM s GROUP BY 1 ORDER BY 1"), STEPS).await;
        check("ts, k", &format!("SELECT {bin} AS b, count(*), sum(v) FROM s GROUP BY b HAVING count(*) > 0"), STEPS)
            .await;
    }
    check(
        "ts",
        "SELECT date_trunc('minute', ts) AS m, max(v) FILTER (WHERE v < 9) FROM s WHERE v > 0 GROUP BY m",
        &[(&[at(1, "a", 1), at(59, "a", 5), at(59, "a", 9)], &[]), (&[at(60, "a", 2)], &["00:00 5"])],
    )
    .await;
    check(
        "ts",
        "SELECT date_bin(interval '10 seconds', ts) AS b, k, sum(v) FROM s GROUP BY k, b",
        &[
            (&[at(1, "a", 1), at(2, "b", 2), at(3, "a", 3)], &[]),
            (&[at(10, "b", 4)], &["00:00 a 4", "00:00 b 2"]),
            (&[at(21, "a", 5)], &["00:10 b 4"]),
        ],
    )
    .await;
    check(
        "ts",
        "SELECT date_bin(interval '10 seconds', ts) AS b, count(DISTINCT k) FROM s GROUP BY b",
        &[(&[at(1, "a", 1), at(2, "b", 2), at(3, "a", 3)], &[]), (&[at(10, "b", 4)], &["00:00 2"])],
    )
    .await;
    check(
        "ts",
        "SELECT m, sum(c) FROM (SELECT date_trunc('minute', b) AS m, c FROM (SELECT date_bin(interval '10 seconds', ts) \
         AS b, count(*) AS c FROM s GROUP BY b)) GROUP BY m",
        &[(&[at(1, "a", 1), at(20, "a", 2), at(60, "a", 3)], &[]), (&[at(70, "b", 4)], &["00:00 2"])],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_distinct_row_arrives_when_the_next_one_comes() {
    let steps: &[(&[Row], &[&str])] =
        &[(&[at(1, "a", 1), at(1, "b", 1)], &[]), (&[at(2, "a", 1), at(3, "a", 1)], &["00:01", "00:02"])];
    check("ts", "SELECT DISTINCT ts FROM s", steps).await;
    check("ts", "SELECT DISTINCT ts FROM s LIMIT 100", steps).await;
    check("ts", "SELECT ts FROM s GROUP BY ts ORDER BY ts LIMIT 100", steps).await;
    check(
        "ts",
        "SELECT DISTINCT ts, k FROM s",
        &[(&[at(1, "a", 1), at(1, "b", 1), at(1, "a", 2)], &[]), (&[at(2, "a", 1)], &["00:01 a", "00:01 b"])],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_in_order_needs_no_sort() {
    check(
        "ts",
        "SELECT ts, v FROM s WHERE v > 0 ORDER BY ts",
        &[(&[at(1, "a", 1), at(1, "a", 0)], &["00:01 1"]), (&[at(1, "a", 2)], &["00:01 2"])],
    )
    .await;
    check("ts, k", "SELECT k FROM s ORDER BY ts, k", &[(&[at(1, "a", 1)], &["a"])]).await;
    check("k, ts", "SELECT v FROM s ORDER BY k", &[(&[at(1, "a", 1)], &["1"])]).await;
    // Rows of one instant are sorted when the next one has come.
    check(
        "ts",
        "SELECT ts, k FROM s ORDER BY ts, k",
        &[(&[at(1, "b", 1), at(1, "a", 0)], &[]), (&[at(2, "a", 2)], &["00:01 a", "00:01 b"])],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_row_arrives_when_its_frame_is_complete() {
    for (window, steps) in [
        // What follows a row does not matter: it arrives at once.
        ("row_number() OVER (ORDER BY ts)", [&["1", "2"][..], &["3"], &["4"]]),
        ("rank() OVER (ORDER BY ts)", [&["1", "1"], &["3"], &["4"]]),
        ("lag(v) OVER (ORDER BY ts)", [&["NULL", "1"], &["2"], &["3"]]),
        ("sum(v) OVER (ORDER BY ts ROWS UNBOUNDED PRECEDING)", [&["1", "3"], &["6"], &["10"]]),
        ("sum(v) OVER (ORDER BY ts ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)", [&["1", "3"], &["5"], &["7"]]),
        ("first_value(v) OVER (ORDER BY ts ROWS 1 PRECEDING)", [&["1", "1"], &["2"], &["3"]]),
        ("row_number() OVER (PARTITION BY k ORDER BY ts)", [&["1", "1"], &["2"], &["2"]]),
        ("lag(v) OVER (PARTITION BY k ORDER BY ts)", [&["NULL", "NULL"], &["1"], &["2"]]),
        ("sum(v) OVER (PARTITION BY k ORDER BY ts ROWS UNBOUNDED PRECEDING)", [&["1", "2"], &["4"], &["6"]]),
        ("row_number() OVER ()", [&["1", "2"], &["3"], &["4"]]),
        // Rows of the same instant are in the frame of one another: it is complete when the next instant comes.
        ("sum(v) OVER (ORDER BY ts)", [&[], &["3", "3"], &["6"]]),
        ("sum(v) OVER (PARTITION BY k ORDER BY ts)", [&[], &["1", "2"], &["4"]]),
        ("sum(v) OVER (ORDER BY ts RANGE interval '1 second' PRECEDING)", [&[], &["3", "3"], &["6"]]),
        ("max(v) OVER (PARTITION BY ts ORDER BY ts)", [&[], &["2", "2"], &["3"]]),
        // These wait for rows to come.
        ("lead(v) OVER (ORDER BY ts)", [&["2"], &["3"], &["4"]]),
        // DataFusion lets the first row after the frame pass, too.
        ("sum(v) OVER (ORDER BY ts ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING)", [&[], &["3"], &["5"]]),
    ] {
        let sql = format!("SELECT {window} FROM s");
        let steps: [(&[Row], &[&str]); 3] =
            [(&[at(1, "a", 1), at(1, "b", 2)], steps[0]), (&[at(2, "a", 3)], steps[1]), (&[at(3, "b", 4)], steps[2])];
        check("ts", &sql, &steps).await;
    }
}

#[tokio::test]
async fn what_the_order_does_not_bound_is_refused() {
    let (session, _host) = session("ts").await;
    for (sql, start) in [
        ("SELECT k, count(*) FROM s GROUP BY k", "an aggregate would never answer"),
        ("SELECT ts FROM s ORDER BY ts DESC", "ORDER BY would never answer"),
        ("SELECT ts FROM s ORDER BY v", "ORDER BY would never answer"),
        ("SELECT max(v) OVER (PARTITION BY ts) FROM s", "a window function would never answer"),
        ("SELECT sum(v) OVER () FROM s", "a window function would never answer"),
        ("SELECT ntile(2) OVER (ORDER BY ts) FROM s", "a window function would never answer"),
        (
            "SELECT ts FROM s UNION ALL SELECT ts FROM t ORDER BY ts",
            "operator SortPreservingMergeExec above streams 's', 't' keeps rows back",
        ),
        (
            "SELECT ts, count(*) FROM (SELECT ts FROM s UNION ALL SELECT ts FROM t) GROUP BY ts",
            "operator SortPreservingMergeExec above streams 's', 't' keeps rows back",
        ),
        (
            "SELECT s.v FROM s JOIN (SELECT * FROM s UNION ALL SELECT * FROM t) AS t ON s.k = t.k AND s.ts = t.ts",
            "this join would never answer",
        ),
    ] {
        let Err(error) = session.sql(sql).await.unwrap().execute_stream().await else { panic!("{sql} was planned") };
        let message = from_datafusion(error).to_string();
        assert!(message.starts_with(start), "{sql}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn unions_deliver_rows_as_they_come() {
    let (session, host) = session("ts").await;
    let (s, _t) = (host.script("s"), host.script("t"));
    let sql = "SELECT ts FROM s UNION ALL SELECT ts FROM t";
    let mut rows = session.sql(sql).await.unwrap().execute_stream().await.unwrap();
    s.send(batch(&[at(1, "a", 1)])).unwrap();
    expect(&mut rows, &["00:01"], sql).await;
}

/// Sends these batches, and gives the rows that arrive, then the error.
async fn broken(order_by: &str, columns: &str, batches: &[&[Row]]) -> (Vec<String>, String) {
    let (session, host) = session(order_by).await;
    let script = host.script("s");
    batches.iter().for_each(|rows| script.send(batch(rows)).unwrap());
    let mut rows = session.sql(&format!("SELECT {columns} FROM s")).await.unwrap().execute_stream().await.unwrap();
    let mut arrived = Vec::new();
    loop {
        match rows.next().await.unwrap() {
            Ok(batch) => arrived.extend(shown(&batch)),
            Err(error) => {
                assert_eq!(host.log.take(), ["open s", "close s"]);
                assert!(rows.next().await.is_none());
                return (arrived, from_datafusion(error).to_string());
            }
        }
    }
}

#[tokio::test]
async fn the_first_row_that_goes_back_fails_the_query() {
    let promise = "promises ascending rows, NULLs last; yield them in order, or drop the setting";
    let (rows, error) = broken("ts", "v, ts", &[&[at(1, "a", 1), at(1, "a", 2), at(10, "a", 3), at(5, "a", 4)]]).await;
    assert_eq!(rows, ["1 00:01", "2 00:01", "3 00:10"], "rows before it arrive");
    assert_eq!(
        error,
        format!(
            "stream 's', row 4: column 'ts' goes back from 1970-01-01T00:00:10 to 1970-01-01T00:00:05, though order_by \
             = 'ts' {promise}"
        )
    );
    // Across batches, some of which are empty, or one row long.
    let batches: &[&[Row]] = &[&[at(1, "a", 1), at(7, "a", 2)], &[], &[at(8, "a", 3)], &[at(7, "a", 4), at(9, "a", 5)]];
    let (rows, error) = broken("ts", "ts", batches).await;
    assert_eq!(rows, ["00:01", "00:07", "00:08"]);
    assert!(error.starts_with("stream 's', row 4: column 'ts' goes back from 1970-01-01T00:00:08 to"), "{error}");
    // NULLs are last.
    let (rows, error) = broken("ts", "ts", &[&[at(1, "a", 1), (None, "a", 2), (None, "a", 3), at(2, "a", 4)]]).await;
    assert_eq!(rows, ["00:01", "NULL", "NULL"]);
    assert!(error.starts_with("stream 's', row 4: column 'ts' goes back from NULL to 1970-"), "{error}");
    let (_, error) = broken("ts", "ts", &[&[at(1, "a", 1), (None, "a", 2)], &[at(2, "a", 4)]]).await;
    assert!(error.starts_with("stream 's', row 3: column 'ts' goes back from NULL to 1970-"), "{error}");
    // Several columns: the first that differs decides.
    let batches: &[&[Row]] = &[&[at(1, "b", 9), at(2, "a", 8), at(2, "c", 7), at(2, "b", 6)]];
    let (rows, error) = broken("ts, k, v", "*", batches).await;
    assert_eq!(rows.len(), 3);
    assert_eq!(
        error,
        format!(
            "stream 's', row 4: column 'k' goes back within ts from c to b, though order_by = 'ts, k, v' {promise}"
        )
    );
}

#[tokio::test]
async fn only_columns_that_are_read_are_checked() {
    let (session, host) = session("ts, k").await;
    for (columns, ordered) in [("v", ""), ("k, v", ""), ("ts, v", ", order_by=[ts]"), ("*", ", order_by=[ts, k]")] {
        let explain = session.sql(&format!("EXPLAIN SELECT {columns} FROM s")).await.unwrap().collect().await.unwrap();
        let plan = arrow::util::pretty::pretty_format_batches(&explain).unwrap().to_string();
        let shows = |order: &str| plan.contains(&format!("]{order} "));
        assert!(shows(ordered), "{columns}: {plan}");
    }
    let script = host.script("s");
    script.send(batch(&[at(2, "b", 1), at(1, "a", 2)])).unwrap();
    drop(script);
    let rows = session.sql("SELECT v FROM s").await.unwrap().collect().await.unwrap();
    assert_eq!(rows[0].num_rows(), 2);
}

#[tokio::test]
async fn a_session_of_ones_own_profits() {
    let host = Arc::new(ScriptedHost::default());
    let schema = couatl_sql::parse_columns("ts timestamp, k string, v int64").unwrap();
    let mut definition = StreamDefinition::new("s", Arc::new(schema), Body::new(""));
    definition.order_by = vec!["ts".into(), "v".into()];
    let stream = Shared(host.clone()).stream(Arc::new(definition.clone())).unwrap();
    let context = SessionContext::new();
    context.register_table("s", Arc::new(StreamTable::new(stream))).unwrap();
    let plan = async |sql: &str| {
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        displayable(plan.as_ref()).indent(false).to_string()
    };
    assert!(!plan("SELECT k FROM s ORDER BY ts, v").await.contains("SortExec"));
    assert!(plan("SELECT k FROM s ORDER BY ts, k").await.contains("SortExec"));
    let grouped = plan("SELECT date_bin(interval '1 minute', ts) AS b, count(*) FROM s GROUP BY b").await;
    assert!(grouped.contains("ordering_mode=Sorted"), "{grouped}");
    definition.order_by = vec!["time".into()];
    let stream = Shared(host).stream(Arc::new(definition)).unwrap();
    context.register_table("t", Arc::new(StreamTable::new(stream))).unwrap();
    let error = context.sql("SELECT v FROM t").await.unwrap().create_physical_plan().await.unwrap_err();
    assert_eq!(from_datafusion(error).to_string(), "order_by names 'time', which is no column of stream 's'");
}

#[tokio::test]
async fn rows_past_a_limit_are_not_checked() {
    let (session, host) = session("ts").await;
    let script = host.script("s");
    script.send(batch(&[at(1, "a", 1), at(2, "a", 2), at(1, "a", 3)])).unwrap();
    let rows = session.sql("SELECT ts FROM s LIMIT 2").await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().flat_map(shown).collect::<Vec<_>>(), ["00:01", "00:02"]);
}
