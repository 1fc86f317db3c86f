//! What the messenger tests share: where they run, and a dispatcher that remembers.

#![allow(dead_code, unreachable_pub, reason = "shared by test crates, each of which uses a part")]

use messenger::auth::Auth;
use messenger::{
    AddrType, Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddr,
    EntityAddrVec, EntityName, EntityType, Message, Messenger, MsType, Policy, SendError, Workers,
    WorkersOptions, msg_type,
};
use netstack::posix::{PosixConfig, PosixStack};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

pub mod by_hand;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod memory;
pub mod sim;
pub mod steps;

/// No test waits longer for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Which of the two hosts of a [`Net`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Server,
    Client,
}

/// A place with two hosts, maybe the same one, that reach each other. Everything a test knows of
/// the transport: another one is another implementation of this.
pub trait Net {
    /// A messenger on one of the hosts, not set up yet.
    fn messenger(&self, end: End, name: EntityName, config: Config) -> Messenger;
    /// An address of that host. The servers' is below the clients' unless they are the same.
    fn ip(&self, end: End) -> IpAddr;
    /// Which protocol servers speak.
    fn protocol(&self) -> AddrType {
        AddrType::Msgr2
    }
}

/// The same hosts, whose servers speak msgr1.
pub struct OverV1<N>(pub N);

impl<N: Net> Net for OverV1<N> {
    fn messenger(&self, end: End, name: EntityName, config: Config) -> Messenger {
        self.0.messenger(end, name, config)
    }
    fn ip(&self, end: End) -> IpAddr {
        self.0.ip(end)
    }
    fn protocol(&self) -> AddrType {
        AddrType::Legacy
    }
}

/// Both on this machine's loopback interface, on workers.
pub struct Posix {
    workers: Arc<Workers>,
    ips: [IpAddr; 2],
}

impl Posix {
    /// One address for both hosts.
    pub fn new(ip: &str, workers: usize) -> Self {
        Self::between([ip, ip], workers)
    }

    /// Two addresses, the servers' first: Linux answers on all of 127.0.0.0/8.
    pub fn between(ips: [&str; 2], workers: usize) -> Self {
        let config =
            PosixConfig { workers: NonZeroUsize::new(workers).unwrap(), ..PosixConfig::default() };
        let workers = Workers::start(PosixStack::new(config), &WorkersOptions::default()).unwrap();
        Self { workers, ips: ips.map(|ip| ip.parse().unwrap()) }
    }
}

impl Net for Posix {
    fn messenger(&self, _: End, name: EntityName, config: Config) -> Messenger {
        Messenger::with_workers(name, config, Arc::clone(&self.workers)).unwrap()
    }
    fn ip(&self, end: End) -> IpAddr {
        self.ips[end as usize]
    }
}

/// The same without workers: two threads for each connection.
pub struct Simple {
    ips: [IpAddr; 2],
}

impl Simple {
    /// One address for both hosts.
    pub fn new(ip: &str) -> Self {
        Self::between([ip, ip])
    }

    /// Two addresses, the servers' first.
    pub fn between(ips: [&str; 2]) -> Self {
        Self { ips: ips.map(|ip| ip.parse().unwrap()) }
    }
}

impl Net for Simple {
    fn messenger(&self, _: End, name: EntityName, config: Config) -> Messenger {
        Messenger::create(name, Config { ms_type: MsType::Simple, ..config }).unwrap()
    }
    fn ip(&self, end: End) -> IpAddr {
        self.ips[end as usize]
    }
}

/// What a [`Recorder`] saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saw {
    FastConnect,
    FastAccept,
    Connect,
    Accept,
    Reset,
    RemoteReset,
    Refused,
    /// A peer asked to be let in.
    Authentication,
    /// The tid of a message dispatched on the worker.
    Fast(u64),
    /// The tid of a queued message.
    Queued(u64),
}

/// A hook of a test, called with each message.
pub type OnMessage = Box<dyn Fn(&Connection, &Message) + Send + Sync>;

/// A hook of a test, called when a connection stands.
pub type OnConnect = Box<dyn Fn(&Connection) + Send + Sync>;

/// A hook of a test, called when a peer asks to be let in: whether it is.
pub type OnAuthentication = Box<dyn Fn(&Connection) -> bool + Send + Sync>;

/// How many messages a connection's present session brought: the application's object of a
/// connection, thrown away when the peer lost the session.
type Tally = AtomicU32;

/// Remembers every callback in order, with the connection it was for.
#[derive(Default)]
pub struct Recorder {
    saw: Mutex<Vec<(u64, Saw)>>,
    messages: Mutex<Vec<Message>>,
    accepted: Mutex<Vec<Connection>>,
    bell: Condvar,
    fast: bool,
    keep: bool,
    tally: bool,
    echo: bool,
    on_message: Option<OnMessage>,
    on_connect: Option<OnConnect>,
    on_authentication: Option<OnAuthentication>,
}

impl Recorder {
    pub fn queued() -> Self {
        Self::default()
    }

    pub fn fast() -> Self {
        Self { fast: true, ..Self::default() }
    }

    /// Answers each ping with one of the same tid and data, as soon as it is noted.
    pub fn echoing(self) -> Self {
        Self { echo: true, ..self }
    }

    pub fn on_message(self, hook: impl Fn(&Connection, &Message) + Send + Sync + 'static) -> Self {
        Self { on_message: Some(Box::new(hook)), ..self }
    }

    pub fn on_connect(self, hook: impl Fn(&Connection) + Send + Sync + 'static) -> Self {
        Self { on_connect: Some(Box::new(hook)), ..self }
    }

    pub fn on_authentication(
        self,
        hook: impl Fn(&Connection) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { on_authentication: Some(Box::new(hook)), ..self }
    }

    pub fn keeping_messages(self) -> Self {
        Self { keep: true, ..self }
    }

    /// Counts the messages of each session in its connection, see [`tally`].
    pub fn tallying(self) -> Self {
        Self { tally: true, ..self }
    }

    pub fn saw(&self) -> Vec<Saw> {
        let saw = self.saw.lock().unwrap();
        saw.iter().map(|(_, what)| what.clone()).collect()
    }

    /// What the dispatch thread told about a connection, in order.
    pub fn queued_on(&self, connection: &Connection) -> Vec<Saw> {
        self.on(connection, false)
    }

    /// What the worker told about a connection, in order. Between the two threads there is none.
    pub fn fast_on(&self, connection: &Connection) -> Vec<Saw> {
        self.on(connection, true)
    }

    fn on(&self, connection: &Connection, fast: bool) -> Vec<Saw> {
        let is_fast = |saw: &Saw| matches!(saw, Saw::FastConnect | Saw::FastAccept | Saw::Fast(_));
        let is_told = |saw: &Saw| *saw != Saw::Authentication;
        let saw = self.saw.lock().unwrap();
        let of = saw.iter().filter(|(id, saw)| *id == connection.id() && is_told(saw));
        let of = of.filter(|(_, saw)| is_fast(saw) == fast);
        of.map(|(_, what)| what.clone()).collect()
    }

    pub fn count(&self, what: &Saw) -> usize {
        self.saw.lock().unwrap().iter().filter(|(_, saw)| saw == what).count()
    }

    pub fn take_messages(&self) -> Vec<Message> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }

    /// Accepted connections in the order they became usable.
    pub fn accepted(&self) -> Vec<Connection> {
        self.accepted.lock().unwrap().clone()
    }

    /// Blocks until `enough` of what was seen, or fails.
    pub fn wait_until(&self, what: &str, enough: impl Fn(&[(u64, Saw)]) -> bool) {
        let until = Instant::now() + PATIENCE;
        let mut saw = self.saw.lock().unwrap();
        while !enough(&saw) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "gave up waiting for {what}; saw {} things, last {:?}",
                saw.len(),
                &saw[saw.len().saturating_sub(10)..]
            );
            saw = self.bell.wait_timeout(saw, left).unwrap().0;
        }
    }

    pub fn wait_for(&self, what: &Saw) {
        self.wait_until(&format!("{what:?}"), |saw| saw.iter().any(|(_, seen)| seen == what));
    }

    /// Blocks until this was seen of this connection so many times.
    pub fn wait_for_on(&self, connection: &Connection, what: &Saw, times: usize) {
        self.wait_until(&format!("{what:?} number {times} on {connection}"), |saw| {
            let seen = saw.iter().filter(|(id, seen)| *id == connection.id() && seen == what);
            seen.count() >= times
        });
    }

    /// The last connection that was accepted, once there is one that is not among `known`.
    pub fn wait_for_accept(&self, known: &[&Connection]) -> Connection {
        let newest = || self.accepted().into_iter().rev().find(|c| !known.contains(&c));
        eventually("a connection is accepted", || newest().is_some());
        newest().unwrap()
    }

    pub fn wait_for_messages(&self, count: usize) {
        self.wait_until(&format!("{count} messages"), |saw| {
            let messages =
                saw.iter().filter(|(_, saw)| matches!(saw, Saw::Fast(_) | Saw::Queued(_)));
            messages.count() >= count
        });
    }

    fn record(&self, connection: &Connection, what: Saw) {
        self.lock_saw().push((connection.id(), what));
        self.bell.notify_all();
    }

    fn lock_saw(&self) -> MutexGuard<'_, Vec<(u64, Saw)>> {
        self.saw.lock().unwrap()
    }

    fn message(&self, connection: &Connection, message: Message, what: Saw) {
        if let Some(hook) = &self.on_message {
            hook(connection, &message);
        }
        let reply = self.echo.then(|| {
            let reply = Message::new(msg_type::PING).with_tid(message.header.tid);
            reply.with_data(message.data.clone())
        });
        if self.keep {
            self.messages.lock().unwrap().push(message);
        }
        if self.tally {
            let session = connection.priv_data().and_then(|data| data.downcast::<Tally>().ok());
            let session = session.unwrap_or_else(|| {
                let fresh = Arc::new(Tally::new(0));
                connection.set_priv_data(Some(fresh.clone()));
                fresh
            });
            session.fetch_add(1, Ordering::Relaxed);
        }
        self.record(connection, what);
        if let Some(reply) = reply {
            // The peer may have gone meanwhile.
            let _ = connection.send_message(reply);
        }
    }
}

impl Dispatcher for Recorder {
    fn can_fast_dispatch_any(&self) -> bool {
        self.fast
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        self.fast
    }
    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let tid = message.header.tid;
        self.message(connection, message, Saw::Fast(tid));
    }
    fn dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        let tid = message.header.tid;
        self.message(connection, message, Saw::Queued(tid));
        Ok(())
    }
    fn handle_fast_authentication(&self, connection: &Connection) -> bool {
        let admitted = self.on_authentication.as_ref().is_none_or(|hook| hook(connection));
        self.record(connection, Saw::Authentication);
        admitted
    }
    fn handle_fast_connect(&self, connection: &Connection) {
        if let Some(hook) = &self.on_connect {
            hook(connection);
        }
        self.record(connection, Saw::FastConnect);
    }
    fn handle_fast_accept(&self, connection: &Connection) {
        let mut accepted = self.accepted.lock().unwrap();
        if !accepted.contains(connection) {
            accepted.push(connection.clone());
        }
        drop(accepted);
        self.record(connection, Saw::FastAccept);
    }
    fn handle_connect(&self, connection: &Connection) {
        self.record(connection, Saw::Connect);
    }
    fn handle_accept(&self, connection: &Connection) {
        self.record(connection, Saw::Accept);
    }
    fn handle_reset(&self, connection: &Connection) -> bool {
        self.record(connection, Saw::Reset);
        true
    }
    fn handle_remote_reset(&self, connection: &Connection) {
        if self.tally {
            connection.set_priv_data(None);
        }
        self.record(connection, Saw::RemoteReset);
    }
    fn handle_refused(&self, connection: &Connection) -> bool {
        self.record(connection, Saw::Refused);
        true
    }
}

/// A messenger with its recorder.
pub struct Host {
    pub messenger: Arc<Messenger>,
    pub recorder: Arc<Recorder>,
    pub addrs: EntityAddrVec,
}

impl Host {
    pub fn connect(&self, to: &Self) -> Connection {
        let kind = to.messenger.name().kind;
        let options = ConnectOptions::default();
        self.messenger.connect_to(kind, &to.addrs, options).unwrap()
    }

    pub fn end(&self) {
        self.messenger.shutdown();
        self.messenger.wait().unwrap();
    }
}

pub fn config() -> Config {
    Config {
        ms_initial_backoff: Duration::from_millis(20),
        ms_max_backoff: Duration::from_millis(200),
        ..Config::default()
    }
}

/// Where a [`Host`] can be dialled, on ports nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listens {
    Nowhere,
    /// At an address of its net's protocol.
    One,
    /// At an address of each protocol, msgr2's first.
    Both,
}

impl Listens {
    pub fn bind(self, net: &(impl Net + ?Sized), end: End, messenger: &Messenger) {
        match self {
            Self::Nowhere => {}
            Self::One => bind(net, end, messenger, &[net.protocol()]),
            Self::Both => bind(net, end, messenger, &AddrType::SPOKEN),
        }
    }
}

fn bind(net: &(impl Net + ?Sized), end: End, messenger: &Messenger, kinds: &[AddrType]) {
    let socket = Some(SocketAddr::new(net.ip(end), 0));
    let addrs = kinds.iter().map(|kind| EntityAddr { kind: *kind, nonce: 0, socket }).collect();
    messenger.bindv(&EntityAddrVec(addrs), None).unwrap();
}

/// What a [`Host`] is made of.
pub struct Plan<'a> {
    pub end: End,
    pub name: EntityName,
    pub config: Config,
    pub policy: Policy,
    pub recorder: Recorder,
    /// Where its connections can be stopped.
    pub steps: Option<&'a steps::Steps>,
    /// How it can be dialled.
    pub listens: Listens,
    /// Decides races; random if absent.
    pub nonce: Option<u32>,
    /// How it authenticates; as its configuration says if absent.
    pub auth: Option<Arc<Auth>>,
}

impl Plan<'_> {
    /// An OSD with one address.
    pub fn server(recorder: Recorder, policy: Policy) -> Self {
        let (end, name) = (End::Server, EntityName::new(EntityType::Osd, 0));
        let (config, steps, listens, nonce, auth) = (config(), None, Listens::One, None, None);
        Self { end, name, config, policy, recorder, steps, listens, nonce, auth }
    }

    /// A client that only dials.
    pub fn client(recorder: Recorder, policy: Policy) -> Self {
        let (end, name) = (End::Client, EntityName::new(EntityType::Client, 4100));
        Self { end, name, listens: Listens::Nowhere, ..Self::server(recorder, policy) }
    }

    /// Sets it up and starts it.
    pub fn start(self, net: &impl Net) -> Host {
        let messenger = net.messenger(self.end, self.name, self.config);
        messenger.set_default_policy(self.policy).unwrap();
        if let Some(nonce) = self.nonce {
            messenger.set_nonce(nonce).unwrap();
        }
        if let Some(auth) = self.auth {
            messenger.set_auth(auth).unwrap();
        }
        if let Some(steps) = self.steps {
            steps.watch(&messenger);
        }
        let recorder = Arc::new(self.recorder);
        messenger.add_dispatcher_tail(recorder.clone(), DispatcherPriority::DEFAULT).unwrap();
        self.listens.bind(net, self.end, &messenger);
        messenger.start().unwrap();
        let addrs = messenger.addrs();
        Host { messenger: Arc::new(messenger), recorder, addrs }
    }
}

/// An OSD that accepts stateless clients.
pub fn server(net: &impl Net, recorder: Recorder) -> Host {
    server_with(net, recorder, config(), Policy::stateless_server())
}

pub fn server_with(net: &impl Net, recorder: Recorder, config: Config, policy: Policy) -> Host {
    Plan { config, ..Plan::server(recorder, policy) }.start(net)
}

/// A lossy client.
pub fn client(net: &impl Net, recorder: Recorder) -> Host {
    client_with(net, recorder, config(), Policy::lossy_client())
}

pub fn client_with(net: &impl Net, recorder: Recorder, config: Config, policy: Policy) -> Host {
    Plan { config, ..Plan::client(recorder, policy) }.start(net)
}

/// How many messages the connection's present session brought to a [`Recorder::tallying`].
pub fn tally(connection: &Connection) -> u32 {
    let session = connection.priv_data().and_then(|data| data.downcast::<Tally>().ok());
    session.map_or(0, |session| session.load(Ordering::Relaxed))
}

pub fn ping(tid: u64) -> Message {
    Message::new(msg_type::PING).with_tid(tid)
}

/// Sends, and again while a queue is full.
pub fn send(connection: &Connection, message: Message) {
    let until = Instant::now() + PATIENCE;
    let mut message = message;
    loop {
        match connection.send_message(message) {
            Ok(()) => return,
            Err(error @ SendError::Full(_)) => message = error.into_message(),
            Err(error) => panic!("cannot send: {error}"),
        }
        assert!(Instant::now() < until, "the queue stays full");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Blocks until `holds`, or fails.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "gave up waiting for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
