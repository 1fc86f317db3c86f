//! What an acceptor does with unusual and wrong input, in both frame revisions.

use std::time::Duration;

use bytes::BytesMut;
use messenger_proto::denc::{DecodeError, Reader, Writer};
use messenger_proto::v2::control::{
    Ack, AuthBadMethod, AuthDone, AuthRequest, AuthSignature, ClientIdent, CompressionRequest,
    Control, Hello, IdentMissingFeatures, Keepalive2, Keepalive2Ack, SIGNATURE_LEN, ServerIdent,
    SessionReconnectOk, SessionReset, SessionRetry, Wait,
};
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{Revision, Tag, Utime};
use messenger_proto::{EntityAddrVec, EntityType, Fault, Policy, ProtocolError, crc, features};

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
fn strangers_get_our_banner_and_a_close() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"ceph v027aaaaaaaa", &[0; 64]] {
        let mut probe = probe(Revision::Rev1);
        probe.say(bytes);
        assert_eq!(probe.verdict(), "bad_banner");
        assert_eq!(probe.heard.len(), 26);
    }
}

#[test]
fn banners_are_checked_for_length_and_features() {
    let say = |bytes: &[u8]| probe(Revision::Rev1).say(bytes).verdict();
    let banner = |len: u16, required: u64, extra: usize| {
        let mut out = b"ceph v2\n".to_vec();
        out.extend(len.to_le_bytes());
        out.extend(1_u64.to_le_bytes());
        out.extend(required.to_le_bytes());
        out.extend(vec![0xaa; extra]);
        out
    };
    assert_eq!(say(&banner(16, 0, 0)), "open");
    assert_eq!(say(&banner(40, 0, 24)), "open");
    assert_eq!(say(&banner(16, 4, 0)), "banner_features");
    assert_eq!(say(&banner(8, 0, 0)), "banner_len");
    assert_eq!(say(&banner(4097, 0, 0)), "banner_len");
}

#[test]
fn checksums_are_checked() {
    in_both_revisions(|probe| {
        let mut frame = probe.ready().frame(&keepalive());
        frame[PREAMBLE_LEN - 1] ^= 1;
        assert_eq!(probe.say(&frame).verdict(), "preamble_crc");
    });
    in_both_revisions(|probe| {
        let mut frame = probe.ready().frame(&keepalive());
        frame[PREAMBLE_LEN] ^= 1;
        assert_eq!(probe.say(&frame).verdict(), "segment_crc");
    });
    in_both_revisions(|probe| {
        let mut frame = probe.ready().message(1, b"front");
        let last_front_byte = frame.len() - 18;
        frame[last_front_byte] ^= 1;
        assert_eq!(probe.say(&frame).verdict(), "segment_crc");
    });
}

#[test]
fn zero_checksums_pass_only_where_checking_is_off() {
    in_both_revisions(|probe| {
        probe.ready().wire.crc_data = false;
        let frame = probe.message(1, b"front");
        assert_eq!(probe.say(&frame).verdict(), "segment_crc");
    });
    let mut identity = identity("osd.1", "v2:10.0.0.2:6800/22", Policy::stateless_server());
    identity.options.crc_data = false;
    let mut probe = Probe::dial(identity, Revision::Rev0);
    probe.wire.crc_data = false;
    let frame = probe.ready().message(1, b"front");
    assert_eq!(probe.say(&frame).received.len(), 1);
}

#[test]
fn segment_counts_are_checked() {
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.ready().message(1, b"x"), |preamble| preamble[1] = 0);
        assert_eq!(probe.say(&frame).verdict(), "segment_count");
    });
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.ready().message(1, b"x"), |preamble| preamble[1] = 5);
        assert_eq!(probe.say(&frame).verdict(), "segment_count");
    });
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.ready().message(1, b"x"), |preamble| preamble[1] = 3);
        assert_eq!(probe.say(&frame).verdict(), "last_segment_empty");
    });
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.ready().frame(&keepalive()), |preamble| {
            preamble[1] = 2;
        });
        assert_eq!(probe.say(&frame).verdict(), "segment_count");
    });
}

#[test]
fn unknown_tags_are_refused_after_the_whole_frame() {
    for tag in [0, 23, 99, 255] {
        in_both_revisions(|probe| {
            let frame = with_preamble(probe.ready().frame(&keepalive()), |preamble| {
                preamble[0] = tag;
            });
            let (head, last) = frame.split_at(frame.len() - 1);
            assert_eq!(probe.say(head).verdict(), "open");
            probe.say(last);
            assert_eq!(probe.error, Some(ProtocolError::UnknownTag { tag }));
        });
    }
}

#[test]
fn compression_was_not_offered() {
    in_both_revisions(|probe| {
        let request = CompressionRequest { wanted: false, methods: vec![1] };
        assert_eq!(probe.signed().control(&request).verdict(), "unexpected_tag");
    });
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.ready().message(1, b"x"), |preamble| preamble[26] = 1);
        assert_eq!(probe.say(&frame).verdict(), "compressed");
    });
}

#[test]
fn hints_and_reserved_fields_are_ignored() {
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.ready().message(1, b"x"), |preamble| {
            preamble[6..8].fill(3); // alignment
            preamble[14..26].fill(0xde); // descriptors not counted
            preamble[27] = 0x5a;
        });
        assert_eq!(probe.say(&frame).received.len(), 1);
        assert_eq!(probe.verdict(), "open");
    });
}

#[test]
fn control_payloads_may_grow_but_not_shrink() {
    struct Longer;
    impl Control for Longer {
        const TAG: Tag = Tag::Keepalive2;
        fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
            Ok(Self)
        }
        fn encode(&self, writer: &mut Writer<'_>) {
            writer.u64(7);
            writer.bytes(b"future");
        }
    }
    in_both_revisions(|probe| {
        assert_eq!(probe.ready().control(&Longer).tags(), [Tag::Keepalive2Ack]);
    });
    in_both_revisions(|probe| {
        let empty = with_preamble(probe.ready().frame(&Wait), |preamble| preamble[0] = 18);
        assert_eq!(probe.say(&empty).verdict(), "payload");
    });
    in_both_revisions(|probe| {
        assert_eq!(probe.ready().control(&Wait).verdict(), "unexpected_tag");
    });
}

#[test]
fn announced_lengths_are_limited_before_anything_is_allocated() {
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.banner().hello().frame(&keepalive()), |preamble| {
            preamble[2..6].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        });
        assert_eq!(probe.say(&frame[..PREAMBLE_LEN]).verdict(), "segment_too_long");
        assert!(probe.session.rx_space().is_empty());
    });
    in_both_revisions(|probe| {
        let mut frame = probe.ready().raw_message(&[0; 41], [&[], &[], b"data"]);
        frame.truncate(PREAMBLE_LEN);
        let frame = with_preamble(frame, |preamble| {
            preamble[20..24].copy_from_slice(&(129_u32 << 20).to_le_bytes());
        });
        assert_eq!(probe.say(&frame).verdict(), "segment_too_long");
    });
    // Up to the limit a frame is read.
    in_both_revisions(|probe| {
        let frame = with_preamble(probe.signed().frame(&keepalive()), |preamble| {
            preamble[2..6].copy_from_slice(&(64_u32 << 10).to_le_bytes());
        });
        assert_eq!(probe.say(&frame[..PREAMBLE_LEN]).verdict(), "open");
        assert!(probe.session.rx_space().len() <= (64 << 10) + 4);
    });
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
fn silence_ends_in_a_timeout() {
    in_both_revisions(|probe| {
        probe.banner();
        let deadline = probe.session.poll_timeout().unwrap();
        probe.session.handle_timeout(deadline);
        let deadline = probe.session.poll_timeout().unwrap();
        assert_eq!(deadline, probe.now + Duration::from_secs(10));
        probe.session.handle_timeout(deadline - Duration::from_millis(1));
        assert!(!probe.session.is_closed());
        probe.session.handle_timeout(deadline);
        assert!(probe.session.is_closed());
        let timeout = Fault::ReadyTimeout(Duration::from_secs(10));
        assert_eq!(probe.session.last_fault(), Some(&timeout));
        assert_eq!(probe.session.stats().ready_timeouts, 1);
    });
    in_both_revisions(|probe| {
        let half = probe.ready().message(1, b"front");
        probe.say(&half[..50]);
        probe.session.handle_timeout(probe.now + Duration::from_secs(899));
        assert!(probe.session.is_ready());
        probe.session.handle_timeout(probe.now + Duration::from_secs(900));
        assert!(probe.session.is_closed());
        assert_eq!(probe.session.stats().idle_timeouts, 1);
    });
}

#[test]
fn an_aborted_message_never_happened() {
    for (revision, abort, garbage) in [(Revision::Rev0, 1, 6), (Revision::Rev1, 1, 7)] {
        let mut probe = probe(revision);
        let epilogue = if revision == Revision::Rev0 { 17 } else { 13 };
        let whole = probe.ready().message(1, b"front");
        let with_status = |status: u8| {
            let mut frame = whole.clone();
            let at = frame.len() - epilogue;
            frame[at] = status;
            frame
        };
        assert!(probe.say(&with_status(abort)).received.is_empty());
        assert_eq!(probe.session.stats().aborted_frames, 1);
        assert_eq!(probe.say(&whole).received.len(), 1, "the number was not used up");
        match revision {
            Revision::Rev0 => assert_eq!(probe.say(&with_status(garbage)).verdict(), "open"),
            Revision::Rev1 => assert_eq!(probe.say(&with_status(garbage)).verdict(), "late_status"),
        }
    }
}

#[test]
fn a_message_before_ready_is_refused_at_its_preamble() {
    for phase in 0..4 {
        in_both_revisions(|probe| {
            let frame = probe.message(1, b"front");
            match phase {
                0 => probe.banner(),
                1 => probe.banner().hello(),
                2 => probe.banner().hello().control(&Probe::auth_request()),
                _ => probe.signed(),
            };
            assert_eq!(probe.say(&frame[..PREAMBLE_LEN]).verdict(), "unexpected_tag");
        });
    }
}

#[test]
fn frames_out_of_place_are_refused() {
    let refused = |steps: &dyn Fn(&mut Probe)| {
        in_both_revisions(|probe| {
            steps(probe);
            assert_eq!(probe.verdict(), "unexpected_tag");
        });
    };
    let ident = |probe: &mut Probe| {
        let ident = probe.ident();
        probe.control(&ident);
    };
    refused(&|probe| {
        probe.signed().control(&keepalive());
    });
    refused(&|probe| {
        probe.signed().control(&Ack(0));
    });
    refused(&|probe| ident(probe.banner().hello()));
    refused(&|probe| ident(probe.banner().hello().control(&Probe::auth_request())));
    refused(&|probe| {
        probe.banner().hello().hello();
    });
    refused(&|probe| {
        probe.ready().control(&Probe::auth_request());
    });
    refused(&|probe| ident(probe.ready()));
    refused(&|probe| {
        probe.ready().hello();
    });
}

#[test]
fn tags_only_a_server_sends_are_refused_by_a_server() {
    let done = AuthDone { global_id: 1, mode: 1, payload: vec![] };
    let bad =
        AuthBadMethod { method: 1, result: -1, allowed_methods: vec![], allowed_modes: vec![] };
    let ident = ServerIdent {
        addrs: EntityAddrVec::default(),
        number: 1,
        global_seq: 1,
        supported: 0,
        required: 0,
        flags: 0,
        cookie: 0,
    };
    for which in 0..8 {
        in_both_revisions(|probe| {
            match which {
                0 => probe.signed().control(&ident),
                1 => probe.signed().control(&SessionRetry(1)),
                2 => probe.signed().control(&SessionReset { full: true }),
                3 => probe.signed().control(&SessionReconnectOk(1)),
                4 => probe.signed().control(&IdentMissingFeatures(1)),
                5 => probe.signed().control(&Wait),
                6 => probe.banner().hello().control(&done),
                _ => probe.banner().hello().control(&bad),
            };
            assert_eq!(probe.verdict(), "unexpected_tag");
        });
    }
}

#[test]
fn a_refused_method_leaves_another_try() {
    in_both_revisions(|probe| {
        let good = Probe::auth_request();
        let attempts = [
            (AuthRequest { method: 77, ..good.clone() }, -95),
            (AuthRequest { modes: vec![2], ..good.clone() }, -95),
            (AuthRequest { modes: vec![], ..good.clone() }, -95),
            (AuthRequest { payload: vec![], ..good.clone() }, -13),
        ];
        probe.banner().hello().frames();
        for (attempt, result) in attempts {
            let frames = probe.control(&attempt).frames();
            assert_eq!(frames[0].0, Tag::AuthBadMethod);
            let answer = AuthBadMethod::parse(&frames[0].1).unwrap();
            assert_eq!((answer.method, answer.result), (attempt.method, result));
            assert_eq!((answer.allowed_methods, answer.allowed_modes), (vec![1], vec![1]));
        }
        assert_eq!(probe.control(&good).tags(), [Tag::AuthDone, Tag::AuthSignature]);
        assert_eq!(probe.verdict(), "open");
    });
}

#[test]
fn endless_attempts_are_cut_off() {
    let mut probe = probe(Revision::Rev1);
    probe.banner().hello();
    let bad = AuthRequest { method: 77, ..Probe::auth_request() };
    for _ in 0..100 {
        probe.control(&bad);
    }
    assert_eq!(probe.verdict(), "handshake_too_long");
    assert!(probe.heard.len() < 8 << 10);
}

#[test]
fn a_wrong_signature_is_refused() {
    in_both_revisions(|probe| {
        probe.banner().hello().control(&Probe::auth_request());
        assert_eq!(probe.control(&AuthSignature([1; SIGNATURE_LEN])).verdict(), "signature");
    });
}

#[test]
fn idents_are_checked() {
    let verdict = |edit: fn(&mut ClientIdent)| {
        let mut probe = probe(Revision::Rev1);
        let mut ident = probe.signed().ident();
        edit(&mut ident);
        probe.control(&ident).verdict()
    };
    assert_eq!(verdict(|_| ()), "open");
    assert_eq!(verdict(|ident| ident.required |= 1 << 17), "open");
    assert_eq!(verdict(|ident| ident.target.nonce += 1), "wrong_target");
    assert_eq!(verdict(|ident| ident.addrs.0.clear()), "blank_addrs");
    assert_eq!(verdict(|ident| ident.addrs.0[0].socket = None), "blank_addrs");
}

#[test]
fn missing_features_leave_another_try() {
    in_both_revisions(|probe| {
        let good = probe.signed().ident();
        probe.frames();
        let bad = ClientIdent { supported: good.supported & !features::ADDR2, ..good.clone() };
        let frames = probe.control(&bad).frames();
        assert_eq!(frames[0].0, Tag::IdentMissingFeatures);
        assert_eq!(IdentMissingFeatures::parse(&frames[0].1).unwrap().0, features::ADDR2);
        assert_eq!(probe.control(&good).tags(), [Tag::ServerIdent]);
        assert!(probe.session.is_ready());
    });
}

#[test]
fn a_lossy_server_says_so_whatever_the_client_asks_for() {
    in_both_revisions(|probe| {
        let ident = ClientIdent { flags: 0, cookie: 99, ..probe.signed().ident() };
        let frames = probe.control(&ident).frames();
        let answer = ServerIdent::parse(&frames.last().unwrap().1).unwrap();
        assert_eq!((answer.flags, answer.cookie), (1, 0));
        assert_eq!(probe.session.peer().name.unwrap().to_string(), "client.4242");
    });
}

#[test]
fn the_server_introduces_itself_as_it_sees_the_client() {
    in_both_revisions(|probe| {
        let frames = probe.banner().frames();
        let hello = Hello::parse(&frames[0].1).unwrap();
        assert_eq!(hello.kind, EntityType::Osd);
        assert_eq!(hello.peer_addr.to_string(), "v2:10.0.0.9:5000/0");
    });
}

#[test]
fn message_headers_may_grow_but_not_shrink() {
    in_both_revisions(|probe| {
        let frame = probe.ready().raw_message(&[0; 40], [&[], &[], &[]]);
        assert_eq!(probe.say(&frame).verdict(), "payload");
    });
    in_both_revisions(|probe| {
        let mut head = [0; 60];
        head[0] = 1;
        let frame = probe.ready().raw_message(&head, [b"front", &[], &[]]);
        assert_eq!(probe.say(&frame).received.len(), 1);
    });
}

#[test]
fn numbers_may_jump_but_not_repeat() {
    in_both_revisions(|probe| {
        probe.ready();
        for seq in [41, 41, 7, 42] {
            let frame = probe.message(seq, b"x");
            probe.say(&frame);
        }
        let seqs: Vec<u64> = probe.received.iter().map(|message| message.header.seq).collect();
        assert_eq!(seqs, [41, 42]);
        assert_eq!(probe.session.stats().duplicates, 2);
        assert_eq!(probe.control(&keepalive()).tags(), [Tag::Keepalive2Ack], "it reads on");
    });
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
