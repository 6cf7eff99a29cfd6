//! Who asks: every request finds its session before it is answered.
//!
//! That is the session of the cookie that the request brings, else the one of its connection. Drivers that keep cookies
//! (JDBC's) have one session over all of their connections; those that do not (ADBC's, as it comes) have one connection
//! for each session.
//!
//! The cookie of a session in which something was set says so. When the session is gone, with a server or after a long
//! rest, its client is told, and not given another one in which nothing is set.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use couatl_core::Error;
use couatl_datafusion::{Caller, Session};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{Extensions, HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::debug;

use crate::answer::Answer;
use crate::auth::{Callers, bearer};
use crate::handle::{HandleLimits, Handles, Owner, Weigh};
use crate::statement::Statement;
use crate::status::{oversized, status};
use crate::stream::put_in;

/// The name that Flight's own clients look for.
const SESSION_COOKIE: &str = "arrow_flight_session_id";

/// What the cookie of a session ends with in which something was set.
const CHANGED: &str = ".set";

/// The calls that nobody has to log in for.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// What a connection is to the requests that come over it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectInfo {
    /// The sessions of those of its requests that bring no cookie: one for each user of it.
    own: Arc<Own>,
    peer: IpAddr,
}

impl ConnectInfo {
    /// Of a new connection from an address.
    pub(crate) fn new(peer: IpAddr) -> Self {
        Self { own: Arc::default(), peer }
    }
}

/// Whether a connection is there.
#[derive(Debug, Clone)]
pub(crate) struct Presence(Option<Weak<Own>>);

impl Presence {
    /// Whether it was there, and is no more.
    pub(crate) fn is_over(&self) -> bool {
        self.0.as_ref().is_some_and(|own| own.strong_count() == 0)
    }
}

/// The sessions of a connection. Those whose cookies never came back end with it: nobody could find them.
#[derive(Debug, Default)]
pub(crate) struct Own {
    sessions: Mutex<Vec<(Bytes, Known)>>,
    all: OnceLock<Weak<Sessions>>,
}

impl Drop for Own {
    fn drop(&mut self) {
        let Some(all) = self.all.get().and_then(Weak::upgrade) else { return };
        for (id, known) in self.sessions.get_mut() {
            if !known.marks.by_cookie.load(Relaxed) {
                all.by_cookie.remove(id);
                known.session.forget_prepared();
            }
        }
    }
}

/// A session, and what has become of it.
#[derive(Debug, Clone)]
struct Known {
    session: Session,
    marks: Arc<Marks>,
}

#[derive(Debug, Default)]
struct Marks {
    /// Its cookie has come back.
    by_cookie: AtomicBool,
    /// A client has closed it, for all that share it.
    closed: AtomicBool,
}

/// The client of a request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) session: Session,
    id: Bytes,
    marks: Arc<Marks>,
    connection: Option<ConnectInfo>,
}

impl Client {
    /// The client that [`Clients`] has found.
    pub(crate) fn of(extensions: &Extensions) -> Result<&Self, Status> {
        extensions.get().ok_or_else(|| status(&Error::internal("a request without a session")))
    }

    /// The cookie by which it finds its session again.
    fn cookie(&self) -> Cookie {
        let is_changed = self.session.is_changed() && !self.marks.closed.load(Relaxed);
        Cookie { id: self.id.clone(), is_changed }
    }

    /// Whether the connection is there by which it asks.
    pub(crate) fn presence(&self) -> Presence {
        Presence(self.connection.as_ref().map(|connection| Arc::downgrade(&connection.own)))
    }

    /// Whether a session is of the same caller.
    pub(crate) fn owns(&self, session: &Session) -> bool {
        session.caller().is_same(self.session.caller())
    }

    /// A statement as its user may run it now; nothing for one of another user.
    pub(crate) fn own(&self, statement: Statement) -> Option<Statement> {
        if !self.owns(&statement.session) {
            return None;
        }
        let session = statement.session.with_caller(self.session.caller().clone());
        Some(Statement { session, ..statement })
    }
}

/// The sessions of all clients.
#[derive(Debug)]
pub(crate) struct Sessions {
    base: Session,
    by_cookie: Handles<Known>,
}

impl Weigh for Known {
    fn bytes(&self) -> usize {
        self.session.prepared_bytes()
    }

    fn owner(&self) -> Owner {
        Owner::of(&self.session)
    }
}

impl Sessions {
    pub(crate) fn new(base: Session, limits: HandleLimits) -> Self {
        Self { base, by_cookie: Handles::new(limits) }
    }

    /// The client of a request with this cookie.
    ///
    /// # Errors
    /// `not-found`, if its session is gone, and more with it than another one would give back.
    fn find(
        self: &Arc<Self>,
        cookie: Option<&Cookie>,
        connection: Option<ConnectInfo>,
        caller: &Caller,
    ) -> couatl_core::Result<Client> {
        let as_now = |session: &Session| session.with_caller(caller.clone());
        // Sessions are not handed on from one caller to another.
        let is_own = |known: &Known| known.session.caller().is_same(caller);
        let client = |id, known: Known| Client {
            session: as_now(&known.session),
            id,
            marks: known.marks,
            connection: connection.clone(),
        };
        if let Some(cookie) = cookie {
            let of_connection = || {
                let sessions = connection.as_ref()?.own.sessions.lock();
                let mut there = sessions.iter().filter(|(_, known)| !known.marks.closed.load(Relaxed));
                there.find(|(id, _)| *id == cookie.id).map(|(_, known)| known.clone())
            };
            if let Some(known) = self.by_cookie.get(&cookie.id).or_else(of_connection).filter(is_own) {
                known.marks.by_cookie.store(true, Relaxed);
                return Ok(client(cookie.id.clone(), known));
            }
            if cookie.is_changed {
                return Err(gone());
            }
        }
        let new = || {
            let known = Known { session: as_now(&self.base.fork()), marks: Arc::default() };
            (self.by_cookie.insert(known.clone()), known)
        };
        let (id, known) = match &connection {
            Some(connection) => {
                connection.own.all.get_or_init(|| Arc::downgrade(self));
                let mut sessions = connection.own.sessions.lock();
                sessions.retain(|(_, known)| !known.marks.closed.load(Relaxed));
                let found = sessions.iter().find(|(_, known)| is_own(known)).cloned();
                found.unwrap_or_else(|| {
                    sessions.push(new());
                    sessions[sessions.len() - 1].clone()
                })
            }
            None => new(),
        };
        Ok(client(id, known))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_cookie.count()
    }

    /// Lets go of what nobody has used for too long, again and again.
    pub(crate) async fn sweep(&self) {
        self.by_cookie.sweep_often().await;
    }

    /// Forgets the session of a client, for all that share it: the next request finds a new one.
    pub(crate) fn close(&self, client: &Client) {
        if let Some(known) = self.by_cookie.remove(&client.id) {
            known.marks.closed.store(true, Relaxed);
            known.session.forget_prepared();
        }
        if let Some(connection) = &client.connection {
            connection.own.sessions.lock().retain(|(id, _)| *id != client.id);
        }
    }
}

/// What a client has to bring for its session.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cookie {
    id: Bytes,
    /// Whether something was set in the session.
    is_changed: bool,
}

impl Cookie {
    /// The one that a request brings.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(COOKIE).into_iter().filter_map(|header| header.to_str().ok());
        let mut cookies = texts.flat_map(|text| text.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        let (_, value) = cookies.find(|(name, _)| *name == SESSION_COOKIE)?;
        let value = value.trim_matches('"');
        let id = value.strip_suffix(CHANGED);
        Some(Self { id: Bytes::copy_from_slice(id.unwrap_or(value).as_bytes()), is_changed: id.is_some() })
    }

    /// Without attributes: some make Java's clients send it back in quotes, with attributes of their own.
    fn header(&self) -> Option<HeaderValue> {
        let mark = if self.is_changed { CHANGED } else { "" };
        HeaderValue::from_str(&format!("{SESSION_COOKIE}={}{mark}", self.id.escape_ascii())).ok()
    }
}

/// The service of calls around another one: it finds the client before, and tells it its cookie after.
#[derive(Clone)]
pub(crate) struct Clients<S> {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) callers: Callers,
    /// The calls that have not been answered to the end.
    pub(crate) calls: TaskTracker,
    pub(crate) inner: S,
}

impl<S> Service<http::Request<Body>> for Clients<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Future: Send + 'static> + Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (sessions, callers, calls) = (Arc::clone(&self.sessions), self.callers.clone(), self.calls.clone());
        // The one that is ready.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        async move {
            // Whoever looks after the server asks it how it is, and knows no password.
            if request.uri().path().starts_with(HEALTH) {
                return inner.call(request).await;
            }
            let connection = request.extensions().get::<ConnectInfo>().cloned();
            let peer = connection.as_ref().map(|connection| connection.peer);
            let (caller, token) = match callers.identify(request.headers(), peer).await {
                Ok(identified) => identified,
                Err(error) => {
                    debug!(path = request.uri().path(), %error, "refused");
                    return Ok(status(&error).into_http());
                }
            };
            let token = token.and_then(|token| bearer(&token));
            let brought = Cookie::of(request.headers());
            let client = match sessions.find(brought.as_ref(), connection, &caller) {
                Ok(client) => client,
                Err(error) => return Ok(status(&error).into_http()),
            };
            let mut request = request.map(|body| Body::new(body.map_err(broken_off)));
            request.extensions_mut().insert(client.clone());
            let call = calls.token();
            let mut response = put_in(inner.call(request).await?).map(|body| Body::new(Answer::new(body, call)));
            if let Some(refused) =
                Status::from_header_map(response.headers()).filter(|it| it.code() == Code::OutOfRange)
            {
                response = oversized(refused).into_http();
            }
            let cookie = client.cookie();
            if brought.as_ref() != Some(&cookie)
                && let Some(cookie) = cookie.header()
            {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
            if let Some(token) = token {
                response.headers_mut().insert(AUTHORIZATION, token);
            }
            Ok(response)
        }
        .boxed()
    }
}

/// The error of a request that its client has cancelled. tonic takes such a request for one that has ended, and so half
/// of an upload for all of it.
fn broken_off(error: Status) -> Status {
    match error.code() {
        Code::Cancelled => Status::aborted("the client has cancelled the call before its end"),
        _ => error,
    }
}

/// What a client hears whose session is not there any more.
fn gone() -> Error {
    Error::not_found(
        "the session has ended, and what was set or prepared in it is gone: a client has closed it, the server was \
         started again, or nobody used the session for long; connect again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_cancelled_has_not_ended() {
        assert_eq!(broken_off(Status::cancelled("reset")).code(), Code::Aborted);
        assert_eq!(broken_off(Status::data_loss("lost")).code(), Code::DataLoss);
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        for (text, expected) in [
            ("arrow_flight_session_id=a-1", Some(("a-1", false))),
            ("x=1; arrow_flight_session_id=a-1; y=2", Some(("a-1", false))),
            ("arrow_flight_session_id=\"a-1\"", Some(("a-1", false))),
            ("arrow_flight_session_id=\"a-1.set\"", Some(("a-1", true))),
            ("x=arrow_flight_session_id", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(text))]);
            let expected = expected.map(|(id, is_changed)| Cookie { id: id.into(), is_changed });
            assert_eq!(Cookie::of(&headers), expected, "{text}");
        }
    }
}
