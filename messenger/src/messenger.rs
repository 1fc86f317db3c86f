//! The endpoint an application has: its address, policies, dispatchers and connections.
//!
//! ```text
//!   create -> policies, bind, dispatchers -> start -> connect_to, send_to ... -> shutdown -> wait
//!                    ^                                                                       |
//!                    +------------------------- may start again ----------------------------+
//! ```

use crate::config::Config;
use crate::connection::Connection;
use crate::credentials;
use crate::dispatcher::{Dispatcher, DispatcherPriority, Dispatchers};
use crate::endpoint::{DieOn, Endpoint, EndpointOptions, Intercept};
use crate::error::Error;
use crate::injection::Injection;
use crate::metrics::{CounterSet, MessengerCounters};
use crate::priority_queue::Weights;
use crate::shell::{Shell, Wanted};
use crate::tenant::Tenant;
use crate::transport;
use crate::workers::Workers;
use binding::Bound;
use messenger_proto::auth::Auth;
use messenger_proto::message::PRIORITY_DEFAULT;
use messenger_proto::{
    Action, AddrType, EntityAddr, EntityAddrVec, EntityName, EntityType, GlobalSeq, Identity,
    Message, Policy, PolicySet, Step, Throttle, UnixAnchor,
};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

mod binding;

/// How a connection is wanted, see [`Messenger::connect_to`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Always a fresh connection that nobody else finds.
    pub anonymous: bool,
    /// Over the wire even if the address is our own.
    pub not_local: bool,
}

/// A messenger: see the [crate](crate) for a first example.
///
/// All methods may be called from any thread; those that wait say so. Wrap it in an [`Arc`] to
/// share it. Dropping it shuts it down and waits.
pub struct Messenger {
    name: EntityName,
    config: Config,
    shell: Shell,
    life: Mutex<Life>,
    changed: Condvar,
}

/// What the phases of a messenger's life change.
struct Life {
    phase: Phase,
    auth: Arc<Auth>,
    nonce: u32,
    policies: PolicySet,
    send_priority: u16,
    intercept: Option<Intercept>,
    /// Where dials come from; chosen by the transport if absent.
    connect_from: Option<SocketAddr>,
    socket_priority: Option<u32>,
    dispatchers: Dispatchers,
    bound: Vec<Bound>,
    /// Our dispatch threads, which must not wait for themselves.
    threads: Vec<ThreadId>,
}

enum Phase {
    Setup,
    Running(Running),
    /// Shut down; whoever waits first takes what is to be ended.
    Ending(Option<Box<Ending>>),
}

struct Running {
    endpoint: Arc<Endpoint>,
    threads: Vec<JoinHandle<()>>,
}

struct Ending {
    running: Running,
    unlistened: Vec<Receiver<()>>,
}

impl Messenger {
    /// A messenger over the transport that `config` names. The process's workers for it are
    /// started if no other messenger uses them yet (M-1, M-2).
    ///
    /// # Errors
    /// If the configuration contradicts itself or the transport cannot be started.
    pub fn create(name: EntityName, config: Config) -> Result<Self, Error> {
        config.check()?;
        let shell = transport::shell(&config)?;
        Self::over(name, config, shell)
    }

    /// As [`Messenger::create`], for clients of a cluster: over `ms_public_type`, where the
    /// configuration names one (M-3).
    ///
    /// # Errors
    /// As [`Messenger::create`].
    pub fn create_client(name: EntityName, config: Config) -> Result<Self, Error> {
        let ms_type = config.ms_public_type.unwrap_or(config.ms_type);
        Self::create(name, Config { ms_type, ..config })
    }

    /// A messenger over workers the caller started: a stack of its own, or a simulated one. What
    /// `config` says about transports is then of no account.
    ///
    /// # Errors
    /// If the configuration contradicts itself.
    pub fn with_workers(
        name: EntityName,
        config: Config,
        workers: Arc<Workers>,
    ) -> Result<Self, Error> {
        config.check()?;
        Self::over(name, config, Shell::Workers(Tenant::new(workers)))
    }

    fn over(name: EntityName, config: Config, shell: Shell) -> Result<Self, Error> {
        let life = Life {
            phase: Phase::Setup,
            auth: credentials::of(name, &config)?,
            nonce: random_nonce(&shell)?,
            policies: PolicySet::default(),
            send_priority: PRIORITY_DEFAULT,
            intercept: None,
            connect_from: None,
            socket_priority: None,
            dispatchers: Dispatchers::default(),
            bound: Vec::new(),
            threads: Vec::new(),
        };
        Ok(Self { name, config, shell, life: Mutex::new(life), changed: Condvar::new() })
    }

    /// Its entity name.
    pub fn name(&self) -> EntityName {
        self.name
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets the nonce, which is random otherwise (M-4). Peers must name it when they dial; monitors
    /// use 0, so that their address alone is enough. Takes effect at the next `bind`.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_nonce(&self, nonce: u32) -> Result<(), Error> {
        self.in_setup(|life| life.nonce = nonce)
    }

    /// Sets how it authenticates, in place of what its configuration says: for keys that are in no
    /// file, and for monitors, which let others log in.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_auth(&self, auth: Arc<Auth>) -> Result<(), Error> {
        self.in_setup(|life| life.auth = auth)
    }

    /// How it authenticates; holds the tickets of the latest login.
    pub fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.lock().auth)
    }

    /// Sets the policy towards one type of peer (M-23). For connections made from now.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_policy(&self, kind: EntityType, policy: Policy) -> Result<(), Error> {
        self.in_setup(|life| life.policies.set(kind, policy))
    }

    /// Sets the policy towards all types that have none of their own.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_default_policy(&self, policy: Policy) -> Result<(), Error> {
        self.in_setup(|life| life.policies.set_default(policy))
    }

    /// The policy towards one type of peer.
    pub fn policy(&self, kind: EntityType) -> Policy {
        self.lock().policies.get(kind).clone()
    }

    /// Sets the priority of messages that name none (M-25), 127 otherwise.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_default_send_priority(&self, priority: u16) -> Result<(), Error> {
        self.in_setup(|life| life.send_priority = priority)
    }

    /// Sets `SO_PRIORITY` of the sockets of connections made and addresses bound from now (M-30).
    /// Kernel TCP only: our own stack has no such thing.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_socket_priority(&self, priority: u32) -> Result<(), Error> {
        self.in_setup(|life| life.socket_priority = Some(priority))
    }

    /// Has `intercept` decide at each numbered step of each connection's life (semantics 1.12): go
    /// on, break the transport, end the connection, or hold it until [`Connection::resume`]. For
    /// tests. It is called on the connection's thread and must not block.
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_interceptor(
        &self,
        intercept: impl Fn(&Connection, Step) -> Action + Send + Sync + 'static,
    ) -> Result<(), Error> {
        self.in_setup(|life| life.intercept = Some(Intercept(Arc::new(intercept))))
    }

    /// Lets messages from and to peers of one type vanish, or no more (C-14). For tests; also set
    /// by `ms_blackhole_*`.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn set_blackhole(&self, kind: EntityType, open: bool) -> Result<(), Error> {
        self.endpoint()?.options.injection.set_blackhole(kind, open);
        Ok(())
    }

    /// Sets both budgets for messages from one type of peer (M-24).
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn set_policy_throttlers(
        &self,
        kind: EntityType,
        bytes: Option<Arc<Throttle>>,
        messages: Option<Arc<Throttle>>,
    ) -> Result<(), Error> {
        self.in_setup(|life| life.policies.set_throttles(kind, bytes, messages))
    }

    /// Adds a dispatcher that is asked before those of the same priority (M-5).
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn add_dispatcher_head(
        &self,
        dispatcher: Arc<dyn Dispatcher>,
        priority: DispatcherPriority,
    ) -> Result<(), Error> {
        self.in_setup(|life| life.dispatchers.add_head(dispatcher, priority))
    }

    /// Adds a dispatcher that is asked after those of the same priority (M-5).
    ///
    /// # Errors
    /// [`Error::Started`] after `start`.
    pub fn add_dispatcher_tail(
        &self,
        dispatcher: Arc<dyn Dispatcher>,
        priority: DispatcherPriority,
    ) -> Result<(), Error> {
        self.in_setup(|life| life.dispatchers.add_tail(dispatcher, priority))
    }

    /// Becomes ready: accepts on bound addresses, dispatches, connects (M-6, M-13).
    ///
    /// # Errors
    /// [`Error::Started`], [`Error::Thread`].
    pub fn start(&self) -> Result<(), Error> {
        let mut life = self.lock();
        if !matches!(life.phase, Phase::Setup) {
            return Err(Error::Started);
        }
        let endpoint = Endpoint::new(
            self.identity(&life),
            life.dispatchers.clone(),
            EndpointOptions {
                learn_addr: self.config.ms_learn_addr_from_peer,
                accepting_connections: self.config.accepting_connections,
                accepting_bytes: self.config.accepting_bytes,
                send_priority: life.send_priority,
                connect_from: life.connect_from,
                socket_priority: life.socket_priority,
                die_on: self.die_on(),
                injection: Arc::new(Injection::new(&self.config, life.nonce.into())),
                intercept: life.intercept.clone(),
                weights: Weights {
                    min_cost: self.config.ms_pq_min_cost,
                    max_tokens: self.config.ms_pq_max_tokens_per_priority,
                },
            },
            self.shell.clock().clone(),
        );
        let threads = match self.shell.attend(&endpoint) {
            true => start_dispatching(&endpoint).map_err(Error::Thread)?,
            false => Vec::new(),
        };
        self.shell.serve(&endpoint).inspect_err(|_| {
            endpoint.registry.close();
            endpoint.stop();
        })?;
        life.threads = threads.iter().map(|thread| thread.thread().id()).collect();
        let running = Running { endpoint: Arc::clone(&endpoint), threads };
        life.phase = Phase::Running(running);
        drop(life); // the callback may call us
        endpoint.tell_loopback();
        Ok(())
    }

    /// The connection to a peer: the one there is, or a new one, whose handle comes at once and
    /// says nothing about success (M-17). Of several addresses an msgr2 one is dialled if there is
    /// one, else an msgr1 one. Our own address gives the loopback connection.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::NoAddress`], [`Error::ServerPolicy`], [`Error::Busy`],
    /// [`Error::WorkersGone`]; with `ms_type = "simple"` [`Error::TooManyConnections`] and
    /// [`Error::Thread`].
    pub fn connect_to(
        &self,
        kind: EntityType,
        addrs: &EntityAddrVec,
        options: ConnectOptions,
    ) -> Result<Connection, Error> {
        let endpoint = self.endpoint()?;
        if !options.not_local && endpoint.is_self(addrs) {
            return Ok(endpoint.loopback().clone());
        }
        if endpoint.identity().policies.get(kind).server {
            // What it never makes it may have: the session of a peer that dialled.
            let accepted = endpoint.registry.find(addrs).filter(|_| !options.anonymous);
            return accepted.ok_or(Error::ServerPolicy(kind));
        }
        let target = AddrType::SPOKEN
            .into_iter()
            .find_map(|kind| addrs.iter().find(|addr| can_dial(addr, kind)))
            .ok_or_else(|| Error::NoAddress(addrs.clone()))?;
        let wanted = Wanted { kind, addrs, target: *target, anonymous: options.anonymous };
        self.shell.connect(&endpoint, wanted)
    }

    /// Connects if needed and sends (M-18).
    ///
    /// # Errors
    /// As [`Messenger::connect_to`] and, as [`Error::Send`], [`Connection::send_message`]. Only
    /// the latter gives the message back.
    pub fn send_to(
        &self,
        message: Message,
        kind: EntityType,
        addrs: &EntityAddrVec,
    ) -> Result<(), Error> {
        let connection = self.connect_to(kind, addrs, ConnectOptions::default())?;
        Ok(connection.send_message(message)?)
    }

    /// The connection to ourselves (semantics 1.13).
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn loopback_connection(&self) -> Result<Connection, Error> {
        Ok(self.endpoint()?.loopback().clone())
    }

    /// Ends the connection registered under these addresses, with a reset for the dispatchers
    /// (M-20). Whether there was one.
    pub fn mark_down(&self, addrs: &EntityAddrVec) -> bool {
        let endpoint = self.endpoint().ok();
        let connection = endpoint.and_then(|endpoint| endpoint.registry.find(addrs));
        connection.inspect(Connection::close).is_some()
    }

    /// Ends every connection, with resets for the dispatchers (M-21).
    pub fn mark_down_all(&self) {
        if let Ok(endpoint) = self.endpoint() {
            endpoint.registry.all().iter().for_each(Connection::close);
        }
    }

    /// Stops accepting and connecting and ends every connection, with resets (M-14). Does not
    /// wait, so callbacks may call it; [`Messenger::wait`] does.
    pub fn shutdown(&self) {
        let mut life = self.lock();
        let phase = std::mem::replace(&mut life.phase, Phase::Setup);
        life.phase = match phase {
            Phase::Running(running) => {
                let unlistened = self.shell.unlisten(None);
                running.endpoint.registry.close();
                running.endpoint.registry.all().iter().for_each(Connection::close);
                Phase::Ending(Some(Box::new(Ending { running, unlistened })))
            }
            other => other,
        };
        self.changed.notify_all();
    }

    /// Waits until [`Messenger::shutdown`] was called and everything has ended: listeners,
    /// connections, callbacks, threads (M-15). Then the messenger may be bound and started again,
    /// under a new nonce (M-16). Returns at once if it was never started.
    ///
    /// # Errors
    /// [`Error::OwnThread`] in a callback; [`Error::Random`] if there is no new nonce.
    pub fn wait(&self) -> Result<(), Error> {
        let mut life = self.lock();
        loop {
            if self.is_own_thread(&life) {
                return Err(Error::OwnThread("wait"));
            }
            let ending = match &mut life.phase {
                Phase::Setup => return Ok(()),
                // Nobody else could shut it down.
                Phase::Running(_) if self.shell.is_driven() => {
                    return Err(Error::OwnThread("wait"));
                }
                Phase::Running(_) => None,
                Phase::Ending(ending) => ending.take(),
            };
            if let Some(ending) = ending {
                drop(life);
                return self.end(*ending);
            }
            let woken = self.changed.wait(life);
            life = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Our addresses: those bound, or one without a port (type `any`). Blank IPs until a peer has
    /// told what it sees (M-27).
    pub fn addrs(&self) -> EntityAddrVec {
        let life = self.lock();
        match &life.phase {
            Phase::Running(running) => running.endpoint.identity().addrs.clone(),
            _ => life.addrs(),
        }
    }

    /// Tells this incarnation of the messenger from others at the same address (M-4).
    pub fn nonce(&self) -> u32 {
        self.lock().nonce
    }

    /// Messages queued for the dispatch thread (M-26).
    pub fn dispatch_queue_len(&self) -> usize {
        self.endpoint().map_or(0, |endpoint| endpoint.queue.len())
    }

    /// How long the oldest of them waits at `now` (M-26).
    pub fn dispatch_queue_max_age(&self, now: Instant) -> Option<Duration> {
        self.endpoint().ok()?.queue.max_age(now)
    }

    /// A snapshot of the counters. Waits for the workers to answer; on a worker thread it comes
    /// without theirs.
    pub fn counters(&self) -> MessengerCounters {
        let endpoint = self.endpoint().ok();
        let identity = endpoint.as_deref().map(Endpoint::identity);
        let of = |count: fn(&Endpoint) -> u64| endpoint.as_deref().map_or(0, count);
        let dispatch_throttle = identity.as_ref().and_then(|i| i.dispatch_throttle.as_ref());
        MessengerCounters {
            workers: self.shell.counters(),
            throttles: match &identity {
                Some(identity) => identity.throttles().into_iter().map(CounterSet::of).collect(),
                None => self.lock().policies.throttles().into_iter().map(CounterSet::of).collect(),
            },
            dispatch_queue: endpoint.as_deref().map_or_else(Vec::new, |e| e.queue.counters()),
            connections: of(|e| e.registry.len() as u64) as usize,
            dispatch_queue_messages: of(|e| e.queue.len() as u64) as usize,
            callback_panics: of(|e| e.dispatchers.panics()),
            dispatch_throttle_bytes: dispatch_throttle.map_or(0, |throttle| throttle.current()),
        }
    }

    fn end(&self, ending: Ending) -> Result<(), Error> {
        let Ending { running: Running { endpoint, threads }, unlistened } = ending;
        for done in unlistened {
            // A worker that does not answer has ended, and its listeners with it.
            let _ = self.shell.answer(&done);
        }
        self.shell.wait_until_empty(&endpoint.registry);
        self.shell.join();
        endpoint.stop();
        if self.shell.is_driven() {
            endpoint.queue.run(&endpoint); // stopped: the news that are left
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a dispatch thread panicked");
            }
        }
        let nonce = random_nonce(&self.shell);
        let mut life = self.lock();
        life.phase = Phase::Setup;
        life.bound.clear();
        self.changed.notify_all();
        life.nonce = nonce?;
        Ok(())
    }

    fn die_on(&self) -> DieOn {
        DieOn {
            bad_msg: self.config.ms_die_on_bad_msg,
            unhandled_msg: self.config.ms_die_on_unhandled_msg,
            old_message: self.config.ms_die_on_old_message,
            skipped_message: self.config.ms_die_on_skipped_message,
        }
    }

    fn identity(&self, life: &Life) -> Identity {
        let clock = self.shell.clock();
        let budget = self.config.ms_dispatch_throttle_bytes;
        Identity {
            name: self.name,
            addrs: life.addrs(),
            listening: life.listening(),
            policies: life.policies.clone(),
            limits: self.config.limits(),
            options: self.config.session_options(),
            auth: Arc::clone(&life.auth),
            anchor: UnixAnchor { instant: clock.now(), unix: clock.unix() },
            global_seq: GlobalSeq::new(),
            dispatch_throttle: Some(Throttle::new("msgr_dispatch_throttler", budget)),
        }
    }

    fn in_setup<R>(&self, change: impl FnOnce(&mut Life) -> R) -> Result<R, Error> {
        let mut life = self.lock();
        match life.phase {
            Phase::Setup => Ok(change(&mut life)),
            _ => Err(Error::Started),
        }
    }

    fn endpoint(&self) -> Result<Arc<Endpoint>, Error> {
        match &self.lock().phase {
            Phase::Running(running) => Ok(Arc::clone(&running.endpoint)),
            _ => Err(Error::NotRunning),
        }
    }

    /// Whether the caller is a thread that `wait` waits for.
    fn is_own_thread(&self, life: &Life) -> bool {
        let current = std::thread::current().id();
        life.threads.contains(&current) || self.shell.runs_current_thread()
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn addrs(&self) -> EntityAddrVec {
        if self.bound.is_empty() {
            return EntityAddr::unbound(self.nonce).into();
        }
        let bound = self.bound.iter();
        let addr = |bound: &Bound| EntityAddr {
            kind: bound.kind,
            nonce: self.nonce,
            socket: Some(bound.public),
        };
        EntityAddrVec(bound.map(addr).collect())
    }

    /// Where we listen, and which protocol is spoken there.
    fn listening(&self) -> Vec<EntityAddr> {
        let addr =
            |bound: &Bound| EntityAddr { kind: bound.kind, nonce: 0, socket: Some(bound.local) };
        self.bound.iter().map(addr).collect()
    }
}

impl Drop for Messenger {
    fn drop(&mut self) {
        self.shutdown();
        // In a callback of its own it cannot wait; its threads then end by themselves.
        if let Err(Error::OwnThread(_)) = self.wait()
            && let Phase::Ending(Some(ending)) = &self.lock().phase
        {
            ending.running.endpoint.stop();
        } else {
            let _ = self.shell.unlisten(None);
        }
    }
}

impl fmt::Debug for Messenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Messenger({} {})", self.name, self.addrs())
    }
}

/// The dispatch thread and the local-delivery thread (Q-1).
fn start_dispatching(endpoint: &Arc<Endpoint>) -> io::Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, body: fn(&Endpoint)| {
        let endpoint = Arc::clone(endpoint);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || body(&endpoint))
    };
    let local = spawn("ms_local", |e| e.local.run(e))?;
    let dispatch = spawn("ms_dispatch", |e| e.queue.run(e));
    match dispatch {
        Ok(dispatch) => Ok(vec![local, dispatch]),
        Err(error) => {
            endpoint.stop();
            Err(error)
        }
    }
}

/// Whether one of this type can be dialled.
fn can_dial(addr: &EntityAddr, kind: AddrType) -> bool {
    let open = addr.socket.is_some_and(|socket| socket.port() != 0);
    addr.kind == kind && open && !addr.is_blank_ip()
}

/// Random, and not zero, which stands for "none".
fn random_nonce(shell: &Shell) -> Result<u32, Error> {
    let nonce = shell.draw().map_err(Error::Random)? as u32; // half of it is random enough
    Ok(nonce.max(1))
}
