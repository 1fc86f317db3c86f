//! The stack under test, the peer that says what it is told to, and what passed between them.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use netstack::IpCidr;
use netstack::device::sim::{SimDevice, SimNet, SimPort};
use netstack::device::{Burst, Frame, PacketDevice};
use netstack::native::{Congestion, NativeConfig, NativeStack, NativeWorker};
use netstack::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Readiness, Ready,
    Received, ServerSocket, SocketError, Worker,
};

use crate::segment::{self, Flags, Segment};

const HOST: u8 = 1;
const PEER: u8 = 2;
/// Where the stack listens.
const SERVER_PORT: u16 = 6800;
/// The peer's port of flow 0; other flows follow.
const PEER_PORT: u16 = 5000;
/// The stack's port of a connection it opens.
const CLIENT_PORT: u16 = 40_000;
/// Where it connects to.
const REMOTE_PORT: u16 = 7000;
/// The peer's initial sequence number if nothing else is said.
const PEER_ISN: u32 = 1_000_000;
/// Turns in a row without time passing, after which something is wrong.
const TURNS_MAX: usize = 1000;
/// Longer than anything a stack waits for by itself.
const AFTERMATH: Duration = Duration::from_secs(90);

/// Byte `at` of what the peer sends, or of what the stack does.
fn pattern(is_peers: bool, at: u32) -> u8 {
    let at = if is_peers { at } else { at.wrapping_add(77) };
    (at ^ (at >> 8).wrapping_mul(7)) as u8
}

/// The bytes of a stream from the one with number `start`, the first being 0.
pub(crate) fn stream(is_peers: bool, start: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| pattern(is_peers, start.wrapping_add(index))).collect()
}

/// The addresses and initial numbers of one conversation, and its socket.
#[derive(Debug)]
pub(crate) struct Flow {
    local: SocketAddrV4,
    remote: SocketAddrV4,
    pub(crate) host_isn: Option<u32>,
    /// Of the same addresses before.
    pub(crate) old_isns: Vec<u32>,
    /// Where the stack's numbers end, so far and in the connection before.
    host_end: u32,
    pub(crate) old_end: u32,
    pub(crate) peer_isn: u32,
    socket: Option<ConnectedSocket>,
    /// Bytes given to the socket, and bytes read from it.
    given: u32,
    taken: u32,
}

/// A segment the stack sent.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) flow: u16,
    pub(crate) segment: Segment,
}

/// What a script sets before anything happens.
#[derive(Debug)]
pub(crate) struct Setting {
    config: NativeConfig,
    mtu: usize,
    peer_isn: u32,
}

impl Default for Setting {
    fn default() -> Self {
        let config = NativeConfig {
            addrs: vec![IpCidr::new(addr(HOST, 0).ip().to_owned().into(), 24)],
            seed: Some(1),
            user_timeout: None,
            ..NativeConfig::default()
        };
        Self { config, mtu: 1500, peer_isn: PEER_ISN }
    }
}

impl Setting {
    /// Times are in seconds.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let config = &mut self.config;
        let time = value.parse().map(Duration::from_secs_f64).ok();
        match name {
            "mtu" => self.mtu = value.parse().ok()?,
            "seed" => config.seed = Some(value.parse().ok()?),
            "peer_isn" => self.peer_isn = value.parse().ok()?,
            "rx_bytes" => config.rx_buffer_bytes = value.parse().ok()?,
            "tx_bytes" => config.tx_buffer_bytes = value.parse().ok()?,
            "clock_multiplier" => config.clock_multiplier = value.parse().ok()?,
            "user_timeout" => config.user_timeout = Some(time?),
            "keepalive" => config.keepalive = Some(time?),
            "connect_timeout" => config.connect_timeout = time?,
            "half_open_timeout" => config.half_open_timeout = time?,
            "time_wait" => config.time_wait = time?,
            "linger" => config.linger = time?,
            "congestion" => {
                config.congestion = match value {
                    "none" => Congestion::None,
                    "reno" => Congestion::Reno,
                    "cubic" => Congestion::Cubic,
                    _ => return None,
                };
            }
            _ => return None,
        }
        Some(())
    }
}

fn addr(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 99, 0, host), port)
}

/// Everything a script acts on.
pub(crate) struct World {
    pub(crate) now: Instant,
    started: Instant,
    host: NativeWorker<SimDevice>,
    wire: SimDevice,
    server: Option<ServerSocket>,
    peer_isn: u32,
    flows: BTreeMap<u16, Flow>,
    current: u16,
    news: Vec<Ready>,
    /// What the stack has sent and no line has asked for.
    pub(crate) heard: VecDeque<Heard>,
    log: Vec<String>,
}

impl World {
    pub(crate) fn new(setting: &Setting) -> Self {
        let ports = [HOST, PEER].map(|end| SimPort { mtu: setting.mtu, ..SimPort::new(end) });
        let (_, devices) = SimNet::new(1, &ports);
        let mut devices = devices.into_iter().flatten();
        let (host, wire) = (devices.next().unwrap(), devices.next().unwrap());
        let host = NativeStack::new(vec![host], setting.config.clone()).into_workers();
        let now = Instant::now();
        let mut world = Self {
            now,
            started: now,
            host: host.unwrap().pop().unwrap(),
            wire,
            server: None,
            peer_isn: setting.peer_isn,
            flows: BTreeMap::new(),
            current: 0,
            news: Vec::new(),
            heard: VecDeque::new(),
            log: Vec::new(),
        };
        world.go_to(0);
        world.settle();
        world
    }

    /// The conversation that lines are about.
    pub(crate) fn flow(&mut self) -> (u16, &mut Flow) {
        (self.current, self.flows.get_mut(&self.current).unwrap())
    }

    fn go_to(&mut self, number: u16) {
        self.current = number;
        self.flows.entry(number).or_insert_with(|| Flow {
            local: addr(HOST, SERVER_PORT),
            remote: addr(PEER, PEER_PORT + number),
            host_isn: None,
            old_isns: Vec::new(),
            host_end: 0,
            old_end: 0,
            peer_isn: self.peer_isn,
            socket: None,
            given: 0,
            taken: 0,
        });
    }

    // Time and turns.

    /// Lets the stack take what has arrived, and say nothing yet.
    pub(crate) fn receive(&mut self) {
        self.host.wait(self.now, Some(self.now), &mut self.news).unwrap();
    }

    /// Turns until nothing more happens at this time.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            self.host.wait(self.now, Some(self.now), &mut self.news).unwrap();
            self.host.flush(self.now).unwrap();
            let is_quiet = !self.listen_to_host();
            if is_quiet && self.host.poll_timeout(self.now).is_none_or(|next| next > self.now) {
                return;
            }
        }
        panic!("the stack does not come to rest\n{}", self.history());
    }

    /// Lets time pass, until something is heard if `stops`.
    pub(crate) fn advance(&mut self, end: Instant, stops: bool) {
        while self.now < end && (self.heard.is_empty() || !stops) {
            let least = self.now + Duration::from_micros(1);
            let next = self.host.poll_timeout(self.now).unwrap_or(end);
            self.now = next.max(least).min(end);
            self.settle();
        }
    }

    /// Takes what the stack sent; whether there was anything.
    fn listen_to_host(&mut self) -> bool {
        let mut burst = Burst::new();
        self.wire.rx_burst(self.now, &mut burst);
        for frame in &burst {
            let mac = self.wire.info().mac;
            let bytes = frame.bytes();
            if let Some(answer) = segment::answer_arp(bytes, mac, addr(PEER, 0).ip().octets()) {
                self.put(&answer);
            } else if let Some(packet) = segment::packet_of(bytes) {
                let (from, to, segment) = Segment::read(packet).expect("a TCP segment");
                assert!(segment::is_intact(packet), "the stack's checksums are right");
                self.hear(from, to, segment);
            }
        }
        !burst.is_empty()
    }

    fn hear(&mut self, local: SocketAddrV4, remote: SocketAddrV4, segment: Segment) {
        let flow = self.flows.iter_mut().find(|(_, f)| (f.local, f.remote) == (local, remote));
        let (number, flow) = flow.expect("a segment of a flow of the script");
        if segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::RST) {
            flow.host_isn.get_or_insert(segment.seq);
        }
        if !segment.flags.has(Flags::RST) {
            flow.host_end = end(&segment);
        }
        let text = segment.describe(flow.host_isn.unwrap_or(0), flow.peer_isn);
        let number = *number;
        self.note(number, '>', &text);
        self.heard.push_back(Heard { at: self.now, flow: number, segment });
    }

    fn note(&mut self, flow: u16, direction: char, text: &str) {
        let time = (self.now - self.started).as_secs_f64();
        let flow = if flow == 0 { String::new() } else { format!("flow {flow} ") };
        self.log.push(format!("    {time:10.6}  {flow}{direction} {text}"));
    }

    /// All that has passed.
    pub(crate) fn history(&self) -> String {
        self.log.join("\n")
    }

    // The peer.

    /// The peer sends a segment.
    pub(crate) fn inject(&mut self, segment: &Segment, is_damaged: bool) {
        let (number, flow) = self.flow();
        let text = segment.describe(flow.peer_isn, flow.host_isn.unwrap_or(0));
        let mut packet = segment.packet(flow.remote, flow.local);
        self.note(number, '<', &text);
        if is_damaged {
            *packet.last_mut().unwrap() ^= 1;
        }
        self.put_packet(&packet);
    }

    /// A router says that a segment of the stack cannot be delivered.
    pub(crate) fn inject_icmp(&mut self, code: u8, mtu: u16, seq: i64) {
        let (number, flow) = self.flow();
        let absolute = flow.host_isn.unwrap_or(0).wrapping_add(seq as u32);
        let packet = segment::unreachable(flow.remote, flow.local, code, mtu, absolute);
        self.note(number, '<', &format!("icmp code {code} mtu {mtu} about {seq}"));
        self.put_packet(&packet);
    }

    fn put_packet(&mut self, packet: &[u8]) {
        let host = SimPort::new(HOST).mac;
        self.put(&segment::frame(self.wire.info().mac, host, packet));
    }

    fn put(&mut self, bytes: &[u8]) {
        let mut frame = self.wire.alloc(bytes.len()).expect("a frame for the peer");
        frame.bytes_mut().copy_from_slice(bytes);
        let mut burst = Burst::new();
        burst.push(frame);
        self.wire.tx_burst(self.now, &mut burst);
    }

    // The application.

    /// Makes a call and says in a word what came of it; `None`: there is no such call.
    pub(crate) fn call(&mut self, words: &[&str]) -> Option<String> {
        let ok = || "ok".to_owned();
        Some(match words {
            ["listen"] => self.listen(ListenOptions::default()),
            ["listen", backlog] => {
                let backlog = backlog.parse().ok()?;
                self.listen(ListenOptions { backlog, ..ListenOptions::default() })
            }
            ["unlisten"] => {
                let server = self.server.take()?;
                self.host.close_listener(self.now, server);
                ok()
            }
            ["flow", number] => {
                self.go_to(number.parse().ok()?);
                ok()
            }
            // The same addresses, and the peer's initial number moved on by so much.
            ["again", more] => {
                let more: u32 = more.parse().ok()?;
                let flow = self.flow().1;
                flow.peer_isn = flow.peer_isn.wrapping_add(more);
                flow.old_isns.extend(flow.host_isn.take());
                flow.old_end = flow.host_end;
                (flow.given, flow.taken) = (0, 0);
                ok()
            }
            ["accept"] => self.accept(),
            ["connect"] => {
                let flow = self.flow().1;
                (flow.local, flow.remote) = (addr(HOST, CLIENT_PORT), addr(PEER, REMOTE_PORT));
                let remote = flow.remote;
                let bind = Some(addr(HOST, CLIENT_PORT).into());
                let options = ConnectOptions { bind, priority: None };
                let socket = self.host.connect(self.now, remote.into(), &options);
                self.keep(socket)
            }
            ["connected"] => {
                let Self { host, flows, current, .. } = self;
                match host.is_connected(flows[current].socket.as_ref()?) {
                    Ok(true) => "yes".into(),
                    Ok(false) => "no".into(),
                    Err(error) => name(&error),
                }
            }
            ["send", len] => self.send(len.parse().ok()?)?,
            ["recv", len] => self.recv(len.parse().ok()?)?,
            ["shutdown"] => {
                let Self { host, flows, current, now, .. } = self;
                match host.shutdown(*now, flows[current].socket.as_ref()?) {
                    Ok(()) => ok(),
                    Err(error) => name(&error),
                }
            }
            ["close"] => self.close(false)?,
            ["abort"] => self.close(true)?,
            ["news"] => {
                let id = self.flow().1.socket.as_ref()?.id();
                let of_it = self.news.iter().filter(|ready| ready.socket == id);
                let all = of_it.fold(Readiness::NONE, |all, ready| all | ready.readiness);
                self.news.retain(|ready| ready.socket != id);
                format!("{all:?}")
            }
            ["counter", name] => {
                let counters = self.host.counters();
                counters.iter().find(|(other, _)| other == name)?.1.to_string()
            }
            _ => return None,
        })
    }

    fn listen(&mut self, options: ListenOptions) -> String {
        let at = SocketAddr::from(addr(HOST, SERVER_PORT));
        match self.host.listen(self.now, at, &options) {
            Ok(server) => {
                self.server = Some(server);
                "ok".into()
            }
            Err(error) => name(&error),
        }
    }

    fn accept(&mut self) -> String {
        let server = self.server.as_ref().expect("a script listens first");
        match self.host.accept(self.now, server) {
            Ok(None) => "none".into(),
            Ok(Some((socket, peer))) => {
                let expected = SocketAddr::from(self.flow().1.remote);
                let kept = self.keep(Ok(socket));
                if peer == expected { kept } else { peer.to_string() }
            }
            Err(error) => name(&error),
        }
    }

    fn keep(&mut self, socket: Result<ConnectedSocket, SocketError>) -> String {
        match socket {
            Ok(socket) => {
                let old = self.flow().1.socket.replace(socket);
                assert!(old.is_none(), "the flow's last socket is closed");
                "ok".into()
            }
            Err(error) => name(&error),
        }
    }

    fn send(&mut self, len: usize) -> Option<String> {
        let Self { host, flows, current, now, .. } = self;
        let flow = flows.get_mut(current)?;
        let bytes = stream(false, flow.given, len);
        let sent = host.send(*now, flow.socket.as_ref()?, &[IoSlice::new(&bytes)], false);
        Some(match sent {
            Ok(taken) => {
                flow.given = flow.given.wrapping_add(taken as u32);
                taken.to_string()
            }
            Err(error) => name(&error),
        })
    }

    fn recv(&mut self, len: usize) -> Option<String> {
        let Self { host, flows, current, now, .. } = self;
        let flow = flows.get_mut(current)?;
        let mut buffer = vec![0; len];
        Some(match host.recv(*now, flow.socket.as_ref()?, &mut buffer) {
            Ok(Received::Bytes(count)) if buffer[..count] != stream(true, flow.taken, count) => {
                "wrong bytes".into()
            }
            Ok(Received::Bytes(count)) => {
                flow.taken = flow.taken.wrapping_add(count as u32);
                count.to_string()
            }
            Ok(Received::WouldBlock) => "none".into(),
            Ok(Received::EndOfStream) => "end".into(),
            Err(error) => name(&error),
        })
    }

    fn close(&mut self, abort: bool) -> Option<String> {
        let socket = self.flow().1.socket.take()?;
        self.host.close(self.now, socket, abort);
        Some("ok".into())
    }

    /// Closes everything and waits: nothing may be left.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        for flow in self.flows.values_mut() {
            if let Some(socket) = flow.socket.take() {
                self.host.close(self.now, socket, true);
            }
        }
        if let Some(server) = self.server.take() {
            self.host.close_listener(self.now, server);
        }
        self.settle();
        self.advance(self.now + AFTERMATH, false);
        let counters = self.host.counters();
        let left = counters.iter().filter(|(name, count)| name.ends_with("_in_use") && *count > 0);
        match left.clone().count() {
            0 => Ok(()),
            _ => Err(format!("left at the end: {:?}", left.collect::<Vec<_>>())),
        }
    }
}

/// The number after the last one of a segment.
fn end(segment: &Segment) -> u32 {
    let flags = u32::from(segment.flags.has(Flags::SYN)) + u32::from(segment.flags.has(Flags::FIN));
    segment.seq.wrapping_add(segment.payload.len() as u32 + flags)
}

/// An error in a word.
fn name(error: &SocketError) -> String {
    let name = match error {
        SocketError::Refused => "refused",
        SocketError::Reset => "reset",
        SocketError::TimedOut => "timedout",
        SocketError::Unreachable(_) => "unreachable",
        SocketError::Shutdown => "shut",
        error => return error.to_string(),
    };
    name.to_owned()
}
