//! Hosts on a simulated network, one thread, one virtual clock.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smoltcp::wire::{IpAddress, IpCidr};

use crate::device::sim::{SimDevice, SimNet, SimPort};
use crate::native::{IdlePolicy, NativeConfig, NativeStack, NativeWorker};
use crate::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Readiness, Ready,
    Received, ServerSocket, SocketError, SocketId, Worker,
};

pub(super) type Host = NativeWorker<SimDevice>;

/// The port servers of these tests listen on.
pub(super) const PORT: u16 = 6800;
/// Longest step of the clock.
const STEP: Duration = Duration::from_millis(1);

/// Several workers, who all see each other, and what they reported.
pub(super) struct Lab {
    pub(super) now: Instant,
    pub(super) net: SimNet,
    pub(super) hosts: Vec<Host>,
    pub(super) events: Vec<Vec<Ready>>,
    /// The clock goes from one thing that is due to the next, in place of steps.
    pub(super) jumps: bool,
}

/// The addresses of the `index`-th port's host.
pub(super) fn v4(index: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, index as u8 + 1])
}

pub(super) fn v6(index: usize) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, index as u16 + 1])
}

pub(super) fn server_of(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, PORT)
}

/// A configuration for the host of the `index`-th port.
pub(super) fn config(index: usize) -> NativeConfig {
    NativeConfig {
        addrs: vec![cidr(v4(index), 24), cidr(v6(index), 64)],
        seed: Some(index as u64 + 77),
        idle: IdlePolicy::Spin,
        ..NativeConfig::default()
    }
}

fn cidr(ip: IpAddr, prefix: u8) -> IpCidr {
    IpCidr::new(IpAddress::from(ip), prefix)
}

/// What the `index`-th byte of every transfer is.
fn pattern(index: usize) -> u8 {
    (index.wrapping_mul(0x9e37_79b9) >> 13) as u8
}

pub(super) fn patterned(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(pattern).collect()
}

impl Lab {
    /// Two ordinary hosts.
    pub(super) fn pair() -> Self {
        Self::with(|_, _| {})
    }

    /// Two hosts with a queue each, after `change` has had its way with each configuration.
    pub(super) fn with(change: impl Fn(usize, &mut NativeConfig)) -> Self {
        Self::over(&[SimPort::new(1), SimPort::new(2)], change)
    }

    /// A host on each of `ports`; one with several queues has several workers, in a row.
    pub(super) fn over(ports: &[SimPort], change: impl Fn(usize, &mut NativeConfig)) -> Self {
        let (net, devices) = SimNet::new(4711, ports);
        let workers = devices.into_iter().enumerate().flat_map(|(index, devices)| {
            let mut config = config(index);
            change(index, &mut config);
            NativeStack::new(devices, config).into_workers().unwrap()
        });
        let mut hosts: Vec<_> = workers.collect();
        for host in &mut hosts {
            host.start().unwrap();
        }
        let events = vec![Vec::new(); hosts.len()];
        Self { now: Instant::now(), net, hosts, events, jumps: false }
    }

    /// One turn of every worker.
    pub(super) fn turn(&mut self) {
        for (host, events) in self.hosts.iter_mut().zip(&mut self.events) {
            host.wait(self.now, Some(self.now), events).unwrap();
            host.flush(self.now).unwrap();
        }
        let due = self.hosts.iter().filter_map(|host| host.poll_timeout(self.now)).min();
        let next = if self.jumps { due } else { None };
        let next = next.map_or(self.now + STEP, |next| next.max(self.now));
        let arrival = self.net.poll_timeout().unwrap_or(next);
        self.now = arrival.min(next).max(self.now + Duration::from_micros(1));
    }

    /// Lets a time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    /// Takes turns until `is_done`, for at most a minute of virtual time.
    #[track_caller]
    pub(super) fn until(&mut self, mut is_done: impl FnMut(&mut Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !is_done(self) {
            assert!(self.now < end, "not within a minute");
            self.turn();
        }
    }

    pub(super) fn listen(&mut self, host: usize, addr: SocketAddr) -> ServerSocket {
        self.hosts[host].listen(self.now, addr, &ListenOptions::default()).unwrap()
    }

    pub(super) fn connect(&mut self, host: usize, peer: SocketAddr) -> ConnectedSocket {
        self.hosts[host].connect(self.now, peer, &ConnectOptions::default()).unwrap()
    }

    #[track_caller]
    pub(super) fn accept(&mut self, host: usize, server: &ServerSocket) -> ConnectedSocket {
        let mut accepted = None;
        self.until(|lab| {
            accepted = lab.hosts[host].accept(lab.now, server).unwrap();
            accepted.is_some()
        });
        accepted.unwrap().0
    }

    /// Lets hosts 0 and 1 learn each other's Ethernet address.
    pub(super) fn introduce(&mut self) {
        let client = self.connect(0, SocketAddr::new(v4(1), PORT + 1));
        self.run(Duration::from_millis(10));
        self.hosts[0].close(self.now, client, false);
    }

    /// An open connection from host 0 to a listener on host 1, and its other end.
    #[track_caller]
    pub(super) fn connected(&mut self, ip: IpAddr) -> (ConnectedSocket, ConnectedSocket) {
        let server = self.listen(1, server_of(ip));
        let client = self.connect(0, server_of(ip));
        let accepted = self.accept(1, &server);
        self.until(|lab| lab.hosts[0].is_connected(&client).unwrap());
        (client, accepted)
    }

    /// Sends `data`, or what of it is taken.
    pub(super) fn send(&mut self, host: usize, socket: &ConnectedSocket, data: &[u8]) -> usize {
        self.hosts[host].send(self.now, socket, &[IoSlice::new(data)], false).unwrap()
    }

    /// Reads until there is no more for now.
    pub(super) fn read(
        &mut self,
        host: usize,
        socket: &ConnectedSocket,
        into: &mut Vec<u8>,
    ) -> Result<Received, SocketError> {
        let mut buffer = [0; 3000];
        loop {
            match self.hosts[host].recv(self.now, socket, &mut buffer)? {
                Received::Bytes(len) => into.extend_from_slice(&buffer[..len]),
                end => return Ok(end),
            }
        }
    }

    /// Moves the pattern from one socket to the other.
    #[track_caller]
    pub(super) fn transfer(
        &mut self,
        (from, out): (usize, &ConnectedSocket),
        (to, into): (usize, &ConnectedSocket),
        len: usize,
    ) {
        let data = patterned(0, len);
        let (mut sent, mut received) = (0, Vec::new());
        self.until(|lab| {
            sent += lab.send(from, out, &data[sent..]);
            lab.read(to, into, &mut received).unwrap();
            received.len() == len
        });
        assert!(received == data, "the bytes differ");
    }

    /// What was reported of a socket since the last call.
    pub(super) fn news(&mut self, host: usize, socket: SocketId) -> Readiness {
        let (its, others) =
            self.events[host].drain(..).partition::<Vec<_>, _>(|ready| ready.socket == socket);
        self.events[host] = others;
        its.into_iter().fold(Readiness::NONE, |all, ready| all | ready.readiness)
    }

    pub(super) fn counter(&self, host: usize, name: &str) -> u64 {
        let counters = self.hosts[host].counters();
        counters.iter().find(|(other, _)| *other == name).expect("a counter of that name").1
    }

    /// Lets TIME-WAIT and the like pass, and looks for what was left behind.
    #[track_caller]
    pub(super) fn assert_nothing_left(&mut self) {
        self.run(Duration::from_secs(40));
        for (index, host) in self.hosts.iter().enumerate() {
            for (name, value) in host.counters() {
                let is_neighbor = name.starts_with("neighbor");
                let is_zero = value == 0 || !name.ends_with("_in_use") || is_neighbor;
                assert!(is_zero, "host {index} has {value} {name}");
                assert!(value == 0 || name != "connection_panics", "host {index} panicked");
            }
        }
    }
}
