//! Where a transport's bytes land: read ahead for small things, straight into place for big ones.
//!
//! ```text
//!        consumed (handed out)   |   filled   |     free      |
//!   ahead:  [piece][piece][piece] piece to co. ...............    one buffer, cut from the front
//!   large:                        [filled.......|free........]    exactly one big piece
//! ```
//!
//! The reader above asks for the next piece by its length until it gets it. Pieces leave as slices
//! of the read-ahead buffer without a copy; a piece that does not fit there gets a buffer of its
//! own, so that only its head, which was read ahead, is copied. No buffer exists while nothing
//! arrives.

use bytes::{Buf, Bytes, BytesMut};

/// Free room worth a read; with less, the unfinished piece moves to a fresh buffer.
const READ_MIN: usize = 512;
/// Room offered behind a large piece: enough for a frame's small parts, so that the next large
/// piece is not read ahead and then copied.
const AFTER_LARGE: usize = 1024;

#[derive(Debug)]
pub(super) struct Inbox {
    ahead_len: usize,
    /// All of it is initialised; what was handed out is cut off.
    ahead: BytesMut,
    /// Bytes of `ahead` that hold data.
    filled: usize,
    /// The end of the buffer before, for when nobody uses the rest of it any more.
    before: BytesMut,
    /// Length of the piece asked for.
    wanted: usize,
    large: Option<Large>,
    /// The frame being read has a large piece.
    has_large: bool,
    /// It, or the one before it, has: another one is likely to follow.
    expects_large: bool,
}

#[derive(Debug)]
struct Large {
    bytes: BytesMut,
    filled: usize,
}

impl Inbox {
    pub(super) fn new(ahead_len: usize) -> Self {
        Self {
            ahead_len: ahead_len.max(2 * READ_MIN),
            ahead: BytesMut::new(),
            filled: 0,
            before: BytesMut::new(),
            wanted: 0,
            large: None,
            has_large: false,
            expects_large: false,
        }
    }

    /// From now on so much is read ahead, no less than before.
    pub(super) fn set_ahead_len(&mut self, ahead_len: usize) {
        self.ahead_len = self.ahead_len.max(ahead_len);
    }

    /// Where the transport puts its next bytes; never empty.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.large.is_none() {
            self.make_room();
        }
        match &mut self.large {
            Some(large) => &mut large.bytes[large.filled..],
            None => {
                let offered = if self.expects_large { AFTER_LARGE } else { self.ahead_len };
                let end = self.ahead.len().min(self.filled.max(self.wanted) + offered);
                &mut self.ahead[self.filled..end]
            }
        }
    }

    /// The transport put `len` bytes there.
    pub(super) fn received(&mut self, len: usize) {
        let (filled, room) = match &mut self.large {
            Some(large) => (&mut large.filled, large.bytes.len()),
            None => (&mut self.filled, self.ahead.len()),
        };
        *filled += len;
        assert!(*filled <= room, "the transport wrote beyond the space it was given");
    }

    /// The first `len` bytes, if they are all there; they stay for whoever takes them.
    pub(super) fn peek(&mut self, len: usize) -> Option<&[u8]> {
        self.wanted = len;
        (self.filled >= len).then(|| &self.ahead[..len])
    }

    /// The bytes at hand, as far as they were read ahead.
    #[inline]
    pub(super) fn at_hand(&self) -> &[u8] {
        match self.large {
            None => &self.ahead[..self.filled],
            Some(_) => &[],
        }
    }

    /// Leaves out the first `len` of the bytes at hand: nobody keeps them.
    #[inline]
    pub(super) fn skip(&mut self, len: usize) {
        self.ahead.advance(len);
        self.filled -= len;
        self.wanted = 0;
    }

    /// Cuts the first `len` off the bytes at hand.
    #[inline]
    pub(super) fn cut(&mut self, len: usize) -> Bytes {
        if len == 0 {
            return Bytes::new();
        }
        self.filled -= len;
        self.wanted = 0;
        self.ahead.split_to(len).freeze()
    }

    /// The next `len` bytes, if they are all there. Until they are, ask for the same piece again.
    pub(super) fn take(&mut self, len: usize) -> Option<Bytes> {
        self.wanted = len;
        if let Some(large) = self.large.take_if(|large| large.filled == large.bytes.len()) {
            (self.has_large, self.expects_large) = (true, true);
            return Some(large.bytes.freeze());
        }
        if self.large.is_some() {
            return None;
        }
        if self.filled >= len {
            return Some(self.cut(len));
        }
        if len > self.ahead.len() && len > self.ahead_len / 2 {
            self.place(BytesMut::zeroed(len));
        }
        None
    }

    /// Has the piece asked for, of `buffer`'s length, land there.
    pub(super) fn place(&mut self, mut buffer: BytesMut) {
        let ahead = self.filled.min(buffer.len());
        buffer[..ahead].copy_from_slice(&self.ahead[..ahead]);
        self.large = Some(Large { bytes: buffer, filled: ahead });
        self.ahead.advance(ahead);
        self.filled -= ahead;
    }

    /// Whether a piece has a buffer of its own already.
    pub(super) fn is_placed(&self) -> bool {
        self.large.is_some()
    }

    /// Takes out the buffer of an unfinished piece.
    pub(super) fn displace(&mut self) -> Option<BytesMut> {
        self.large.take().map(|large| large.bytes)
    }

    /// The last piece of a frame was taken.
    pub(super) fn end_frame(&mut self) {
        self.expects_large = std::mem::take(&mut self.has_large);
    }

    /// Whether a buffer is kept that holds nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.filled == 0 && self.large.is_none() && !self.ahead.is_empty()
    }

    /// Gives up a buffer that holds nothing.
    pub(super) fn release_if_idle(&mut self) {
        if self.is_idle() {
            self.ahead = BytesMut::new();
            self.before = BytesMut::new();
        }
    }

    /// Sees to it that the piece asked for fits and a read is worth its call.
    fn make_room(&mut self) {
        let free = self.ahead.len() - self.filled;
        let fits = self.ahead.len() >= self.wanted;
        if fits && (free >= READ_MIN || (self.filled > READ_MIN && free > 0)) {
            return;
        }
        self.ahead.truncate(self.filled);
        if !self.ahead.try_reclaim(self.ahead_len - self.filled) {
            // Slices of it are still in use somewhere; maybe none of the one before is.
            let mut next = std::mem::take(&mut self.before);
            if !next.try_reclaim(self.ahead_len) {
                next = BytesMut::with_capacity(self.ahead_len);
            }
            next.extend_from_slice(&self.ahead);
            self.ahead.clear();
            self.before = std::mem::replace(&mut self.ahead, next);
        }
        self.ahead.resize(self.ahead_len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `stream` in chunks of at most `chunk` and takes pieces of the given lengths.
    fn pieces(stream: &[u8], chunk: usize, lens: &[usize]) -> Vec<Bytes> {
        let mut inbox = Inbox::new(2048);
        let mut rest = stream;
        let mut taken = Vec::new();
        for len in lens {
            let piece = loop {
                if let Some(piece) = inbox.take(*len) {
                    break piece;
                }
                let space = inbox.space();
                let count = chunk.min(space.len()).min(rest.len());
                assert!(count > 0, "no room or no bytes left");
                space[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                inbox.received(count);
            };
            taken.push(piece);
        }
        assert!(rest.is_empty());
        taken
    }

    #[test]
    fn pieces_come_out_as_they_went_in_whatever_the_chunks() {
        let lens = [32, 45, 1, 5000, 13, 32, 1000, 700, 700, 600, 13, 1500, 32, 9000, 3];
        let total = lens.iter().sum();
        let stream: Vec<u8> = (0..total).map(|at: usize| (at * 7 + at / 251) as u8).collect();
        for chunk in [1, 3, 100, 777, 2048, 100_000] {
            let joined: Vec<u8> = pieces(&stream, chunk, &lens).concat();
            assert_eq!(joined, stream, "chunk {chunk}");
        }
    }

    #[test]
    fn a_large_piece_is_read_into_its_own_buffer_and_never_beyond() {
        let mut inbox = Inbox::new(2048);
        assert!(inbox.take(32).is_none());
        assert_eq!(inbox.space().len(), 2048);
        inbox.received(100);
        assert_eq!(inbox.take(32).unwrap().len(), 32);
        assert!(inbox.take(10_000).is_none());
        assert_eq!(inbox.space().len(), 10_000 - 68);
    }

    #[test]
    fn behind_a_large_frame_little_is_read_ahead_until_a_small_one_came() {
        let mut inbox = Inbox::new(4096);
        assert!(inbox.take(10_000).is_none());
        inbox.received(10_000);
        assert!(inbox.take(10_000).is_some());
        inbox.end_frame();
        assert!(inbox.take(32).is_none());
        assert_eq!(inbox.space().len(), 32 + AFTER_LARGE);
        inbox.received(32);
        assert!(inbox.take(32).is_some());
        inbox.end_frame();
        assert!(inbox.take(32).is_none());
        assert_eq!(inbox.space().len(), 4096 - 32);
    }

    #[test]
    fn an_idle_inbox_holds_no_buffer() {
        let mut inbox = Inbox::new(2048);
        assert!(!inbox.is_idle());
        inbox.space();
        assert!(inbox.is_idle());
        inbox.release_if_idle();
        assert!(!inbox.is_idle());
        inbox.space();
        inbox.received(1);
        inbox.release_if_idle();
        assert_eq!(inbox.take(1).unwrap().len(), 1);
    }
}
