//! Joins of two endless streams within a band: pairs arrive when their later row does, whichever stream is silent, and
//! no more is kept than the band.
#![expect(clippy::panic, reason = "clippy does not see that functions between tests are tests too")]

use std::sync::Arc;

use couatl_datafusion::from_datafusion;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;

use crate::order::{Row, at, batch, expect, session, shown};
use crate::scripted::Step;

/// A step of the stream `s`, or of the stream `t`.
enum Turn<'a> {
    S(&'a [Row]),
    T(&'a [Row]),
    EndS,
    EndT,
}
use Turn::{EndS, EndT, S, T};

const BAND: &str = "s.k = t.k AND s.ts BETWEEN t.ts - interval '10 seconds' AND t.ts + interval '5 seconds'";

/// After each step, these rows arrive, before there is another step.
async fn check(sql: &str, turns: &[(Turn<'_>, &[&str])]) {
    let (session, host) = session("ts").await;
    let (mut s, mut t) = (Some(host.script("s")), Some(host.script("t")));
    let planned = session.sql(sql).await.unwrap().execute_stream().await;
    let mut rows = planned.unwrap_or_else(|error| panic!("{sql}: {}", from_datafusion(error)));
    for (turn, expected) in turns {
        match turn {
            S(rows) => s.as_ref().unwrap().send(batch(rows)).unwrap(),
            T(rows) => t.as_ref().unwrap().send(batch(rows)).unwrap(),
            EndS => drop(s.take()),
            EndT => drop(t.take()),
        }
        expect(&mut rows, expected, sql).await;
    }
    if s.is_none() && t.is_none() {
        assert!(rows.next().await.is_none(), "{sql}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_arrives_with_its_later_row() {
    const TURNS: &[(Turn, &[&str])] = &[
        (S(&[at(1, "a", 1), at(2, "b", 2)]), &[]),
        (T(&[at(3, "a", 10)]), &["1 10"]),
        // One stream goes on while the other is silent.
        (T(&[at(4, "b", 20)]), &["2 20"]),
        (T(&[at(5, "b", 30), at(5, "c", 40)]), &["2 30"]),
        (T(&[at(6, "a", 50)]), &["1 50"]),
        (S(&[at(9, "b", 3)]), &["3 20", "3 30"]),
        (S(&[at(11, "a", 4), at(12, "b", 5)]), &["4 50"]),
        (EndS, &[]),
        (T(&[at(14, "b", 60), at(22, "b", 70)]), &["3 60", "5 60", "5 70"]),
        (EndT, &[]),
    ];
    for (from, on) in [
        ("s JOIN t", BAND),
        ("t JOIN s", BAND),
        ("s, t", &format!("{} ", BAND.replace("AND s.ts", "AND s.v < t.v AND s.ts"))),
        (
            "s JOIN t",
            "t.k = s.k AND t.ts - interval '10 seconds' <= s.ts AND s.ts - interval '5 seconds' <= t.ts AND t.v > s.v",
        ),
    ] {
        let keyword = if from.contains(',') { "WHERE" } else { "ON" };
        check(&format!("SELECT s.v, t.v FROM {from} {keyword} {on}"), TURNS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn equal_instants_are_a_band() {
    check(
        "SELECT s.v, t.v FROM s JOIN t ON s.ts = t.ts",
        &[(S(&[at(1, "a", 1), at(2, "b", 2)]), &[]), (T(&[at(1, "a", 3), at(2, "b", 4)]), &["1 3", "2 4"])],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_partner_arrive_when_none_can_come() {
    const LEFT: &[(Turn, &[&str])] = &[
        (S(&[at(1, "a", 1), at(2, "b", 2)]), &[]),
        (T(&[at(3, "a", 10)]), &["1 10"]),
        (T(&[at(12, "c", 20)]), &[]),
        // Past 2 + 10: nothing can be within ten seconds of the second row any more.
        (T(&[at(13, "c", 30)]), &["2 NULL"]),
        (S(&[at(20, "a", 3), (None, "a", 4)]), &["4 NULL"]),
        (EndT, &["3 NULL"]),
        (S(&[(None, "a", 5)]), &["5 NULL"]),
        (EndS, &[]),
    ];
    check(&format!("SELECT s.v, t.v FROM s LEFT JOIN t ON {BAND}"), LEFT).await;
    check(&format!("SELECT s.v, t.v FROM t RIGHT JOIN s ON {BAND}"), LEFT).await;
    check(
        &format!("SELECT s.v, t.v FROM t FULL JOIN s ON {BAND}"),
        &[
            (S(&[at(1, "a", 1), at(2, "b", 2)]), &[]),
            (T(&[at(3, "a", 10), at(7, "c", 20)]), &["1 10"]),
            (S(&[at(12, "a", 3)]), &[]),
            (S(&[at(13, "a", 4)]), &["NULL 20"]),
            (T(&[at(13, "a", 30)]), &["3 30", "4 30", "2 NULL"]),
        ],
    )
    .await;
    check(
        &format!("SELECT v FROM s WHERE NOT EXISTS (SELECT 1 FROM t WHERE {BAND})"),
        &[(S(&[at(1, "a", 1), at(2, "b", 2)]), &[]), (T(&[at(3, "a", 10)]), &[]), (T(&[at(13, "c", 30)]), &["2"])],
    )
    .await;
    check(
        &format!("SELECT v FROM s WHERE EXISTS (SELECT 1 FROM t WHERE {BAND})"),
        &[
            (S(&[at(1, "a", 1), at(2, "b", 2)]), &[]),
            (T(&[at(3, "a", 10), at(3, "a", 11)]), &["1"]),
            (T(&[at(4, "a", 12)]), &[]),
            (S(&[at(5, "a", 3)]), &["3"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn without_a_band_a_join_is_refused() {
    let (session, _host) = session("ts").await;
    for on in [
        "s.k = t.k",
        "s.k = t.k AND s.ts > t.ts",
        "s.k = t.k AND s.ts >= t.ts - interval '10 seconds'",
        "s.k = t.k AND s.v BETWEEN t.v - 1 AND t.v + 1",
        "s.k = t.k AND s.ts BETWEEN t.ts - interval '1 second' AND s.ts + interval '1 second'",
        "s.k = t.k AND (s.ts BETWEEN t.ts - interval '1 second' AND t.ts + interval '1 second' OR s.v = 1)",
    ] {
        let sql = format!("SELECT s.v FROM s JOIN t ON {on}");
        let Err(error) = session.sql(&sql).await.unwrap().execute_stream().await else { panic!("{sql} was planned") };
        let message = from_datafusion(error).to_string();
        assert!(message.starts_with("this join would never answer"), "{sql}: {message}");
    }
}

/// Small numbers, the same ones each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % most) as i64
    }

    /// Rows in order, some at the same instant, the last ones perhaps at none.
    fn rows(&mut self) -> Vec<Row> {
        let mut seconds = 0;
        let rows = (0..self.below(60)).map(|n| {
            seconds += self.below(4);
            (Some(seconds), ["a", "b", "c"][self.below(3) as usize], n)
        });
        let mut rows: Vec<Row> = rows.collect();
        rows.extend((0..self.below(3)).map(|n| (None, "a", 1000 + n)));
        rows
    }
}

#[tokio::test]
async fn it_gives_what_a_join_of_tables_gives() {
    let near = "x.k = y.k AND x.ts BETWEEN y.ts - interval '3 seconds' AND y.ts + interval '2 seconds' AND x.v <> y.v";
    let queries = [
        format!("SELECT x.ts, x.v, y.ts, y.v FROM $x JOIN $y ON {near}"),
        format!("SELECT x.ts, x.v, y.ts, y.v FROM $x LEFT JOIN $y ON {near}"),
        format!("SELECT x.ts, x.v, y.ts, y.v FROM $x RIGHT JOIN $y ON {near}"),
        format!("SELECT x.ts, x.v, y.ts, y.v FROM $x FULL JOIN $y ON {near}"),
        format!("SELECT x.ts, x.v FROM $x WHERE EXISTS (SELECT 1 FROM $y WHERE {near})"),
        format!("SELECT x.ts, x.v FROM $x WHERE NOT EXISTS (SELECT 1 FROM $y WHERE {near})"),
    ];
    let mut dice = Dice(1);
    let mut rows_seen = 0;
    for round in 0..60 {
        let (session, host) = session("ts").await;
        let (s, t) = (dice.rows(), dice.rows());
        for (name, rows) in [("s_table", &s), ("t_table", &t)] {
            let Step::Batch(batch) = batch(rows) else { unreachable!() };
            session.context().register_batch(name, batch).unwrap();
        }
        for query in &queries {
            let over = |x: &str, y: &str| query.replace("$x", &format!("{x} AS x")).replace("$y", &format!("{y} AS y"));
            for (name, rows) in [("s", &s), ("t", &t)] {
                let script = host.script(name);
                let mut rest = &rows[..];
                while !rest.is_empty() {
                    let (first, others) = rest.split_at(1 + dice.below(rest.len() as u64) as usize);
                    script.send(batch(first)).unwrap();
                    rest = others;
                }
            }
            let sorted = async |sql: String| {
                let batches = session.sql(&sql).await.unwrap().collect().await.unwrap();
                let mut rows: Vec<_> = batches.iter().flat_map(shown).collect();
                rows.sort();
                rows
            };
            let (streams, tables) = (sorted(over("s", "t")).await, sorted(over("s_table", "t_table")).await);
            rows_seen += tables.len();
            assert_eq!(streams, tables, "round {round}: {query}\n{s:?}\n{t:?}");
        }
    }
    assert!(rows_seen > 1000, "{rows_seen} rows");
}

/// The most rows that the join has kept, by its own account.
fn kept_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    let own =
        (plan.name() == "BandJoinExec").then(|| plan.metrics()?.sum_by_name("kept_rows").map(|kept| kept.as_usize()));
    own.flatten().or_else(|| plan.children().into_iter().find_map(kept_rows))
}

#[tokio::test]
async fn no_more_is_kept_than_the_band() {
    const ROWS: i64 = 20_000;
    let numbers = |from: i64, step: i64| -> Vec<Row> {
        (0..1000).map(|row| at((from + row) * step, ["a", "b", "c"][(row % 3) as usize], from + row)).collect()
    };
    for (sql, step, most) in [
        (format!("SELECT s.v, t.v FROM s JOIN t ON {BAND}"), 1, 5_000),
        (format!("SELECT s.v, t.v FROM s FULL JOIN t ON {BAND}"), 1, 5_000),
        // One stream is always far ahead of the other.
        (format!("SELECT s.v, t.v FROM s JOIN t ON {BAND}"), 100, 5_000),
        ("SELECT s.v, t.v FROM s JOIN t ON s.k = t.k AND s.v BETWEEN t.v - 3 AND t.v + 3".to_owned(), 1, 5_000),
    ] {
        let (session, host) = session(if sql.contains("s.v BETWEEN") { "v" } else { "ts" }).await;
        let (s, t) = (host.script("s"), host.script("t"));
        for from in (0..ROWS).step_by(1000) {
            s.send(batch(&numbers(from, step))).unwrap();
            t.send(batch(&numbers(from, 1))).unwrap();
        }
        let plan = session.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
        let mut rows = execute_stream(plan.clone(), session.context().task_ctx()).unwrap();
        let (mut count, mut largest) = (0, 0);
        while count < ROWS as usize / 40 {
            count += rows.next().await.unwrap().unwrap().num_rows();
            largest = largest.max(kept_rows(&plan).unwrap());
        }
        assert!((1..most).contains(&largest), "{sql}: {largest} rows were kept");
    }
}
