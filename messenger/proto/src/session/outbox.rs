//! Bytes on their way to a transport: frames as a list of chunks, payloads by reference unless they
//! are short.

use std::collections::VecDeque;
use std::io::IoSlice;

use arrayvec::ArrayVec;
use bytes::{Buf, Bytes, BytesMut};

/// Most slices of one gather list.
pub const GATHER_MAX: usize = 64;

/// Room asked for at a time for headers, epilogues and short payloads; given back and used again
/// once sent.
const SCRATCH_LEN: usize = 8192;

/// Payloads up to this length are copied: that costs less than their share in reference counts
/// and in slices, of which a gather list has few.
const COPIED_LEN_MAX: usize = SCRATCH_LEN / 16;

/// Bytes to send, in order, for one vectored write.
//
// No array of slices, which is a kilobyte to fill and to move; and no destructor, so that its borrow
// of the session ends with its last use and `transmitted` may be called while it is in scope.
#[derive(Debug, Clone, Copy)]
pub struct Gather<'a> {
    chunks: &'a VecDeque<Bytes>,
    len: usize,
}

impl<'a> Gather<'a> {
    /// The slices; at least one, none of them empty.
    pub fn slices(&self) -> ArrayVec<IoSlice<'a>, GATHER_MAX> {
        let mut slices = ArrayVec::new();
        let mut left = self.len;
        for chunk in self.chunks {
            if left == 0 {
                break;
            }
            let chunk = &chunk[..chunk.len().min(left)];
            left -= chunk.len();
            slices.push(IoSlice::new(chunk));
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
    chunks: VecDeque<Bytes>,
    /// What follows the chunks: the end of one frame and the start of the next share a slice.
    scratch: BytesMut,
    len: usize,
}

impl Outbox {
    /// Bytes not sent yet.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Slices a gather list would have by now.
    pub(super) fn slices(&self) -> usize {
        self.chunks.len() + usize::from(!self.scratch.is_empty())
    }

    /// Appends what `write` writes.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        if self.scratch.capacity() - self.scratch.len() < COPIED_LEN_MAX {
            self.seal(); // what was written stays where it is
            self.scratch.reserve(SCRATCH_LEN);
        }
        let before = self.scratch.len();
        let result = write(&mut self.scratch);
        self.len += self.scratch.len() - before;
        result
    }

    /// Appends a payload, by reference if it is long.
    #[inline]
    pub(super) fn push(&mut self, payload: &Bytes) {
        match payload.len() {
            0 => {}
            1..=COPIED_LEN_MAX => self.write(|out| out.extend_from_slice(payload)),
            len => {
                self.seal();
                self.len += len;
                self.chunks.push_back(payload.clone());
            }
        }
    }

    /// The first slices, `most` bytes of them at the most.
    pub(super) fn gather(&mut self, most: usize) -> Option<Gather<'_>> {
        self.seal();
        let len = match self.chunks.len() {
            0..=GATHER_MAX => self.len,
            _ => self.chunks.iter().take(GATHER_MAX).map(Bytes::len).sum(),
        };
        let len = len.min(most);
        (len > 0).then_some(Gather { chunks: &self.chunks, len })
    }

    /// The transport took the first `len` bytes.
    pub(super) fn sent(&mut self, mut len: usize) {
        assert!(len <= self.len, "the transport took more than it was given");
        self.len -= len;
        while len > 0 {
            let front = self.chunks.front_mut().expect("unsent bytes are in chunks");
            if front.len() > len {
                front.advance(len);
                return;
            }
            len -= front.len();
            self.chunks.pop_front();
        }
    }

    fn seal(&mut self) {
        if !self.scratch.is_empty() {
            self.chunks.push_back(self.scratch.split().freeze());
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
    fn no_slice_of_what_is_written_is_longer_than_its_buffer() {
        let mut outbox = Outbox::default();
        for count in 0..=u8::MAX {
            outbox.write(|out| out.put_bytes(count, 100));
        }
        let gather = outbox.gather(usize::MAX).unwrap();
        assert!(gather.slices().iter().all(|slice| slice.len() <= 2 * SCRATCH_LEN));
        let slices = gather.slices();
        let bytes = slices.iter().flat_map(|slice| slice.iter());
        assert!(bytes.enumerate().all(|(at, byte)| usize::from(*byte) == at / 100));
    }
}
