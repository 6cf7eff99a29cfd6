//! What joins of streams answer: the same as DataFusion's own do over the same rows at rest, wherever batches are cut.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use couatl_datafusion::Session;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::scripted::{ScriptedHost, Shared, Step};

/// Numbers that look random, and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Small, so that keys repeat; now and then a null.
    fn key(&mut self, nulls: bool) -> Option<i64> {
        let key = self.below(12) as i64;
        if nulls && self.below(8) == 0 { None } else { Some(key) }
    }

    /// Keys in many types, and a number of its own for each row.
    fn rows(&mut self, count: u64, nulls: bool) -> RecordBatch {
        let keys = |numbers: &mut Self| (0..count).map(|_| numbers.key(nulls)).collect::<Vec<_>>();
        let (k, x) = (keys(self), keys(self));
        let text: Vec<_> = keys(self).into_iter().map(|key| key.map(|key| format!("k{}", key % 5))).collect();
        let float = k.iter().map(|key| key.map(|key| if key == 0 { -0.0 } else { key as f64 })).collect::<Vec<_>>();
        let list = x.iter().map(|key| key.map(|key| vec![Some(key % 3), None])).collect::<Vec<_>>();
        let columns: [(&str, ArrayRef); 7] = [
            ("k", Arc::new(Int64Array::from(k))),
            ("x", Arc::new(Int64Array::from(x))),
            ("w", Arc::new(StringArray::from(text.clone()))),
            ("d", Arc::new(text.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>())),
            ("f", Arc::new(Float64Array::from(float))),
            ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(list))),
            ("id", Arc::new(Int64Array::from_iter_values((0..count).map(|id| id as i64)))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, values)| (name, values, true))).unwrap()
    }

    /// The same rows, in batches of any size.
    fn cut(&mut self, rows: &RecordBatch) -> Vec<RecordBatch> {
        let mut cut = Vec::new();
        let mut at = 0;
        while at < rows.num_rows() {
            let length = (self.below(7) as usize).min(rows.num_rows() - at);
            cut.push(rows.slice(at, length));
            at += length;
        }
        cut
    }
}

/// Joins of the stream `s` with the table `t`, each with the operators that plan it otherwise.
fn joins() -> Vec<String> {
    let conditions = [
        "s.k = t.k",
        "t.k = s.k AND s.x = t.x",
        "s.k = t.k AND s.x < t.x",
        "s.k = t.k AND s.x + t.x > 9 AND s.w <> t.w",
        "s.w = t.w",
        "s.d = t.d",
        "s.d = t.w",
        "s.f = t.f",
        "s.l = t.l",
        "s.k IS NOT DISTINCT FROM t.k",
        "(s.k IS NOT DISTINCT FROM t.k) AND s.x < t.x",
        "s.k + 1 = t.k * 2",
        "s.k < t.k",
        "s.k < t.x AND t.k > s.x",
        "concat(s.w, 'x') > t.w AND s.k <> t.k",
        "s.k > 5",
        "t.k > 5",
    ];
    let mut joins = Vec::new();
    for on in conditions {
        joins.extend([
            format!("SELECT * FROM s JOIN t ON {on}"),
            format!("SELECT t.id, s.x, t.d FROM t JOIN s ON {on}"),
            format!("SELECT count(*) FROM s JOIN t ON {on}"),
            format!("SELECT s.*, t.id, t.l FROM s LEFT JOIN t ON {on}"),
            format!("SELECT * FROM t RIGHT JOIN s ON {on}"),
            format!("SELECT count(*) FROM t RIGHT JOIN s ON {on}"),
            format!("SELECT * FROM s LEFT SEMI JOIN t ON {on}"),
            format!("SELECT s.id FROM t RIGHT SEMI JOIN s ON {on}"),
            format!("SELECT * FROM s LEFT ANTI JOIN t ON {on}"),
            format!("SELECT count(*) FROM t RIGHT ANTI JOIN s ON {on}"),
            format!("SELECT s.id FROM s WHERE EXISTS (SELECT 1 FROM t WHERE {on}) OR s.x = 3"),
            format!("SELECT s.id FROM s WHERE NOT EXISTS (SELECT 1 FROM t WHERE {on}) OR s.x = 3"),
            format!("SELECT s.id, t.id FROM s LEFT JOIN t ON {on} WHERE t.id IS NULL OR t.x > 4"),
        ]);
    }
    joins.extend(
        [
            "SELECT s.id, t.id FROM s CROSS JOIN t",
            "SELECT count(*) FROM t CROSS JOIN s",
            "SELECT id FROM s WHERE k IN (SELECT k FROM t)",
            "SELECT id FROM s WHERE k NOT IN (SELECT k FROM t)",
            "SELECT id FROM s WHERE k NOT IN (SELECT k FROM t WHERE k IS NOT NULL)",
            "SELECT id FROM s WHERE k NOT IN (SELECT k FROM t WHERE x > 100)",
            "SELECT id FROM s WHERE k NOT IN (SELECT k FROM t WHERE k IS NULL)",
            "SELECT id FROM s WHERE k NOT IN (SELECT k FROM t WHERE k > 6)",
            "SELECT id FROM s WHERE k IN (SELECT k FROM t) OR x IN (SELECT x FROM t WHERE k = 3)",
            "SELECT s.id, t.id, u.id FROM s JOIN t ON s.k = t.k LEFT JOIN t u ON u.x = s.x AND u.id < t.id",
        ]
        .map(str::to_owned),
    );
    joins
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = lines(batches);
    lines.sort();
    lines
}

async fn check(seed: u64, stream_rows: u64, table_rows: u64, nulls: bool, batch_rows: usize) {
    let mut numbers = Numbers(seed);
    let (s, t) = (numbers.rows(stream_rows, nulls), numbers.rows(table_rows, nulls));
    let host = Arc::new(ScriptedHost::default());
    let session = Session::new(Arc::new(Shared(host.clone()))).unwrap();
    let columns = "k int64, x int64, w string, d low_cardinality(string), f float64, l array(int64), id int64";
    session.sql(&crate::create("s", columns, "auto")).await.unwrap();
    session.sql(&format!("SET datafusion.execution.batch_size = {batch_rows}")).await.unwrap();
    let parts = numbers.cut(&t).into_iter().map(|batch| vec![batch]).collect::<Vec<_>>();
    let parts = if parts.is_empty() { vec![Vec::new()] } else { parts };
    session.context().register_table("t", Arc::new(MemTable::try_new(t.schema(), parts).unwrap())).unwrap();
    let at_rest = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    at_rest.register_batch("s", s.clone()).unwrap();
    at_rest.register_batch("t", t).unwrap();
    for sql in joins() {
        let physical = session.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
        let plan = displayable(physical.as_ref()).indent(false).to_string();
        assert!(plan.contains("PromptJoinExec") || plan.contains("EmptyExec"), "{sql}\n{plan}");
        assert!(!plan.contains(" HashJoinExec") && !plan.contains(" NestedLoopJoinExec"), "{sql}\n{plan}");
        let script = host.script("s");
        for batch in numbers.cut(&s) {
            script.send(Step::Batch(batch)).unwrap();
        }
        drop(script);
        let found = datafusion::physical_plan::collect(physical, session.context().task_ctx()).await.unwrap();
        assert!(found.iter().all(|batch| batch.num_rows() <= batch_rows), "{sql}\n{plan}");
        let expected = at_rest.sql(&sql).await.unwrap().collect().await.unwrap();
        assert_eq!(sorted(&found), sorted(&expected), "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn joins_of_streams_answer_as_joins_at_rest_do() {
    check(1, 40, 60, true, 8192).await;
}

#[tokio::test]
async fn parts_are_no_bigger_than_a_batch() {
    check(3, 20, 30, true, 1).await;
    check(4, 50, 40, false, 3).await;
}

#[tokio::test]
async fn empty_sides_answer_too() {
    check(6, 20, 0, true, 8192).await;
    check(7, 0, 20, true, 8192).await;
}

#[tokio::test]
async fn rows_leave_in_the_order_of_the_stream() {
    let host = Arc::new(ScriptedHost::default());
    let session = Session::new(Arc::new(Shared(host.clone()))).unwrap();
    session.sql(&crate::create("s", "n int64", "streaming")).await.unwrap();
    session.sql("SET datafusion.execution.batch_size = 3").await.unwrap();
    let script = host.script("s");
    script.send(Step::Rows(vec![3, 1, 4, 2, 3])).unwrap();
    drop(script);
    let sql = "SELECT s.n * 10 + t.n FROM generate_series(1, 3) t(n) RIGHT JOIN s ON t.n <= s.n AND s.n <> 4";
    let rows = session.sql(sql).await.unwrap().collect().await.unwrap();
    assert_eq!(lines(&rows), ["31", "32", "33", "11", "NULL", "21", "22", "31", "32", "33"]);
}
