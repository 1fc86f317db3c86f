//! Scenes that once broke real messengers, played by whole ones over whole TCP.
//!
//! Where a moment matters, every moment is tried: the scene is played again with the fault a
//! little later, from before the first frame until after the last.

mod stage;

use messenger::EntityType::{Client, Mds, Osd};
use messenger_simulation::{Action, Cast, Spread, Tuning};
use stage::{Stage, both, moments, ms, us};

#[test]
fn who_forgot_and_who_returns_agree_on_numbers_again() {
    // ceph#1794, ceph#3029: the one that returned had a larger in_seq than the other ever sent.
    let mut stage = Stage::new(Cast::of(&[Osd, Osd]));
    stage.send(0, 1, 7);
    stage.send(1, 0, 5);
    stage.settle();
    stage.forget(0, 1);
    stage.send(1, 0, 3);
    stage.settle();
    assert_eq!(stage.world.tally().remote_resets, 1, "host 1 is told what it lost");
    stage.send(0, 1, 2);
    stage.send(1, 0, 2);
    stage.finish();
}

#[test]
fn a_restart_is_seen_whatever_went_wrong_before_the_first_session() {
    // ceph#3797: faults of a session under way raised its counter, as if it had existed.
    for at in moments() {
        let mut stage = Stage::with(Cast::of(&[Osd, Osd]), keeping_nonces());
        stage.send(0, 1, 3);
        stage.wait(at);
        stage.break_all();
        stage.wait(us(700));
        stage.break_all();
        stage.world.apply(Action::Stop { host: 1 });
        stage.world.apply(Action::Start { host: 1 });
        stage.send(0, 1, 3);
        stage.finish();
    }
}

#[test]
fn no_message_vanishes_when_a_handshake_breaks_at_the_dialling_side() {
    // ceph#25343: such a fault reset the session.
    breaks_in_the_handshake(0);
}

#[test]
fn no_message_vanishes_when_a_handshake_breaks_at_the_accepting_side() {
    // ceph#24546, ceph#29788: the same on the other side.
    breaks_in_the_handshake(1);
}

fn breaks_in_the_handshake(at_host: usize) {
    for cast in [&[Osd, Osd], &[Client, Mds]] {
        for at in moments() {
            let mut stage = Stage::new(Cast::of(cast));
            stage.send(0, 1, 4);
            stage.wait(at);
            stage.break_at(at_host);
            stage.finish();
            assert_eq!(stage.world.tally().remote_resets, 0, "broken after {at:?}");
        }
    }
}

#[test]
fn a_parked_session_and_a_restarted_peer_agree_in_a_few_attempts() {
    // ceph#17276: RESET, RETRY, RESET for ever.
    for at in moments() {
        let mut stage = Stage::with(Cast::of(&[Osd, Osd]), keeping_nonces());
        stage.send(0, 1, 1);
        stage.send(1, 0, 1);
        stage.settle();
        stage.break_all();
        stage.wait(at);
        stage.world.apply(Action::Stop { host: 1 });
        stage.world.apply(Action::Start { host: 1 });
        stage.send(0, 1, 1);
        stage.settle();
        stage.finish();
        let dials = stage.dials;
        assert!(dials <= 8, "{dials} attempts after {at:?}");
    }
}

#[test]
fn sending_is_legal_in_the_moment_of_a_fault() {
    // ceph#16009: it asserted.
    for at in moments() {
        let mut stage = Stage::new(Cast::of(&[Osd, Osd]));
        stage.send(0, 1, 1);
        stage.wait(at);
        stage.send(1, 0, 1);
        stage.break_all();
        stage.send(0, 1, 2);
        stage.send(1, 0, 2);
        stage.finish();
        assert_eq!(stage.world.tally().remote_resets, 0, "broken after {at:?}");
    }
}

#[test]
fn a_closed_connection_makes_room_for_the_next_at_once() {
    // ceph#24218: it stayed registered, and the new one was refused.
    for with_reset in both() {
        let mut stage = Stage::new(Cast::of(&[Osd, Osd]));
        for at in moments() {
            stage.send(0, 1, 2);
            stage.wait(at);
            stage.world.apply(Action::MarkDown { host: 0, pick: 0, with_reset });
            let again = stage.send(0, 1, 2);
            stage.settle();
            assert!(stage.have_arrived(&again), "marked down after {at:?}");
        }
        stage.finish();
    }
}

#[test]
fn two_that_dial_each_other_end_up_with_one_session_of_the_same_features() {
    // ceph#35816: the winner's socket with the loser's features.
    for first in [0, 1] {
        for skew in moments() {
            let mut stage = Stage::new(Cast::of(&[Osd, Osd]));
            stage.send(first, 1 - first, 3);
            stage.wait(skew);
            stage.send(1 - first, first, 3);
            stage.settle();
            let [one, other] = [0, 1].map(|host| stage.connection(host, 1 - host));
            assert!(one.is_connected() && other.is_connected());
            assert_eq!(one.features(), other.features());
            let ours = [0, 1].map(|host| stage.process(host).messenger.counters().connections);
            assert_eq!(ours, [1, 1], "after {skew:?}");
            stage.finish();
        }
    }
}

#[test]
fn a_new_process_gets_nothing_of_what_was_sent_to_the_old() {
    // ceph#58673: with the nonce of the old one it was taken for the old one.
    for at in moments() {
        let mut stage = Stage::new(Cast::of(&[Osd, Osd]));
        let nonce = stage.process(1).messenger.nonce();
        stage.send(0, 1, 20);
        stage.wait(at);
        stage.world.apply(Action::Stop { host: 1 });
        stage.world.apply(Action::Start { host: 1 });
        stage.send(0, 1, 20); // to the old one: host 0 knows of no other
        stage.wait(ms(20));
        assert_ne!(stage.process(1).messenger.nonce(), nonce);
        stage.world.apply(Action::Tell { host: 0, of: 1 });
        let fresh = stage.send(0, 1, 5);
        stage.settle();
        assert!(stage.have_arrived(&fresh), "restarted after {at:?}");
        stage.finish();
    }
}

#[test]
fn a_connection_that_fails_as_it_is_accepted_leaves_nothing() {
    // ceph#24276: there was no session yet that the failure could be told to.
    for cast in [&[Osd, Osd], &[Client, Osd], &[Client, Mds]] {
        for at in moments() {
            let mut stage = Stage::new(Cast::of(cast));
            stage.send(0, 1, 1);
            stage.wait(at);
            for _ in 0..3 {
                stage.break_at(1);
                stage.wait(us(10));
            }
            stage.finish();
        }
    }
}

#[test]
fn a_session_moves_between_workers_and_loses_nothing() {
    // Only the client dials, so the server's session goes where the client's new port hashes to.
    let mut cast = Cast::of(&[Client, Mds]);
    cast.members[1].queues = 2;
    cast.members[1].spread = Spread::FlowHash { announced: true };
    let mut stage = Stage::new(cast);
    stage.send(0, 1, 1);
    stage.settle();
    let connection = stage.connection(1, 0);
    let mut at_worker = [0; 2];
    for _ in 0..40 {
        stage.send(0, 1, 3);
        stage.wait(us(400));
        stage.break_at(0);
        stage.send(1, 0, 3);
        stage.send(0, 1, 3);
        stage.settle();
        let counters = stage.process(1).messenger.counters();
        for (count, worker) in at_worker.iter_mut().zip(&counters.workers) {
            *count += worker.get("msgr_active_connections");
        }
        assert!(stage.connection(1, 0) == connection, "the handle stays");
    }
    assert!(at_worker.iter().all(|times| *times > 3), "it was at each worker: {at_worker:?}");
    stage.finish();
}

fn keeping_nonces() -> Tuning {
    Tuning { keeps_nonce: true, ..Tuning::default() }
}
