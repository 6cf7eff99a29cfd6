//! Queries over HTTP: `GET|POST /?query=…&format=…`, for who has no driver.
//!
//! A browser sends requests in the name of whoever sits before it, wherever the page comes from that asks for them. So a
//! GET changes nothing, and where nobody has to log in, requests of other pages and for other names are refused.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use couatl_core::{Error, ErrorKind, Result};
use couatl_datafusion::Session;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::LengthLimitError;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use percent_encoding::percent_decode_str;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::answer::Answer;
use crate::auth::{Callers, bearer};
use crate::client::Sessions;
use crate::connection::Connection;
use crate::format::Format;
use crate::metrics::{self, Held};
use crate::runtime::QueryRuntime;
use crate::service::Service;
use crate::statement::Statement;
use crate::stream::prepare;
use crate::wire::wire_schema;

/// The largest statement that is taken.
const MAX_QUERY_BYTES: usize = 16 * 1024 * 1024;

/// The largest answer to a client whose protocol has no chunks.
const MAX_WHOLE_BYTES: usize = 256 * 1024 * 1024;

/// How long a client may take for the head of a request, and until its next one.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// How long the rows before an error have to leave. What a client has not taken by then is lost with the connection.
const LEAVING_TIME: Duration = Duration::from_millis(100);

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) session: Session,
    pub(crate) runtime: QueryRuntime,
    pub(crate) callers: Callers,
    /// The sessions and the handles of Flight's clients, which are counted.
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) service: Arc<Service>,
    pub(crate) refusing: CancellationToken,
    /// The requests that have not been answered to the end.
    pub(crate) calls: TaskTracker,
}

#[derive(Debug, serde::Deserialize)]
struct Asked {
    query: Option<String>,
    format: Option<String>,
}

/// The address of a client.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

impl Http {
    /// Answers what comes until the server closes, and then what has come. A client that does not say all of what it asks
    /// for, or asks for nothing more, is waited for as long as [`HEAD_TIME`].
    pub(crate) async fn serve(
        self,
        connections: impl Stream<Item = io::Result<Connection>> + Send,
        closing: CancellationToken,
    ) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIME);
        let (router, graceful) = (self.router(), GracefulShutdown::new());
        let mut connections = Box::pin(connections.take_until(closing.cancelled_owned()));
        while let Some(connection) = connections.next().await {
            let connection = match connection {
                Ok(connection) => connection.eager(),
                Err(error) => {
                    warn!(%error, "cannot take a connection");
                    continue;
                }
            };
            let (peer, router) = (Peer(connection.peer()), router.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                router.clone().oneshot(request)
            });
            let served = builder.serve_connection(TokioIo::new(connection), service).into_owned();
            let served = graceful.watch(served);
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    debug!(error, "a connection ended");
                }
            });
        }
        graceful.shutdown().await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/", get(answer).post(answer))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// The session of whoever asks, and the token with which they may come again.
    async fn session(&self, parts: &Parts) -> Result<(Session, Option<String>)> {
        // Where users log in, a server may have any name; but a browser knows their passwords, and sends them for others.
        if is_from_elsewhere(&parts.headers) || (self.callers.are_all_welcome() && !is_for_here(parts)) {
            let text = "requests of other pages, and for other names, are refused";
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        }
        let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
        let (caller, token) = self.callers.identify(&parts.headers, peer).await?;
        Ok((self.session.fork().with_caller(caller), token))
    }

    async fn run(&self, request: Request<Body>) -> Result<Response> {
        let (parts, body) = request.into_parts();
        let (session, token) = self.session(&parts).await?;
        // What the Python of a query asks for is part of it, and that has begun.
        if self.refusing.is_cancelled() && session.caller().depth() == 0 {
            return Err(Error::new(ErrorKind::Unavailable, "the server is shutting down"));
        }
        // What is asked, in the address and in the body, is read once it is known who asks.
        let Query(asked) = Query::<Asked>::try_from_uri(&parts.uri).map_err(|rejection| {
            let text = "the address says `query` or `format` twice: say each of them once";
            Error::invalid_argument(text).with_source(rejection)
        })?;
        let written = percent_decode_str(parts.uri.query().unwrap_or_default());
        if written.decode_utf8().is_err() {
            return Err(Error::invalid_argument("the address is no UTF-8 text"));
        }
        let format = asked.format.as_deref().unwrap_or("TabSeparated").parse::<Format>()?;
        let body = match axum::body::to_bytes(body, MAX_QUERY_BYTES).await {
            Ok(body) => body,
            Err(error) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
                let text = format!("the body has more than {MAX_QUERY_BYTES} bytes, which is the most that is taken");
                let error = Error::new(ErrorKind::ResourcesExhausted, text);
                return Ok(refusal_as(StatusCode::PAYLOAD_TOO_LARGE, &error));
            }
            Err(error) => return Err(Error::invalid_argument(format!("the body cannot be read: {error}"))),
        };
        let body = std::str::from_utf8(&body).map_err(|_| Error::invalid_argument("the body is no UTF-8 text"))?;
        let sql = match (asked.query, body.trim()) {
            (Some(query), "") => query,
            (None, body) if !body.is_empty() => body.to_owned(),
            (Some(_), _) => {
                return Err(Error::invalid_argument("the query stands in the address or in the body, not in both"));
            }
            (None, _) => {
                return Err(Error::invalid_argument(
                    "there is no query: send one as /?query=… or as the body of a POST",
                ));
            }
        };
        let reads = parts.method != Method::POST;
        let statement = self.runtime.run(async move {
            let statement = Statement::prepare(session, sql).await?;
            if reads && statement.prepared.has_leading() {
                return Err(Error::invalid_argument("a GET takes one statement: send several with POST"));
            }
            if reads && statement.prepared.changes() {
                return Err(Error::invalid_argument("a GET changes nothing: send this statement with POST"));
            }
            statement.run_leading().await
        });
        let statement = statement.await?;
        let schema = wire_schema(&statement.prepared.schema());
        if statement.prepared.is_update() {
            let count = self.runtime.run(statement.update()).await?;
            let count = count.map(|count| [("x-couatl-rows", count.to_string())]);
            let response = count.map_or_else(|| ().into_response(), |count| (count, ()).into_response());
            return Ok(with_token(response, token));
        }
        let rows = self.runtime.run(statement.rows()).await?;
        let rows = self.runtime.stream(prepare(rows, Arc::clone(&schema)), CancellationToken::new());
        let mut chunks = chunks(rows, format, &schema)?;
        // The first row decides how the answer begins: a query may wait for its turn, and not get it.
        let body = match chunks.next().await {
            Some(Err(error)) => return Err(error),
            first => stream::iter(first).chain(chunks),
        };
        let body = if parts.version < Version::HTTP_11 {
            Body::from(whole(body, MAX_WHOLE_BYTES).await?)
        } else {
            // hyper throws away what it has not sent yet when a body fails, and sends it while a body has nothing new.
            Body::from_stream(body.then(async |chunk| {
                if chunk.is_err() {
                    tokio::time::sleep(LEAVING_TIME).await;
                }
                chunk
            }))
        };
        let response = ([(CONTENT_TYPE, format.content_type())], body).into_response();
        Ok(with_token(response, token))
    }
}

/// The bytes of rows as they come. An error ends them without their end, by which a client knows.
fn chunks(
    rows: BoxStream<'static, Result<arrow::array::RecordBatch>>,
    format: Format,
    schema: &arrow::datatypes::SchemaRef,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let writer = format.writer(schema)?;
    let chunks = stream::try_unfold(Some((rows, writer)), async |state| {
        let Some((mut rows, mut writer)) = state else { return Ok(None) };
        match rows.next().await {
            Some(batch) => {
                let bytes = writer.write(&batch?)?;
                Ok(Some((Bytes::from(bytes), Some((rows, writer)))))
            }
            None => Ok(Some((Bytes::from(writer.finish()?), None))),
        }
    });
    Ok(chunks.filter(|chunk| futures::future::ready(!matches!(chunk, Ok(bytes) if bytes.is_empty()))).boxed())
}

/// An answer in one piece. Without chunks, one that breaks off looks like one that ends: it is whole, or none.
async fn whole(mut chunks: impl Stream<Item = Result<Bytes>> + Unpin, max_bytes: usize) -> Result<Bytes> {
    let mut whole = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        if whole.len() + chunk.len() > max_bytes {
            let text = format!(
                "the answer has more than {max_bytes} bytes, which is the most without chunks: ask with HTTP/1.1, or for \
                 fewer rows"
            );
            return Err(Error::new(ErrorKind::ResourcesExhausted, text));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Bytes::from(whole))
}

/// The numbers of the server, for whoever may come in.
async fn metrics(State(http): State<Http>, parts: Parts) -> Response {
    let scraped = http.session(&parts).await.map(|(session, _)| {
        let held = Held { sessions: http.sessions.count(), handles: http.service.handles() };
        metrics::scrape(session.queries(), held)
    });
    match scraped {
        Ok(Ok(text)) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Ok(Err(error)) => refusal(&Error::internal(error.to_string())),
        Err(error) => refusal(&error),
    }
}

async fn ready(State(http): State<Http>) -> (StatusCode, &'static str) {
    match http.refusing.is_cancelled() {
        true => (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        false => (StatusCode::OK, "ready\n"),
    }
}

async fn answer(State(http): State<Http>, request: Request<Body>) -> Response {
    let call = http.calls.token();
    let response = http.run(request).await.unwrap_or_else(|error| refusal(&error));
    response.map(|body| Body::new(Answer::new(body, call)))
}

/// The token goes where those of Flight go.
fn with_token(mut response: Response, token: Option<String>) -> Response {
    if let Some(token) = token.and_then(|token| bearer(&token)) {
        response.headers_mut().insert(AUTHORIZATION, token);
    }
    response
}

/// An error as a status and its text.
fn refusal(error: &Error) -> Response {
    let status = match error.kind() {
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::AlreadyExists => StatusCode::CONFLICT,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unavailable | ErrorKind::ResourcesExhausted => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::PythonException | ErrorKind::Internal | ErrorKind::Cancelled => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    refusal_as(status, error)
}

fn refusal_as(status: StatusCode, error: &Error) -> Response {
    debug!(%status, kind = %error.kind(), %error, "refused");
    let mut response = (status, [("x-couatl-error-kind", error.kind().as_str())], format!("{error}\n")).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"couatl\""));
    }
    // What a query uses up, it uses up again.
    if error.kind() == ErrorKind::Unavailable {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Whether a page of another site asks.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(ORIGIN) || !matches!(site, None | Some(b"none" | b"same-origin"))
}

/// Whether this machine is meant: a page may give a name of its own to it.
fn is_for_here(parts: &Parts) -> bool {
    let host = parts.headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    // HTTP/2 has the name in the address; HTTP/1.0 needs none, and no browser leaves it out.
    let Some(host) = host.or_else(|| parts.uri.authority().map(Authority::as_str)) else {
        return parts.version < Version::HTTP_11;
    };
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let request = http::Request::builder().version(version).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn pages_from_elsewhere_are_told_apart() {
        let from = |headers: &[(&str, &str)]| {
            let parts = request(Version::HTTP_11, "/", headers);
            is_from_elsewhere(&parts.headers) || !is_for_here(&parts)
        };
        for host in ["localhost:8123", "127.0.0.1:8123", "[::1]:8123", "[::1]", "localhost"] {
            assert!(!from(&[("host", host)]), "{host}");
            assert!(from(&[("host", host), ("origin", "https://example.org")]));
            assert!(from(&[("host", host), ("sec-fetch-site", "cross-site")]));
            assert!(!from(&[("host", host), ("sec-fetch-site", "none")]));
        }
        assert!(from(&[("host", "evil.example:8123")]));
        assert!(from(&[]));
    }

    #[test]
    fn a_host_is_named_in_the_way_of_each_version() {
        for host in ["localhost:8123", "127.0.0.1:8123", "[::1]:8123"] {
            assert!(is_for_here(&request(Version::HTTP_2, &format!("https://{host}/"), &[])), "{host}");
        }
        assert!(!is_for_here(&request(Version::HTTP_2, "https://evil.example:8123/", &[])));
        assert!(!is_for_here(&request(Version::HTTP_2, "/", &[])));
        assert!(is_for_here(&request(Version::HTTP_10, "/", &[])));
        assert!(!is_for_here(&request(Version::HTTP_10, "/", &[("host", "evil.example")])));
    }

    #[tokio::test]
    async fn a_whole_answer_has_a_bound_and_keeps_its_error() {
        let piece = || Ok(Bytes::from_static(b"ab"));
        assert_eq!(whole(stream::iter([piece(), piece()]), 4).await.unwrap(), "abab");
        let error = whole(stream::iter([piece(), piece()]), 3).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourcesExhausted);
        let error = whole(stream::iter([piece(), Err(Error::cancelled("killed"))]), 4).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Cancelled, "killed".to_owned()));
    }

    #[test]
    fn only_what_another_time_may_go_well_is_to_be_tried_again() {
        for (kind, again) in [(ErrorKind::Unavailable, true), (ErrorKind::ResourcesExhausted, false)] {
            let response = refusal(&Error::new(kind, "no"));
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), again, "{kind}");
        }
    }
}
