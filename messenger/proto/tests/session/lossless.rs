//! Exactly once, in order, across any number of transports. `every_byte` has what happens when a
//! transport breaks at each of its bytes in turn.

use std::time::Duration;

use messenger_proto::{Fault, Policy, Verdict};

use crate::pair::{ALICE, BOB, Pair, message};

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn what_a_cut_swallowed_is_sent_again_under_its_old_number() {
    let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
    pair.send(ALICE, message(1));
    pair.send(ALICE, message(2));
    pair.cut_after = Some(250); // dies inside message 2
    pair.advance(seconds(1));
    assert_eq!(pair.received_tids(BOB), [1, 2]);
    assert_eq!(pair.received_seqs(BOB), [1, 2]);
    assert_eq!(pair.slot(BOB).log, ["ident", "ready", "hangup", "standby", "resumed"]);
    let log = ["dial", "learned", "ready", "hangup", "dial", "learned", "resumed"];
    assert_eq!(pair.slot(ALICE).log, log);
}

#[test]
fn random_faults_lose_and_repeat_nothing() {
    random_faults(|seed| match seed % 2 {
        0 => Pair::of_peers(Policy::lossless_peer()),
        _ => Pair::of_peers(Policy::lossless_peer_reuse()),
    });
}

/// Without cookies a peer that restarted cannot always be told from one whose handshake broke, so
/// there is no such promise to peers that look for restarts.
#[test]
fn over_msgr1_random_faults_lose_and_repeat_nothing() {
    random_faults(|_| Pair::of_peers(Policy::lossless_peer()).over_v1());
}

/// Random sends, cuts and refusals from both sides; a failing seed is named.
fn random_faults(pair: impl Fn(u64) -> Pair) {
    for seed in 1..200_u64 {
        let mut random = seed;
        let mut below = |limit: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % limit
        };
        let mut pair = pair(seed);
        pair.dial(ALICE);
        pair.dial(BOB);
        pair.advance(seconds(30));
        let mut sent = [0, 0];
        for _ in 0..60 {
            let host = below(2) as usize;
            match below(8) {
                0 => pair.cut(),
                1 => pair.cut_after = Some(1 + below(2000) as usize),
                2 => pair.hosts[host].listening = !pair.hosts[host].listening,
                3 => pair.advance(Duration::from_millis(below(1000))),
                4 => pair.chunk = 1 + below(300) as usize,
                _ => {
                    sent[host] += 1;
                    pair.send(host, message(sent[host]));
                }
            }
        }
        pair.cut_after = None;
        pair.hosts.iter_mut().for_each(|host| host.listening = true);
        pair.advance(seconds(60));
        for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
            let tids: Vec<u64> = (1..=sent[from]).collect();
            assert_eq!(pair.received_tids(to), tids, "seed {seed}");
            assert_eq!(pair.session(from).queued(), (0, 0), "seed {seed}");
            assert!(!pair.slot(from).log.contains(&"remote reset"), "seed {seed}");
        }
    }
}

#[test]
fn acknowledgements_empty_the_sent_list() {
    let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
    for tid in 0..20 {
        pair.send(ALICE, message(tid));
    }
    pair.run();
    assert_eq!(pair.session(ALICE).queued(), (0, 0));
    assert_eq!(pair.session(ALICE).stats().messages_acked, 20);
    assert!(pair.session(BOB).stats().acks_sent >= 1);
    // A message in the other direction carries the acknowledgement along.
    let acks = pair.session(ALICE).stats().acks_sent;
    pair.send(BOB, message(1));
    pair.run();
    assert_eq!(pair.session(ALICE).stats().acks_sent, acks + 1);
    assert_eq!(pair.session(BOB).queued(), (0, 0));
}

#[test]
fn an_idle_peer_parks_and_a_message_wakes_it() {
    let mut pair = Pair::of_peers(Policy::lossless_peer());
    pair.dial(ALICE);
    pair.run();
    pair.cut();
    pair.advance(seconds(60));
    assert_eq!(pair.slot(ALICE).log.last(), Some(&"standby"));
    assert_eq!(pair.slot(BOB).log.last(), Some(&"standby"));

    // The side that accepted first dials now: roles turn, the session stays.
    pair.send(BOB, message(5));
    pair.run();
    assert_eq!(pair.received_tids(ALICE), [5]);
    assert_eq!(pair.slot(ALICE).log.last(), Some(&"resumed"));
    assert_eq!(pair.slot(BOB).log.last(), Some(&"resumed"));
}

#[test]
fn a_keepalive_wakes_a_parked_session() {
    let mut pair = Pair::of_peers(Policy::lossless_peer());
    pair.dial(ALICE);
    pair.run();
    pair.cut();
    pair.run();
    let now = pair.now;
    pair.session(ALICE).send_keepalive(now);
    pair.run();
    assert!(pair.session(ALICE).is_ready());
    assert_eq!(pair.session(BOB).peer().last_keepalive, Some(now));
}

#[test]
fn a_stateful_server_waits_with_its_queue_until_the_client_returns() {
    let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
    pair.hosts[BOB].listening = false;
    pair.cut();
    pair.run();
    pair.send(BOB, message(9));
    pair.advance(seconds(5));
    assert!(!pair.session(BOB).is_ready());
    pair.hosts[BOB].listening = true;
    pair.advance(seconds(15));
    assert_eq!(pair.received_tids(ALICE), [9]);
    assert_eq!(pair.slot(ALICE).log.iter().filter(|word| **word == "resumed").count(), 1);
}

#[test]
fn both_dial_at_once_and_one_session_remains() {
    let mut pair = Pair::of_peers(Policy::lossless_peer());
    pair.dial(ALICE);
    pair.dial(BOB);
    pair.send(ALICE, message(1));
    pair.send(BOB, message(2));
    pair.advance(seconds(30));
    assert_eq!(pair.received_tids(BOB), [1]);
    assert_eq!(pair.received_tids(ALICE), [2]);
    for host in [ALICE, BOB] {
        let ready = pair.hosts[host].slots.iter().filter(|slot| slot.session.is_ready()).count();
        assert_eq!(ready, 1);
        assert!(!pair.slot(host).log.contains(&"remote reset"));
        assert!(!pair.slot(host).log.contains(&"reset"));
    }
}

#[test]
fn both_reconnect_at_once_and_the_session_goes_on() {
    let mut pair = Pair::of_peers(Policy::lossless_peer());
    pair.dial(ALICE);
    pair.run();
    for round in 0..20 {
        pair.chunk = 1 + round * 7;
        pair.send(ALICE, message(100 + round as u64));
        pair.send(BOB, message(200 + round as u64));
        pair.cut();
        pair.advance(seconds(40));
    }
    let tids = |from: u64| (from..from + 20).collect::<Vec<_>>();
    assert_eq!(pair.received_tids(BOB), tids(100));
    assert_eq!(pair.received_tids(ALICE), tids(200));
    assert!(!pair.slot(ALICE).log.contains(&"remote reset"));
}

#[test]
fn a_peer_that_forgot_the_session_is_told_to_start_over() {
    let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
    pair.session(BOB).mark_down(); // Bob forgets
    pair.hosts[BOB].listening = false;
    pair.run();
    pair.send(ALICE, message(1));
    pair.hosts[BOB].listening = true;
    pair.advance(seconds(5));
    assert!(pair.slot(ALICE).log.contains(&"remote reset"));
    assert!(pair.session(ALICE).is_ready());
    pair.send(ALICE, message(2));
    pair.run();
    let last = pair.hosts[BOB].slots.last().unwrap();
    let got: Vec<_> = last.received.iter().map(|m| (m.header.tid, m.header.seq)).collect();
    assert_eq!(got, [(2, 1)], "the queue died with the session, and counting starts again");
}

#[test]
fn a_restarted_peer_is_noticed_only_with_resetcheck() {
    for (policy, told) in [(Policy::lossless_peer_reuse(), true), (Policy::lossless_peer(), false)]
    {
        let mut pair = Pair::of_peers(policy);
        pair.dial(ALICE);
        pair.run();
        pair.session(ALICE).mark_down(); // Alice restarts with the same address
        pair.run();
        let fresh = pair.dial(ALICE);
        pair.run();
        assert!(pair.hosts[ALICE].slots[fresh].session.is_ready());
        assert!(pair.session(BOB).is_ready(), "Bob's session goes on with the new Alice");
        assert_eq!(pair.slot(BOB).log.contains(&"remote reset"), told);
        pair.send(BOB, message(3));
        pair.run();
        assert_eq!(pair.hosts[ALICE].slots[fresh].received[0].header.seq, 1);
    }
}

#[test]
fn a_lossy_client_s_new_connection_replaces_the_old() {
    let mut pair = Pair::connected(Policy::lossy_client(), Policy::stateless_registered_server());
    let fresh = pair.dial(ALICE);
    pair.run();
    assert!(pair.hosts[ALICE].slots[fresh].session.is_ready());
    assert!(pair.session(BOB).is_closed());
    assert_eq!(pair.slot(BOB).log, ["ident", "ready", "hangup", "reset"]);
}

#[test]
fn a_client_told_to_wait_dials_again_after_the_longest_backoff() {
    let mut pair = Pair::new(Policy::lossless_client(), Policy::stateful_server());
    pair.hosts[BOB].verdict = Some(Verdict::Wait);
    pair.dial(ALICE);
    pair.run();
    assert_eq!(pair.session(ALICE).last_fault(), Some(&Fault::Wait));
    pair.hosts[BOB].verdict = None;
    pair.advance(seconds(14));
    assert_eq!(pair.session(ALICE).stats().dials, 1);
    pair.advance(seconds(1));
    assert!(pair.session(ALICE).is_ready());
}

#[test]
fn a_refused_client_is_closed_without_a_word_and_tries_again() {
    let mut pair = Pair::new(Policy::lossless_client(), Policy::stateful_server());
    pair.hosts[BOB].verdict = Some(Verdict::Refuse);
    pair.dial(ALICE);
    pair.run();
    assert_eq!(pair.slot(BOB).log, ["ident", "hangup", "reset"]);
    assert_eq!(pair.session(ALICE).last_fault(), Some(&Fault::Closed));
    pair.hosts[BOB].verdict = None;
    pair.advance(seconds(1));
    assert!(pair.session(ALICE).is_ready());
}

#[test]
fn retries_reset_and_go_on_with_the_queue_kept() {
    let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
    let verdicts = [
        (Verdict::Retry { connect_seq: u64::MAX }, "handshake_too_long"),
        (Verdict::RetryGlobal { global_seq: u64::MAX }, "handshake_too_long"),
    ];
    for (verdict, at_bob) in verdicts {
        pair.hosts[BOB].verdict = Some(verdict);
        pair.cut();
        pair.run();
        let accepted = pair.hosts[BOB].slots.last().unwrap();
        assert_eq!(accepted.session.last_fault().unwrap().kind(), at_bob, "no endless loop");
        assert!(!pair.session(ALICE).is_closed());
    }
    // A partial reset keeps the queue; the session begins anew and counts from 1.
    pair.session(BOB).mark_down();
    pair.send(ALICE, message(5));
    pair.hosts[BOB].verdict = Some(Verdict::Reset { full: false });
    let dials = pair.session(ALICE).stats().dials;
    while pair.session(ALICE).stats().dials == dials {
        pair.advance(Duration::from_millis(1));
    }
    pair.hosts[BOB].verdict = None;
    pair.advance(seconds(20));
    let last = pair.hosts[BOB].slots.last().unwrap();
    let got: Vec<_> = last.received.iter().map(|m| (m.header.tid, m.header.seq)).collect();
    assert_eq!(got, [(5, 1)]);
}

#[test]
fn a_session_tells_how_long_messages_waited_and_acknowledgements_took() {
    let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
    pair.send(ALICE, message(1));
    let later = pair.now + Duration::from_millis(30);
    let session = pair.session(ALICE);
    let offered = session.poll_transmit(later).unwrap().len();
    assert!(offered > 0);
    let waited = session.stats();
    assert_eq!((waited.send_waits, waited.send_time), (1, Duration::from_millis(30)));
    assert_eq!(waited.ack_waits, 0);

    pair.now = later + Duration::from_millis(20);
    pair.run();
    let acked = pair.session(ALICE).stats();
    assert_eq!((acked.ack_waits, acked.ack_time), (1, Duration::from_millis(20)));
    assert_eq!(acked.messages_acked, 1);
}
