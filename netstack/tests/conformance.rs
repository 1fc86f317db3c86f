//! The conformance suite over the transports that need no device: kernel TCP on loopback, and the
//! native stack over simulated links.

#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use netstack::device::sim::{Faults, SimDevice, SimNet, SimPort, Spread};
use netstack::native::{NativeConfig, NativeStack, NativeWorker};
use netstack::posix::{Driver, PosixConfig, PosixStack, PosixWorker};
use netstack::stack::{EventDriver, NetworkStack};
use suite::{Ends, Family, Lab, conformance};

mod suite;

/// Kernel TCP with both ends on loopback, in workers of one stack.
struct Posix {
    driver: Driver,
    family: Family,
    workers: usize,
}

impl Lab for Posix {
    type Worker = PosixWorker;

    fn open(&mut self) -> Ends<PosixWorker> {
        let workers = NonZeroUsize::new(self.workers).unwrap();
        let config = PosixConfig { driver: self.driver, workers, ..PosixConfig::default() };
        let servers = PosixStack::new(config).into_workers().unwrap();
        assert!(servers.iter().all(|worker| worker.name() == self.driver.name()));
        Ends { servers, clients: Vec::new() }
    }

    fn tick(&mut self, idle: bool) -> Instant {
        if idle {
            std::thread::sleep(Duration::from_micros(50));
        }
        Instant::now()
    }

    fn server_ip(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    fn client_ip(&self) -> IpAddr {
        self.server_ip()
    }

    /// A group address: the kernel has no TCP route to it, and sends nothing.
    fn nowhere(&self) -> SocketAddr {
        match self.family {
            Family::V4 => (Ipv4Addr::new(224, 0, 0, 1), 4001).into(),
            Family::V6 => (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 4001).into(),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn settle(&self) -> Duration {
        Duration::from_millis(3)
    }
}

/// Two native stacks, joined by a simulated cable, under a virtual clock.
struct Sim {
    family: Family,
    /// Queue pairs, and so workers, of each end.
    queues: u16,
    /// What picks the queue a frame arrives on.
    spread: Spread,
    faults: Faults,
    net: Option<SimNet>,
    now: Instant,
}

/// The shortest turn, when there is work.
const BUSY_TURN: Duration = Duration::from_micros(5);
/// The longest turn, when nothing is under way.
const IDLE_TURN: Duration = Duration::from_millis(1);
const SEED: u64 = 20_08;

impl Sim {
    fn clean(family: Family) -> Self {
        let faults = Faults { delay: Duration::from_micros(20), ..Faults::default() };
        let (spread, net, now) = (Spread::SameIndex, None, Instant::now());
        Self { family, queues: 1, spread, faults, net, now }
    }

    fn queues(family: Family, queues: u16, spread: Spread) -> Self {
        Self { queues, spread, ..Self::clean(family) }
    }

    /// One frame in 50 is lost, one in 100 comes twice, one in 200 is damaged, a tenth overtakes.
    fn lossy(self) -> Self {
        let faults = Faults {
            delay: Duration::from_micros(100),
            jitter: Duration::from_micros(500),
            jitter_ppm: 100_000,
            loss_ppm: 20_000,
            duplicate_ppm: 10_000,
            corrupt_ppm: 5_000,
            ..Faults::default()
        };
        Self { faults, ..self }
    }

    fn is_lossy(&self) -> bool {
        self.faults.loss_ppm > 0
    }

    fn workers(&self, end: u8, devices: Vec<SimDevice>) -> Vec<NativeWorker<SimDevice>> {
        let config = NativeConfig {
            addrs: vec![suite::cidr(Family::V4, end), suite::cidr(Family::V6, end)],
            seed: Some(SEED + u64::from(end)),
            ..NativeConfig::default()
        };
        NativeStack::new(devices, config).into_workers().unwrap()
    }
}

const SERVER: u8 = 1;
const CLIENT: u8 = 2;
const NOBODY: u8 = 99;

impl Lab for Sim {
    type Worker = NativeWorker<SimDevice>;

    fn open(&mut self) -> Ends<Self::Worker> {
        let ports = [SERVER, CLIENT].map(|end| SimPort {
            queues: self.queues,
            spread: self.spread,
            faults: self.faults,
            ..SimPort::new(end)
        });
        let (net, mut devices) = SimNet::new(SEED, &ports);
        self.net = Some(net);
        let clients = self.workers(CLIENT, devices.remove(1));
        Ends { servers: self.workers(SERVER, devices.remove(0)), clients }
    }

    fn tick(&mut self, idle: bool) -> Instant {
        let next = self.net.as_ref().and_then(SimNet::poll_timeout);
        let quiet = next.map_or(IDLE_TURN, |next| next.saturating_duration_since(self.now));
        self.now += if idle { quiet.clamp(BUSY_TURN, IDLE_TURN) } else { BUSY_TURN };
        self.now
    }

    fn server_ip(&self) -> IpAddr {
        suite::ip(self.family, SERVER)
    }

    fn client_ip(&self) -> IpAddr {
        suite::ip(self.family, CLIENT)
    }

    fn nowhere(&self) -> SocketAddr {
        SocketAddr::new(suite::ip(self.family, NOBODY), 4001)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(if self.is_lossy() { 600 } else { 60 })
    }

    fn settle(&self) -> Duration {
        Duration::from_millis(if self.is_lossy() { 5000 } else { 5 })
    }

    fn ease(&self) -> usize {
        if self.is_lossy() { 10 } else { 1 }
    }
}

const EPOLL: Posix = Posix { driver: Driver::Epoll, family: Family::V4, workers: 1 };
const POLL: Posix = Posix { driver: Driver::Poll, ..EPOLL };
const SELECT: Posix = Posix { driver: Driver::Select, ..EPOLL };

conformance!(posix_v4, EPOLL);
conformance!(posix_v6, Posix { family: Family::V6, ..EPOLL });
conformance!(posix_v4_four_workers, Posix { workers: 4, ..EPOLL });
conformance!(posix_v6_two_workers, Posix { family: Family::V6, workers: 2, ..EPOLL });

conformance!(posix_poll_v4, POLL);
conformance!(posix_poll_v6, Posix { family: Family::V6, ..POLL });
conformance!(posix_poll_v4_four_workers, Posix { workers: 4, ..POLL });

conformance!(posix_select_v4, SELECT);
conformance!(posix_select_v6, Posix { family: Family::V6, ..SELECT });
conformance!(posix_select_v4_four_workers, Posix { workers: 4, ..SELECT });

conformance!(sim_v4, Sim::clean(Family::V4));
conformance!(sim_v6, Sim::clean(Family::V6));
conformance!(sim_v4_lossy, Sim::clean(Family::V4).lossy());
conformance!(sim_v6_lossy, Sim::clean(Family::V6).lossy());
conformance!(sim_v4_two_workers_by_index, Sim::queues(Family::V4, 2, Spread::SameIndex));
conformance!(sim_v4_two_workers_torn_flows, Sim::queues(Family::V4, 2, Spread::RoundRobin));
conformance!(
    sim_v6_two_workers_by_hash,
    Sim::queues(Family::V6, 2, Spread::FlowHash { announced: true })
);
conformance!(
    sim_v6_two_workers_lossy,
    Sim::queues(Family::V6, 2, Spread::FlowHash { announced: false }).lossy()
);
