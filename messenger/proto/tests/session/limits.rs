//! What a peer may have a session hold, in both frame revisions.

use bytes::BytesMut;
use messenger_proto::v2::control::{AuthRequest, Keepalive2, Keepalive2Ack};
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{Control, Revision, Utime};
use messenger_proto::{Policy, crc};

use crate::pair::identity;
use crate::probe::Probe;

fn probe(revision: Revision) -> Probe {
    let identity = identity("osd.1", "v2:10.0.0.2:6800/22", Policy::stateless_server());
    Probe::dial(identity, revision)
}

fn in_both_revisions(case: impl Fn(&mut Probe)) {
    for revision in [Revision::Rev0, Revision::Rev1] {
        case(&mut probe(revision));
    }
}

fn keepalive() -> Keepalive2 {
    Keepalive2(Utime { seconds: 1, nanoseconds: 2 })
}

/// Edits a frame's preamble and makes its checksum right again.
fn with_preamble(mut frame: BytesMut, edit: impl FnOnce(&mut [u8])) -> BytesMut {
    edit(&mut frame[..PREAMBLE_LEN - 4]);
    let sum = crc::crc32c(crc::PREAMBLE_SEED, &frame[..PREAMBLE_LEN - 4]);
    frame[PREAMBLE_LEN - 4..PREAMBLE_LEN].copy_from_slice(&sum.to_le_bytes());
    frame
}

#[test]
fn a_stranger_s_words_are_bounded_one_by_one_and_altogether() {
    let quarter =
        identity("osd.1", "v2:10.0.0.2:6800/22", Policy::default()).limits.unauthenticated_bytes
            / 4;
    let announce = |len: usize| {
        in_both_revisions(|probe| {
            let frame = with_preamble(probe.banner().hello().frame(&keepalive()), |preamble| {
                preamble[2..6].copy_from_slice(&(len as u32).to_le_bytes());
            });
            probe.say(&frame[..PREAMBLE_LEN]);
            assert_eq!(probe.verdict(), if len < quarter { "open" } else { "segment_too_long" });
            assert!(probe.session.rx_space().len() <= quarter);
        });
    };
    announce(quarter - 500);
    announce(quarter);
    in_both_revisions(|probe| {
        let good = Probe::auth_request();
        let bad = AuthRequest { method: 77, payload: vec![0; 1000], ..good };
        probe.banner().hello();
        for _ in 0..quarter / 1000 {
            probe.control(&bad);
        }
        assert!(["segment_too_long", "unauthenticated_len"].contains(&probe.verdict()));
        assert!(probe.heard.len() < quarter);
    });
    // A banner counts, too.
    let mut identity = identity("osd.1", "v2:10.0.0.2:6800/22", Policy::stateless_server());
    identity.limits.unauthenticated_bytes = 4 * 30;
    let mut probe = Probe::dial(identity, Revision::Rev1);
    let banner = [&b"ceph v2\n"[..], &40_u16.to_le_bytes(), &[0; 40]].concat();
    assert_eq!(probe.say(&banner).verdict(), "unauthenticated_len");
}

#[test]
fn keepalives_are_echoed_and_bounded() {
    in_both_revisions(|probe| {
        let frames = probe.ready().control(&keepalive()).frames();
        assert_eq!(Keepalive2Ack::parse(&frames[0].1).unwrap().0, keepalive().0);
        assert_eq!(probe.session.peer().last_keepalive, Some(probe.now));
        let flood: Vec<u8> = (0..1000).flat_map(|_| probe.frame(&keepalive())).collect();
        probe.say(&flood);
        assert_eq!(probe.verdict(), "open");
    });
}
