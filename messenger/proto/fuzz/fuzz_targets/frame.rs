//! Frames from arbitrary bytes: the preamble's checksum is made right half of the time, or the
//! fuzzer would hardly ever see what is behind it. What decodes must encode to the same frame.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use messenger_proto::crc::{PREAMBLE_SEED, crc32c};
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{Assembly, Preamble, Revision, Tag, Wire};

const LEN_MAX: u32 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let Some((head, body)) = input.split_first_chunk::<PREAMBLE_LEN>() else {
        return;
    };
    let revision = if choice & 1 == 0 { Revision::Rev0 } else { Revision::Rev1 };
    let wire = Wire { revision, crc_data: choice & 2 != 0 };
    let mut head = *head;
    if choice & 4 != 0 {
        let sum = crc32c(PREAMBLE_SEED, &head[..PREAMBLE_LEN - 4]);
        head[PREAMBLE_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(preamble) = Preamble::decode(&head) else {
        return;
    };
    if preamble.check_lens(&[LEN_MAX; 4]).is_err() {
        return;
    }
    let mut assembly = Assembly::new(wire, preamble);
    let mut body = Bytes::copy_from_slice(body);
    while let Some(len) = assembly.wants() {
        assert!(len > 0 && len <= LEN_MAX as usize + 4);
        if body.len() < len {
            return;
        }
        if assembly.push(body.split_to(len)).is_err() {
            return;
        }
    }
    let frame = assembly.finish();
    let Some(tag) = Tag::from_wire(frame.tag) else {
        return;
    };
    let [first, rest @ ..] = &frame.segments;
    let rest = [&rest[0][..], &rest[1][..], &rest[2][..]];
    let mut out = BytesMut::new();
    let epilogue = wire.begin(tag, |writer| writer.bytes(first), rest, &mut out);
    rest.iter().for_each(|segment| out.extend_from_slice(segment));
    out.extend_from_slice(epilogue.as_bytes());

    let mut again = out.freeze();
    let preamble: [u8; PREAMBLE_LEN] = again.split_to(PREAMBLE_LEN)[..].try_into().unwrap();
    let mut assembly = Assembly::new(wire, Preamble::decode(&preamble).unwrap());
    while let Some(len) = assembly.wants() {
        assembly.push(again.split_to(len)).unwrap();
    }
    assert!(again.is_empty());
    assert_eq!(assembly.finish().segments, frame.segments);
});
