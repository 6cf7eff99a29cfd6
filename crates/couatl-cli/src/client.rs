//! Statements on a server, over Flight SQL.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightEndpoint, FlightInfo};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use couatl_core::{Error, ErrorKind, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tonic::Status;
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Identity};

use crate::args::{Endpoint, SqlArgs};
use crate::connection::{Answer, Connection};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES: u32 = 64 << 10;
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The metadata entry in which our server names the kind of an error, which gRPC's codes only come near.
const ERROR_KIND: &str = "x-couatl-error-kind";

/// Where a server is, and how one gets in.
#[derive(Debug)]
pub(crate) struct Server {
    endpoint: Endpoint,
    login: Option<(String, String)>,
    tls: ClientTlsConfig,
}

impl Server {
    /// What the command line says of it; none where it names no server.
    pub(crate) fn of(args: &SqlArgs) -> Result<Option<Self>> {
        let Some(endpoint) = args.connect.clone() else { return Ok(None) };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| {
                Error::invalid_argument(format!("cannot read '{}': {error}", path.display())).with_source(error)
            })
        };
        let mut tls = match &args.tls_ca {
            Some(authorities) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(authorities)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        let login = args.user.clone().map(|user| Ok::<_, Error>((user, password()?))).transpose()?;
        Ok(Some(Self { endpoint, login, tls }))
    }
}

/// From the environment, else asked for at the terminal: not from standard input, where statements may stand.
fn password() -> Result<String> {
    match std::env::var("COUATL_PASSWORD") {
        Ok(password) => Ok(password),
        Err(_) => rpassword::prompt_password("password: ").map_err(|error| {
            let text = format!("cannot ask for the password: {error}; put it into COUATL_PASSWORD");
            Error::invalid_argument(text).with_source(error)
        }),
    }
}

/// A connection to a Flight SQL server.
#[derive(Debug)]
pub(crate) struct Client {
    flight: FlightSqlServiceClient<Channel>,
}

impl Client {
    /// Connects to a server.
    pub(crate) async fn connect(server: &Server) -> Result<Self> {
        let Server { endpoint, login, tls } = server;
        let failed = |error: transport::Error| {
            let message = format!("cannot connect to {endpoint}: {}", root_cause(&error));
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        };
        let scheme = if endpoint.tls { "https" } else { "http" };
        let mut address =
            transport::Endpoint::from_shared(format!("{scheme}://{}", endpoint.authority)).map_err(failed)?;
        if endpoint.tls {
            address = address.tls_config(tls.clone()).map_err(failed)?;
        }
        let channel = address
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
        let token = match login {
            Some((user, password)) => log_in(flight.clone(), user, password).await?,
            None => None,
        };
        let mut flight = FlightSqlServiceClient::new_from_inner(flight);
        if let Some(token) = token {
            flight.set_token(token);
        }
        Ok(Self { flight })
    }
}

/// The token that a server gives for a password. arrow-flight's own way leaves of a refusal no more than a text.
async fn log_in(mut flight: FlightServiceClient<Channel>, user: &str, password: &str) -> Result<Option<String>> {
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let refused = |_| Error::invalid_argument("the user and the password cannot be sent");
    let mut request = tonic::Request::new(stream::empty());
    request.metadata_mut().insert("authorization", basic.parse().map_err(refused)?);
    let answer = flight.handshake(request).await.map_err(from_status)?;
    let given = answer.metadata().get("authorization").and_then(|given| given.to_str().ok());
    Ok(given.and_then(|given| given.strip_prefix("Bearer ")).map(str::to_owned))
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
        let endpoint = Endpoint { authority: authority.clone(), tls: false };
        let server = Server { endpoint, login: None, tls: ClientTlsConfig::new() };
        let error = Client::connect(&server).await.unwrap_err();
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
