//! Flows between two native workers over a simulated link with faults.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use netstack::IpCidr;
use netstack::device::sim::{Faults, SimDevice, SimNet, SimPort};
use netstack::native::{Congestion, IdlePolicy, NativeConfig, NativeStack, NativeWorker};
use netstack::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Received, Worker,
};

/// Buffers of each flow: several times what the link holds.
const BUFFER: usize = (512 << 10) - 1;
const PORT: u16 = 6800;

/// What the link does, in both directions.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    /// Decides which frames are lost, late or doubled.
    pub(crate) seed: u64,
    pub(crate) bits_per_s: u64,
    pub(crate) round_trip: Duration,
    pub(crate) loss_ppm: u32,
    pub(crate) duplicate_ppm: u32,
    /// Frames in a million that are late, by up to this.
    pub(crate) late_ppm: u32,
    pub(crate) late: Duration,
    /// See [`NativeConfig::clock_multiplier`].
    pub(crate) clock_multiplier: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            seed: 2718,
            bits_per_s: 10_000_000_000,
            round_trip: Duration::from_micros(100),
            loss_ppm: 0,
            duplicate_ppm: 0,
            late_ppm: 0,
            late: Duration::ZERO,
            clock_multiplier: 200, // both ends acknowledge at once
        }
    }
}

impl Link {
    /// Links that do not lose anything but make it look so.
    pub(crate) fn disturbed(self) -> [(&'static str, Self); 3] {
        // A full frame takes 1.2 µs, so that is up to 30 frames.
        let late = Duration::from_micros(36);
        [
            ("1 % late", Self { late_ppm: 10_000, late, ..self }),
            ("20 % late", Self { late_ppm: 200_000, late, ..self }),
            ("5 % twice", Self { duplicate_ppm: 50_000, ..self }),
        ]
    }

    fn faults(&self) -> Faults {
        Faults {
            delay: self.round_trip / 2,
            jitter: self.late,
            jitter_ppm: self.late_ppm,
            loss_ppm: self.loss_ppm,
            duplicate_ppm: self.duplicate_ppm,
            bits_per_s: NonZeroU64::new(self.bits_per_s),
            queue_bytes: 512 << 10,
            ..Faults::default()
        }
    }
}

/// How one flow fared in the second half of a run with several, or in the whole with one.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) mbit_per_s: f64,
    /// Longest time in which nothing arrived.
    pub(crate) stall: Duration,
    pub(crate) resent: u32,
}

/// Two hosts, one clock.
pub(crate) struct Run {
    now: Instant,
    net: SimNet,
    hosts: Vec<NativeWorker<SimDevice>>,
    link: Link,
}

impl Run {
    pub(crate) fn new(congestion: Congestion, link: Link) -> Self {
        let ports = [1, 2].map(|index| SimPort { vouches: true, ..SimPort::new(index) });
        let (net, devices) = SimNet::new(link.seed, &ports);
        let host = |(index, devices)| {
            let config = NativeConfig {
                addrs: vec![IpCidr::new(addr(index).into(), 24)],
                rx_buffer_bytes: BUFFER,
                tx_buffer_bytes: BUFFER,
                clock_multiplier: link.clock_multiplier,
                congestion,
                seed: Some(index as u64),
                idle: IdlePolicy::Spin,
                ..NativeConfig::default()
            };
            NativeStack::new(devices, config).into_workers().unwrap().pop().unwrap()
        };
        let hosts = devices.into_iter().enumerate().map(host).collect();
        Self { now: Instant::now(), net, hosts, link }
    }

    /// Sends as much as `count` flows can for a time. With several, the first half of it is for
    /// them to find their shares.
    pub(crate) fn flows(mut self, count: usize, time: Duration) -> Vec<Flow> {
        self.set_link(Link { loss_ppm: 0, ..self.link });
        let (outs, ins) = self.open(count);
        self.set_link(self.link);
        let data = vec![7; BUFFER];
        let mut buffer = vec![0; BUFFER];
        let warm_up = if count > 1 { time / 2 } else { Duration::ZERO };
        let begin = self.now + warm_up;
        let end = self.now + time;
        let mut flows = vec![(0_usize, self.now, Duration::ZERO); count];
        while self.now < end {
            for out in &outs {
                self.hosts[0].send(self.now, out, &[IoSlice::new(&data)], false).unwrap();
            }
            for (socket, (bytes, last, stall)) in ins.iter().zip(&mut flows) {
                if let Received::Bytes(len) =
                    self.hosts[1].recv(self.now, socket, &mut buffer).unwrap()
                {
                    *stall = (*stall).max(self.now - *last);
                    *last = self.now;
                    *bytes += if self.now > begin { len } else { 0 };
                }
            }
            self.turn();
        }
        let seconds = (end - begin).as_secs_f64();
        let flow =
            |(out, (bytes, last, stall)): (&ConnectedSocket, (usize, Instant, Duration))| Flow {
                mbit_per_s: bytes as f64 * 8.0 / seconds / 1e6,
                stall: stall.max(self.now - last),
                resent: self.hosts[0].tcp_info(out).unwrap().segments_resent,
            };
        outs.iter().zip(flows).map(flow).collect()
    }

    fn set_link(&mut self, link: Link) {
        for port in 0..2 {
            self.net.set_faults(port, link.faults());
        }
    }

    fn open(&mut self, count: usize) -> (Vec<ConnectedSocket>, Vec<ConnectedSocket>) {
        let server = SocketAddr::new(addr(1), PORT);
        let listener = self.hosts[1].listen(self.now, server, &ListenOptions::default()).unwrap();
        let mut outs = Vec::new();
        let mut ins = Vec::new();
        for _ in 0..count {
            let options = ConnectOptions::default();
            outs.push(self.hosts[0].connect(self.now, server, &options).unwrap());
            while ins.len() < outs.len() {
                self.turn();
                let accepted = self.hosts[1].accept(self.now, &listener).unwrap();
                ins.extend(accepted.map(|(socket, _)| socket));
            }
        }
        (outs, ins)
    }

    /// A turn of each host; then the clock goes to the next thing that happens.
    fn turn(&mut self) {
        for host in &mut self.hosts {
            host.flush(self.now).unwrap();
        }
        let due = self.hosts.iter().filter_map(|host| host.poll_timeout(self.now));
        let next = due.chain(self.net.poll_timeout()).min().unwrap();
        self.now = next.max(self.now + Duration::from_micros(1));
        for host in &mut self.hosts {
            host.wait(self.now, Some(self.now), &mut Vec::new()).unwrap();
        }
    }
}

/// 1 if all have the same, 1/n if one has all (Jain, Chiu, Hawe 1984).
pub(crate) fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

fn addr(index: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, index as u8 + 1])
}
