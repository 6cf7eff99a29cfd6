//! Sockets that can be cut, and that read and write much at once.
//!
//! tonic serves each connection in a task of its own, and lets go of none while it has an open call: one client with an
//! endless stream that it does not read would keep a server from ending. A [`Connection`] fails all reads and writes
//! once it is cut, which ends its task.
//!
//! HTTP/2 writes and flushes each frame by itself, 16 KiB for most clients: a call of the system, and often a wake-up of
//! the client, for each. Here a flush is a promise that is kept when the task has nothing more to write: it wakes the
//! task, which then reads, and before it reads, what waits is written. It also reads 8 KiB at a time: where as much has
//! come, more is read ahead.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Interval, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::client::ConnectInfo;
use crate::lost::is_lost;
use crate::tls::Tls;

/// How long to wait after a failed accept: the cause is most often that files have run out, and lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What may wait to be written.
const MOST_WAITING: usize = 256 * 1024;

/// What is read ahead where much comes.
const READ_AHEAD: usize = 128 * 1024;

/// How long a client may take to close a connection that the server has ended.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client may take to agree on TLS, and how many may do so at once.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 256;

/// When a client that says nothing is asked whether it is there, and how often until it is given up.
const KEEPALIVE_TIME: Duration = Duration::from_secs(20);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// How often it is asked whether the network of a client of HTTP/1 is lost. HTTP/2 asks the client.
const WATCH: Duration = Duration::from_secs(5);

/// How long a client may take for its first words.
const BEGIN_TIME: Duration = Duration::from_secs(10);

/// What a client of HTTP/2 says at least before it can ask for anything: the preface, and the head of a first frame.
const BEGUN_BYTES: usize = 24 + 9;

/// The connections that a listener takes, without end; all are cut together. Those on which nothing has begun end when
/// the server closes: HTTP/2 waits for their first words, which may never come.
pub(crate) fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    closing: CancellationToken,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let accepted = stream::unfold(listener, async |listener| {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => return Some(((socket, peer.ip()), listener)),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    let begun = accepted.map(move |(socket, peer)| {
        let (tls, closing, cut) = (tls.clone(), closing.clone(), cut.clone());
        async move {
            if let Err(error) = set_options(&socket) {
                warn!(%error, "cannot set TCP_NODELAY and keepalive");
            }
            let begin = |socket| Connection::new(socket, peer, closing, cut);
            let Some(tls) = tls else { return Some(begin(Either::Left(socket))) };
            match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(socket)).await {
                Ok(Ok(socket)) => Some(begin(Either::Right(Box::new(socket)))),
                Ok(Err(error)) => {
                    debug!(%error, "a client did not agree on TLS");
                    None
                }
                Err(_) => None,
            }
        }
    });
    begun.buffer_unordered(HANDSHAKES).filter_map(async |connection| connection.map(Ok))
}

/// Rows are small and must not wait for more of them; a client whose network is lost is noticed where nothing is sent.
fn set_options(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// A plain socket, or one with TLS on it.
type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection to a client.
pub(crate) struct Connection {
    socket: Socket,
    peer: IpAddr,
    /// What waits to be written, and how much of it has been.
    waiting: Vec<u8>,
    written: usize,
    /// What has been read ahead, and how much of it has been given; there is none where little comes.
    ahead: Vec<u8>,
    given: usize,
    /// How much has been read.
    read: usize,
    /// Runs until there are first words.
    begin: Option<Pin<Box<Sleep>>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether a flush writes at once.
    eager: bool,
    /// When it is next asked whether the client's network is lost, where it is.
    watch: Option<Interval>,
    /// Runs once the server has nothing more to say.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    fn new(socket: Socket, peer: IpAddr, closing: CancellationToken, cut: CancellationToken) -> Self {
        Self {
            socket,
            peer,
            waiting: Vec::new(),
            written: 0,
            ahead: Vec::new(),
            given: 0,
            read: 0,
            begin: Some(Box::pin(tokio::time::sleep(BEGIN_TIME))),
            closing: Box::pin(closing.cancelled_owned()),
            cut: Box::pin(cut.cancelled_owned()),
            eager: false,
            watch: None,
            linger: None,
        }
    }

    /// The address of the client.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The same connection, for HTTP/1, which flushes when there is something to send, and need not read after.
    pub(crate) fn eager(self) -> Self {
        Self { eager: true, watch: Some(tokio::time::interval(WATCH)), ..self }
    }

    /// Fails once the connection is cut or lost, and wakes the task then.
    fn whole(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended"));
        }
        while let Some(watch) = &mut self.watch
            && watch.poll_tick(context).is_ready()
        {
            let socket = match &self.socket {
                Either::Left(socket) => socket,
                Either::Right(socket) => socket.get_ref().0,
            };
            if is_lost(socket) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not answer"));
            }
        }
        Ok(())
    }

    /// Writes what waits.
    fn poll_write_waiting(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, &self.waiting[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.waiting.clear();
        self.written = 0;
        // Over TLS, what was written may still be on its way to the socket.
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Reads into a buffer; where that was filled, and so more may be there, a larger one of our own takes the next.
    fn poll_read_much(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.given == self.ahead.len() {
            self.given = 0;
            if self.ahead.capacity() == 0 {
                ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
                if buffer.remaining() == 0 {
                    self.ahead.reserve_exact(READ_AHEAD);
                }
                return Poll::Ready(Ok(()));
            }
            self.ahead.clear();
            ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.socket), context, &mut self.ahead))?;
        }
        let count = buffer.remaining().min(self.ahead.len() - self.given);
        buffer.put_slice(&self.ahead[self.given..self.given + count]);
        self.given += count;
        if buffer.remaining() > 0 {
            (self.ahead, self.given) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether nothing has begun, and the server closes, or has waited for long enough.
    fn is_given_up(&mut self, context: &mut Context<'_>) -> bool {
        let Some(begin) = &mut self.begin else { return false };
        begin.as_mut().poll(context).is_ready() || self.closing.as_mut().poll(context).is_ready()
    }

    /// Waits until there is room for more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(context)?;
        if self.waiting.len() < MOST_WAITING { Poll::Ready(Ok(())) } else { self.poll_write_waiting(context) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.whole(context)?;
        // Where the socket takes no more, it wakes the task when it does.
        if let Poll::Ready(Err(error)) = self.poll_write_waiting(context) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        match self.poll_read_much(context, buffer) {
            // As if the client had closed it.
            Poll::Pending if self.is_given_up(context) => Poll::Ready(Ok(())),
            read => {
                self.read = self.read.saturating_add(buffer.filled().len() - before);
                if self.read >= BEGUN_BYTES {
                    self.begin = None;
                }
                read
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(context))?;
        self.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_room(context))?;
        bytes.iter().for_each(|bytes| self.waiting.extend_from_slice(bytes));
        Poll::Ready(Ok(bytes.iter().map(|bytes| bytes.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Promises that what waits is written as soon as the task is polled again, which is next.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(context)?;
        if self.eager {
            return self.poll_write_waiting(context);
        }
        if !self.waiting.is_empty() {
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    /// Says that no more comes, then waits for the client to close: a socket that is closed with bytes unread is reset,
    /// and a reset takes from the client what it has not read yet.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(self.poll_room(context))?;
            ready!(self.poll_write_waiting(context))?;
        }
        ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
        self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        let mut unread = [0; 1024];
        loop {
            let over = self.linger.as_mut().is_none_or(|linger| linger.as_mut().poll(context).is_ready());
            if over || self.whole(context).is_err() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut unread);
            let read = ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo::new(self.peer())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(cut: CancellationToken) -> (TcpStream, Connection) {
        closing_pair(CancellationToken::new(), cut).await
    }

    async fn closing_pair(closing: CancellationToken, cut: CancellationToken) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connections = Box::pin(connections(listener, None, closing, cut));
        (client, connections.next().await.unwrap().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_not_waited_for() {
        let (mut client, mut served) = pair(CancellationToken::new()).await;
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let mut said = Vec::new();
        assert_eq!(served.read_to_end(&mut said).await.unwrap(), 14, "as if the client had closed it");
        let (mut client, mut served) = pair(CancellationToken::new()).await;
        client.write_all(&[b'x'; BEGUN_BYTES]).await.unwrap();
        served.read_exact(&mut [0; BEGUN_BYTES]).await.unwrap();
        let waited = tokio::time::timeout(BEGIN_TIME * 10, served.read_u8()).await;
        assert!(waited.is_err(), "what has begun is kept: {waited:?}");
    }

    #[tokio::test]
    async fn what_is_flushed_is_written_before_the_next_read() {
        let (mut client, mut served) = pair(CancellationToken::new()).await;
        let serving = tokio::spawn(async move {
            for word in [&b"one "[..], b"two"] {
                served.write_all(word).await.unwrap();
                served.flush().await.unwrap();
            }
            served.read_u8().await
        });
        let mut said = [0; 7];
        client.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"one two");
        client.write_all(b"!").await.unwrap();
        assert_eq!(serving.await.unwrap().unwrap(), b'!');
    }

    #[tokio::test]
    async fn more_than_may_wait_is_written_in_order_and_a_shutdown_writes_the_rest() {
        let (mut client, mut served) = pair(CancellationToken::new()).await;
        let said: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = said.clone();
        let serving = tokio::spawn(async move {
            for part in said.chunks(16_393) {
                let (head, rest) = part.split_at(9.min(part.len()));
                let written = served.write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(rest)]).await.unwrap();
                assert_eq!(written, part.len());
                assert!(served.waiting.len() < MOST_WAITING + 16_393);
            }
            served.shutdown().await
        });
        let mut found = Vec::new();
        client.read_to_end(&mut found).await.unwrap();
        assert!(found == expected);
        drop(client);
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_much_comes_is_read_in_order_to_its_end() {
        let (mut client, mut served) = pair(CancellationToken::new()).await;
        let said: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = said.clone();
        let saying = tokio::spawn(async move {
            client.write_all(&said).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let mut found = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            let count = served.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            found.extend_from_slice(&buffer[..count]);
        }
        assert!(found == expected);
        assert_eq!(served.ahead.capacity(), 0);
        saying.await.unwrap();
    }

    #[tokio::test]
    async fn what_has_not_begun_ends_when_the_server_closes() {
        for (said, ends) in [(0, true), (24, true), (32, true), (33, false)] {
            let closing = CancellationToken::new();
            let (mut client, mut served) = closing_pair(closing.clone(), CancellationToken::new()).await;
            client.write_all(&vec![b'P'; said]).await.unwrap();
            served.read_exact(&mut vec![0; said]).await.unwrap();
            let mut next = std::pin::pin!(served.read_u8());
            assert!(futures::poll!(next.as_mut()).is_pending());
            closing.cancel();
            assert_eq!(futures::poll!(next).is_ready(), ends, "{said} bytes");
        }
    }

    #[tokio::test]
    async fn sockets_are_asked_whether_their_clients_are_there() {
        let (_client, served) = pair(CancellationToken::new()).await;
        let Either::Left(socket) = &served.socket else { unreachable!("a socket without TLS") };
        assert!(socket.nodelay().unwrap() && SockRef::from(socket).keepalive().unwrap());
        assert_eq!(SockRef::from(socket).tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
        assert!(served.peer.is_loopback());
    }

    #[tokio::test]
    async fn a_cut_ends_reads_that_wait_and_writes_that_follow() {
        let cut = CancellationToken::new();
        let (mut client, mut served) = pair(cut.clone()).await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'a');
        let reading = tokio::spawn(async move {
            let read = served.read_u8().await;
            (read, served.write_all(b"b").await)
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        cut.cancel();
        let (read, written) = reading.await.unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
