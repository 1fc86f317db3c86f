//! The messages of one connection, and what became of each.

use crate::HostId;
use crate::label::{Label, Lane};
use std::collections::BTreeMap;

/// What a sender knows of a stream it opens.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Who sends.
    pub from: HostId,
    /// To whom.
    pub to: HostId,
    /// To which process of that host.
    pub to_nonce: u32,
    /// Whether the session outlives faults.
    pub lossless: bool,
    /// Whether a lost session is told, so that nothing is sent to the next again.
    pub resetcheck: bool,
}

/// The messages of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) wish: Wish,
    pub(super) lanes: BTreeMap<Lane, LaneLog>,
}

/// Those of one lane.
#[derive(Debug, Default)]
pub(super) struct LaneLog {
    fates: Vec<Fate>,
    /// Everything before it has arrived or is excused.
    first_pending: usize,
    last: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pending,
    Excused,
    Delivered,
    /// Delivered, but the receiver forgot the session, so it may come again.
    Forgotten,
}

impl Stream {
    pub(super) fn new(wish: Wish) -> Self {
        Self { wish, lanes: BTreeMap::new() }
    }

    /// Whether it leads from one host to another.
    pub(super) fn is_between(&self, from: HostId, to: HostId) -> bool {
        (self.wish.from, self.wish.to) == (from, to)
    }

    /// The index of one more message.
    pub(super) fn send(&mut self, lane: Lane) -> u32 {
        let fates = &mut self.lanes.entry(lane).or_default().fates;
        fates.push(Fate::Pending);
        fates.len() as u32 - 1 // a run sends far fewer
    }

    /// A message arrived. `may_skip`: what excuses those before it may not be known yet.
    pub(super) fn deliver(&mut self, label: &Label, may_skip: bool) -> Result<(), &'static str> {
        let log = self.lanes.get_mut(&label.lane).ok_or("which nobody sent")?;
        let index = label.index as usize;
        match log.fates.get_mut(index) {
            None => return Err("which nobody sent"),
            Some(Fate::Delivered) => return Err("twice"),
            Some(Fate::Forgotten) if self.wish.resetcheck => return Err("again after a reset"),
            Some(fate) => *fate = Fate::Delivered,
        }
        if log.last.is_some_and(|last| last > index) {
            return Err("overtaken");
        }
        log.last = Some(index);
        log.catch_up();
        let skips = log.first_pending < index && !may_skip;
        if skips { Err("before one that was sent earlier") } else { Ok(()) }
    }

    /// What was sent until now need not arrive.
    pub(super) fn excuse(&mut self) {
        for log in self.lanes.values_mut() {
            for fate in log.fates.iter_mut().filter(|fate| **fate == Fate::Pending) {
                *fate = Fate::Excused;
            }
            log.catch_up();
        }
    }

    /// The receiver knows nothing of the session any more.
    pub(super) fn forget(&mut self) {
        for log in self.lanes.values_mut() {
            for fate in log.fates.iter_mut().filter(|fate| **fate == Fate::Delivered) {
                *fate = Fate::Forgotten;
            }
            log.last = None;
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.lanes.values().map(LaneLog::pending).sum()
    }
}

impl LaneLog {
    /// The last one was not sent after all.
    pub(super) fn take_back(&mut self) {
        let last = self.fates.pop();
        debug_assert_eq!(last, Some(Fate::Pending));
    }

    pub(super) fn has_arrived(&self, index: u32) -> bool {
        let fate = self.fates.get(index as usize);
        matches!(fate, Some(Fate::Delivered | Fate::Forgotten))
    }

    pub(super) fn first_pending(&self) -> usize {
        self.first_pending
    }

    pub(super) fn pending(&self) -> usize {
        let late = self.fates.iter().skip(self.first_pending);
        late.filter(|fate| **fate == Fate::Pending).count()
    }

    fn catch_up(&mut self) {
        let late = &self.fates[self.first_pending..];
        self.first_pending += late.iter().take_while(|fate| **fate != Fate::Pending).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::StreamId;

    const LANE: Lane = Lane { priority: 127, fast: false };

    fn stream(resetcheck: bool, sent: u32) -> Stream {
        let wish = Wish { from: 0, to: 1, to_nonce: 1, lossless: true, resetcheck };
        let mut stream = Stream::new(wish);
        (0..sent).for_each(|index| assert_eq!(stream.send(LANE), index));
        stream
    }

    fn deliver(stream: &mut Stream, index: u32) -> Result<(), &'static str> {
        let id = StreamId { life: 1, connection: 1 };
        stream.deliver(&Label { stream: id, lane: LANE, index, wants_reply: false }, false)
    }

    #[test]
    fn what_is_doubled_overtaken_left_out_or_never_sent_is_seen() {
        let mut stream = stream(true, 4);
        assert_eq!(deliver(&mut stream, 0), Ok(()));
        assert!(deliver(&mut stream, 0).is_err(), "twice");
        assert!(deliver(&mut stream, 2).is_err(), "1 is left out");
        assert!(deliver(&mut stream, 1).is_err(), "2 was before it");
        assert!(deliver(&mut stream, 4).is_err(), "never sent");
        assert_eq!(stream.pending(), 1);
    }

    #[test]
    fn an_excuse_covers_what_was_sent_before_it() {
        let mut stream = stream(true, 2);
        stream.excuse();
        assert_eq!((stream.send(LANE), stream.send(LANE)), (2, 3));
        assert_eq!(stream.pending(), 2);
        assert!(deliver(&mut stream, 3).is_err(), "2 is not excused");
    }

    #[test]
    fn only_without_a_reset_check_a_forgotten_message_comes_again() {
        for resetcheck in [false, true] {
            let mut stream = stream(resetcheck, 1);
            assert_eq!(deliver(&mut stream, 0), Ok(()));
            stream.forget();
            assert_eq!(deliver(&mut stream, 0).is_err(), resetcheck);
        }
    }
}
