//! More SYNs than anybody can answer for, and who connects meanwhile.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::wire::TcpControl;

use super::lab::{server_of, v6};
use super::raw::{ACK, Bench, SYN, Say};
use crate::device::BURST_MAX;
use crate::flow::FlowKey;
use crate::front::{TcpFlags, TcpView};
use crate::guard::COOKIE_PERIOD_TICKS;
use crate::stack::{ConnectedSocket, ListenOptions, Received, ServerSocket, Worker};

const MS: Duration = Duration::from_millis(1);
/// Places of the listeners here.
const BACKLOG: usize = 8;
/// SYNs of the long flood.
const SYNS: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
/// Ports from here on are the flood's.
const FLOOD_PORT: u16 = 1000;
/// A client with all that is kept of a SYN.
const CLIENT: Say<'_> = Say { seq: 77_000, scale: Some(7), mss: Some(1460), sack: true, ..SYN };

/// A flood of SYNs that go on coming.
struct Flood {
    sent: usize,
    key: Key,
}

/// The flow of a port of the peer.
type Key = fn(u16) -> FlowKey;

fn key_v6(port: u16) -> FlowKey {
    FlowKey::new(server_of(v6(0)), SocketAddr::new(v6(1), port))
}

impl Flood {
    fn burst(&mut self, bench: &mut Bench, syns: usize) {
        for _ in 0..syns {
            let port = FLOOD_PORT + (self.sent % 60_000) as u16;
            let seq = (self.sent as u32).wrapping_mul(0x9e37_79b9);
            bench.say(&(self.key)(port), Say { seq, ..CLIENT });
            self.sent += 1;
        }
    }

    /// A flood that has gone on until the worker has seen that it is one.
    fn begin(bench: &mut Bench, key: Key) -> Self {
        let mut flood = Self { sent: 0, key };
        while bench.counter("syn_cookies_sent") == 0 {
            flood.burst(bench, 1);
            bench.run(MS);
            assert!(flood.sent < 1000);
        }
        flood
    }
}

/// The worker's answer to a client's SYN.
fn answer(bench: &mut Bench, key: &FlowKey, syn: Say<'_>) -> TcpView {
    bench.say(key, syn);
    let heard = bench.run(2 * MS);
    *heard.iter().find(|segment| segment.key.local_port == key.remote_port).unwrap()
}

/// A client that has connected by cookie and has said `hello`.
fn connect(
    bench: &mut Bench,
    server: &ServerSocket,
    key: &FlowKey,
    syn: Say<'_>,
) -> (ConnectedSocket, u32) {
    let cookies = bench.counter("syn_cookies_sent");
    let number = answer(bench, key, syn).seq + 1;
    assert_eq!(bench.counter("syn_cookies_sent"), cookies + 1);
    bench.say(key, Say { seq: syn.seq + 1, ack: Some(number), payload: b"hello", ..ACK });
    bench.run(2 * MS);
    let (socket, peer) = bench.host.accept(bench.now, server).unwrap().unwrap();
    assert_eq!(peer, key.remote());
    (socket, number)
}

fn received(bench: &mut Bench, socket: &ConnectedSocket) -> Received {
    bench.host.recv(bench.now, socket, &mut [0; 100]).unwrap()
}

fn send(bench: &mut Bench, socket: &ConnectedSocket, bytes: &[u8]) {
    assert_eq!(
        bench.host.send(bench.now, socket, &[IoSlice::new(bytes)], false).unwrap(),
        bytes.len()
    );
}

#[test]
fn a_flood_grows_nothing_and_who_answers_gets_in() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen_with(BACKLOG);
    let mut flood = Flood { sent: 0, key: Bench::key };
    let mut heard = Vec::new();
    while flood.sent < SYNS {
        flood.burst(&mut bench, BURST_MAX);
        bench.turn(&mut heard);
        heard.clear();
        bench.now += MS / 4;
    }
    bench.run(MS);
    let of = |bench: &Bench, name| bench.counter(name) as usize;
    assert_eq!(of(&bench, "connections_in_use"), BACKLOG);
    assert_eq!(of(&bench, "flows_in_use"), BACKLOG);
    assert_eq!(of(&bench, "half_open_in_use"), BACKLOG);
    assert_eq!(of(&bench, "strangers_refused"), 0);
    let cookies = of(&bench, "syn_cookies_sent");
    assert!(cookies > SYNS / 2, "{cookies}");
    // Repeated SYNs of half-open connections are challenged; the rest was half-open once.
    let drops = of(&bench, "syn_backlog_drops") + of(&bench, "late_syn_drops");
    assert!(SYNS - cookies - drops < 100 * BACKLOG);

    let key = Bench::key(7);
    let (socket, number) = connect(&mut bench, &server, &key, CLIENT);
    assert_eq!(received(&mut bench, &socket), Received::Bytes(5));
    send(&mut bench, &socket, b"welcome");
    let heard = bench.run(2 * MS);
    assert!(heard.iter().any(|segment| (segment.seq, segment.payload_len) == (number, 7)));
    assert_eq!(of(&bench, "syn_cookies_returned"), 1);

    // When it is over nothing is left of it.
    bench.host.close(bench.now, socket, true);
    bench.run(Duration::from_secs(11));
    for gauge in ["connections_in_use", "flows_in_use", "half_open_in_use", "timers_in_use"] {
        assert_eq!(bench.counter(gauge), 0, "{gauge}");
    }
    answer(&mut bench, &Bench::key(8), CLIENT);
    assert_eq!(of(&bench, "half_open_in_use"), 1);
}

#[test]
fn sessions_go_on_in_a_flood() {
    const TURNS: usize = 1000;
    let mut bench = Bench::new(|_| {});
    let server = bench.listen_with(BACKLOG);
    let key = Bench::key(7);
    let mut ack = bench.half_open(&key, SYN).seq + 1;
    let mut seq = SYN.seq + 1;
    bench.say(&key, Say { seq, ack: Some(ack), ..ACK });
    bench.run(MS);
    let (socket, _) = bench.host.accept(bench.now, &server).unwrap().unwrap();
    let mut flood = Flood::begin(&mut bench, Bench::key);
    let mut answers = 0;
    for _ in 0..TURNS {
        // As much of the flood as the worker takes in a turn, but for this.
        flood.burst(&mut bench, 2 * BURST_MAX - 1);
        bench.say(&key, Say { seq, ack: Some(ack), payload: b"question", ..ACK });
        seq += 8;
        let mut heard = Vec::new();
        bench.turn(&mut heard);
        bench.now += MS / 2;
        if received(&mut bench, &socket) == Received::Bytes(8) {
            send(&mut bench, &socket, b"answer");
        }
        bench.host.flush(bench.now).unwrap();
        bench.turn(&mut heard);
        let is_answer = |segment: &TcpView| segment.seq == ack && segment.payload_len == 6;
        if heard.iter().any(is_answer) {
            answers += 1;
            ack += 6;
        }
    }
    assert!(answers > TURNS * 8 / 10, "{answers}");
}

#[test]
fn a_cookie_says_what_any_answer_says() {
    let syns =
        [CLIENT, SYN, Say { scale: None, ..CLIENT }, Say { scale: Some(0), sack: false, ..CLIENT }];
    let cases = [4000, 65_535, 1 << 20].map(|bytes| [(bytes, Bench::key as Key), (bytes, key_v6)]);
    for (rx_buffer_bytes, key) in cases.into_iter().flatten() {
        let mut bench = Bench::new(|config| config.rx_buffer_bytes = rx_buffer_bytes);
        let options = ListenOptions { backlog: BACKLOG, ..ListenOptions::default() };
        let server = bench.host.listen(bench.now, key(1).local(), &options).unwrap();
        let answers = |bench: &mut Bench, port: u16| {
            let mut said = Vec::new();
            for (index, syn) in (0u16..).zip(syns) {
                let view = answer(bench, &key(port + index), syn);
                assert_eq!((view.flags, view.ack), (TcpFlags::SYN | TcpFlags::ACK, syn.seq + 1));
                said.push((view.window, bench.heard_options.clone()));
            }
            said
        };
        let ordinary = answers(&mut bench, 1);
        Flood::begin(&mut bench, key);
        let cookies = bench.counter("syn_cookies_sent");
        assert_eq!(answers(&mut bench, 11), ordinary);
        assert_eq!(bench.counter("syn_cookies_sent"), cookies + syns.len() as u64);
        let (socket, _) = connect(&mut bench, &server, &key(21), CLIENT);
        assert_eq!(received(&mut bench, &socket), Received::Bytes(5));
    }
}

#[test]
fn what_a_syn_allows_is_kept_to_after_a_cookie() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen_with(BACKLOG);
    Flood::begin(&mut bench, Bench::key);
    let syn = Say { mss: Some(1000), ..CLIENT };
    let key = Bench::key(7);
    let (socket, number) = connect(&mut bench, &server, &key, syn);
    let seq = syn.seq + 6;
    // A hole is reported as SACK says.
    bench.say(&key, Say { seq: seq + 100, ack: Some(number), payload: b"ahead", ..ACK });
    bench.run(MS);
    assert!(bench.heard_options.windows(2).any(|option| option == [5, 10]), "a block");
    // A window of 20 << 7 bytes.
    bench.say(&key, Say { seq, ack: Some(number), window: 20, ..ACK });
    bench.run(MS);
    send(&mut bench, &socket, &[1; 5000]);
    let heard = bench.run(2 * MS);
    let data: Vec<_> = heard.iter().filter(|segment| segment.payload_len > 0).collect();
    assert!(data.iter().all(|segment| segment.payload_len <= 536), "of 536 and 1220");
    assert_eq!(data.iter().map(|segment| segment.payload_len).sum::<usize>(), 20 << 7);
}

#[test]
fn only_a_cookie_of_ours_opens_anything() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen_with(BACKLOG);
    Flood::begin(&mut bench, Bench::key);
    let key = Bench::key(7);
    let cookie = answer(&mut bench, &key, CLIENT).seq;
    let ack =
        |cookie: u32| Say { seq: CLIENT.seq + 1, ack: Some(cookie + 1), payload: b"evil", ..ACK };
    for guess in (0..32).map(|bit| cookie ^ 1 << bit) {
        bench.say(&key, ack(guess));
        let heard = bench.run(MS / 2);
        assert_eq!((heard[0].flags, heard[0].seq), (TcpFlags::RST, guess + 1));
    }
    bench.say(&key, Say { seq: CLIENT.seq + 2, ..ack(cookie) });
    bench.say(&Bench::key(8), ack(cookie));
    bench.say(&key, Say { control: TcpControl::Rst, ..ack(cookie) });
    bench.run(MS);
    assert_eq!(bench.counter("syn_cookies_returned"), 0);
    assert!(bench.host.accept(bench.now, &server).unwrap().is_none());
    // It was good all the time, and is not for ever.
    bench.run(Duration::from_millis(2 * COOKIE_PERIOD_TICKS));
    bench.say(&key, ack(cookie));
    assert_eq!(bench.run(MS)[0].flags, TcpFlags::RST);
    assert_eq!(bench.counter("syn_cookies_returned"), 0);
}

#[test]
fn who_finds_no_place_is_not_heard_until_there_is_one() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen_with(BACKLOG);
    // The last handshake is an honest one that takes its time.
    let slow = Bench::key(7);
    let slow_number = bench.half_open(&slow, CLIENT).seq + 1;
    Flood::begin(&mut bench, Bench::key);
    let clients = (0..=BACKLOG as u16).map(|index| Bench::key(11 + index));
    let clients: Vec<_> =
        clients.map(|key| (key, answer(&mut bench, &key, CLIENT).seq + 1)).collect();
    let hello = |number| Say { seq: CLIENT.seq + 1, ack: Some(number), payload: b"hello", ..ACK };
    for (key, number) in &clients {
        bench.say(key, hello(*number));
    }
    bench.say(&slow, hello(slow_number));
    let mut heard = Vec::new();
    bench.turn(&mut heard);
    bench.turn(&mut heard);
    let (late, number) = clients[BACKLOG];
    let is_theirs = |port| [late.remote_port, slow.remote_port].contains(&port);
    assert!(heard.iter().all(|segment| !is_theirs(segment.key.local_port)), "no answer, no reset");
    assert_eq!(bench.counter("accept_queue_drops"), 2);
    assert_eq!(bench.counter("connections_in_use"), 2 * BACKLOG as u64);

    for (key, number) in [(late, number), (slow, slow_number)] {
        assert!(bench.host.accept(bench.now, &server).unwrap().is_some());
        bench.say(&key, hello(number)); // again
        bench.run(MS);
    }
    let accepted = std::iter::from_fn(|| bench.host.accept(bench.now, &server).unwrap());
    assert_eq!(accepted.count(), BACKLOG);
    assert_eq!(bench.counter("accept_queue_drops"), 2);
    assert_eq!(bench.counter("half_open_in_use"), BACKLOG as u64 - 1);
}
