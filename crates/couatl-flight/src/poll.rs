//! Statements that run while their client polls.
//!
//! A query is there at once: it runs when it is fetched. What may take long is a statement that changes something; it
//! runs in a task of its own, and each poll waits for a while for its end. A client that polls no more has left, and
//! its statement ends.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::sql::Any;
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo};
use bytes::Bytes;
use couatl_core::Error;
use couatl_datafusion::Session;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use prost::Message;
use tokio::task::{AbortHandle, JoinError};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::client::{Client, Presence};
use crate::handle::{Owner, Weigh};
use crate::status::{internal, status};

/// How long the first poll of a statement waits for it: many are done before a second one could come.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How long those after it do.
pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// What a poll's descriptor holds.
const TYPE_URL: &str = "type.googleapis.com/couatl.Poll";

/// A statement that runs.
#[derive(Clone)]
pub(crate) struct Running {
    session: Session,
    /// Owns the task: when the last of them is dropped, the statement ends.
    end: Shared<BoxFuture<'static, Result<FlightInfo, Status>>>,
    task: AbortHandle,
    /// By which connection it was polled for last.
    client: Arc<Mutex<Presence>>,
    /// The answer while there is none.
    unfinished: Arc<FlightInfo>,
}

impl Weigh for Running {
    fn bytes(&self) -> usize {
        self.unfinished.schema.len() + self.unfinished.flight_descriptor.as_ref().map_or(0, |d| d.cmd.len())
    }

    fn owner(&self) -> Owner {
        Owner::of(&self.session)
    }

    fn is_left(&self) -> bool {
        self.client.lock().is_over()
    }
}

impl Running {
    /// Starts a statement; `unfinished` is what there is to say of it meanwhile.
    pub(crate) fn start(
        client: &Client,
        statement: impl Future<Output = Result<FlightInfo, Status>> + Send + 'static,
        unfinished: FlightInfo,
    ) -> Self {
        let running = AbortOnDropHandle::new(tokio::spawn(statement));
        let task = running.abort_handle();
        let lost = |error: JoinError| match error.is_cancelled() {
            true => Err(status(&Error::cancelled("the statement was cancelled by its client"))),
            false => Err(internal(error)),
        };
        let end = running.map(move |ended| ended.unwrap_or_else(lost)).boxed().shared();
        let (session, client) = (client.session.clone(), Arc::new(Mutex::new(client.presence())));
        Self { session, end, task, client, unfinished: Arc::new(unfinished) }
    }

    /// This client polls for it.
    pub(crate) fn polled_by(&self, client: &Client) {
        *self.client.lock() = client.presence();
    }

    /// Ends the statement, whoever waits for it.
    pub(crate) fn cancel(&self) {
        self.task.abort();
    }

    /// Where it runs.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The answer to a poll that waits for so long; `handle` is by what the next poll finds it.
    pub(crate) async fn answer(self, wait: Duration, handle: impl FnOnce(Self) -> Bytes) -> Result<PollInfo, Status> {
        match tokio::time::timeout(wait, self.end.clone()).await {
            Ok(end) => end.map(finished),
            Err(_) => {
                let unfinished = Arc::clone(&self.unfinished);
                Ok(still_running(&unfinished, handle(self)))
            }
        }
    }
}

/// The answer that needs no other poll.
pub(crate) fn finished(info: FlightInfo) -> PollInfo {
    PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None }
}

/// The handle comes with the info too, for who cancels it.
fn still_running(unfinished: &FlightInfo, handle: Bytes) -> PollInfo {
    let command = Any { type_url: TYPE_URL.to_owned(), value: handle.clone() };
    let info = FlightInfo { app_metadata: handle, ..unfinished.clone() };
    PollInfo {
        info: Some(info),
        flight_descriptor: Some(FlightDescriptor::new_cmd(command.encode_to_vec())),
        progress: None,
        expiration_time: None,
    }
}

/// The handle in the descriptor of a poll that is not the first.
pub(crate) fn handle(descriptor: &FlightDescriptor) -> Option<Bytes> {
    let command = Any::decode(&*descriptor.cmd).ok()?;
    (command.type_url == TYPE_URL).then_some(command.value)
}
