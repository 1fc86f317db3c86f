//! One conversation with a peer, over one TCP connection (*transport*) after another.
//!
//! ```text
//!                        fault, to be tried again
//!        .------------------------------------------------.
//!        v                                                |
//!     Dialling --opened--> Open: handshake ... ready ----(+)--> Standby    parked: nothing to send,
//!        ^                  ^                             |        |       or the peer has to come
//!        |               accept                           v        |
//!     Backoff <-------------------------------------------+        |
//!        ^                                                |        |
//!        '------------------- something to send ----------|--------'
//!                                                         v
//!                                                       Closed      lossy, or told to
//! ```
//!
//! The shell owns sockets and clocks. It calls one `handle_*` method or command, then drains
//! [`Session::poll_event`], [`Session::poll_transmit`] and [`Session::poll_timeout`] in this order.
//! Every command is legal in every state. A session is used by one thread at a time and never
//! blocks; only its unblock callback is called from elsewhere.
//!
//! Every transport asked for ([`SessionEvent::Dial`]) or brought along ([`Session::accept`]) ends
//! with exactly one [`SessionEvent::Hangup`], unless [`Session::adopt`] moved it elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use crate::addr::{AddrType, EntityAddr};
use crate::entity::EntityType;
use crate::error::ProtocolError;
use crate::identity::{Identity, Spoken};
use crate::message::{Message, PRIORITY_DEFAULT};
use crate::policy::Policy;
use crate::rx_buffers::RxBuffers;
use crate::throttle::Unblock;
use crate::v2::Utime;

mod admission;
mod arbitrate;
mod authenticate;
mod compress;
mod event;
mod fault;
mod handshake;
mod inbox;
mod intercept;
mod outbox;
mod queue;
mod reading;
mod ready;
mod resume;
mod transcript;
mod transport;
mod v1;

pub use arbitrate::Decision;
pub use event::{
    CloseReason, Fault, IdentRequest, PeerFacts, PeerIdent, SendError, SessionEvent, SessionStats,
    TransportNews, Verdict,
};
pub use intercept::{Action, Interceptor, Step};
pub use outbox::{GATHER_MAX, Gather};

use queue::OutQueue;
use transport::{Reading, Side, Transport};

/// How long a read-ahead buffer is kept when nothing arrives.
const READ_AHEAD_KEEP: Duration = Duration::from_secs(1);

/// Most keepalives that wait for their acknowledgement to be written; older ones are forgotten.
const KEEPALIVE_ACKS_MAX: usize = 8;

/// One session. See the [module](self) for its life.
pub struct Session {
    identity: Arc<Identity>,
    policy: Policy,
    peer: PeerFacts,
    state: State,
    numbers: Numbers,
    /// The address dialled; none for a session that began by accepting.
    target: Option<EntityAddr>,
    /// Our IP address on this transport: our end of it or, better, what the peer sees.
    own_ip: Option<IpAddr>,
    queue: OutQueue,
    events: VecDeque<SessionEvent>,
    keepalive_due: bool,
    keepalive_acks: ArrayVec<Utime, KEEPALIVE_ACKS_MAX>,
    /// Messages arrived that no acknowledgement told the peer about.
    ack_due: bool,
    /// It was ready once.
    established: bool,
    /// It never was ready, but the peer may think so: over msgr1 the acceptor is the last to know.
    promised: bool,
    /// The next fault is the last one, whatever the policy says (contract C-6).
    disposable: bool,
    unblock: Unblock,
    interceptor: Option<Interceptor>,
    rx_buffers: Arc<RxBuffers>,
    /// The latest time heard of.
    now: Instant,
    /// When bytes last went either way.
    progress: Instant,
    /// When bytes last arrived, or a buffer was made for them.
    arrived: Instant,
    backoff: Duration,
    random: u64,
    stats: SessionStats,
    last_fault: Option<Fault>,
}

#[derive(Debug)]
enum State {
    /// A TCP connection was asked for.
    Dialling { deadline: Instant },
    /// There is a TCP connection; until the session is ready it has a deadline.
    Open { transport: Box<Transport>, deadline: Instant },
    /// Waits before the next dial.
    Backoff { until: Instant },
    /// Parked.
    Standby,
    /// Dead for good.
    Closed,
}

/// The numbers that make a session recognisable (contract L-1, msgr2: session variables).
#[derive(Debug, Default)]
struct Numbers {
    /// Made by the side that sent CLIENT_IDENT; zero when lossy.
    client_cookie: u64,
    /// Made by the side that sent SERVER_IDENT; zero until there is a session.
    server_cookie: u64,
    /// Our number of the current connection attempt.
    global_seq: u64,
    /// The peer's, from its last ident.
    peer_global_seq: u64,
    /// Reconnects so far; over msgr1, times it opened.
    connect_seq: u64,
    /// The last message written.
    out_seq: u64,
    /// The last message received.
    in_seq: u64,
}

impl Session {
    /// The side that dials. Its first event is [`SessionEvent::Dial`]. `seed` must be fresh
    /// randomness: session cookies come from it.
    pub fn dial(
        now: Instant,
        identity: Arc<Identity>,
        peer_type: EntityType,
        target: EntityAddr,
        seed: u64,
    ) -> Self {
        let policy = identity.policies.get(peer_type).clone();
        let mut session = Self::new(now, identity, policy, seed);
        session.peer.kind = Some(peer_type);
        session.peer.addrs = target.into();
        session.peer.socket = target.socket;
        session.target = Some(target);
        if target.socket.is_some() {
            session.start_dial(now);
        } else {
            session.die(CloseReason::NoAddress(target));
        }
        session
    }

    /// The side that accepted a TCP connection, already open, from `from` on our address `local`.
    /// `seed` must be fresh randomness: session cookies and clients' numbers come from it.
    pub fn accept(
        now: Instant,
        identity: Arc<Identity>,
        from: SocketAddr,
        local: SocketAddr,
        seed: u64,
    ) -> Self {
        // The policy is the peer type's as soon as HELLO tells the type (contract M-23).
        let policy = Policy::stateless_server();
        let mut session = Self::new(now, identity, policy, seed);
        session.peer.socket = Some(from);
        session.own_ip = Some(local.ip());
        let spoken = session.identity.spoken_at(local);
        session.open(now, Side::Acceptor, spoken);
        session
    }

    fn new(now: Instant, identity: Arc<Identity>, policy: Policy, seed: u64) -> Self {
        Self {
            identity,
            policy,
            peer: PeerFacts::default(),
            state: State::Standby,
            numbers: Numbers::default(),
            target: None,
            own_ip: None,
            queue: OutQueue::default(),
            events: VecDeque::new(),
            keepalive_due: false,
            keepalive_acks: ArrayVec::new(),
            ack_due: false,
            established: false,
            promised: false,
            disposable: false,
            unblock: Arc::new(|| ()),
            interceptor: None,
            rx_buffers: Arc::default(),
            now,
            progress: now,
            arrived: now,
            backoff: Duration::ZERO,
            random: seed,
            stats: SessionStats::default(),
            last_fault: None,
        }
    }

    /// Where the transport puts received bytes. Empty means stop reading: a throttle is full, a
    /// verdict is due, or there is no transport.
    pub fn rx_space(&mut self) -> &mut [u8] {
        let State::Open { transport, .. } = &mut self.state else {
            return &mut [];
        };
        if !transport.is_reading() {
            return &mut [];
        }
        if !transport.inbox.is_idle() {
            self.arrived = self.now;
        }
        transport.inbox.space()
    }

    /// The transport put `len` bytes at the start of [`Session::rx_space`]. On an error the
    /// session has dealt with it already; it is returned for logs and counters.
    ///
    /// # Panics
    ///
    /// If `len` exceeds the space that was given.
    pub fn handle_received(&mut self, now: Instant, len: usize) -> Result<(), ProtocolError> {
        self.now = now;
        let Some(transport) = self.transport() else {
            return Ok(());
        };
        transport.inbox.received(len);
        let sealed_len = if transport.encoder.is_secure() { len as u64 } else { 0 };
        self.progress = now;
        self.arrived = now;
        self.stats.bytes_received += len as u64;
        self.stats.sealed_bytes_received += sealed_len;
        self.advance(now)
    }

    /// Something happened to the transport.
    pub fn handle_transport(&mut self, now: Instant, news: TransportNews) {
        self.now = now;
        match (news, &self.state) {
            (TransportNews::Opened { local }, State::Dialling { .. }) => {
                self.own_ip = Some(local.ip());
                let spoken = match self.target {
                    Some(EntityAddr { kind: AddrType::Legacy, .. }) => Spoken::V1,
                    _ => Spoken::V2,
                };
                self.open(now, Side::Dialler, spoken);
            }
            (TransportNews::Opened { .. }, _) => {} // of a dial given up meanwhile
            (TransportNews::Refused, State::Dialling { .. }) => {
                self.events.push_back(SessionEvent::Refused);
                self.fault(now, Fault::Refused);
            }
            (TransportNews::Closed, _) => self.fault(now, Fault::Closed),
            (TransportNews::Refused | TransportNews::Reset, _) => self.fault(now, Fault::Broken),
        }
    }

    /// Time passed; to be called at [`Session::poll_timeout`], harmless earlier.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let options = &self.identity.options;
        let (ready_timeout, idle_timeout) = (options.ready_timeout, options.idle_timeout);
        if let State::Open { transport, .. } = &mut self.state
            && let Some(error) = transport.failed.take()
        {
            return self.fault(now, Fault::Protocol(error));
        }
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        match &mut self.state {
            State::Backoff { .. } if due => self.start_dial(now),
            State::Dialling { .. } if due => self.fault(now, Fault::ReadyTimeout(ready_timeout)),
            State::Open { transport, .. } if due => match transport.is_ready() {
                true => self.fault(now, Fault::IdleTimeout(idle_timeout)),
                false => self.fault(now, Fault::ReadyTimeout(ready_timeout)),
            },
            State::Open { transport, .. } if self.arrived + READ_AHEAD_KEEP <= now => {
                transport.inbox.release_if_idle();
                transport.outbox.release_if_idle();
                transport.encoder.release();
            }
            _ => {}
        }
    }

    /// A throttle granted what this session waits for: goes on with what was read already. Errors
    /// are as for [`Session::handle_received`].
    pub fn handle_unblocked(&mut self, now: Instant) -> Result<(), ProtocolError> {
        self.now = now;
        self.advance(now)
    }

    /// Installs what throttles call, on any thread, when they grant what this session waits for;
    /// it should have the shell call [`Session::handle_unblocked`] on the session's own thread.
    /// Needed wherever a throttle is.
    pub fn set_unblock(&mut self, unblock: Unblock) {
        self.unblock = unblock;
    }

    /// Installs where the application posts buffers for the data of replies (contract C-13).
    pub fn set_rx_buffers(&mut self, rx_buffers: Arc<RxBuffers>) {
        self.rx_buffers = rx_buffers;
    }

    /// Queues a message; it is numbered when it is written. On an error it is handed back.
    #[expect(clippy::result_large_err, reason = "the message goes back as it came, unboxed")]
    pub fn send(&mut self, now: Instant, mut message: Message) -> Result<(), SendError> {
        self.now = now;
        let limits = &self.identity.limits;
        let lens = [&message.front, &message.middle, &message.data].map(|part| part.len());
        let most = [limits.front_len, limits.middle_len, limits.data_len];
        if self.is_closed() {
            return Err(SendError::Closed(message));
        }
        if lens.iter().zip(most).any(|(len, most)| *len > most as usize) {
            return Err(SendError::TooLong(message));
        }
        let (bytes, count) = (self.queue.bytes(), self.queue.count());
        let too_many = bytes + message.payload_len() > limits.queue_bytes && count > 0;
        if too_many || count >= limits.queue_messages {
            return Err(SendError::Full(message));
        }
        message.header.seq = 0;
        if message.header.priority == 0 {
            message.header.priority = PRIORITY_DEFAULT;
        }
        self.queue.push(now, message);
        self.leave_standby(now);
        Ok(())
    }

    /// Asks the peer for a sign of life, as soon as there is a session (contract C-4).
    pub fn send_keepalive(&mut self, now: Instant) {
        self.now = now;
        if !self.is_closed() {
            self.keepalive_due = true;
            self.leave_standby(now);
        }
    }

    /// Closes without any event but a [`SessionEvent::Hangup`], dropping what is queued both ways
    /// (contracts M-22, C-5).
    pub fn mark_down(&mut self) {
        self.events.clear();
        self.hang_up();
        self.state = State::Closed;
        self.queue.clear();
    }

    /// Closes, dropping what is queued, and tells the user with [`SessionEvent::Reset`]
    /// (contracts M-20, M-21).
    pub fn close(&mut self) {
        if !self.is_closed() {
            self.hang_up();
            self.die(CloseReason::Local);
        }
    }

    /// Makes the next fault the last one (contract C-6).
    pub fn mark_disposable(&mut self) {
        self.policy.lossy = true;
        self.disposable = true;
    }

    /// Answers [`SessionEvent::Ident`]; without one it does nothing. Errors are as for
    /// [`Session::handle_received`], from bytes read ahead.
    pub fn resolve(&mut self, now: Instant, verdict: Verdict) -> Result<(), ProtocolError> {
        self.now = now;
        let judged = self.judge(now, verdict);
        self.advance_behind(now, judged)
    }

    /// What happened, in order; a shell asks until there is nothing more.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// What to send. Each gather list is to be followed by [`Session::transmitted`]; if the
    /// transport did not take all of it, ask again when it takes more.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Gather<'_>> {
        self.now = now;
        self.stage();
        let transport = self.transport()?;
        match transport.frozen_at {
            None => transport.outbox.gather(usize::MAX),
            Some(written) => transport.outbox.gather(written),
        }
    }

    /// The transport took the first `len` bytes of the last gather list.
    ///
    /// # Panics
    ///
    /// If `len` exceeds the gather list's.
    pub fn transmitted(&mut self, len: usize) {
        let Some(transport) = self.transport() else {
            return;
        };
        transport.outbox.sent(len);
        let sealed_len = if transport.encoder.is_secure() { len as u64 } else { 0 };
        if let Some(written) = &mut transport.frozen_at {
            *written -= len;
        }
        self.stats.bytes_sent += len as u64;
        self.stats.sealed_bytes_sent += sealed_len;
        if len > 0 {
            self.progress = self.now;
        }
    }

    /// When to call [`Session::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let release = match &self.state {
            State::Open { transport, .. } if transport.inbox.is_idle() => {
                Some(self.arrived + READ_AHEAD_KEEP)
            }
            _ => None,
        };
        self.deadline().into_iter().chain(release).min()
    }

    /// Whether messages flow: false before the session is made and after a fault (contract C-7).
    pub fn is_ready(&self) -> bool {
        matches!(&self.state, State::Open { transport, .. } if transport.is_ready() && !transport.is_frozen())
    }

    /// Whether it is dead for good.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// What is known about the other side.
    pub fn peer(&self) -> &PeerFacts {
        &self.peer
    }

    /// The session's rules; the server's word on lossy included, once ready (contract P-6).
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Counters since the session began.
    pub fn stats(&self) -> SessionStats {
        self.stats
    }

    /// The latest fault.
    pub fn last_fault(&self) -> Option<&Fault> {
        self.last_fault.as_ref()
    }

    /// Payload bytes and messages queued for sending, unacknowledged ones included.
    pub fn queued(&self) -> (usize, usize) {
        (self.queue.bytes(), self.queue.count())
    }

    fn transport(&mut self) -> Option<&mut Transport> {
        match &mut self.state {
            State::Open { transport, .. } => Some(transport),
            _ => None,
        }
    }

    /// The watchdog or backoff of the current state (contracts K-4, K-5, L-10).
    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Open { transport, .. } if transport.failed.is_some() => Some(self.now),
            State::Open { transport, .. } if transport.is_ready() => {
                Some(later(self.progress, self.identity.options.idle_timeout))
            }
            State::Dialling { deadline } | State::Open { deadline, .. } => Some(*deadline),
            State::Backoff { until } => Some(*until),
            State::Standby | State::Closed => None,
        }
    }

    /// A transport is there: both sides send their banner at once, but who speaks either protocol
    /// lets the peer choose.
    fn open(&mut self, now: Instant, side: Side, spoken: Spoken) {
        let options = &self.identity.options;
        let deadline = match self.state {
            State::Dialling { deadline } => deadline,
            _ => later(now, options.ready_timeout),
        };
        let transport = Box::new(Transport::new(side, options, &self.identity.limits));
        self.progress = now;
        self.state = State::Open { transport, deadline };
        match spoken {
            Spoken::V1 => self.begin_v1(),
            Spoken::V2 => self.begin_v2(),
            Spoken::Either => {
                if let Some(transport) = self.transport() {
                    transport.reading = Reading::EitherBanner;
                }
            }
        }
    }

    fn begin_v2(&mut self) {
        if let Some(transport) = self.transport() {
            transport.reading = Reading::BannerPrefix;
        }
        // An acceptor has no interceptor yet, see `set_interceptor`.
        if self.passes(Step::ClientBanner) {
            let banner = self.identity.options.banner();
            if let Some(transport) = self.transport() {
                transport.send_banner(&banner);
            }
            self.passes(Step::ClientBannerSent);
        }
    }

    /// A fresh random number that is not zero (SplitMix64 over the seed).
    fn cookie(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    }
}

/// `now + wait`, or as far away as makes no difference: options may say "never" with a huge wait.
fn later(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + wait.min(FAR)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("state", &self.state)
            .field("numbers", &self.numbers)
            .field("queued", &self.queue.count())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}
