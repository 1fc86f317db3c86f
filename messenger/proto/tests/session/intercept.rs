//! What a test can do to a session at each of its steps, and that the session survives it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use messenger_proto::{Action, Policy, Step};

use crate::pair::{ALICE, BOB, Pair, Script, message};

/// Those a client passes in its first session and in a reconnect, and those a server passes.
const CLIENT: [Step; 9] = [
    Step::ClientBanner,
    Step::ClientBannerSent,
    Step::ClientBannerSeen,
    Step::ClientBannerDone,
    Step::AuthRequest,
    Step::ClientIdent,
    Step::Ready,
    Step::MessageSeen,
    Step::MessageDecoded,
];
const SERVER: [Step; 9] = [
    Step::ServerBanner,
    Step::ServerBannerSent,
    Step::ServerBannerSeen,
    Step::ServerBannerDone,
    Step::AuthRequestSeen,
    Step::ServerIdent,
    Step::Ready,
    Step::MessageSeen,
    Step::MessageDecoded,
];

type Passed = Arc<Mutex<Vec<Step>>>;

/// Does `action` the first time `at` is passed, and writes all steps down.
fn once(at: Step, action: Action) -> (Script, Passed) {
    let passed = Passed::default();
    let notes = Arc::clone(&passed);
    let mut spent = false;
    let script = move |_, step| {
        notes.lock().unwrap().push(step);
        if step != at || std::mem::replace(&mut spent, true) {
            return Action::Continue;
        }
        action
    };
    (Arc::new(Mutex::new(script)), passed)
}

fn pair() -> Pair {
    Pair::new(Policy::lossless_client(), Policy::stateful_server())
}

/// A question and its answer.
fn talk(pair: &mut Pair) {
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    pair.advance(Duration::from_secs(1));
    if let Some(index) = pair.hosts[BOB].slots.iter().position(|slot| !slot.received.is_empty()) {
        let now = pair.now;
        pair.hosts[BOB].slots[index].session.send(now, message(2)).unwrap();
    }
    pair.advance(Duration::from_secs(1));
}

fn received(pair: &Pair, host: usize) -> Vec<u64> {
    let slots = pair.hosts[host].slots.iter().flat_map(|slot| &slot.received);
    slots.map(|message| message.header.tid).collect()
}

#[test]
fn steps_come_in_their_order_on_both_sides() {
    let mut pair = pair();
    let (alice, at_alice) = once(Step::CompressionRequest, Action::Stop);
    let (bob, at_bob) = once(Step::CompressionRequest, Action::Stop);
    pair.hosts[ALICE].script = Some(alice);
    pair.hosts[BOB].script = Some(bob);
    talk(&mut pair);
    assert_eq!(*at_alice.lock().unwrap(), CLIENT);
    assert_eq!(*at_bob.lock().unwrap(), SERVER);

    at_alice.lock().unwrap().clear();
    at_bob.lock().unwrap().clear();
    pair.cut();
    pair.run();
    let again = |steps: &[Step], last| -> Vec<Step> {
        steps[..5].iter().copied().chain([last, Step::Ready]).collect()
    };
    assert_eq!(*at_alice.lock().unwrap(), again(&CLIENT, Step::Reconnect));
    assert_eq!(*at_bob.lock().unwrap(), again(&SERVER, Step::ReconnectOk));
}

#[test]
fn a_failure_at_any_step_loses_and_repeats_nothing() {
    for (host, step) in [(ALICE, CLIENT), (BOB, SERVER)]
        .into_iter()
        .flat_map(|(host, steps)| steps.map(|step| (host, step)))
    {
        let mut pair = pair();
        let (script, passed) = once(step, Action::Fail);
        pair.hosts[host].script = Some(script);
        talk(&mut pair);
        assert!(passed.lock().unwrap().contains(&step));
        assert_eq!(received(&pair, BOB), [1], "host {host} failed at {step:?}");
        assert_eq!(received(&pair, ALICE), [2], "host {host} failed at {step:?}");
        assert_eq!(pair.session(ALICE).queued(), (0, 0), "host {host} failed at {step:?}");
    }
}

#[test]
fn what_is_held_stands_still_until_it_is_let_go() {
    for (host, step) in [(ALICE, CLIENT), (BOB, SERVER)]
        .into_iter()
        .flat_map(|(host, steps)| steps.map(|step| (host, step)))
    {
        let mut pair = pair();
        let (script, passed) = once(step, Action::Hold);
        pair.hosts[host].script = Some(script);
        talk(&mut pair);
        let before = passed.lock().unwrap().len();
        pair.advance(Duration::from_secs(5));
        assert_eq!(passed.lock().unwrap().len(), before, "host {host} moved on from {step:?}");
        assert!(!pair.session(host).is_ready(), "host {host} held at {step:?}");

        let now = pair.now;
        assert!(pair.session(host).resume(now, Action::Continue));
        assert!(!pair.session(host).resume(now, Action::Continue), "it is let go once");
        pair.run();
        assert_eq!(received(&pair, BOB), [1], "host {host} held at {step:?}");
        assert!(pair.session(ALICE).is_ready() && pair.session(BOB).is_ready());
    }
}

#[test]
fn a_stop_ends_the_session_with_a_reset() {
    for step in CLIENT {
        let mut pair = pair();
        let (script, _) = once(step, Action::Stop);
        pair.hosts[ALICE].script = Some(script);
        talk(&mut pair);
        assert!(pair.session(ALICE).is_closed(), "stopped at {step:?}");
        assert_eq!(pair.slot(ALICE).log.last(), Some(&"reset"));
    }
}

#[test]
fn a_held_transport_that_breaks_is_dialled_again() {
    let mut pair = pair();
    let (script, passed) = once(Step::ClientIdent, Action::Hold);
    pair.hosts[ALICE].script = Some(script);
    talk(&mut pair);
    pair.advance(Duration::from_secs(12)); // beyond the ready timeout
    assert_eq!(received(&pair, BOB), [1]);
    let mut count = BTreeMap::new();
    for step in passed.lock().unwrap().iter() {
        *count.entry(*step).or_insert(0) += 1;
    }
    assert_eq!((count[&Step::ClientIdent], count[&Step::Ready]), (2, 1));
}

/// #3: an accepted session that was given a message is not forgotten with its first transport.
#[test]
fn a_half_accepted_session_with_a_message_waits_for_its_client() {
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateful_server());
    let (script, _) = once(Step::ServerIdent, Action::Hold);
    pair.hosts[BOB].script = Some(script);
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    pair.run();
    pair.send(BOB, message(7));
    let now = pair.now;
    pair.session(BOB).resume(now, Action::Fail);
    pair.advance(Duration::from_secs(1));
    assert_eq!(pair.received_tids(ALICE), [7]);
    assert_eq!(pair.received_tids(BOB), [1], "the same session took the new transport over");
}

/// #4: and a peer that may dial does so.
#[test]
fn a_half_accepted_peer_with_a_message_dials_back() {
    let mut pair = Pair::of_peers(Policy::lossless_peer());
    let (script, _) = once(Step::ServerIdent, Action::Hold);
    pair.hosts[ALICE].script = Some(script);
    pair.dial(BOB);
    pair.run();
    pair.send(ALICE, message(7));
    let now = pair.now;
    pair.session(ALICE).resume(now, Action::Fail);
    pair.advance(Duration::from_secs(1));
    assert_eq!(pair.received_tids(BOB), [7]);
    assert!(pair.session(ALICE).is_ready() && pair.session(BOB).is_ready());
}
