//! How connections end, and what is left of them: nothing.

use std::time::Duration;

use super::lab::{Lab, patterned, server_of, v4};
use crate::stack::{Received, SocketError, Worker};

#[test]
fn each_half_is_closed_by_its_own_side() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.send(0, &client, b"question");
    lab.hosts[0].shutdown(lab.now, &client).unwrap();
    let error = lab.hosts[0].send(lab.now, &client, &[], false).unwrap_err();
    assert!(matches!(error, SocketError::Shutdown));
    let mut question = Vec::new();
    lab.until(|lab| lab.read(1, &accepted, &mut question).unwrap() == Received::EndOfStream);
    assert_eq!(question, b"question");
    assert!(lab.news(1, accepted.id()).is_readable());
    // The other half is still open, for as long as its side likes.
    lab.run(Duration::from_secs(20));
    lab.transfer((1, &accepted), (0, &client), 100_000);
    lab.send(1, &accepted, b"end");
    lab.hosts[1].close(lab.now, accepted, false);
    lab.run(Duration::from_millis(50));
    // The connection is over, but not for its owner.
    assert_eq!(lab.counter(0, "time_wait_in_use"), 1);
    assert_eq!(lab.counter(1, "connections_in_use"), 0);
    lab.run(Duration::from_secs(20));
    let mut end = Vec::new();
    assert_eq!(lab.read(0, &client, &mut end).unwrap(), Received::EndOfStream);
    assert_eq!(end, b"end");
    assert_eq!(lab.read(0, &client, &mut end).unwrap(), Received::EndOfStream);
    lab.hosts[0].close(lab.now, client, false);
    lab.assert_nothing_left();
}

#[test]
fn a_connection_shut_before_it_opened_is_shut_when_it_opens() {
    let mut lab = Lab::pair();
    let server = lab.listen(1, server_of(v4(1)));
    let client = lab.connect(0, server_of(v4(1)));
    lab.hosts[0].shutdown(lab.now, &client).unwrap();
    let accepted = lab.accept(1, &server);
    let mut nothing = Vec::new();
    lab.until(|lab| lab.read(1, &accepted, &mut nothing).unwrap() == Received::EndOfStream);
    lab.transfer((1, &accepted), (0, &client), 1000);
}

#[test]
fn what_was_sent_before_a_close_is_delivered() {
    let mut lab = Lab::with(|_, config| config.rx_buffer_bytes = 4096);
    let (client, accepted) = lab.connected(v4(1));
    let data = patterned(0, 60_000);
    assert_eq!(lab.send(0, &client, &data), data.len());
    lab.hosts[0].close(lab.now, client, false);
    lab.run(Duration::from_secs(3));
    let mut received = Vec::new();
    lab.until(|lab| lab.read(1, &accepted, &mut received).unwrap() == Received::EndOfStream);
    assert!(received == data);
    lab.hosts[1].close(lab.now, accepted, false);
    lab.assert_nothing_left();
}

#[test]
fn both_sides_can_close_at_once() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.send(0, &client, b"bye");
    lab.send(1, &accepted, b"bye");
    lab.hosts[0].close(lab.now, client, false);
    lab.hosts[1].close(lab.now, accepted, false);
    lab.run(Duration::from_secs(1));
    assert_eq!(lab.counter(0, "time_wait_in_use") + lab.counter(1, "time_wait_in_use"), 2);
    lab.assert_nothing_left();
    assert_eq!(lab.counter(0, "resets_sent") + lab.counter(1, "resets_sent"), 0);
}

#[test]
fn an_abort_resets_the_peer() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.send(0, &client, b"never mind");
    lab.hosts[0].close(lab.now, client, true);
    lab.run(Duration::from_millis(10));
    assert!(lab.news(1, accepted.id()).is_readable());
    let mut nothing = Vec::new();
    let error = lab.read(1, &accepted, &mut nothing).unwrap_err();
    assert!(matches!(error, SocketError::Reset), "{error}");
    assert!(matches!(lab.hosts[1].is_connected(&accepted), Err(SocketError::Reset)));
    assert!(matches!(lab.hosts[1].shutdown(lab.now, &accepted), Err(SocketError::Reset)));
    assert_eq!(lab.counter(0, "connections_in_use"), 0);
    lab.hosts[1].close(lab.now, accepted, false);
    lab.assert_nothing_left();
    assert_eq!(lab.counter(0, "resets_sent"), 1);
    assert_eq!(lab.counter(1, "resets_sent"), 0);
}

#[test]
fn a_peer_that_goes_on_sending_to_a_closed_connection_is_reset() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.hosts[0].close(lab.now, client, false);
    lab.run(Duration::from_millis(10));
    lab.send(1, &accepted, b"anyone there?");
    lab.run(Duration::from_millis(10));
    assert!(matches!(lab.hosts[1].is_connected(&accepted), Err(SocketError::Reset)));
    lab.hosts[1].close(lab.now, accepted, false);
    lab.assert_nothing_left();
}

#[test]
fn delivering_in_the_background_has_an_end() {
    let mut lab = Lab::with(|_, config| config.linger = Duration::from_secs(2));
    let (client, accepted) = lab.connected(v4(1));
    // The peer never reads and never closes.
    let data = patterned(0, 65_536);
    lab.send(0, &client, &data);
    lab.run(Duration::from_secs(1));
    lab.send(0, &client, &data);
    lab.hosts[0].close(lab.now, client, false);
    lab.run(Duration::from_millis(1900));
    assert_eq!(lab.counter(0, "connections_in_use"), 1);
    lab.run(Duration::from_millis(200));
    assert_eq!(lab.counter(0, "linger_resets"), 1);
    assert_eq!(lab.counter(0, "connections_in_use"), 0);
    assert!(matches!(lab.hosts[1].is_connected(&accepted), Err(SocketError::Reset)));
    lab.hosts[1].close(lab.now, accepted, false);
    lab.assert_nothing_left();
}

#[test]
fn a_last_acknowledgement_that_was_lost_is_said_again() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.hosts[0].close(lab.now, client, false);
    let mut nothing = Vec::new();
    lab.until(|lab| lab.read(1, &accepted, &mut nothing).unwrap() == Received::EndOfStream);
    lab.hosts[1].close(lab.now, accepted, false);
    lab.net.set_blocked(0, 1, true);
    lab.run(Duration::from_millis(20));
    assert_eq!(lab.counter(0, "time_wait_in_use"), 1);
    assert_eq!(lab.counter(1, "connections_in_use"), 1);
    lab.net.set_blocked(0, 1, false);
    lab.run(Duration::from_millis(500));
    assert_eq!(lab.counter(1, "connections_in_use"), 0);
    lab.assert_nothing_left();
}

#[test]
fn data_that_came_before_a_reset_can_be_read() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.send(0, &client, b"last words");
    lab.run(Duration::from_millis(10));
    lab.hosts[0].close(lab.now, client, true);
    lab.run(Duration::from_millis(10));
    let mut words = Vec::new();
    assert!(lab.read(1, &accepted, &mut words).is_err());
    assert_eq!(words, b"last words");
}
