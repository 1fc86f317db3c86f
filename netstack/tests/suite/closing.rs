//! The ways a connection ends, and what each end is told.

use netstack::stack::{Received, SocketError};

use super::{Lab, World, pattern};

/// After our shutdown the peer reads the end, and we still read what it sends.
pub fn half_close_leaves_the_other_half<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    world.shutdown(&client);
    world.shutdown(&client); // once more changes nothing
    world.recv_end(&server).unwrap();
    for round in 0..5 {
        let bytes = pattern(6, round * 20_000, 20_000);
        let mut received = Vec::new();
        let mut sent = 0;
        world.until("the open half carries bytes", |world| {
            sent += world.send(&server, &bytes[sent..]).unwrap();
            let mut buffer = [0; 4096];
            while let Received::Bytes(len) = world.recv(&client, &mut buffer).unwrap() {
                received.extend_from_slice(&buffer[..len]);
            }
            (received.len() == bytes.len()).then_some(())
        });
        assert_eq!(received, bytes);
    }
    world.shutdown(&server);
    world.until_readable(&client);
    world.recv_end(&client).unwrap();
    world.close(client);
    world.close(server);
    world.close_port(port);
}

/// A shut sending half says so, whatever else happens to the connection.
pub fn sending_after_shutdown<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    world.shutdown(&server);
    for _ in 0..2 {
        assert!(matches!(world.send(&server, b"late"), Err(SocketError::Shutdown)));
        world.recv_end(&client).unwrap();
        assert_eq!(world.recv(&server, &mut [0; 4]).unwrap(), Received::WouldBlock);
    }
    world.abort(client);
    let outcome = world.until_over(&server);
    assert!(outcome.is_err(), "not an end in order");
    assert!(matches!(world.send(&server, b"late"), Err(SocketError::Shutdown)));
    world.close(server);
    world.close_port(port);
}

/// The end of the stream is behind its last byte, and stays.
pub fn the_end_comes_after_all_data<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    for round in 0..5 {
        let (client, server) = world.open(&port, round);
        let bytes = pattern(round, 0, 1 + round * 9_999);
        world.send_all(&client, &bytes);
        world.shutdown(&client);
        world.settle();
        assert_eq!(world.recv_exactly(&server, bytes.len()), bytes);
        for _ in 0..3 {
            world.recv_end(&server).unwrap();
        }
        world.close(client);
        world.close(server);
    }
    world.close_port(port);
}

/// An abort reaches the peer as a reset: by an event, from `recv` and `send`, for good.
pub fn an_abort_is_seen_as_a_reset<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (client, server) = world.open(&port, 0);
    world.send_all(&client, b"read this first");
    assert_eq!(world.recv_exactly(&server, 15), b"read this first");
    assert_eq!(world.recv(&server, &mut [0; 4]).unwrap(), Received::WouldBlock);
    world.take_of(&server);
    world.abort(client);
    let outcome = world.until_over(&server);
    assert!(matches!(outcome, Err(SocketError::Reset)), "{outcome:?}");
    assert!(world.take_of(&server).iter().any(|edge| edge.is_readable()), "the reset is an event");
    for _ in 0..2 {
        assert!(matches!(world.recv(&server, &mut [0; 4]), Err(SocketError::Reset)));
        assert!(matches!(world.send(&server, b"x"), Err(SocketError::Reset)));
    }
    world.close(server);
    world.close_port(port);
}

/// Closing gives the socket up, not the bytes.
pub fn a_close_delivers_what_was_sent<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    for round in 0..5 {
        let (client, server) = world.open(&port, round);
        let bytes = pattern(round, 0, 50_000);
        let mut taken = 0;
        loop {
            match world.send(&client, &bytes[taken..]).unwrap() {
                0 => break,
                len => taken += len,
            }
        }
        assert!(taken > 0);
        world.close(client);
        assert_eq!(world.recv_exactly(&server, taken), bytes[..taken]);
        world.recv_end(&server).unwrap();
        world.close(server);
    }
    world.close_port(port);
}

/// Input that was never read, or comes after the close, does not cost the peer our last bytes.
pub fn a_close_with_unread_input_delivers_too<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    for round in 0..5 {
        let (client, server) = world.open(&port, round);
        world.send_all(&server, &pattern(7, 0, 3000));
        world.until_readable(&client);
        let farewell = pattern(8, 0, 20_000);
        world.send_all(&client, &farewell);
        world.close(client);
        world.send_all(&server, &pattern(7, 3000, 3000));
        world.settle();
        assert_eq!(world.recv_exactly(&server, farewell.len()), farewell);
        world.recv_end(&server).unwrap();
        world.close(server);
    }
    world.close_port(port);
}

/// Closing at the same moment leaves nothing behind on either side.
pub fn both_ends_close_at_once<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    for round in 0..20 {
        let (client, server) = world.open(&port, round);
        if round % 2 == 0 {
            world.send_all(&client, b"ping");
            world.send_all(&server, b"pong");
        }
        world.close(client);
        world.close(server);
    }
    world.close_port(port);
}

/// A listener that closes takes the connections nobody accepted with it.
pub fn waiting_connections_are_reset_with_their_listener<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let clients: Vec<_> = (0..10)
        .map(|index| {
            let client = world.connect(index, port.addr);
            world.outcome(&client).unwrap();
            client
        })
        .collect();
    world.settle();
    world.close_port(port);
    for client in clients {
        let outcome = world.until_over(&client);
        assert!(matches!(outcome, Err(SocketError::Reset)), "{outcome:?}");
        world.close(client);
    }
}
