//! Kernel TCP behind the traits of [`crate::stack`]: sockets, and a driver that waits for them.
//!
//! ```text
//!   PosixStack --into_workers--> PosixWorker --- Selector: epoll, kqueue, poll or select, with a
//!      |                            |            waker                        (posix/driver.rs)
//!      |                            +--- NetHandler: makes every socket  (posix/net_handler.rs)
//!      +-- PortGroups: which        +--- Table: slot + generation -> socket    (posix/table.rs)
//!          addresses this stack                     Listener                  (posix/listen.rs)
//!          listens on                               Connection                  (posix/conn.rs)
//!                                                   lingering, closed by its owner
//! ```
//!
//! * **Readiness.** Event queues repeat an edge for every packet; `poll` and `select` repeat
//!   whatever they are asked. A worker remembers what it reported and reports again only after the
//!   owner was told would-block, so an owner sees each edge once, whatever the driver. The same
//!   memory saves system calls: a short read or write proves that the next one would block, and it
//!   is answered without asking.
//! * **Sleep.** A sleep ends on time with every driver; where the kernel counts in milliseconds a
//!   timer descriptor helps (posix/driver/alarm.rs).
//! * **Listening.** Workers of one stack share a port with `SO_REUSEPORT`; nobody else gets in
//!   unnoticed (posix/listen.rs has the rule).
//! * **Closing.** The kernel resets a connection that is closed with unread input, and the peer
//!   may lose our last bytes. A closed socket therefore lingers here, its input thrown away, until
//!   the peer closes too or [`PosixConfig::linger`] is over.
//!
//! For Linux. It builds for FreeBSD, where `kqueue` takes the place of `epoll`, but was never run
//! there: posix/system.rs says what is missing, and the `SO_REUSEPORT` rules are others.
//! Copies: one each way, between the kernel and the caller's buffer.

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::stack::NetworkStack;
pub use driver::{Driver, UnknownDriver};
use listen::PortGroups;
pub use worker::PosixWorker;

pub mod blocking;
mod conn;
mod counters;
mod driver;
mod errno;
mod listen;
mod net_handler;
mod system;
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
    /// What the workers wait with.
    pub driver: Driver,
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
            driver: Driver::default(),
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
