//! Sockets that can be cut.
//!
//! tonic serves each connection in a task of its own, and lets go of none while it has an open call: one client with an
//! endless stream that it does not read would keep a server from ending. A [`Connection`] fails all reads and writes
//! once it is cut, which ends its task.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// How long to wait after a failed accept: the cause is most often that files have run out, and lasts.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take to close a connection that the server has ended.
const LINGER: Duration = Duration::from_secs(1);

/// The connections that a listener takes, without end; all are cut together.
pub(crate) fn connections(
    listener: TcpListener,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    stream::unfold((listener, cut), async |(listener, cut)| {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => return Some((Ok(Connection::new(socket, cut.clone())), (listener, cut))),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// A TCP connection to a client.
pub(crate) struct Connection {
    socket: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Runs once the server has nothing more to say.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    fn new(socket: TcpStream, cut: CancellationToken) -> Self {
        // Rows are small and must not wait for more of them.
        if let Err(error) = socket.set_nodelay(true) {
            warn!(%error, "cannot set TCP_NODELAY");
        }
        Self { socket, cut: Box::pin(cut.cancelled_owned()), linger: None }
    }

    /// Fails once the connection is cut, and wakes the task then.
    fn whole(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended")),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.whole(context)?;
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.whole(context)?;
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.whole(context)?;
        Pin::new(&mut self.socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(context)?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    /// Says that no more comes, then waits for the client to close: a socket that is closed with bytes unread is reset,
    /// and a reset takes from the client what it has not read yet.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_cut_ends_reads_that_wait_and_writes_that_follow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = CancellationToken::new();
        let mut connections = Box::pin(connections(listener, cut.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut served = connections.next().await.unwrap().unwrap();
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
