//! What the messenger tests share: where they run, and a dispatcher that remembers.

#![allow(dead_code, unreachable_pub, reason = "shared by test crates, each of which uses a part")]

use messenger::{
    Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddrVec, EntityName,
    EntityType, Message, Messenger, Policy, SendError, Workers, WorkersOptions, msg_type,
};
use netstack::posix::{PosixConfig, PosixStack};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// No test waits longer for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A place with two hosts, maybe the same one, that reach each other.
pub trait Net {
    fn server_workers(&self) -> Arc<Workers>;
    fn client_workers(&self) -> Arc<Workers>;
    fn server_ip(&self) -> IpAddr;
}

/// Both on this machine's loopback interface.
pub struct Posix {
    workers: Arc<Workers>,
    ip: IpAddr,
}

impl Posix {
    pub fn new(ip: &str, workers: usize) -> Self {
        let config =
            PosixConfig { workers: NonZeroUsize::new(workers).unwrap(), ..PosixConfig::default() };
        let workers = Workers::start(PosixStack::new(config), &WorkersOptions::default()).unwrap();
        Self { workers, ip: ip.parse().unwrap() }
    }
}

impl Net for Posix {
    fn server_workers(&self) -> Arc<Workers> {
        Arc::clone(&self.workers)
    }
    fn client_workers(&self) -> Arc<Workers> {
        Arc::clone(&self.workers)
    }
    fn server_ip(&self) -> IpAddr {
        self.ip
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
    /// The tid of a message dispatched on the worker.
    Fast(u64),
    /// The tid of a queued message.
    Queued(u64),
}

/// A hook of a test, called with each message.
pub type OnMessage = Box<dyn Fn(&Connection, &Message) + Send + Sync>;

/// A hook of a test, called when a connection stands.
pub type OnConnect = Box<dyn Fn(&Connection) + Send + Sync>;

/// Remembers every callback in order, with the connection it was for.
#[derive(Default)]
pub struct Recorder {
    saw: Mutex<Vec<(u64, Saw)>>,
    messages: Mutex<Vec<Message>>,
    accepted: Mutex<Vec<Connection>>,
    bell: Condvar,
    fast: bool,
    keep: bool,
    on_message: Option<OnMessage>,
    on_connect: Option<OnConnect>,
}

impl Recorder {
    pub fn queued() -> Self {
        Self::default()
    }

    pub fn fast() -> Self {
        Self { fast: true, ..Self::default() }
    }

    /// Answers each ping with one of the same tid and data.
    pub fn echoing(self) -> Self {
        self.on_message(|connection, message| {
            let reply = Message::new(msg_type::PING)
                .with_tid(message.header.tid)
                .with_data(message.data.clone());
            // The peer may have gone meanwhile.
            let _ = connection.send_message(reply);
        })
    }

    pub fn on_message(self, hook: impl Fn(&Connection, &Message) + Send + Sync + 'static) -> Self {
        Self { on_message: Some(Box::new(hook)), ..self }
    }

    pub fn on_connect(self, hook: impl Fn(&Connection) + Send + Sync + 'static) -> Self {
        Self { on_connect: Some(Box::new(hook)), ..self }
    }

    pub fn keeping_messages(self) -> Self {
        Self { keep: true, ..self }
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
        let saw = self.saw.lock().unwrap();
        let of = saw.iter().filter(|(id, saw)| *id == connection.id() && is_fast(saw) == fast);
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
        if self.keep {
            self.messages.lock().unwrap().push(message);
        }
        self.record(connection, what);
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

/// An OSD that accepts stateless clients.
pub fn server(net: &impl Net, recorder: Recorder) -> Host {
    server_with(net, recorder, config(), Policy::stateless_server())
}

pub fn server_with(net: &impl Net, recorder: Recorder, config: Config, policy: Policy) -> Host {
    let name = EntityName::new(EntityType::Osd, 0);
    let messenger = Messenger::with_workers(name, config, net.server_workers()).unwrap();
    messenger.set_default_policy(policy).unwrap();
    let recorder = Arc::new(recorder);
    messenger.add_dispatcher_tail(recorder.clone(), DispatcherPriority::DEFAULT).unwrap();
    let addrs = messenger.bind(SocketAddr::new(net.server_ip(), 0)).unwrap();
    messenger.start().unwrap();
    Host { messenger: Arc::new(messenger), recorder, addrs }
}

/// A lossy client.
pub fn client(net: &impl Net, recorder: Recorder) -> Host {
    client_with(net, recorder, config(), Policy::lossy_client())
}

pub fn client_with(net: &impl Net, recorder: Recorder, config: Config, policy: Policy) -> Host {
    let name = EntityName::new(EntityType::Client, 4100);
    let messenger = Messenger::with_workers(name, config, net.client_workers()).unwrap();
    messenger.set_default_policy(policy).unwrap();
    let recorder = Arc::new(recorder);
    messenger.add_dispatcher_tail(recorder.clone(), DispatcherPriority::DEFAULT).unwrap();
    messenger.start().unwrap();
    let addrs = messenger.addrs();
    Host { messenger: Arc::new(messenger), recorder, addrs }
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
