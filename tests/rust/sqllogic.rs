//! Runs the files of `tests/slt`: what SQL can see. With `BLESS=1`, expectations are rewritten instead.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use couatl::Engine;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, MakeConnection, Runner};

/// An engine of its own for each file.
struct Database(Engine);

#[derive(Debug)]
struct Failure(couatl::Error);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.kind(), self.0)
    }
}

impl std::error::Error for Failure {}

#[async_trait::async_trait]
impl AsyncDB for Database {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let data_frame = self.0.sql(sql).await.map_err(Failure)?;
        let columns = data_frame.schema().fields().len();
        let batches = data_frame.collect().await.map_err(couatl_datafusion::from_datafusion).map_err(Failure)?;
        // Whatever the query did, nothing of it is left.
        assert!(self.0.session().queries().list().is_empty(), "{sql} left a query behind");
        if columns == 0 {
            return Ok(DBOutput::StatementComplete(0));
        }
        Ok(DBOutput::Rows {
            types: vec![DefaultColumnType::Any; columns],
            rows: batches.iter().flat_map(rows).collect(),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "couatl"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    let cell = |text: String| if text.is_empty() { "(empty)".to_owned() } else { text };
    let row = |row| columns.iter().map(|column| cell(column.value(row).to_string())).collect();
    (0..batch.num_rows()).map(row).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "slt"))
        .collect();
    found.sort();
    found
}

async fn connect() -> Result<Database, Failure> {
    Engine::builder().build().map(Database).map_err(Failure)
}

fn runner(directory: &Path) -> Runner<Database, impl MakeConnection<Conn = Database>> {
    let mut runner = Runner::new(connect);
    runner.set_var("DIR".into(), directory.display().to_string());
    runner
}

#[test]
fn every_file_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/slt");
    let files = files(&folder);
    assert!(files.len() >= 5, "{} files in {}", files.len(), folder.display());
    let bless = std::env::var_os("BLESS").is_some();
    let mut failures = Vec::new();
    for file in files {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut runner = runner(directory.path());
        runtime.block_on(async {
            if bless {
                let normalize = sqllogictest::default_normalizer;
                let columns = sqllogictest::default_column_validator;
                runner
                    .update_test_file(&file, "\t", sqllogictest::default_validator, normalize, columns)
                    .await
                    .unwrap();
            } else if let Err(error) = runner.run_file_async(&file).await {
                failures.push(format!("{}", error.display(false)));
            }
        });
        // A thread of Python that does not end must not hold the test.
        runtime.shutdown_background();
    }
    assert!(failures.is_empty(), "{}\n(make bless rewrites expectations)", failures.join("\n\n"));
}
