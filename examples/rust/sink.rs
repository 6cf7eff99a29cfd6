//! A stream that is written and read: rows go through a Python function into SQLite, and come back through another.
//!
//! `cargo run --example sink`

use std::error::Error;

use couatl::Engine;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let database = directory.path().join("visits.db");

    let engine = Engine::builder().build()?;
    // A write function gets a list per column. Each query has a module and a thread of its own, on which everything
    // runs from `connect` to `disconnect`.
    engine
        .sql(&format!(
            "
CREATE EXTERNAL STREAM visits (visitor string NOT NULL, at timestamp, pages int32) AS $$
import sqlite3
from datetime import datetime

def connect(path):
    global database
    database = sqlite3.connect(path)
    database.execute('CREATE TABLE IF NOT EXISTS visits (visitor, at, pages)')

def write(visitor, at, pages):
    with database:
        times = [time and time.isoformat() for time in at]
        database.executemany('INSERT INTO visits VALUES (?, ?, ?)', zip(visitor, times, pages))

def read():
    for visitor, at, pages in database.execute('SELECT visitor, at, pages FROM visits'):
        yield visitor, at and datetime.fromisoformat(at), pages

def disconnect():
    database.close()
$$
SETTINGS type = 'python', read_function_name = 'read', write_function_name = 'write',
    init_function_name = 'connect', init_function_parameters = '{}', deinit_function_name = 'disconnect'
",
            database.display()
        ))
        .await?;

    // An INSERT runs when its result is asked for: the number of rows.
    engine.sql("INSERT INTO visits VALUES ('ann', '2024-02-29T12:00:00', 3), ('bob', NULL, 1)").await?.show().await?;
    engine.sql("INSERT INTO visits (visitor, pages) VALUES ('cho', 2)").await?.show().await?;
    engine.sql("SELECT * FROM visits ORDER BY pages DESC").await?.show().await?;
    Ok(())
}
