//! The Flight service around the Flight SQL commands: what arrow-flight's own dispatch leaves out or gets wrong, and one
//! log line for each call.
//!
//! Its own here: GetSchema, PollFlightInfo and the actions; and INVALID_ARGUMENT, instead of INTERNAL, for bytes that
//! are no command.

use std::sync::Arc;
use std::time::Instant;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo,
    SchemaResult, Ticket,
};
use couatl_core::{Error, ErrorKind};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Extensions, Request, Response, Status, Streaming};
use tracing::{debug, warn};

use crate::action::{self, schema_message};
use crate::client::{Client, Sessions};
use crate::poll;
use crate::service::{Service, command, is_nothing};
use crate::status::status;

/// The service that tonic serves.
pub(crate) struct Flight {
    service: Arc<Service>,
    sessions: Arc<Sessions>,
    refusing: CancellationToken,
}

/// Whether it is the Python of a query that asks: what the query is for runs on while the server shuts down.
fn is_asked_for(extensions: &Extensions) -> bool {
    Client::of(extensions).is_ok_and(|client| client.session.caller().depth() > 0)
}

/// A call, with its outcome in the log.
async fn logged<T>(call: &'static str, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let started = Instant::now();
    let outcome = work.await;
    let elapsed = started.elapsed();
    match &outcome {
        Ok(_) => debug!(call, ?elapsed, "answered"),
        // Drivers ask for what we do not offer as a matter of course: ADBC closes a session that it never opened.
        Err(status) if status.code() == Code::Unimplemented => debug!(call, reason = status.message(), "not offered"),
        Err(status) => warn!(call, ?elapsed, code = ?status.code(), reason = status.message(), "refused"),
    }
    outcome
}

impl Flight {
    /// The service around the commands. Once `refusing` is cancelled, it takes no new calls.
    pub(crate) fn new(service: Arc<Service>, sessions: Arc<Sessions>, refusing: CancellationToken) -> Self {
        Self { service, sessions, refusing }
    }

    /// A call, which begins something unless it `goes_on` with what has begun.
    async fn call<T>(
        &self,
        call: &'static str,
        goes_on: bool,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        logged(call, async {
            if self.refusing.is_cancelled() && !goes_on {
                return Err(status(&Error::new(ErrorKind::Unavailable, "the server is shutting down")));
            }
            work.await
        })
        .await
    }

    async fn schema(&self, request: &Request<FlightDescriptor>) -> Result<SchemaResult, Status> {
        let client = Client::of(request.extensions())?;
        let schema = self.service.schema(client, command(&request.get_ref().cmd)?).await?;
        Ok(SchemaResult { schema: schema_message(&schema)? })
    }
}

#[tonic::async_trait]
impl FlightService for Flight {
    type HandshakeStream = <Service as FlightService>::HandshakeStream;
    type ListFlightsStream = <Service as FlightService>::ListFlightsStream;
    type DoGetStream = <Service as FlightService>::DoGetStream;
    type DoPutStream = <Service as FlightService>::DoPutStream;
    type DoActionStream = <Service as FlightService>::DoActionStream;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = <Service as FlightService>::DoExchangeStream;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.call("Handshake", true, self.service.handshake(request)).await
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let refused = Error::unsupported("ListFlights is not offered: Flight SQL's GetTables lists tables and streams");
        self.call("ListFlights", false, async { Err(status(&refused)) }).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        self.call("GetFlightInfo", is_asked_for(request.extensions()), async {
            command(&request.get_ref().cmd)?;
            self.service.get_flight_info(request).await
        })
        .await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        // Who asks for the end of a statement that runs begins nothing.
        let is_begun = poll::handle(request.get_ref()).is_some();
        let polled = async {
            let client = Client::of(request.extensions())?.clone();
            self.service.poll(&client, request).await.map(Response::new)
        };
        self.call("PollFlightInfo", is_begun, polled).await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.call("GetSchema", is_asked_for(request.extensions()), self.schema(&request)).await.map(Response::new)
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        // Nor does who fetches what it gave, which is no rows.
        let goes_on = is_nothing(&request.get_ref().ticket) || is_asked_for(request.extensions());
        let fetched = async {
            command(&request.get_ref().ticket)?;
            self.service.do_get(request).await
        };
        self.call("DoGet", goes_on, fetched).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let goes_on = is_asked_for(request.extensions());
        self.call("DoPut", goes_on, async { self.service.do_put(request).await }).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.call("DoExchange", false, self.service.do_exchange(request)).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let action = request.get_ref();
        let performed = async {
            let client = Client::of(request.extensions())?;
            let body = action::perform(&self.service, &self.sessions, client, action).await?;
            Ok(Response::new(stream::iter(body.map(|body| Ok(arrow_flight::Result { body }))).boxed()))
        };
        let goes_on = action::ends(action) || is_asked_for(request.extensions());
        self.call("DoAction", goes_on, performed).await
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.call("ListActions", false, async { Ok(Response::new(stream::iter(action::types().map(Ok)).boxed())) })
            .await
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{Any, Command, ProstMessageExt};
    use bytes::Bytes;
    use prost::Message;

    use super::*;

    #[test]
    fn what_is_no_command_is_refused() {
        for garbage in [&b"\xff\xff\xff"[..], b"SELECT 1"] {
            assert_eq!(command(garbage).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        let query = arrow_flight::sql::CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        assert!(matches!(command(&query.as_any().encode_to_vec()), Ok(Command::CommandStatementQuery(_))));
        let broken = Any { value: Bytes::from_static(b"\xff\xff"), ..query.as_any() };
        assert_eq!(command(&broken.encode_to_vec()).unwrap_err().code(), tonic::Code::InvalidArgument);
        let refused = command(b"").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        assert!(refused.message().contains("send one, such as CommandStatementQuery"), "{refused}");
    }
}
