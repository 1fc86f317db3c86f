//! Events: once per edge, never lost, never for a socket that is gone.

use std::collections::HashSet;

use netstack::stack::{Readiness, Received};

use super::world::{Conn, Port};
use super::{Dice, Lab, World, pattern};

/// Readable is reported once, and again only after the owner was told would-block.
pub fn case_35_one_event_per_edge<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    world.settle();
    world.take_of(&server);
    for _ in 0..3 {
        world.send_all(&client, b"one");
        world.until_readable(&server);
        world.send_all(&client, b"two");
        world.settle();
        assert_eq!(world.take_of(&server), [], "it was readable all the time");
        assert_eq!(world.recv_exactly(&server, 6), b"onetwo");
        assert_eq!(world.recv(&server, &mut [0; 8]).unwrap(), Received::WouldBlock);
        world.settle();
        assert_eq!(world.take_of(&server), [], "nothing came");
    }
    assert!(
        world.take_of(&client).iter().all(|edge| !edge.is_readable()),
        "nothing was sent there"
    );
    world.close(client);
    world.close(server);
    world.close_port(port);
}

/// What happens to a connection before it is accepted is told after.
pub fn case_35_readiness_before_accept_is_kept<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let client = world.connect(0, port.addr);
    world.outcome(&client).unwrap();
    world.send_all(&client, b"early");
    world.settle();
    let (server, _) = world.accept(&port);
    world.until_readable(&server);
    assert_eq!(world.recv_exactly(&server, 5), b"early");

    let hasty = world.connect(0, port.addr);
    world.outcome(&hasty).unwrap();
    world.shutdown(&hasty);
    world.settle();
    let (ended, _) = world.accept(&port);
    world.until_readable(&ended);
    world.recv_end(&ended).unwrap();
    for conn in [client, server, hasty, ended] {
        world.close(conn);
    }
    world.close_port(port);
}

/// Events that were on their way to a socket die with it.
pub fn case_35_close_forgets<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    for round in 0..20 {
        let (client, server) = world.open(&port, round);
        world.send_all(&client, b"too late");
        if round % 2 == 0 {
            world.settle();
        }
        let (worker, id) = (server.worker, server.socket.id());
        world.take_of(&server);
        world.close(server);
        world.settle();
        assert_eq!(world.take(worker, id), [], "round {round}");
        world.close(client);
    }
    world.close_port(port);
}

/// A slot is used again under another generation, so tables stay as small as their use.
pub fn case_35_slots_are_used_again<L: Lab>(world: &mut World<L>) {
    const SLOTS_MAX: usize = 16;
    let port = world.listen();
    let mut names = HashSet::new();
    let mut slots = HashSet::new();
    for round in 0..100 / world.lab.ease() {
        let (client, server) = world.open(&port, round);
        for conn in [&client, &server] {
            let id = conn.socket.id();
            assert!(names.insert((conn.worker, id)), "{id:?} was used before");
            slots.insert((conn.worker, id.slot));
        }
        world.close(client);
        world.recv_end(&server).unwrap();
        world.close(server);
        world.settle();
    }
    assert!(slots.len() <= SLOTS_MAX, "{slots:?}");
    world.close_port(port);
}

/// A new socket in an old slot hears and reads nothing that was meant for the old one.
pub fn case_36_stale_names_stay_silent<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let mut old = Vec::new();
    for round in 0..20 {
        let (client, server) = world.open(&port, 0);
        world.send_all(&client, &pattern(round, 0, 700));
        old.extend([(client.worker, client.socket.id()), (server.worker, server.socket.id())]);
        if round % 2 == 0 {
            world.abort(server);
        } else {
            world.close(server);
        }
        world.close(client);
        for &(worker, id) in &old {
            world.take(worker, id);
        }

        let (client, server) = world.open(&port, 0);
        world.send_all(&client, &pattern(100 + round, 0, 300));
        assert_eq!(world.recv_exactly(&server, 300), pattern(100 + round, 0, 300));
        for &(worker, id) in &old {
            assert_eq!(world.take(worker, id), [], "{id:?} is gone");
        }
        old.extend([(client.worker, client.socket.id()), (server.worker, server.socket.id())]);
        world.close(client);
        world.close(server);
    }
    world.close_port(port);
}

/// One end of a connection as its owner sees it, and as it must be.
struct End {
    conn: Conn,
    /// Reported and not yet spent.
    known: Readiness,
    sent: usize,
    received: usize,
    stream: usize,
}

/// Random work on many connections: at rest, everything that can be done was reported.
pub fn case_37_no_wake_up_is_lost<L: Lab>(world: &mut World<L>) {
    const OPEN_MAX: usize = 12;
    let port = world.listen();
    let mut dice = Dice::new(37);
    let mut pairs: Vec<[End; 2]> = Vec::new();
    for step in 0..3000 / world.lab.ease() {
        match dice.below(20) {
            0 if pairs.len() < OPEN_MAX => pairs.push(open_pair(world, &port, step)),
            1 if !pairs.is_empty() => {
                let pair = pairs.swap_remove(dice.below(pairs.len()));
                for end in pair {
                    if dice.below(3) == 0 {
                        world.abort(end.conn);
                    } else {
                        world.close(end.conn);
                    }
                }
            }
            2..=5 => world.turn(),
            _ if pairs.is_empty() => {}
            choice => {
                let pair = dice.below(pairs.len());
                let [near, far] = &mut pairs[pair];
                let (end, other) = if dice.below(2) == 0 { (near, far) } else { (far, near) };
                match choice {
                    6..=11 => send_some(world, end, dice.below(40_000)),
                    _ => recv_some(world, end, other, 1 + dice.below(30_000)),
                }
            }
        }
        pairs.iter_mut().flatten().for_each(|end| learn(world, end));
    }
    for [mut near, mut far] in pairs {
        finish(world, &mut near, &mut far);
        finish(world, &mut far, &mut near);
        world.close(near.conn);
        world.close(far.conn);
    }
    world.close_port(port);
}

fn open_pair<L: Lab>(world: &mut World<L>, port: &Port, stream: usize) -> [End; 2] {
    let (client, server) = world.open(port, stream);
    let (sent, received) = (0, 0);
    let near = End { conn: client, known: Readiness::WRITABLE, sent, received, stream };
    let far = End { conn: server, known: Readiness::WRITABLE, sent, received, stream: stream + 1 };
    [near, far]
}

fn learn<L: Lab>(world: &mut World<L>, end: &mut End) {
    for news in world.take_of(&end.conn) {
        end.known |= news;
    }
}

/// Sends only if the events say it is possible.
fn send_some<L: Lab>(world: &mut World<L>, end: &mut End, len: usize) {
    if end.known.is_writable() && len > 0 {
        let taken = world.send(&end.conn, &pattern(end.stream, end.sent, len)).unwrap();
        end.sent += taken;
        if taken == 0 {
            end.known = end.known.without(Readiness::WRITABLE);
        }
    }
}

/// Receives only if the events say it is possible.
fn recv_some<L: Lab>(world: &mut World<L>, end: &mut End, other: &End, len: usize) {
    let mut buffer = vec![0; len];
    if end.known.is_readable() {
        match world.recv(&end.conn, &mut buffer).unwrap() {
            Received::Bytes(len) => {
                assert_eq!(buffer[..len], pattern(other.stream, end.received, len));
                end.received += len;
            }
            Received::WouldBlock => end.known = end.known.without(Readiness::READABLE),
            Received::EndOfStream => panic!("nobody closed"),
        }
    }
}

/// By events alone, everything sent arrives, and the sender may send again.
fn finish<L: Lab>(world: &mut World<L>, end: &mut End, other: &mut End) {
    world.until("events lead to the last byte", |world| {
        learn(world, end);
        learn(world, other);
        recv_some(world, end, other, 10_000);
        (end.received == other.sent).then_some(())
    });
    world.until("the sender is told that there is room", |world| {
        learn(world, other);
        other.known.is_writable().then_some(())
    });
}
