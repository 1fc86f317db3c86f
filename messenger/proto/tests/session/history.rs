//! Nine ways in which reconnecting once broke Ceph, each named after what happened there.

use std::sync::Arc;
use std::time::Duration;

use messenger_proto::v2::control::{Ack, ClientIdent, SessionReconnect};
use messenger_proto::v2::{Revision, Tag, header};
use messenger_proto::{EntityAddr, IdentRequest, Policy, features};

use crate::pair::{ACCEPTOR, ALICE, BOB, Cut, DIALLER, Pair, identity, message};
use crate::probe::Probe;

/// Longer than any backoff.
const LONG: Duration = Duration::from_secs(60);

/// Most idents two sides may need to agree on a session.
const ATTEMPTS_MAX: usize = 3;

fn equal_peers() -> [Policy; 2] {
    [Policy::lossless_peer(), Policy::lossless_peer_reuse()]
}

/// Peers with a session, which Alice dialled.
fn connected(policy: Policy) -> Pair {
    let mut pair = Pair::of_peers(policy);
    pair.dial(ALICE);
    pair.run();
    assert!(pair.session(ALICE).is_ready() && pair.session(BOB).is_ready());
    pair
}

/// The host's only session that is alive.
fn alive(pair: &Pair, host: usize) -> usize {
    let slots = pair.hosts[host].slots.iter().enumerate();
    let alive: Vec<usize> = slots.filter(|(_, s)| !s.session.is_closed()).map(|(i, _)| i).collect();
    assert_eq!(alive.len(), 1, "live sessions of host {host}");
    alive[0]
}

/// What one slot received: tids and numbers.
fn received(pair: &Pair, host: usize, slot: usize) -> Vec<(u64, u64)> {
    let messages = pair.hosts[host].slots[slot].received.iter();
    messages.map(|message| (message.header.tid, message.header.seq)).collect()
}

fn was_told(pair: &Pair, host: usize, word: &str) -> bool {
    pair.hosts[host].slots.iter().any(|slot| slot.log.contains(&word))
}

/// ceph#1794, ceph#3029: one side marks the session down, the other returns with the numbers of
/// what it received.
#[test]
fn a_side_that_forgot_the_session_agrees_on_numbers_again() {
    for policy in equal_peers() {
        for (forgetful, faithful) in [(ALICE, BOB), (BOB, ALICE)] {
            let mut pair = connected(policy.clone());
            for tid in 1..=5 {
                pair.send(ALICE, message(tid));
                pair.send(BOB, message(tid));
            }
            pair.run();
            pair.session(forgetful).mark_down();
            pair.run();
            pair.send(faithful, message(6));
            pair.advance(LONG);

            assert!(was_told(&pair, faithful, "remote reset"), "message 6 died with the session");
            for (from, to) in [(forgetful, faithful), (faithful, forgetful)] {
                let (sender, receiver) = (alive(&pair, from), alive(&pair, to));
                let before = pair.hosts[to].slots[receiver].received.len();
                let now = pair.now;
                pair.hosts[from].slots[sender].session.send(now, message(7)).unwrap();
                pair.run();
                assert_eq!(received(&pair, to, receiver)[before..], [(7, 1)], "counts from 1");
            }
        }
    }
}

/// ceph#3029, too: the numbers a peer returns with need not be possible.
#[test]
fn a_peer_s_impossible_numbers_are_harmless() {
    for seq in [0, 2, 3, 4, 1 << 63, u64::MAX] {
        let osd = || identity("osd.1", "v2:10.0.0.2:6800/22", Policy::stateful_server());
        let mut probe = Probe::dial(osd(), Revision::Rev1);
        let ident = ClientIdent { flags: 0, cookie: 77, ..probe.signed().ident() };
        probe.control(&ident);
        let now = probe.now;
        (1..=3).for_each(|tid| probe.session.send(now, message(tid)).unwrap());
        probe.drain();

        let mut late = Probe::dial(osd(), Revision::Rev1);
        late.accepts = false;
        let request = SessionReconnect {
            addrs: late.me.into(),
            client_cookie: 77,
            server_cookie: seq,
            global_seq: seq.max(2),
            connect_seq: seq,
            msg_seq: seq,
        };
        late.signed().control(&request);
        probe.session.adopt(now, late.session).unwrap();
        probe.heard.clear();
        probe.drain();
        let heard = probe.tags();
        let resent = heard.iter().filter(|tag| **tag == Tag::Message).count();
        assert_eq!(resent as u64, 3_u64.saturating_sub(seq), "{seq}");
        probe.session.send(now, message(4)).unwrap();
        probe.drain();
        let (tag, header) = probe.frames().pop().unwrap();
        assert_eq!(tag, Tag::Message);
        assert_eq!(header::decode(&header).unwrap().0.seq, 4, "ours do not follow the peer's");
        probe.control(&Ack(u64::MAX));
        assert_eq!(probe.session.queued(), (0, 0));
        let highest = probe.message(u64::MAX, b"front");
        probe.say(&highest).say(&highest);
        assert_eq!((probe.received.len(), probe.verdict()), (1, "open"));
    }
}

/// ceph#3797: every fault raised the connect counter, also before there was a session, so that a
/// restarted peer looked like one that reconnects.
#[test]
fn faults_before_there_was_a_session_do_not_count_as_reconnects() {
    let last_ident_byte = connected(Policy::lossless_peer_reuse()).arrived(0).unwrap()[ACCEPTOR];
    let mut pair = Pair::of_peers(Policy::lossless_peer_reuse());
    pair.cuts = vec![
        Cut { pipe: 0, from: DIALLER, after: 0 },
        Cut { pipe: 1, from: ACCEPTOR, after: 30 },
        Cut { pipe: 2, from: DIALLER, after: 200 },
        Cut { pipe: 3, from: ACCEPTOR, after: last_ident_byte - 1 },
    ];
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    pair.advance(LONG);
    assert!((0..4).all(|pipe| pair.is_broken(pipe)));
    let bob = alive(&pair, BOB);
    assert_eq!(received(&pair, BOB, bob), [(1, 1)]);
    let new = |asked: &IdentRequest| matches!(asked, IdentRequest::New { .. });
    assert!(pair.hosts[BOB].asked.iter().all(new), "{:?}", pair.hosts[BOB].asked);

    pair.cut();
    pair.send(ALICE, message(2));
    pair.advance(LONG);
    let asked = pair.hosts[BOB].asked.last().unwrap();
    assert!(matches!(asked, IdentRequest::Reconnect { connect_seq: 1, .. }), "{asked:?}");

    // So a restart is seen as one.
    assert!(!was_told(&pair, BOB, "remote reset"));
    pair.session(ALICE).mark_down();
    let fresh = pair.dial(ALICE);
    pair.run();
    assert!(pair.hosts[ALICE].slots[fresh].session.is_ready());
    assert!(pair.hosts[BOB].slots[bob].log.ends_with(&["remote reset", "ready"]));
}

/// ceph#25343, ceph#24546, ceph#29788: a fault while connecting or accepting reset the session, and
/// what was queued vanished.
#[test]
fn a_fault_in_a_handshake_resets_no_session_and_drops_no_message() {
    // Never opened: the first connects fail wherever they can.
    let mut pair = Pair::new(Policy::lossless_client(), Policy::stateful_server());
    let places = [(DIALLER, 0), (ACCEPTOR, 20), (DIALLER, 60), (ACCEPTOR, 130), (DIALLER, 250)];
    let cuts = places.iter().enumerate();
    pair.cuts = cuts.map(|(pipe, &(from, after))| Cut { pipe, from, after }).collect();
    pair.hosts[BOB].listening = false;
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    pair.advance(Duration::from_secs(1));
    pair.hosts[BOB].listening = true;
    pair.advance(LONG);
    assert_eq!(pair.arrived(5).map(|_| ()), Some(()), "five connections broke");
    let bob = alive(&pair, BOB);
    assert_eq!(received(&pair, BOB, bob), [(1, 1)]);
    assert!(!was_told(&pair, ALICE, "reset") && !was_told(&pair, ALICE, "remote reset"));

    // Open before: both sides have a queue, and the repairs fail wherever they can.
    for policy in equal_peers() {
        let mut pair = connected(policy);
        pair.cuts = places
            .iter()
            .enumerate()
            .map(|(nth, &(from, after))| Cut { pipe: nth + 1, from, after })
            .collect();
        pair.cut();
        pair.send(ALICE, message(2));
        pair.send(BOB, message(3));
        pair.advance(LONG);
        assert!((0..=5).all(|pipe| pair.is_broken(pipe)));
        assert_eq!((pair.received_tids(BOB), pair.received_tids(ALICE)), (vec![2], vec![3]));
        for host in [ALICE, BOB] {
            assert_eq!(alive(&pair, host), 0, "the session is the first one");
            let log = &pair.slot(host).log;
            assert!(!log.contains(&"reset") && !log.contains(&"remote reset"), "{log:?}");
        }
    }
}

/// ceph#17276: a parked side whose counter is 0 answered RESET, then RETRY, then RESET, for ever.
#[test]
fn a_parked_session_that_never_reconnected_meets_its_peer_in_a_few_attempts() {
    for policy in equal_peers() {
        for (forgetful, faithful) in [(ALICE, BOB), (BOB, ALICE)] {
            for (forgetful_comes, faithful_comes) in [(true, false), (false, true), (true, true)] {
                let mut pair = connected(policy.clone());
                pair.cut();
                pair.run();
                assert_eq!(pair.slot(faithful).log.last(), Some(&"standby"));
                pair.session(forgetful).mark_down();
                pair.hosts.iter_mut().for_each(|host| host.asked.clear());
                if forgetful_comes {
                    pair.dial(forgetful);
                }
                if faithful_comes {
                    pair.send(faithful, message(1));
                }
                pair.advance(LONG);
                let attempts: usize = pair.hosts.iter().map(|host| host.asked.len()).sum();
                assert!(attempts <= ATTEMPTS_MAX, "{attempts} attempts");
                for host in [ALICE, BOB] {
                    let slot = alive(&pair, host);
                    assert!(pair.hosts[host].slots[slot].session.is_ready());
                }
            }
        }
    }
}

/// ceph#16009: a message sent while its connection faults met a state that nobody had thought of.
#[test]
fn sending_is_legal_at_every_step_of_a_fault_and_its_repair() {
    for policy in equal_peers() {
        let mut pair = connected(policy);
        pair.chunk = 13;
        for tid in 1..=600 {
            if tid % 60 == 0 {
                pair.cut();
            }
            pair.send(ALICE, message(tid)); // the transport may be gone, and nobody knows
            pair.send(BOB, message(tid));
            pair.step();
        }
        pair.advance(LONG);
        let all: Vec<u64> = (1..=600).collect();
        assert_eq!((pair.received_tids(ALICE), pair.received_tids(BOB)), (all.clone(), all));
    }
}

/// ceph#24218: a closed connection was still registered, and the peer's new one was refused.
#[test]
fn a_closed_session_that_is_still_registered_refuses_nobody() {
    // Lossless: the peer is told to start over, and does so on the same transport.
    let mut pair = connected(Policy::lossless_peer_reuse());
    pair.session(BOB).close();
    pair.send(ALICE, message(1));
    pair.run();
    let bob = alive(&pair, BOB);
    assert!(pair.hosts[BOB].slots[bob].session.is_ready());
    assert!(was_told(&pair, ALICE, "remote reset") && pair.session(ALICE).is_ready());
    assert_eq!(pair.session(ALICE).stats().dials, 2);

    // Restarted: nothing is left of the old one.
    let mut pair = connected(Policy::lossless_peer_reuse());
    pair.session(BOB).close();
    pair.session(ALICE).mark_down();
    let fresh = pair.dial(ALICE);
    pair.run();
    assert!(pair.hosts[ALICE].slots[fresh].session.is_ready());

    // Lossy: while the old connection is alive, the new one takes its place in one step.
    let mut pair = Pair::connected(Policy::lossy_client(), Policy::stateless_registered_server());
    for _ in 0..3 {
        let fresh = pair.dial(ALICE);
        while pair.step() {
            let live = pair.hosts[BOB].slots.iter().filter(|slot| slot.session.is_ready()).count();
            assert!(live <= 1, "two sessions of one client");
        }
        assert!(pair.hosts[ALICE].slots[fresh].session.is_ready());
        alive(&pair, BOB);
    }
}

/// ceph#35816: both sides dialled; the loser's session took over the winner's socket and kept its
/// own idea of the features.
#[test]
fn a_session_that_takes_over_a_socket_takes_over_what_was_agreed_on_it() {
    let (only_alice, only_bob) = (1 << 41, 1 << 48);
    let host = |name: &str, addr: &str, lacks: u64| {
        let features_supported = features::SUPPORTED & !lacks;
        identity(name, addr, Policy { features_supported, ..Policy::lossless_peer() })
    };
    let agreed = features::SUPPORTED & !only_alice & !only_bob;
    let mut skews = 0;
    for skew in 0.. {
        let alice = host("osd.0", "v2:10.0.0.1:6800/11", only_bob);
        let bob = host("osd.1", "v2:10.0.0.2:6800/22", only_alice);
        let mut pair = Pair::of([alice, bob]);
        pair.chunk = 5;
        let (first, second) = if skew % 2 == 0 { (ALICE, BOB) } else { (BOB, ALICE) };
        pair.dial(first);
        for _ in 0..skew / 2 {
            pair.step();
        }
        if was_told(&pair, second, "ready") {
            break; // it would use that session instead of dialling
        }
        pair.dial(second);
        pair.send(first, message(1));
        let slot = pair.hosts[second].slots.len() - 1;
        let now = pair.now;
        pair.hosts[second].slots[slot].session.send(now, message(2)).unwrap();
        for round in 0..2 {
            pair.advance(LONG);
            for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
                let session = &pair.hosts[to].slots[alive(&pair, to)].session;
                let (peer, identity) = (session.peer(), &pair.hosts[from].identity);
                assert!(session.is_ready(), "skew {skew}, round {round}");
                assert_eq!(peer.features, agreed, "skew {skew}, round {round}");
                assert_eq!(peer.name, Some(identity.name), "skew {skew}");
                assert_eq!(peer.addrs, identity.addrs, "skew {skew}");
                assert!(!session.policy().lossy);
            }
            let tids = [ALICE, BOB].map(|host| received(&pair, host, alive(&pair, host))[0].0);
            assert_eq!(tids[first], 2, "skew {skew}");
            assert_eq!(tids[second], 1, "skew {skew}");
            // Reconnecting agrees on nothing anew: what was agreed stays.
            pair.cut();
            let slot = alive(&pair, BOB);
            let now = pair.now;
            pair.hosts[BOB].slots[slot].session.send_keepalive(now);
        }
        skews += 1;
    }
    assert!(skews > 100, "{skews} skews");
}

/// ceph#58673: a daemon that restarted with nonce 0 again was taken for its predecessor.
#[test]
fn a_peer_that_restarts_with_another_nonce_gets_nothing_meant_for_its_predecessor() {
    for policy in equal_peers() {
        let mut pair = connected(policy.clone());
        pair.cut();
        pair.hosts[ALICE].listening = false;
        pair.run();
        pair.send(BOB, message(1));
        pair.session(ALICE).mark_down();
        pair.advance(Duration::from_secs(1));

        pair.hosts[ALICE].identity = Arc::new(identity("osd.0", "v2:10.0.0.1:6800/12", policy));
        pair.hosts[ALICE].listening = true; // on the port of its predecessor
        let fresh = pair.dial(ALICE);
        pair.advance(LONG);
        assert!(pair.hosts[ALICE].slots[fresh].session.is_ready());
        let messages = pair.hosts[ALICE].slots.iter().map(|slot| slot.received.len());
        assert_eq!(messages.sum::<usize>(), 0, "message 1 was for somebody else");
        assert!(!pair.session(BOB).is_ready(), "nor is the session its own");

        // The new session is not harmed by the old one's attempts.
        let to: EntityAddr = "v2:10.0.0.1:6800/12".parse().unwrap();
        let bob =
            pair.hosts[BOB].slots.iter_mut().find(|slot| slot.session.peer().addrs.contains(&to));
        let now = pair.now;
        bob.unwrap().session.send(now, message(2)).unwrap();
        pair.run();
        assert_eq!(received(&pair, ALICE, fresh), [(2, 1)]);
        assert!(!was_told(&pair, ALICE, "remote reset"));
    }
}

/// ceph#24276: the socket failed before the connection knew its session.
#[test]
fn a_transport_that_fails_at_once_fails_a_session_that_is_there() {
    for (from, listening) in [(DIALLER, true), (ACCEPTOR, true), (DIALLER, false)] {
        let mut pair = Pair::new(Policy::lossless_client(), Policy::stateful_server());
        pair.hosts[BOB].listening = listening;
        pair.cuts = (0..5).map(|pipe| Cut { pipe, from, after: 0 }).collect();
        pair.dial(ALICE);
        pair.send(ALICE, message(1));
        pair.advance(Duration::from_secs(10));
        pair.hosts[BOB].listening = true;
        pair.advance(LONG + LONG);
        let bob = alive(&pair, BOB);
        assert_eq!(received(&pair, BOB, bob), [(1, 1)]);
        let log = &pair.slot(ALICE).log;
        let count = |word| log.iter().filter(|logged| **logged == word).count();
        assert_eq!(count("dial"), count("hangup") + 1, "each transport but the last one ended");
        assert!(count("hangup") >= 5 && count("reset") == 0, "{log:?}");
        let dead = pair.hosts[BOB].slots.iter().filter(|slot| slot.session.is_closed());
        assert!(
            dead.clone().count() >= 5 && dead.clone().all(|slot| slot.log == ["hangup", "reset"])
        );
    }
    // The user may be faster still.
    let mut pair = Pair::new(Policy::lossless_client(), Policy::stateful_server());
    pair.dial(ALICE);
    pair.session(ALICE).mark_down();
    pair.run();
    assert_eq!(pair.slot(ALICE).log, ["hangup"]);
}
