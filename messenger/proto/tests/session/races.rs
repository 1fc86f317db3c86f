//! Two peers that dial each other at once. Between ourselves any rule would do that both sides
//! share; this is Ceph's, which everybody else follows: the lower address wins.

use messenger_proto::Policy;

use crate::pair::{ALICE, BOB, Pair, identity, message};

/// Two OSDs that raced on a real wire. Their nonces decide, low byte first: 0x2a before 0x90.
const LOWER: &str = "10.0.0.2:6802/32042";
const HIGHER: &str = "10.0.0.1:6810/32144";
/// What both speak: the rule is the same.
const PROTOCOLS: [&str; 2] = ["v1", "v2"];

/// Alice is always a moment ahead of Bob.
fn peers(protocol: &str, alice: &str, bob: &str) -> Pair {
    let [alice, bob] = [("osd.0", alice), ("osd.1", bob)]
        .map(|(name, addr)| identity(name, &format!("{protocol}:{addr}"), Policy::lossless_peer()));
    Pair::of([alice, bob])
}

/// Both dial for the first time; whether it is Alice's dial that stands.
fn first_dials(mut pair: Pair) -> bool {
    pair.dial(ALICE);
    pair.dial(BOB);
    pair.send(ALICE, message(1));
    pair.send(BOB, message(2));
    pair.run();
    assert_eq!((pair.received_tids(ALICE), pair.received_tids(BOB)), (vec![2], vec![1]));
    let [alice, bob] = [ALICE, BOB].map(|host| pair.dialled(host, 0).unwrap());
    assert_ne!(alice, bob, "two ends of one connection");
    alice
}

/// A session breaks under both, with a message of each under way; whether it is Alice's dial that
/// stands then.
fn reconnects(mut pair: Pair) -> bool {
    pair.dial(ALICE);
    pair.run();
    pair.silent = true;
    let now = pair.now;
    for (host, tid) in [(ALICE, 1), (BOB, 2)] {
        pair.hosts[host].slots[0].session.send(now, message(tid)).unwrap();
    }
    pair.run();
    pair.cut();
    pair.silent = false;
    pair.run();
    assert_eq!((pair.received_tids(ALICE), pair.received_tids(BOB)), (vec![2], vec![1]));
    let [alice, bob] = [ALICE, BOB].map(|host| pair.dialled(host, 0).unwrap());
    assert_ne!(alice, bob, "two ends of one connection");
    alice
}

#[test]
fn of_two_first_dials_the_lower_address_s_stands() {
    for protocol in PROTOCOLS {
        assert!(first_dials(peers(protocol, LOWER, HIGHER)), "{protocol}");
        assert!(!first_dials(peers(protocol, HIGHER, LOWER)), "{protocol}");
    }
}

#[test]
fn of_two_reconnects_the_lower_address_s_stands() {
    for protocol in PROTOCOLS {
        assert!(reconnects(peers(protocol, LOWER, HIGHER)), "{protocol}");
        assert!(!reconnects(peers(protocol, HIGHER, LOWER)), "{protocol}");
    }
}

/// However far the other's dial is when we begin ours: the shell may not know of ours yet when the
/// session that began it takes over the other's transport.
#[test]
fn a_dial_nobody_knows_of_is_forgotten_with_its_transport() {
    for protocol in PROTOCOLS {
        for steps in 0..20 {
            let mut pair = peers(protocol, LOWER, HIGHER);
            pair.dial(ALICE);
            for _ in 0..steps {
                pair.step();
            }
            let ours = pair.dial(BOB);
            pair.hosts[BOB].slots[ours].session.send(pair.now, message(2)).unwrap();
            pair.send(ALICE, message(1));
            pair.run();
            assert_eq!(pair.received_tids(ALICE), [2], "{protocol}, {steps}");
            let slots = pair.hosts.iter().flat_map(|host| &host.slots);
            let errors: u64 = slots.map(|slot| slot.session.stats().protocol_errors).sum();
            assert_eq!(errors, 0, "{protocol}, {steps}");
        }
    }
}
