//! A clock: an endless generator, each row of which is there the moment it is yielded, and which a LIMIT ends.
//!
//! `cargo run --example clock`

use std::error::Error;

use couatl::Engine;
use datafusion::arrow::util::pretty::print_batches;
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::builder().build()?;
    engine
        .sql(
            "
CREATE EXTERNAL STREAM clock (tick int64, at timestamptz) AS $$
import time
from datetime import datetime, timezone
from itertools import count

def clock():
    for tick in count():
        yield tick, datetime.now(timezone.utc)
        time.sleep(0.5)
$$
SETTINGS type = 'python', mode = 'streaming'
",
        )
        .await?;

    let mut ticks = engine.sql("SELECT tick, at FROM clock LIMIT 5").await?.execute_stream().await?;
    while let Some(batch) = ticks.try_next().await? {
        print_batches(&[batch])?;
    }
    Ok(())
}
