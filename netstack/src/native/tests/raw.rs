//! Segments made by hand: what no well-behaved peer would send, or not at that time.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::wire::{
    IpProtocol, IpRepr, TCP_HEADER_LEN, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::lab::{Host, PORT, config, server_of, v4};
use crate::device::sim::{Faults, SimDevice, SimNet, SimPort, WhenFull};
use crate::device::{Burst, Frame, PacketDevice};
use crate::flow::FlowKey;
use crate::front::{Front, Heard, Inbound, Output, TcpFlags, TcpView};
use crate::native::{NativeConfig, NativeStack};
use crate::phy::Wire;
use crate::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Received,
    ServerSocket, SocketError, Worker,
};

/// A worker, and a peer that says what it is told to.
pub(super) struct Bench {
    pub(super) now: Instant,
    pub(super) net: SimNet,
    pub(super) host: Host,
    pub(super) peer: Wire<SimDevice>,
    /// The options of the last segment the worker sent.
    pub(super) heard_options: Vec<u8>,
}

/// What the peer says, with the worker's side of the flow first in `key`.
#[derive(Clone, Copy)]
pub(super) struct Say<'a> {
    pub(super) control: TcpControl,
    pub(super) seq: u32,
    pub(super) ack: Option<u32>,
    pub(super) window: u16,
    pub(super) scale: Option<u8>,
    pub(super) mss: Option<u16>,
    pub(super) sack: bool,
    pub(super) payload: &'a [u8],
}

pub(super) const SYN: Say<'_> = Say {
    control: TcpControl::Syn,
    seq: 1000,
    ack: None,
    window: 60_000,
    scale: None,
    mss: None,
    sack: false,
    payload: &[],
};
pub(super) const ACK: Say<'_> = Say { control: TcpControl::None, ..SYN };

impl Say<'_> {
    /// Says it from a device.
    pub(super) fn by(self, wire: &mut Wire<SimDevice>, now: Instant, key: &FlowKey) {
        let say = self;
        let tcp = TcpRepr {
            src_port: key.remote_port,
            dst_port: key.local_port,
            control: say.control,
            seq_number: TcpSeqNumber(say.seq as i32),
            ack_number: say.ack.map(|ack| TcpSeqNumber(ack as i32)),
            window_len: say.window,
            window_scale: say.scale,
            max_seg_size: say.mss,
            sack_permitted: say.sack,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: say.payload,
        };
        let (source, destination) = (key.remote().ip().into(), key.local().ip().into());
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let (front, mut queue) = wire.front_and_output(now);
        let start = front.link_header_len();
        let mut frame = queue.alloc(start + ip.buffer_len()).unwrap();
        let packet = &mut frame.bytes_mut()[start..];
        let caps = Default::default();
        ip.emit(&mut *packet, &caps);
        let segment = &mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        tcp.emit(segment, &source, &destination, &caps);
        front.send(now, frame, &mut queue);
        wire.flush(now);
    }
}

impl Bench {
    pub(super) fn new(change: impl FnOnce(&mut NativeConfig)) -> Self {
        Self::over([1, 2].map(SimPort::new), change)
    }

    /// The worker on the first port, the peer on the second.
    pub(super) fn over(ports: [SimPort; 2], change: impl FnOnce(&mut NativeConfig)) -> Self {
        let (net, devices) = SimNet::new(1, &ports);
        let mut devices = devices.into_iter().flatten();
        let (host, peer) = (devices.next().unwrap(), devices.next().unwrap());
        let mut own = config(0);
        change(&mut own);
        let host = NativeStack::new(vec![host], own).into_workers().unwrap().pop().unwrap();
        let front = Front::new(&config(1).front(peer.info()).unwrap()).unwrap();
        let peer = Wire::new(peer, front, 1);
        Self { now: Instant::now(), net, host, peer, heard_options: Vec::new() }
    }

    /// The flow of the peer's `port` and the worker's, as the worker sees it.
    pub(super) fn key(port: u16) -> FlowKey {
        FlowKey::new(server_of(v4(0)), SocketAddr::new(v4(1), port))
    }

    /// The worker calls the peer, whose address it has learned before; and its SYN.
    pub(super) fn call(&mut self, key: &FlowKey) -> (ConnectedSocket, TcpView) {
        let time = Duration::from_millis(5);
        self.say(key, ACK); // a stranger's: with it comes the address
        self.run(time);
        let options = ConnectOptions { bind: Some(key.local()), priority: None };
        let client = self.host.connect(self.now, key.remote(), &options).unwrap();
        (client, self.run(time)[0])
    }

    pub(super) fn say(&mut self, key: &FlowKey, say: Say<'_>) {
        say.by(&mut self.peer, self.now, key);
    }

    /// Turns of both for a while; what the worker said to the peer.
    pub(super) fn run(&mut self, time: Duration) -> Vec<TcpView> {
        let end = self.now + time;
        let mut heard = Vec::new();
        while self.now < end {
            self.turn(&mut heard);
            self.now += Duration::from_micros(500);
        }
        heard
    }

    pub(super) fn turn(&mut self, heard: &mut Vec<TcpView>) {
        self.host.wait(self.now, None, &mut Vec::new()).unwrap();
        self.host.flush(self.now).unwrap();
        let at = self.peer.clock.at(self.now);
        let mut burst = Burst::new();
        self.peer.device_mut().rx_burst(self.now, &mut burst);
        for frame in burst {
            if let Inbound::Tcp { frame, segment } = self.peer.receive(at, frame) {
                let options = &frame.bytes()[..segment.payload_start];
                self.heard_options = options[segment.tcp_start + TCP_HEADER_LEN..].to_vec();
                heard.push(segment);
            }
        }
        self.peer.flush(self.now);
    }

    pub(super) fn listen(&mut self) -> ServerSocket {
        self.listen_with(ListenOptions::default().backlog)
    }

    pub(super) fn listen_with(&mut self, backlog: usize) -> ServerSocket {
        let options = ListenOptions { backlog, ..ListenOptions::default() };
        self.host.listen(self.now, server_of(v4(0)), &options).unwrap()
    }

    /// A SYN from the peer and the worker's answer to it.
    pub(super) fn half_open(&mut self, key: &FlowKey, syn: Say<'_>) -> TcpView {
        self.say(key, syn);
        let heard = self.run(Duration::from_millis(20));
        assert_eq!(heard[0].flags, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(heard[0].ack, syn.seq + 1);
        heard[0]
    }

    pub(super) fn counter(&self, name: &str) -> u64 {
        let counters = self.host.counters();
        counters.iter().find(|(other, _)| *other == name).expect("a counter of that name").1
    }
}

/// Overruns the window that a worker offered in its SYN|ACK, as one peer in one burst can.
fn overrun(rx_bytes: usize) -> Bench {
    let mut bench = Bench::new(|_| {});
    bench.host.sockets.rx_bytes = rx_bytes;
    bench.listen();
    let key = Bench::key(7);
    let syn_ack = bench.half_open(&key, Say { scale: Some(7), ..SYN });
    let ack = Some(syn_ack.seq + 1);
    // All of it arrives in turns between which the worker's owner has no turn.
    let chunk = [7; 1400];
    for index in 0..rx_bytes as u32 / 1400 + 20 {
        let seq = SYN.seq + 1 + index * 1400;
        bench.say(&key, Say { seq, ack, payload: &chunk, ..ACK });
        if index % 32 == 31 {
            bench.host.wait(bench.now, None, &mut Vec::new()).unwrap();
            // What it has to say is held back, so that no ordinary window is told.
            bench.host.touched.clear();
        }
    }
    bench.run(Duration::from_millis(5));
    bench
}

#[test]
fn no_peer_can_overrun_the_window_of_our_syn() {
    let panics = |rx_bytes| overrun(rx_bytes).counter("connection_panics");
    assert_eq!(panics(131_072), 1, "the rule is obsolete");
    assert_eq!(panics(crate::conn::rx_capacity(131_072)), 0);
    assert_eq!(panics(crate::conn::rx_capacity(1 << 20)), 0);
}

#[test]
fn a_panic_ends_a_connection_and_no_other() {
    let mut bench = overrun(131_072);
    assert_eq!(bench.counter("connection_panics"), 1);
    assert_eq!(bench.counter("connections_reset"), 1);
    // It was accepted when that happened, and is told as reset; its peer is, too.
    let server = ServerSocket(bench.host.listeners.get(0).unwrap().id);
    let (socket, _) = bench.host.accept(bench.now, &server).unwrap().unwrap();
    let mut recv = |socket| bench.host.recv(bench.now, socket, &mut [0; 9]);
    assert!(matches!(recv(&socket), Err(SocketError::Reset)));
    bench.host.close(bench.now, socket, false);
    bench.say(&Bench::key(7), Say { seq: 5, ack: Some(99), ..ACK });
    let heard = bench.run(Duration::from_millis(5));
    assert_eq!((heard[0].flags, heard[0].seq), (TcpFlags::RST, 99));
    for gauge in ["connections_in_use", "flows_in_use", "timers_in_use"] {
        assert_eq!(bench.counter(gauge), 0, "{gauge}");
    }

    let key = Bench::key(8);
    let syn_ack = bench.half_open(&key, SYN);
    let hello = Say { seq: SYN.seq + 1, ack: Some(syn_ack.seq + 1), payload: b"hello", ..ACK };
    bench.say(&key, hello);
    bench.run(Duration::from_millis(5));
    let (socket, _) = bench.host.accept(bench.now, &server).unwrap().unwrap();
    let mut recv = |socket| bench.host.recv(bench.now, socket, &mut [0; 9]);
    assert_eq!(recv(&socket).unwrap(), Received::Bytes(5));
}

#[test]
fn a_syn_that_arrives_before_ours_was_sent_is_ignored_until_it_was() {
    // The device takes one frame in 50 ms.
    let faults = Faults { delay: Duration::from_millis(50), ..Faults::default() };
    let host = SimPort { faults, ..SimPort::new(1) };
    let peer = SimPort { ring_frames: 1, when_full: WhenFull::Wait, ..SimPort::new(2) };
    let mut bench = Bench::over([host, peer], |_| {});
    let key = Bench::key(PORT);
    bench.say(&key, ACK); // the host learns the neighbour's address
    bench.run(Duration::from_millis(200));
    let bind = Some(key.local());
    // Fill the worker's queue: refused strangers.
    for port in 2000..2100 {
        bench.say(&Bench::key(port), SYN);
    }
    bench.host.wait(bench.now, None, &mut Vec::new()).unwrap();
    let options = ConnectOptions { bind, priority: None };
    let client = bench.host.connect(bench.now, key.remote(), &options).unwrap();
    let is_silent = |bench: &Bench| bench.host.conns.iter().all(|(_, conn)| conn.last.is_none());
    assert!(is_silent(&bench), "the SYN is not out yet");
    bench.say(&key, SYN);
    bench.host.wait(bench.now, None, &mut Vec::new()).unwrap();
    assert_eq!(bench.counter("early_segment_drops"), 1);
    // Once it is out, the peer's next SYN makes it a simultaneous open.
    let mut heard = bench.run(Duration::from_secs(6));
    heard.retain(|segment| segment.key.local_port == PORT);
    let syn = heard.iter().find(|segment| segment.flags == TcpFlags::SYN).unwrap();
    bench.say(&key, SYN);
    let answers = bench.run(Duration::from_millis(200));
    let syn_ack = answers.iter().find(|a| a.flags == TcpFlags::SYN | TcpFlags::ACK).unwrap();
    assert_eq!((syn_ack.seq, syn_ack.ack), (syn.seq, SYN.seq + 1));
    bench.say(&key, Say { seq: SYN.seq + 1, ack: Some(syn.seq + 1), ..ACK });
    bench.run(Duration::from_millis(200));
    assert!(bench.host.is_connected(&client).unwrap());
}

#[test]
fn a_simultaneous_open_given_up_is_gone_also_when_its_reset_cannot_be_sent() {
    // Room for the SYN and the SYN|ACK; both wait for a neighbour that will not answer.
    let host = SimPort { pool_frames: 2, ..SimPort::new(1) };
    let mut bench = Bench::over([host, SimPort::new(2)], |config| {
        config.neighbor.retry = Duration::from_millis(10);
    });
    bench.net.set_blocked(0, 1, true);
    let mac = bench.host.wire.device().info().mac;
    let heard = Heard { ip: v4(0), mac, overrides: true, worth_an_entry: true };
    let (front, mut queue) = bench.peer.front_and_output(bench.now);
    front.learn(bench.now, heard, &mut queue);

    let key = Bench::key(PORT);
    let options = ConnectOptions { bind: Some(key.local()), priority: None };
    let client = bench.host.connect(bench.now, key.remote(), &options).unwrap();
    bench.say(&key, SYN);
    bench.run(Duration::from_millis(2));
    assert_eq!(bench.counter("frames_in_use"), 2);
    bench.host.close(bench.now, client, false);
    bench.run(Duration::from_millis(2));
    assert_eq!(bench.counter("connections_in_use"), 1, "its reset is still to be sent");
    bench.run(Duration::from_secs(1));
    assert!(bench.counter("neighbors_unreachable") > 0);
    for gauge in ["connections_in_use", "flows_in_use", "timers_in_use", "frames_in_use"] {
        assert_eq!(bench.counter(gauge), 0, "{gauge}");
    }
    assert_eq!(bench.counter("connections_unreachable"), 0, "nobody waited for it");
}

#[test]
fn a_handshake_that_is_never_completed_is_forgotten() {
    let mut bench = Bench::new(|config| config.half_open_timeout = Duration::from_secs(2));
    bench.listen();
    for port in 1..=20 {
        bench.half_open(&Bench::key(port), SYN);
    }
    assert_eq!(bench.counter("half_open_in_use"), 20);
    bench.run(Duration::from_secs(3));
    assert_eq!(bench.counter("half_open_reaped"), 20);
    for gauge in ["half_open_in_use", "connections_in_use", "flows_in_use", "timers_in_use"] {
        assert_eq!(bench.counter(gauge), 0, "{gauge}");
    }
}

#[test]
fn a_reset_ends_a_half_open_connection() {
    let mut bench = Bench::new(|_| {});
    bench.listen();
    let key = Bench::key(7);
    bench.half_open(&key, SYN);
    bench.say(&key, Say { control: TcpControl::Rst, seq: SYN.seq + 1, ..ACK });
    bench.run(Duration::from_millis(5));
    assert_eq!(bench.counter("half_open_in_use"), 0);
    assert_eq!(bench.counter("connections_in_use"), 0);
}

/// Lets the worker close first and come to TIME-WAIT; its last sequence number.
fn to_time_wait(bench: &mut Bench, server: &ServerSocket, key: &FlowKey) -> u32 {
    let syn_ack = bench.half_open(key, SYN);
    let seq = SYN.seq + 1;
    bench.say(key, Say { seq, ack: Some(syn_ack.seq + 1), ..ACK });
    bench.run(Duration::from_millis(5));
    let (socket, _) = bench.host.accept(bench.now, server).unwrap().unwrap();
    let nothing = bench.host.recv(bench.now, &socket, &mut [0; 9]).unwrap();
    assert_eq!(nothing, Received::WouldBlock);
    bench.host.close(bench.now, socket, false);
    bench.run(Duration::from_millis(5));
    let end = syn_ack.seq + 2;
    bench.say(key, Say { control: TcpControl::Fin, seq, ack: Some(end), ..ACK });
    bench.run(Duration::from_millis(5));
    assert_eq!(bench.counter("time_wait_in_use"), 1);
    assert_eq!(bench.counter("connections_in_use"), 0, "no socket is needed for it");
    end
}

#[test]
fn time_wait_answers_a_repeated_fin_and_gives_way_to_a_newer_syn() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen();
    let key = Bench::key(7);
    let end = to_time_wait(&mut bench, &server, &key);
    let fin = Say { control: TcpControl::Fin, seq: SYN.seq + 1, ack: Some(end), ..ACK };
    bench.say(&key, fin);
    let heard = bench.run(Duration::from_millis(5));
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].flags, heard[0].seq), (TcpFlags::ACK, end));
    assert_eq!(heard[0].ack, SYN.seq + 2);

    // An old duplicate of the first SYN opens nothing, and a reset ends nothing.
    bench.say(&key, SYN);
    let heard = bench.run(Duration::from_millis(5));
    assert_eq!(heard[0].flags, TcpFlags::ACK);
    bench.say(&key, Say { control: TcpControl::Rst, seq: SYN.seq + 2, ..ACK });
    assert_eq!(bench.run(Duration::from_millis(5)), []);
    assert_eq!(bench.counter("time_wait_in_use"), 1);

    bench.half_open(&key, Say { seq: SYN.seq + 50_000, ..SYN });
    assert_eq!(bench.counter("time_wait_in_use"), 0);
    assert_eq!(bench.counter("time_wait_reused"), 1);
}

#[test]
fn a_newer_syn_without_a_listener_is_refused() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen();
    let key = Bench::key(7);
    to_time_wait(&mut bench, &server, &key);
    bench.host.close_listener(bench.now, server);
    bench.say(&key, Say { seq: SYN.seq + 50_000, ..SYN });
    let heard = bench.run(Duration::from_millis(5));
    assert!(heard[0].flags.contains(TcpFlags::RST));
    assert_eq!(bench.counter("flows_in_use"), 0);
}

#[test]
fn an_acknowledgement_of_nothing_is_answered_with_a_reset_at_its_place() {
    let mut bench = Bench::new(|_| {});
    let key = Bench::key(7);
    bench.say(&key, Say { ack: Some(4242), ..ACK });
    let heard = bench.run(Duration::from_millis(5));
    assert_eq!((heard[0].flags, heard[0].seq), (TcpFlags::RST, 4242));
    // A reset is never answered.
    bench.say(&key, Say { control: TcpControl::Rst, ..ACK });
    assert_eq!(bench.run(Duration::from_millis(5)), []);
    assert_eq!(bench.net.stats(0).lost, 0);
}

#[test]
fn what_is_known_of_acknowledgements_is_what_the_socket_knows() {
    let ms = Duration::from_millis(1);
    let mut bench = Bench::new(|_| {});
    let server = bench.listen();
    let key = Bench::key(7);
    let syn_ack = bench.half_open(&key, SYN);
    let (seq, ack) = (SYN.seq + 1, syn_ack.seq + 1);
    let question = Say { seq, ack: Some(ack), payload: b"question", ..ACK };
    bench.say(&key, question);
    bench.run(20 * ms);
    let (socket, _) = bench.host.accept(bench.now, &server).unwrap().unwrap();
    let answer = [IoSlice::new(b"answer")];
    assert_eq!(bench.host.send(bench.now, &socket, &answer, false).unwrap(), 6);
    bench.run(ms);
    let unacked = |bench: &Bench| {
        let info = bench.host.tcp_info(&socket).unwrap();
        (info.unacked_bytes, info.send_queue_bytes)
    };

    // A stranger guesses what was sent, but not what is expected.
    let acked = Some(ack + 6);
    bench.say(&key, Say { seq: seq + 1_000_000, ack: acked, ..ACK });
    bench.run(ms);
    assert_eq!(unacked(&bench), (6, 6));
    // All of this is old to the socket, which takes nothing from it.
    bench.say(&key, Say { ack: acked, ..question });
    bench.run(ms);
    assert_eq!(unacked(&bench), (6, 6));
    bench.say(&key, Say { seq: seq + 8, ack: acked, ..ACK });
    bench.run(ms);
    assert_eq!(unacked(&bench), (0, 0));
    assert_eq!(bench.counter("segments_resent"), 0);
}
