//! One machine: its port of the network, and the process that runs on it, if one does.

use crate::application::Application;
use crate::cast::Cast;
use crate::history::History;
use crate::{HostId, Life};
use messenger::{
    AddrType, Clock, Config, Connection, DispatcherPriority, DriveOptions, Driven, EntityAddr,
    EntityAddrVec, EntityType, Messenger, Throttle,
};
use netstack::IpCidr;
use netstack::device::sim::SimNet;
use netstack::front::NeighborTimers;
use netstack::native::{IdlePolicy, NativeConfig, NativeStack};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where servers listen.
const PORT: u16 = 6800;
/// Most queued messages handed out after a turn.
const DISPATCHES_PER_TURN: usize = 16;
const PREFIX_LEN: u8 = 24;
const KINDS: [EntityType; 4] =
    [EntityType::Mon, EntityType::Mds, EntityType::Osd, EntityType::Client];

/// The settings all hosts of a world share.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Of the messengers; what it says about transports does not count.
    pub config: Config,
    /// Of the TCP workers, apart from addresses and seeds.
    pub native: NativeConfig,
    /// Budget for payload bytes of received messages in a process; 0: unlimited.
    pub throttle_bytes: u64,
    /// Budget for the number of them; 0: unlimited.
    pub throttle_messages: u64,
    /// What servers speak: msgr2, or msgr1.
    pub protocol: AddrType,
    /// Each process of a host has the same nonce, as monitors have; else a random one.
    pub keeps_nonce: bool,
    /// Longest time a turn of a worker takes; the others go on meanwhile.
    pub turn_time_max: Duration,
}

impl Default for Tuning {
    /// Everything small and quick, so that a run is short.
    fn default() -> Self {
        let ms = Duration::from_millis;
        let config = Config {
            ms_initial_backoff: ms(10),
            ms_max_backoff: ms(200),
            ms_connection_ready_timeout: ms(1000),
            ms_connection_idle_timeout: ms(2000),
            accepting_connections: 32,
            ..Config::default()
        };
        let native = NativeConfig {
            neighbor: NeighborTimers {
                lifetime: ms(5000),
                retry: ms(50),
                ..NeighborTimers::default()
            },
            rx_buffer_bytes: 8 << 10,
            tx_buffer_bytes: 8 << 10,
            max_connections: 64,
            max_time_wait: 64,
            user_timeout: Some(ms(1000)),
            connect_timeout: ms(1000),
            half_open_timeout: ms(1000),
            linger: ms(1000),
            time_wait: ms(200),
            clock_multiplier: 50,
            idle: IdlePolicy::Spin,
            ..NativeConfig::default()
        };
        Self {
            config,
            native,
            throttle_bytes: 0,
            throttle_messages: 0,
            protocol: AddrType::Msgr2,
            keeps_nonce: false,
            turn_time_max: Duration::ZERO,
        }
    }
}

/// A machine.
#[derive(Debug)]
pub struct Host {
    index: HostId,
    /// None while it is down.
    pub process: Option<Process>,
    /// Until when each worker's core does something else.
    pub(crate) frozen: Vec<Option<Instant>>,
    /// The dispatch threads do not get on.
    pub(crate) stalled: bool,
    /// The application keeps what it takes.
    pub(crate) hoards: bool,
}

/// A process and its NIC's queues.
#[derive(Debug)]
pub struct Process {
    /// Which one of its world.
    pub life: Life,
    /// Its workers.
    pub driven: Driven,
    /// Its messenger.
    pub messenger: Messenger,
    /// Its dispatcher.
    pub app: Arc<Application>,
    /// Policy budgets: bytes, messages.
    pub throttles: [Arc<Throttle>; 2],
    /// The dispatch queue was not emptied by the last turn.
    has_more: bool,
}

impl Host {
    pub(crate) fn new(index: HostId, queues: u16) -> Self {
        let frozen = vec![None; queues.into()];
        Self { index, process: None, frozen, stalled: false, hoards: false }
    }

    /// Starts a process with new devices and a new nonce.
    pub(crate) fn start(&mut self, life: Life, seed: u64, setting: &Setting) {
        let Setting { clock, net, cast, tuning, history } = setting;
        let native = NativeConfig {
            addrs: vec![IpCidr::new(IpAddr::from(ip(self.index)).into(), PREFIX_LEN)],
            seed: Some(seed),
            ..tuning.native.clone()
        };
        let options = DriveOptions {
            clock: clock.clone(),
            seed,
            inbox_items: tuning.config.worker_inbox_items,
        };
        let stack = NativeStack::new(net.reopen(self.index), native);
        let driven = Driven::new(stack, &options).expect("a simulated device starts");
        let kind = cast.members[self.index].kind;
        let name = cast.name(self.index);
        let messenger = Messenger::with_workers(name, tuning.config.clone(), driven.workers());
        let messenger = messenger.expect("the tuning is valid");
        let throttles = [
            Throttle::new("bytes", tuning.throttle_bytes),
            Throttle::new("messages", tuning.throttle_messages),
        ];
        let app = Application::new(self.index, life, Arc::clone(cast), Arc::clone(history));
        app.hoard(self.hoards);
        let set_up = || {
            if tuning.keeps_nonce {
                messenger.set_nonce(self.index as u32 + 1)?; // hosts are few
            }
            for peer in KINDS {
                messenger.set_policy(peer, cast.policy(kind, peer))?;
                let [bytes, messages] = throttles.each_ref().map(|throttle| Some(throttle.clone()));
                messenger.set_policy_throttlers(peer, bytes, messages)?;
            }
            messenger.add_dispatcher_tail(app.clone(), DispatcherPriority::DEFAULT)?;
            if kind != EntityType::Client {
                let socket = Some(SocketAddr::new(ip(self.index).into(), PORT));
                let addr = EntityAddr { kind: tuning.protocol, nonce: 0, socket };
                messenger.bindv(&addr.into(), None)?;
            }
            messenger.start()
        };
        set_up().expect("a new messenger can be set up");
        let (nonce, has_more) = (messenger.nonce(), false);
        lock(history).begin_life(self.index, life, nonce);
        self.process = Some(Process { life, driven, messenger, app, throttles, has_more });
    }

    /// Ends the process. What its sockets have to say goes out if the link is up.
    pub(crate) fn stop(&mut self, history: &Mutex<History>) {
        if let Some(process) = self.process.take() {
            lock(history).end_life(self.index, process.life);
            process.app.end();
            process.messenger.shutdown();
            process.messenger.wait().expect("a driven messenger that was shut down ends");
        }
    }

    /// When a worker has something to do; `None`: not before somebody calls.
    pub(crate) fn next_turn(&self, worker: usize, net: &SimNet, now: Instant) -> Option<Instant> {
        let process = self.process.as_ref()?;
        let own = if process.has_more && !self.stalled && worker == 0 {
            Some(now)
        } else {
            process.driven.next_turn(worker)
        };
        let due = own.into_iter().chain(net.next_arrival(self.index, worker)).min()?;
        Some(self.frozen[worker].map_or(due, |until| due.max(until)))
    }

    /// A turn of one worker, which is over at `end`, and of the dispatch queue.
    pub(crate) fn turn(&mut self, worker: usize, end: Instant) {
        let frozen = &mut self.frozen[worker];
        *frozen = Some(frozen.map_or(end, |until| until.max(end)));
        if let Some(process) = &mut self.process {
            process.driven.turn(worker).expect("a simulated device does not fail");
            if !self.stalled {
                let handed_out = process.driven.dispatch(DISPATCHES_PER_TURN);
                process.has_more = handed_out >= DISPATCHES_PER_TURN;
            }
        }
    }

    /// Its dispatch threads get on again, or not.
    pub(crate) fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
        if let Some(process) = &mut self.process {
            process.has_more = true;
        }
    }

    /// The application keeps what it takes, or not.
    pub(crate) fn hoard(&mut self, hoards: bool) {
        self.hoards = hoards;
        if let Some(process) = &self.process {
            process.app.hoard(hoards);
        }
    }
}

/// What every process is started with.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) clock: Clock,
    pub(crate) net: SimNet,
    pub(crate) cast: Arc<Cast>,
    pub(crate) tuning: Tuning,
    pub(crate) history: Arc<Mutex<History>>,
}

impl Process {
    /// Where it can be reached; for a client, where it comes from.
    pub fn addrs(&self) -> EntityAddrVec {
        self.messenger.addrs()
    }

    /// What is held of budgets and queues, by name; all of it has to return to zero.
    pub fn in_use(&self) -> Vec<(&'static str, u64)> {
        let counters = self.messenger.counters();
        let (messages, bytes) = self.app.outgoing();
        vec![
            ("outgoing messages", messages as u64),
            ("outgoing bytes", bytes as u64),
            ("dispatch queue", counters.dispatch_queue_messages as u64),
            ("dispatch throttle", counters.dispatch_throttle_bytes),
            ("throttled bytes", self.throttles[0].current()),
            ("throttled messages", self.throttles[1].current()),
            ("callback panics", counters.callback_panics),
        ]
    }

    /// What workers still have after the messenger has ended.
    pub fn left_over(&self) -> Vec<(&'static str, u64)> {
        let workers = self.messenger.counters().workers;
        let all =
            workers.iter().flat_map(|worker| worker.messenger.iter().chain(&worker.transport));
        let is_gauge = |name: &str| {
            let is_neighbor = name.starts_with("neighbor");
            name == "msgr_active_connections" || name.ends_with("_in_use") && !is_neighbor
        };
        all.filter(|(name, value)| is_gauge(name) && *value > 0).copied().collect()
    }
}

/// A host's address.
fn ip(host: HostId) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, host as u8 + 1)
}

/// The host at the other end, once it introduced itself; over msgr1 servers do not tell their numbers.
pub(crate) fn host_of(connection: &Connection) -> Option<HostId> {
    let number = connection.peer_name()?.number;
    let socket = connection.peer_addrs().first().and_then(|addr| addr.socket);
    match socket.map(|socket| socket.ip()) {
        Some(IpAddr::V4(v4)) => Some(usize::from(v4.octets()[3]) - 1),
        _ => usize::try_from(number).ok(), // ourselves
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Commands a worker's inbox holds: few, so that it is full at times.
pub(crate) const INBOX_ITEMS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
