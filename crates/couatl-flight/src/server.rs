//! The server as a whole: from a bound listener to the last connection's end.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use couatl_core::{Error, ErrorKind, Result};
use couatl_datafusion::Session;
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::server::NamedService;
use tonic::transport::Server as Transport;
use tonic_health::ServingStatus;
use tower::layer::layer_fn;
use tracing::{info, warn};

use crate::auth::{Authenticator, Callers};
use crate::client::{Clients, Sessions};
use crate::connection::connections;
use crate::flight::Flight;
use crate::handle::HandleLimits;
use crate::http::Http;
use crate::reflection::Reflection;
use crate::runtime::QueryRuntime;
use crate::service::Service;
use crate::stream::MAX_MESSAGE_BYTES;
use crate::tls::Tls;

const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const HEADER_LIST_BYTES: u32 = 64 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(25);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked after by those who look after the server: all of it, or the service that it has.
const SERVICES: [&str; 2] = ["", <FlightServiceServer<Flight> as NamedService>::NAME];

/// How long clients have to read the statuses of their ended queries, where the grace has passed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How much of the statements and parameters that clients hold is kept, of each kind of handle.
const HANDLE_BYTES: usize = 256 * 1024 * 1024;

/// What a server can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// How long running queries may go on once the server was asked to end.
    pub grace: Duration,
    /// After how long without a row a client is sent an empty batch.
    pub heartbeat: Option<Duration>,
    /// How many results may be waiting to be fetched, and for how long.
    pub tickets: HandleLimits,
    /// How many prepared statements clients may have open, and for how long without using them.
    pub statements: HandleLimits,
    /// How many sessions clients may have, and for how long without using them.
    pub sessions: HandleLimits,
    /// Whether it says how it is, by gRPC's own protocol for that, to whoever asks.
    pub health: bool,
    /// Whether it describes its protocol to those who ask for it.
    pub reflection: bool,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            heartbeat: Some(Duration::from_secs(15)),
            tickets: HandleLimits { count: 10_000, bytes: HANDLE_BYTES, idle: Duration::from_secs(10 * 60) },
            statements: HandleLimits { count: 10_000, bytes: HANDLE_BYTES, idle: Duration::from_secs(60 * 60) },
            sessions: HandleLimits { count: 10_000, bytes: HANDLE_BYTES, idle: Duration::from_secs(24 * 60 * 60) },
            health: false,
            reflection: false,
        }
    }
}

/// A Flight SQL server on a session.
///
/// ```no_run
/// use couatl_flight::Server;
///
/// # async fn example(session: couatl_datafusion::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let queries = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// println!("listening on grpc://{}", listener.local_addr()?);
/// let interrupted = async { drop(tokio::signal::ctrl_c().await) };
/// Server::new(session, queries.handle().clone()).serve(listener, interrupted).await?;
/// queries.shutdown_background();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    session: Session,
    queries: Handle,
    config: ServerConfig,
    authenticator: Option<Arc<Authenticator>>,
    tls: Option<Arc<Tls>>,
    http: Option<TcpListener>,
}

impl Server {
    /// A server of a session, whose queries run on a runtime that is not the one that serves: planning and execution
    /// may take its threads for as long as they like.
    #[must_use]
    pub fn new(session: Session, queries: Handle) -> Self {
        Self { session, queries, config: ServerConfig::default(), authenticator: None, tls: None, http: None }
    }

    /// The same server, told otherwise.
    #[must_use]
    pub fn with_config(self, config: ServerConfig) -> Self {
        Self { config, ..self }
    }

    /// The same server, for users alone that this knows.
    #[must_use]
    pub fn with_authenticator(self, authenticator: Authenticator) -> Self {
        Self { authenticator: Some(Arc::new(authenticator)), ..self }
    }

    /// The same server, over TLS.
    #[must_use]
    pub fn with_tls(self, tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The same server, with queries over HTTP on another listener.
    #[must_use]
    pub fn with_http(self, listener: TcpListener) -> Self {
        Self { http: Some(listener), ..self }
    }

    /// Serves the clients of a listener until `shutdown` completes and everything has ended.
    ///
    /// The end comes in steps. New calls are refused with UNAVAILABLE from the first moment on, while the queries that
    /// run have the grace to end. Those that do not are cancelled, and their clients are told so. Connections are
    /// closed when their calls have ended, and cut where a client does not read its last status. Dropping the future
    /// cuts them all at once.
    ///
    /// # Errors
    /// `unavailable`, where the transport gives up by itself.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Self { session, queries, config, authenticator, tls, http } = self;
        let address = listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
        // In the order in which they are cancelled.
        let refusing = CancellationToken::new();
        let over = CancellationToken::new();
        let closing = CancellationToken::new();
        let cut = CancellationToken::new();
        let _cut = cut.clone().drop_guard();

        if let Some(authenticator) = &authenticator {
            session.set_directory(Arc::clone(authenticator) as _);
        }
        let callers = Callers::new(authenticator, Arc::clone(session.queries()));
        let runtime = QueryRuntime::new(queries.clone(), over.clone());
        let calls = TaskTracker::new();
        let sessions = Arc::new(Sessions::new(session.clone(), config.sessions));
        let service = Arc::new(Service::new(runtime.clone(), &config));
        let mut http = http.map(|listener| {
            let incoming = connections(listener, tls.clone(), closing.clone(), cut.clone());
            let http = Http {
                session: session.clone(),
                runtime,
                callers: callers.clone(),
                sessions: Arc::clone(&sessions),
                service: Arc::clone(&service),
                refusing: refusing.clone(),
                calls: calls.clone(),
            };
            AbortOnDropHandle::new(tokio::spawn(http.serve(incoming, closing.clone())))
        });
        let sweep = {
            let (service, sessions) = (Arc::clone(&service), Arc::clone(&sessions));
            tokio::spawn(async move { tokio::join!(service.sweep(), sessions.sweep()) })
        };
        let _sweep = AbortOnDropHandle::new(sweep);
        let service = FlightServiceServer::new(Flight::new(service, Arc::clone(&sessions), refusing.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES);
        let described = config.reflection.then_some(Reflection { health: config.health });
        let (mut reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<FlightServiceServer<Flight>>().await;
        let transport = Transport::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .layer(layer_fn({
                let calls = calls.clone();
                move |inner| {
                    let (sessions, callers, calls) = (Arc::clone(&sessions), callers.clone(), calls.clone());
                    Clients { sessions, callers, calls, inner }
                }
            }))
            .add_service(service)
            .add_optional_service(config.health.then_some(health))
            .add_optional_service(described.map(Reflection::v1).transpose()?)
            .add_optional_service(described.map(Reflection::v1alpha).transpose()?)
            .serve_with_incoming_shutdown(
                connections(listener, tls, closing.clone(), cut.clone()),
                closing.clone().cancelled_owned(),
            );
        let mut transport = std::pin::pin!(transport.fuse());
        let failed = |error: tonic::transport::Error| {
            Error::new(ErrorKind::Unavailable, format!("the server cannot go on: {error}")).with_source(error)
        };

        info!(address, "serving");
        tokio::select! {
            ended = &mut transport => return ended.map_err(failed),
            () = shutdown => {}
        }

        info!(address, grace = ?config.grace, "shutting down");
        refusing.cancel();
        for service in SERVICES {
            reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
        let is_busy = !session.queries().list().is_empty();
        let asked = Instant::now();
        let queries_end = queries.spawn(async move { session.shutdown(config.grace).await });
        tokio::pin!(queries_end);
        // The transport goes on meanwhile: it carries rows, and refusals.
        tokio::select! {
            ended = &mut transport => return ended.map_err(failed),
            () = async {
                if timeout(config.grace, &mut queries_end).await.is_err() {
                    over.cancel();
                    let _ = queries_end.await;
                }
            } => {}
        }

        // Who watches its health knows by now, and would keep their connections open.
        for service in SERVICES {
            reporter.clear_service_status(service).await;
        }
        // Results that are made may still be on their way, and who has them closes what it has opened.
        if is_busy {
            tokio::time::sleep(LAST_WORDS.min(config.grace.saturating_sub(asked.elapsed()))).await;
        }
        closing.cancel();
        calls.close();
        // Who has no call, and does not close its connection either, is not waited for.
        let answered = async {
            calls.wait().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        let mut ended = None;
        let left = tokio::select! {
            left = timeout(config.grace.saturating_sub(asked.elapsed()), all_end(&mut transport, &mut http, &mut ended)) => {
                left.is_err()
            }
            () = answered => true,
        };
        if left {
            over.cancel();
            if timeout(LAST_WORDS, all_end(&mut transport, &mut http, &mut ended)).await.is_err() {
                if !calls.is_empty() {
                    warn!(address, "some clients do not read: their connections are cut");
                }
                cut.cancel();
                let _ = timeout(LAST_WORDS, all_end(&mut transport, &mut http, &mut ended)).await;
            }
        }
        info!(address, "ended");
        ended.unwrap_or(Ok(())).map_err(failed)
    }
}

/// Waits for what has not ended: the transport, then HTTP. It may be asked again where it was left.
async fn all_end<E>(
    transport: &mut (impl Future<Output = E> + Unpin),
    http: &mut Option<impl Future + Unpin>,
    ended: &mut Option<E>,
) {
    if ended.is_none() {
        *ended = Some(transport.await);
    }
    if let Some(waited) = http {
        waited.await;
        *http = None;
    }
}
