//! The first 32 bytes of a frame, the same in every revision and mode.
//!
//! ```text
//!   0 tag  1 segments  2.. four of { u32 length, u16 alignment }  26 flags  27 reserved  28 u32 crc
//! ```
//! Lengths count payload only: no checksums, no padding. Alignments are hints for a receiver's buffers; ours
//! ignores them.

use crate::crc::{PREAMBLE_SEED, crc32c};
use crate::error::ProtocolError;
use crate::v2::Tag;

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 32;
/// Most segments of a frame.
pub const SEGMENTS_MAX: usize = 4;
/// Alignments of the segments of every frame; Ceph's page-aligned data comes last.
pub const ALIGNMENTS: [u16; SEGMENTS_MAX] = [8, 8, 8, 4096];

const SEGMENT_DESC_LEN: usize = 4 + 2; // length, alignment
const SEGMENTS_AT: usize = 2;
const FLAGS_AT: usize = SEGMENTS_AT + SEGMENTS_MAX * SEGMENT_DESC_LEN;
const CRC_AT: usize = PREAMBLE_LEN - 4;
const _: () = assert!(FLAGS_AT + 2 == CRC_AT);
const FLAG_COMPRESSED: u8 = 1;

/// A preamble whose checksum and segment count are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// What the frame is; perhaps a tag we do not know.
    pub tag: u8,
    /// The segments are compressed: lengths are those of the compressed bytes.
    pub compressed: bool,
    count: u8,
    lens: [u32; SEGMENTS_MAX],
}

impl Preamble {
    /// The preamble of a frame with these segment lengths. Trailing empty segments are not
    /// counted, but a frame has at least one.
    pub fn new(tag: Tag, lens: [u32; SEGMENTS_MAX]) -> Self {
        let last = lens.iter().rposition(|len| *len != 0).unwrap_or(0);
        Self { tag: tag.to_wire(), compressed: false, count: last as u8 + 1, lens }
    }

    /// The preamble of a frame whose first segment has `first_len` bytes.
    #[inline]
    pub(super) fn of(tag: Tag, first_len: usize, rest: [&[u8]; SEGMENTS_MAX - 1]) -> Self {
        let lens = [first_len, rest[0].len(), rest[1].len(), rest[2].len()];
        Self::new(tag, lens.map(|len| u32::try_from(len).expect("segments fit the send limits")))
    }

    /// Lengths of the counted segments: one to four, the last of several not zero.
    pub fn lens(&self) -> &[u32] {
        &self.lens[..self.count.into()]
    }

    /// Lengths of all segments; those not counted are empty.
    pub(super) fn all_lens(&self) -> [usize; SEGMENTS_MAX] {
        self.lens.map(|len| len as usize)
    }

    /// Reads a preamble where compression was not agreed on.
    pub fn decode(wire: &[u8; PREAMBLE_LEN]) -> Result<Self, ProtocolError> {
        let preamble = Self::decode_compressed(wire)?;
        match preamble.compressed {
            true => Err(ProtocolError::Compressed { tag: preamble.tag }),
            false => Ok(preamble),
        }
    }

    /// Reads a preamble, of a compressed frame perhaps, and makes the checks that need nothing
    /// else, in Ceph's order.
    pub fn decode_compressed(wire: &[u8; PREAMBLE_LEN]) -> Result<Self, ProtocolError> {
        let (head, crc) = wire.split_at(CRC_AT);
        let expected = crc32c(PREAMBLE_SEED, head);
        let got = u32::from_le_bytes([crc[0], crc[1], crc[2], crc[3]]);
        if got != expected {
            return Err(ProtocolError::PreambleCrc { expected, got });
        }
        let (tag, count) = (head[0], head[1]);
        let most = if tag == Tag::Message.to_wire() { SEGMENTS_MAX } else { 1 };
        if !(1..=most).contains(&count.into()) {
            return Err(ProtocolError::SegmentCount { tag, count });
        }
        let mut lens = [0; SEGMENTS_MAX];
        let descs = head[SEGMENTS_AT..FLAGS_AT].chunks_exact(SEGMENT_DESC_LEN);
        for (len, desc) in lens.iter_mut().zip(descs).take(count.into()) {
            *len = u32::from_le_bytes([desc[0], desc[1], desc[2], desc[3]]);
        }
        if count > 1 && lens[usize::from(count) - 1] == 0 {
            return Err(ProtocolError::LastSegmentEmpty { tag });
        }
        let compressed = head[FLAGS_AT] & FLAG_COMPRESSED != 0;
        Ok(Self { tag, compressed, count, lens })
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        let mut out = [0; PREAMBLE_LEN];
        out[0] = self.tag;
        out[1] = self.count;
        let descs = out[SEGMENTS_AT..FLAGS_AT].chunks_exact_mut(SEGMENT_DESC_LEN);
        for ((desc, len), alignment) in descs.zip(self.lens()).zip(ALIGNMENTS) {
            desc[..4].copy_from_slice(&len.to_le_bytes());
            desc[4..].copy_from_slice(&alignment.to_le_bytes());
        }
        out[FLAGS_AT] = if self.compressed { FLAG_COMPRESSED } else { 0 };
        let crc = crc32c(PREAMBLE_SEED, &out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Refuses a segment longer than its limit, before anybody allocates for it.
    pub fn check_lens(&self, limits: &[u32; SEGMENTS_MAX]) -> Result<(), ProtocolError> {
        let too_long = self.lens().iter().zip(limits).position(|(len, limit)| len > limit);
        let Some(segment) = too_long else {
            return Ok(());
        };
        let (len, limit) = (self.lens[segment], limits[segment]);
        Err(ProtocolError::SegmentTooLong { tag: self.tag, segment, len, limit })
    }

    /// Bytes behind the first segment: what byte budgets count (contract T-1).
    pub fn payload_len(&self) -> u64 {
        self.lens().iter().skip(1).map(|len| u64::from(*len)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(mut wire: [u8; PREAMBLE_LEN]) -> [u8; PREAMBLE_LEN] {
        let crc = crc32c(PREAMBLE_SEED, &wire[..CRC_AT]);
        wire[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        wire
    }

    #[test]
    fn trailing_empty_segments_are_not_counted() {
        assert_eq!(Preamble::new(Tag::Message, [41, 0, 0, 0]).lens(), [41]);
        assert_eq!(Preamble::new(Tag::Message, [41, 0, 0, 5]).lens(), [41, 0, 0, 5]);
        assert_eq!(Preamble::new(Tag::Wait, [0; 4]).lens(), [0]);
    }

    #[test]
    fn each_malformed_field_has_its_error() {
        let good = Preamble::new(Tag::Message, [41, 5, 0, 6]);
        let decode = |edit: fn(&mut [u8; PREAMBLE_LEN])| {
            let mut wire = good.encode();
            edit(&mut wire);
            Preamble::decode(&sealed(wire))
        };
        assert_eq!(decode(|_| ()), Ok(good));
        assert_eq!(decode(|w| w[27] = 0xff), Ok(good), "reserved");
        assert_eq!(decode(|w| w[6..8].fill(7)), Ok(good), "alignment");
        let tag = Tag::Message.to_wire();
        assert_eq!(decode(|w| w[1] = 0), Err(ProtocolError::SegmentCount { tag, count: 0 }));
        assert_eq!(decode(|w| w[1] = 5), Err(ProtocolError::SegmentCount { tag, count: 5 }));
        assert_eq!(decode(|w| w[1] = 3), Err(ProtocolError::LastSegmentEmpty { tag }));
        assert_eq!(decode(|w| w[26] = 1), Err(ProtocolError::Compressed { tag }));
        let compressed = Preamble { compressed: true, ..good };
        assert_eq!(Preamble::decode_compressed(&compressed.encode()), Ok(compressed));
        assert!(matches!(decode(|w| w[0] = 18), Err(ProtocolError::SegmentCount { tag: 18, .. })));
    }

    #[test]
    fn every_single_bit_flip_is_caught() {
        let good = Preamble::new(Tag::Message, [41, 5, 0, 6]).encode();
        for bit in 0..PREAMBLE_LEN * 8 {
            let mut wire = good;
            wire[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Preamble::decode(&wire), Err(ProtocolError::PreambleCrc { .. })));
        }
    }

    #[test]
    fn a_limit_names_the_segment_that_breaks_it() {
        let preamble = Preamble::new(Tag::Message, [41, 5, 0, 1 << 31]);
        assert_eq!(preamble.check_lens(&[41, 5, 0, 1 << 31]), Ok(()));
        let refused = preamble.check_lens(&[41, 5, 0, 100]).unwrap_err();
        let (tag, segment, len, limit) = (17, 3, 1 << 31, 100);
        assert_eq!(refused, ProtocolError::SegmentTooLong { tag, segment, len, limit });
    }
}
