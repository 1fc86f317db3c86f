//! Kernel TCP behind the traits of [`crate::stack`]: one `epoll` per worker, through mio.
//!
//! ```text
//!   PosixStack --into_workers--> PosixWorker --- epoll --+-- Listener    (posix/listen.rs)
//!      |                            |                    +-- Connection  (posix/conn.rs)
//!      +-- PortGroups: which        |                    +-- lingering sockets, closed by their owner
//!          addresses this stack     |                    +-- waker (eventfd), alarm (timerfd)
//!          listens on               +-- Table: slot + generation -> socket (posix/table.rs)
//! ```
//!
//! * **Readiness.** mio registers edge-triggered, but the kernel repeats an edge for every packet.
//!   A worker remembers what it reported and reports again only after the owner was told
//!   would-block, so an owner sees each edge once. The same memory saves system calls: a short
//!   read or write proves that the next one would block, and it is answered without asking.
//! * **Sleep.** `epoll_wait` counts in milliseconds. Short sleeps are ended by a timer descriptor
//!   of nanosecond resolution instead (posix/alarm.rs).
//! * **Listening.** Workers of one stack share a port with `SO_REUSEPORT`; nobody else gets in
//!   unnoticed (posix/listen.rs has the rule).
//! * **Closing.** The kernel resets a connection that is closed with unread input, and the peer
//!   may lose our last bytes. A closed socket therefore lingers here, its input thrown away, until
//!   the peer closes too or [`PosixConfig::linger`] is over.
//!
//! Linux only: timer descriptors, `MSG_MORE`, `TCP_USER_TIMEOUT`, and the `SO_REUSEPORT` rules.
//! Copies: one each way, between the kernel and the caller's buffer.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::stack::NetworkStack;
use listen::PortGroups;
pub use worker::PosixWorker;

mod alarm;
mod bell;
mod conn;
mod counters;
mod listen;
mod table;
mod worker;

/// Most workers one stack makes.
pub const WORKERS_MAX: usize = 64;
/// Most sockets one worker listens on.
pub const LISTENERS_MAX: usize = 1024;
/// Most events one wait takes from the kernel; the rest comes with the next.
pub const EVENTS_PER_WAIT_MAX: usize = 512;

/// How a [`PosixStack`] is made.
#[derive(Clone, Debug)]
pub struct PosixConfig {
    /// How many workers; at most [`WORKERS_MAX`].
    pub workers: NonZeroUsize,
    /// Most connections per worker, lingering ones included. Beyond it connections wait in the
    /// backlog.
    pub max_connections: usize,
    /// Sends small segments at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// `SO_RCVBUF` in bytes; `None` leaves the size to the kernel's tuning.
    pub rcvbuf: Option<usize>,
    /// `SO_SNDBUF` in bytes; `None` leaves the size to the kernel's tuning.
    pub sndbuf: Option<usize>,
    /// Probes a silent peer after this long, and then as often.
    pub keepalive: Option<Duration>,
    /// Gives up when sent bytes stay unacknowledged for this long (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    /// How long a closed connection waits for the peer's end before it is cut off.
    pub linger: Duration,
}

impl Default for PosixConfig {
    fn default() -> Self {
        Self {
            workers: NonZeroUsize::MIN,
            max_connections: 65_536,
            nodelay: true,
            rcvbuf: None,
            sndbuf: None,
            keepalive: None,
            user_timeout: None,
            linger: Duration::from_secs(10),
        }
    }
}

impl PosixConfig {
    /// A new non-blocking TCP socket for the family of `addr`, with the options applied. Accepted
    /// sockets inherit them from their listener.
    fn socket(&self, addr: SocketAddr) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        if self.nodelay {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(bytes) = self.rcvbuf {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.sndbuf {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(after) = self.keepalive {
            let probes = TcpKeepalive::new().with_time(after).with_interval(after);
            socket.set_tcp_keepalive(&probes)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(socket)
    }
}

/// The kernel's TCP as a transport.
///
/// ```
/// use netstack::posix::{PosixConfig, PosixStack};
/// use netstack::stack::NetworkStack;
///
/// let workers = PosixStack::new(PosixConfig::default()).into_workers()?;
/// assert_eq!(workers.len(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PosixStack {
    config: PosixConfig,
}

impl PosixStack {
    /// Nothing is opened before [`NetworkStack::into_workers`].
    pub fn new(config: PosixConfig) -> Self {
        Self { config }
    }
}

impl NetworkStack for PosixStack {
    type Worker = PosixWorker;

    fn into_workers(self) -> io::Result<Vec<PosixWorker>> {
        let count = self.config.workers.get();
        if count > WORKERS_MAX {
            let reason = format!("{count} workers asked for; at most {WORKERS_MAX} are possible");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let groups = PortGroups::new(count > 1);
        (0..count).map(|_| PosixWorker::new(self.config.clone(), groups.clone())).collect()
    }
}
