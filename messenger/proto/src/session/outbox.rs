//! Bytes on their way to a transport: frames as a list of chunks, payloads by reference.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Most slices of one gather list.
pub const GATHER_MAX: usize = 64;

/// Room asked for at a time for headers and epilogues; given back and used again once sent.
const SCRATCH_LEN: usize = 4096;

/// Bytes to send, in order, as slices for one vectored write.
//
// An array and a count rather than an `ArrayVec`: without a destructor its borrow of the session
// ends with its last use, so that `transmitted` may be called while it is still in scope.
#[derive(Debug)]
pub struct Gather<'a> {
    slices: [IoSlice<'a>; GATHER_MAX],
    count: usize,
    len: usize,
}

impl<'a> Gather<'a> {
    /// The slices; at least one, none of them empty.
    pub fn slices(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.count]
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
        if self.scratch.capacity() - self.scratch.len() < SCRATCH_LEN / 8 {
            self.scratch.reserve(SCRATCH_LEN);
        }
        let before = self.scratch.len();
        let result = write(&mut self.scratch);
        self.len += self.scratch.len() - before;
        result
    }

    /// Appends a payload by reference.
    pub(super) fn push(&mut self, payload: Bytes) {
        if payload.is_empty() {
            return;
        }
        self.seal();
        self.len += payload.len();
        self.chunks.push_back(payload);
    }

    /// The first slices, `most` bytes of them at the most.
    pub(super) fn gather(&mut self, most: usize) -> Option<Gather<'_>> {
        self.seal();
        let mut slices = [IoSlice::new(&[]); GATHER_MAX];
        let (mut count, mut len) = (0, 0);
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let chunk = &chunk[..chunk.len().min(most - len)];
            if chunk.is_empty() {
                break;
            }
            *slice = IoSlice::new(chunk);
            count += 1;
            len += chunk.len();
        }
        (len > 0).then_some(Gather { slices, count, len })
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
            outbox.push(Bytes::from(vec![count; usize::from(count)]));
            expected.extend(vec![count; 40 + usize::from(count)]);
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
            outbox.push(Bytes::from_static(b"payload"));
            outbox.write(|out| out.put_slice(b"tail"));
        }
        assert_eq!(outbox.gather(usize::MAX).unwrap().slices().len(), 7);
    }
}
