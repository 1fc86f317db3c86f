//! Two messengers and what must hold between them, on every stack. Contract ids in the names'
//! comments are those of the messenger's semantics.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

use common::*;
use messenger::{
    Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityAddrVec,
    EntityName, EntityType, Error, Message, Messenger, MsType, Policy, SendError, msg_type,
};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Runs each scenario on each stack.
macro_rules! on_every_stack {
    ($($scenario:ident),* $(,)?) => {
        mod posix_ipv4 {
            $(#[test] fn $scenario() { super::$scenario(&super::Posix::new("127.0.0.1", 2)); })*
        }
        mod posix_ipv6 {
            $(#[test] fn $scenario() { super::$scenario(&super::Posix::new("::1", 1)); })*
        }
        mod simple_ipv4 {
            $(#[test] fn $scenario() { super::$scenario(&super::Simple::new("127.0.0.1")); })*
        }
        mod simple_ipv6 {
            $(#[test] fn $scenario() { super::$scenario(&super::Simple::new("::1")); })*
        }
    };
}

on_every_stack!(
    a_ping_is_answered_by_fast_dispatch,
    a_ping_is_answered_through_the_queue,
    callbacks_come_in_order,
    a_peer_is_told_after_the_application,
    the_loopback_connection_delivers_to_ourselves,
    marking_a_connection_down_is_silent_here_and_a_reset_there,
    marking_addresses_down_is_a_reset,
    a_refused_client_connects_once_the_server_is_there,
    shutdown_and_wait_free_everything,
    many_connections_keep_their_order_on_workers,
    many_connections_keep_their_order_through_the_queue,
    big_messages_arrive_whole,
    a_full_dispatch_throttle_stops_reading_until_it_has_room,
    a_lossy_client_is_told_when_its_server_vanishes,
    a_panicking_dispatcher_ends_its_connection_only,
    callbacks_may_send,
    messages_of_many_threads_all_arrive,
    a_message_that_is_not_taken_comes_back,
    a_messenger_starts_again_after_its_end,
    keepalives_are_answered,
    the_same_address_gives_the_same_connection_unless_anonymous,
    waiting_in_a_callback_is_refused,
    lossless_client_and_stateful_server_talk,
    a_disposable_connection_does_not_come_back,
    a_registered_lossy_client_replaces_its_older_connection,
    binding_scans_retries_and_unwinds,
    strangers_are_turned_away,
);

fn a_ping_is_answered_by_fast_dispatch(net: &impl Net) {
    let server = server(net, Recorder::fast().echoing());
    let client = client(net, Recorder::fast());
    let connection = client.connect(&server);
    send(&connection, ping(7));
    client.recorder.wait_for(&Saw::Fast(7));
    assert!(connection.is_connected());
    assert_eq!(connection.peer_type(), Some(EntityType::Osd));
    assert_eq!(connection.peer_addrs(), server.addrs);
    let accepted = &server.recorder.accepted()[0];
    let client_name = EntityName::new(EntityType::Client, 4100);
    assert_eq!(accepted.peer_name().map(|name| name.kind), Some(client_name.kind));
    assert!(connection.has_features(accepted.features()) && accepted.features() != 0);
    eventually("it is counted when the callback has returned", || {
        client.messenger.counters().total("msgr_fast_dispatched_messages") >= 1
    });
    client.end();
    server.end();
}

fn a_ping_is_answered_through_the_queue(net: &impl Net) {
    let server = server(net, Recorder::queued().echoing());
    let client = client(net, Recorder::queued().keeping_messages());
    send(&client.connect(&server), ping(7).with_data(vec![5; 100]));
    client.recorder.wait_for(&Saw::Queued(7));
    let answer = client.recorder.take_messages().remove(0);
    assert_eq!(answer.data, vec![5; 100]);
    assert_eq!(answer.source, Some(server.messenger.name()));
    assert!(answer.stamps.recv <= answer.stamps.recv_complete);
    assert!(answer.stamps.recv_complete <= answer.stamps.dispatch);
    client.end();
    server.end();
}

/// D-6 to D-8, D-13, D-14.
fn callbacks_come_in_order(net: &impl Net) {
    let server = server(net, Recorder::queued());
    let client = client(net, Recorder::queued());
    let connection = client.connect(&server);
    for tid in 1..=3 {
        send(&connection, ping(tid));
    }
    server.recorder.wait_for(&Saw::Queued(3));
    client.recorder.wait_for(&Saw::Connect);
    connection.mark_down();
    server.recorder.wait_for(&Saw::Reset);
    let accepted = server.recorder.accepted().remove(0);
    assert_eq!(server.recorder.fast_on(&accepted), [Saw::FastAccept]);
    let expected = [Saw::Accept, Saw::Queued(1), Saw::Queued(2), Saw::Queued(3), Saw::Reset];
    assert_eq!(server.recorder.queued_on(&accepted), expected);
    assert!(!accepted.is_connected());
    client.end();
    server.end();
    assert_eq!(client.recorder.fast_on(&connection), [Saw::FastConnect]);
    assert_eq!(client.recorder.queued_on(&connection), [Saw::Connect]);
}

/// D-7.
fn a_peer_is_told_after_the_application(net: &impl Net) {
    /// Takes its time with each peer.
    #[derive(Default)]
    struct Doorkeeper(AtomicBool);

    impl Dispatcher for Doorkeeper {
        fn handle_fast_accept(&self, _: &Connection) {
            std::thread::sleep(Duration::from_millis(20));
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let door = Arc::new(Doorkeeper::default());
    let server = net.messenger(End::Server, EntityName::new(EntityType::Osd, 0), config());
    server.set_default_policy(Policy::stateless_server()).unwrap();
    server.add_dispatcher_tail(door.clone(), DispatcherPriority::DEFAULT).unwrap();
    let addrs = server.bind(SocketAddr::new(net.ip(End::Server), 0)).unwrap();
    server.start().unwrap();
    let early = Arc::new(AtomicBool::new(false));
    let seen = early.clone();
    let recorder = Recorder::queued().on_connect(move |connection| {
        let late = connection.is_loopback() || door.0.load(Ordering::Relaxed);
        seen.fetch_or(!late, Ordering::Relaxed);
    });
    let client = client(net, recorder);
    let options = ConnectOptions::default();
    let connection = client.messenger.connect_to(EntityType::Osd, &addrs, options).unwrap();
    client.recorder.wait_for_on(&connection, &Saw::FastConnect, 1);
    assert!(!early.load(Ordering::Relaxed), "connected before it was accepted");
    client.end();
    server.shutdown();
    server.wait().unwrap();
}

/// Semantics 1.13, Q-11.
fn the_loopback_connection_delivers_to_ourselves(net: &impl Net) {
    let recorder = Recorder::queued().keeping_messages();
    let server = server(net, recorder);
    let connection = server.connect(&server);
    assert!(connection.is_loopback() && connection.is_connected());
    assert_eq!(server.recorder.fast_on(&connection), [Saw::FastConnect]);
    for tid in 0..100 {
        send(&connection, ping(tid).with_front(vec![1; 10]));
    }
    server.recorder.wait_for_messages(100);
    let messages = server.recorder.take_messages();
    assert!(messages.iter().map(|m| m.header.tid).eq(0..100));
    assert_eq!(messages[0].source, Some(server.messenger.name()));
    assert_eq!(server.messenger.loopback_connection().unwrap(), connection);
    server.end();
    let refused = connection.send_message(ping(1)).unwrap_err();
    assert!(matches!(refused, SendError::Closed(_)));
}

/// M-22, C-5, C-7.
fn marking_a_connection_down_is_silent_here_and_a_reset_there(net: &impl Net) {
    let server = server(net, Recorder::queued());
    let client = client(net, Recorder::queued());
    let connection = client.connect(&server);
    client.recorder.wait_for(&Saw::Connect);
    assert!(connection.is_connected());
    connection.mark_down();
    assert!(!connection.is_connected());
    connection.mark_down();
    let refused = connection.send_message(ping(1)).unwrap_err();
    assert_eq!(refused.into_message().header.tid, 1);
    server.recorder.wait_for(&Saw::Reset);
    let again = client.connect(&server);
    assert_ne!(again, connection);
    client.recorder.wait_until("a second connect", |saw| {
        saw.iter().filter(|(_, saw)| *saw == Saw::Connect).count() == 2
    });
    client.end();
    server.end();
    assert_eq!(client.recorder.fast_on(&connection), [Saw::FastConnect]);
    assert_eq!(client.recorder.queued_on(&connection), [Saw::Connect]);
    assert_eq!(client.recorder.queued_on(&again).last(), Some(&Saw::Reset));
}

/// M-20.
fn marking_addresses_down_is_a_reset(net: &impl Net) {
    let server = server(net, Recorder::queued());
    let client = client(net, Recorder::queued());
    let connection = client.connect(&server);
    client.recorder.wait_for(&Saw::Connect);
    assert!(client.messenger.mark_down(&server.addrs));
    assert!(!connection.is_connected());
    client.recorder.wait_for(&Saw::Reset);
    assert!(!client.messenger.mark_down(&server.addrs), "it is known no more");
    client.end();
    server.end();
}

/// D-11, P-1.
fn a_refused_client_connects_once_the_server_is_there(net: &impl Net) {
    // A port of the system's choice, outside the range where other tests' servers come and go.
    let free = TcpListener::bind(SocketAddr::new(net.ip(End::Server), 0)).unwrap();
    let socket = free.local_addr().unwrap();
    drop(free);
    let addrs = EntityAddrVec::from(EntityAddr::v2(socket, 1));
    let client = client(net, Recorder::queued());
    let options = ConnectOptions::default();
    let connection = client.messenger.connect_to(EntityType::Osd, &addrs, options).unwrap();
    send(&connection, ping(1));
    client.recorder.wait_for(&Saw::Refused);
    assert!(!connection.is_down(), "a lossy client goes on until it was connected once");

    // Who comes to live there has another nonce, so it is another entity (L-15).
    let recorder = Arc::new(Recorder::queued());
    let name = EntityName::new(EntityType::Osd, 0);
    let messenger = net.messenger(End::Server, name, config());
    messenger.set_default_policy(Policy::stateless_server()).unwrap();
    messenger.add_dispatcher_tail(recorder.clone(), DispatcherPriority::DEFAULT).unwrap();
    let new_addrs = messenger.bind(socket).unwrap();
    messenger.start().unwrap();
    client.messenger.send_to(ping(2), EntityType::Osd, &new_addrs).unwrap();
    recorder.wait_for(&Saw::Queued(2));
    assert_eq!(recorder.count(&Saw::Queued(1)), 0);
    client.end();
    messenger.shutdown();
    messenger.wait().unwrap();
}

fn shutdown_and_wait_free_everything(net: &impl Net) {
    let server = server(net, Recorder::queued().echoing());
    let client = client(net, Recorder::queued().echoing());
    let object: Arc<String> = Arc::new(String::from("the application's"));
    for _ in 0..8 {
        let options = ConnectOptions { anonymous: true, not_local: false };
        let connection = client.messenger.connect_to(EntityType::Osd, &server.addrs, options);
        let connection = connection.unwrap();
        assert!(connection.set_priv_data(Some(object.clone())).is_none());
        send(&connection, ping(1));
    }
    client.recorder.wait_for_messages(8);
    assert_eq!(Arc::strong_count(&object), 9);
    client.end();
    server.end();
    assert_eq!(server.messenger.dispatch_queue_len(), 0);
    assert_eq!(client.messenger.counters().connections, 0);
    assert_eq!(client.recorder.count(&Saw::Reset), 8);
    let recorders = [&client, &server].map(|host| Arc::downgrade(&host.recorder));
    drop((client, server));
    eventually("nobody holds dispatchers or connections any more", || {
        recorders.iter().all(|recorder| recorder.strong_count() == 0)
            && Arc::strong_count(&object) == 1
    });
}

fn many_connections_keep_their_order_on_workers(net: &impl Net) {
    many_connections_keep_their_order(net, Recorder::fast());
}

fn many_connections_keep_their_order_through_the_queue(net: &impl Net) {
    many_connections_keep_their_order(net, Recorder::queued());
}

fn many_connections_keep_their_order(net: &impl Net, recorder: Recorder) {
    const CONNECTIONS: usize = 64;
    const MESSAGES: u64 = 1000;
    let server = server(net, recorder);
    let client = client(net, Recorder::fast());
    let options = ConnectOptions { anonymous: true, not_local: false };
    let connect = |_| client.messenger.connect_to(EntityType::Osd, &server.addrs, options);
    let connections: Vec<_> = (0..CONNECTIONS).map(connect).collect::<Result<_, _>>().unwrap();
    for tid in 0..MESSAGES {
        for connection in &connections {
            send(connection, ping(tid));
        }
    }
    server.recorder.wait_for_messages(CONNECTIONS * MESSAGES as usize);
    let accepted = server.recorder.accepted();
    assert_eq!(accepted.len(), CONNECTIONS);
    for connection in &accepted {
        let mut saw = server.recorder.fast_on(connection);
        saw.extend(server.recorder.queued_on(connection));
        let tids = saw.iter().filter_map(|saw| match saw {
            Saw::Fast(tid) | Saw::Queued(tid) => Some(*tid),
            _ => None,
        });
        assert!(tids.eq(0..MESSAGES), "order of {connection}");
    }
    eventually("everything has left", || connections.iter().all(|c| c.outgoing() == (0, 0)));
    client.end();
    server.end();
}

fn big_messages_arrive_whole(net: &impl Net) {
    let server = server(net, Recorder::queued().echoing());
    let client = client(net, Recorder::queued().keeping_messages());
    let connection = client.connect(&server);
    let data: Vec<u8> = (0..8 << 20).map(|at: u32| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
    for tid in 0..3 {
        let message = ping(tid).with_data(data.clone()).with_front(vec![3; 800_000]);
        send(&connection, message);
    }
    client.recorder.wait_for_messages(3);
    for (tid, message) in (0..).zip(client.recorder.take_messages()) {
        assert_eq!(message.header.tid, tid);
        assert!(message.data == data, "message {tid} differs");
    }
    client.end();
    server.end();
}

/// T-1, T-2, T-4: nothing is read that there is no room for, and reading resumes by itself.
fn a_full_dispatch_throttle_stops_reading_until_it_has_room(net: &impl Net) {
    const BUDGET: u64 = 1 << 20;
    const MESSAGE: usize = 200_000;
    const COUNT: usize = 40;
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let hold = Recorder::queued().on_message(move |_, _| {
        // Each message waits for its permission; a closed gate lets all pass.
        let _ = gate.lock().unwrap().recv();
    });
    let config = Config { ms_dispatch_throttle_bytes: BUDGET, ..config() };
    let server = server_with(net, hold, config, Policy::stateless_server());
    let client = client(net, Recorder::queued());
    let connection = client.connect(&server);
    for tid in 0..COUNT as u64 {
        send(&connection, ping(tid).with_data(vec![0; MESSAGE]));
    }
    eventually("a full throttle", || {
        let counters = server.messenger.counters();
        counters.total("msgr_throttle_waits") > 0
            && counters.dispatch_throttle_bytes + MESSAGE as u64 > BUDGET
    });
    for _ in 0..COUNT {
        assert!(server.messenger.counters().dispatch_throttle_bytes <= BUDGET);
        release.send(()).unwrap();
    }
    server.recorder.wait_for_messages(COUNT);
    eventually("all shares are back", || server.messenger.counters().dispatch_throttle_bytes == 0);
    client.end();
    server.end();
}

/// C-3, D-9.
fn a_lossy_client_is_told_when_its_server_vanishes(net: &impl Net) {
    let server = server(net, Recorder::queued());
    let client = client(net, Recorder::queued());
    let connection = client.connect(&server);
    client.recorder.wait_for(&Saw::Connect);
    server.end();
    client.recorder.wait_for(&Saw::Reset);
    assert!(connection.is_down());
    assert!(matches!(connection.send_message(ping(1)), Err(SendError::Closed(_))));
    assert_eq!(client.recorder.queued_on(&connection), [Saw::Connect, Saw::Reset]);
    client.end();
}

fn a_panicking_dispatcher_ends_its_connection_only(net: &impl Net) {
    for recorder in [Recorder::fast(), Recorder::queued()] {
        let moody = recorder.on_message(|_, message| {
            assert!(message.header.tid != 13, "a test of panics: expected in the output");
        });
        let server = server(net, moody);
        let client = client(net, Recorder::queued());
        let options = ConnectOptions { anonymous: true, not_local: false };
        let connect = || client.messenger.connect_to(EntityType::Osd, &server.addrs, options);
        let (good, bad) = (connect().unwrap(), connect().unwrap());
        send(&good, ping(1));
        server.recorder.wait_for_messages(1);
        send(&bad, ping(13));
        server.recorder.wait_for(&Saw::Reset);
        client.recorder.wait_for(&Saw::Reset);
        assert_eq!(client.recorder.queued_on(&bad).last(), Some(&Saw::Reset));
        send(&good, ping(2));
        server.recorder.wait_for_messages(2);
        assert!(good.is_connected() && bad.is_down());
        assert_eq!(server.messenger.counters().callback_panics, 1);
        client.end();
        server.end();
    }
}

/// D-15.
fn callbacks_may_send(net: &impl Net) {
    let server = server(net, Recorder::fast().echoing());
    let recorder = Recorder::queued().on_connect(|connection| send(connection, ping(0)));
    // A ping-pong between the server's worker and the client's dispatch thread.
    let recorder = recorder.on_message(|connection, message| match message.header.tid {
        tid @ 0..50 => send(connection, ping(tid + 1)),
        _ => connection.mark_down(),
    });
    let client = client(net, recorder);
    let connection = client.connect(&server);
    client.recorder.wait_for(&Saw::Queued(50));
    eventually("the callback marked it down", || connection.is_down());
    client.end();
    server.end();
}

fn messages_of_many_threads_all_arrive(net: &impl Net) {
    const THREADS: u64 = 8;
    const MESSAGES: u64 = 500;
    let server = server(net, Recorder::fast());
    let client = client(net, Recorder::queued());
    let connection = client.connect(&server);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let connection = &connection;
            scope.spawn(move || {
                (0..MESSAGES).for_each(|n| send(connection, ping(thread << 32 | n)));
            });
        }
    });
    server.recorder.wait_for_messages((THREADS * MESSAGES) as usize);
    let mut next = [0; THREADS as usize];
    for saw in server.recorder.saw() {
        if let Saw::Fast(tid) = saw {
            let expected = &mut next[(tid >> 32) as usize];
            assert_eq!(tid & u64::from(u32::MAX), *expected);
            *expected += 1;
        }
    }
    assert_eq!(next, [MESSAGES; THREADS as usize]);
    client.end();
    server.end();
}

/// C-1, and the bound of the outgoing queue.
fn a_message_that_is_not_taken_comes_back(net: &impl Net) {
    // Somebody who accepts and never says a word.
    let silent = TcpListener::bind(SocketAddr::new("127.0.0.1".parse().unwrap(), 0)).unwrap();
    let text = format!("v2:{}/1", silent.local_addr().unwrap());
    let addrs = EntityAddrVec::from(text.parse::<EntityAddr>().unwrap());
    let config = Config { send_queue_messages: NonZeroUsize::new(3).unwrap(), ..config() };
    let client = client_with(net, Recorder::queued(), config, Policy::lossy_client());
    let options = ConnectOptions::default();
    let connection = client.messenger.connect_to(EntityType::Osd, &addrs, options).unwrap();
    for tid in 0..3 {
        connection.send_message(ping(tid)).unwrap();
    }
    let Err(SendError::Full(back)) = connection.send_message(ping(3)) else {
        panic!("a fourth message was taken");
    };
    assert_eq!(back.header.tid, 3);
    assert_eq!(connection.outgoing().0, 3);
    let long = Message::new(msg_type::PING).with_front(vec![0; (16 << 20) + 1]);
    assert!(matches!(connection.send_message(long), Err(SendError::TooLong(_))));
    connection.mark_down();
    eventually("the queue is given up", || connection.outgoing() == (0, 0));
    client.end();
}

/// M-16.
fn a_messenger_starts_again_after_its_end(net: &impl Net) {
    let server = server(net, Recorder::queued().echoing());
    let client = client(net, Recorder::queued());
    let mut nonces = Vec::new();
    for round in 1..=2 {
        send(&client.connect(&server), ping(round));
        client.recorder.wait_for(&Saw::Queued(round));
        send(&client.messenger.loopback_connection().unwrap(), ping(100 + round));
        client.recorder.wait_for(&Saw::Queued(100 + round));
        nonces.push(client.messenger.nonce());
        client.end();
        let options = ConnectOptions::default();
        let refused = client.messenger.connect_to(EntityType::Osd, &server.addrs, options);
        assert!(matches!(refused, Err(Error::NotRunning)));
        client.messenger.start().unwrap();
    }
    assert_ne!(nonces[0], nonces[1]);
    client.end();
    server.end();
}

/// C-4, C-11, C-12.
fn keepalives_are_answered(net: &impl Net) {
    let server = server(net, Recorder::queued());
    let client = client(net, Recorder::queued());
    let connection = client.connect(&server);
    connection.send_keepalive(); // before the session stands: remembered
    eventually("an answer", || connection.last_keepalive_ack().is_some());
    let first = connection.last_keepalive_ack();
    let accepted = server.recorder.accepted().remove(0);
    assert!(accepted.last_keepalive().is_some());
    connection.send_keepalive();
    eventually("a newer answer", || connection.last_keepalive_ack() > first);
    client.end();
    server.end();
}

/// M-17, #13.
fn the_same_address_gives_the_same_connection_unless_anonymous(net: &impl Net) {
    let server = server(net, Recorder::queued());
    let client = client(net, Recorder::queued());
    let one = client.connect(&server);
    assert_eq!(client.connect(&server), one);
    let options = ConnectOptions { anonymous: true, not_local: false };
    let connect = || client.messenger.connect_to(EntityType::Osd, &server.addrs, options).unwrap();
    let (two, three) = (connect(), connect());
    assert!(one != two && two != three && two.is_anonymous() && !one.is_anonymous());
    for (tid, connection) in [(1, &one), (2, &two), (3, &three)] {
        send(connection, ping(tid));
        server.recorder.wait_for(&Saw::Queued(tid));
    }
    assert_eq!(server.recorder.accepted().len(), 3);
    let to_clients = server.messenger.connect_to(EntityType::Osd, &client.addrs, options);
    assert!(matches!(to_clients, Err(Error::ServerPolicy(EntityType::Osd))));
    let nowhere = EntityAddrVec::default();
    let refused = client.messenger.send_to(ping(1), EntityType::Osd, &nowhere);
    assert!(matches!(refused, Err(Error::NoAddress(_))));
    client.end();
    server.end();
}

fn waiting_in_a_callback_is_refused(net: &impl Net) {
    let server = server(net, Recorder::queued().echoing());
    let slot: Arc<Mutex<Option<Arc<Messenger>>>> = Arc::default();
    let refused = Arc::new(AtomicU64::new(0));
    for recorder in [Recorder::queued(), Recorder::fast()] {
        let (inner, count) = (slot.clone(), refused.clone());
        let recorder = recorder.on_message(move |_, _| {
            let messenger = inner.lock().unwrap().clone().unwrap();
            messenger.shutdown();
            if matches!(messenger.wait(), Err(Error::OwnThread(_))) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let client = client(net, recorder);
        *slot.lock().unwrap() = Some(client.messenger.clone());
        send(&client.connect(&server), ping(1));
        client.messenger.wait().unwrap();
        *slot.lock().unwrap() = None;
    }
    assert_eq!(refused.load(Ordering::Relaxed), 2);
    server.end();
}

/// P-6, C-2 as far as no transport is lost.
fn lossless_client_and_stateful_server_talk(net: &impl Net) {
    let recorder = Recorder::queued().echoing();
    let server = server_with(net, recorder, config(), Policy::stateful_server());
    let recorder = Recorder::queued();
    let client = client_with(net, recorder, config(), Policy::lossless_client());
    let connection = client.connect(&server);
    for tid in 0..500 {
        send(&connection, ping(tid));
    }
    client.recorder.wait_for_messages(500);
    eventually("all are acknowledged", || connection.outgoing() == (0, 0));
    client.end();
    server.end();
}

/// C-6.
fn a_disposable_connection_does_not_come_back(net: &impl Net) {
    let recorder = Recorder::queued().echoing();
    let server = server_with(net, recorder, config(), Policy::stateful_server());
    let recorder = Recorder::queued();
    let client = client_with(net, recorder, config(), Policy::lossless_client());
    let connection = client.connect(&server);
    client.recorder.wait_for(&Saw::Connect);
    connection.mark_disposable();
    send(&connection, ping(1)); // the worker has seen the mark before it sees this
    client.recorder.wait_for(&Saw::Queued(1));
    server.messenger.mark_down_all();
    client.recorder.wait_for(&Saw::Reset);
    assert!(connection.is_down());
    client.end();
    server.end();
}

/// P-5.
fn a_registered_lossy_client_replaces_its_older_connection(net: &impl Net) {
    let recorder = Recorder::queued();
    let policy = Policy::stateless_registered_server();
    let server = server_with(net, recorder, config(), policy);
    let client = client(net, Recorder::queued());
    let options = ConnectOptions { anonymous: true, not_local: false };
    let connect = || client.messenger.connect_to(EntityType::Osd, &server.addrs, options).unwrap();
    let first = connect();
    client.recorder.wait_for(&Saw::Connect);
    let second = connect();
    client.recorder.wait_for(&Saw::Reset);
    eventually("the second stands", || second.is_connected());
    assert!(first.is_down());
    client.end();
    server.end();
}

#[test]
fn messengers_of_one_transport_share_their_workers() {
    let name = EntityName::new(EntityType::Client, 1);
    let create = || Messenger::create(name, Config::default()).unwrap();
    let (one, two) = (create(), create());
    for messenger in [&one, &two] {
        messenger.start().unwrap();
        assert_eq!(messenger.counters().workers.len(), 3);
    }
    let other = Config { worker_inbox_items: NonZeroUsize::new(100).unwrap(), ..config() };
    let three = Messenger::create(name, other).unwrap();
    three.start().unwrap();
    let turns = |messenger: &Messenger| messenger.counters().total("worker_commands");
    let (before, before_three) = (turns(&one), turns(&three));
    for _ in 0..10 {
        two.counters();
    }
    assert!(turns(&one) >= before + 30, "what one asks the other's workers do");
    assert!(turns(&three) < before_three + 10);
    for messenger in [one, two, three] {
        messenger.shutdown();
        messenger.wait().unwrap();
    }
}

/// M-8, M-9.
fn binding_scans_retries_and_unwinds(net: &impl Net) {
    let messenger = |config| {
        let name = EntityName::new(EntityType::Osd, 1);
        net.messenger(End::Server, name, config)
    };
    let taken = TcpListener::bind(SocketAddr::new(net.ip(End::Server), 0)).unwrap();
    let addr = taken.local_addr().unwrap();
    let config = Config {
        ms_bind_retry_count: 1,
        ms_bind_retry_delay: Duration::from_millis(1),
        ms_bind_port_min: addr.port(),
        ms_bind_port_max: addr.port(),
        ..config()
    };
    let one = messenger(config);
    assert!(matches!(one.bind(addr), Err(Error::Bind { .. })));
    let any_port = SocketAddr::new(addr.ip(), 0);
    assert!(matches!(one.bind(any_port), Err(Error::NoFreePort { .. })));
    assert_eq!(one.addrs().first().unwrap().socket, None, "nothing stays bound");
    drop(taken);
    let addrs = one.bind(any_port).unwrap();
    assert_eq!(addrs.first().unwrap().socket, Some(addr));
    let two = messenger(Config { ms_bind_retry_count: 0, ..one.config().clone() });
    assert!(matches!(two.bind(addr), Err(Error::Bind { .. })));
    one.start().unwrap();
    assert!(matches!(one.bind(any_port), Err(Error::Started)));
    one.shutdown();
    one.wait().unwrap();
    two.bind(addr).unwrap();
}

/// A peer that talks nonsense, and one that says nothing, harm nobody else.
fn strangers_are_turned_away(net: &impl Net) {
    use std::io::{Read, Write};
    let config = Config {
        accepting_connections: 4,
        ms_connection_ready_timeout: Duration::from_millis(300),
        ..config()
    };
    let server = server_with(net, Recorder::fast().echoing(), config, Policy::stateless_server());
    let addr = server.addrs.first().and_then(|addr| addr.socket).unwrap();
    let mut noisy = std::net::TcpStream::connect(addr).unwrap();
    noisy.write_all(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n").unwrap();
    let ended = AtomicBool::new(false);
    let _ = noisy.read_to_end(&mut Vec::new()); // until the server hangs up, however it does
    ended.store(true, Ordering::Relaxed);
    eventually("it was counted", || server.messenger.counters().total("msgr_protocol_errors") == 1);
    let connect = |_| std::net::TcpStream::connect(addr).unwrap();
    let silent: Vec<_> = (0..8).map(connect).collect();
    eventually("too many are refused", || {
        server.messenger.counters().total("msgr_accept_refused") >= 4
    });
    let client = client(net, Recorder::fast());
    send(&client.connect(&server), ping(1));
    client.recorder.wait_for(&Saw::Fast(1));
    drop(silent);
    client.end();
    server.end();
}

/// M-3.
#[test]
fn a_client_s_messenger_may_have_a_transport_of_its_own() {
    let name = EntityName::new(EntityType::Client, 1);
    let created = |ms_public_type| {
        let config = Config { ms_public_type, ..Config::default() };
        Messenger::create_client(name, config).unwrap().config().ms_type
    };
    assert_eq!(created(Some(MsType::Simple)), MsType::Simple);
    assert_eq!(created(None), MsType::Posix);
}
