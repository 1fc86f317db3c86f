//! What a real OSD and we say over msgr1 when transports break, scene by scene.

use messenger_proto::v1::{Connect, ReplyTag};

use super::Party::{Osd, Ours};
use super::legacy::{LegacyLetter, LegacyLink, With};
use super::scene::{News, Scene};

/// All of them.
pub(crate) const LEGACY_SCENES: [fn(&Scene); 8] = [
    the_osd_dials_back_and_replays,
    the_osd_answers_retry_session,
    we_answer_retry_session,
    the_osd_answers_retry_global,
    we_answer_retry_global,
    the_osd_answers_resetsession,
    we_answer_resetsession,
    a_race_of_dials_is_settled,
];

/// A session, made by us: both sides count it as the first.
fn open(scene: &Scene) -> LegacyLink {
    scene.us.connection();
    let mut link = scene.relay.next_legacy_dial(Ours);
    let connect = link.pass_connect();
    let reply = link.pass_reply();
    assert_eq!((connect.connect_seq, connect.lossy), (0, false));
    assert_eq!((reply.tag, reply.connect_seq, reply.lossy), (ReplyTag::Seq, 1, false));
    assert_eq!(link.pass_seqs(), [0, 0]);
    link
}

/// What we did not get, of a session whose transport broke: the OSD's first answer.
fn broken(scene: &Scene) -> LegacyLetter {
    let mut link = open(scene);
    scene.us.ask(1);
    assert_eq!(link.pass_message(Ours).message.header.seq, 1);
    let missed = link.take_message(Osd);
    assert_eq!(missed.message.header.seq, 1);
    link.cut_after_ack(1);
    missed
}

/// The OSD's next dial, which asks to go on.
fn osd_dials(scene: &Scene) -> (LegacyLink, With<Connect>) {
    let mut link = scene.relay.next_legacy_dial(Osd);
    let connect = link.take_connect();
    assert_eq!(connect.what.connect_seq, 2, "{connect:?}");
    (link, connect)
}

/// Ours. Who had nothing to say when the transport broke asks with the number it has.
fn we_dial(scene: &Scene) -> (LegacyLink, With<Connect>) {
    let mut link = scene.relay.next_legacy_dial(Ours);
    let connect = link.take_connect();
    assert_eq!(connect.what.connect_seq, 1, "{connect:?}");
    (link, connect)
}

/// The session goes on as its third transport, and either side tells what it has.
fn goes_on(link: &mut LegacyLink, connect_seq: u32, seqs: [u64; 2]) {
    let reply = link.pass_reply();
    assert_eq!((reply.tag, reply.connect_seq), (ReplyTag::Seq, connect_seq), "{reply:?}");
    assert_eq!(link.pass_seqs(), seqs);
}

/// The OSD takes our transport over for the old session. It then says RETRY_GLOBAL, whatever number
/// we had, and lets us in when we ask once more.
fn the_osd_takes_over(link: &mut LegacyLink, asked: Connect, seqs: [u64; 2]) {
    let reply = link.pass_reply();
    assert_eq!((reply.tag, reply.global_seq), (ReplyTag::RetryGlobal, 1), "our first dial's");
    let again = link.pass_connect();
    assert!(again.global_seq > asked.global_seq, "{again:?}");
    assert_eq!(again, Connect { global_seq: again.global_seq, ..asked });
    goes_on(link, again.connect_seq + 1, seqs);
}

/// The OSD has asked itself meanwhile, and so has a higher number than we.
fn we_learn_its_number(link: &mut LegacyLink, asked: Connect) {
    let reply = link.pass_reply();
    assert_eq!((reply.tag, reply.connect_seq), (ReplyTag::RetrySession, 3));
    let again = link.pass_connect();
    assert_eq!(again, Connect { connect_seq: 3, ..asked });
    the_osd_takes_over(link, again, [1, 0]);
}

/// The OSD says again what we missed, under the number it had, and our application gets it.
fn is_repaired(scene: &Scene, link: &mut LegacyLink, missed: &LegacyLetter) {
    let again = link.pass_message(Osd);
    let (again, missed) = (again.message, &missed.message);
    assert_eq!(again.header, missed.header);
    // Under cephx it is signed anew, with the key of whoever dialled.
    assert_eq!((again.front, again.data), (missed.front.clone(), missed.data.clone()));
    scene.us.hears(News::Answer(again.header.tid));
}

fn the_osd_dials_back_and_replays(scene: &Scene) {
    let mut link = open(scene);
    for tid in 1..=3 {
        scene.us.ask(tid);
        assert_eq!(link.pass_message(Ours).message.header.seq, tid);
    }
    for seq in 1..=2 {
        let answer = link.pass_message(Osd).message.header;
        assert_eq!(answer.seq, seq);
        scene.us.hears(News::Answer(answer.tid));
    }
    let missed = link.take_message(Osd);
    assert_eq!(missed.message.header.seq, 3);
    link.cut_after_ack(3);

    let (link, first) = osd_dials(scene);
    link.cut();
    let (mut link, second) = osd_dials(scene);
    assert!(second.what.global_seq > first.what.global_seq);
    link.give_connect(&second);
    goes_on(&mut link, 3, [2, 3]);
    is_repaired(scene, &mut link, &missed);
    scene.us.ask(4);
    assert_eq!(link.pass_message(Ours).message.header.seq, 4);
    assert_eq!(link.pass_message(Osd).message.header.seq, 4);
    scene.us.hears(News::Answer(4));
}

fn the_osd_answers_retry_session(scene: &Scene) {
    let missed = broken(scene);
    let held = osd_dials(scene);
    scene.us.ping();
    let (mut link, connect) = we_dial(scene);
    link.give_connect(&connect);
    we_learn_its_number(&mut link, connect.what);
    assert_eq!(link.pass_message(Ours).message.header.seq, 2);
    is_repaired(scene, &mut link, &missed);
    drop(held);
}

/// To us it asks with a number that is too low, and gets an answer that it can do with.
fn we_answer_retry_session(scene: &Scene) {
    let missed = broken(scene);
    let (mut link, mut connect) = osd_dials(scene);
    connect.what.connect_seq = 1;
    link.give_connect(&connect);
    let reply = link.edit_reply(|reply| reply.connect_seq = 3);
    assert_eq!((reply.tag, reply.connect_seq), (ReplyTag::RetrySession, 2));
    assert_eq!(link.pass_connect(), Connect { connect_seq: 3, ..connect.what });
    goes_on(&mut link, 4, [0, 1]);
    is_repaired(scene, &mut link, &missed);
}

fn the_osd_answers_retry_global(scene: &Scene) {
    let missed = broken(scene);
    let held = osd_dials(scene);
    scene.us.ping();
    let (mut link, mut connect) = we_dial(scene);
    let ours = std::mem::take(&mut connect.what.global_seq);
    link.give_connect(&connect);
    let reply = link.pass_reply();
    assert_eq!((reply.tag, reply.global_seq), (ReplyTag::RetryGlobal, 1), "our first dial's");
    let again = link.pass_connect();
    assert!(again.global_seq > ours, "{again:?}");
    we_learn_its_number(&mut link, again);
    assert_eq!(link.pass_message(Ours).message.header.seq, 2);
    is_repaired(scene, &mut link, &missed);
    drop(held);
}

fn we_answer_retry_global(scene: &Scene) {
    let missed = broken(scene);
    let (mut link, mut connect) = osd_dials(scene);
    let theirs = std::mem::take(&mut connect.what.global_seq);
    link.give_connect(&connect);
    let reply = link.pass_reply();
    assert_eq!(reply.tag, ReplyTag::RetryGlobal, "{reply:?}");
    assert!(reply.global_seq > 0 && reply.global_seq < theirs, "that of the session's first dial");
    let again = link.pass_connect();
    assert!(again.global_seq > theirs, "{again:?}");
    goes_on(&mut link, 3, [0, 1]);
    is_repaired(scene, &mut link, &missed);
}

/// The OSD takes us for somebody else: our queue dies, the application is told, and we start over.
fn the_osd_answers_resetsession(scene: &Scene) {
    broken(scene);
    let held = osd_dials(scene);
    scene.us.ping();
    let mut link = scene.relay.next_legacy_dial_as(Ours, |ours| ours.nonce += 1);
    assert_eq!(link.pass_connect().connect_seq, 1);
    assert_eq!(link.pass_reply().tag, ReplyTag::ResetSession);
    scene.us.hears(News::RemoteReset);
    assert_eq!(link.pass_connect().connect_seq, 0);
    goes_on(&mut link, 1, [0, 0]);
    scene.us.ask(2);
    assert_eq!(link.pass_message(Ours).message.header.tid, 2, "the ping is gone");
    drop(held);
}

/// We forgot the session: the OSD starts over, and what it had to say dies with the old one.
fn we_answer_resetsession(scene: &Scene) {
    let mut link = open(scene);
    scene.us.ask(1);
    link.pass_message(Ours);
    link.take_message(Osd);
    scene.us.connection().mark_down();
    link.cut();

    let (mut link, connect) = osd_dials(scene);
    link.give_connect(&connect);
    assert_eq!(link.pass_reply().tag, ReplyTag::ResetSession);
    assert_eq!(link.pass_connect().connect_seq, 0);
    goes_on(&mut link, 1, [0, 0]);
    scene.us.ask(2);
    assert_eq!(link.pass_message(Ours).message.header.tid, 2);
    assert_eq!(link.pass_message(Osd).message.header.tid, 2);
    scene.us.hears(News::Answer(2));
}

/// Both dial at once, and ours wins.
fn a_race_of_dials_is_settled(scene: &Scene) {
    let missed = broken(scene);
    let (mut theirs, mut their_connect) = osd_dials(scene);
    scene.us.ping();
    let (mut ours, our_connect) = we_dial(scene);
    their_connect.what.connect_seq = our_connect.what.connect_seq;
    theirs.give_connect(&their_connect);
    assert_eq!(theirs.pass_reply().tag, ReplyTag::Wait);
    theirs.cut();
    ours.give_connect(&our_connect);
    we_learn_its_number(&mut ours, our_connect.what);
    assert_eq!(ours.pass_message(Ours).message.header.seq, 2);
    is_repaired(scene, &mut ours, &missed);
}
