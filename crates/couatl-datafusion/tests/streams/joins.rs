//! When rows of joins arrive, which plans are refused, and what a LIMIT bounds.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use couatl_core::ErrorKind;
use couatl_datafusion::{Session, from_datafusion};
use datafusion::datasource::MemTable;
use futures::StreamExt;

use crate::scripted::{ScriptedHost, Shared, Step};
use crate::{create, next, numbers, start};

/// A session with streams `a` (endless), `b` (its rows end) and `c` (which may end), and a table `t` of two partitions;
/// each of one column `n`. The table holds 1, 2, 2, 3, 5, 9.
async fn session() -> (Session, Arc<ScriptedHost>) {
    let host = Arc::new(ScriptedHost::default());
    let session = Session::new(Arc::new(Shared(host.clone()))).unwrap();
    for (name, mode) in [("a", "streaming"), ("b", "batch"), ("c", "auto"), ("d", "streaming"), ("e", "auto")] {
        session.sql(&create(name, "n int64", mode)).await.unwrap();
    }
    let part = |rows: &[i64]| {
        let column: ArrayRef = Arc::new(Int64Array::from(rows.to_vec()));
        vec![RecordBatch::try_from_iter_with_nullable([("n", column, true)]).unwrap()]
    };
    let parts = vec![part(&[1, 2, 2]), part(&[3, 5, 9])];
    let table = MemTable::try_new(parts[0][0].schema(), parts).unwrap();
    session.context().register_table("t", Arc::new(table)).unwrap();
    (session, host)
}

/// The next number of a query, whose source has nothing more to give: what does not come now will never come.
async fn prompt(rows: &mut datafusion::execution::SendableRecordBatchStream, sql: &str) -> Vec<i64> {
    let waited = tokio::time::timeout(Duration::from_secs(60), next(rows)).await;
    assert!(waited.is_ok(), "a row was kept back by {sql}");
    waited.unwrap()
}

/// Rows of the stream, one by one: each is answered before the next one exists.
async fn check_prompt(stream: &str, sql: &str, steps: &[(i64, &[i64])]) {
    let (session, host) = session().await;
    let sql = sql.replace("STREAM", stream);
    let script = host.script(stream);
    let mut rows = start(&session, &sql).await;
    for (n, answers) in steps {
        script.send(Step::Rows(vec![*n])).unwrap();
        assert_eq!(prompt(&mut rows, &sql).await, *answers, "{n} in {sql}");
    }
    drop(script);
    assert!(rows.next().await.is_none(), "{sql}");
}

#[tokio::test(start_paused = true)]
async fn a_joined_row_arrives_before_its_successor_exists() {
    let matched: &[(i64, &[i64])] = &[(1, &[1]), (2, &[2, 2]), (9, &[9])];
    let each: &[(i64, &[i64])] = &[(1, &[1]), (4, &[4]), (9, &[9])];
    let unmatched: &[(i64, &[i64])] = &[(4, &[4]), (6, &[6])];
    let semi: &[(i64, &[i64])] = &[(1, &[1]), (2, &[2]), (9, &[9])];
    for stream in ["a", "c"] {
        for (sql, steps) in [
            ("SELECT s.n FROM STREAM s JOIN t ON s.n = t.n", matched),
            ("SELECT s.n FROM t JOIN STREAM s ON s.n = t.n", matched),
            ("SELECT s.n FROM STREAM s LEFT JOIN t ON s.n = t.n", each),
            ("SELECT s.n FROM t RIGHT JOIN STREAM s ON s.n = t.n", each),
            ("SELECT s.n FROM STREAM s LEFT SEMI JOIN t ON s.n = t.n", semi),
            ("SELECT s.n FROM t RIGHT SEMI JOIN STREAM s ON s.n = t.n", semi),
            ("SELECT s.n FROM STREAM s LEFT ANTI JOIN t ON s.n = t.n", unmatched),
            ("SELECT s.n FROM t RIGHT ANTI JOIN STREAM s ON s.n = t.n", unmatched),
            ("SELECT n FROM STREAM WHERE n IN (SELECT n FROM t)", semi),
            ("SELECT n FROM STREAM WHERE n NOT IN (SELECT n FROM t)", unmatched),
            ("SELECT n FROM STREAM s WHERE EXISTS (SELECT 1 FROM t WHERE t.n = s.n)", semi),
            ("SELECT n FROM STREAM s WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.n = s.n)", unmatched),
            ("SELECT n FROM STREAM WHERE n IN (SELECT n FROM t) OR n = 4", each),
            ("SELECT n FROM STREAM s WHERE EXISTS (SELECT 1 FROM t WHERE t.n > s.n) OR n > 8", each),
            ("SELECT s.n FROM STREAM s JOIN (SELECT max(n) AS n FROM t) m ON true", each),
            ("SELECT s.n FROM STREAM s CROSS JOIN (SELECT DISTINCT 1 FROM t) t", each),
            ("SELECT s.n FROM (SELECT min(n) AS n FROM t) t CROSS JOIN STREAM s", each),
            ("SELECT s.n FROM STREAM s JOIN t ON s.n + 1 > t.n AND s.n < t.n + 1", matched),
            ("SELECT s.n FROM t JOIN STREAM s ON s.n + 1 > t.n AND s.n < t.n + 1", matched),
            ("SELECT s.n FROM STREAM s LEFT JOIN t ON s.n < t.n AND t.n > 8", each),
            ("SELECT s.n FROM STREAM s JOIN t ON s.n = t.n AND s.n + t.n > 0", matched),
            ("SELECT s.n FROM STREAM s JOIN t ON s.n = t.n WHERE s.n + t.n > 0 AND t.n < 10", matched),
            ("SELECT s.n FROM STREAM s LEFT JOIN t ON s.n = t.n WHERE t.n IS NULL OR t.n + s.n < 100", each),
            ("SELECT s.n FROM STREAM s JOIN t ON s.n IS NOT DISTINCT FROM t.n", matched),
            ("SELECT s.n FROM STREAM s JOIN t ON s.n = t.n JOIN (SELECT DISTINCT n FROM t) u ON t.n = u.n", matched),
            (
                "SELECT s.n FROM (SELECT n FROM STREAM UNION ALL SELECT n FROM t WHERE n > 100) s JOIN t ON s.n = t.n",
                matched,
            ),
            ("SELECT s.n FROM STREAM s JOIN t ON s.n = t.n UNION ALL SELECT n FROM t WHERE n > 100", matched),
            ("SELECT s.n FROM STREAM s JOIN t ON s.n = t.n LIMIT 100", matched),
            ("SELECT (SELECT max(n) FROM t) - 9 + n FROM STREAM", each),
        ] {
            check_prompt(stream, sql, steps).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_auto_stream_is_never_collected() {
    // What DataFusion has to answer is late, and complete when the stream ends.
    for sql in ["SELECT count(*) FROM c FULL JOIN t ON c.n = t.n", "SELECT count(*) FROM t LEFT JOIN c ON c.n = t.n"] {
        let (session, host) = session().await;
        let script = host.script("c");
        script.send(Step::Rows(vec![1, 2])).unwrap();
        drop(script);
        assert_eq!(numbers(&session.sql(sql).await.unwrap().collect().await.unwrap()[0]), [6], "{sql}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_auto_streams_one_is_collected_and_the_other_is_answered_at_once() {
    for (sql, collected, probed) in [
        ("SELECT e.n FROM c JOIN e ON c.n = e.n", "c", "e"),
        ("SELECT c.n FROM c LEFT JOIN e ON c.n = e.n", "e", "c"),
        ("SELECT c.n FROM c JOIN (SELECT n FROM e LIMIT 2) e ON c.n = e.n", "e", "c"),
        ("SELECT a.n FROM a JOIN c ON a.n = c.n", "c", "a"),
        ("SELECT a.n FROM a JOIN (SELECT n FROM d WHERE n > 0 LIMIT 2) d ON a.n = d.n", "d", "a"),
    ] {
        let (session, host) = session().await;
        let build = host.script(collected);
        let script = host.script(probed);
        let mut rows = start(&session, sql).await;
        build.send(Step::Rows(vec![1, 2])).unwrap();
        drop(build);
        for n in [1, 2] {
            script.send(Step::Rows(vec![n])).unwrap();
            assert_eq!(prompt(&mut rows, sql).await, [n], "{sql}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn partitions_of_the_stream_share_what_was_collected() {
    let (session, host) = session().await;
    let sql = "SELECT s.n FROM (SELECT n FROM t WHERE n > 8 UNION ALL SELECT n FROM a) s JOIN b ON s.n = b.n";
    let (build, script) = (host.script("b"), host.script("a"));
    let mut rows = start(&session, sql).await;
    build.send(Step::Rows(vec![1, 9])).unwrap();
    drop(build);
    assert_eq!(prompt(&mut rows, sql).await, [9]);
    script.send(Step::Rows(vec![1])).unwrap();
    assert_eq!(prompt(&mut rows, sql).await, [1]);
    drop((script, rows));
    let log = host.log.take();
    assert_eq!(log.iter().filter(|entry| *entry == "open b").count(), 1, "{log:?}");
}

#[tokio::test]
async fn where_nothing_can_match_the_stream_is_not_opened() {
    let (session, host) = session().await;
    let _script = host.script("a");
    let sql = "SELECT a.n FROM a JOIN t ON a.n = t.n WHERE t.n > 100";
    assert!(session.sql(sql).await.unwrap().collect().await.unwrap().is_empty());
    assert!(host.log.take().is_empty());
    let script = host.script("a");
    let mut rows = start(&session, "SELECT a.n FROM a LEFT JOIN (SELECT n FROM t WHERE n > 100) t ON a.n = t.n").await;
    script.send(Step::Rows(vec![7])).unwrap();
    assert_eq!(next(&mut rows).await, [7]);
}

#[tokio::test]
async fn an_error_of_either_side_is_the_querys() {
    let (session, host) = session().await;
    let script = host.script("b");
    script.send(Step::Fail("boom")).unwrap();
    let _stream = host.script("a");
    let mut rows = start(&session, "SELECT a.n FROM a JOIN b ON a.n = b.n").await;
    let error = from_datafusion(rows.next().await.unwrap().unwrap_err());
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidArgument, "boom"));
    assert_eq!(host.log.take(), ["open b", "close b"]);
    let script = host.script("a");
    script.send(Step::Rows(vec![1])).unwrap();
    script.send(Step::Fail("bang")).unwrap();
    let mut rows = start(&session, "SELECT a.n FROM a JOIN t ON a.n = t.n").await;
    assert_eq!(next(&mut rows).await, [1]);
    assert_eq!(from_datafusion(rows.next().await.unwrap().unwrap_err()).to_string(), "bang");
    assert_eq!(host.log.take(), ["open a", "close a"]);
}

#[tokio::test]
async fn a_query_that_is_left_while_it_collects_holds_nothing() {
    let (session, host) = session().await;
    let script = host.script("b");
    script.send(Step::Rows(vec![1])).unwrap();
    let plan =
        session.sql("SELECT a.n FROM a JOIN b ON a.n = b.n").await.unwrap().create_physical_plan().await.unwrap();
    let context = session.context().task_ctx();
    let mut rows = datafusion::physical_plan::execute_stream(plan.clone(), context).unwrap();
    assert!(futures::poll!(rows.next()).is_pending());
    drop(rows);
    assert_eq!(host.log.take(), ["open b", "close b"]);
    assert!(session.queries().list().is_empty());
    drop(plan);
}

#[tokio::test]
async fn a_cancel_is_heard_while_rows_are_compared() {
    let (session, host) = session().await;
    let script = host.script("a");
    let sql = "SELECT count(*) FROM (SELECT a.n FROM a JOIN generate_series(1, 1000000) t(n) ON a.n + t.n < 0 LIMIT 1)";
    script.send(Step::Rows((1..10_000).collect())).unwrap();
    let mut rows = start(&session, sql).await;
    let query = session.queries().list().remove(0).query_id;
    let killed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        session.sql(&format!("KILL QUERY '{query}'")).await.unwrap();
    };
    let (row, ()) = tokio::join!(rows.next(), killed);
    assert_eq!(from_datafusion(row.unwrap().unwrap_err()).kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn what_the_resting_side_takes_is_accounted() {
    let host = Arc::new(ScriptedHost::default());
    let session = Session::new(Arc::new(Shared(host.clone()))).unwrap();
    session.sql(&create("a", "n int64", "streaming")).await.unwrap();
    session.sql("SET datafusion.runtime.memory_limit = '1M'").await.unwrap().collect().await.unwrap();
    let _script = host.script("a");
    let sql = "SELECT a.n FROM a JOIN generate_series(1, 1000000) t(n) ON a.n = t.n";
    let error = session.sql(sql).await.unwrap().collect().await.unwrap_err();
    let error = from_datafusion(error);
    assert_eq!(error.kind(), ErrorKind::ResourcesExhausted, "{error}");
}

#[tokio::test]
async fn explain_analyze_shows_what_was_collected() {
    let (session, host) = session().await;
    let script = host.script("c");
    script.send(Step::Rows(vec![1, 2, 4])).unwrap();
    drop(script);
    let sql = "EXPLAIN ANALYZE SELECT c.n FROM c JOIN t ON c.n = t.n";
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    let join = text.lines().find(|line| line.contains("PromptJoinExec")).unwrap();
    assert!(join.contains("output_rows=3") && join.contains("build_input_rows=6"), "{text}");
}

#[tokio::test]
async fn limit_bounds_what_is_below_it() {
    for (sql, count) in [
        ("SELECT count(*) FROM (SELECT n FROM a LIMIT 3)", 3),
        ("SELECT count(*) FROM (SELECT n FROM a WHERE n > 1 LIMIT 3)", 3),
        ("SELECT count(*) FROM (SELECT n FROM a WHERE n > 1 LIMIT 2 OFFSET 1)", 2),
        ("SELECT count(*) FROM (SELECT a.n FROM a JOIN t ON a.n = t.n LIMIT 3)", 3),
        ("SELECT count(*) FROM (SELECT a.n FROM t LEFT JOIN a ON a.n = t.n LIMIT 0)", 0),
        ("SELECT count(*) FROM (SELECT a.n FROM a CROSS JOIN t LIMIT 7)", 7),
        ("SELECT count(*) FROM (SELECT a.n FROM a JOIN t ON a.n > t.n LIMIT 7)", 7),
        ("SELECT count(*) FROM (SELECT a.n FROM a JOIN t ON a.n = t.n WHERE a.n + t.n > 2 LIMIT 2)", 2),
        ("SELECT count(*) FROM (SELECT n FROM a UNION ALL SELECT n FROM t LIMIT 5)", 5),
        ("SELECT count(*) FROM (SELECT n FROM a WHERE n > 1 UNION ALL SELECT n FROM t LIMIT 5)", 5),
        ("SELECT count(*) FROM (SELECT unnest([n, n]) FROM a LIMIT 5)", 5),
        ("SELECT count(*) FROM (SELECT unnest([n, n]) FROM a UNION ALL SELECT n FROM t LIMIT 5)", 5),
        ("SELECT count(*) FROM (SELECT n FROM a WHERE n > 1 LIMIT 3) s JOIN t ON s.n = t.n", 3),
        ("SELECT count(*) FROM t LEFT JOIN (SELECT n FROM a WHERE n > 1 LIMIT 3) s ON s.n = t.n", 6),
        ("SELECT max(n) FROM (SELECT n FROM a WHERE n IN (SELECT n FROM t) LIMIT 2)", 2),
        ("SELECT count(*) FROM (SELECT n FROM a LIMIT 9)", 9),
    ] {
        let (session, host) = session().await;
        let script = host.script("a");
        script.send(Step::Rows((1..=20).collect())).unwrap();
        let rows = match session.sql(sql).await.unwrap().collect().await {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}: {error}"),
        };
        assert_eq!(numbers(&rows[0]), [count], "{sql}");
    }
}

#[tokio::test]
async fn an_operator_that_keeps_rows_back_is_refused_by_name() {
    let (session, _host) = session().await;
    let sql = "WITH RECURSIVE r AS (SELECT n FROM a UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT n FROM r";
    let error = from_datafusion(session.sql(sql).await.unwrap().create_physical_plan().await.unwrap_err());
    let expected = "operator RecursiveQueryExec above stream 'a' keeps rows back: it begins its recursion when its first part has ended; \
                    bound the rows with LIMIT in a subquery, or create the stream with mode 'auto' to take what comes";
    assert_eq!(error.to_string(), expected);
    let sql = sql.replace("FROM a", "FROM c");
    session.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
}

#[tokio::test]
async fn joins_that_wait_for_the_last_row_are_refused() {
    let (session, _host) = session().await;
    for (sql, start) in [
        ("SELECT * FROM t LEFT JOIN a ON a.n = t.n", "this outer join would never answer: it keeps rows of the other"),
        ("SELECT * FROM a RIGHT JOIN t ON a.n = t.n", "this outer join would never answer"),
        ("SELECT * FROM a FULL JOIN t ON a.n = t.n", "this outer join would never answer"),
        ("SELECT * FROM t LEFT JOIN a ON a.n < t.n", "this outer join would never answer"),
        ("SELECT * FROM a FULL JOIN t ON a.n < t.n", "this outer join would never answer"),
        ("SELECT * FROM t WHERE n IN (SELECT n FROM a)", "this IN, EXISTS or semi join would never answer"),
        ("SELECT * FROM t WHERE n NOT IN (SELECT n FROM a)", "this IN, EXISTS or semi join would never answer"),
        ("SELECT * FROM t WHERE EXISTS (SELECT 1 FROM a)", "this IN, EXISTS or semi join would never answer"),
        ("SELECT * FROM t WHERE n IN (SELECT n FROM a) OR n > 1", "this IN, EXISTS or semi join would never answer"),
        ("SELECT * FROM a WHERE n IN (SELECT n FROM d)", "this join would never answer"),
        ("SELECT * FROM a JOIN d ON a.n = d.n", "this join would never answer"),
        ("SELECT * FROM a JOIN d ON a.n < d.n", "this join would never answer"),
        ("SELECT * FROM a CROSS JOIN d", "this join would never answer"),
        ("SELECT (SELECT n FROM a)", "a scalar subquery would never answer"),
        ("SELECT (SELECT max(n) FROM a)", "an aggregate would never answer"),
        ("SELECT * FROM t WHERE n > (SELECT n FROM a)", "a scalar subquery would never answer"),
        ("COPY (SELECT n FROM a) TO '/nowhere/a.csv'", "this write would never answer"),
    ] {
        let data_frame = session.sql(sql).await.unwrap();
        let Err(error) = data_frame.execute_stream().await else { panic!("{sql} was planned") };
        let message = from_datafusion(error).to_string();
        assert!(message.starts_with(start), "{sql}: {message}");
        assert!(message.contains("'a'") && message.contains("LIMIT in a subquery"), "{sql}: {message}");
        assert!(message.contains("mode 'auto'"), "{sql}: {message}");
        // What may end is never refused.
        let sql = sql.replace(" a", " c").replace("a.n", "c.n").replace(" d", " e").replace("d.n", "e.n");
        session.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
    }
}
