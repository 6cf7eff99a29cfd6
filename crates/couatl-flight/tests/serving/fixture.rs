//! A running server with tables that do as they are told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightInfo, IpcMessage};
use couatl_core::{Error, Host, Result, Stream, StreamDefinition};
use couatl_datafusion::{Session, into_datafusion};
use couatl_flight::{Server, ServerConfig};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub(crate) type Client = FlightSqlServiceClient<Channel>;

/// A host without any stream: what is tested here is SQL and the wire.
#[derive(Debug)]
struct NoHost;

impl Host for NoHost {
    fn stream(&self, _definition: Arc<StreamDefinition>) -> Result<Stream> {
        Err(Error::unsupported("this host has no streams"))
    }
}

/// A table whose rows come from a function.
struct Feed {
    schema: SchemaRef,
    rows: Box<dyn Fn() -> BoxStream<'static, Result<RecordBatch>> + Send + Sync>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

impl PartitionStream for Feed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = (self.rows)().map_err(into_datafusion);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// A batch of a column `n`.
pub(crate) fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(range)) as ArrayRef]).unwrap()
}

/// A server, which ends with the test.
pub(crate) struct Served {
    pub(crate) session: Session,
    pub(crate) address: String,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: JoinHandle<Result<()>>,
    queries: Option<Runtime>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
        if let Some(queries) = self.queries.take() {
            queries.shutdown_background();
        }
    }
}

pub(crate) async fn served() -> Served {
    served_with(ServerConfig::default()).await
}

pub(crate) async fn served_with(config: ServerConfig) -> Served {
    let session = Session::new(Arc::new(NoHost)).unwrap();
    let queries = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let server = Server::new(session.clone(), queries.handle().clone()).with_config(config);
    let serving = tokio::spawn(server.serve(listener, stop.clone().cancelled_owned()));
    Served { session, address, stop, serving, queries: Some(queries) }
}

impl Served {
    pub(crate) async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address.clone()).unwrap().connect().await.unwrap()
    }

    /// Registers a table with a column `n` whose rows come from a function.
    pub(crate) fn feed(
        &self,
        name: &str,
        rows: impl Fn() -> BoxStream<'static, Result<RecordBatch>> + Send + Sync + 'static,
    ) {
        let schema = numbers(0..0).schema();
        let feed = Feed { schema: Arc::clone(&schema), rows: Box::new(rows) };
        let table = StreamingTable::try_new(schema, vec![Arc::new(feed)]).unwrap().with_infinite_table(true);
        self.session.context().register_table(name, Arc::new(table)).unwrap();
    }

    /// Registers `clock`: a row at once, and then one every few milliseconds without end.
    pub(crate) fn clock(&self) {
        self.feed("clock", || {
            stream::unfold(0, |n| async move {
                if n > 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Some((Ok(numbers(n..n + 1)), n + 1))
            })
            .boxed()
        });
    }

    /// Registers `flood`: rows as fast as they are read, without end.
    pub(crate) fn flood(&self) {
        self.feed("flood", || stream::iter((0..).map(|n| Ok(numbers(n..n + 50_000)))).boxed());
    }

    /// Waits for all queries to be over and cleaned up.
    pub(crate) async fn until_idle(&self) {
        until("all queries are over", || self.session.queries().list().is_empty()).await;
    }
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never happened: {what}");
}

/// The schema that a FlightInfo announces.
pub(crate) fn announced(info: &FlightInfo) -> Schema {
    Schema::try_from(IpcMessage(info.schema.clone())).unwrap()
}

/// The schema that is sent, and the rows.
pub(crate) async fn fetch(
    client: &mut Client,
    info: &FlightInfo,
) -> Result<(SchemaRef, Vec<RecordBatch>), FlightError> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut rows = client.do_get(ticket).await?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        batches.push(batch);
    }
    Ok((Arc::clone(rows.schema().unwrap()), batches))
}

/// Runs a text as ADBC does without preparing it: its rows, or the number of rows it wrote.
pub(crate) async fn run(client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(sql.to_owned(), None).await?;
    Ok(fetch(client, &info).await?.1)
}

/// The only value of a result, as text.
pub(crate) async fn value(client: &mut Client, sql: &str) -> String {
    let batches = run(client, sql).await.unwrap();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (1, 1));
    arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap()
}

/// The status that a call failed with.
pub(crate) fn refused<T>(outcome: Result<T, FlightError>) -> tonic::Status {
    match outcome {
        Ok(_) => panic!("it was not refused"),
        Err(FlightError::Tonic(status)) => *status,
        Err(other) => panic!("not a status: {other}"),
    }
}
