//! The application's handle of a session: anyone may hold it, only its worker touches the session.
//!
//! ```text
//!   Connection (clone, any thread)          its worker
//!     send_message ----- inbox -----------> session.send
//!     mark_down, ... --- flag + inbox ----> session.mark_down
//!     is_connected, peer <--- flags, facts --- after each event
//! ```
//!
//! Nothing here blocks beyond a short lock around facts that change a few times in a session's
//! life. What a handle asks for takes effect at once where the application can see it (a marked
//! down connection is not connected, none of its messages is dispatched any more), and on the wire
//! when the worker gets to it.

use crate::endpoint::Endpoint;
use crate::simple::Pipe;
use crate::worker_loop::{Ask, Command};
use crate::workers::Gate;
use bytes::BytesMut;
use messenger_proto::auth::AuthIdentity;
use messenger_proto::message::Message;
use messenger_proto::{Action, EntityAddrVec, EntityName, EntityType, PeerFacts, RxBuffers};
use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use messenger_proto::SendError;

/// One object of the application's choice per connection (contract C-8).
pub type PrivData = Arc<dyn Any + Send + Sync>;

/// A handle of one peer session; it survives the TCP connections under it (contract 1.4).
///
/// Clones name the same connection, and connections compare by that.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    id: u64,
    anonymous: bool,
    home: Home,
    endpoint: Weak<Endpoint>,
    flags: AtomicU32,
    /// Where the worker keeps the session; its own business, here because commands carry handles.
    slot: AtomicUsize,
    outgoing: Outgoing,
    facts: Mutex<PeerFacts>,
    rx_buffers: Arc<RxBuffers>,
    priv_data: Mutex<Option<PrivData>>,
}

/// Who moves this connection's messages.
enum Home {
    Worker(Arc<Gate>),
    Pipe(Arc<Pipe>),
    Loopback,
}

/// What was accepted for sending and is neither on the wire nor, on lossless sessions,
/// acknowledged.
#[derive(Default)]
struct Outgoing {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

/// What a connection is or was asked for. Each of the asking flags also keeps a second command of
/// its kind from being posted while one is under way.
#[derive(Clone, Copy)]
pub(crate) enum Flag {
    Ready = 1,
    /// Marked down: ends silently.
    Down = 2,
    /// To be closed with a reset for the application.
    Closing = 4,
    /// The session is over.
    Closed = 8,
    Disposable = 16,
    KeepaliveAsked = 32,
    UnblockAsked = 64,
}

const ENDING: u32 = Flag::Down as u32 | Flag::Closing as u32 | Flag::Closed as u32;
const NO_SLOT: usize = usize::MAX;

impl Connection {
    /// A handle for a session that `gate`'s worker keeps or will keep.
    pub(crate) fn new(
        endpoint: &Arc<Endpoint>,
        gate: Arc<Gate>,
        facts: PeerFacts,
        anonymous: bool,
    ) -> Self {
        let id = endpoint.next_connection_id();
        Self::with(endpoint, id, Home::Worker(gate), facts, anonymous, 0)
    }

    /// A handle of the session in `pipe`.
    pub(crate) fn with_pipe(
        endpoint: &Arc<Endpoint>,
        pipe: Arc<Pipe>,
        facts: PeerFacts,
        anonymous: bool,
    ) -> Self {
        let id = endpoint.next_connection_id();
        Self::with(endpoint, id, Home::Pipe(pipe), facts, anonymous, 0)
    }

    /// The endpoint's connection to itself: always connected (contract C-16).
    pub(crate) fn loopback(endpoint: &Arc<Endpoint>, facts: PeerFacts) -> Self {
        let (id, ready) = (endpoint.next_connection_id(), Flag::Ready as u32);
        Self::with(endpoint, id, Home::Loopback, facts, false, ready)
    }

    fn with(
        endpoint: &Arc<Endpoint>,
        id: u64,
        home: Home,
        facts: PeerFacts,
        anonymous: bool,
        flags: u32,
    ) -> Self {
        Self(Arc::new(Shared {
            id,
            anonymous,
            home,
            endpoint: Arc::downgrade(endpoint),
            flags: AtomicU32::new(flags),
            slot: AtomicUsize::new(NO_SLOT),
            outgoing: Outgoing::default(),
            facts: Mutex::new(facts),
            rx_buffers: Arc::default(),
            priv_data: Mutex::new(None),
        }))
    }

    /// Sends a message: it is queued in order behind those of the same priority. Never blocks,
    /// from any thread, callbacks included. `Ok` says that it was taken, not that it arrived.
    ///
    /// # Errors
    /// Each gives the message back. [`SendError::Closed`]: the connection has ended or is about
    /// to (Ceph drops such a message silently). [`SendError::Full`]: this connection's outgoing
    /// queue or its worker's inbox is at its limit; send again once something has left.
    /// [`SendError::TooLong`]: a section is longer than the limits allow.
    pub fn send_message(&self, mut message: Message) -> Result<(), SendError> {
        let Some(endpoint) = self.0.endpoint.upgrade() else {
            return Err(SendError::Closed(message));
        };
        if self.is_down() {
            return Err(SendError::Closed(message));
        }
        if message.header.priority == 0 {
            message.header.priority = endpoint.options.send_priority;
        }
        if self.is_loopback() {
            return endpoint.send_to_self(message);
        }
        if !endpoint.fits(&message) {
            return Err(SendError::TooLong(message));
        }
        if endpoint.options.injection.swallows(|| self.peer_type()) {
            return Ok(());
        }
        let bytes = message.payload_len();
        if !self.reserve(bytes, endpoint.queue_limits()) {
            return Err(SendError::Full(message));
        }
        let sent = match &self.0.home {
            Home::Worker(gate) => gate.send_message(self, message).map_err(SendError::Full),
            Home::Pipe(pipe) => pipe.send(self, message),
            Home::Loopback => unreachable!("it was sent to ourselves"),
        };
        sent.inspect_err(|_| self.release(1, bytes))
    }

    /// Asks the peer for a sign of life: the answer shows in
    /// [`Connection::last_keepalive_ack`]. No-op on a connection that has ended (C-4).
    pub fn send_keepalive(&self) {
        self.ask(Flag::KeepaliveAsked, Ask::Keepalive);
    }

    /// Ends the connection without any callback; queued messages of both directions are dropped,
    /// callbacks that run now finish (C-5). Idempotent.
    pub fn mark_down(&self) {
        if !self.ask(Flag::Down, Ask::MarkDown) {
            return;
        }
        if let Some(endpoint) = self.0.endpoint.upgrade() {
            endpoint.registry.unlist(self);
            endpoint.queue.discard(self);
        }
    }

    /// Makes the connection lossy from now: its next fault ends it (C-6).
    pub fn mark_disposable(&self) {
        self.ask(Flag::Disposable, Ask::MarkDisposable);
    }

    /// Posts a buffer for the data of the message that will come with this tid: it is read straight
    /// into the buffer, which then is [`Message::data`] (C-13). The buffer's capacity must be at
    /// least the data's length, or it is left alone.
    ///
    /// # Errors
    /// Gives the buffer back if [`RX_BUFFERS_MAX`](messenger_proto::RX_BUFFERS_MAX) are posted.
    pub fn post_rx_buffer(&self, tid: u64, buffer: BytesMut) -> Result<(), BytesMut> {
        self.0.rx_buffers.post(tid, buffer)
    }

    /// Takes a posted buffer back, at any time. `None`: it is unknown, used up, or being read into
    /// at this moment; in the last case it comes with its message.
    pub fn revoke_rx_buffer(&self, tid: u64) -> Option<BytesMut> {
        self.0.rx_buffers.revoke(tid)
    }

    /// Lets a connection go on that was held at a step, see
    /// [`Messenger::set_interceptor`](crate::Messenger::set_interceptor). Messages that were sent
    /// before are queued in the session by then.
    pub fn resume(&self, action: Action) {
        if self.is_loopback() || self.has(Flag::Closed) {
            return;
        }
        if let Home::Pipe(pipe) = &self.0.home {
            return pipe.ask(self, Ask::Resume(action));
        }
        let command = Command::Session(self.clone(), Ask::Resume(action));
        if let Err(command) = self.home().send(command) {
            self.home().post(command); // the lane of messages is full
        }
    }

    /// Ends the connection with [`Dispatcher::handle_reset`](crate::Dispatcher::handle_reset).
    pub(crate) fn close(&self) {
        if !self.ask(Flag::Closing, Ask::Close) {
            return;
        }
        if let Some(endpoint) = self.0.endpoint.upgrade() {
            endpoint.registry.unlist(self);
            endpoint.queue.discard(self);
        }
    }

    /// A throttle has room for this session again; any thread.
    pub(crate) fn unblock(&self) {
        self.ask(Flag::UnblockAsked, Ask::Unblock);
    }

    /// Whether a session stands right now: from its readiness to the next fault (C-7).
    pub fn is_connected(&self) -> bool {
        self.0.flags.load(Ordering::Acquire) & (ENDING | Flag::Ready as u32) == Flag::Ready as u32
    }

    /// Whether it has ended or was told to; it never connects again.
    pub fn is_down(&self) -> bool {
        self.0.flags.load(Ordering::Acquire) & ENDING != 0
    }

    /// Whether it leads to the own messenger (C-16).
    pub fn is_loopback(&self) -> bool {
        matches!(self.0.home, Home::Loopback)
    }

    /// Whether it was made for one user only and is in no registry (C-15).
    pub fn is_anonymous(&self) -> bool {
        self.0.anonymous
    }

    /// Unique within its messenger, from 1 (C-15).
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The peer's type: known when dialling, from its HELLO when accepting (C-10).
    pub fn peer_type(&self) -> Option<EntityType> {
        self.facts().kind
    }

    /// The peer's name, once it introduced itself.
    pub fn peer_name(&self) -> Option<EntityName> {
        self.facts().name
    }

    /// The peer's addresses; before it introduced itself those that were dialled.
    pub fn peer_addrs(&self) -> EntityAddrVec {
        self.facts().addrs.clone()
    }

    /// The address dialled or accepted from.
    pub fn peer_socket_addr(&self) -> Option<SocketAddr> {
        self.facts().socket
    }

    /// Feature bits of both sides; zero before the session is ready (C-9).
    pub fn features(&self) -> u64 {
        self.facts().features
    }

    /// Whether both sides support all bits of `mask`.
    pub fn has_features(&self, mask: u64) -> bool {
        self.features() & mask == mask
    }

    /// As whom the peer authenticated to us when it last dialled; none if only we did, or not yet.
    pub fn peer_auth(&self) -> Option<AuthIdentity> {
        self.facts().auth.clone()
    }

    /// When the peer's last keepalive arrived (C-11).
    pub fn last_keepalive(&self) -> Option<Instant> {
        self.facts().last_keepalive
    }

    /// When the last keepalive that the peer answered had left here, since the Unix epoch (C-12).
    pub fn last_keepalive_ack(&self) -> Option<Duration> {
        self.facts().last_keepalive_ack
    }

    /// The application's object.
    pub fn priv_data(&self) -> Option<PrivData> {
        lock(&self.0.priv_data).clone()
    }

    /// Sets the application's object and returns the one before.
    pub fn set_priv_data(&self, data: Option<PrivData>) -> Option<PrivData> {
        std::mem::replace(&mut *lock(&self.0.priv_data), data)
    }

    /// Messages and payload bytes taken by [`Connection::send_message`] that have not left.
    pub fn outgoing(&self) -> (usize, usize) {
        let Outgoing { messages, bytes } = &self.0.outgoing;
        (messages.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.0.flags.load(Ordering::Acquire) & flag as u32 != 0
    }

    pub(crate) fn raise(&self, flag: Flag) -> bool {
        self.0.flags.fetch_or(flag as u32, Ordering::AcqRel) & flag as u32 == 0
    }

    pub(crate) fn lower(&self, flag: Flag) {
        self.0.flags.fetch_and(!(flag as u32), Ordering::AcqRel);
    }

    pub(crate) fn rx_buffers(&self) -> &Arc<RxBuffers> {
        &self.0.rx_buffers
    }

    pub(crate) fn facts_copy(&self) -> PeerFacts {
        self.facts().clone()
    }

    pub(crate) fn set_facts(&self, facts: &PeerFacts) {
        self.facts().clone_from(facts);
    }

    /// Where the session's present worker keeps it; means nothing to any other.
    pub(crate) fn slot(&self) -> Option<usize> {
        let slot = self.0.slot.load(Ordering::Relaxed);
        (slot != NO_SLOT).then_some(slot)
    }

    pub(crate) fn set_slot(&self, slot: Option<usize>) {
        self.0.slot.store(slot.unwrap_or(NO_SLOT), Ordering::Relaxed);
    }

    /// Takes room in the outgoing queue. One message always fits into an empty one.
    fn reserve(&self, len: usize, limits: (usize, usize)) -> bool {
        let Outgoing { messages, bytes } = &self.0.outgoing;
        let ahead = messages.fetch_add(1, Ordering::Relaxed);
        let ahead_bytes = bytes.fetch_add(len, Ordering::Relaxed);
        let fits = ahead < limits.0 && ahead_bytes.saturating_add(len) <= limits.1;
        let taken = ahead == 0 || fits;
        if !taken {
            self.release(1, len);
        }
        taken
    }

    /// Gives back the room of what has left.
    pub(crate) fn release(&self, messages: usize, bytes: usize) {
        self.0.outgoing.messages.fetch_sub(messages, Ordering::Relaxed);
        self.0.outgoing.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Posts a command unless its flag was up already; whether it was posted.
    fn ask(&self, flag: Flag, ask: Ask) -> bool {
        if self.is_loopback() || self.has(Flag::Closed) || !self.raise(flag) {
            return false;
        }
        self.tell_home(ask);
        true
    }

    /// Posts a command for the session, by way of its home.
    pub(crate) fn tell_home(&self, ask: Ask) {
        match &self.0.home {
            Home::Pipe(pipe) => pipe.ask(self, ask),
            _ => self.home().post(Command::Session(self.clone(), ask)),
        }
    }

    /// Where commands for the session go first, for as long as the handle lives.
    pub(crate) fn home(&self) -> &Arc<Gate> {
        match &self.0.home {
            Home::Worker(gate) => gate,
            Home::Pipe(_) | Home::Loopback => unreachable!("no worker knows this connection"),
        }
    }

    /// Whether `gate` is its home.
    pub(crate) fn is_home(&self, gate: &Arc<Gate>) -> bool {
        matches!(&self.0.home, Home::Worker(home) if Arc::ptr_eq(home, gate))
    }

    /// What keeps the session, if that is not a worker.
    pub(crate) fn pipe(&self) -> Option<&Arc<Pipe>> {
        match &self.0.home {
            Home::Pipe(pipe) => Some(pipe),
            Home::Worker(_) | Home::Loopback => None,
        }
    }

    /// Its messenger's, while that runs.
    pub(crate) fn endpoint(&self) -> Option<Arc<Endpoint>> {
        self.0.endpoint.upgrade()
    }

    fn facts(&self) -> MutexGuard<'_, PeerFacts> {
        lock(&self.0.facts)
    }
}

/// What these locks guard is one value each, whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Connection {}

impl std::hash::Hash for Connection {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts();
        write!(f, "#{}", self.0.id)?;
        match (facts.name, facts.kind) {
            (Some(name), _) => write!(f, " {name}")?,
            (None, Some(kind)) => write!(f, " {kind}")?,
            (None, None) => {}
        }
        match facts.socket {
            Some(socket) => write!(f, " at {socket}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({self}, connected: {})", self.is_connected())
    }
}
