//! Queries over HTTP: `GET|POST /?query=…&format=…`, for who has no driver.
//!
//! A browser sends requests in the name of whoever sits before it, wherever the page comes from that asks for them. So a
//! GET changes nothing, and where nobody has to log in, requests of other pages and for other names are refused.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use couatl_core::{Error, ErrorKind, Result};
use couatl_datafusion::Session;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::auth::Callers;
use crate::connection::Connection;
use crate::format::Format;
use crate::metrics;
use crate::runtime::QueryRuntime;
use crate::statement::Statement;
use crate::stream::prepare;
use crate::wire::wire_schema;

/// The largest statement that is taken.
const MAX_QUERY_BYTES: usize = 16 * 1024 * 1024;

/// The largest answer to a client whose protocol has no chunks.
const MAX_WHOLE_BYTES: usize = 256 * 1024 * 1024;

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) session: Session,
    pub(crate) runtime: QueryRuntime,
    pub(crate) callers: Callers,
    pub(crate) refusing: CancellationToken,
}

#[derive(Debug, serde::Deserialize)]
struct Asked {
    query: Option<String>,
    format: Option<String>,
}

/// The connections of a listener, as axum takes them.
pub(crate) struct Incoming(pub(crate) BoxStream<'static, std::io::Result<Connection>>);

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            match self.0.next().await {
                Some(Ok(connection)) => return (connection.eager(), ()),
                Some(Err(error)) => warn!(%error, "cannot take a connection"),
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Http {
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/", get(answer).post(answer))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// The session of whoever asks, and the token with which they may come again.
    async fn session(&self, headers: &HeaderMap) -> Result<(Session, Option<String>)> {
        // Where users log in, a server may have any name; but a browser knows their passwords, and sends them for others.
        if is_from_elsewhere(headers) || (self.callers.are_all_welcome() && !is_for_here(headers)) {
            let text = "requests of other pages, and for other names, are refused";
            return Err(Error::new(ErrorKind::PermissionDenied, text));
        }
        let (caller, token) = self.callers.identify(headers).await?;
        Ok((self.session.fork().with_caller(caller), token))
    }

    async fn run(&self, asked: Asked, request: Request) -> Result<Response> {
        let (parts, body) = request.into_parts();
        if self.refusing.is_cancelled() {
            return Err(Error::new(ErrorKind::Unavailable, "the server is shutting down"));
        }
        let (session, token) = self.session(&parts.headers).await?;
        let format = asked.format.as_deref().unwrap_or("TabSeparated").parse::<Format>()?;
        // Not before it is known who sends it.
        let body = axum::body::to_bytes(body, MAX_QUERY_BYTES).await.map_err(|error| {
            Error::new(
                ErrorKind::ResourcesExhausted,
                format!("the body cannot be read, of which {MAX_QUERY_BYTES} bytes are taken at most: {error}"),
            )
        })?;
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
        let mut body = Body::from_stream(body);
        if parts.version < Version::HTTP_11 {
            // Without chunks, an answer that breaks off looks like one that ends: this one is whole, or none.
            let whole = axum::body::to_bytes(body, MAX_WHOLE_BYTES).await;
            body = whole.map(Body::from).map_err(|error| Error::internal(format!("no whole answer: {error}")))?;
        }
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

/// The numbers of the server, for whoever may come in.
async fn metrics(State(http): State<Http>, headers: HeaderMap) -> Response {
    match http.session(&headers).await.map(|(session, _)| metrics::scrape(session.queries())) {
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

async fn answer(State(http): State<Http>, Query(asked): Query<Asked>, request: Request) -> Response {
    let method = request.method().clone();
    match http.run(asked, request).await {
        Ok(response) => response,
        Err(error) => {
            debug!(%method, kind = %error.kind(), %error, "refused");
            refusal(&error)
        }
    }
}

/// The token goes where those of Flight go.
fn with_token(mut response: Response, token: Option<String>) -> Response {
    if let Some(token) = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()) {
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
    let mut response = (status, [("x-couatl-error-kind", error.kind().as_str())], format!("{error}\n")).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"couatl\""));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
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
fn is_for_here(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_from_elsewhere_are_told_apart() {
        let from = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            let headers = headers.collect();
            is_from_elsewhere(&headers) || !is_for_here(&headers)
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
}
