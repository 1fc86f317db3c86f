//! Anything a link can do to a front: frames that are nearly right, sends, time, empty pools.
//!
//! A case is a list of steps. Most frames start as a valid packet of some kind, then a few bytes
//! are changed and, mostly, the checksums mended, so that mutations reach the code behind them.
//! Checked after every step: no panic, what is passed on lies inside its frame, what is sent is
//! from us and no longer than the link allows, tables stay within their limits, timers make
//! progress. At the end nothing waits any more and every frame is back in its pool.
#![no_main]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netstack::device::sim::{SimDevice, SimFrame, SimNet, SimPort};
use netstack::device::{Frame, PacketDevice};
use netstack::front::{
    Front, FrontConfig, Inbound, NEIGHBORS_MAX, NeighborTimers, Output, Sent, WAITING_MAX,
};
use smoltcp::wire::checksum;

#[derive(Arbitrary, Debug)]
struct Case {
    vlan: bool,
    trusting: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Bytes as they come.
    Raw(Vec<u8>),
    /// A packet that starts out valid.
    Packet {
        kind: Kind,
        peer: u8,
        edits: Vec<(u8, u8)>,
        cut: Option<u8>,
        tail: u8,
        mend: bool,
    },
    /// The worker sends.
    Send {
        kind: Kind,
        peer: u8,
    },
    Wait {
        ms: u16,
    },
    LinkUp,
    /// The pool has no frames, or the transmit queue no room, until told otherwise.
    Trouble {
        no_memory: bool,
        full: bool,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Tcp4,
    Tcp6,
    Tcp6Options,
    Echo4,
    Echo6,
    Error4,
    Error6,
    ArpRequest,
    ArpReply,
    Solicit,
    Advert,
}

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUR_V4: [u8; 4] = [10, 0, 0, 1];
const OUR_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SEGMENT: [u8; 20] = [3, 232, 7, 208, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 16, 0, 0, 0, 0, 0];
const ECHO_DATA: [u8; 10] = [0x12, 0x34, 0, 1, 1, 2, 3, 4, 5, 6];
const MTU: usize = 600;

fn peer_v4(peer: u8) -> [u8; 4] {
    [10, 0, peer >> 4, peer]
}

fn peer_v6(peer: u8) -> [u8; 16] {
    let mut ip = OUR_V6;
    ip[14..].copy_from_slice(&[1, peer]);
    ip
}

fn v4(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend([from, to].concat());
    packet.extend(payload);
    packet
}

fn v6(protocol: u8, hop_limit: u8, from: [u8; 16], to: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, protocol, hop_limit];
    packet.extend([from, to].concat());
    packet.extend(payload);
    packet
}

/// A valid packet between us and a peer but for its checksums, and its EtherType.
fn packet(kind: Kind, peer: u8, outbound: bool) -> (Vec<u8>, [u8; 2]) {
    let (mut a4, mut b4, mut a6, mut b6) = (peer_v4(peer), OUR_V4, peer_v6(peer), OUR_V6);
    if outbound {
        (a4, b4, a6, b6) = (b4, a4, b6, a6);
    }
    let mac = [2, 0, 0, 0, 1, peer];
    let link_layer = |kind: u8| [&[kind, 1][..], &mac].concat();
    let arp = |operation: u8| {
        let head = [0, 1, 8, 0, 6, 4, 0, operation];
        [&head[..], &mac, &a4, &[0; 6], &b4].concat()
    };
    let icmp6 = |head: [u8; 8], rest: &[u8]| [&head[..], rest].concat();
    let ip = match kind {
        Kind::Tcp4 => v4(6, a4, b4, &SEGMENT),
        Kind::Tcp6 => v6(6, 64, a6, b6, &SEGMENT),
        Kind::Tcp6Options => {
            let options = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
            v6(0, 64, a6, b6, &[&options[..], &SEGMENT].concat())
        }
        Kind::Echo4 => v4(1, a4, b4, &[&[8, 0, 0, 0][..], &ECHO_DATA].concat()),
        Kind::Echo6 => v6(58, 64, a6, b6, &[&[128, 0, 0, 0][..], &ECHO_DATA].concat()),
        Kind::Error4 => {
            let quote = v4(6, b4, a4, &SEGMENT[..8]);
            v4(1, a4, b4, &[&[3, 4, 0, 0, 0, 0, 5, 0][..], &quote].concat())
        }
        Kind::Error6 => {
            let quote = v6(6, 64, b6, a6, &SEGMENT[..8]);
            v6(58, 64, a6, b6, &icmp6([2, 0, 0, 0, 0, 0, 5, 0], &quote))
        }
        Kind::ArpRequest => return (arp(1), [8, 6]),
        Kind::ArpReply => return (arp(2), [8, 6]),
        Kind::Solicit => {
            let rest = [&b6[..], &link_layer(1)].concat();
            v6(58, 255, a6, b6, &icmp6([135, 0, 0, 0, 0, 0, 0, 0], &rest))
        }
        Kind::Advert => {
            let rest = [&a6[..], &link_layer(2)].concat();
            v6(58, 255, a6, b6, &icmp6([136, 0, 0, 0, 0x60, 0, 0, 0], &rest))
        }
    };
    let kind = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    (ip, kind)
}

/// Sets the checksums of whatever the packet has become, as far as it can be told.
fn mend(packet: &mut [u8]) {
    let Some(first) = packet.first().copied() else {
        return;
    };
    let (transport, protocol, addresses) = match first >> 4 {
        4 if packet.len() >= 20 => {
            let header_len = usize::from(first & 15).max(5) * 4;
            if packet.len() < header_len {
                return;
            }
            packet[10..12].fill(0);
            let sum = !checksum::data(&packet[..header_len]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            (header_len, packet[9], 12..20)
        }
        6 if packet.len() >= 40 => match packet[6] {
            0 if packet.len() >= 56 => (56, packet[48], 8..40),
            protocol => (40, protocol, 8..40),
        },
        _ => return,
    };
    let (at, has_pseudo_header) = match protocol {
        6 => (transport + 16, true),
        58 => (transport + 2, true),
        1 => (transport + 2, false),
        _ => return,
    };
    if packet.len() < at + 2 {
        return;
    }
    packet[at..at + 2].fill(0);
    let mut sum = checksum::data(&packet[transport..]);
    if has_pseudo_header {
        let len = (packet.len() - transport) as u16;
        sum = checksum::combine(&[sum, checksum::data(&packet[addresses]), protocol.into(), len]);
    }
    packet[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

/// The transmit side of a worker.
struct Worker {
    device: SimDevice,
    sent: Vec<SimFrame>,
    no_memory: bool,
    full: bool,
}

impl Output<SimFrame> for Worker {
    fn alloc(&mut self, len: usize) -> Option<SimFrame> {
        if self.no_memory { None } else { self.device.alloc(len) }
    }

    fn push(&mut self, frame: SimFrame) -> Result<(), SimFrame> {
        if self.full {
            return Err(frame);
        }
        self.sent.push(frame);
        Ok(())
    }
}

struct Host {
    front: Front<SimFrame>,
    worker: Worker,
    vlan: bool,
    now: Instant,
}

impl Host {
    fn frame(&mut self, bytes: &[u8]) -> SimFrame {
        let bytes = &bytes[..bytes.len().min(MTU + 18)];
        let mut frame = self.worker.device.alloc(bytes.len()).expect("a large pool");
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Raw(bytes) => self.receive(bytes),
            Step::Packet { kind, peer, edits, cut, tail, mend: mended } => {
                let (mut packet, ether_type) = packet(*kind, *peer, false);
                for (at, value) in edits {
                    let at = usize::from(*at) % packet.len();
                    packet[at] ^= value;
                }
                if let Some(cut) = cut {
                    packet.truncate(usize::from(*cut));
                }
                if *mended {
                    mend(&mut packet);
                }
                let to = if ether_type == [8, 6] && peer & 1 == 0 { [0xff; 6] } else { OURS };
                let mut frame = [&to[..], &[2, 0, 0, 0, 1, *peer]].concat();
                if self.vlan && tail & 1 == 1 {
                    frame.extend([0x81, 0, 0, 5]);
                }
                frame.extend(ether_type);
                frame.extend(packet);
                frame.resize(frame.len() + usize::from(tail % 32), 0);
                self.receive(&frame);
            }
            Step::Send { kind, peer } => {
                let mut bytes = vec![0; self.front.link_header_len()];
                bytes.extend(packet(*kind, *peer, true).0);
                let frame = self.frame(&bytes);
                if let Sent::Own(frame) = self.front.send(self.now, frame, &mut self.worker) {
                    let inbound = self.front.receive_own(frame);
                    self.passed_on(inbound);
                }
            }
            Step::Wait { ms } => self.wait(Duration::from_millis((*ms).into())),
            Step::LinkUp => self.front.link_up(self.now, &mut self.worker),
            Step::Trouble { no_memory, full } => {
                (self.worker.no_memory, self.worker.full) = (*no_memory, *full);
            }
        }
        self.check();
    }

    fn receive(&mut self, bytes: &[u8]) {
        let frame = self.frame(bytes);
        let inbound = self.front.receive(self.now, frame, &mut self.worker);
        self.passed_on(inbound);
    }

    /// What the front passes on holds.
    fn passed_on(&mut self, inbound: Inbound<SimFrame>) {
        match inbound {
            Inbound::Tcp { frame, segment } => {
                let end = frame.bytes().len();
                assert_eq!(segment.ip_start + segment.ip_len, end);
                assert_eq!(segment.payload_start + segment.payload_len, end);
                assert!(segment.ip_start + 20 <= segment.tcp_start);
                assert!(segment.tcp_start + 20 <= segment.payload_start);
                assert!(self.front.is_local(segment.key.local().ip()));
                let version = frame.bytes()[segment.ip_start] >> 4;
                assert_eq!(version == 4, segment.key.remote().is_ipv4());
            }
            Inbound::IcmpError(error) => assert!(self.front.is_local(error.key.local().ip())),
            Inbound::Learned(heard) => {
                assert!(heard.mac.is_unicast() && !self.front.is_local(heard.ip));
                self.front.learn(self.now, heard, &mut self.worker);
            }
            Inbound::Consumed | Inbound::Dropped(_) => {}
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.front.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.front.handle_timeout(self.now, &mut self.worker);
            assert!(self.front.poll_timeout().is_none_or(|due| due > self.now), "progress");
            self.worker.sent.clear();
        }
        self.now = end;
    }

    fn counter(&self, name: &str) -> u64 {
        let found = self.front.counters().find(|(counter, _)| *counter == name);
        found.expect("a counter of the front").1
    }

    fn check(&mut self) {
        for frame in self.worker.sent.drain(..) {
            let bytes = frame.bytes();
            assert_eq!(bytes[6..12], OURS);
            assert!(bytes.len() <= self.front.link_header_len() + MTU);
            assert_eq!(bytes[12..14] == [0x81, 0], self.vlan);
        }
        assert!(self.counter("neighbors") <= NEIGHBORS_MAX as u64);
        assert!(self.counter("neighbor_waiting_frames_in_use") <= WAITING_MAX as u64);
        while let Some(ip) = self.front.unreachable() {
            assert!(!self.front.is_local(ip));
        }
    }
}

fuzz_target!(|case: Case| {
    let (_net, mut devices) = SimNet::new(0, &[SimPort { mtu: MTU, ..SimPort::new(1) }]);
    let config = FrontConfig {
        mac: smoltcp::wire::EthernetAddress(OURS),
        addrs: ["10.0.0.1/16", "fd00::1/64"].map(|addr| addr.parse().expect("valid")).to_vec(),
        gateway_v4: Some([10, 0, 0, 254].into()),
        gateway_v6: None,
        mtu: MTU,
        vlan: case.vlan.then_some(5),
        verify_checksums: !case.trusting,
        neighbor: NeighborTimers::default(),
    };
    let worker = Worker {
        device: devices.remove(0).remove(0),
        sent: Vec::new(),
        no_memory: false,
        full: false,
    };
    let front = Front::new(&config).expect("a good configuration");
    let mut host = Host { front, worker, vlan: case.vlan, now: Instant::now() };
    assert!(host.front.is_local(IpAddr::from(OUR_V6)));
    for step in &case.steps {
        host.step(step);
    }
    host.wait(Duration::from_secs(10));
    host.worker.sent.clear();
    assert_eq!(host.counter("neighbor_waiting_frames_in_use"), 0);
    assert_eq!(host.worker.device.frames_in_use(), 0, "every frame went home");
});
