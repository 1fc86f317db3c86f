//! What a real OSD and we say when transports break, scene by scene.

use messenger::EntityAddr;
use messenger_ceph::{MPing, Payload};
use messenger_proto::v2::control::{
    ClientIdent, ServerIdent, SessionReconnect, SessionReconnectOk, SessionReset, SessionRetry,
    SessionRetryGlobal, Wait,
};

use super::Party::{Osd, Ours};
use super::scene::{NONCE, News, Scene};

/// All of them.
pub(crate) const SCENES: [fn(&Scene); 9] = [
    the_osd_dials_back_and_replays,
    the_osd_answers_retry,
    we_answer_retry,
    the_osd_answers_retry_global,
    we_answer_retry_global,
    we_answer_reset,
    the_osd_answers_a_soft_reset,
    the_osd_answers_a_full_reset,
    a_race_of_dials_is_settled,
];

/// The OSD dials as often as it takes, and repeats what we do not have, and nothing else.
fn the_osd_dials_back_and_replays(scene: &Scene) {
    let mut session = scene.open();
    for tid in 1..=3 {
        scene.us.ask(tid);
        assert_eq!(session.link.pass_message(Ours).header.seq, tid);
    }
    for seq in 1..=2 {
        let answer = session.link.pass_message(Osd).header;
        assert_eq!(answer.seq, seq);
        scene.us.hears(News::Answer(answer.tid));
    }
    let missed = session.link.take_message(Osd);
    assert_eq!(missed.header.seq, 3);
    let broken = session.breaks(3, missed);

    let (link, first) = broken.osd_dials(scene, 1);
    link.cut();
    let (mut link, second) = broken.osd_dials(scene, 2);
    assert!(second.global_seq > first.global_seq);
    link.give(Osd, &second);
    assert_eq!(link.pass::<SessionReconnectOk>(Ours).0, 2);
    broken.is_repaired(scene, &mut link);
    // The next one has the next number, so nothing else came again.
    scene.us.ask(4);
    assert_eq!(link.pass_message(Ours).header.seq, 4);
    assert_eq!(link.pass_message(Osd).header.seq, 4);
    scene.us.hears(News::Answer(4));
}

fn the_osd_answers_retry(scene: &Scene) {
    let broken = scene.broken();
    broken.osd_dials(scene, 1).0.cut();
    let held = broken.osd_dials(scene, 2);
    scene.us.ping();
    let (mut link, request) = broken.we_dial(scene, 1);
    link.give(Ours, &request);
    assert_eq!(link.pass::<SessionRetry>(Osd), SessionRetry(2));
    let again: SessionReconnect = link.pass(Ours);
    assert_eq!(again, SessionReconnect { connect_seq: 3, ..request });
    assert_eq!(link.pass::<SessionReconnectOk>(Osd).0, 1);
    assert_eq!(link.pass_message(Ours).header.seq, 2);
    broken.is_repaired(scene, &mut link);
    drop(held);
}

fn we_answer_retry(scene: &Scene) {
    let broken = scene.broken();
    let (mut link, request) = broken.osd_dials(scene, 1);
    scene.us.ping();
    broken.we_dial(scene, 1).0.cut();
    broken.we_dial(scene, 2).0.cut();
    let held = broken.we_dial(scene, 3);
    link.give(Osd, &request);
    assert_eq!(link.pass::<SessionRetry>(Ours), SessionRetry(3));
    let again: SessionReconnect = link.pass(Osd);
    assert_eq!(again, SessionReconnect { connect_seq: 4, ..request });
    assert_eq!(link.pass::<SessionReconnectOk>(Ours).0, 0);
    assert_eq!(link.pass_message(Ours).header.seq, 2);
    broken.is_repaired(scene, &mut link);
    drop(held);
}

fn the_osd_answers_retry_global(scene: &Scene) {
    let broken = scene.broken();
    let held = broken.osd_dials(scene, 1);
    scene.us.ping();
    broken.we_dial(scene, 1).0.cut();
    let (mut link, request) = broken.we_dial(scene, 2);
    link.give(Ours, &SessionReconnect { global_seq: 0, ..request.clone() });
    let known = broken.client.global_seq;
    assert_eq!(link.pass::<SessionRetryGlobal>(Osd), SessionRetryGlobal(known));
    let again: SessionReconnect = link.pass(Ours);
    assert!(again.global_seq > request.global_seq);
    assert_eq!(again, SessionReconnect { global_seq: again.global_seq, ..request });
    assert_eq!(link.pass::<SessionReconnectOk>(Osd).0, 1);
    assert_eq!(link.pass_message(Ours).header.seq, 2);
    broken.is_repaired(scene, &mut link);
    drop(held);
}

fn we_answer_retry_global(scene: &Scene) {
    let broken = scene.broken();
    let (mut link, request) = broken.osd_dials(scene, 1);
    link.give(Osd, &SessionReconnect { global_seq: 0, ..request.clone() });
    let known = broken.server.global_seq;
    assert_eq!(link.pass::<SessionRetryGlobal>(Ours), SessionRetryGlobal(known));
    let again: SessionReconnect = link.pass(Osd);
    assert!(again.global_seq > request.global_seq);
    assert_eq!(again, SessionReconnect { global_seq: again.global_seq, ..request });
    assert_eq!(link.pass::<SessionReconnectOk>(Ours).0, 0);
    broken.is_repaired(scene, &mut link);
}

/// We forgot the session: the OSD starts over, and what it had to say dies with the old one.
fn we_answer_reset(scene: &Scene) {
    let mut session = scene.open();
    scene.us.ask(1);
    session.link.pass_message(Ours);
    session.link.take_message(Osd);
    scene.us.connection().mark_down();
    session.link.cut();

    let mut link = scene.relay.next_dial(Osd);
    let request: SessionReconnect = link.pass(Osd);
    assert_eq!(request.client_cookie, session.client.cookie);
    assert_eq!(link.pass::<SessionReset>(Ours), SessionReset { full: true });
    let client: ClientIdent = link.pass(Osd);
    assert!(client.cookie != 0 && client.cookie != session.client.cookie);
    assert_eq!((client.number, client.flags), (0, 0));
    let server: ServerIdent = link.pass(Ours);
    assert!(server.cookie != 0 && server.cookie != session.server.cookie);
    assert_eq!(server.number, 7);
    scene.us.ask(2);
    assert_eq!(link.pass_message(Ours).header.seq, 1);
    let answer = link.pass_message(Osd).header;
    assert_eq!((answer.seq, answer.tid), (1, 2));
    scene.us.hears(News::Answer(2));
}

/// The OSD knows another session of ours: a new one begins, and our queue goes on in it.
fn the_osd_answers_a_soft_reset(scene: &Scene) {
    let broken = scene.broken();
    let held = broken.osd_dials(scene, 1);
    scene.us.ping();
    let (mut link, request) = broken.we_dial(scene, 1);
    let unknown = !request.client_cookie;
    link.give(Ours, &SessionReconnect { client_cookie: unknown, ..request });
    assert_eq!(link.pass::<SessionReset>(Osd), SessionReset { full: false });
    let client: ClientIdent = link.pass(Ours);
    assert_eq!(client.cookie, broken.client.cookie, "kept");
    let server: ServerIdent = link.pass(Osd);
    assert!(server.cookie != 0 && server.cookie != broken.server.cookie);
    let ping = link.pass_message(Ours).header;
    assert_eq!((ping.seq, ping.kind), (1, MPing::KIND));
    broken.is_repaired(scene, &mut link);
    drop(held);
}

/// The OSD knows no session of ours: our queue dies, the application is told, and we start over.
fn the_osd_answers_a_full_reset(scene: &Scene) {
    let broken = scene.broken();
    let held = broken.osd_dials(scene, 1);
    scene.us.ping();
    let (mut link, request) = broken.we_dial(scene, 1);
    let stranger = EntityAddr { nonce: NONCE + 1, ..broken.client.addrs.preferred() };
    link.give(Ours, &SessionReconnect { addrs: stranger.into(), ..request });
    assert_eq!(link.pass::<SessionReset>(Osd), SessionReset { full: true });
    scene.us.hears(News::RemoteReset);
    let client: ClientIdent = link.pass(Ours);
    assert!(client.cookie != 0 && client.cookie != broken.client.cookie);
    let server: ServerIdent = link.pass(Osd);
    assert!(server.cookie != 0 && server.cookie != broken.server.cookie);
    scene.us.ask(2);
    let ask = link.pass_message(Ours).header;
    assert_eq!((ask.seq, ask.tid), (1, 2), "the ping is gone");
    drop(held);
}

/// Both dial at once, and ours wins; the loser's attempt still counts.
fn a_race_of_dials_is_settled(scene: &Scene) {
    let broken = scene.broken();
    let (mut theirs, their_request) = broken.osd_dials(scene, 1);
    scene.us.ping();
    let (mut ours, our_request) = broken.we_dial(scene, 1);
    theirs.give(Osd, &their_request);
    theirs.pass::<Wait>(Ours);
    theirs.cut();
    ours.give(Ours, &our_request);
    assert_eq!(ours.pass::<SessionRetry>(Osd), SessionRetry(2));
    let again: SessionReconnect = ours.pass(Ours);
    assert_eq!(again, SessionReconnect { connect_seq: 3, ..our_request });
    assert_eq!(ours.pass::<SessionReconnectOk>(Osd).0, 1);
    assert_eq!(ours.pass_message(Ours).header.seq, 2);
    broken.is_repaired(scene, &mut ours);
}
