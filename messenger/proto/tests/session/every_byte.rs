//! A transport breaks at every byte boundary of an exchange of three messages, and nothing is lost,
//! repeated or reordered.
//!
//! ```text
//!   dialler  --> banner HELLO AUTH .. IDENT | message message message ACK   cut 0, 1, 2 .. all
//!   acceptor --> banner HELLO AUTH .. IDENT | message message message ACK   cut 0, 1, 2 .. all
//! ```
//!
//! The two directions are cut one at a time: so many bytes of this one arrive, and whatever of the
//! other one happens to arrive meanwhile: all of it, or little if bytes move in small chunks. How many boundaries there are is measured by an exchange
//! that nobody disturbs. A second round breaks the connection that repairs the first one, too.

use std::time::Duration;

use messenger_proto::Policy;
use messenger_proto::auth::ConnectionMode;
use messenger_proto::v2::Revision;

use crate::pair::{ACCEPTOR, ALICE, BOB, Cut, DIALLER, Pair, message};
use crate::realm::Realm;
use crate::secure::secured;

/// What Alice, who dials, sends.
const FROM_ALICE: [u64; 3] = [1, 2, 3];
/// What Bob, who accepts, sends.
const FROM_BOB: [u64; 3] = [11, 12, 13];

/// The backoff after a few failed dials, and a WAIT, are over by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many bytes move at a time.
const ALL_AT_ONCE: usize = 1 << 20;
const SMALL_CHUNK: usize = 17;

/// Who sends three messages.
#[derive(Debug, Clone, Copy)]
enum Senders {
    Dialler,
    Acceptor,
    Both,
}

impl Senders {
    const ALL: [Self; 3] = [Self::Dialler, Self::Acceptor, Self::Both];

    fn tids(self, host: usize) -> &'static [u64] {
        match (self, host) {
            (Self::Dialler | Self::Both, ALICE) => &FROM_ALICE,
            (Self::Acceptor | Self::Both, BOB) => &FROM_BOB,
            _ => &[],
        }
    }
}

/// Lossless policies: the client's is paired with the stateful server's.
#[derive(Debug, Clone, Copy)]
enum Peers {
    ClientAndServer,
    Equal,
    EqualWithResetcheck,
}

impl Peers {
    const ALL: [Self; 3] = [Self::ClientAndServer, Self::Equal, Self::EqualWithResetcheck];

    fn pair(self) -> Pair {
        match self {
            Self::ClientAndServer => {
                Pair::new(Policy::lossless_client(), Policy::stateful_server())
            }
            Self::Equal => Pair::of_peers(Policy::lossless_peer()),
            Self::EqualWithResetcheck => Pair::of_peers(Policy::lossless_peer_reuse()),
        }
    }
}

/// An exchange on connections that break at `cuts`: Alice has her messages queued before she
/// dials, Bob sends his as soon as he has a session. With nothing to send, Alice wants a sign of
/// life; or a broken handshake would park her until she has something (contract P-3).
fn exchange(mut pair: Pair, senders: Senders, chunk: usize, cuts: &[Cut]) -> Pair {
    pair.chunk = chunk;
    pair.cuts = cuts.to_vec();
    pair.hosts[BOB].greetings = senders.tids(BOB).to_vec();
    pair.dial(ALICE);
    for tid in senders.tids(ALICE) {
        pair.send(ALICE, message(*tid));
    }
    if senders.tids(ALICE).is_empty() {
        let now = pair.now;
        pair.session(ALICE).send_keepalive(now);
    }
    pair.advance(PATIENCE);
    // Over msgr1 the acceptor is the last to know of a session, and its peer may have parked.
    if !pair.hosts[BOB].greetings.is_empty() {
        let now = pair.now;
        pair.session(ALICE).send_keepalive(now);
        pair.advance(PATIENCE);
    }
    pair
}

/// Everything arrived exactly once and in order, is acknowledged, and nobody was told otherwise.
fn assert_exactly_once(pair: &Pair, senders: Senders, context: &str) {
    for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
        let slots = &pair.hosts[to].slots;
        let messages = slots.iter().flat_map(|slot| &slot.received);
        let tids: Vec<u64> = messages.map(|message| message.header.tid).collect();
        assert_eq!(tids, senders.tids(from), "{context}: from {from} to {to}");
        assert!(slots.iter().all(|slot| slot.session.queued() == (0, 0)), "{context}");
        assert!(slots.iter().all(|slot| !slot.log.contains(&"remote reset")), "{context}");
        let alive = slots.iter().filter(|slot| !slot.session.is_closed()).count();
        assert_eq!(alive, 1, "{context}: sessions of host {to}");
    }
}

/// Every boundary of both directions of one connection, the one before its first byte and the one
/// behind its last byte included.
fn boundaries(pipe: usize, arrived: [usize; 2]) -> impl Iterator<Item = Cut> {
    [DIALLER, ACCEPTOR]
        .into_iter()
        .flat_map(move |from| (0..=arrived[from]).map(move |after| Cut { pipe, from, after }))
}

#[test]
fn a_break_at_every_byte_of_either_direction_loses_and_repeats_nothing() {
    break_once(Peers::pair);
}

#[test]
fn a_second_break_at_every_byte_of_the_repair_loses_and_repeats_nothing() {
    break_twice(Peers::pair);
}

#[test]
fn over_msgr1_a_break_at_every_byte_loses_and_repeats_nothing() {
    break_once(|peers| peers.pair().over_v1());
}

#[test]
fn over_msgr1_a_second_break_at_every_byte_loses_and_repeats_nothing() {
    break_twice(|peers| peers.pair().over_v1());
}

fn break_once(pair: impl Fn(Peers) -> Pair) {
    let mut tried = 0;
    for peers in Peers::ALL {
        for senders in Senders::ALL {
            for chunk in [ALL_AT_ONCE, SMALL_CHUNK] {
                let undisturbed = exchange(pair(peers), senders, chunk, &[]);
                assert_exactly_once(&undisturbed, senders, "undisturbed");
                assert!(undisturbed.arrived(1).is_none(), "one connection is enough");
                let arrived = undisturbed.arrived(0).unwrap();
                println!("{peers:?}, {senders:?} sends, {arrived:?} bytes, {chunk} at a time");
                for cut in boundaries(0, arrived) {
                    let pair = exchange(pair(peers), senders, chunk, &[cut]);
                    let context = format!("{peers:?}, {senders:?} sends, {chunk}, {cut:?}");
                    assert!(pair.is_broken(0), "{context}: not cut");
                    assert_exactly_once(&pair, senders, &context);
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} breaks");
}

/// First cuts whose repair is disturbed: in the handshake, in and between messages, at the end.
const FIRST_CUTS: usize = 8;

fn break_twice(pair: impl Fn(Peers) -> Pair) {
    let mut tried = 0;
    for peers in Peers::ALL {
        for senders in Senders::ALL {
            let arrived = exchange(pair(peers), senders, ALL_AT_ONCE, &[]).arrived(0).unwrap();
            let firsts: Vec<Cut> = boundaries(0, arrived).collect();
            for first in firsts.iter().step_by(firsts.len() / FIRST_CUTS) {
                let repaired = exchange(pair(peers), senders, ALL_AT_ONCE, &[*first]);
                let Some(arrived) = repaired.arrived(1) else {
                    continue; // all was said, and both sides parked
                };
                for second in boundaries(1, arrived) {
                    let pair = exchange(pair(peers), senders, ALL_AT_ONCE, &[*first, second]);
                    let context = format!("{peers:?}, {senders:?} sends, {first:?}, {second:?}");
                    assert!(pair.is_broken(1), "{context}: not cut");
                    assert_exactly_once(&pair, senders, &context);
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} pairs of breaks");
}

#[test]
fn sealed_frames_are_cut_at_every_byte_and_nothing_is_lost_or_repeated() {
    for revision in [Revision::Rev0, Revision::Rev1] {
        let realm = Realm::new(&[ConnectionMode::Secure]);
        let run = |cuts: &[Cut]| {
            let pair = secured(Peers::EqualWithResetcheck.pair(), &realm, revision);
            exchange(pair, Senders::Both, ALL_AT_ONCE, cuts)
        };
        let arrived = run(&[]).arrived(0).unwrap();
        println!("{revision:?}: {arrived:?} bytes");
        for cut in boundaries(0, arrived) {
            let pair = run(&[cut]);
            assert!(pair.is_broken(0), "{revision:?} {cut:?}: not cut");
            assert_exactly_once(&pair, Senders::Both, &format!("{revision:?} {cut:?}"));
        }
    }
}
