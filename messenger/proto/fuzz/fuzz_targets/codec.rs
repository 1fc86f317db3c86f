//! Secure and compressed frames from arbitrary bytes. In crc mode the preamble's checksum is made
//! right, so that packed segments of the fuzzer's own making reach the decompressors. In secure mode
//! its bytes damage a frame that was sealed properly: whatever was changed, it is refused.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use messenger_proto::ProtocolError;
use messenger_proto::crc::{PREAMBLE_SEED, crc32c};
use messenger_proto::v2::compression::RATIO_MAX;
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{
    Compression, ConnectionSecret, Decoder, Encoder, Frame, Method, Revision, Role, Tag, Wire,
};

const LIMITS: [u32; 4] = [1 << 16; 4];

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let revision = if choice & 1 == 0 { Revision::Rev0 } else { Revision::Rev1 };
    let method = Method::ALL[usize::from(choice >> 1 & 3)];
    match choice & 8 {
        0 => unpack(revision, method, input),
        _ => damage(revision, method, input),
    }
});

/// A frame with the compressed flag in crc mode, checksums not looked at.
fn unpack(revision: Revision, method: Method, input: &[u8]) {
    let mut bytes = BytesMut::from(input);
    let Some((head, _)) = bytes.split_first_chunk_mut::<PREAMBLE_LEN>() else {
        return;
    };
    let sum = crc32c(PREAMBLE_SEED, &head[..PREAMBLE_LEN - 4]);
    head[PREAMBLE_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    let mut decoder = Decoder::new(Wire { revision, crc_data: false });
    decoder.decompress(Some(Compression { method, min_size: 0 }));
    if let Some(Ok(frame)) = read(&mut decoder, bytes.freeze()) {
        for segment in &frame.segments {
            assert!(
                segment.len() <= LIMITS[0] as usize && segment.len() <= input.len() * RATIO_MAX
            );
        }
    }
}

/// A frame sealed around the input, then changed where the input says.
fn damage(revision: Revision, method: Method, input: &[u8]) {
    let Some((&[at_low, at_high, flip, cut], input)) = input.split_first_chunk::<4>() else {
        return;
    };
    let secret = ConnectionSecret::new(&std::array::from_fn::<u8, 64, _>(|at| at as u8)).unwrap();
    let wire = Wire { revision, crc_data: true };
    let (mut encoder, mut decoder) = (Encoder::new(wire), Decoder::new(wire));
    encoder.secure(secret.keys(Role::Client, revision).unwrap().0);
    decoder.secure(secret.keys(Role::Server, revision).unwrap().1);
    let compression = Some(Compression { method, min_size: 64 });
    encoder.compress(compression);
    decoder.decompress(compression);

    let input = Bytes::copy_from_slice(input);
    let (first, rest) = (input.slice(..usize::from(cut).min(input.len())), input.len() / 2);
    let (front, data) = (input.slice(..rest), input.slice(rest..));
    let mut out = BytesMut::new();
    let write = |writer: &mut messenger_proto::denc::Writer<'_>| writer.bytes(&first);
    let tail = encoder.begin(Tag::Message, write, [&front, &Bytes::new(), &data], &mut out);
    tail.unwrap().copy_to(&mut out);
    let at = usize::from(u16::from_le_bytes([at_low, at_high])) % out.len();
    out[at] ^= flip;
    match read(&mut decoder, out.freeze()) {
        Some(Ok(frame)) => {
            assert_eq!(flip, 0, "a changed frame passed");
            assert_eq!(frame.segments, [first, front, Bytes::new(), data]);
        }
        Some(Err(error)) => assert_ne!(flip, 0, "{error}"),
        None => panic!("an authentic length was not there"),
    }
}

/// The frame at the start of `bytes`; nothing if it ends too early or is longer than it may be.
fn read(decoder: &mut Decoder, mut bytes: Bytes) -> Option<Result<Frame, ProtocolError>> {
    let mut take = |len| (bytes.len() >= len).then(|| bytes.split_to(len));
    let head = take(decoder.head_len())?;
    let preamble = match decoder.begin(head) {
        Ok(preamble) => preamble,
        Err(error) => return Some(Err(error)),
    };
    preamble.check_lens(&LIMITS).ok()?;
    while let Some(len) = decoder.wants() {
        assert!(len > 0);
        if let Err(error) = decoder.push(take(len)?) {
            return Some(Err(error));
        }
    }
    Some(decoder.finish(&LIMITS))
}
