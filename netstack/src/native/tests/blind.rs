//! Strangers who know a connection's addresses and ports, and guess the rest (RFC 5961).

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::wire::TcpControl;

use super::lab::{PORT, v4};
use super::raw::{ACK, Bench, SYN, Say};
use crate::device::BURST_MAX;
use crate::flow::FlowKey;
use crate::front::{IcmpError, IcmpErrorKind, TcpFlags, TcpView};
use crate::guard::{CHALLENGES_PER_CONN, CHALLENGES_PER_WORKER, CONN_PERIOD_TICKS, Secret};
use crate::native::Congestion;
use crate::stack::{ConnectOptions, ConnectedSocket, Received, SocketError, Worker};

const MS: Duration = Duration::from_millis(1);
/// Guesses of each test that tries them all over the sequence numbers.
const GUESSES: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// An open connection from the peer, and what the peer knows of it.
struct Open {
    socket: ConnectedSocket,
    key: FlowKey,
    /// The peer's next number, and the worker's.
    seq: u32,
    ack: u32,
}

fn open(bench: &mut Bench, port: u16) -> Open {
    let server = bench.listen();
    let key = Bench::key(port);
    let syn_ack = bench.half_open(&key, SYN);
    let (seq, ack) = (SYN.seq + 1, syn_ack.seq + 1);
    bench.say(&key, Say { seq, ack: Some(ack), ..ACK });
    bench.run(5 * MS);
    let (socket, _) = bench.host.accept(bench.now, &server).unwrap().unwrap();
    Open { socket, key, seq, ack }
}

impl Open {
    fn say(&self, bench: &mut Bench, say: Say<'_>) -> Vec<TcpView> {
        bench.say(&self.key, say);
        bench.run(5 * MS)
    }

    fn received(&self, bench: &mut Bench) -> Result<Received, SocketError> {
        bench.host.recv(bench.now, &self.socket, &mut [0; 100])
    }

    /// The connection is as it was: it takes what comes and sends what is given.
    fn assert_alive(&self, bench: &mut Bench) {
        assert_eq!(self.received(bench).unwrap(), Received::WouldBlock);
        let heard =
            self.say(bench, Say { seq: self.seq, ack: Some(self.ack), payload: b"real", ..ACK });
        assert_eq!(heard.last().unwrap().ack, self.seq + 4);
        assert_eq!(self.received(bench).unwrap(), Received::Bytes(4));
        assert_eq!(
            bench.host.send(bench.now, &self.socket, &[IoSlice::new(b"true")], false).unwrap(),
            4
        );
        let heard = bench.run(5 * MS);
        assert!(heard.iter().any(|segment| segment.seq == self.ack && segment.payload_len == 4));
    }
}

/// Says all of `guesses` to the worker; how many answers there were.
fn guess(bench: &mut Bench, key: &FlowKey, guesses: impl Iterator<Item = Say<'static>>) -> usize {
    let mut answers = Vec::new();
    for (index, say) in guesses.enumerate() {
        bench.say(key, say);
        if index % BURST_MAX == 0 {
            bench.turn(&mut answers);
            bench.now += Duration::from_micros(100);
        }
    }
    answers.extend(bench.run(5 * MS));
    answers.len()
}

/// Numbers all over the circle, none of which is `known`.
fn all_over(known: u32) -> impl Iterator<Item = u32> {
    let step = u32::MAX / GUESSES;
    (0..GUESSES).map(move |index| known.wrapping_add(step / 2 + index * step))
}

fn challenges(bench: &Bench) -> u64 {
    bench.counter("challenge_acks_sent")
}

#[test]
fn no_guess_all_over_the_numbers_ends_a_connection_or_gets_a_byte_in() {
    let mut bench = Bench::new(|_| {});
    let open = open(&mut bench, 7);
    const KINDS: [TcpControl; 5] =
        [TcpControl::Rst, TcpControl::Syn, TcpControl::Psh, TcpControl::Fin, TcpControl::None];
    // What is acknowledged is guessed in another order than the sequence number.
    let guesses = all_over(open.seq).zip(all_over(open.ack).map(|ack| ack.swap_bytes()));
    let guesses = guesses.enumerate().map(|(index, (seq, ack))| {
        let control = KINDS[index % KINDS.len()];
        let payload: &[u8] = if control == TcpControl::Psh { b"evil" } else { &[] };
        Say { control, seq, ack: Some(ack), payload, ..ACK }
    });
    guess(&mut bench, &open.key, guesses);
    assert_eq!(bench.counter("connections_reset"), 0);
    let drops = ["inexact_reset_drops", "late_syn_drops", "bad_ack_drops"];
    let dropped: u64 = drops.iter().map(|name| bench.counter(name)).sum();
    // The others were out of the window.
    assert!(dropped > u64::from(GUESSES) * 95 / 100, "{dropped}");
    open.assert_alive(&mut bench);
}

#[test]
fn no_reset_ends_a_connection_but_the_one_at_the_next_number() {
    let mut bench = Bench::new(|_| {});
    let open = open(&mut bench, 7);
    let reset = |seq| Say { control: TcpControl::Rst, seq, ..ACK };
    // All of the window, and all around.
    let inside = (1..u32::from(u16::MAX)).map(|ahead| open.seq + ahead);
    guess(&mut bench, &open.key, inside.chain(all_over(open.seq)).map(reset));
    let time = bench.now;
    assert_eq!(bench.counter("connections_reset"), 0);
    assert!((1..=CHALLENGES_PER_CONN.into()).contains(&challenges(&bench)));
    assert!(bench.counter("challenge_acks_withheld") > 60_000);
    open.assert_alive(&mut bench);
    assert!(bench.now - time < Duration::from_millis(CONN_PERIOD_TICKS));

    open.say(&mut bench, reset(open.seq + 4));
    assert!(matches!(open.received(&mut bench), Err(SocketError::Reset)));
}

#[test]
fn data_with_an_acknowledgement_that_is_a_guess_is_not_taken() {
    let mut bench = Bench::new(|_| {});
    let open = open(&mut bench, 7);
    // Where the data goes is known; the peer's largest window was that of its SYN.
    let is_far =
        |ack: &u32| open.ack.wrapping_sub(*ack).wrapping_add(1) > u32::from(SYN.window) + 1;
    let say = |ack| Say { seq: open.seq, ack: Some(ack), payload: b"evil", ..ACK };
    let guesses: Vec<_> = all_over(open.ack).filter(is_far).collect();
    let count = guesses.len() as u64;
    guess(&mut bench, &open.key, guesses.into_iter().map(say));
    assert_eq!(bench.counter("bad_ack_drops"), count);
    // Nor is one without any.
    open.say(&mut bench, Say { control: TcpControl::Psh, ack: None, ..say(0) });
    assert_eq!(bench.counter("bad_ack_drops"), count + 1);
    open.assert_alive(&mut bench);
}

#[test]
fn a_window_in_a_segment_that_is_a_guess_is_not_believed() {
    let mut bench = Bench::new(|_| {});
    let open = open(&mut bench, 7);
    let far = Some(open.ack.wrapping_add(1 << 31));
    open.say(&mut bench, Say { seq: open.seq, ack: far, window: 0, ..ACK });
    assert_eq!(bench.counter("zero_windows_received"), 0);
    open.assert_alive(&mut bench);
}

#[test]
fn a_reset_right_behind_data_counts() {
    let mut bench = Bench::new(|_| {});
    let open = open(&mut bench, 7);
    // In one burst: the data is not acknowledged when the reset is looked at.
    let data = Say { seq: open.seq, ack: Some(open.ack), payload: b"last words", ..ACK };
    bench.say(&open.key, data);
    open.say(&mut bench, Say { control: TcpControl::Rst, seq: open.seq + 10, ..ACK });
    assert_eq!(bench.counter("inexact_reset_drops"), 0);
    assert!(matches!(open.received(&mut bench), Err(SocketError::Reset) | Ok(Received::Bytes(10))));
    assert_eq!(bench.counter("connections_reset"), 1);
}

#[test]
fn a_reset_right_behind_a_fin_counts() {
    let mut bench = Bench::new(|_| {});
    let open = open(&mut bench, 7);
    let fin = Say { control: TcpControl::Fin, seq: open.seq, ack: Some(open.ack), ..ACK };
    bench.say(&open.key, fin);
    open.say(&mut bench, Say { control: TcpControl::Rst, seq: open.seq + 1, ..ACK });
    assert_eq!(bench.counter("connections_reset"), 1);
}

#[test]
fn our_reset_is_where_the_peer_expects_it_also_while_smoltcp_repeats() {
    let mut bench = Bench::new(|config| config.congestion = Congestion::None);
    let open = open(&mut bench, 7);
    let data = [1; 5000];
    let sent = bench.host.send(bench.now, &open.socket, &[IoSlice::new(&data)], false).unwrap();
    bench.run(5 * MS);
    // All of it arrives, but the peer has room for little more, and its acknowledgement is lost.
    open.say(&mut bench, Say { seq: open.seq, ack: Some(open.ack), window: 10, ..ACK });
    bench.run(Duration::from_millis(250));
    bench.host.close(bench.now, open.socket, true);
    let heard = bench.run(5 * MS);
    let reset = heard.iter().find(|segment| segment.flags.contains(TcpFlags::RST)).unwrap();
    assert_eq!(reset.seq, open.ack + sent as u32);
}

#[test]
fn a_peer_that_has_restarted_is_asked_and_resets_its_former_connection() {
    for control in [TcpControl::Syn, TcpControl::Rst] {
        let mut bench = Bench::new(|_| {});
        let open = open(&mut bench, 7);
        let heard = open.say(&mut bench, Say { control, seq: open.seq + 1000, ..SYN });
        let [challenge] = heard[..] else {
            panic!("{heard:?}");
        };
        assert_eq!((challenge.flags, challenge.ack), (TcpFlags::ACK, open.seq));
        assert_eq!(challenges(&bench), 1);
        assert_eq!(bench.counter("connections_reset"), 0);
        // The peer knows nothing of what was acknowledged there.
        open.say(&mut bench, Say { control: TcpControl::Rst, seq: challenge.ack, ..ACK });
        assert_eq!(bench.counter("connections_reset"), 1);
        assert!(matches!(open.received(&mut bench), Err(SocketError::Reset)));
    }
}

#[test]
fn a_repeated_syn_ack_gets_the_acknowledgement_that_was_lost() {
    let mut bench = Bench::new(|_| {});
    let key = Bench::key(PORT);
    let (client, syn) = bench.call(&key);
    let syn_ack = Say { ack: Some(syn.seq + 1), ..SYN };
    for _ in 0..3 {
        bench.say(&key, syn_ack);
        let heard = bench.run(5 * MS);
        assert_eq!(
            heard.last().map(|ack| (ack.flags, ack.ack)),
            Some((TcpFlags::ACK, SYN.seq + 1))
        );
        assert!(bench.host.is_connected(&client).unwrap());
    }
    assert_eq!(bench.counter("late_syn_drops"), 2);
}

#[test]
fn a_handshake_is_not_completed_by_who_has_not_seen_our_number() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen();
    let key = Bench::key(7);
    let syn_ack = bench.half_open(&key, SYN);
    let number = syn_ack.seq + 1;
    for ack in all_over(number).step_by(GUESSES as usize / 500).chain([number - 1, number + 1]) {
        bench.say(&key, Say { seq: SYN.seq + 1, ack: Some(ack), payload: b"evil", ..ACK });
        let heard = bench.run(MS);
        // RFC 9293 section 3.10.7.4.
        assert_eq!((heard[0].flags, heard[0].seq), (TcpFlags::RST, ack));
    }
    // A second SYN changes nothing about the first.
    bench.say(&key, Say { seq: SYN.seq + 5000, scale: Some(9), window: 1, ..SYN });
    bench.run(MS);
    assert_eq!(bench.counter("half_open_in_use"), 1);
    assert!(bench.host.accept(bench.now, &server).unwrap().is_none());
    bench.say(&key, Say { seq: SYN.seq + 1, ack: Some(number), ..ACK });
    bench.run(MS);
    assert!(bench.host.accept(bench.now, &server).unwrap().is_some());
}

#[test]
fn a_half_open_connection_is_reset_at_the_next_number_only() {
    let mut bench = Bench::new(|_| {});
    bench.listen();
    let key = Bench::key(7);
    bench.half_open(&key, SYN);
    for seq in [0, 2, 1000, 60_000, 1 << 31] {
        bench.say(&key, Say { control: TcpControl::Rst, seq: SYN.seq.wrapping_add(seq), ..ACK });
    }
    bench.run(MS);
    assert_eq!(bench.counter("inexact_reset_drops"), 5);
    assert_eq!(bench.counter("half_open_in_use"), 1);
}

#[test]
fn who_is_called_resets_by_acknowledging_the_call_only() {
    let mut bench = Bench::new(|_| {});
    let key = Bench::key(PORT);
    let (client, syn) = bench.call(&key);
    let number = syn.seq + 1;
    let reset = |ack| Say { control: TcpControl::Rst, seq: 0, ack, ..ACK };
    bench.say(&key, reset(None));
    let guesses = all_over(number).step_by(GUESSES as usize / 1000);
    for ack in guesses.chain([number - 1, number + 1]) {
        bench.say(&key, reset(Some(ack)));
        bench.run(MS / 2);
    }
    assert!(!bench.host.is_connected(&client).unwrap());
    assert!(bench.counter("inexact_reset_drops") > 1000);
    // An old connection of the peer's is told that it is none (RFC 9293 section 3.5.1).
    bench.say(&key, Say { seq: 5, ack: Some(number + 99), ..ACK });
    let heard = bench.run(5 * MS);
    assert_eq!((heard[0].flags, heard[0].seq), (TcpFlags::RST, number + 99));
    bench.say(&key, reset(Some(number)));
    bench.run(5 * MS);
    assert!(matches!(bench.host.is_connected(&client), Err(SocketError::Refused)));
}

#[test]
fn no_icmp_error_ends_a_connection_that_is_open() {
    let mut bench = Bench::new(|_| {});
    let open = open(&mut bench, 7);
    let kinds = [
        IcmpErrorKind::PortUnreachable,
        IcmpErrorKind::Unreachable,
        IcmpErrorKind::TooBig { mtu: 68 },
    ];
    for kind in kinds {
        // The last one is what was really sent last.
        for seq in all_over(open.ack).step_by(GUESSES as usize / 100).chain([open.ack - 1]) {
            bench.host.on_icmp_error(IcmpError { key: open.key, seq, kind }, false);
        }
    }
    open.assert_alive(&mut bench);
}

#[test]
fn an_icmp_error_ends_a_call_only_if_it_quotes_it() {
    let mut bench = Bench::new(|_| {});
    let key = Bench::key(PORT);
    let (client, syn) = bench.call(&key);
    let number = syn.seq;
    let error = |seq| IcmpError { key, seq, kind: IcmpErrorKind::PortUnreachable };
    for seq in all_over(number).chain([number - 1, number + 1]) {
        bench.host.on_icmp_error(error(seq), false);
    }
    assert!(!bench.host.is_connected(&client).unwrap());
    bench.host.on_icmp_error(error(number), false);
    assert!(matches!(bench.host.is_connected(&client), Err(SocketError::Refused)));
}

#[test]
fn challenges_are_rationed_for_a_connection_and_for_the_worker() {
    let mut bench = Bench::new(|_| {});
    let server = bench.listen();
    // Enough connections to use up what the worker has for a second.
    let ports = 1..=2 * CHALLENGES_PER_WORKER as u16 / CHALLENGES_PER_CONN as u16 + 1;
    for port in ports.clone() {
        bench.say(&Bench::key(port), SYN);
        let syn_ack = bench.run(MS)[0];
        bench.say(&Bench::key(port), Say { seq: SYN.seq + 1, ack: Some(syn_ack.seq + 1), ..ACK });
        bench.run(MS);
        assert!(bench.host.accept(bench.now, &server).unwrap().is_some());
    }
    let provoke = |bench: &mut Bench, port| {
        let before = challenges(bench);
        for _ in 0..=CHALLENGES_PER_CONN {
            bench.say(&Bench::key(port), SYN);
        }
        bench.run(MS / 2);
        challenges(bench) - before
    };
    bench.run(Duration::from_secs(1));
    assert_eq!(provoke(&mut bench, 1), CHALLENGES_PER_CONN.into());
    let all: u64 = ports.map(|port| provoke(&mut bench, port)).sum();
    // Those of one second, or of two.
    let most = 4 * u64::from(CHALLENGES_PER_WORKER);
    assert!((CHALLENGES_PER_WORKER.into()..most).contains(&all), "{all}");
    bench.run(Duration::from_millis(CONN_PERIOD_TICKS));
    assert_eq!(provoke(&mut bench, 1), CHALLENGES_PER_CONN.into());
}

#[test]
fn sequence_numbers_are_a_clock_and_a_secret_of_the_flow() {
    let mut bench = Bench::new(|_| {});
    let (seed, began) = (77, bench.now);
    bench.listen();
    let expected = |bench: &Bench, key: &FlowKey| {
        let micros = (bench.now - began).as_micros() as u64;
        Secret::from_seed(seed).sequence_number(key, micros)
    };
    let number = |bench: &mut Bench, key: &FlowKey| {
        bench.say(key, SYN);
        let mut heard = Vec::new();
        while heard.is_empty() {
            bench.turn(&mut heard);
        }
        heard[0].seq
    };
    bench.run(5 * MS);
    let key = Bench::key(7);
    bench.half_open(&Bench::key(6), SYN); // the host learns the neighbour's address
    let first = number(&mut bench, &key);
    assert_eq!(first, expected(&bench, &key));
    bench.say(&key, Say { control: TcpControl::Rst, seq: SYN.seq + 1, ..ACK });
    bench.run(40 * MS);
    let second = number(&mut bench, &key);
    assert_eq!(second, first.wrapping_add(10_000));

    let key = FlowKey::new(SocketAddr::new(v4(0), 40_000), SocketAddr::new(v4(1), 9));
    let options = ConnectOptions { bind: Some(key.local()), priority: None };
    bench.host.connect(bench.now, key.remote(), &options).unwrap();
    let wanted = expected(&bench, &key);
    assert_eq!(bench.run(5 * MS).last().unwrap().seq, wanted);
}
