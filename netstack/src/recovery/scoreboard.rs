//! What is on its way: the bytes themselves, and what is known of each segment.
//!
//! ```text
//!   una                                                          nxt
//!    |-- Flying --|-- Lost --|-- Sacked --|-- Sacked --|-- Flying --|     segments, as they were sent
//!    |........................................................|           bytes, to be sent again
//!
//!   scan: all before it are sacked, or were found lost once     resent: in the order of resending
//! ```
//!
//! Segments are sent in the order of their numbers the first time, and the ring `resent` has them
//! in the order of later times. So what was sent before some other segment is always at the front
//! of one of the two, and no acknowledgement makes us look at all segments (RFC 8985 wants a list
//! in the order of sending). A connection without losses appends to two rings and pops from them.

use std::collections::VecDeque;

/// Lost segments that were found by duplicates alone: the third one tells (RFC 5681).
pub(super) const DUPLICATES: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way, as far as we know.
    Flying,
    /// The peer has it, but not all before it.
    Sacked,
    /// To be sent again.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    seq: u32,
    /// Bytes, and one for a FIN.
    len: u32,
    sent_us: u32,
    state: State,
    is_fin: bool,
    /// How often it was sent again.
    resent: u8,
}

impl Segment {
    fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len)
    }
}

/// What one acknowledgement has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Bytes that arrived.
    pub(super) delivered: u32,
    /// Bytes found lost.
    pub(super) lost: u32,
    /// The round trip of the last one sent of those that were sent once.
    pub(super) round_trip_us: Option<u32>,
    /// Segments that were sent again for nothing: what arrived is the first copy.
    pub(super) spurious: u32,
    /// As above, but it may be that the network has become that much faster.
    pub(super) doubtful: u32,
    /// A segment that was sent again is lost once more.
    pub(super) is_lost_again: bool,
}

/// A part of the sequence space to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) seq: u32,
    /// Bytes, without the FIN.
    pub(crate) len: usize,
    pub(crate) is_fin: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Scoreboard {
    una: u32,
    nxt: u32,
    segments: VecDeque<Segment>,
    /// Number of the first segment; numbers wrap.
    base: u32,
    bytes: VecDeque<u8>,
    scan: u32,
    /// Number and time of segments sent again.
    resent: VecDeque<(u32, u32)>,
    /// Numbers of lost segments, as they were found.
    lost: VecDeque<u32>,
    flying: u32,
    to_resend: u32,
    sacked: u32,
    sacked_segments: u32,
    /// The end of the furthest segment that arrived.
    furthest: u32,
    /// The block that was reported last: most reports are longer by a segment.
    last_block: (u32, u32),
    /// Time, end and round trip of the last one sent among those that arrived (RFC 8985).
    rack: Option<(u32, u32, u32)>,
    /// The last round trip that was measured.
    recent_us: u32,
    /// Segments have overtaken each other.
    is_reordered: bool,
    /// The allowance for that, in quarters of the least round trip.
    patience: u32,
}

impl Scoreboard {
    /// Nothing is on its way; `nxt` comes next.
    pub(super) fn new(nxt: u32) -> Self {
        Self {
            una: nxt,
            nxt,
            segments: VecDeque::new(),
            base: 0,
            bytes: VecDeque::new(),
            scan: 0,
            resent: VecDeque::new(),
            lost: VecDeque::new(),
            flying: 0,
            to_resend: 0,
            sacked: 0,
            sacked_segments: 0,
            furthest: nxt,
            last_block: (nxt, nxt),
            rack: None,
            recent_us: 0,
            is_reordered: false,
            patience: 1,
        }
    }

    /// The first number that is not acknowledged.
    pub(super) fn una(&self) -> u32 {
        self.una
    }

    /// The first number that was not sent.
    pub(super) fn nxt(&self) -> u32 {
        self.nxt
    }

    /// Sent and not acknowledged.
    pub(super) fn outstanding(&self) -> u32 {
        self.nxt.wrapping_sub(self.una)
    }

    /// Believed to be on its way.
    pub(super) fn flying(&self) -> u32 {
        self.flying
    }

    /// Found lost and not sent again.
    pub(super) fn to_resend(&self) -> u32 {
        self.to_resend
    }

    /// Bytes that are kept: those sent and not acknowledged.
    pub(super) fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// Reads from what the next segment will need.
    pub(super) fn warm(&self) -> usize {
        let segment = self.segments.front().map_or(0, |segment| segment.seq as usize);
        let byte = self.bytes.front().map_or(0, |byte| usize::from(*byte));
        segment ^ byte ^ self.furthest as usize
    }

    /// The end of the furthest segment that has arrived.
    pub(super) fn furthest(&self) -> u32 {
        self.furthest
    }

    /// Whether one segment is all there is.
    pub(super) fn is_lone(&self) -> bool {
        self.segments.len() == 1
    }

    /// A segment was sent for the first time; its number is [`Self::nxt`].
    pub(super) fn push(&mut self, now: u64, bytes: &[u8], is_fin: bool) {
        let len = bytes.len() as u32 + u32::from(is_fin);
        self.segments.push_back(Segment {
            seq: self.nxt,
            len,
            sent_us: now as u32,
            state: State::Flying,
            is_fin,
            resent: 0,
        });
        self.bytes.extend(bytes);
        self.nxt = self.nxt.wrapping_add(len);
        self.flying += len;
    }

    /// The peer has a byte that was only sent to try its window.
    pub(super) fn skip_to(&mut self, nxt: u32) {
        debug_assert!(self.segments.is_empty());
        (self.una, self.nxt, self.furthest) = (nxt, nxt, nxt);
    }

    /// The peer has everything before `ack`, which is not beyond [`Self::nxt`].
    pub(super) fn acknowledge(&mut self, now: u64, ack: u32, least_us: u32, news: &mut News) {
        let taken = ack.wrapping_sub(self.una) as usize;
        while let Some(first) = self.segments.front().copied() {
            if before(ack, first.end()) {
                break;
            }
            self.deliver(now, first, least_us, news);
            match first.state {
                State::Flying => self.flying -= first.len,
                State::Lost => self.to_resend -= first.len,
                State::Sacked => {
                    self.sacked -= first.len;
                    self.sacked_segments -= 1;
                }
            }
            self.segments.pop_front();
            self.base = self.base.wrapping_add(1);
        }
        // Part of a segment, which can only be by peers that cut them.
        if let Some(first) = self.segments.front_mut()
            && before(first.seq, ack)
        {
            let part = ack.wrapping_sub(first.seq);
            first.seq = ack;
            first.len -= part;
            match first.state {
                State::Flying => self.flying -= part,
                State::Lost => self.to_resend -= part,
                State::Sacked => self.sacked -= part,
            }
            news.delivered += part;
        }
        self.una = ack;
        if self.segments.is_empty() {
            self.bytes.clear(); // and the ring starts over, in the cache
            self.resent.clear();
            self.lost.clear();
            self.scan = self.base;
        } else {
            self.bytes.drain(..taken.min(self.bytes.len()));
            if (self.scan.wrapping_sub(self.base) as i32) < 0 {
                self.scan = self.base;
            }
        }
    }

    /// The peer has this block. Whether it can be one is judged here.
    pub(super) fn mark(&mut self, now: u64, block: (u32, u32), least_us: u32, news: &mut News) {
        let (left, right) = block;
        let is_ours = !before(left, self.una) && before(left, right) && !before(self.nxt, right);
        if !is_ours {
            return;
        }
        let (last_left, last_right) = std::mem::replace(&mut self.last_block, block);
        let is_longer = left == last_left && !before(right, last_right);
        let from = if is_longer && !before(last_right, self.una) { last_right } else { left };
        let mut index = self.segments.partition_point(|segment| before(segment.seq, from));
        while let Some(segment) = self.segments.get(index).copied() {
            if before(right, segment.end()) {
                break;
            }
            if segment.state != State::Sacked {
                self.deliver(now, segment, least_us, news);
                match segment.state {
                    State::Flying => self.flying -= segment.len,
                    _ => self.to_resend -= segment.len,
                }
                self.sacked += segment.len;
                self.sacked_segments += 1;
                self.segments[index].state = State::Sacked;
            }
            index += 1;
        }
    }

    /// Notes what the arrival of a segment tells.
    fn deliver(&mut self, now: u64, segment: Segment, least_us: u32, news: &mut News) {
        if segment.state == State::Sacked {
            return;
        }
        news.delivered += segment.len;
        let took = (now as u32).wrapping_sub(segment.sent_us).max(1);
        if segment.resent == 0 {
            news.round_trip_us = Some(took);
            self.recent_us = took;
            self.is_reordered |= before(segment.end(), self.furthest);
        } else if took + took / 8 < least_us.max(self.recent_us / 4 * 3) {
            // The second copy cannot be back yet (RFC 8985 section 6.2 step 2), or hardly. Were it
            // taken for the one that arrived, all that was sent before it would be lost.
            let is_certain = took + took / 8 < least_us;
            news.spurious += u32::from(is_certain);
            news.doubtful += u32::from(!is_certain);
            return;
        }
        if before(self.furthest, segment.end()) {
            self.furthest = segment.end();
        }
        let is_later = self.rack.is_none_or(|(sent, end, _)| {
            before(sent, segment.sent_us) || sent == segment.sent_us && before(end, segment.end())
        });
        if is_later {
            self.rack = Some((segment.sent_us, segment.end(), took));
        }
    }

    /// The peer said that it got something twice (RFC 2883), or we found out otherwise.
    pub(super) fn be_patient(&mut self, most: u32) {
        self.is_reordered = true;
        self.patience = (self.patience + 1).min(most);
    }

    /// Finds what is lost: what was sent a round trip and an allowance for reordering before now,
    /// and before something that arrived (RFC 8985 section 6.2 step 5). Returns the time until the
    /// next segment would be.
    pub(super) fn detect(
        &mut self,
        now: u64,
        is_recovering: bool,
        (least_us, smoothed_us): (u32, u32),
        news: &mut News,
    ) -> Option<u32> {
        let (rack_sent, rack_end, rack_took) = self.rack?;
        let is_clear = !self.is_reordered && (is_recovering || self.sacked_segments >= DUPLICATES);
        let allowance = match is_clear {
            true => 0,
            false => (least_us / 4).saturating_mul(self.patience).min(smoothed_us),
        };
        let limit = rack_took.saturating_add(allowance);
        let is_before =
            |sent: u32, end| before(sent, rack_sent) || sent == rack_sent && before(end, rack_end);
        let age = |sent: u32| (now as u32).wrapping_sub(sent);
        let mut wait = None;
        while let Some(segment) = self.get(self.scan) {
            if segment.state == State::Flying && segment.resent == 0 {
                if !is_before(segment.sent_us, segment.end()) {
                    break;
                }
                if age(segment.sent_us) < limit {
                    wait = Some(limit - age(segment.sent_us));
                    break;
                }
                news.lost += segment.len;
                self.lose(self.scan);
            }
            self.scan = self.scan.wrapping_add(1);
        }
        while let Some(&(number, sent)) = self.resent.front() {
            if let Some(segment) = self.get(number)
                && segment.state == State::Flying
                && segment.sent_us == sent
            {
                if !is_before(sent, segment.end()) {
                    break;
                }
                if age(sent) < limit {
                    let left = limit - age(sent);
                    wait = Some(wait.map_or(left, |wait: u32| wait.min(left)));
                    break;
                }
                news.lost += segment.len;
                news.is_lost_again = true;
                self.lose(number);
            }
            self.resent.pop_front();
        }
        wait
    }

    /// The first segment is lost, by what duplicates say.
    pub(super) fn lose_first(&mut self, news: &mut News) {
        if let Some(segment) = self.segments.front()
            && segment.state == State::Flying
        {
            news.lost += segment.len;
            self.lose(self.base);
        }
    }

    /// Everything the peer does not have is lost. If `forgets`, it also has nothing beyond what it
    /// acknowledges: peers may take back what they reported (RFC 2018 section 8).
    pub(super) fn lose_all(&mut self, forgets: bool) {
        self.lost.clear();
        self.resent.clear();
        self.last_block = (self.una, self.una);
        let mut number = self.base;
        for segment in &mut self.segments {
            if segment.state == State::Sacked && forgets {
                self.sacked -= segment.len;
                self.sacked_segments -= 1;
                segment.state = State::Lost;
                self.to_resend += segment.len;
            } else if segment.state == State::Flying {
                self.flying -= segment.len;
                segment.state = State::Lost;
                self.to_resend += segment.len;
            }
            if segment.state == State::Lost {
                self.lost.push_back(number);
            }
            number = number.wrapping_add(1);
        }
        self.scan = number;
    }

    /// Whether the peer has taken back what it reported: it would have acknowledged that.
    pub(super) fn is_reneged(&self) -> bool {
        self.segments.front().is_some_and(|first| first.state == State::Sacked)
    }

    /// The last segment is to be sent again, to hear of the peer (RFC 8985 section 7); or the
    /// first, if the peer has the last, or if that has not helped. It goes before what else is lost.
    pub(super) fn probe(&mut self, prefers_last: bool) {
        let last = self.base.wrapping_add(self.segments.len() as u32).wrapping_sub(1);
        let is_flying =
            |number: &u32| self.get(*number).is_some_and(|segment| segment.state == State::Flying);
        let mut candidates = [last, self.base];
        if !prefers_last {
            candidates.reverse();
        }
        if let Some(number) = candidates.into_iter().find(is_flying) {
            self.lose(number);
            self.lost.rotate_right(1);
        }
    }

    /// What has to be sent again next.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        while let Some(number) = self.lost.front() {
            if let Some(segment) = self.get(*number)
                && segment.state == State::Lost
            {
                let is_fin = segment.is_fin;
                let len = segment.len as usize - usize::from(is_fin);
                return Some(Piece { seq: segment.seq, len, is_fin });
            }
            self.lost.pop_front();
        }
        None
    }

    /// What [`Self::next_piece`] said was sent.
    pub(super) fn on_resent(&mut self, now: u64) {
        let Some(number) = self.lost.pop_front() else {
            return;
        };
        let index = number.wrapping_sub(self.base) as usize;
        let segment = &mut self.segments[index];
        segment.state = State::Flying;
        segment.resent = segment.resent.saturating_add(1);
        segment.sent_us = now as u32;
        self.to_resend -= segment.len;
        self.flying += segment.len;
        self.resent.push_back((number, now as u32));
    }

    /// The bytes of a piece, in two parts.
    pub(super) fn bytes(&self, piece: Piece) -> (&[u8], &[u8]) {
        let start = piece.seq.wrapping_sub(self.una) as usize;
        let end = start + piece.len;
        let (head, tail) = self.bytes.as_slices();
        let part = |slice: &'_ [u8], from: usize| {
            let clamp = |at: usize| at.saturating_sub(from).min(slice.len());
            clamp(start)..clamp(end)
        };
        (&head[part(head, 0)], &tail[part(tail, head.len())])
    }

    /// Counts again what is counted as things happen.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let count = |state| {
            let segments = self.segments.iter().filter(|segment| segment.state == state);
            segments.map(|segment| segment.len).sum::<u32>()
        };
        assert_eq!(self.flying, count(State::Flying));
        assert_eq!(self.to_resend, count(State::Lost));
        assert_eq!(self.sacked, count(State::Sacked));
        assert_eq!(self.outstanding(), self.flying + self.to_resend + self.sacked);
        let sacked = self.segments.iter().filter(|segment| segment.state == State::Sacked);
        assert_eq!(self.sacked_segments as usize, sacked.count());
        assert!(!before(self.nxt, self.furthest));
    }

    fn get(&self, number: u32) -> Option<&Segment> {
        self.segments.get(number.wrapping_sub(self.base) as usize)
    }

    fn lose(&mut self, number: u32) {
        let index = number.wrapping_sub(self.base) as usize;
        let segment = &mut self.segments[index];
        segment.state = State::Lost;
        self.flying -= segment.len;
        self.to_resend += segment.len;
        self.lost.push_back(number);
    }
}

/// Sequence numbers, and times that wrap, compare around the circle.
pub(super) fn before(left: u32, right: u32) -> bool {
    (left.wrapping_sub(right) as i32) < 0
}
