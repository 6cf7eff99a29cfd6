//! Statements in this process.
//!
//! They run on the query runtime, and rows come over a channel: the thread that prints and waits for Ctrl-C is never
//! the one that polls a plan, in which a Python function may take its time.

use std::time::Duration;

use arrow::array::RecordBatch;
use couatl::Engine;
use couatl_core::{Error, Result};
use couatl_datafusion::{Outcome, from_datafusion};
use futures::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use crate::connection::{Answer, Connection};

/// An engine of this process, with the runtime on which its queries run.
#[derive(Debug)]
pub(crate) struct LocalEngine {
    engine: Engine,
    queries: Handle,
}

impl LocalEngine {
    /// Puts the engine together.
    pub(crate) fn new(queries: Handle) -> Result<Self> {
        let _guard = queries.enter();
        let engine = Engine::builder().build()?;
        Ok(Self { engine, queries: queries.clone() })
    }
}

impl Connection for LocalEngine {
    async fn run(&mut self, statement: &str) -> Result<Answer> {
        let (session, statement) = (self.engine.session().clone(), statement.to_owned());
        let execution = self.queries.spawn(async move {
            let prepared = session.prepare(&statement).await?;
            session.execute(&prepared, None).await
        });
        let mut rows = match AbortOnDropHandle::new(execution).await.map_err(lost)?? {
            Outcome::Updated(count) => return Ok(Answer::Updated(count)),
            Outcome::Rows(rows) => rows,
        };
        let schema = rows.schema();
        let (sender, receiver) = mpsc::channel::<Result<RecordBatch>>(1);
        let reading = AbortOnDropHandle::new(self.queries.spawn(async move {
            while let Some(batch) = rows.next().await {
                if sender.send(batch.map_err(from_datafusion)).await.is_err() {
                    break;
                }
            }
        }));
        let batches = stream::unfold((receiver, Some(reading)), |(mut receiver, mut reading)| async move {
            if let Some(batch) = receiver.recv().await {
                return Some((batch, (receiver, reading)));
            }
            // The channel also ends where the task did not reach its end: that must not look like the last row.
            match reading.take()?.await {
                Ok(()) => None,
                Err(error) => Some((Err(lost(error)), (receiver, None))),
            }
        });
        Ok(Answer::Rows(schema, batches.boxed()))
    }

    async fn close(self) {
        let session = self.engine.session().clone();
        // Its own bound is the only one: a second Ctrl-C is the way out for those who will not wait.
        let _ = self.queries.spawn(async move { session.shutdown(Duration::ZERO).await }).await;
    }
}

fn lost(error: JoinError) -> Error {
    Error::internal(format!("the query did not reach its end: {error}")).with_source(error)
}
