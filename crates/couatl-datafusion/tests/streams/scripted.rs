//! A host whose streams do what a test tells them to: no Python, no clock.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use couatl_core::{
    Error, Finish, Host, Mode, Partition, Result, ScanRequest, Sink, SinkWriter, Source, Stream, StreamDefinition,
    WriteRequest,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

/// What a source is told to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Give these rows of the only column.
    Rows(Vec<i64>),
    /// Give this batch, of all columns; those that are not read are left out.
    Batch(RecordBatch),
    /// Fail.
    Fail(&'static str),
}

/// What streams have done, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, entry: impl Into<String>) {
        self.0.lock().push(entry.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Makes streams whose bodies are not read: a test scripts them by their names.
#[derive(Default)]
pub(crate) struct ScriptedHost {
    pub(crate) log: Log,
    steps: Mutex<HashMap<String, mpsc::UnboundedReceiver<Step>>>,
    /// The cleanup of these streams fails.
    pub(crate) failing: Mutex<Vec<String>>,
    /// The cleanup of these streams never ends.
    pub(crate) stuck: Mutex<Vec<String>>,
    held: Mutex<Vec<Finish>>,
}

impl fmt::Debug for ScriptedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedHost")
    }
}

impl ScriptedHost {
    /// The steps of the next scan of a stream: it ends when the sender is dropped.
    pub(crate) fn script(&self, stream: &str) -> mpsc::UnboundedSender<Step> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.steps.lock().insert(stream.to_owned(), receiver);
        sender
    }

    /// Lets go of what never ends.
    pub(crate) fn release(&self) {
        self.held.lock().clear();
    }
}

/// The host as a session has it.
#[derive(Debug)]
pub(crate) struct Shared(pub(crate) Arc<ScriptedHost>);

impl Host for Shared {
    fn stream(&self, definition: Arc<StreamDefinition>) -> Result<Stream> {
        let side = Arc::new(Side { host: self.0.clone(), definition: definition.clone() });
        Ok(Stream { definition, source: side.clone(), sink: side })
    }
}

#[derive(Debug)]
struct Side {
    host: Arc<ScriptedHost>,
    definition: Arc<StreamDefinition>,
}

#[async_trait]
impl Source for Side {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn schema(&self) -> SchemaRef {
        self.definition.schema.clone()
    }

    fn mode(&self) -> Mode {
        self.definition.mode
    }

    async fn open(&self, request: ScanRequest) -> Result<Vec<Box<dyn Partition>>> {
        let name = self.definition.name.clone();
        let steps = self.host.steps.lock().remove(&name);
        let steps = steps.ok_or_else(|| Error::not_found(format!("no script for '{name}'")))?;
        self.host.log.add(format!("open {name}"));
        let schema = Arc::new(self.definition.schema.project(&request.projection)?);
        let (projection, finish) = (request.projection, Some(request.finish));
        let partition = Scan { host: self.host.clone(), name, steps, schema, projection, finish };
        Ok(vec![Box::new(partition)])
    }
}

struct Scan {
    host: Arc<ScriptedHost>,
    name: String,
    steps: mpsc::UnboundedReceiver<Step>,
    schema: SchemaRef,
    projection: Vec<usize>,
    finish: Option<Finish>,
}

impl Scan {
    fn clean_up(&mut self) {
        let Some(finish) = self.finish.take() else { return };
        self.host.log.add(format!("close {}", self.name));
        if self.host.stuck.lock().contains(&self.name) {
            self.host.held.lock().push(finish);
            return;
        }
        let fails = self.host.failing.lock().contains(&self.name);
        finish.report(if fails { Err(Error::internal("the cleanup failed")) } else { Ok(()) });
    }
}

#[async_trait]
impl Partition for Scan {
    async fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        match self.steps.recv().await {
            None => Ok(None),
            Some(Step::Fail(message)) => Err(Error::invalid_argument(message)),
            Some(Step::Batch(batch)) => Ok(Some(batch.project(&self.projection)?)),
            Some(Step::Rows(rows)) => {
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
                let columns = self.schema.fields().iter().map(|_| Arc::new(Int64Array::from(rows.clone())) as _);
                Ok(Some(RecordBatch::try_new_with_options(self.schema.clone(), columns.collect(), &options)?))
            }
        }
    }

    async fn close(&mut self) -> Result<()> {
        self.clean_up();
        Ok(())
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.clean_up();
    }
}

#[async_trait]
impl Sink for Side {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn schema(&self) -> SchemaRef {
        self.definition.schema.clone()
    }

    async fn open(&self, request: WriteRequest) -> Result<Box<dyn SinkWriter>> {
        self.host.log.add(format!("open {}", self.definition.name));
        Ok(Box::new(Write {
            host: self.host.clone(),
            name: self.definition.name.clone(),
            rows: 0,
            finish: Some(request.finish),
        }))
    }
}

struct Write {
    host: Arc<ScriptedHost>,
    name: String,
    rows: u64,
    finish: Option<Finish>,
}

#[async_trait]
impl SinkWriter for Write {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.host.log.add(format!("write {} rows to {}", batch.num_rows(), self.name));
        if self.host.failing.lock().contains(&self.name) {
            return Err(Error::invalid_argument("the write failed"));
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    async fn commit(&mut self) -> Result<u64> {
        self.finish.take();
        self.host.log.add(format!("commit {}", self.name));
        Ok(self.rows)
    }

    async fn abort(&mut self) -> Result<()> {
        if self.finish.take().is_some() {
            self.host.log.add(format!("abort {}", self.name));
        }
        Ok(())
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if self.finish.take().is_some() {
            self.host.log.add(format!("drop {}", self.name));
        }
    }
}
