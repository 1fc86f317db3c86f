//! Frames in secure mode: whole runs of segments under one authentication tag.
//!
//! ```text
//!   revision 1:  [ preamble | first 48 bytes of seg0 ]  [ rest of seg0 ]  [ seg1 seg2 seg3 | status ]
//!                  always 96 bytes with its tag           if longer         if more than one segment
//!   revision 0:  [ preamble | seg0 seg1 seg2 seg3 | flags ]
//! ```
//!
//! Each bracket is one GCM message with a nonce of its own and 16 bytes of tag behind it. Segments
//! are filled with zeros to a multiple of 16. There are no checksums but the preamble's.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::v2::keys::{OpeningKey, SealingKey, TAG_LEN};
use crate::v2::preamble::{PREAMBLE_LEN, Preamble, SEGMENTS_MAX};
use crate::v2::{Frame, Revision};

/// Segments are filled up to a multiple of this.
const BLOCK_LEN: usize = 16;
/// The status, filled up to a block.
const STATUS_LEN: usize = BLOCK_LEN;
/// Bytes of the first segment that travel with the preamble in revision 1.
const INLINE_LEN: usize = 48;
const HEAD_LEN: usize = PREAMBLE_LEN + INLINE_LEN;
/// A body up to this length is written behind its head; a longer one gets a buffer of its own.
const SHARED_LEN_MAX: usize = 2048;

/// Names of the pieces, for errors.
const HEAD: &str = "a frame's head";
const FIRST: &str = "a frame's first segment";
const BODY: &str = "a frame's body";

/// Bytes that a frame starts with: what must be there before its preamble can be read.
pub(super) fn head_len(revision: Revision) -> usize {
    match revision {
        Revision::Rev0 => PREAMBLE_LEN,
        Revision::Rev1 => HEAD_LEN + TAG_LEN,
    }
}

fn padded(len: u32) -> usize {
    (len as usize).next_multiple_of(BLOCK_LEN)
}

/// Bytes of segments as one run, with status and tag.
fn run_len(lens: &[u32]) -> usize {
    lens.iter().map(|len| padded(*len)).sum::<usize>() + STATUS_LEN + TAG_LEN
}

/// Bytes of the first segment that do not fit the head of revision 1, with their tag; or none.
fn first_rest_len(lens: &[u32]) -> usize {
    match padded(lens[0]).saturating_sub(INLINE_LEN) {
        0 => 0,
        rest => rest + TAG_LEN,
    }
}

/// Seals a frame whose first segment was written to `out` already, with room for the preamble at
/// `at` before it. What does not fit there is returned, to be sent behind `out`.
pub(super) fn seal(
    key: &mut SealingKey,
    preamble: &Preamble,
    at: usize,
    rest: [&[u8]; SEGMENTS_MAX - 1],
    out: &mut BytesMut,
) -> Result<Bytes, ProtocolError> {
    let lens = preamble.lens();
    out[at..at + PREAMBLE_LEN].copy_from_slice(&preamble.encode());
    fill(out, padded(lens[0]) - lens[0] as usize);
    let (start, body_len) = match key.revision() {
        Revision::Rev0 => (at, run_len(lens)),
        Revision::Rev1 => {
            seal_first(key, at, out)?;
            if lens.len() == 1 {
                return Ok(Bytes::new());
            }
            (out.len(), run_len(&lens[1..]))
        }
    };
    if body_len <= SHARED_LEN_MAX {
        seal_run(key, start, &rest[..lens.len() - 1], out)?;
        return Ok(Bytes::new());
    }
    let mut body = key.buffer(out.len() - start + body_len);
    body.put_slice(&out[start..]);
    out.truncate(start);
    seal_run(key, 0, &rest[..lens.len() - 1], &mut body)?;
    Ok(key.freeze(body))
}

/// Seals preamble and first segment of revision 1, which start at `at`.
fn seal_first(key: &mut SealingKey, at: usize, out: &mut BytesMut) -> Result<(), ProtocolError> {
    let head_end = at + HEAD_LEN;
    if out.len() <= head_end {
        fill(out, head_end - out.len());
        return key.seal(at, out);
    }
    let rest = Bytes::copy_from_slice(&out[head_end..]); // makes room for the head's tag
    out.truncate(head_end);
    key.seal(at, out)?;
    let start = out.len();
    out.put_slice(&rest);
    key.seal(start, out)
}

/// Appends segments and the status to `out` and seals it from `start` on.
fn seal_run(
    key: &mut SealingKey,
    start: usize,
    segments: &[&[u8]],
    out: &mut BytesMut,
) -> Result<(), ProtocolError> {
    for segment in segments {
        out.put_slice(segment);
        fill(out, segment.len().next_multiple_of(BLOCK_LEN) - segment.len());
    }
    out.put_u8(key.revision().complete());
    fill(out, STATUS_LEN - 1);
    key.seal(start, out)
}

fn fill(out: &mut BytesMut, zeros: usize) {
    out.put_bytes(0, zeros);
}

/// A frame whose head is open and whose other pieces arrive one by one.
#[derive(Debug)]
pub(super) struct Opening {
    preamble: Preamble,
    /// The head: sealed in revision 0, open in revision 1.
    head: Bytes,
    segments: [Bytes; SEGMENTS_MAX],
    next: Piece,
    aborted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// Revision 1: what did not fit the head.
    First,
    /// Revision 1: the other segments. Revision 0: everything behind the preamble.
    Body,
    Done,
}

impl Opening {
    /// Opens a frame's first [`head_len`] bytes.
    pub(super) fn new(key: &mut OpeningKey, head: Bytes) -> Result<Self, ProtocolError> {
        let revision = key.revision();
        let (preamble, head) = match revision {
            Revision::Rev0 => (key.peek(head[..].try_into().expect("a preamble's length")), head),
            Revision::Rev1 => {
                let mut open = BytesMut::zeroed(HEAD_LEN);
                key.open_into(&head, &mut open, HEAD)?;
                (*open.first_chunk().expect("longer than a preamble"), open.freeze())
            }
        };
        let preamble = Preamble::decode_compressed(&preamble)?;
        let mut segments = <[Bytes; SEGMENTS_MAX]>::default();
        let next = match revision {
            Revision::Rev0 => Piece::Body,
            Revision::Rev1 if first_rest_len(preamble.lens()) > 0 => Piece::First,
            Revision::Rev1 => {
                segments[0] = head.slice(PREAMBLE_LEN..PREAMBLE_LEN + preamble.lens()[0] as usize);
                Self::after_first(&preamble)
            }
        };
        Ok(Self { preamble, head, segments, next, aborted: false })
    }

    fn after_first(preamble: &Preamble) -> Piece {
        match preamble.lens().len() {
            1 => Piece::Done,
            _ => Piece::Body,
        }
    }

    pub(super) fn preamble(&self) -> &Preamble {
        &self.preamble
    }

    /// Bytes of the next piece, never zero; none when the frame is complete.
    pub(super) fn wants(&self, revision: Revision) -> Option<usize> {
        let lens = self.preamble.lens();
        match (self.next, revision) {
            (Piece::First, _) => Some(first_rest_len(lens)),
            (Piece::Body, Revision::Rev0) => Some(run_len(lens)),
            (Piece::Body, Revision::Rev1) => Some(run_len(&lens[1..])),
            (Piece::Done, _) => None,
        }
    }

    /// Takes the next piece, of exactly the length that [`Opening::wants`] tells.
    pub(super) fn push(&mut self, key: &mut OpeningKey, piece: Bytes) -> Result<(), ProtocolError> {
        debug_assert_eq!(self.wants(key.revision()), Some(piece.len()));
        match (self.next, key.revision()) {
            (Piece::First, _) => {
                let rest = key.open(piece, FIRST)?;
                let mut first = BytesMut::with_capacity(INLINE_LEN + rest.len());
                first.put_slice(&self.head[PREAMBLE_LEN..]);
                first.put_slice(&rest);
                first.truncate(self.preamble.lens()[0] as usize);
                self.segments[0] = first.freeze();
                self.next = Self::after_first(&self.preamble);
            }
            (Piece::Body, Revision::Rev0) => {
                // One tag covers all, and a preamble that came before the rest lies elsewhere.
                let mut whole = BytesMut::with_capacity(PREAMBLE_LEN + piece.len());
                whole.put_slice(&self.head);
                whole.put_slice(&piece);
                let mut body = key.open(whole.freeze(), BODY)?;
                let _preamble = body.split_to(PREAMBLE_LEN);
                self.take_run(0, body, Revision::Rev0)?;
            }
            (Piece::Body, Revision::Rev1) => {
                let body = key.open(piece, BODY)?;
                self.take_run(1, body, Revision::Rev1)?;
            }
            (Piece::Done, _) => {}
        }
        Ok(())
    }

    /// The frame, once nothing more is wanted.
    pub(super) fn finish(&mut self) -> Frame {
        debug_assert_eq!(self.next, Piece::Done);
        let segments = std::mem::take(&mut self.segments);
        Frame { tag: self.preamble.tag, segments, aborted: self.aborted }
    }

    /// Cuts an open run into segments, from the given one on, and reads the status behind them.
    fn take_run(
        &mut self,
        from: usize,
        mut run: Bytes,
        revision: Revision,
    ) -> Result<(), ProtocolError> {
        let lens = self.preamble.lens().iter().skip(from);
        for (segment, len) in self.segments.iter_mut().skip(from).zip(lens) {
            *segment = run.split_to(padded(*len));
            segment.truncate(*len as usize);
        }
        self.aborted = revision.is_aborted(self.preamble.tag, run[0])?;
        self.next = Piece::Done;
        Ok(())
    }
}
