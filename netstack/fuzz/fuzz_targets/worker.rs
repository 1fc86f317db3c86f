//! A peer that knows TCP well enough to be dangerous, against a whole native worker.
//!
//! The peer follows what the worker sends, so a segment whose changes are all zero is the right
//! next one of its flow, and every handshake, window and close can be reached and then bent. The
//! application's calls are part of the case too. Checked: no panic, no more bytes received than
//! were ever sent, and in the end, when all sockets are closed and time has passed, every
//! connection, waiting frame and frame buffer is free again.
#![no_main]

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netstack::device::sim::{SimDevice, SimNet, SimPort};
use netstack::device::{Burst, Frame, PacketDevice};
use netstack::native::{IdlePolicy, NativeConfig, NativeStack, NativeWorker};
use netstack::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Received,
    ServerSocket, Worker,
};
use smoltcp::wire::checksum;

#[derive(Arbitrary, Debug)]
struct Case {
    large_buffers: bool,
    few_frames: bool,
    vouches: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// The peer sends the flow's next segment, more or less.
    Segment {
        flow: u8,
        flags: u8,
        seq_off: i16,
        ack_off: i16,
        window: u16,
        len: u8,
        large: bool,
        options: Vec<u8>,
    },
    /// The peer completes a handshake and may send data with it.
    Open {
        flow: u8,
        len: u8,
    },
    /// A router says the flow's last segment could not be delivered.
    IcmpError {
        flow: u8,
        code: u8,
        seq_off: i16,
    },
    Raw(Vec<u8>),
    Accept,
    Connect {
        flow: u8,
    },
    Recv {
        socket: u8,
        len: u16,
    },
    Send {
        socket: u8,
        len: u16,
        more: bool,
    },
    Shutdown {
        socket: u8,
    },
    Close {
        socket: u8,
        abort: bool,
    },
    CloseListener,
    /// Time passes in one jump.
    Wait {
        ms: u16,
    },
    /// The peer stops to answer ARP and to follow, or starts again.
    Deaf {
        deaf: bool,
    },
}

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEERS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PORT: u16 = 6800;
/// Ephemeral ports of the worker, few enough to be met again.
const PORTS: std::ops::RangeInclusive<u16> = 40_000..=40_003;
const FLOWS: u8 = 8;
const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// The peer's half of a flow.
#[derive(Clone, Copy)]
struct Flow {
    is_v6: bool,
    worker_port: u16,
    peer_port: u16,
    /// The peer's next sequence number.
    seq: u32,
    /// The worker's next sequence number.
    ack: u32,
}

impl Flow {
    /// Flows 0 to 3 lead to the listener, 4 to 7 belong to connections the worker opens.
    fn new(index: u8) -> Self {
        let is_v6 = index & 1 == 1;
        let seq = u32::from(index).wrapping_mul(0x4000_0000).wrapping_sub(100);
        let (worker_port, peer_port) = match index < 4 {
            true => (PORT, 1000 + u16::from(index)),
            false => (PORTS.start() + u16::from(index % 4), 2000 + u16::from(index)),
        };
        Self { is_v6, worker_port, peer_port, seq, ack: 0 }
    }

    fn addresses(&self) -> (Vec<u8>, Vec<u8>) {
        match self.is_v6 {
            true => (ip6(2).to_vec(), ip6(1).to_vec()),
            false => (vec![10, 0, 0, 2], vec![10, 0, 0, 1]),
        }
    }
}

fn ip6(last: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// An Ethernet frame with an IP packet from the peer.
fn framed(flow: &Flow, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = flow.addresses();
    let mut frame = [OURS, PEERS].concat();
    let len = payload.len() as u16;
    if flow.is_v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend([from, to].concat());
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((len + 20).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend([from, to].concat());
        let sum = !checksum::data(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

fn mend(flow: &Flow, protocol: u8, message: &mut [u8], at: usize) {
    let (from, to) = flow.addresses();
    let mut sum = checksum::data(message);
    if protocol != 1 {
        let addresses = [from, to].concat();
        let len = message.len() as u16;
        sum = checksum::combine(&[sum, checksum::data(&addresses), protocol.into(), len]);
    }
    message[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

struct Lab {
    now: Instant,
    worker: NativeWorker<SimDevice>,
    peer: SimDevice,
    listeners: Vec<ServerSocket>,
    sockets: Vec<ConnectedSocket>,
    flows: [Flow; FLOWS as usize],
    deaf: bool,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Lab {
    fn new(case: &Case) -> (SimNet, Self) {
        let mut ports =
            [1, 2].map(|index| SimPort { vouches: case.vouches, ..SimPort::new(index) });
        if case.few_frames {
            ports[0].pool_frames = 4;
        }
        let (net, mut devices) = SimNet::new(0, &ports);
        let second = Duration::from_secs(1);
        let buffer = if case.large_buffers { 1 << 17 } else { 4096 };
        let config = NativeConfig {
            addrs: ["10.0.0.1/24", "fd00::1/64"].map(|addr| addr.parse().expect("valid")).to_vec(),
            rx_buffer_bytes: buffer,
            tx_buffer_bytes: buffer,
            max_connections: 6,
            max_time_wait: 3,
            user_timeout: Some(2 * second),
            connect_timeout: second,
            half_open_timeout: second,
            linger: second,
            time_wait: second,
            clock_multiplier: 100,
            ephemeral_ports: PORTS,
            seed: Some(1),
            idle: IdlePolicy::Spin,
            ..NativeConfig::default()
        };
        let peer = devices.remove(1).remove(0);
        let stack = NativeStack::new(devices.remove(0), config);
        let mut worker = stack.into_workers().expect("a good configuration").remove(0);
        let now = Instant::now();
        let options = ListenOptions { backlog: 3, ..ListenOptions::default() };
        let mut listen = |ip: IpAddr| {
            let addr = SocketAddr::new(ip, PORT);
            worker.listen(now, addr, &options).expect("the port is free")
        };
        let listeners = vec![listen([0; 4].into()), listen([0; 16].into())];
        let lab = Self {
            now,
            worker,
            peer,
            listeners,
            sockets: Vec::new(),
            flows: std::array::from_fn(|index| Flow::new(index as u8)),
            deaf: false,
            sent_bytes: 0,
            received_bytes: 0,
        };
        (net, lab)
    }

    fn send(&mut self, bytes: &[u8]) {
        let Some(mut frame) = self.peer.alloc(bytes.len()) else {
            return;
        };
        frame.bytes_mut().copy_from_slice(bytes);
        let mut burst = Burst::new();
        burst.push(frame);
        self.peer.tx_burst(self.now, &mut burst);
    }

    /// Sends a segment of the flow and follows it if it is the expected one.
    fn segment(
        &mut self,
        index: u8,
        flags: u8,
        offs: (i16, i16),
        window: u16,
        len: usize,
        options: &[u8],
    ) {
        let flow = self.flows[usize::from(index % FLOWS)];
        let options_len = options.len().min(40) / 4 * 4;
        let mut segment = Vec::with_capacity(60 + len);
        segment.extend(flow.peer_port.to_be_bytes());
        segment.extend(flow.worker_port.to_be_bytes());
        segment.extend(flow.seq.wrapping_add_signed(offs.0.into()).to_be_bytes());
        segment.extend(flow.ack.wrapping_add_signed(offs.1.into()).to_be_bytes());
        segment.extend([((5 + options_len / 4) << 4) as u8, flags]);
        segment.extend(window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(&options[..options_len]);
        segment.resize(segment.len() + len, 0x5a);
        mend(&flow, 6, &mut segment, 16);
        let frame = framed(&flow, 6, &segment);
        self.send(&frame);
        self.sent_bytes += len as u64;
        if offs.0 == 0 {
            let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0) + len as u32;
            let seq = &mut self.flows[usize::from(index % FLOWS)].seq;
            *seq = seq.wrapping_add(counted);
        }
    }

    fn icmp_error(&mut self, index: u8, code: u8, seq_off: i16) {
        let flow = self.flows[usize::from(index % FLOWS)];
        let (peer, worker) = flow.addresses();
        let mut message = match flow.is_v6 {
            true => vec![1, code % 8, 0, 0, 0, 0, 5, 0, 0x60, 0, 0, 0, 0, 20, 6, 64],
            false => vec![3, code % 16, 0, 0, 0, 0, 5, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0],
        };
        message.extend([worker, peer].concat());
        message.extend(flow.worker_port.to_be_bytes());
        message.extend(flow.peer_port.to_be_bytes());
        message.extend(flow.ack.wrapping_add_signed(seq_off.into()).to_be_bytes());
        let protocol = if flow.is_v6 { 58 } else { 1 };
        mend(&flow, protocol, &mut message, 2);
        let frame = framed(&flow, protocol, &message);
        self.send(&frame);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Segment { flow, flags, seq_off, ack_off, window, len, large, options } => {
                let len = usize::from(*len) * if *large { 5 } else { 1 };
                self.segment(*flow, *flags, (*seq_off, *ack_off), *window, len, options);
            }
            Step::Open { flow, len } => {
                self.segment(*flow, SYN, (0, 0), 4096, 0, &[2, 4, 2, 0]);
                self.turn();
                self.segment(*flow, ACK, (0, 0), 4096, (*len).into(), &[]);
            }
            Step::IcmpError { flow, code, seq_off } => self.icmp_error(*flow, *code, *seq_off),
            Step::Raw(bytes) => self.send(&bytes[..bytes.len().min(1500)]),
            Step::Accept => self.accept(),
            Step::Connect { flow } => {
                let flow = self.flows[usize::from(4 + flow % 4)];
                let ip =
                    if flow.is_v6 { IpAddr::from(ip6(2)) } else { IpAddr::from([10, 0, 0, 2]) };
                let peer = SocketAddr::new(ip, flow.peer_port);
                let opened = self.worker.connect(self.now, peer, &ConnectOptions::default());
                self.sockets.extend(opened.ok());
            }
            Step::Recv { socket, len } => self.recv(*socket, *len),
            Step::Send { socket, len, more } => {
                let (data, now) = (vec![0xa5; usize::from(*len)], self.now);
                if let Some(socket) = pick(&self.sockets, *socket) {
                    let gather = [IoSlice::new(&data[..data.len() / 3]), IoSlice::new(&data)];
                    let _may_fail = self.worker.send(now, &self.sockets[socket], &gather, *more);
                }
            }
            Step::Shutdown { socket } => {
                if let Some(socket) = pick(&self.sockets, *socket) {
                    let _may_fail = self.worker.shutdown(self.now, &self.sockets[socket]);
                }
            }
            Step::Close { socket, abort } => {
                if let Some(socket) = pick(&self.sockets, *socket) {
                    let socket = self.sockets.swap_remove(socket);
                    self.worker.close(self.now, socket, *abort);
                }
            }
            Step::CloseListener => {
                if let Some(listener) = self.listeners.pop() {
                    self.worker.close_listener(self.now, listener);
                }
            }
            Step::Wait { ms } => self.now += Duration::from_millis((*ms).into()),
            Step::Deaf { deaf } => self.deaf = *deaf,
        }
        self.turn();
    }

    fn accept(&mut self) {
        for listener in &self.listeners {
            if let Ok(Some((socket, peer))) = self.worker.accept(self.now, listener) {
                assert_ne!(peer.port(), 0);
                self.sockets.push(socket);
            }
        }
    }

    fn recv(&mut self, socket: u8, len: u16) {
        let Some(socket) = pick(&self.sockets, socket) else {
            return;
        };
        let mut buffer = vec![0; usize::from(len).max(1)];
        let received = self.worker.recv(self.now, &self.sockets[socket], &mut buffer);
        if let Ok(Received::Bytes(len)) = received {
            assert!(buffer[..len].iter().all(|byte| *byte == 0x5a), "only what was sent");
            self.received_bytes += len as u64;
            assert!(self.received_bytes <= self.sent_bytes);
        }
    }

    /// One turn of the worker, and the peer's look at what came of it.
    fn turn(&mut self) {
        let mut ready = Vec::new();
        self.worker.wait(self.now, Some(self.now), &mut ready).expect("the device is in order");
        self.worker.flush(self.now).expect("the device is in order");
        let mut burst = Burst::new();
        loop {
            self.peer.rx_burst(self.now, &mut burst);
            if burst.is_empty() {
                return;
            }
            for frame in burst.drain(..) {
                let bytes = frame.bytes().to_vec();
                drop(frame);
                if !self.deaf {
                    self.follow(&bytes);
                }
            }
        }
    }

    /// Answers address requests and takes note of sequence numbers.
    fn follow(&mut self, frame: &[u8]) {
        let (header_len, is_v6) = match frame[12..14] {
            [8, 6] => return self.answer_arp(frame),
            [8, 0] => (20, false),
            [0x86, 0xdd] if frame[20] == 58 => return self.answer_solicit(frame),
            [0x86, 0xdd] => (40, true),
            _ => panic!("the worker speaks ARP and IP only"),
        };
        let tcp = &frame[14 + header_len..];
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let counted = u32::from(tcp[13] & SYN != 0) + u32::from(tcp[13] & FIN != 0);
        let payload = tcp.len() - usize::from(tcp[12] >> 4) * 4;
        let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let is_opening = tcp[13] & (SYN | ACK) == SYN;
        for flow in &mut self.flows {
            let is_ours = is_opening && flow.worker_port != PORT && flow.peer_port == port(2);
            if is_ours {
                flow.worker_port = port(0);
            }
            if (flow.is_v6, flow.worker_port, flow.peer_port) == (is_v6, port(0), port(2)) {
                flow.ack = seq.wrapping_add(counted + payload as u32);
            }
        }
    }

    fn answer_arp(&mut self, request: &[u8]) {
        if request[21] == 1 && request[38..42] == [10, 0, 0, 2] {
            let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
            let reply =
                [&OURS[..], &PEERS, &head, &PEERS, &request[38..42], &OURS, &request[28..32]];
            self.send(&reply.concat());
        }
    }

    fn answer_solicit(&mut self, request: &[u8]) {
        if request[54] == 135 {
            let flow = self.flows[1];
            let mut message =
                [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &ip6(2), &[2, 1], &PEERS].concat();
            mend(&flow, 58, &mut message, 2);
            let mut frame = framed(&flow, 58, &message);
            frame[21] = 255;
            self.send(&frame);
        }
    }

    /// Closes everything and lets all timers run out.
    fn finish(mut self, net: &SimNet) {
        self.deaf = true;
        for socket in std::mem::take(&mut self.sockets) {
            self.worker.close(self.now, socket, false);
        }
        for listener in std::mem::take(&mut self.listeners) {
            self.worker.close_listener(self.now, listener);
        }
        for _ in 0..300 {
            self.now += Duration::from_millis(20);
            self.turn();
        }
        let counters: Vec<_> = self.worker.counters().into_iter().filter(|it| it.1 > 0).collect();
        for (name, _) in &counters {
            assert!(!name.ends_with("_in_use"), "{name} is not zero in the end: {counters:?}");
        }
        drop(self.worker);
        assert_eq!(self.peer.frames_in_use(), 0, "every frame went home");
        assert_eq!(net.poll_timeout(), None);
    }
}

fn pick(sockets: &[ConnectedSocket], index: u8) -> Option<usize> {
    (!sockets.is_empty()).then(|| usize::from(index) % sockets.len())
}

fuzz_target!(|case: Case| {
    let (net, mut lab) = Lab::new(&case);
    for step in &case.steps {
        lab.step(step);
    }
    lab.finish(&net);
});
