//! What policies make of broken, refused and silent transports.

use std::time::Duration;

use messenger_proto::{CloseReason, EntityType, Fault, Policy, ProtocolError, SessionEvent};

use crate::pair::{ALICE, BOB, Pair, identity, message};

const MS: Duration = Duration::from_millis(1);

#[test]
fn an_established_lossy_session_dies_with_its_transport() {
    let mut pair = Pair::connected(Policy::lossy_client(), Policy::stateless_server());
    pair.cut();
    pair.run();
    assert_eq!(pair.slot(ALICE).log, ["dial", "learned", "ready", "hangup", "reset"]);
    assert_eq!(pair.slot(BOB).log, ["ident", "ready", "hangup", "reset"]);
    assert!(pair.session(ALICE).is_closed());
}

#[test]
fn a_lossy_client_that_was_never_established_keeps_trying() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    pair.hosts[BOB].listening = false;
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    let mut dials = Vec::new();
    let start = pair.now;
    for _ in 0..70_000 {
        let before = pair.session(ALICE).stats().dials;
        pair.advance(MS);
        if pair.session(ALICE).stats().dials > before {
            dials.push((pair.now - start).as_millis());
        }
    }
    // 0.2 s, doubling, at most 15 s.
    assert_eq!(dials, [200, 600, 1400, 3000, 6200, 12_600, 25_400, 40_400, 55_400]);
    assert_eq!(pair.slot(ALICE).log[..4], ["dial", "refused", "hangup", "dial"]);

    pair.hosts[BOB].listening = true;
    pair.advance(Duration::from_secs(15));
    assert_eq!(pair.received_tids(BOB), [1]);
}

#[test]
fn a_wrong_type_of_peer_is_final() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    let target = *pair.hosts[BOB].identity.addrs.first().unwrap();
    pair.dial_to(ALICE, EntityType::Mon, target);
    pair.run();
    assert!(pair.session(ALICE).is_closed());
    let (expected, got) = (EntityType::Mon, EntityType::Osd);
    let error = ProtocolError::WrongPeerType { expected, got };
    assert_eq!(pair.session(ALICE).last_fault(), Some(&Fault::Protocol(error)));
}

#[test]
fn a_recycled_port_is_not_the_peer_dialled() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    let mut target = *pair.hosts[BOB].identity.addrs.first().unwrap();
    target.nonce += 1;
    pair.dial_to(ALICE, EntityType::Osd, target);
    pair.run();
    assert_eq!(pair.slot(BOB).session.last_fault().unwrap().kind(), "wrong_target");
    assert!(!pair.session(ALICE).is_closed(), "it tries again");
    assert!(!pair.session(ALICE).is_ready());
}

#[test]
fn the_server_s_word_on_lossy_counts_both_ways() {
    let pair = Pair::connected(Policy::lossless_client(), Policy::stateless_server());
    assert!(pair.hosts[ALICE].slots[0].session.policy().lossy);
    let pair = Pair::connected(Policy::lossy_client(), Policy::stateful_server());
    assert!(!pair.hosts[ALICE].slots[0].session.policy().lossy);
}

#[test]
fn features_either_side_insists_on_keep_a_session_from_being_made() {
    let mut picky = Policy::stateless_server();
    picky.features_required |= 1 << 62;
    picky.features_supported |= 1 << 62;
    let mut pair = Pair::new(Policy::lossy_client(), picky);
    pair.dial(ALICE);
    pair.run();
    let fault = Fault::Protocol(ProtocolError::MissingFeatures { missing: 1 << 62 });
    assert_eq!(pair.session(ALICE).last_fault(), Some(&fault));

    let mut picky = Policy::lossy_client();
    picky.features_required |= 1 << 62;
    let mut pair = Pair::new(picky, Policy::stateless_server());
    pair.dial(ALICE);
    pair.run();
    assert_eq!(pair.session(ALICE).last_fault(), Some(&fault));
    assert!(!pair.session(ALICE).is_closed());
}

#[test]
fn a_peer_that_never_answers_is_given_up_after_the_ready_timeout() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    pair.silent = true;
    pair.dial(ALICE);
    pair.advance(Duration::from_secs(10) - MS);
    assert_eq!(pair.session(ALICE).stats().ready_timeouts, 0);
    pair.advance(MS);
    assert_eq!(pair.session(ALICE).stats().ready_timeouts, 1);
    assert!(pair.session(BOB).is_closed());
    pair.silent = false;
    pair.advance(Duration::from_secs(1));
    assert!(pair.session(ALICE).is_ready());
}

#[test]
fn a_silent_session_times_out_and_keepalives_prevent_it() {
    let mut pair = Pair::connected(Policy::lossy_client(), Policy::stateless_server());
    for _ in 0..4 {
        pair.advance(Duration::from_secs(600));
        let now = pair.now;
        pair.session(ALICE).send_keepalive(now);
        pair.run();
    }
    assert!(pair.session(ALICE).is_ready());
    pair.advance(Duration::from_secs(901));
    assert!(pair.session(ALICE).is_closed() && pair.session(BOB).is_closed());
}

#[test]
fn a_disposable_session_ends_with_the_next_fault() {
    let mut pair = Pair::connected(Policy::lossless_client(), Policy::stateful_server());
    pair.session(ALICE).mark_disposable();
    pair.cut();
    pair.run();
    assert!(pair.session(ALICE).is_closed());
    assert_eq!(pair.slot(BOB).log.last(), Some(&"standby"));
}

#[test]
fn a_target_without_an_address_is_closed_at_once() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    pair.dial_to(ALICE, EntityType::Osd, "v2:-/1".parse().unwrap());
    let event = pair.session(ALICE).poll_event();
    assert!(matches!(event, Some(SessionEvent::Reset(CloseReason::NoAddress(_)))));
}

#[test]
fn commands_are_legal_in_every_state() {
    let states: [fn(&mut Pair); 6] = [
        |_| {},                                   // dialling
        |pair| pair.silent = true,                // in the handshake
        |pair| pair.hosts[BOB].listening = false, // backing off
        Pair::run,                                // ready
        |pair| {
            pair.run();
            pair.cut();
            pair.run(); // parked
        },
        |pair| pair.session(ALICE).close(),
    ];
    for (index, enter) in states.into_iter().enumerate() {
        for command in 0..6 {
            let alice = identity("osd.0", "v2:10.0.0.1:6800/11", Policy::lossless_peer());
            let bob = identity("osd.1", "v2:10.0.0.2:6800/22", Policy::lossless_peer());
            let mut pair = Pair::of([alice, bob]);
            pair.dial(ALICE);
            enter(&mut pair);
            if index < 3 {
                pair.run();
            }
            let now = pair.now;
            let session = pair.session(ALICE);
            match command {
                0 => drop(session.send(now, message(1))),
                1 => session.send_keepalive(now),
                2 => session.mark_down(),
                3 => session.close(),
                4 => session.mark_disposable(),
                _ => session.handle_timeout(now),
            }
            pair.silent = false;
            pair.hosts[BOB].listening = true;
            pair.advance(Duration::from_secs(30));
            let closed = pair.session(ALICE).is_closed();
            match command {
                0 if !closed => assert_eq!(pair.received_tids(BOB).last(), Some(&1)),
                2 | 3 => assert!(closed),
                _ => {}
            }
        }
    }
}
