//! Bytes on their way to a transport: frames as a list of pieces, payloads by reference unless they
//! are short.
//!
//! ```text
//!   pieces:  Own 150 | Shared 4096 | Own 13 + 150 + 13
//!   own:     [ 150 .............   |   13 + 150 + 13  ]    sent from its front, written at its end
//! ```

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use bytes::{Buf, Bytes, BytesMut};

/// Most slices of one gather list.
pub const GATHER_MAX: usize = 64;

/// Room for headers, epilogues and short payloads to begin with.
const OWN_LEN: usize = 8192;

/// Payloads up to this length are copied: that costs less than their share in reference counts
/// and in slices, of which a gather list has few.
const COPIED_LEN_MAX: usize = 512;

/// Bytes to send, in order, for one vectored write.
//
// No array of slices, which is a kilobyte to fill and to move; and no destructor, so that its borrow
// of the session ends with its last use and `transmitted` may be called while it is in scope.
#[derive(Debug, Clone, Copy)]
pub struct Gather<'a> {
    pieces: &'a VecDeque<Piece>,
    own: &'a [u8],
    len: usize,
}

impl<'a> Gather<'a> {
    /// The slices; at least one, none of them empty.
    pub fn slices(&self) -> ArrayVec<IoSlice<'a>, GATHER_MAX> {
        let mut slices = ArrayVec::new();
        let (mut own, mut left) = (self.own, self.len);
        for piece in self.pieces {
            if left == 0 {
                break;
            }
            let bytes = match piece {
                Piece::Own(len) => own.split_off(..*len).expect("all pieces of it are in it"),
                Piece::Shared(bytes) => &bytes[..],
            };
            let bytes = &bytes[..bytes.len().min(left)];
            left -= bytes.len();
            slices.push(IoSlice::new(bytes));
        }
        slices
    }

    /// Sum of the slices' lengths; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a gather list is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    /// What was written here and is not sent, all pieces of it.
    own: BytesMut,
    len: usize,
}

/// Bytes of one slice; never none.
#[derive(Debug)]
enum Piece {
    /// So many, the next ones of the outbox's own.
    Own(usize),
    /// A long payload.
    Shared(Bytes),
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Own(len) => *len,
            Self::Shared(bytes) => bytes.len(),
        }
    }
}

impl Outbox {
    /// Bytes not sent yet.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Slices a gather list would have by now.
    pub(super) fn slices(&self) -> usize {
        self.pieces.len()
    }

    /// Appends what `write` writes.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        if self.own.capacity() == 0 {
            self.own.reserve(OWN_LEN);
        }
        let before = self.own.len();
        let result = write(&mut self.own);
        let written = self.own.len() - before;
        self.len += written;
        match self.pieces.back_mut() {
            _ if written == 0 => {}
            Some(Piece::Own(len)) => *len += written,
            _ => self.pieces.push_back(Piece::Own(written)),
        }
        result
    }

    /// Appends a payload, by reference if it is long.
    #[inline]
    pub(super) fn push(&mut self, payload: &Bytes) {
        match payload.len() {
            0 => {}
            1..=COPIED_LEN_MAX => self.write(|out| out.extend_from_slice(payload)),
            len => {
                self.len += len;
                self.pieces.push_back(Piece::Shared(payload.clone()));
            }
        }
    }

    /// The first slices, `most` bytes of them at the most.
    pub(super) fn gather(&self, most: usize) -> Option<Gather<'_>> {
        let len = match self.pieces.len() {
            0..=GATHER_MAX => self.len,
            _ => self.pieces.iter().take(GATHER_MAX).map(Piece::len).sum(),
        };
        let len = len.min(most);
        (len > 0).then_some(Gather { pieces: &self.pieces, own: &self.own, len })
    }

    /// The transport took the first `len` bytes.
    pub(super) fn sent(&mut self, mut len: usize) {
        assert!(len <= self.len, "the transport took more than it was given");
        self.len -= len;
        while len > 0 {
            let front = self.pieces.front_mut().expect("unsent bytes are in pieces");
            let taken = front.len().min(len);
            let is_whole = taken == front.len();
            match front {
                Piece::Own(left) => {
                    *left -= taken;
                    self.own.advance(taken);
                }
                Piece::Shared(bytes) => bytes.advance(taken),
            }
            if is_whole {
                self.pieces.pop_front();
            }
            len -= taken;
        }
    }

    /// Gives up room that holds nothing.
    pub(super) fn release_if_idle(&mut self) {
        if self.len == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    #[test]
    fn bytes_leave_in_order_whatever_the_transport_takes() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for count in 0..200_u8 {
            outbox.write(|out| out.put_bytes(count, 40));
            let payload = vec![count; 7 * usize::from(count)];
            outbox.push(&Bytes::from(payload.clone()));
            expected.extend([&[count; 40][..], &payload].concat());
        }
        assert_eq!(outbox.len(), expected.len());
        let mut sent = Vec::new();
        for take in (1..).map(|turn| turn * 37 % 1000) {
            let Some(gather) = outbox.gather(usize::MAX) else { break };
            let joined: Vec<u8> =
                gather.slices().iter().flat_map(|slice| slice.iter().copied()).collect();
            assert_eq!(joined.len(), gather.len());
            let take = take.min(joined.len());
            sent.extend_from_slice(&joined[..take]);
            outbox.sent(take);
        }
        assert_eq!((sent, outbox.len()), (expected, 0));
    }

    #[test]
    fn the_end_of_one_frame_and_the_start_of_the_next_share_a_slice() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.write(|out| out.put_slice(b"head"));
            outbox.push(&Bytes::from_static(&[7; COPIED_LEN_MAX + 1]));
            outbox.write(|out| out.put_slice(b"tail"));
        }
        assert_eq!(outbox.gather(usize::MAX).unwrap().slices().len(), 7);
    }

    #[test]
    fn short_payloads_add_no_slices_and_long_ones_are_not_copied() {
        let mut outbox = Outbox::default();
        let (short, long) = (Bytes::from(vec![1; 64]), Bytes::from(vec![2; 1000]));
        for _ in 0..20 {
            outbox.write(|out| out.put_slice(b"head"));
            outbox.push(&short);
        }
        outbox.push(&long);
        let gather = outbox.gather(usize::MAX).unwrap();
        assert_eq!(gather.slices().len(), 2);
        assert!(std::ptr::eq(&gather.slices()[1][..], &long[..]));
    }

    #[test]
    fn what_was_sent_makes_room_for_what_is_written() {
        let mut outbox = Outbox::default();
        outbox.write(|out| out.put_bytes(0, 100));
        let capacity = outbox.own.capacity();
        for count in 0..=u8::MAX {
            outbox.write(|out| out.put_bytes(count, 100));
            assert_eq!(outbox.gather(usize::MAX).unwrap().len(), 200);
            outbox.sent(100);
        }
        assert!(outbox.own.capacity() <= capacity, "{} bytes", outbox.own.capacity());
        outbox.release_if_idle();
        assert_ne!(outbox.own.capacity(), 0, "it holds something");
        outbox.sent(100);
        outbox.release_if_idle();
        assert_eq!(outbox.own.capacity(), 0);
    }
}
