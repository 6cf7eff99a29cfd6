//! Statements on a server, over Flight SQL.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightEndpoint, FlightInfo};
use couatl_core::{Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tonic::Status;
use tonic::transport::{self, Channel};

use crate::args::Endpoint;
use crate::connection::{Answer, Connection};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES: u32 = 64 << 10;
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The metadata entry in which our server names the kind of an error, which gRPC's codes only come near.
const ERROR_KIND: &str = "x-couatl-error-kind";

/// A connection to a Flight SQL server.
#[derive(Debug)]
pub(crate) struct Client {
    flight: FlightSqlServiceClient<Channel>,
}

impl Client {
    /// Connects to a server.
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Self> {
        let authority = &endpoint.authority;
        let failed = |error: transport::Error| {
            let message = format!("cannot connect to grpc://{authority}: {}", root_cause(&error));
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        };
        let channel = transport::Endpoint::from_shared(format!("http://{authority}"))
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT)
            // Errors arrive in headers, tracebacks and all.
            .http2_max_header_list_size(HEADER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect()
            .await
            .map_err(failed)?;
        // A row may be as large as it likes.
        let flight = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Self { flight: FlightSqlServiceClient::new_from_inner(flight) })
    }
}

impl Connection for Client {
    async fn run(&mut self, statement: &str) -> Result<Answer> {
        let info = self.flight.execute(statement.to_owned(), None).await.map_err(from_flight)?;
        let FlightInfo { endpoint: endpoints, total_records, .. } = info.clone();
        let schema = info.try_decode_schema()?;
        if schema.fields().is_empty() {
            return Ok(Answer::Updated(u64::try_from(total_records).ok()));
        }
        let flight = self.flight.clone();
        let batches = stream::iter(endpoints)
            .then(move |endpoint| {
                let mut flight = flight.clone();
                async move { flight.do_get(ticket(endpoint)?).await }
            })
            .try_flatten()
            .map_err(from_flight);
        Ok(Answer::Rows(Arc::new(schema), batches.boxed()))
    }

    // What was cancelled is the server's to clean up.
    async fn close(self) {}
}

fn ticket(endpoint: FlightEndpoint) -> Result<arrow_flight::Ticket, FlightError> {
    endpoint.ticket.ok_or_else(|| FlightError::protocol("the server sent an endpoint without a ticket"))
}

fn from_flight(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => from_status(*status),
        FlightError::Arrow(error) => error.into(),
        error => Error::internal(error.to_string()).with_source(error),
    }
}

/// The server's error, its message in full.
fn from_status(status: Status) -> Error {
    let named = status.metadata().get(ERROR_KIND).and_then(|kind| kind.to_str().ok());
    let kind = ErrorKind::ALL.iter().find(|kind| Some(kind.as_str()) == named);
    // A status with a source was made here, of what happened to the connection.
    let (kind, message) = match (status.source(), status.message()) {
        (Some(source), _) => {
            (ErrorKind::Unavailable, format!("lost the connection to the server: {}", root_cause(source)))
        }
        (None, "") => (kind.copied().unwrap_or(ErrorKind::Internal), status.code().description().to_owned()),
        (None, message) => (kind.copied().unwrap_or(ErrorKind::Internal), message.to_owned()),
    };
    Error::new(kind, message).with_source(status)
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there() {
        // Bound and not listening: nobody else can take the port meanwhile.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let authority = socket.local_addr().unwrap().to_string();
        let error = Client::connect(&Endpoint { authority: authority.clone() }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let message = error.to_string();
        assert!(message.starts_with(&format!("cannot connect to grpc://{authority}: Connection refused")), "{message}");
    }

    #[test]
    fn the_servers_message_is_kept_in_full() {
        let message = "stream 'a' failed\nTraceback (most recent call last):\n  …\nKeyError: 'b'";
        let mut status = Status::unknown(message);
        status.metadata_mut().insert(ERROR_KIND, "python-exception".parse().unwrap());
        let error = from_flight(status.into());
        assert_eq!(error.to_string(), message);
        assert_eq!(error.kind(), ErrorKind::PythonException);
    }
}
