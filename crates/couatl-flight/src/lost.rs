//! Whether the network of a client is lost to which something is on its way.
//!
//! Keepalive asks only clients to which nothing is, and where something is, TCP itself gives up after a quarter of an
//! hour. `TCP_USER_TIMEOUT` would also end clients that are there and do not read: the kernel's own account of a socket
//! tells them apart, since it does not send to those, and hears of them all the same.

use std::time::Duration;

use tokio::net::TcpStream;

/// How long nothing may be heard of a client that was sent something, and sent it again.
const UNHEARD: Duration = Duration::from_secs(30);

/// What the kernel knows of a socket.
#[derive(Debug, Clone, Copy)]
struct Account {
    /// How many segments are on their way.
    unacked: u32,
    /// How often the oldest of them was sent again without success.
    retransmits: u8,
    /// How often a client whose window is closed was asked without an answer.
    probes: u8,
    last_ack: Duration,
}

impl Account {
    fn is_lost(self) -> bool {
        let is_silent = self.unacked > 0 && self.retransmits > 0 || self.probes > 1;
        is_silent && self.last_ack > UNHEARD
    }
}

/// Whether it is, as far as the kernel can tell.
pub(crate) fn is_lost(socket: &TcpStream) -> bool {
    account(socket).is_some_and(Account::is_lost)
}

#[cfg(target_os = "linux")]
fn account(socket: &TcpStream) -> Option<Account> {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    #[expect(unsafe_code, reason = "no crate of ours has a safe call for this option")]
    // SAFETY: the socket is open for as long as it is borrowed; the kernel writes at most `length` bytes to `info`, which
    // is as large. What it does not write is zero, and all of its fields are numbers.
    let (failed, info) = unsafe {
        let to = info.as_mut_ptr().cast();
        let failed = libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, &raw mut length);
        (failed != 0, info.assume_init())
    };
    let last_ack = Duration::from_millis(u64::from(info.tcpi_last_ack_recv));
    let (retransmits, probes) = (info.tcpi_retransmits, info.tcpi_probes);
    (!failed).then_some(Account { unacked: info.tcpi_unacked, retransmits, probes, last_ack })
}

/// Elsewhere it is the kernel that gives up.
#[cfg(not(target_os = "linux"))]
fn account(_socket: &TcpStream) -> Option<Account> {
    None
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_is_there_is_not_lost_whether_they_read_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (served, _) = listener.accept().await.unwrap();
        let taken = |served: &TcpStream| served.try_write(&[0; 1 << 20]).unwrap_or(0);
        assert!(taken(&served) > 0);
        client.read_exact(&mut [0; 1024]).await.unwrap();
        while taken(&served) > 0 {}
        assert!(!is_lost(&served));
        #[cfg(target_os = "linux")]
        assert_eq!(account(&served).unwrap().retransmits, 0);
    }

    #[test]
    fn who_has_not_answered_for_long_is() {
        let lost = Account { unacked: 1, retransmits: 3, probes: 0, last_ack: UNHEARD * 2 };
        let closed = Account { unacked: 0, retransmits: 0, probes: 2, ..lost };
        assert!(lost.is_lost() && closed.is_lost());
        let idle = Account { unacked: 0, ..lost };
        let began = Account { retransmits: 0, ..lost };
        let answers = Account { last_ack: UNHEARD / 2, ..lost };
        let asked = Account { probes: 1, ..closed };
        for there in [idle, began, answers, asked] {
            assert!(!there.is_lost(), "{there:?}");
        }
    }
}
