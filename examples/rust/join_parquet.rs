//! Rows that a Python function returns, joined with a Parquet file.
//!
//! `cargo run --example join_parquet`

use std::error::Error;

use couatl::Engine;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("sensors.parquet");
    let file = file.display();

    let engine = Engine::builder().build()?;
    // Statements may be many: those before the last run to their end, and what the last one gives is the result.
    let joined = engine
        .sql(&format!(
            "
COPY (VALUES ('a1', 'attic'), ('a2', 'attic'), ('c1', 'cellar')) TO '{file}' STORED AS PARQUET;
CREATE EXTERNAL TABLE sensors STORED AS PARQUET LOCATION '{file}';

CREATE EXTERNAL STREAM readings (sensor string NOT NULL, celsius float64) AS $$
from random import Random

def readings():
    noise = Random(1)
    return [(sensor, mean + noise.random()) for sensor, mean in [('a1', 24), ('a2', 25), ('c1', 12)] * 1000]
$$
SETTINGS type = 'python', mode = 'batch';

SELECT column2 AS room, count(*) AS readings, round(avg(celsius), 1) AS celsius
FROM readings JOIN sensors ON sensor = column1
GROUP BY room ORDER BY room
"
        ))
        .await?;
    joined.show().await?;
    Ok(())
}
