//! Handshakes that work, and all the ways in which they do not.

use std::net::SocketAddr;
use std::time::Duration;

use super::lab::{Lab, PORT, server_of, v4, v6};
use crate::stack::{ConnectOptions, EventDriver, ListenOptions, Readiness, SocketError, Worker};

#[test]
fn a_connection_opens_over_ipv4_and_ipv6() {
    for ip in [v4(1), v6(1)] {
        let mut lab = Lab::pair();
        let server = lab.listen(1, server_of(ip));
        assert!(lab.hosts[1].accept(lab.now, &server).unwrap().is_none());
        let client = lab.connect(0, server_of(ip));
        assert!(!lab.hosts[0].is_connected(&client).unwrap());
        lab.run(Duration::from_millis(10));
        assert!(lab.hosts[0].is_connected(&client).unwrap());
        assert_eq!(lab.news(0, client.id()), Readiness::WRITABLE);
        assert_eq!(lab.news(1, server.id()), Readiness::READABLE);
        let (accepted, peer) = lab.hosts[1].accept(lab.now, &server).unwrap().unwrap();
        assert_eq!(peer, lab.hosts[0].local_addr(&client).unwrap());
        assert_eq!(lab.hosts[1].local_addr(&accepted).unwrap(), server_of(ip));
        assert!(lab.hosts[1].accept(lab.now, &server).unwrap().is_none());
        lab.run(Duration::from_millis(1));
        assert_eq!(lab.news(1, accepted.id()), Readiness::WRITABLE);

        lab.hosts[0].close(lab.now, client, false);
        lab.hosts[1].close(lab.now, accepted, false);
        lab.hosts[1].close_listener(lab.now, server);
        lab.assert_nothing_left();
    }
}

#[test]
fn a_listener_on_all_addresses_takes_its_family() {
    let mut lab = Lab::pair();
    let any = "0.0.0.0:0".parse().unwrap();
    let server = lab.listen(1, any);
    let port = lab.hosts[1].listen_addr(&server).port();
    assert_ne!(port, 0);
    let client = lab.connect(0, SocketAddr::new(v4(1), port));
    lab.accept(1, &server);
    assert!(lab.hosts[0].is_connected(&client).unwrap());
    let other = lab.connect(0, SocketAddr::new(v6(1), port));
    lab.run(Duration::from_millis(10));
    assert!(matches!(lab.hosts[0].is_connected(&other), Err(SocketError::Refused)));
}

#[test]
fn a_host_can_connect_to_itself() {
    let mut lab = Lab::pair();
    let server = lab.listen(0, server_of(v4(0)));
    let client = lab.connect(0, server_of(v4(0)));
    let accepted = lab.accept(0, &server);
    lab.transfer((0, &client), (0, &accepted), 100_000);
    lab.transfer((0, &accepted), (0, &client), 100_000);
    assert_eq!(lab.counter(0, "own_frame_drops"), 0);
}

#[test]
fn nobody_listens_and_the_connection_is_refused() {
    let mut lab = Lab::pair();
    let client = lab.connect(0, server_of(v4(1)));
    lab.run(Duration::from_millis(10));
    assert_eq!(lab.news(0, client.id()), Readiness::ALL);
    assert!(matches!(lab.hosts[0].is_connected(&client), Err(SocketError::Refused)));
    assert!(matches!(lab.hosts[0].is_connected(&client), Err(SocketError::Refused)));
    assert_eq!(lab.counter(0, "connections_refused"), 1);
    assert_eq!(lab.counter(1, "resets_sent"), 1);
    lab.hosts[0].close(lab.now, client, false);
    lab.assert_nothing_left();
}

#[test]
fn a_neighbour_that_does_not_answer_cannot_be_reached() {
    let mut lab = Lab::pair();
    let peer = server_of(v4(9));
    let client = lab.connect(0, peer);
    lab.until(|lab| lab.news(0, client.id()).is_writable());
    let error = lab.hosts[0].is_connected(&client).unwrap_err();
    assert!(matches!(error, SocketError::Unreachable(addr) if addr == peer), "{error}");
    lab.hosts[0].close(lab.now, client, false);
    lab.assert_nothing_left();
}

#[test]
fn a_peer_that_does_not_answer_times_out() {
    let mut lab = Lab::with(|_, config| config.connect_timeout = Duration::from_secs(2));
    lab.introduce();
    lab.net.set_blocked(1, 0, true);
    let client = lab.connect(0, server_of(v4(1)));
    lab.run(Duration::from_millis(1900));
    assert!(!lab.hosts[0].is_connected(&client).unwrap());
    lab.run(Duration::from_millis(200));
    assert!(matches!(lab.hosts[0].is_connected(&client), Err(SocketError::TimedOut)));
    assert!(lab.counter(0, "segments_resent") >= 2, "the SYN was repeated");
}

#[test]
fn no_route_is_known_at_once() {
    let mut lab = Lab::pair();
    for peer in ["192.0.2.1:1", "[2001:db8::1]:1", "0.0.0.0:1", "10.0.0.2:0"] {
        let peer = peer.parse().unwrap();
        let error = lab.hosts[0].connect(lab.now, peer, &ConnectOptions::default()).unwrap_err();
        assert!(matches!(error, SocketError::Unreachable(addr) if addr == peer), "{error}");
    }
}

#[test]
fn wrong_addresses_are_refused_at_once() {
    let mut lab = Lab::pair();
    let options = ListenOptions::default();
    let server = lab.listen(1, server_of(v4(1)));
    let mut listen = |addr: SocketAddr| lab.hosts[1].listen(lab.now, addr, &options);
    assert!(matches!(listen(server_of(v4(1))), Err(SocketError::AddressInUse(_))));
    assert!(matches!(listen(server_of(v4(0))), Err(SocketError::AddressNotAvailable(_))));
    listen(server_of(v6(1))).unwrap();
    lab.hosts[1].close_listener(lab.now, server);
    lab.listen(1, server_of(v4(1)));

    let from = |bind: &str| ConnectOptions { bind: Some(bind.parse().unwrap()), priority: None };
    let mut connect = |bind| lab.hosts[0].connect(lab.now, server_of(v4(1)), &from(bind));
    assert!(matches!(connect("10.0.0.77:0"), Err(SocketError::AddressNotAvailable(_))));
    assert!(matches!(connect("[fd00::1]:0"), Err(SocketError::AddressNotAvailable(_))));
    let bound = connect("0.0.0.0:1234").unwrap();
    assert!(matches!(connect("10.0.0.1:1234"), Err(SocketError::AddressInUse(_))));
    assert_eq!(lab.hosts[0].local_addr(&bound).unwrap(), SocketAddr::new(v4(0), 1234));
}

#[test]
fn a_full_backlog_delays_connections_and_refuses_none() {
    const CLIENTS: usize = 20;
    let mut lab = Lab::pair();
    lab.introduce();
    let options = ListenOptions { backlog: 4, ..ListenOptions::default() };
    let server = lab.hosts[1].listen(lab.now, server_of(v4(1)), &options).unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|_| lab.connect(0, server_of(v4(1)))).collect();
    lab.run(Duration::from_millis(50));
    let is_open = |lab: &mut Lab| {
        clients.iter().filter(|client| lab.hosts[0].is_connected(client).unwrap()).count()
    };
    assert_eq!(is_open(&mut lab), 4);
    assert!(lab.counter(1, "syn_backlog_drops") >= CLIENTS as u64 - 4);
    let mut accepted = Vec::new();
    lab.until(|lab| {
        accepted.extend(lab.hosts[1].accept(lab.now, &server).unwrap());
        accepted.len() == CLIENTS
    });
    assert_eq!(is_open(&mut lab), CLIENTS);
}

#[test]
fn closing_a_listener_resets_who_waits() {
    let mut lab = Lab::pair();
    let server = lab.listen(1, server_of(v4(1)));
    let client = lab.connect(0, server_of(v4(1)));
    lab.until(|lab| lab.hosts[0].is_connected(&client).unwrap());
    lab.hosts[1].close_listener(lab.now, server);
    lab.run(Duration::from_millis(10));
    assert!(matches!(lab.hosts[0].is_connected(&client), Err(SocketError::Reset)));
    lab.hosts[0].close(lab.now, client, false);
    let late = lab.connect(0, server_of(v4(1)));
    lab.run(Duration::from_millis(10));
    assert!(matches!(lab.hosts[0].is_connected(&late), Err(SocketError::Refused)));
    lab.hosts[0].close(lab.now, late, false);
    lab.assert_nothing_left();
}

#[test]
fn a_connection_given_up_while_it_opens_leaves_nothing() {
    let mut lab = Lab::pair();
    lab.listen(1, server_of(v4(1)));
    let client = lab.connect(0, server_of(v4(1)));
    lab.hosts[0].close(lab.now, client, false);
    lab.run(Duration::from_secs(1));
    assert_eq!(lab.counter(1, "half_open_in_use"), 0, "our reset ended it");
    lab.assert_nothing_left();
}

#[test]
fn nothing_is_reported_when_nothing_happens() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.run(Duration::from_millis(10));
    lab.news(0, client.id());
    lab.news(1, accepted.id());
    lab.send(0, &client, b"once");
    lab.run(Duration::from_secs(5));
    assert_eq!(lab.news(0, client.id()), Readiness::NONE);
    let events: Vec<_> = lab.events[1].iter().filter(|r| r.socket == accepted.id()).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].readiness, Readiness::READABLE);
    assert_eq!(lab.hosts[0].name(), "native");
    assert_eq!(server_of(v4(1)).port(), PORT);
}
