//! Cases 5 to 16: frames, in a session and before there is one.

use std::time::Duration;

use crate::bytes::{Out, crc32c};
use crate::probe::{
    Manner, NONE, Probe, Role, at_a_server, before_authentication, everywhere, flawed, head,
    none_payload, stamp,
};
use crate::wire::{Flaw, Frame, Rev, tag};

const SECOND: Duration = Duration::from_secs(1);

/// What begins a 2 GiB segment.
const TWO_GIB: u32 = 0x7fff_ffff;

/// The most room for what a stranger says next: a quarter of what one may have us hold.
const STRANGERS_SHARE: usize = 16 << 10;

/// A control frame that is wrong ends the line with `kind`: in a session, in each role and manner,
/// and before authentication.
fn refused(kind: &str, change: impl Fn(&mut Frame<'_>)) {
    everywhere(|probe| {
        probe.ready().frame(&flawed(tag::KEEPALIVE2, &[&stamp()], &change)).is_closed_for(kind);
    });
    before_authentication(|probe| {
        probe.greet();
        while probe.hear().is_some() {} // a client's request
        let (tag, payload) = match probe.role {
            Role::Server => (tag::AUTH_REQUEST, vec![0; 12]),
            Role::Client => (tag::AUTH_REPLY_MORE, vec![0; 12]),
        };
        probe.frame(&flawed(tag, &[&payload], &change)).is_closed_for(kind);
    });
}

/// What `change` makes of a right message with the number 1.
fn flawed_message<'a>(sections: &[&[u8]], change: impl FnOnce(&mut Frame<'a>)) -> Frame<'a> {
    let head = head(1, 2);
    flawed(tag::MESSAGE, &[&[&head[..]], sections].concat(), change)
}

/// The same as [`refused`], of a message.
fn refused_message(kind: &str, sections: &[&[u8]], change: impl Fn(&mut Frame<'_>)) {
    everywhere(|probe| {
        probe.ready().frame(&flawed_message(sections, &change)).is_closed_for(kind);
        assert_eq!(probe.arrived(), []);
    });
}

/// In secure mode the tag of a frame is wrong before anything else is.
fn kind_of_crc(probe: &Probe) -> &'static str {
    if probe.manner.is_secure() { "not_authentic" } else { "segment_crc" }
}

#[test]
fn c05_a_wrong_checksum_of_a_preamble_closes() {
    refused("preamble_crc", |frame| frame.flaw = Some(Flaw::PreambleCrc));
}

#[test]
fn c05_a_checksum_of_a_preamble_that_begins_with_minus_one_closes() {
    refused("preamble_crc", |frame| frame.flaw = Some(Flaw::PreambleSeed));
}

#[test]
fn c06_a_wrong_checksum_or_tag_of_a_control_frame_closes() {
    everywhere(|probe| {
        let bad = flawed(tag::KEEPALIVE2, &[&stamp()], |frame| frame.flaw = Some(Flaw::FirstCrc));
        let kind = kind_of_crc(probe);
        probe.ready().frame(&bad).is_closed_for(kind);
    });
    before_authentication(|probe| {
        probe.greet();
        while probe.hear().is_some() {}
        let bad = flawed(tag::AUTH_REQUEST, &[&[0; 12]], |frame| {
            frame.flaw = Some(Flaw::FirstCrc);
        });
        probe.frame(&bad).is_closed_for("segment_crc");
    });
}

#[test]
fn c06_a_wrong_checksum_or_tag_behind_a_message_closes() {
    for sections in [&[&b"front"[..]][..], &[b"", b"", &[7; 5000]]] {
        everywhere(|probe| {
            let bad = flawed_message(sections, |frame| frame.flaw = Some(Flaw::LastCrc));
            let kind = kind_of_crc(probe);
            probe.ready().frame(&bad).is_closed_for(kind);
            assert_eq!(probe.arrived(), []);
        });
    }
}

#[test]
fn c07_no_segment_or_five_or_an_empty_last_one_close() {
    refused("segment_count", |frame| frame.edit = &|preamble| preamble[1] = 0);
    refused("segment_count", |frame| frame.edit = &|preamble| preamble[1] = 5);
    refused("segment_count", |frame| frame.edit = &|preamble| preamble[1] = 255);
    refused_message("segment_count", &[b"x"], |frame| frame.edit = &|preamble| preamble[1] = 0);
    refused_message("segment_count", &[b"x"], |frame| frame.edit = &|preamble| preamble[1] = 5);
    refused_message("last_segment_empty", &[b"x", b""], |_| ());
    refused_message("last_segment_empty", &[b""], |_| ());
}

#[test]
fn c08_unknown_tags_close_when_the_whole_frame_is_there() {
    for unknown in [0, 23, 99, 255] {
        refused("unknown_tag", |frame| frame.tag = unknown);
        everywhere(|probe| {
            let frame = Frame::new(unknown, &[&[0; 8]]);
            let bytes = probe.ready().wire.write(&frame);
            let (head, last) = bytes.split_at(bytes.len() - 1);
            probe.say(head).stays_open();
            probe.say(last).is_closed_for("unknown_tag");
        });
    }
}

#[test]
fn c08_compression_is_not_asked_for_unless_both_banners_offer_it() {
    at_a_server(|probe| {
        let request = Out::new().u8(0).u32(0).0;
        probe.sign().send(tag::COMPRESSION_REQUEST, &request).is_closed_for("unexpected_tag");
    });
}

/// The daemon of 18.2.7 dies of it.
#[test]
fn c08_a_compressed_frame_without_compression_closes() {
    refused("compressed", |frame| frame.edit = &|preamble| preamble[26] = 1);
    refused_message("compressed", &[b"x"], |frame| frame.edit = &|preamble| preamble[26] = 1);
}

#[test]
fn c09_zeros_for_checksums_close() {
    for (tag, segments) in
        [(tag::KEEPALIVE2, vec![stamp()]), (tag::MESSAGE, vec![head(1, 2), b"front".to_vec()])]
    {
        everywhere(|probe| {
            let segments: Vec<_> = segments.iter().map(|segment| &segment[..]).collect();
            let frame = flawed(tag, &segments, |frame| frame.flaw = Some(Flaw::NoCrcs));
            probe.ready().frame(&frame);
            match probe.manner.is_secure() {
                true => assert!(probe.is_open(), "there are none"),
                false => probe.is_closed_for("segment_crc"),
            }
        });
    }
}

#[test]
fn c09_zeros_for_checksums_pass_where_checking_is_off() {
    at_a_server(|probe| {
        probe.host().check_no_data();
        let mut probe = Probe::connect(&probe.host.clone(), probe.manner);
        let message = flawed_message(&[b"front"], |frame| frame.flaw = Some(Flaw::NoCrcs));
        probe.wire.crc_data = false;
        probe.ready().frame(&message);
        assert_eq!(probe.arrived(), [1]);
        probe.is_answered();
    });
}

#[test]
fn c10_alignments_are_hints() {
    for aligns in [[8; 4], [16, 64, 8, 4096], [1; 4], [3, 8, 8, 4096], [0; 4]] {
        everywhere(|probe| {
            let edit = |preamble: &mut [u8]| {
                for (at, align) in aligns.into_iter().enumerate() {
                    preamble[6 + 6 * at..8 + 6 * at].copy_from_slice(&u16::to_le_bytes(align));
                }
            };
            let segments: [&[u8]; 4] = [&head(1, 2), b"front", b"middle", &[5; 5000]];
            let mut frame = Frame::new(tag::MESSAGE, &segments);
            frame.edit = &edit;
            probe.ready().frame(&frame);
            assert_eq!(probe.arrived(), [1]);
            assert_eq!(probe.slot().received[0].data, [5; 5000][..]);
        });
    }
}

#[test]
fn c10_unused_descriptors_and_the_reserved_byte_are_ignored() {
    everywhere(|probe| {
        let edit = |preamble: &mut [u8]| {
            preamble[8..26].fill(0xde);
            preamble[27] = 0x5a;
        };
        let mut frame = Frame::new(tag::KEEPALIVE2, &[&stamp()]);
        frame.edit = &edit;
        probe.ready().frame(&frame);
        assert_eq!(probe.expect(tag::KEEPALIVE2_ACK), stamp());
        probe.is_answered();
    });
    before_authentication(|probe| {
        if probe.role == Role::Client {
            return;
        }
        let request = Out::new().u32(NONE).list(&[1]).blob(&none_payload()).0;
        let mut frame = Frame::new(tag::AUTH_REQUEST, &[&request]);
        frame.edit = &|preamble| preamble[27] = 0x5a;
        probe.greet().frame(&frame).expect(tag::AUTH_DONE);
    });
}

#[test]
fn c11_a_control_frame_may_grow_but_not_shrink() {
    everywhere(|probe| {
        let longer = Out(stamp()).raw(b"future").0;
        probe.ready().send(tag::KEEPALIVE2, &longer);
        assert_eq!(probe.expect(tag::KEEPALIVE2_ACK), stamp());
    });
    everywhere(|probe| probe.ready().send(tag::KEEPALIVE2, b"").is_closed_for("payload"));
    everywhere(|probe| {
        probe.ready().send(tag::KEEPALIVE2, &stamp()[..7]).is_closed_for("payload");
    });
}

/// Ceph decodes the last one.
#[test]
fn c11_a_control_frame_of_two_segments_closes() {
    everywhere(|probe| {
        let frame = Frame::new(tag::KEEPALIVE2, &[b"first!", &stamp()]);
        probe.ready().frame(&frame).is_closed_for("segment_count");
    });
}

#[test]
fn c12_an_empty_frame_is_read_without_a_checksum_and_closes_in_a_session() {
    everywhere(|probe| probe.ready().send(tag::WAIT, b"").is_closed_for("unexpected_tag"));
    let mut probe = Probe::new(Role::Server, Manner::PLAIN);
    let wait = probe.wire.write(&Frame::new(tag::WAIT, &[b""]));
    assert_eq!((wait.len(), crc32c(0, &wait[..28]).to_le_bytes()), (32, [0xc8, 0xe3, 0xaa, 0xb0]));
}

/// Announces so much in one segment, and says no more than what announces it.
fn announce(probe: &mut Probe, tag: u8, segments: &[&[u8]], at: usize, len: u32) {
    let edit = |preamble: &mut [u8]| {
        preamble[2 + 6 * at..6 + 6 * at].copy_from_slice(&len.to_le_bytes());
    };
    let mut frame = Frame::new(tag, segments);
    frame.edit = &edit;
    let bytes = probe.wire.write(&frame);
    let announcing = if probe.manner.is_secure() && probe.manner.rev == Rev::One { 96 } else { 32 };
    probe.say(&bytes[..announcing]);
}

/// Ceph waits for the bytes.
#[test]
fn c13_two_gigabytes_announced_close_before_anything_is_allocated() {
    everywhere(|probe| {
        announce(probe.ready(), tag::KEEPALIVE2, &[&stamp()], 0, TWO_GIB);
        probe.is_closed_for("segment_too_long");
    });
    before_authentication(|probe| {
        probe.greet();
        while probe.hear().is_some() {}
        announce(probe, tag::AUTH_REQUEST, &[&[0; 12]], 0, TWO_GIB);
        probe.is_closed_for("segment_too_long");
    });
    for at in 0..4 {
        everywhere(|probe| {
            let segments: [&[u8]; 4] = [&head(1, 2), b"front", b"middle", b"data"];
            announce(probe.ready(), tag::MESSAGE, &segments, at, TWO_GIB);
            probe.is_closed_for("segment_too_long");
        });
    }
}

#[test]
fn c13_our_limits_are_those_of_the_configuration() {
    for (at, limit) in [(0, 64 << 10), (1, 16 << 20), (2, 16 << 20), (3, 128 << 20)] {
        for (len, fits) in [(limit, true), (limit + 1, false)] {
            let mut probe = Probe::new(Role::Server, Manner::PLAIN);
            let segments: [&[u8]; 4] = [&head(1, 2), b"front", b"middle", b"data"];
            let tag = if at == 0 { tag::KEEPALIVE2 } else { tag::MESSAGE };
            announce(probe.ready(), tag, &segments[..if at == 0 { 1 } else { 4 }], at, len);
            match fits {
                true => probe.stays_open(),
                false => probe.is_closed_for("segment_too_long"),
            }
        }
    }
}

#[test]
fn c13_a_stranger_s_frame_gets_no_more_room_than_a_stranger_s_share() {
    before_authentication(|probe| {
        probe.greet();
        while probe.hear().is_some() {}
        let mut frame = Frame::new(tag::AUTH_REQUEST, &[&[0; 12]]);
        frame.edit = &|preamble| preamble[2..6].copy_from_slice(&15_000_u32.to_le_bytes());
        let bytes = probe.wire.write(&frame);
        probe.say(&bytes[..32]).stays_open();
        let line = probe.line;
        assert!(probe.host().room(line) <= STRANGERS_SHARE);
    });
}

/// Ceph waits for more than 40 seconds. We wait for the ready timeout, and nobody else notices.
#[test]
fn c14_who_stops_in_a_frame_or_says_nothing_is_closed_after_the_ready_timeout() {
    for half in [false, true] {
        let mut silent = Probe::new(Role::Server, Manner::PLAIN);
        if half {
            let request = silent.greet().wire.write(&Frame::new(tag::AUTH_REQUEST, &[&[0; 100]]));
            silent.say(&request[..20]);
        } else {
            silent.hear_banner();
        }
        let mut other = Probe::connect(&silent.host.clone(), Manner::PLAIN);
        other.me.nonce += 1;
        other.ready();
        silent.wait(10 * SECOND - Duration::from_millis(1));
        silent.stays_open();
        silent.wait(Duration::from_millis(1));
        silent.is_closed_for("ready_timeout");
        other.is_answered();
    }
}

#[test]
fn c14_who_stops_in_a_message_is_closed_after_the_idle_timeout() {
    everywhere(|probe| {
        probe.ready();
        let message = Frame::new(tag::MESSAGE, &[&head(1, 2), b"front", b"", &[1; 500]]);
        let bytes = probe.wire.write(&message);
        probe.say(&bytes[..bytes.len() - 1]);
        probe.wait(899 * SECOND);
        assert!(probe.is_open());
        probe.wait(SECOND);
        probe.is_closed_for("idle_timeout");
    });
}

/// A message whose late status is `status`.
fn with_status<'a>(status: u8) -> Frame<'a> {
    flawed_message(&[b"front"], |frame| frame.late = Some(status))
}

#[test]
fn c15_garbage_for_a_late_status_closes_or_counts_as_its_lowest_bit() {
    everywhere(|probe| {
        probe.ready().frame(&with_status(0x07));
        match probe.manner.rev {
            Rev::One => probe.is_closed_for("late_status"),
            Rev::Zero => {
                assert_eq!(probe.arrived(), []);
                probe.is_answered();
            }
        }
    });
    // What is reserved means nothing.
    everywhere(|probe| {
        let complete = if probe.manner.rev == Rev::One { 0xfe } else { 0xf0 };
        probe.ready().frame(&with_status(complete));
        assert_eq!(probe.arrived(), [1]);
    });
}

#[test]
fn c16_an_aborted_message_never_happened() {
    everywhere(|probe| {
        probe.ready().frame(&with_status(0x01)).stays_open();
        assert_eq!(probe.arrived(), []);
        assert_eq!(probe.slot().session.stats().aborted_frames, 1);
        probe.message(1, 2, &[b"front"]);
        assert_eq!(probe.arrived(), [1]);
        probe.is_answered();
    });
}

#[test]
fn c16_the_checksums_of_an_aborted_message_are_checked_all_the_same() {
    everywhere(|probe| {
        let mut aborted = with_status(0x01);
        aborted.flaw = Some(Flaw::LastCrc);
        let kind = kind_of_crc(probe);
        probe.ready().frame(&aborted).is_closed_for(kind);
    });
}
