//! Ordinary lives of a session.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use messenger_proto::message::{PRIORITY_HIGH, PRIORITY_HIGHEST, PRIORITY_LOW};
use messenger_proto::{
    EntityType, GATHER_MAX, Message, Policy, RxBuffers, SendError, Throttle, features,
};

use crate::pair::{ALICE, BOB, Pair, identity, is_client, message};

fn lossy() -> Pair {
    Pair::connected(Policy::lossy_client(), Policy::stateless_server())
}

/// A lossy pair that speaks msgr2, and one that speaks msgr1.
fn over_both() -> [Pair; 2] {
    let v1 = Pair::new(Policy::lossy_client(), Policy::stateless_server()).over_v1();
    [lossy(), v1.connect()]
}

#[test]
fn two_sessions_meet_and_know_each_other() {
    let mut pair = lossy();
    assert_eq!(pair.slot(ALICE).log, ["dial", "learned", "ready"]);
    assert_eq!(pair.slot(BOB).log, ["ident", "ready"]);
    let bob = pair.session(ALICE).peer().clone();
    assert_eq!(bob.name.unwrap().to_string(), "osd.1");
    assert_eq!(bob.addrs.to_string(), "[v2:10.0.0.2:6800/22]");
    assert_eq!(bob.features, features::SUPPORTED);
    let alice = pair.session(BOB).peer().clone();
    assert!(is_client(alice.name), "{:?}", alice.name);
    assert_eq!(alice.addrs.to_string(), "[any:10.0.0.1:0/11]", "learned from Bob's HELLO");
    assert_eq!(alice.kind, Some(EntityType::Client));
    assert_eq!(bob.global_id, alice.global_id);
    assert!(pair.session(ALICE).policy().lossy && pair.session(BOB).policy().lossy);
}

#[test]
fn messages_arrive_whole_in_both_directions() {
    let mut pair = lossy();
    let sent = || message(7).with_middle("middle").with_version(9, 3);
    pair.send(ALICE, sent());
    pair.send(BOB, sent());
    pair.run();
    for host in [ALICE, BOB] {
        let slot = pair.slot(host);
        let got = &slot.received[0];
        let expected = sent();
        assert_eq!(
            [&got.front, &got.middle, &got.data],
            [&expected.front, &expected.middle, &expected.data]
        );
        assert_eq!((got.header.tid, got.header.seq, got.header.kind), (7, 1, 42));
        assert_eq!((got.header.version, got.header.compat_version), (9, 3));
        assert_eq!(got.source, slot.session.peer().name);
        assert!(got.stamps.recv.is_some() && got.stamps.recv_complete.is_some());
    }
}

#[test]
fn one_byte_at_a_time_is_enough() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    pair.chunk = 1;
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    pair.send(ALICE, message(2).with_data(vec![3; 20_000]));
    pair.run();
    assert_eq!(pair.received_tids(BOB), [1, 2]);
    assert_eq!(pair.slot(BOB).received[1].data, vec![3; 20_000]);
}

#[test]
fn sections_of_every_size_arrive_whatever_the_chunks() {
    for chunk in [101, 1000, 16 << 10, usize::MAX] {
        let mut pair = lossy();
        pair.chunk = chunk;
        let sizes = [0, 1, 511, 4096, 8191, 8192, 8193, 16_384, 16_385, 100_000, 1 << 20];
        for (tid, size) in sizes.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 31 + tid) as u8).collect();
            let parts = Message::new(1).with_tid(tid as u64).with_front(bytes[..size / 3].to_vec());
            pair.send(ALICE, parts.with_data(bytes));
        }
        pair.run();
        let received = &pair.slot(BOB).received;
        assert_eq!(received.len(), sizes.len());
        for (tid, (size, message)) in sizes.into_iter().zip(received).enumerate() {
            let mut right = message.data.iter().enumerate();
            assert!(right.all(|(at, byte)| (at * 31 + tid) as u8 == *byte));
            assert_eq!((message.data.len(), message.front.len()), (size, size / 3));
        }
    }
}

#[test]
fn what_is_sent_before_the_session_is_ready_waits_for_it() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    pair.run();
    assert_eq!(pair.received_tids(BOB), [1]);
}

#[test]
fn higher_priorities_overtake_and_numbers_follow_the_wire() {
    let mut pair = lossy();
    let priorities = [PRIORITY_LOW, 0, PRIORITY_HIGH, PRIORITY_HIGHEST, PRIORITY_LOW, 0];
    for (tid, priority) in priorities.into_iter().enumerate() {
        pair.send(ALICE, message(tid as u64).with_priority(priority));
    }
    pair.run();
    assert_eq!(pair.received_tids(BOB), [3, 2, 1, 5, 0, 4]);
    assert_eq!(pair.received_seqs(BOB), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_full_transport_does_not_commit_later_messages() {
    let mut pair = lossy();
    pair.window = 1;
    pair.silent = true;
    for tid in 0..50 {
        pair.send(ALICE, message(tid).with_data(vec![0; 100_000]));
    }
    pair.run();
    pair.send(ALICE, message(99).with_priority(PRIORITY_HIGHEST));
    pair.silent = false;
    pair.window = usize::MAX;
    pair.run();
    let tids = pair.received_tids(BOB);
    let place = tids.iter().position(|tid| *tid == 99).unwrap();
    assert!(place <= 3, "behind {place} messages of 100,000 bytes");
    assert_eq!(tids.len(), 51);
}

#[test]
fn many_small_messages_share_a_gather_list() {
    // Short sections are copied behind each other; longer ones are slices of their own.
    for (data_len, slices) in [(77, 1..=4), (1000, GATHER_MAX / 2 + 1..=GATHER_MAX)] {
        let mut pair = lossy();
        for tid in 0..100 {
            pair.send(ALICE, message(tid).with_data(vec![tid as u8; data_len]));
        }
        let now = pair.now;
        let gather = pair.session(ALICE).poll_transmit(now).unwrap();
        assert!(slices.contains(&gather.slices().len()), "{} slices", gather.slices().len());
        assert!(gather.slices().iter().all(|slice| !slice.is_empty()));
        let messages = gather.len() / data_len;
        assert!(messages >= if data_len == 77 { 100 } else { 28 }, "{messages} messages");
        pair.run();
        assert_eq!(pair.received_tids(BOB), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn a_keepalive_is_answered_with_its_own_stamp() {
    for mut pair in over_both() {
        pair.advance(Duration::from_secs(5));
        let now = pair.now;
        pair.session(ALICE).send_keepalive(now);
        pair.run();
        let stamp = pair.hosts[ALICE].identity.anchor.unix_at(now);
        assert_eq!(pair.session(ALICE).peer().last_keepalive_ack, Some(stamp));
        assert_eq!(pair.session(BOB).peer().last_keepalive, Some(now));
    }
}

#[test]
fn mark_down_is_silent_here_and_a_reset_there() {
    let mut pair = lossy();
    pair.send(ALICE, message(1));
    pair.session(ALICE).mark_down();
    pair.slot(ALICE).log.clear();
    pair.run();
    assert_eq!(pair.slot(ALICE).log, ["hangup"]);
    assert_eq!(pair.slot(BOB).log, ["ident", "ready", "hangup", "reset"]);
    assert!(pair.received_tids(BOB).is_empty(), "the queue was dropped");
    let now = pair.now;
    pair.session(ALICE).mark_down();
    pair.session(ALICE).send_keepalive(now);
    let refused = pair.session(ALICE).send(now, message(2)).unwrap_err();
    assert!(matches!(refused, SendError::Closed(_)));
    assert_eq!(refused.into_message().header.tid, 2);
    pair.run();
    assert_eq!(pair.slot(ALICE).log, ["hangup"]);
}

#[test]
fn close_tells_the_user() {
    let mut pair = lossy();
    pair.slot(ALICE).log.clear();
    pair.session(ALICE).close();
    pair.session(ALICE).close();
    pair.run();
    assert_eq!(pair.slot(ALICE).log, ["hangup", "reset"]);
}

#[test]
fn a_queue_has_a_limit_and_hands_back_what_exceeds_it() {
    let mut alice = identity("client.?", "any:-/11", Policy::lossy_client());
    alice.limits.queue_messages = 2;
    alice.limits.queue_bytes = 1000;
    alice.limits.data_len = 5000;
    let bob = identity("osd.1", "v2:10.0.0.2:6800/22", Policy::stateless_server());
    let mut pair = Pair::of([alice, bob]);
    pair.dial(ALICE);
    let now = pair.now;
    let mut send = |len: usize| {
        let message = Message::new(1).with_data(vec![0; len]);
        pair.session(ALICE).send(now, message).map_err(Box::new)
    };
    assert!(send(4000).is_ok(), "an empty queue takes any message");
    assert!(matches!(*send(1).unwrap_err(), SendError::Full(_)));
    assert!(send(0).is_err());
    assert!(matches!(*send(5001).unwrap_err(), SendError::TooLong(_)));
    pair.run();
    assert_eq!(pair.session(ALICE).queued(), (0, 0), "lossy sessions keep nothing");
}

#[test]
fn a_full_throttle_stops_reading_until_somebody_gives_back() {
    for over_v1 in [false, true] {
        let throttle = Throttle::new("dispatch", 150);
        let pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
        let mut pair = if over_v1 { pair.over_v1() } else { pair };
        pair.edit(BOB, |identity| identity.dispatch_throttle = Some(Arc::clone(&throttle)));
        pair.hosts[BOB].hoards = true;
        pair.dial(ALICE);
        for tid in 1..=4 {
            pair.send(ALICE, Message::new(1).with_tid(tid).with_front(vec![0; 70]));
        }
        pair.run();
        assert_eq!(pair.received_tids(BOB), [1, 2]);
        assert_eq!(throttle.current(), 140);
        assert!(pair.session(BOB).rx_space().is_empty());
        assert_eq!(pair.session(BOB).stats().throttle_waits, 1);

        pair.slot(BOB).received.remove(0).release_dispatch();
        pair.run();
        assert_eq!(pair.received_tids(BOB), [2, 3]);
        assert!(pair.session(BOB).rx_space().is_empty());

        pair.slot(BOB).received.clear();
        pair.run();
        assert_eq!(pair.received_tids(BOB), [4]);
        pair.session(BOB).mark_down();
        pair.slot(BOB).received.clear();
        assert_eq!(throttle.current(), 0);
    }
}

#[test]
fn all_three_budgets_hold_and_a_fault_between_them_returns_what_was_taken() {
    let (messages, bytes) = (Throttle::new("messages", 10), Throttle::new("bytes", 100));
    let dispatch = Throttle::new("dispatch", 50);
    let mut policy = Policy::stateless_server();
    policy.throttle_messages = Some(Arc::clone(&messages));
    policy.throttle_bytes = Some(Arc::clone(&bytes));
    let alice = identity("client.?", "any:-/11", Policy::lossy_client());
    let mut bob = identity("osd.1", "v2:10.0.0.2:6800/22", policy);
    bob.dispatch_throttle = Some(Arc::clone(&dispatch));
    let mut pair = Pair::of([alice, bob]);
    pair.hosts[BOB].hoards = true;
    pair.dial(ALICE);
    for tid in 1..=2 {
        pair.send(ALICE, Message::new(1).with_tid(tid).with_front(vec![0; 40]));
    }
    pair.run();
    let held = || [&messages, &bytes, &dispatch].map(|throttle| throttle.current());
    assert_eq!(held(), [2, 80, 40], "the second message waits at the third gate");
    pair.cut();
    pair.run();
    assert_eq!(held(), [1, 40, 40]);
    pair.slot(BOB).received.clear();
    assert_eq!(held(), [0, 0, 0]);
}

#[test]
fn an_idle_session_gives_up_its_read_ahead_buffer() {
    let mut pair = lossy();
    let now = pair.now;
    let deadline = pair.session(BOB).poll_timeout().unwrap();
    assert_eq!(deadline, now + Duration::from_secs(1));
    pair.advance(Duration::from_secs(2));
    let deadline = pair.session(BOB).poll_timeout().unwrap();
    assert_eq!(deadline, now + Duration::from_secs(900));
}

/// C-13, at every byte where the transport can break.
#[test]
fn a_reply_s_data_lands_in_the_buffer_posted_for_it() {
    for cut in (0..3000).step_by(97) {
        for len in [1, 77, 2000, 40_000] {
            let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
            let buffers = Arc::new(RxBuffers::default());
            pair.session(ALICE).set_rx_buffers(Arc::clone(&buffers));
            let buffer = BytesMut::with_capacity(len);
            let address = buffer.as_ptr();
            buffers.post(5, buffer).unwrap();
            buffers.post(6, BytesMut::with_capacity(len - 1)).unwrap();
            pair.cut_after = Some(cut + 1);
            for tid in [4, 5, 6] {
                pair.send(BOB, Message::new(42).with_tid(tid).with_data(vec![tid as u8; len]));
            }
            pair.advance(Duration::from_secs(1));
            assert_eq!(pair.received_tids(ALICE), [4, 5, 6]);
            let received = &pair.slot(ALICE).received;
            assert!(received.iter().all(|m| m.data == vec![m.header.tid as u8; len]));
            let in_place = |at: usize| received[at].data.as_ptr() == address;
            assert_eq!([0, 1, 2].map(in_place), [false, true, false], "cut {cut}, len {len}");
            assert!(buffers.revoke(6).is_some(), "too small: left alone");
            assert_eq!(buffers.count(), 0);
        }
    }
}
