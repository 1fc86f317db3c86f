//! The seam every transport stands behind: a stack makes workers, a worker owns sockets.
//!
//! ```text
//!   NetworkStack --into_workers--> Worker (one per core, moved to its thread, never shared)
//!                                    |  listen, accept, connect, recv, send, close, flush
//!                                    |  EventDriver: wait -> Ready { socket, readiness }
//! ```
//!
//! Rules that hold for every implementation:
//!
//! * Nothing here blocks but [`EventDriver::wait`]; would-block is a value, never an error.
//! * Readiness is edge-style: a socket is reported when it *becomes* readable or writable, so its
//!   owner reads or writes until told [`Received::WouldBlock`] (or a send of 0 bytes), or keeps the
//!   socket on a list of its own.
//! * Every worker listens for itself. A connection belongs to one worker from `accept` or `connect`
//!   to `close`.
//! * Handles are not `Copy`: [`Worker::close`] takes them by value, so a closed socket has no name.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names one socket of one worker for as long as it lives.
///
/// The slot may be used again after a close; the generation then differs, so an event that was
/// still under way for the old socket is not mistaken for one of the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId {
    /// Index into the worker's table; small, and used again after a close.
    pub slot: u32,
    /// Counts the uses of the slot.
    pub generation: u32,
}

/// A listening socket of one worker.
#[derive(Debug, PartialEq, Eq)]
pub struct ServerSocket(pub(crate) SocketId);

/// One TCP connection of one worker, opening, open or half closed.
#[derive(Debug, PartialEq, Eq)]
pub struct ConnectedSocket(pub(crate) SocketId);

impl ServerSocket {
    /// The name this socket has in [`Ready`] events.
    pub fn id(&self) -> SocketId {
        self.0
    }
}

impl ConnectedSocket {
    /// The name this socket has in [`Ready`] events.
    pub fn id(&self) -> SocketId {
        self.0
    }
}

/// A set of things a socket became ready for.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Readiness(u8);

impl Readiness {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Data, end of stream, an error, or (for a [`ServerSocket`]) a connection can be taken.
    pub const READABLE: Self = Self(1);
    /// The connection opened, failed, or takes bytes again.
    pub const WRITABLE: Self = Self(2);
    /// Both.
    pub const ALL: Self = Self(3);

    /// Whether `self` has all of `other`.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What `self` and `other` have in common.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in `self` but not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is nothing in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the set has [`Readiness::READABLE`].
    pub fn is_readable(self) -> bool {
        self.contains(Self::READABLE)
    }

    /// Whether the set has [`Readiness::WRITABLE`].
    pub fn is_writable(self) -> bool {
        self.contains(Self::WRITABLE)
    }
}

impl std::ops::BitOr for Readiness {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Readiness {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "none",
            1 => "readable",
            2 => "writable",
            _ => "readable|writable",
        })
    }
}

/// One socket that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Which socket.
    pub socket: SocketId,
    /// For what.
    pub readiness: Readiness,
}

/// What [`Worker::recv`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, at least one, were copied to the start of the buffer.
    Bytes(usize),
    /// Nothing now; a readable event will follow.
    WouldBlock,
    /// The peer closed its sending half and everything before that was read.
    EndOfStream,
}

/// Why a socket call failed. The socket is still to be closed by its owner.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The peer answered the connection attempt with a reset.
    #[error("connection refused")]
    Refused,
    /// The peer reset the connection.
    #[error("connection reset by peer")]
    Reset,
    /// The peer did not answer in time.
    #[error("connection timed out")]
    TimedOut,
    /// No route to the address, or its neighbour does not answer.
    #[error("{0} cannot be reached")]
    Unreachable(SocketAddr),
    /// The sending half was closed by us before.
    #[error("sent after the sending half was closed")]
    Shutdown,
    /// This worker listens there already.
    #[error("{0} is in use")]
    AddressInUse(SocketAddr),
    /// The address is not one of this stack's own.
    #[error("{0} is not an address of this stack; give it one with --addr")]
    AddressNotAvailable(SocketAddr),
    /// A named limit of the worker is reached.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The operating system or the device failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a stack knows of one connection, see [`Worker::tcp_info`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// The smoothed round-trip time; `None` before the first measurement.
    pub round_trip: Option<Duration>,
    /// What congestion control lets be on its way; `None` if the stack does not tell.
    pub congestion_window_bytes: Option<usize>,
    /// Sent and not acknowledged.
    pub unacked_bytes: u32,
    /// Taken from the application and not acknowledged, sent or not.
    pub send_queue_bytes: usize,
    /// Received in order and not read.
    pub recv_queue_bytes: usize,
    /// Segments sent again since the connection began.
    pub segments_resent: u32,
}

/// What a listening socket is made with.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Most connections that wait to be accepted; further SYNs are dropped, so the peer retries.
    pub backlog: usize,
    /// `SO_PRIORITY` of the connections it accepts, see [`ConnectOptions::priority`].
    pub priority: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 512, priority: None }
    }
}

/// What a connection is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions {
    /// Local address to connect from; any of ours if absent. Port 0 lets the stack choose.
    pub bind: Option<SocketAddr>,
    /// `SO_PRIORITY`, 0 to 6: which queue of the host its packets wait in, marked as network
    /// control (DSCP CS6). Kernel sockets only: a packet device has one queue for all.
    pub priority: Option<u32>,
}

/// Wakes a thread that is in [`EventDriver::wait`], from any thread.
///
/// For a worker that polls without ever sleeping this does nothing and costs nothing.
#[derive(Clone)]
pub struct Waker(Option<Arc<dyn Fn() + Send + Sync>>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(wake)))
    }

    /// For a driver that never sleeps.
    pub fn noop() -> Self {
        Self(None)
    }

    /// Makes the current or the next [`EventDriver::wait`] return soon.
    pub fn wake(&self) {
        if let Some(wake) = &self.0 {
            wake();
        }
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Waker" } else { "Waker(noop)" })
    }
}

/// Waits for sockets, or polls the device: the part of a worker an event centre needs.
pub trait EventDriver {
    /// The driver's name, as logs and tests show it.
    fn name(&self) -> &'static str;

    /// Appends the sockets that became ready.
    ///
    /// A driver that can sleep returns when there is one, when woken, or at `deadline` (`None`:
    /// no deadline), whichever comes first; with a `deadline` at or before `now` it does not sleep
    /// at all. A poll-mode driver makes one turn of its device, a bounded amount of work, and
    /// returns at once. `now` is the time this turn happens at.
    ///
    /// # Errors
    /// Only when the driver itself is broken; troubles of one socket are told by its own calls.
    fn wait(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()>;

    /// When a turn is due that nothing from outside brings about: work left over, or a timer of the
    /// driver's own. At or before `now`: at once; `None`: not before something arrives. It may be
    /// early, never late.
    ///
    /// For whoever turns the driver on a clock of their own. A driver that sleeps knows it by
    /// itself, so the default is `None`.
    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let _ = now;
        None
    }

    /// A handle that ends a sleeping [`EventDriver::wait`] from other threads.
    fn waker(&self) -> Waker;
}

/// One core's share of a transport: sockets, and the events that tell when to use them.
pub trait Worker: EventDriver {
    /// Called once by the thread that will make all further calls.
    ///
    /// # Errors
    /// If the thread cannot be made ready for the device.
    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Listens on `addr`. Port 0 lets the worker choose one, see [`Worker::listen_addr`].
    ///
    /// # Errors
    /// [`SocketError::AddressInUse`], [`SocketError::AddressNotAvailable`] or a limit.
    fn listen(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> Result<ServerSocket, SocketError>;

    /// The address a listener really has.
    fn listen_addr(&self, socket: &ServerSocket) -> SocketAddr;

    /// Takes the oldest connection that waits, with its peer's address; `None`: nothing waits.
    ///
    /// # Errors
    /// A limit, or a failure of the machine. The listener goes on: it is reported again when a
    /// socket of this worker closes, and its owner may try sooner if the trouble is elsewhere.
    fn accept(
        &mut self,
        now: Instant,
        socket: &ServerSocket,
    ) -> Result<Option<(ConnectedSocket, SocketAddr)>, SocketError>;

    /// Stops listening; connections that wait are reset.
    fn close_listener(&mut self, now: Instant, socket: ServerSocket);

    /// Starts to connect. The outcome comes as a writable event, then see [`Worker::is_connected`].
    ///
    /// # Errors
    /// Only what is known at once: no route, no port, a limit. A refusal comes later.
    fn connect(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<ConnectedSocket, SocketError>;

    /// Whether the connection opened: `Ok(false)` means not yet.
    ///
    /// # Errors
    /// Why it failed; [`SocketError::Refused`] for a reset in answer to our SYN.
    fn is_connected(&mut self, socket: &ConnectedSocket) -> Result<bool, SocketError>;

    /// Our address of the connection.
    ///
    /// # Errors
    /// If the operating system cannot tell any more.
    fn local_addr(&self, socket: &ConnectedSocket) -> Result<SocketAddr, SocketError>;

    /// Copies received bytes into `buffer`, which is not empty.
    ///
    /// # Errors
    /// [`SocketError::Reset`], [`SocketError::TimedOut`] and the like; data that arrived before a
    /// reset may be lost.
    fn recv(
        &mut self,
        now: Instant,
        socket: &ConnectedSocket,
        buffer: &mut [u8],
    ) -> Result<Received, SocketError>;

    /// Takes a prefix of `gather` and says how many bytes; 0 means no room, a writable event
    /// follows. `more` says that further bytes follow in this turn, so a short segment may wait
    /// for them; it waits no longer than the next [`Worker::flush`].
    ///
    /// # Errors
    /// [`SocketError::Shutdown`] after [`Worker::shutdown`], else as [`Worker::recv`].
    fn send(
        &mut self,
        now: Instant,
        socket: &ConnectedSocket,
        gather: &[IoSlice<'_>],
        more: bool,
    ) -> Result<usize, SocketError>;

    /// Closes the sending half once everything taken by [`Worker::send`] is out; receiving goes on.
    ///
    /// # Errors
    /// As [`Worker::send`].
    fn shutdown(&mut self, now: Instant, socket: &ConnectedSocket) -> Result<(), SocketError>;

    /// Gives the socket up. What was taken by [`Worker::send`] is still delivered in the
    /// background, within a time limit, unless the peer resets; with `abort` it is reset at once.
    fn close(&mut self, now: Instant, socket: ConnectedSocket, abort: bool);

    /// Puts on the wire what this turn's calls produced. Called once at the end of each turn.
    ///
    /// # Errors
    /// As [`EventDriver::wait`].
    fn flush(&mut self, now: Instant) -> io::Result<()>;

    /// What is known of a connection. `None` from stacks that cannot look: the kernel's, whose
    /// `TCP_INFO` no safe wrapper reads (`ss -ti` does).
    fn tcp_info(&self, socket: &ConnectedSocket) -> Option<TcpInfo> {
        let _ = socket;
        None
    }

    /// A snapshot of the worker's counters: name and value, in a fixed order, units in the name.
    ///
    /// Gauges of things that must return to zero after all peers are gone have names that end in
    /// `_in_use`.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

/// A transport: its workers are made once, then each lives on its own thread.
pub trait NetworkStack {
    /// The workers this stack makes.
    type Worker: Worker + Send + 'static;

    /// One worker per core, in core order.
    ///
    /// # Errors
    /// If the device or the operating system refuses what a worker needs.
    fn into_workers(self) -> io::Result<Vec<Self::Worker>>;
}
