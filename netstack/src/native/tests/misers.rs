//! Peers that give little: windows, segments and orders that are legal and cost us.

use std::io::IoSlice;
use std::time::Duration;

use super::raw::{ACK, Bench, SYN, Say};
use crate::device::BURST_MAX;
use crate::flow::FlowKey;
use crate::stack::{ConnectedSocket, Received, SocketError, Worker};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Where the peer's first byte is.
const SEQ: u32 = SYN.seq + 1;

/// An open connection, and the worker's next number.
fn open(bench: &mut Bench, key: &FlowKey) -> (ConnectedSocket, u32) {
    let server = bench.listen();
    let ack = bench.half_open(key, SYN).seq + 1;
    bench.say(key, Say { seq: SEQ, ack: Some(ack), ..ACK });
    bench.run(5 * MS);
    (bench.host.accept(bench.now, &server).unwrap().unwrap().0, ack)
}

fn send(bench: &mut Bench, socket: &ConnectedSocket, bytes: &[u8]) -> usize {
    bench.host.send(bench.now, socket, &[IoSlice::new(bytes)], false).unwrap()
}

fn recv(bench: &mut Bench, socket: &ConnectedSocket) -> Result<Received, SocketError> {
    bench.host.recv(bench.now, socket, &mut [0; 4096])
}

#[test]
fn a_closed_window_is_asked_for_ever_more_seldom_and_kept_while_the_peer_answers() {
    let mut bench = Bench::new(|config| config.user_timeout = Some(10 * SECOND));
    let key = Bench::key(7);
    let (socket, number) = open(&mut bench, &key);
    let shut = Say { seq: SEQ, ack: Some(number), window: 0, ..ACK };
    bench.say(&key, shut);
    bench.run(MS);
    send(&mut bench, &socket, b"for nobody");
    let ask = |bench: &mut Bench, time| {
        let (end, mut asked) = (bench.now + time, 0);
        while bench.now < end {
            let heard = bench.run(MS).len();
            asked += heard;
            if heard > 0 {
                bench.say(&key, shut);
            }
        }
        asked
    };
    // The answer may just be under way.
    assert!(ask(&mut bench, SECOND) >= 3);
    let seldom = ask(&mut bench, 20 * SECOND);
    assert!((20..80).contains(&seldom), "{seldom}");
    assert_eq!(recv(&mut bench, &socket).unwrap(), Received::WouldBlock);
    bench.say(&key, Say { window: 1000, ..shut });
    let heard = bench.run(MS);
    assert!(heard.iter().any(|segment| segment.seq == number && segment.payload_len == 10));
}

#[test]
fn a_peer_that_says_nothing_behind_its_closed_window_is_given_up() {
    let mut bench = Bench::new(|config| config.user_timeout = Some(10 * SECOND));
    let key = Bench::key(7);
    let (socket, number) = open(&mut bench, &key);
    bench.say(&key, Say { seq: SEQ, ack: Some(number), window: 0, ..ACK });
    bench.run(MS);
    send(&mut bench, &socket, b"for nobody");
    bench.run(12 * SECOND);
    assert!(matches!(recv(&mut bench, &socket), Err(SocketError::TimedOut)));
    assert_eq!(bench.counter("connections_timed_out"), 1);
}

#[test]
fn a_window_of_a_byte_costs_a_segment_for_a_segment() {
    const ROUNDS: u32 = 2000;
    let mut bench = Bench::new(|_| {});
    let key = Bench::key(7);
    let (socket, number) = open(&mut bench, &key);
    bench.say(&key, Say { seq: SEQ, ack: Some(number), window: 1, ..ACK });
    bench.run(MS);
    send(&mut bench, &socket, &[7; ROUNDS as usize]);
    let mut heard = bench.run(MS).len();
    for byte in 1..ROUNDS {
        bench.say(&key, Say { seq: SEQ, ack: Some(number + byte), window: 1, ..ACK });
        heard += bench.run(MS).len();
    }
    // What it asks for and a timer now and then.
    assert!((ROUNDS as usize..ROUNDS as usize * 11 / 10).contains(&heard), "{heard}");
}

#[test]
fn segments_of_a_byte_are_acknowledged_once_a_turn() {
    const TURNS: usize = 100;
    let mut bench = Bench::new(|_| {});
    let key = Bench::key(7);
    let (socket, number) = open(&mut bench, &key);
    let mut seq = SEQ;
    let mut heard = Vec::new();
    for _ in 0..TURNS {
        for _ in 0..BURST_MAX {
            bench.say(&key, Say { seq, ack: Some(number), payload: b"x", ..ACK });
            seq += 1;
        }
        bench.turn(&mut heard);
        bench.now += MS;
    }
    assert!(heard.len() <= TURNS, "{}", heard.len());
    assert_eq!(recv(&mut bench, &socket).unwrap(), Received::Bytes(TURNS * BURST_MAX));
}

#[test]
fn holes_cost_no_memory_and_end_with_the_right_bytes() {
    const HOLES: u32 = 2000;
    let mut bench = Bench::new(|_| {});
    let key = Bench::key(7);
    let (socket, number) = open(&mut bench, &key);
    // Every second byte, backwards; few of the pieces fit into what there is for them.
    let byte = |index: u32| [b'a' + (index % 26) as u8];
    let say = |bench: &mut Bench, index| {
        let payload = byte(index);
        bench.say(&key, Say { seq: SEQ + index, ack: Some(number), payload: &payload, ..ACK });
    };
    for index in (0..HOLES).rev() {
        say(&mut bench, 2 * index + 1);
        if index % 16 == 0 {
            bench.run(MS / 2);
        }
    }
    assert_eq!(bench.counter("out_of_order_segments"), HOLES.into());
    assert_eq!(recv(&mut bench, &socket).unwrap(), Received::WouldBlock);
    let received = bench.host.tcp_info(&socket).unwrap().recv_queue_bytes;
    assert_eq!(received, 0);
    for index in 0..2 * HOLES {
        say(&mut bench, index);
        if index % 16 == 0 {
            bench.run(MS / 2);
        }
    }
    bench.run(MS);
    let mut buffer = vec![0; 2 * HOLES as usize];
    let len = bench.host.recv(bench.now, &socket, &mut buffer).unwrap();
    assert_eq!(len, Received::Bytes(buffer.len()));
    let expected: Vec<u8> = (0..2 * HOLES).flat_map(byte).collect();
    assert!(buffer == expected);
}
