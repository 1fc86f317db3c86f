//! A started messenger as its workers see it: who we are, who dispatches, who is connected.
//!
//! Made by `start`, given up by `wait`: nothing of one life of a messenger is left in the next.

use crate::clock::Clock;
use crate::connection::{Connection, Flag, SendError};
use crate::dispatch_queue::{DispatchQueue, News};
use crate::dispatcher::Dispatchers;
use crate::injection::Injection;
use crate::loopback::LocalQueue;
use crate::metrics::Counters;
use crate::priority_queue::Weights;
use crate::registry::Registry;
use messenger_proto::auth::Refusal;
use messenger_proto::message::Message;
use messenger_proto::{
    Action, EntityAddr, EntityAddrVec, Identity, Interceptor, Limits, PeerFacts, ProtocolError,
    Session, SessionStats, Step,
};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What an [`Endpoint`] is told apart from its identity.
#[derive(Debug)]
pub(crate) struct EndpointOptions {
    /// `ms_learn_addr_from_peer`.
    pub(crate) learn_addr: bool,
    /// Most accepted connections whose session is not ready.
    pub(crate) accepting_connections: usize,
    /// Most bytes that these may have us hold, each counted with the most it may.
    pub(crate) accepting_bytes: usize,
    pub(crate) weights: Weights,
    /// Priority of messages that name none.
    pub(crate) send_priority: u16,
    /// Where dials come from, see `Messenger::client_bind`.
    pub(crate) connect_from: Option<SocketAddr>,
    /// `SO_PRIORITY` of dialled sockets.
    pub(crate) socket_priority: Option<u32>,
    pub(crate) die_on: DieOn,
    pub(crate) injection: Arc<Injection>,
    pub(crate) intercept: Option<Intercept>,
}

/// What ends the process, in tests of peers: `ms_die_on_*`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DieOn {
    pub(crate) bad_msg: bool,
    pub(crate) unhandled_msg: bool,
    pub(crate) old_message: bool,
    pub(crate) skipped_message: bool,
}

impl DieOn {
    /// About what a session received since `before`.
    pub(crate) fn judge_received(
        self,
        connection: &Connection,
        before: &SessionStats,
        now: &SessionStats,
    ) {
        let old = self.old_message && now.duplicates > before.duplicates;
        Self::judge(old, connection, "old message");
        let gap = self.skipped_message && now.skipped > before.skipped;
        Self::judge(gap, connection, "skipped message");
    }

    /// About how a peer broke the protocol.
    pub(crate) fn judge_fault(self, connection: &Connection, error: &ProtocolError) {
        let undecodable = matches!(error, ProtocolError::Payload { .. });
        Self::judge(self.bad_msg && undecodable, connection, "bad message");
    }

    /// About a message that no dispatcher took.
    pub(crate) fn judge_unhandled(self, connection: &Connection) {
        Self::judge(self.unhandled_msg, connection, "unhandled message");
    }

    /// Ends the process if `what` is one of the deadly sins.
    fn judge(deadly: bool, connection: &Connection, what: &str) {
        if deadly {
            tracing::error!(%connection, what, "ms_die_on: aborting");
            std::process::abort();
        }
    }
}

/// Decides about the steps of connections, on their threads: it must not block. See [`Step`].
#[derive(Clone)]
pub(crate) struct Intercept(pub(crate) Arc<Decide>);

type Decide = dyn Fn(&Connection, Step) -> Action + Send + Sync;

impl fmt::Debug for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Intercept")
    }
}

/// The running part of a messenger, shared with workers and dispatch threads.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) dispatchers: Dispatchers,
    pub(crate) queue: DispatchQueue,
    pub(crate) local: LocalQueue,
    pub(crate) registry: Registry,
    pub(crate) options: EndpointOptions,
    identity: Mutex<Arc<Identity>>,
    clock: Clock,
    limits: Limits,
    loopback: OnceLock<Connection>,
    last_connection_id: AtomicU64,
    accepting: AtomicUsize,
}

impl Endpoint {
    pub(crate) fn new(
        identity: Identity,
        dispatchers: Dispatchers,
        options: EndpointOptions,
        clock: Clock,
    ) -> Arc<Self> {
        let facts = PeerFacts {
            kind: Some(identity.name.kind),
            name: Some(identity.name),
            addrs: identity.addrs.clone(),
            socket: identity.addrs.first().and_then(|addr| addr.socket),
            features: u64::MAX,
            global_id: 0,
            auth: None,
            last_keepalive: None,
            last_keepalive_ack: None,
        };
        let endpoint = Arc::new(Self {
            dispatchers,
            queue: DispatchQueue::new(options.weights, clock.clone()),
            local: LocalQueue::default(),
            registry: Registry::default(),
            limits: identity.limits,
            identity: Mutex::new(Arc::new(identity)),
            options,
            clock,
            loopback: OnceLock::new(),
            last_connection_id: AtomicU64::new(0),
            accepting: AtomicUsize::new(0),
        });
        let loopback = Connection::loopback(&endpoint, facts);
        endpoint.loopback.get_or_init(|| loopback);
        endpoint
    }

    /// For a new session.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.lock_identity())
    }

    pub(crate) fn loopback(&self) -> &Connection {
        self.loopback.get().expect("set when the endpoint was made")
    }

    pub(crate) fn next_connection_id(&self) -> u64 {
        self.last_connection_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether these are our own addresses: the same vector, or a single one contained in ours
    /// (contract M-17).
    pub(crate) fn is_self(&self, addrs: &EntityAddrVec) -> bool {
        let identity = self.lock_identity();
        match addrs.0[..] {
            [single] => identity.addrs.contains(&single),
            _ => identity.addrs == *addrs,
        }
    }

    /// One line about a peer that has not authenticated. Strangers can make us say it as often as
    /// they like, so it is not a warning; the counters tell when to look.
    pub(crate) fn log_refusal(connection: &Connection, refusal: &Refusal) {
        tracing::info!(%connection, cause = %refusal, "peer is not let in");
    }

    /// A peer told us what it sees: fills in blank IP addresses, once (contract M-27).
    pub(crate) fn learn(&self, seen: SocketAddr) {
        let mut identity = self.lock_identity();
        if !self.options.learn_addr || !identity.addrs.iter().any(EntityAddr::is_blank_ip) {
            return;
        }
        let mut learned = Identity::clone(&identity);
        for addr in &mut learned.addrs.0 {
            *addr = addr.with_ip_if_blank(seen.ip());
        }
        tracing::debug!(addrs = %learned.addrs, "learned our address from a peer");
        *identity = Arc::new(learned);
    }

    /// Has other addresses from now: sessions made before keep the old ones (contracts M-10, M-12).
    pub(crate) fn set_addrs(&self, addrs: EntityAddrVec, listening: Vec<EntityAddr>) {
        let mut identity = self.lock_identity();
        let mut facts = self.loopback().facts_copy();
        facts.socket = addrs.first().and_then(|addr| addr.socket);
        facts.addrs = addrs.clone();
        self.loopback().set_facts(&facts);
        *identity = Arc::new(Identity { addrs, listening, ..Identity::clone(&identity) });
    }

    /// The loopback connection was made, or made anew.
    pub(crate) fn tell_loopback(&self) {
        self.dispatchers.tell(self.loopback(), |d, c| d.handle_fast_connect(c));
    }

    /// Whether the message's sections are within the limits of a session.
    pub(crate) fn fits(&self, message: &Message) -> bool {
        let within = |len: usize, limit: u32| u32::try_from(len).is_ok_and(|len| len <= limit);
        within(message.front.len(), self.limits.front_len)
            && within(message.middle.len(), self.limits.middle_len)
            && within(message.data.len(), self.limits.data_len)
    }

    /// Messages and bytes that one connection may have outgoing.
    pub(crate) fn queue_limits(&self) -> (usize, usize) {
        (self.limits.queue_messages, self.limits.queue_bytes)
    }

    /// Delivers a message to ourselves (contract Q-11).
    pub(crate) fn send_to_self(&self, mut message: Message) -> Result<(), SendError> {
        let now = Some(self.clock.now());
        message.source = Some(self.lock_identity().name);
        message.stamps.recv = now;
        message.stamps.throttle = now;
        message.stamps.recv_complete = now;
        self.local.push(message)
    }

    /// Takes one of the places for accepted connections that are not ready.
    pub(crate) fn begin_accepting(&self) -> Result<(), Refused> {
        let connections = self.options.accepting_connections;
        let by_bytes = self.options.accepting_bytes / self.limits.unauthenticated_bytes.max(1);
        let max = connections.min(by_bytes);
        let place = |count: usize| (count < max).then_some(count + 1);
        match self.accepting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place) {
            Ok(_) => Ok(()),
            Err(count) if count >= connections => Err(Refused::Connections),
            Err(_) => Err(Refused::Bytes),
        }
    }

    pub(crate) fn end_accepting(&self) {
        self.accepting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Gives a new session what it needs of its connection.
    pub(crate) fn furnish(&self, session: &mut Session, connection: &Connection) {
        session.set_rx_buffers(Arc::clone(connection.rx_buffers()));
        if let Some(intercept) = self.options.intercept.clone() {
            let of = connection.clone();
            session.set_interceptor(Interceptor::new(move |step| (intercept.0)(&of, step)));
        }
    }

    /// Something happened to a connection: the application is told, unless it gave it up.
    pub(crate) fn tell(&self, connection: &Connection, news: News) {
        if !connection.is_down() {
            self.queue.tell(connection.clone(), news);
        }
    }

    /// A connection's session is over. No message follows the reset: the flag keeps new ones out,
    /// then the queued ones go (D-14).
    pub(crate) fn end(&self, connection: &Connection) {
        let silent = connection.has(Flag::Down);
        connection.raise(Flag::Closed);
        self.registry.unlist(connection);
        self.queue.discard(connection);
        if !silent {
            self.queue.tell(connection.clone(), News::Reset);
        }
    }

    /// The session became usable: the queued callback first, then the fast one (D-6 to D-8).
    pub(crate) fn tell_ready(&self, connection: &Connection, accepted: bool) {
        if accepted {
            self.queue.tell(connection.clone(), News::Accept);
            self.dispatchers.tell(connection, |d, c| d.handle_fast_accept(c));
        } else {
            self.queue.tell(connection.clone(), News::Connect);
            self.dispatchers.tell(connection, |d, c| d.handle_fast_connect(c));
        }
    }

    /// A message arrived: a fast dispatcher takes it here and now, or it is queued.
    pub(crate) fn deliver(&self, connection: &Connection, message: Message) -> Delivered {
        match self.dispatchers.try_fast(connection, message) {
            None => Delivered::Fast,
            Some(message) => {
                self.queue.push(connection.clone(), message);
                Delivered::Queued
            }
        }
    }

    /// Hands out at most `items` of each queue without waiting, in place of the dispatch threads;
    /// how many it were.
    pub(crate) fn hand_out(&self, items: usize) -> usize {
        let local = (0..items).take_while(|_| self.local.run_once(self)).count();
        local + (0..items).take_while(|_| self.queue.run_once(self)).count()
    }

    /// Lets the dispatch threads end.
    pub(crate) fn stop(&self) {
        self.local.stop();
        self.queue.stop();
    }

    fn lock_identity(&self) -> MutexGuard<'_, Arc<Identity>> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Too many others are in their handshake, or the messenger takes no more at all.
    Connections,
    /// What the others may have us hold leaves no room.
    Bytes,
}

impl Refused {
    pub(crate) fn count(self, counters: &mut Counters) {
        match self {
            Self::Connections => counters.accept_refused += 1,
            Self::Bytes => counters.accept_refused_bytes += 1,
        }
    }
}

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    Fast,
    Queued,
}

/// An endpoint that nobody started, and handles of sessions on a worker that nobody runs.
#[cfg(test)]
pub(crate) mod bench {
    use super::*;
    use crate::config::Config;
    use crate::inbox::Inbox;
    use crate::workers::Gate;
    use messenger_proto::message::PRIORITY_DEFAULT;
    use messenger_proto::{
        EntityName, EntityType, GlobalSeq, IdentRequest, PeerIdent, PolicySet, SessionOptions,
        UnixAnchor,
    };
    use netstack::stack::Waker;
    use std::time::{Duration, Instant};

    pub(crate) fn endpoint(dispatchers: Dispatchers) -> Arc<Endpoint> {
        let identity = Identity {
            name: EntityName::new(EntityType::Osd, 0),
            addrs: EntityAddr::unbound(1).into(),
            listening: Vec::new(),
            policies: PolicySet::default(),
            limits: Limits::default(),
            options: SessionOptions::default(),
            auth: Arc::default(),
            anchor: UnixAnchor { instant: Instant::now(), unix: Duration::ZERO },
            global_seq: GlobalSeq::new(),
            dispatch_throttle: None,
        };
        let options = EndpointOptions {
            learn_addr: true,
            accepting_connections: 2,
            accepting_bytes: 1 << 20,
            weights: Weights::default(),
            send_priority: PRIORITY_DEFAULT,
            connect_from: None,
            socket_priority: None,
            die_on: DieOn::default(),
            injection: Arc::new(Injection::new(&Config::default(), 1)),
            intercept: None,
        };
        Endpoint::new(identity, dispatchers, options, Clock::real())
    }

    /// A peer that wants a new session.
    pub(crate) fn ident() -> PeerIdent {
        PeerIdent {
            auth: None,
            name: EntityName::new(EntityType::Client, 1),
            addrs: EntityAddrVec::default(),
            from: SocketAddr::from(([127, 0, 0, 1], 1)),
            global_seq: 1,
            client_cookie: 1,
            request: IdentRequest::New { features: 0, lossy: false },
        }
    }

    pub(crate) fn gate(index: usize) -> Arc<Gate> {
        Arc::new(Gate::new(index, Inbox::new(64, Waker::noop())))
    }

    pub(crate) fn connection(endpoint: &Arc<Endpoint>, home: &Arc<Gate>) -> Connection {
        Connection::new(endpoint, Arc::clone(home), PeerFacts::default(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_address_is_learned_once() {
        let endpoint = bench::endpoint(Dispatchers::default());
        endpoint.learn("10.0.0.7:4000".parse().unwrap());
        endpoint.learn("10.0.0.8:4000".parse().unwrap());
        let learned = "any:10.0.0.7:0/1".parse::<EntityAddr>().unwrap();
        assert_eq!(endpoint.identity().addrs, learned.into());
        assert!(endpoint.is_self(&learned.into()));
        assert!(!endpoint.is_self(&EntityAddr::unbound(1).into()));
    }

    #[test]
    fn places_for_accepted_connections_are_bounded() {
        let endpoint = bench::endpoint(Dispatchers::default());
        assert_eq!([(); 2].map(|()| endpoint.begin_accepting()), [Ok(()); 2]);
        assert_eq!(endpoint.begin_accepting(), Err(Refused::Connections));
        endpoint.end_accepting();
        assert_eq!(endpoint.begin_accepting(), Ok(()));
    }
}
