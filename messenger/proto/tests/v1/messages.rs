//! Messages and shorter items: round trips, and everything that can be wrong with one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use messenger_proto::auth::cephx::MessageSigner;
use messenger_proto::auth::secret::Key;
use messenger_proto::v1::footer::{LONG_LEN, SHORT_LEN};
use messenger_proto::v1::header::HEADER_LEN;
use messenger_proto::v1::{Decoder, Encoder, Item, V1Error, Wire};
use messenger_proto::v2::Utime;
use messenger_proto::{Limits, Message, ProtocolError};

use crate::stream::{CLIENT, decoder, message, read, read_one, sections, written};

const LONG: Wire = Wire { long_footer: true, crc_data: true };
const SHORT: Wire = Wire { long_footer: false, crc_data: true };
const WIRES: [Wire; 4] =
    [LONG, SHORT, Wire { crc_data: false, ..LONG }, Wire { crc_data: false, ..SHORT }];
const SHAPES: [[usize; 3]; 6] =
    [[0, 0, 0], [5, 0, 0], [0, 7, 0], [0, 0, 6], [5, 0, 6], [300, 2, 70_000]];

fn signer(byte: u8) -> MessageSigner {
    MessageSigner::new(&Key::new([byte; 16], Duration::ZERO))
}

fn signing(wire: Wire) -> Encoder {
    let mut encoder = Encoder::new(wire);
    encoder.sign(signer(1));
    encoder
}

/// One message after the other, then one reading of it.
fn is_as_sent(got: &Message, sent: &Message) {
    assert_eq!((got.header, got.source), (sent.header, Some(CLIENT)));
    assert_eq!(sections(got), sections(sent));
}

#[test]
fn messages_of_every_shape_survive_a_round_trip() {
    for wire in WIRES {
        for signed in [false, true] {
            if signed && !wire.long_footer {
                continue;
            }
            let encoder = if signed { signing(wire) } else { Encoder::new(wire) };
            let mut decoder = decoder(wire, signed.then(|| signer(1)));
            for shape in SHAPES {
                let sent = message(shape);
                let bytes = written(&encoder, &sent);
                let footer_len = if wire.long_footer { LONG_LEN } else { SHORT_LEN };
                assert_eq!(bytes.len(), 1 + HEADER_LEN + sent.payload_len() + footer_len);
                is_as_sent(&read_one(&mut decoder, bytes.freeze()).unwrap(), &sent);
            }
        }
    }
}

#[test]
fn sections_are_handed_on_without_a_copy() {
    let sent = message([300, 20, 5000]);
    let mut head = BytesMut::new();
    let parts = [&sent.front, &sent.middle, &sent.data];
    let tail = Encoder::new(LONG).message(&sent.header, CLIENT, parts, &mut head);
    assert_eq!(head.len(), 1 + HEADER_LEN);
    assert_eq!(tail.sections.each_ref().map(|part| part.as_ptr()), parts.map(|part| part.as_ptr()));

    tail.copy_to(&mut head);
    let wire = head.freeze();
    let got = read_one(&mut decoder(LONG, None), wire.clone()).unwrap();
    assert_eq!(got.front.as_ptr(), wire[1 + HEADER_LEN..].as_ptr());
    assert_eq!(got.data.as_ptr(), wire[1 + HEADER_LEN + 320..].as_ptr());
}

#[test]
fn shorter_items_survive_a_round_trip_between_messages() {
    let (encoder, mut out) = (Encoder::new(LONG), BytesMut::new());
    let stamp = Utime { seconds: 1, nanoseconds: 2 };
    encoder.ack(u64::MAX, &mut out);
    encoder.keepalive(&mut out);
    out.extend_from_slice(&written(&encoder, &message([1, 2, 3])));
    encoder.keepalive2(stamp, &mut out);
    encoder.keepalive2_ack(stamp, &mut out);
    encoder.close(&mut out);
    encoder.ack(1, &mut out);
    let mut decoder = decoder(LONG, None);
    let (items, left) = read(&mut decoder, out.freeze()).unwrap();
    let [first, second, Item::Message(third), rest @ ..] = &items[..] else {
        panic!("{items:?}");
    };
    is_as_sent(third, &message([1, 2, 3]));
    assert!(matches!((first, second), (Item::Ack(u64::MAX), Item::Keepalive)));
    let [Item::Keepalive2(asked), Item::Keepalive2Ack(answered), Item::Close] = rest else {
        panic!("{rest:?}");
    };
    assert_eq!((*asked, *answered), (stamp, stamp));
    assert_eq!((decoder.wants(), left), (None, 9), "nothing is read behind the end");
}

#[test]
fn a_message_is_announced_before_anything_is_asked_for_its_sections() {
    let sent = message([5, 0, 600]);
    let mut wire = written(&Encoder::new(LONG), &sent).freeze();
    let mut decoder = decoder(LONG, None);
    assert!(decoder.push(wire.split_to(1)).unwrap().is_none());
    let Some(Item::Announced(header)) = decoder.push(wire.split_to(HEADER_LEN)).unwrap() else {
        panic!("not announced");
    };
    assert_eq!((header.message, header.source), (sent.header, CLIENT));
    assert_eq!((header.lens, header.payload_len()), ([5, 0, 600], 605));
    assert_eq!((decoder.wants(), decoder.announces_data()), (Some(5), None));
    assert!(decoder.push(wire.split_to(5)).unwrap().is_none());
    assert_eq!((decoder.wants(), decoder.announces_data()), (Some(600), Some(&sent.header)));
    assert!(decoder.push(wire.split_to(600)).unwrap().is_none());
    assert_eq!((decoder.wants(), decoder.announces_data()), (Some(LONG_LEN), None));
}

#[test]
fn a_section_beyond_its_limit_is_refused_before_it_is_asked_for() {
    let limits = Limits { front_len: 5, middle_len: 6, data_len: 7, ..Limits::default() };
    let read = |lens| {
        let mut decoder = Decoder::new(LONG, limits);
        let result = read_one(&mut decoder, written(&Encoder::new(LONG), &message(lens)).freeze());
        assert!(result.is_ok() || decoder.wants().is_none());
        result.map(|message| message.payload_len())
    };
    assert_eq!(read([5, 6, 7]), Ok(18));
    let refused = |section, len, limit| Err(V1Error::SectionTooLong { section, len, limit });
    assert_eq!(read([6, 6, 7]), refused("front", 6, 5));
    assert_eq!(read([5, 7, 7]), refused("middle", 7, 6));
    assert_eq!(read([5, 6, 8]), refused("data", 8, 7));
}

#[test]
fn a_message_cut_at_any_byte_is_never_complete() {
    for wire in WIRES {
        let good = written(&Encoder::new(wire), &message([5, 3, 6])).freeze();
        for len in 0..good.len() {
            let mut decoder = decoder(wire, None);
            let (items, _) = read(&mut decoder, good.slice(..len)).unwrap();
            assert!(items.is_empty() && decoder.wants().is_some(), "{len} bytes of {wire:?}");
        }
    }
}

/// What reading a message makes of each single bit that is not as written.
fn flipped(good: &Bytes, decoder: &dyn Fn() -> Decoder) -> Vec<(usize, Result<(), V1Error>)> {
    let flip = |bit: usize| {
        let mut bad = BytesMut::from(&good[..]);
        bad[bit / 8] ^= 1 << (bit % 8);
        let read = read(&mut decoder(), bad.freeze());
        (bit, read.map(|(items, _)| assert!(items.iter().all(is_message_or_short))))
    };
    (8..good.len() * 8).map(flip).collect()
}

fn is_message_or_short(item: &Item) -> bool {
    !matches!(item, Item::Announced(_))
}

#[test]
fn every_bit_of_a_message_is_checked_but_some_of_its_flags_and_an_unused_signature() {
    for wire in [LONG, SHORT] {
        let good = written(&Encoder::new(wire), &message([5, 3, 6])).freeze();
        let crcs_end = good.len() - (if wire.long_footer { 8 } else { 0 }) - 1;
        let flags_at = good.len() - 1;
        for (bit, result) in flipped(&good, &|| decoder(wire, None)) {
            let kind = result.map_err(|error| error.kind());
            let expected = match bit / 8 {
                ..=HEADER_LEN => Err("v1_header_crc"),
                at if at < crcs_end => Err("v1_section_crc"),
                at if at < flags_at => Ok(()), // a signature that nobody made
                _ if bit % 8 == 0 => Err("v1_aborted"),
                _ => Ok(()),
            };
            assert_eq!(kind, expected, "bit {bit}");
        }
    }
}

#[test]
fn every_bit_of_a_signed_message_is_checked_but_flags_that_mean_nothing() {
    let good = written(&signing(LONG), &message([5, 3, 6])).freeze();
    let footer_at = good.len() - LONG_LEN;
    let signature_at = good.len() - 1 - 8;
    for (bit, result) in flipped(&good, &|| decoder(LONG, Some(signer(1)))) {
        let kind = result.map_err(|error| error.kind());
        let expected = match bit / 8 {
            ..=HEADER_LEN => Err("v1_header_crc"),
            at if at < footer_at => Err("v1_section_crc"),
            at if at < signature_at => Err("v1_section_crc"),
            at if at < good.len() - 1 => Err("v1_signature"),
            _ if bit % 8 == 0 => Err("v1_aborted"),
            _ if bit % 8 == 2 => Err("v1_signature"),
            _ => Ok(()),
        };
        assert_eq!(kind, expected, "bit {bit}");
    }
}

#[test]
fn a_signature_is_demanded_of_the_key_s_owner_alone() {
    let sent = message([5, 0, 6]);
    let read = |encoder: &Encoder, key: Option<u8>| {
        let mut decoder = decoder(LONG, key.map(signer));
        read_one(&mut decoder, written(encoder, &sent).freeze()).map(drop)
    };
    let refused = Err(V1Error::Signature { seq: sent.header.seq });
    assert_eq!(read(&signing(LONG), Some(1)), Ok(()));
    assert_eq!(read(&signing(LONG), Some(2)), refused);
    assert_eq!(read(&Encoder::new(LONG), Some(1)), refused);
    assert_eq!(read(&signing(LONG), None), Ok(()), "who has no key cannot look");
}

#[test]
fn checksums_of_data_may_be_left_out_by_either_side() {
    let sent = message([5, 3, 600]);
    let without = Wire { crc_data: false, ..LONG };
    for (writer, reader) in [(without, LONG), (LONG, without), (without, without)] {
        let good = written(&Encoder::new(writer), &sent);
        let data_at = good.len() - LONG_LEN - 600;
        let read = |at: usize| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            read_one(&mut decoder(reader, None), bad.freeze()).map(drop)
        };
        assert_eq!(read(data_at), Ok(()), "nobody looks");
        assert_eq!(read(data_at - 1).unwrap_err().kind(), "v1_section_crc", "middle");
        assert_eq!(read(data_at - 4).unwrap_err().kind(), "v1_section_crc", "front");
    }
}

#[test]
fn somebody_on_the_way_cannot_say_that_signed_data_has_no_checksum() {
    let mut changed = written(&signing(LONG), &message([5, 0, 6]));
    let flags_at = changed.len() - 1;
    changed[flags_at] |= 2;
    let mut reader = decoder(LONG, Some(signer(1)));
    assert!(read_one(&mut reader, changed.clone().freeze()).is_ok());
    changed[flags_at - LONG_LEN] ^= 1; // the last byte of data
    let error = read_one(&mut reader, changed.freeze()).unwrap_err();
    assert_eq!(error.kind(), "v1_section_crc");

    let without = Wire { crc_data: false, ..LONG };
    let honest = written(&signing(without), &message([5, 0, 6])).freeze();
    assert!(read_one(&mut decoder(LONG, Some(signer(1))), honest).is_ok());
}

#[test]
fn a_tag_without_meaning_ends_the_transport() {
    for tag in (0..=u8::MAX).filter(|tag| ![6, 7, 8, 9, 14, 15].contains(tag)) {
        let mut decoder = decoder(LONG, None);
        let error = read(&mut decoder, Bytes::from(vec![tag])).unwrap_err();
        assert_eq!((error.clone(), decoder.wants()), (V1Error::UnknownTag { tag }, None));
        assert_eq!(ProtocolError::from(error).kind(), "v1_unknown_tag");
    }
}

#[test]
#[should_panic(expected = "no room for a signature")]
fn a_short_footer_cannot_be_signed() {
    Encoder::new(SHORT).sign(signer(1));
}
