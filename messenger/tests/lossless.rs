//! Sessions that outlive their TCP connections: exactly once and in order, whatever breaks
//! (contracts C-2, L-3 to L-12, S-9, S-10), with sockets that fail at random.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

use common::*;
use messenger::{Config, ConnectOptions, Connection, Policy};
use std::sync::Barrier;
use std::time::Duration;

/// Runs each scenario on each stack.
macro_rules! on_every_stack {
    ($($scenario:ident),* $(,)?) => {
        mod one_worker {
            $(#[test] fn $scenario() { super::$scenario(&super::Posix::new("127.0.0.1", 1)); })*
        }
        mod four_workers {
            $(#[test] fn $scenario() { super::$scenario(&super::Posix::new("127.0.0.1", 4)); })*
        }
        mod simple {
            $(#[test] fn $scenario() { super::$scenario(&super::Simple::new("127.0.0.1")); })*
        }
    };
}

on_every_stack!(
    exactly_once_through_broken_sockets,
    exactly_once_for_many_through_broken_sockets,
    sessions_marked_down_amid_broken_sockets_harm_no_others,
    peers_that_dial_each_other_race,
    threads_that_find_a_connection_as_it_is_made_lose_nothing,
    a_parked_session_resumes_on_send,
    a_server_is_told_that_its_client_started_over,
);

const MESSAGES: u64 = 400;

/// One in so many reads and writes breaks the connection.
fn breaking(one_in: u64) -> Config {
    Config {
        ms_inject_socket_failures: one_in,
        ms_initial_backoff: Duration::from_millis(2),
        ms_max_backoff: Duration::from_millis(20),
        ..Config::default()
    }
}

fn tids(recorder: &Recorder, connection: &Connection) -> Vec<u64> {
    let saw = recorder.fast_on(connection).into_iter();
    let saw = saw.chain(recorder.queued_on(connection));
    saw.filter_map(|saw| match saw {
        Saw::Fast(tid) | Saw::Queued(tid) => Some(tid),
        _ => None,
    })
    .collect()
}

fn clients_of_a_stateful_server(net: &impl Net, connections: usize) {
    let policy = Policy::stateful_server();
    let server = server_with(net, Recorder::fast().echoing(), breaking(40), policy);
    let policy = Policy::lossless_client();
    let clients: Vec<_> = (0..connections)
        .map(|_| client_with(net, Recorder::fast(), breaking(40), policy.clone()))
        .collect();
    let handles: Vec<_> = clients.iter().map(|client| client.connect(&server)).collect();
    for tid in 0..MESSAGES {
        for handle in &handles {
            send(handle, ping(tid).with_data(vec![tid as u8; 3000]));
        }
    }
    for (client, handle) in clients.iter().zip(&handles) {
        client.recorder.wait_for_messages(MESSAGES as usize);
        assert!(tids(&client.recorder, handle).into_iter().eq(0..MESSAGES));
        assert_eq!(client.recorder.count(&Saw::RemoteReset), 0);
        assert_eq!(client.recorder.count(&Saw::Reset), 0);
        let dials = client.messenger.counters().total("msgr_dials");
        assert!(dials < MESSAGES, "{dials} dials: what comes back is broken again");
    }
    let sessions = server.recorder.accepted();
    assert_eq!(sessions.len(), connections, "each client kept its session");
    for session in &sessions {
        assert!(tids(&server.recorder, session).into_iter().eq(0..MESSAGES));
    }
    let counters = server.messenger.counters();
    assert!(counters.total("msgr_faults") > 0, "nothing broke");
    assert_eq!(counters.total("msgr_send_dropped_messages"), 0);
    clients.iter().for_each(Host::end);
    server.end();
}

fn exactly_once_through_broken_sockets(net: &impl Net) {
    clients_of_a_stateful_server(net, 4);
}

fn exactly_once_for_many_through_broken_sockets(net: &impl Net) {
    clients_of_a_stateful_server(net, 8);
}

/// Sessions that end while others move between workers take none of those with them.
fn sessions_marked_down_amid_broken_sockets_harm_no_others(net: &impl Net) {
    let policy = Policy::stateful_server();
    let server = server_with(net, Recorder::fast().echoing(), breaking(20), policy);
    let client = || {
        let policy = Policy::lossless_client();
        client_with(net, Recorder::fast(), breaking(20), policy)
    };
    let (steady, unlucky) = ([(); 4].map(|()| client()), [(); 4].map(|()| client()));
    let handles = steady.each_ref().map(|client| client.connect(&server));
    let doomed: Vec<_> = unlucky.iter().map(|client| client.messenger.nonce()).collect();
    for tid in 0..MESSAGES {
        for handle in &handles {
            send(handle, ping(tid));
        }
        for client in &unlucky {
            // Its session may have ended a moment ago; the next one is made then.
            let _ = client.connect(&server).send_message(ping(tid));
        }
        let nonce = doomed[tid as usize % doomed.len()];
        let is_doomed = |connection: &&Connection| {
            let addrs = connection.peer_addrs();
            addrs.first().is_some_and(|addr| addr.nonce == nonce) && !connection.is_down()
        };
        let accepted = server.recorder.accepted();
        if tid % 8 == 0
            && let Some(connection) = accepted.iter().find(is_doomed)
        {
            connection.mark_down();
        }
    }
    for (client, handle) in steady.iter().zip(&handles) {
        client.recorder.wait_for_messages(MESSAGES as usize);
        assert!(tids(&client.recorder, handle).into_iter().eq(0..MESSAGES));
        assert_eq!(client.recorder.count(&Saw::RemoteReset), 0);
    }
    steady.iter().chain(&unlucky).for_each(Host::end);
    server.end();
    assert_eq!(server.messenger.counters().connections, 0);
}

/// #1, L-7: both dial at the same time, over and over; one session remains.
fn peers_that_dial_each_other_race(net: &impl Net) {
    let policy = Policy::lossless_peer_reuse();
    let one = server_with(net, Recorder::fast(), breaking(40), policy.clone());
    let two = server_with(net, Recorder::fast(), breaking(40), policy);
    let (to_two, to_one) = (one.connect(&two), two.connect(&one));
    for tid in 0..MESSAGES {
        send(&to_two, ping(tid));
        send(&to_one, ping(tid));
    }
    for host in [&one, &two] {
        host.recorder.wait_for_messages(MESSAGES as usize);
    }
    eventually("all is acknowledged", || {
        to_two.outgoing() == (0, 0) && to_one.outgoing() == (0, 0)
    });
    // Each side has one session with the other, and it is the one it dialled.
    for (host, handle) in [(&one, &to_two), (&two, &to_one)] {
        assert!(tids(&host.recorder, handle).into_iter().eq(0..MESSAGES));
        assert_eq!(host.recorder.count(&Saw::RemoteReset), 0);
    }
    one.end();
    two.end();
}

/// L-12: a parked session comes back when there is something to send.
fn a_parked_session_resumes_on_send(net: &impl Net) {
    let policy = Policy::lossless_peer();
    let quiet = Config { ms_connection_idle_timeout: Duration::from_millis(100), ..breaking(0) };
    let one = server_with(net, Recorder::fast(), quiet.clone(), policy.clone());
    let two = server_with(net, Recorder::fast(), quiet, policy);
    let to_two = one.connect(&two);
    for round in 0..5 {
        send(&to_two, ping(round));
        two.recorder.wait_for(&Saw::Fast(round));
        eventually("it is parked", || !to_two.is_connected());
        assert!(!to_two.is_down());
    }
    assert_eq!(two.recorder.count(&Saw::Fast(0)), 1);
    let reset = [&one, &two].map(|host| host.recorder.count(&Saw::RemoteReset));
    assert_eq!(reset, [0, 0]);
    one.end();
    two.end();
}

/// #11: the client loses its session; the server is told when it comes back.
fn a_server_is_told_that_its_client_started_over(net: &impl Net) {
    let server = server_with(net, Recorder::fast(), config(), Policy::stateful_server());
    let client = client_with(net, Recorder::fast(), config(), Policy::lossless_client());
    let connection = client.connect(&server);
    send(&connection, ping(1));
    server.recorder.wait_for(&Saw::Fast(1));
    connection.mark_down();
    let again = client.connect(&server);
    assert_ne!(again, connection);
    send(&again, ping(2));
    server.recorder.wait_for(&Saw::Fast(2));
    server.recorder.wait_for(&Saw::RemoteReset);
    client.end();
    server.end();
}

fn threads_that_find_a_connection_as_it_is_made_lose_nothing(net: &impl Net) {
    const ROUNDS: u64 = 200;
    const THREADS: u64 = 3;
    let server = server_with(net, Recorder::fast(), config(), Policy::stateful_server());
    let client = client_with(net, Recorder::fast(), config(), Policy::lossless_client());
    let together = Barrier::new(THREADS as usize);
    let kind = server.messenger.name().kind;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, server, together) = (&client, &server, &together);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    together.wait();
                    let options = ConnectOptions::default();
                    let found = client.messenger.connect_to(kind, &server.addrs, options).unwrap();
                    found.send_message(ping(thread)).unwrap();
                    let all = ((round + 1) * THREADS) as usize;
                    server.recorder.wait_for_messages(all);
                    together.wait();
                    found.mark_down();
                }
            });
        }
    });
    client.end();
    server.end();
}
