//! One frame from an encoder to a decoder, in the pieces that a transport has.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use messenger_proto::ProtocolError;
use messenger_proto::v2::preamble::SEGMENTS_MAX;
use messenger_proto::v2::{Decoder, Encoder, Tag};

/// Longer than any segment of a benchmark.
const LIMITS: [u32; SEGMENTS_MAX] = [8 << 20; SEGMENTS_MAX];
/// Room for what a frame has beside its big pieces.
const SCRATCH_LEN: usize = 4096;

/// Writes a message with this head and these sections, and reads it again. `out` serves frame after
/// frame.
pub(crate) fn pass(
    encoder: &mut Encoder,
    decoder: &mut Decoder,
    head: &[u8],
    sections: [&Bytes; SEGMENTS_MAX - 1],
    out: &mut BytesMut,
) -> Result<(), ProtocolError> {
    out.reserve(SCRATCH_LEN);
    let tail = encoder.begin(Tag::Message, |writer| writer.bytes(head), sections, out)?;
    // Big pieces are in a buffer of their own.
    let epilogue = Bytes::copy_from_slice(tail.epilogue.as_bytes());
    let mut chunks = [out.split().freeze()].into_iter().chain(tail.sections).chain([epilogue]);
    let mut current = Bytes::new();
    let mut take = |len| {
        while current.is_empty() {
            current = chunks.next().expect("a frame's bytes are all there");
        }
        current.split_to(len)
    };
    decoder.begin(take(decoder.head_len()))?;
    while let Some(len) = decoder.wants() {
        decoder.push(take(len))?;
    }
    black_box(decoder.finish(&LIMITS)?);
    Ok(())
}
