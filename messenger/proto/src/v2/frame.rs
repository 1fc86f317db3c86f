//! Frames in crc mode: written whole, read piece by piece as their bytes arrive.
//!
//! ```text
//!   revision 1:  preamble | seg0, crc if not empty | seg1 seg2 seg3 | late status, 3 crc   (*)
//!   revision 0:  preamble | seg0                   | seg1 seg2 seg3 | late flags, 4 crc
//!                                                    (*) only with more than one segment
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::crc::{SEGMENT_SEED, crc32c};
use crate::denc::Writer;
use crate::error::ProtocolError;
use crate::v2::preamble::{PREAMBLE_LEN, Preamble, SEGMENTS_MAX};
use crate::v2::{Control, Tag};

const CRC_LEN: usize = 4;
const EPILOGUE_LEN_REV0: usize = 1 + SEGMENTS_MAX * CRC_LEN;
const EPILOGUE_LEN_REV1: usize = 1 + (SEGMENTS_MAX - 1) * CRC_LEN;
const REV0_ABORTED: u8 = 0x1;
const REV1_STATUS_MASK: u8 = 0xf;
const REV1_ABORTED: u8 = 0x1;
const REV1_COMPLETE: u8 = 0xe;

/// Version of the frame format, chosen by the banners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// msgr 2.0.
    Rev0,
    /// msgr 2.1.
    Rev1,
}

impl Revision {
    /// The epilogue's status of a frame that is complete.
    pub(super) fn complete(self) -> u8 {
        match self {
            Self::Rev0 => 0,
            Self::Rev1 => REV1_COMPLETE,
        }
    }

    /// Whether the epilogue's status says that the sender gave the frame up.
    pub(super) fn is_aborted(self, tag: u8, status: u8) -> Result<bool, ProtocolError> {
        match (self, status & REV1_STATUS_MASK) {
            (Self::Rev0, flags) => Ok(flags & REV0_ABORTED != 0),
            (Self::Rev1, REV1_COMPLETE) => Ok(false),
            (Self::Rev1, REV1_ABORTED) => Ok(true),
            (Self::Rev1, _) => Err(ProtocolError::LateStatus { tag, status }),
        }
    }
}

/// How the frames of a transport look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// The frame format.
    pub revision: Revision,
    /// Whether segment checksums are made and checked.
    pub crc_data: bool,
}

/// The end of a frame that was begun by [`Wire::begin`]; may be empty.
#[derive(Debug, Default)]
#[must_use]
pub struct Epilogue {
    bytes: [u8; EPILOGUE_LEN_REV0],
    len: usize,
}

const _: () = assert!(EPILOGUE_LEN_REV1 <= EPILOGUE_LEN_REV0);

impl Epilogue {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push<const N: usize>(&mut self, part: [u8; N]) {
        self.bytes[self.len..][..N].copy_from_slice(&part);
        self.len += N;
    }
}

impl Wire {
    /// Writes the start of a frame to `out`: its preamble and the first segment, which is what
    /// `first` writes. The caller sends `rest` behind it, then the epilogue.
    pub fn begin(
        &self,
        tag: Tag,
        first: impl FnOnce(&mut Writer<'_>),
        rest: [&[u8]; SEGMENTS_MAX - 1],
        out: &mut BytesMut,
    ) -> Epilogue {
        let at = out.len();
        out.put_bytes(0, PREAMBLE_LEN);
        first(&mut Writer::new(out));
        let preamble = Preamble::of(tag, out.len() - at - PREAMBLE_LEN, rest);
        self.begin_written(&preamble, at, rest, out)
    }

    /// The same for a first segment that was written already, with room for `preamble` at `at`
    /// before it.
    #[inline] // into `begin`, which is the hot path
    pub(super) fn begin_written(
        &self,
        preamble: &Preamble,
        at: usize,
        rest: [&[u8]; SEGMENTS_MAX - 1],
        out: &mut BytesMut,
    ) -> Epilogue {
        out[at..at + PREAMBLE_LEN].copy_from_slice(&preamble.encode());
        self.add_checksums(preamble, at, rest, out)
    }

    /// The same behind a preamble that was written, too.
    #[inline]
    pub(super) fn add_checksums(
        &self,
        preamble: &Preamble,
        at: usize,
        rest: [&[u8]; SEGMENTS_MAX - 1],
        out: &mut BytesMut,
    ) -> Epilogue {
        let first_at = at + PREAMBLE_LEN;
        let counted = preamble.lens().len();
        let mut rest_crcs = [0; SEGMENTS_MAX - 1];
        if self.crc_data {
            for (crc, segment) in rest_crcs.iter_mut().zip(rest).take(counted - 1) {
                *crc = crc32c(SEGMENT_SEED, segment);
            }
        }
        let first_crc = crc32c(SEGMENT_SEED, &out[first_at..]);
        let mut epilogue = Epilogue::default();
        match self.revision {
            Revision::Rev0 => {
                epilogue.push([self.revision.complete()]);
                epilogue.push(if self.crc_data { first_crc } else { 0 }.to_le_bytes());
                rest_crcs.into_iter().for_each(|crc| epilogue.push(crc.to_le_bytes()));
            }
            Revision::Rev1 => {
                // Short as the first segment is, its checksum does not depend on `crc_data`.
                if preamble.lens()[0] > 0 {
                    out.put_u32_le(first_crc);
                }
                if counted > 1 {
                    epilogue.push([self.revision.complete()]);
                    rest_crcs.into_iter().for_each(|crc| epilogue.push(crc.to_le_bytes()));
                }
            }
        }
        epilogue
    }

    /// Writes a whole control frame to `out`.
    pub fn control<C: Control>(&self, payload: &C, out: &mut BytesMut) {
        let epilogue = self.begin(C::TAG, |writer| payload.encode(writer), [&[]; 3], out);
        out.put_slice(epilogue.as_bytes());
    }

    fn epilogue_len(&self, segments: usize) -> usize {
        match self.revision {
            Revision::Rev0 => EPILOGUE_LEN_REV0,
            Revision::Rev1 if segments > 1 => EPILOGUE_LEN_REV1,
            Revision::Rev1 => 0,
        }
    }
}

/// A whole frame, its checksums verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is; perhaps a tag we do not know.
    pub tag: u8,
    /// Its segments; those not counted are empty.
    pub segments: [Bytes; SEGMENTS_MAX],
    /// Its sender gave it up half way: ignore it.
    pub aborted: bool,
}

/// A frame whose preamble is known and whose other bytes arrive piece by piece.
#[derive(Debug)]
pub struct Assembly {
    wire: Wire,
    preamble: Preamble,
    segments: [Bytes; SEGMENTS_MAX],
    crcs: [u32; SEGMENTS_MAX],
    /// Index of the piece to come: a segment, or the epilogue behind the last one.
    next: usize,
    aborted: bool,
}

impl Assembly {
    /// Starts behind the preamble, which is for the caller to check against its limits.
    pub fn new(wire: Wire, preamble: Preamble) -> Self {
        let mut assembly = Self {
            wire,
            preamble,
            segments: Default::default(),
            crcs: [SEGMENT_SEED; SEGMENTS_MAX],
            next: 0,
            aborted: false,
        };
        assembly.skip_empty();
        assembly
    }

    /// One that has no frame to read yet.
    pub(super) fn idle(wire: Wire) -> Self {
        Self { next: SEGMENTS_MAX + 1, ..Self::new(wire, Preamble::new(Tag::Wait, [0; 4])) }
    }

    /// Starts again where it is, behind the preamble of the next frame. Cheaper than a new one.
    #[inline]
    pub(super) fn restart(&mut self, wire: Wire, preamble: Preamble) {
        (self.wire, self.preamble) = (wire, preamble);
        self.crcs = [SEGMENT_SEED; SEGMENTS_MAX];
        (self.next, self.aborted) = (0, false);
        self.skip_empty();
    }

    /// The frame's preamble.
    #[inline]
    pub fn preamble(&self) -> &Preamble {
        &self.preamble
    }

    /// Bytes of the next piece, never zero; none when the frame is complete.
    pub fn wants(&self) -> Option<usize> {
        (self.next <= self.preamble.lens().len()).then(|| self.piece_len(self.next))
    }

    /// The first segment, while the given other one is the next piece.
    pub fn head_before(&self, segment: usize) -> Option<&[u8]> {
        let is_next = self.next == segment && segment < self.preamble.lens().len();
        is_next.then(|| &self.segments[0][..])
    }

    /// Takes the next piece, of exactly the length that [`Assembly::wants`] tells.
    pub fn push(&mut self, mut piece: Bytes) -> Result<(), ProtocolError> {
        let index = self.next;
        self.check_next(&piece)?;
        if let Some(len) = self.preamble.lens().get(index) {
            piece.truncate(*len as usize);
            self.segments[index] = piece;
        }
        Ok(())
    }

    /// Lengths of the first segment and of the others.
    pub(crate) fn lens(&self) -> (usize, [usize; SEGMENTS_MAX - 1]) {
        let [first, rest @ ..] = self.preamble.all_lens();
        (first, rest)
    }

    /// Where the second segment is in the body: behind the first one and its checksum.
    pub(crate) fn rest_at(&self) -> usize {
        self.piece_len(0)
    }

    /// Bytes of all pieces together.
    pub(crate) fn body_len(&self) -> usize {
        (0..=self.preamble.lens().len()).map(|piece| self.piece_len(piece)).sum()
    }

    /// Checks all pieces at once, for a caller who has them all and keeps them: `body` is what
    /// follows the preamble. Whether the sender gave the frame up.
    pub(crate) fn check(&mut self, mut body: &[u8]) -> Result<bool, ProtocolError> {
        while let Some(len) = self.wants() {
            let (piece, rest) = body.split_at(len);
            self.check_next(piece)?;
            body = rest;
        }
        Ok(self.aborted)
    }

    /// Checks the next piece as far as it can be told by now.
    #[inline]
    fn check_next(&mut self, piece: &[u8]) -> Result<(), ProtocolError> {
        debug_assert_eq!(self.wants(), Some(piece.len()));
        if let Some(len) = self.preamble.lens().get(self.next) {
            let (segment, crc) = piece.split_at(*len as usize);
            if self.wire.crc_data {
                self.crcs[self.next] = crc32c(SEGMENT_SEED, segment);
            }
            if let Ok(crc) = <[u8; CRC_LEN]>::try_from(crc) {
                self.check_crc(self.next, crc)?;
            }
        } else {
            self.check_epilogue(piece)?;
        }
        self.next += 1;
        self.skip_empty();
        Ok(())
    }

    /// The frame, once nothing more is wanted.
    pub fn finish(&mut self) -> Frame {
        debug_assert_eq!(self.wants(), None);
        let segments = std::mem::take(&mut self.segments);
        Frame { tag: self.preamble.tag, segments, aborted: self.aborted }
    }

    fn piece_len(&self, piece: usize) -> usize {
        let Some(len) = self.preamble.lens().get(piece) else {
            return self.wire.epilogue_len(self.preamble.lens().len());
        };
        match *len as usize {
            0 => 0,
            len if piece == 0 && self.wire.revision == Revision::Rev1 => len + CRC_LEN,
            len => len,
        }
    }

    fn skip_empty(&mut self) {
        while self.wants() == Some(0) {
            self.next += 1;
        }
    }

    fn check_crc(&self, segment: usize, got: [u8; CRC_LEN]) -> Result<(), ProtocolError> {
        let (expected, got) = (self.crcs[segment], u32::from_le_bytes(got));
        if self.wire.crc_data && got != expected {
            return Err(ProtocolError::SegmentCrc {
                tag: self.preamble.tag,
                segment,
                expected,
                got,
            });
        }
        Ok(())
    }

    fn check_epilogue(&mut self, epilogue: &[u8]) -> Result<(), ProtocolError> {
        let (status, crcs) = epilogue.split_first().expect("an epilogue is never empty");
        let first = match self.wire.revision {
            Revision::Rev0 => 0,
            Revision::Rev1 => 1,
        };
        let counted = self.preamble.lens().len();
        let (crcs, _) = crcs.as_chunks::<CRC_LEN>();
        for (segment, crc) in (first..counted).zip(crcs) {
            self.check_crc(segment, *crc)?;
        }
        self.aborted = self.wire.revision.is_aborted(self.preamble.tag, *status)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wire: Wire, segments: [&[u8]; SEGMENTS_MAX]) -> BytesMut {
        let mut out = BytesMut::new();
        let [first, rest @ ..] = segments;
        let epilogue = wire.begin(Tag::Message, |writer| writer.bytes(first), rest, &mut out);
        rest.iter().for_each(|segment| out.put_slice(segment));
        out.put_slice(epilogue.as_bytes());
        out
    }

    fn read(wire: Wire, mut bytes: Bytes) -> Result<Frame, ProtocolError> {
        let preamble = Preamble::decode(bytes.split_to(PREAMBLE_LEN)[..].try_into().unwrap())?;
        let mut assembly = Assembly::new(wire, preamble);
        while let Some(len) = assembly.wants() {
            assembly.push(bytes.split_to(len))?;
        }
        assert!(bytes.is_empty());
        Ok(assembly.finish())
    }

    #[test]
    fn frames_of_all_shapes_survive_a_round_trip() {
        let bytes = [7; 303];
        for revision in [Revision::Rev0, Revision::Rev1] {
            for crc_data in [false, true] {
                let wire = Wire { revision, crc_data };
                for shape in 0..32 {
                    let pick = |bit: usize, len: usize| &bytes[..len * (shape >> bit & 1)];
                    let header = &bytes[..[0, 1, 48, 49][shape & 3]];
                    let segments = [header, pick(2, 101), pick(3, 202), pick(4, 303)];
                    let frame = read(wire, written(wire, segments).freeze()).unwrap();
                    assert_eq!(frame.segments, segments.map(Bytes::copy_from_slice));
                    assert!(!frame.aborted);
                }
            }
        }
    }

    #[test]
    fn lengths_on_the_wire_are_the_format_s() {
        let len = |revision, segments| written(Wire { revision, crc_data: true }, segments).len();
        let short: [&[u8]; 4] = [&[0; 41], &[], &[], &[]];
        let long: [&[u8]; 4] = [&[0; 41], &[0; 5], &[], &[0; 6]];
        assert_eq!(len(Revision::Rev1, short), 32 + 41 + 4);
        assert_eq!(len(Revision::Rev1, long), 32 + 41 + 4 + 11 + 13);
        assert_eq!(len(Revision::Rev0, short), 32 + 41 + 17);
        assert_eq!(len(Revision::Rev0, long), 32 + 41 + 11 + 17);
        assert_eq!(len(Revision::Rev1, [&[], &[], &[], &[]]), 32);
    }

    #[test]
    fn every_single_bit_flip_behind_the_preamble_is_caught_or_harmless() {
        for revision in [Revision::Rev0, Revision::Rev1] {
            let wire = Wire { revision, crc_data: true };
            let good = written(wire, [b"header", b"front", b"", b"data"]);
            let frame = read(wire, good.clone().freeze()).unwrap();
            for bit in PREAMBLE_LEN * 8..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                if let Ok(other) = read(wire, bad.freeze()) {
                    // Only the status byte has bits that mean nothing.
                    assert_eq!(other.segments, frame.segments);
                }
            }
        }
    }

    #[test]
    fn an_aborted_frame_says_so_and_garbage_is_an_error() {
        let wire = Wire { revision: Revision::Rev1, crc_data: true };
        let good = written(wire, [b"h", b"front", b"", b""]);
        let status_at = good.len() - EPILOGUE_LEN_REV1;
        let with_status = |status: u8| {
            let mut frame = good.clone();
            frame[status_at] = status;
            read(wire, frame.freeze())
        };
        assert!(with_status(0x01).unwrap().aborted);
        assert!(with_status(0xf1).unwrap().aborted);
        assert!(!with_status(0x7e).unwrap().aborted);
        let refused = ProtocolError::LateStatus { tag: 17, status: 0x02 };
        assert_eq!(with_status(0x02), Err(refused));
    }
}
