//! Python tables in a `SessionContext` that is there already, beside the tables that it has.
//!
//! `cargo run --example session_context`

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use couatl::{Callable, Mode, PythonTable, cancel_all, install_streaming};
use datafusion::arrow::util::pretty::print_batches;
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

const READINGS: &str = "
import time
from itertools import cycle

def readings():
    for room, celsius in cycle([('attic', 31.5), ('kitchen', 21.0), ('cellar', 12.0)]):
        yield room, celsius
        time.sleep(0.1)
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let context = SessionContext::new();
    context.sql("CREATE TABLE words AS VALUES ('select'), ('with'), ('yield')").await?;

    // A callable of an installed package is a table as it is.
    let keywords = Callable::import("keyword:kwlist.copy")?;
    let keywords = PythonTable::from_callable("keywords", "word string", keywords)?.mode(Mode::Batch).build()?;
    context.register_table("keywords", Arc::new(keywords))?;
    let found = context.sql("SELECT word AS shared FROM keywords JOIN words ON word = column1 ORDER BY shared").await?;
    found.show().await?;

    // What is slow or endless wants a planner that holds no rows back. The new context shares the old one's tables.
    let state = install_streaming(SessionStateBuilder::new_from_existing(context.state())).build();
    let context = SessionContext::new_with_state(state);
    let readings = PythonTable::from_source("readings", "room string, celsius float64", READINGS)?;
    context.register_table("readings", Arc::new(readings.mode(Mode::Streaming).build()?))?;
    let hot = context.sql("SELECT room, celsius FROM readings WHERE celsius > 20 LIMIT 4").await?;
    let mut hot = hot.execute_stream().await?;
    while let Some(batch) = hot.try_next().await? {
        print_batches(&[batch])?;
    }
    drop(hot);

    // An engine's queries end when their Python has; here, that is awaited by hand.
    cancel_all(Duration::from_secs(5));
    Ok(())
}
