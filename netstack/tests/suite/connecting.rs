//! Listening, connecting, accepting, and who is who.

use std::net::{IpAddr, SocketAddr};

use netstack::stack::{ConnectOptions, ListenOptions, Received, SocketError, Worker};

use super::world::Port;
use super::{Lab, World};

/// Connect, send, receive, end of stream: the shortest life of a connection.
pub fn case_29_simple<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let client = world.connect(0, port.addr);
    // Not yet, or at once: an error it is not.
    world.is_connected(&client).unwrap();
    world.until_writable(&client);
    assert!(world.is_connected(&client).unwrap());
    until_one_listener_is_readable(world, &port);
    let (server, _) = world.try_accept(&port).unwrap();
    assert!(world.is_connected(&server).unwrap(), "an accepted connection is open");

    let message = b"message";
    assert_eq!(world.send(&client, message).unwrap(), message.len());
    world.until_readable(&server);
    assert_eq!(world.recv_exactly(&server, message.len()), message);
    assert_eq!(world.recv(&server, &mut [0; 8]).unwrap(), Received::WouldBlock);

    world.shutdown(&client);
    assert!(matches!(world.send(&client, message), Err(SocketError::Shutdown)));
    world.until_readable(&server);
    world.recv_end(&server).unwrap();
    world.close(server);
    world.close(client);
    world.close_port(port);
}

/// A reset in answer to our SYN is a refusal, told by an event, for good.
pub fn case_30_connect_failed_refused<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let closed = port.addr;
    world.close_port(port);
    let client = world.connect(0, closed);
    world.until_writable(&client);
    for _ in 0..2 {
        let outcome = world.is_connected(&client);
        assert!(matches!(outcome, Err(SocketError::Refused)), "{outcome:?}");
    }
    assert!(world.send(&client, b"x").is_err());
    assert!(world.recv(&client, &mut [0; 8]).is_err());
    world.close(client);
}

/// Where nobody answers the connection never opens, and the owner is told why.
pub fn case_30_connect_failed_unreachable<L: Lab>(world: &mut World<L>) {
    let nowhere = world.lab.nowhere();
    let error = match world.try_connect(1, nowhere, &ConnectOptions::default()) {
        Err(error) => error,
        Ok(client) => {
            let error = world.outcome(&client).unwrap_err();
            world.close(client);
            error
        }
    };
    assert!(matches!(error, SocketError::Unreachable(addr) if addr == nowhere), "{error:?}");
}

/// A worker cannot listen twice on an address, and can again after closing it.
pub fn case_31_listen<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let (worker, _) = port.listeners[0];
    let options = ListenOptions::default();
    let again = world.workers[worker].listen(world.now, port.addr, &options);
    assert!(matches!(again, Err(SocketError::AddressInUse(addr)) if addr == port.addr));
    let addr = port.addr;
    world.close_port(port);
    let socket = world.workers[worker].listen(world.now, addr, &options).unwrap();
    assert_eq!(world.workers[worker].listen_addr(&socket), addr);
    world.workers[worker].close_listener(world.now, socket);
}

/// Connections come and go while the listener stays; without it they are refused.
pub fn case_32_accept_and_close<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    assert!(world.try_accept(&port).is_none(), "nobody connected yet");
    for round in 0..2 {
        let client = world.connect(round, port.addr);
        until_one_listener_is_readable(world, &port);
        let (server, _) = world.try_accept(&port).unwrap();
        assert!(world.try_accept(&port).is_none(), "only one connected");
        world.outcome(&client).unwrap();
        world.close(server);
        world.recv_end(&client).unwrap();
        world.close(client);
    }
    // One that has left again is accepted all the same.
    let hasty = world.connect(0, port.addr);
    world.outcome(&hasty).unwrap();
    world.close(hasty);
    let (server, _) = world.accept(&port);
    world.recv_end(&server).unwrap();
    world.close(server);
    let addr = port.addr;
    world.close_port(port);
    let late = world.connect(0, addr);
    let outcome = world.outcome(&late);
    assert!(matches!(outcome, Err(SocketError::Refused)), "{outcome:?}");
    world.close(late);
}

/// Each listener gets its own connections.
pub fn listeners_on_two_ports<L: Lab>(world: &mut World<L>) {
    let ports = [world.listen(), world.listen()];
    assert_ne!(ports[0].addr, ports[1].addr);
    for port in &ports {
        let (client, server) = world.open(port, 0);
        assert_eq!(world.local_addr(&server), port.addr);
        world.close(client);
        world.close(server);
    }
    for port in ports {
        assert!(world.try_accept(&port).is_none());
        world.close_port(port);
    }
}

/// `ConnectOptions::bind` is honoured: with port 0, with a port, and not with a stranger's address.
pub fn connect_from_a_bound_address<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let ours = world.lab.client_ip();
    // Below the ephemeral ports, and nobody else's as long as the listener has its own.
    let chosen = port.addr.port() - 30_000;
    for wanted in [0, chosen, chosen] {
        let bind = SocketAddr::new(ours, wanted);
        let client = world
            .try_connect(0, port.addr, &ConnectOptions { bind: Some(bind), priority: None })
            .unwrap();
        world.outcome(&client).unwrap();
        let local = world.local_addr(&client);
        assert!(local.ip() == ours && (local == bind || wanted == 0));
        let (server, peer) = world.accept(&port);
        assert_eq!(peer, local);
        // An abort leaves no TIME-WAIT behind, so the same port is free for the next round.
        world.abort(client);
        let outcome = world.until_over(&server);
        assert!(matches!(outcome, Err(SocketError::Reset)), "{outcome:?}");
        world.close(server);
    }
    let bind = Some(SocketAddr::new(foreign(ours), 0));
    let stolen = world.try_connect(0, port.addr, &ConnectOptions { bind, priority: None });
    assert!(matches!(stolen, Err(SocketError::AddressNotAvailable(addr)) if Some(addr) == bind));
    world.close_port(port);
}

/// Each end's local address is the other end's peer address, port included.
pub fn addresses_agree_on_both_ends<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let client = world.connect(0, port.addr);
    world.outcome(&client).unwrap();
    let (server, peer) = world.accept(&port);
    assert_eq!(world.local_addr(&client), peer);
    assert_eq!(world.local_addr(&server), port.addr);
    assert_eq!(peer.ip(), world.lab.client_ip());
    assert_ne!(peer.port(), 0);
    world.close(client);
    world.close(server);
    world.close_port(port);
}

/// Nobody listens on an address that is not the stack's own.
pub fn a_foreign_address_cannot_be_listened_on<L: Lab>(world: &mut World<L>) {
    let addr = SocketAddr::new(foreign(world.lab.server_ip()), 4000);
    let listener = world.workers[0].listen(world.now, addr, &ListenOptions::default());
    assert!(matches!(listener, Err(SocketError::AddressNotAvailable(at)) if at == addr));
}

/// A connection may be given up in the middle of its handshake, also by an abort.
pub fn closing_before_the_connection_opened<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    for round in 0..6 {
        let client = world.connect(0, port.addr);
        for _ in 0..round / 2 {
            world.turn();
        }
        if round % 2 == 0 {
            world.close(client);
        } else {
            world.abort(client);
        }
        world.settle();
    }
    let client = world.connect(0, port.addr);
    world.outcome(&client).unwrap();
    // Whether the server saw the others open is a matter of timing; their ends it sees.
    let server = loop {
        let (server, peer) = world.accept(&port);
        if peer == world.local_addr(&client) {
            break server;
        }
        let _ = world.until_over(&server);
        world.close(server);
    };
    world.close(client);
    world.close(server);
    world.close_port(port);
}

/// Connections wait, with the bytes they sent, until somebody takes them in their order.
pub fn many_wait_in_the_backlog<L: Lab>(world: &mut World<L>) {
    const WAITING: usize = 50;
    let port = world.listen();
    let clients: Vec<_> = (0..WAITING)
        .map(|index| {
            let client = world.connect(index, port.addr);
            world.outcome(&client).unwrap();
            world.send_all(&client, &[index as u8]);
            client
        })
        .collect();
    let mut waiting: Vec<_> = clients.iter().map(|client| world.local_addr(client)).collect();
    for _ in 0..WAITING {
        let (server, peer) = world.accept(&port);
        let index = waiting.iter().position(|&addr| addr == peer).unwrap();
        let expected = clients.iter().position(|client| world.local_addr(client) == peer).unwrap();
        // A loss may finish an earlier handshake later, and workers accept for themselves.
        if world.lab.ease() == 1 && port.listeners.len() == 1 {
            assert_eq!(index, 0, "the oldest comes first");
        }
        waiting.remove(index);
        assert_eq!(world.recv_exactly(&server, 1), [expected as u8]);
        assert_eq!(world.recv(&server, &mut [0; 4]).unwrap(), Received::WouldBlock);
        world.close(server);
    }
    assert!(world.try_accept(&port).is_none());
    for client in clients {
        world.recv_end(&client).unwrap();
        world.close(client);
    }
    world.close_port(port);
}

/// Turns until exactly one of the port's listeners was reported.
fn until_one_listener_is_readable<L: Lab>(world: &mut World<L>, port: &Port) {
    let listeners: Vec<_> = port.listeners.iter().map(|(worker, l)| (*worker, l.id())).collect();
    world.until("one listener is readable", |world| {
        let told = listeners.iter().flat_map(|&(worker, id)| world.take(worker, id));
        (told.filter(|readiness| readiness.is_readable()).count() == 1).then_some(())
    });
}

/// An address of documentation networks, nobody's own.
fn foreign(like: IpAddr) -> IpAddr {
    let text = if like.is_ipv4() { "198.51.100.77" } else { "2001:db8:77::77" };
    text.parse().unwrap()
}
