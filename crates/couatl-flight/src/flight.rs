//! The Flight service around the Flight SQL commands: what arrow-flight's own dispatch leaves out or gets wrong, and one
//! log line for each call.
//!
//! Its own here: GetSchema; the `is_update` of a prepared statement; a list of the actions that there really are; and
//! INVALID_ARGUMENT, instead of INTERNAL, for bytes that are no command.

use std::time::Instant;

use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::ProstMessageExt;
use arrow_flight::sql::{ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, IpcMessage,
    PollInfo, SchemaAsIpc, SchemaResult, Ticket,
};
use bytes::Bytes;
use couatl_core::{Error, ErrorKind};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{debug, warn};

use crate::service::{Created, Service};
use crate::status::{internal, status};

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";

/// The tag of `optional bool is_update = 4`, a varint, in ActionCreatePreparedStatementResult.
const IS_UPDATE_TAG: u8 = 4 << 3;

/// The service that tonic serves.
pub(crate) struct Flight {
    service: Service,
    refusing: CancellationToken,
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

/// The command in the bytes of a descriptor or a ticket.
fn command(bytes: &[u8]) -> Result<Command, Status> {
    let refused = |error: String| status(&Error::invalid_argument(format!("this is no Flight SQL command: {error}")));
    let message = Any::decode(bytes).map_err(|error| refused(error.to_string()))?;
    Command::try_from(message).map_err(|error| refused(error.to_string()))
}

fn schema_message(schema: &Schema) -> Result<Bytes, Status> {
    let message: IpcMessage = SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(internal)?;
    Ok(message.0)
}

/// The result of CreatePreparedStatement, with the field that arrow-flight's message does not have: fields of a protobuf
/// message may follow each other in any order, so that it is appended.
fn encode_created(created: Created) -> Result<Bytes, Status> {
    let result = ActionCreatePreparedStatementResult {
        prepared_statement_handle: created.handle,
        dataset_schema: schema_message(&created.statement.schema())?,
        parameter_schema: schema_message(&crate::wire::wire_schema(&created.statement.prepared.parameters()))?,
    };
    Ok(with_is_update(&result, created.statement.prepared.is_update()))
}

fn with_is_update(result: &ActionCreatePreparedStatementResult, is_update: bool) -> Bytes {
    let mut message = result.as_any();
    let mut value = Vec::from(message.value);
    value.extend([IS_UPDATE_TAG, u8::from(is_update)]);
    message.value = value.into();
    message.encode_to_vec().into()
}

impl Flight {
    /// The service around the commands. Once `refusing` is cancelled, it takes no new calls.
    pub(crate) fn new(service: Service, refusing: CancellationToken) -> Self {
        Self { service, refusing }
    }

    /// A call that begins something.
    async fn call<T>(&self, call: &'static str, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        logged(call, async {
            if self.refusing.is_cancelled() {
                return Err(status(&Error::new(ErrorKind::Unavailable, "the server is shutting down")));
            }
            work.await
        })
        .await
    }

    async fn create(&self, action: &Action) -> Result<Bytes, Status> {
        let refused = |error: String| status(&Error::invalid_argument(format!("this is no statement: {error}")));
        let message = Any::decode(&*action.body).map_err(|error| refused(error.to_string()))?;
        let request: ActionCreatePreparedStatementRequest = message
            .unpack()
            .map_err(|error| refused(error.to_string()))?
            .ok_or_else(|| refused(format!("found {}", message.type_url)))?;
        encode_created(self.service.create(request.query, request.transaction_id).await?)
    }

    async fn schema(&self, descriptor: &FlightDescriptor) -> Result<SchemaResult, Status> {
        let schema = self.service.schema(command(&descriptor.cmd)?).await?;
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
        self.call("Handshake", self.service.handshake(request)).await
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let refused = Error::unsupported("ListFlights is not offered: Flight SQL's GetTables lists tables and streams");
        self.call("ListFlights", async { Err(status(&refused)) }).await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        self.call("GetFlightInfo", async {
            command(&request.get_ref().cmd)?;
            self.service.get_flight_info(request).await
        })
        .await
    }

    async fn poll_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let refused = Error::unsupported("PollFlightInfo is not offered: use GetFlightInfo, which answers at once");
        self.call("PollFlightInfo", async { Err(status(&refused)) }).await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.call("GetSchema", self.schema(request.get_ref())).await.map(Response::new)
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        self.call("DoGet", async {
            command(&request.get_ref().ticket)?;
            self.service.do_get(request).await
        })
        .await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        self.call("DoPut", self.service.do_put(request)).await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.call("DoExchange", self.service.do_exchange(request)).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        if request.get_ref().r#type == CLOSE_PREPARED_STATEMENT {
            // Never refused: a client whose query has ended in its grace ends in good order.
            return logged("DoAction", self.service.do_action(request)).await;
        }
        self.call("DoAction", async {
            match request.get_ref().r#type.as_str() {
                CREATE_PREPARED_STATEMENT => {
                    let body = self.create(request.get_ref()).await?;
                    Ok(Response::new(stream::iter([Ok(arrow_flight::Result { body })]).boxed()))
                }
                other => Err(status(&Error::unsupported(format!("the action '{other}' is not offered")))),
            }
        })
        .await
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let action = |name: &str, description: &str| {
            Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
        };
        let actions = [
            action(CREATE_PREPARED_STATEMENT, "Parses and plans a statement, for one or many executions."),
            action(CLOSE_PREPARED_STATEMENT, "Forgets a prepared statement."),
        ];
        self.call("ListActions", async { Ok(Response::new(stream::iter(actions).boxed())) }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message of the protocol's newest version.
    #[derive(Clone, PartialEq, prost::Message)]
    struct NewResult {
        #[prost(bytes = "bytes", tag = "1")]
        prepared_statement_handle: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        dataset_schema: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        parameter_schema: Bytes,
        #[prost(bool, optional, tag = "4")]
        is_update: Option<bool>,
    }

    #[test]
    fn old_and_new_clients_read_the_result() {
        let result = ActionCreatePreparedStatementResult {
            prepared_statement_handle: "handle".into(),
            dataset_schema: "dataset".into(),
            parameter_schema: "parameters".into(),
        };
        for is_update in [false, true] {
            let message = Any::decode(&*with_is_update(&result, is_update)).unwrap();
            let old: ActionCreatePreparedStatementResult = message.unpack().unwrap().unwrap();
            assert_eq!(old, result);
            let new = NewResult::decode(&*message.value).unwrap();
            assert_eq!(new.is_update, Some(is_update));
            assert_eq!(new.prepared_statement_handle, "handle");
            assert_eq!(new.parameter_schema, "parameters");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for garbage in [&b"\xff\xff\xff"[..], b"SELECT 1"] {
            assert_eq!(command(garbage).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        let query = arrow_flight::sql::CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        assert!(matches!(command(&query.as_any().encode_to_vec()), Ok(Command::CommandStatementQuery(_))));
        let broken = Any { value: Bytes::from_static(b"\xff\xff"), ..query.as_any() };
        assert_eq!(command(&broken.encode_to_vec()).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
