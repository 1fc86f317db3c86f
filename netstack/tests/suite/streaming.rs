//! Bytes: all of them, in order, and no faster than they are read.

use std::io::IoSlice;

use netstack::stack::{Readiness, Received};

use super::world::Conn;
use super::{Dice, Lab, World, pattern};

/// Two hundred blocks of 10 KiB, read in pieces of 1000 bytes, block by block the same.
pub fn case_33_complex<L: Lab>(world: &mut World<L>) {
    const BLOCK: usize = 10_240;
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    let total = 200 / world.lab.ease() * BLOCK;
    let (mut sent, mut received) = (0, 0);
    let mut piece = [0; 1000];
    world.until("all blocks have arrived", |world| {
        let block = pattern(1, sent, (BLOCK - sent % BLOCK).min(total - sent));
        let taken = world.send(&client, &block).unwrap();
        assert!(taken <= block.len());
        sent += taken;
        while let Received::Bytes(len) = world.recv(&server, &mut piece).unwrap() {
            assert_eq!(piece[..len], pattern(1, received, len), "at {received}");
            received += len;
        }
        (received == total).then_some(())
    });
    assert_eq!(sent, total);
    world.close(client);
    world.recv_end(&server).unwrap();
    world.close(server);
    world.close_port(port);
}

/// A gather list of many slices, empty ones among them, is one stream of bytes.
pub fn gathers_arrive_in_order<L: Lab>(world: &mut World<L>) {
    const SLICES: usize = 3000;
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    let bytes = pattern(2, 0, SLICES * 3);
    let mut cut = 0;
    let slices: Vec<IoSlice<'_>> = (0..SLICES)
        .map(|index| {
            let start = cut;
            cut += index % 7;
            IoSlice::new(&bytes[start..cut])
        })
        .collect();
    let mut rest = slices.clone();
    let mut gather = &mut rest[..];
    assert_eq!(world.send_gather(&client, &[], false).unwrap(), 0);
    world.until("the whole list is taken", |world| {
        let taken = world.send_gather(&client, gather, false).unwrap();
        IoSlice::advance_slices(&mut gather, taken);
        gather.is_empty().then_some(())
    });
    assert_eq!(world.recv_exactly(&server, cut), bytes[..cut]);
    world.close(client);
    world.close(server);
    world.close_port(port);
}

/// `more` holds bytes back for the end of the turn at most.
pub fn bytes_with_more_leave_at_the_flush<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    for round in 0..10 {
        let bytes = pattern(3, round * 100, 100);
        let taken = world.send_gather(&client, &[IoSlice::new(&bytes)], true).unwrap();
        assert_eq!(taken, bytes.len());
        assert_eq!(world.recv_exactly(&server, bytes.len()), bytes);
    }
    world.close(client);
    world.close(server);
    world.close_port(port);
}

/// A sender that fills everything up is stopped, and told when it may go on.
pub fn backpressure_ends_with_a_writable_edge<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    let mut sent = 0;
    let mut received = 0;
    for _ in 0..3 {
        sent += fill(world, &client, sent);
        world.take_of(&client);
        world.settle();
        // What the peer's buffer took may have made room once more, with an edge to say so.
        while !world.take_of(&client).is_empty() {
            sent += fill(world, &client, sent);
            world.settle();
        }
        let mut edges = 0;
        world.until("everything is read and there is room", |world| {
            received += drain(world, &server, received);
            edges += world.take_of(&client).iter().filter(|edge| edge.is_writable()).count();
            (received == sent && edges > 0).then_some(())
        });
        assert_eq!(edges, 1, "room was made once");
    }
    world.close(client);
    world.recv_end(&server).unwrap();
    world.close(server);
    world.close_port(port);
}

/// Sends until there is no room; how many bytes that took.
fn fill<L: Lab>(world: &mut World<L>, conn: &Conn, start: usize) -> usize {
    let mut sent = 0;
    loop {
        let bytes = pattern(4, start + sent, 64 * 1024);
        match world.send(conn, &bytes).unwrap() {
            0 => return sent,
            taken => sent += taken,
        }
    }
}

/// Reads until told would-block; how many bytes came.
fn drain<L: Lab>(world: &mut World<L>, conn: &Conn, start: usize) -> usize {
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 0;
    while let Received::Bytes(len) = world.recv(conn, &mut buffer).unwrap() {
        assert_eq!(buffer[..len], pattern(4, start + received, len));
        received += len;
    }
    received
}

/// Two full streams cross on one connection.
pub fn both_directions_at_once<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    let total = (1 << 20) / world.lab.ease();
    let ends = [&client, &server];
    let mut sent = [0; 2];
    let mut received = [0; 2];
    let mut buffer = vec![0; 32 * 1024];
    world.until("both streams have arrived", |world| {
        for (index, &end) in ends.iter().enumerate() {
            let bytes = pattern(index, sent[index], (total - sent[index]).min(32 * 1024));
            sent[index] += world.send(end, &bytes).unwrap();
            while let Received::Bytes(len) = world.recv(end, &mut buffer).unwrap() {
                assert_eq!(buffer[..len], pattern(1 - index, received[index], len));
                received[index] += len;
            }
        }
        (received == [total; 2]).then_some(())
    });
    world.close(client);
    world.close(server);
    world.close_port(port);
}

/// The smallest sends and receives, in random rhythm, without loss or order lost.
pub fn one_byte_at_a_time<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    let total = 2000 / world.lab.ease();
    let mut dice = Dice::new(5);
    let (mut sent, mut received) = (0, 0);
    let mut byte = [0];
    world.until("the last byte has arrived", |world| {
        for _ in 0..dice.below(4).min(total - sent) {
            sent += world.send(&client, &pattern(5, sent, 1)).unwrap();
        }
        for _ in 0..dice.below(4) {
            if let Received::Bytes(len) = world.recv(&server, &mut byte).unwrap() {
                assert_eq!(byte[..len], pattern(5, received, 1));
                received += len;
            }
        }
        (received == total).then_some(())
    });
    let readable =
        world.take_of(&server).iter().filter(|edge| edge.contains(Readiness::READABLE)).count();
    assert!(readable >= 1);
    world.close(client);
    world.close(server);
    world.close_port(port);
}
