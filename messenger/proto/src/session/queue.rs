//! Messages on their way out: queued by priority, then kept until acknowledged if lossless.
//!
//! ```text
//!   each lane:   [ written, not acknowledged | queued ] <-- push
//!                acked: gone at this end     ^ write_next: the first lane that has one
//! ```
//!
//! A message stays where it was pushed until it is gone; only a fault moves what was written, to
//! the front of the first lane.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::message::{Message, PRIORITY_HIGHEST};

#[derive(Debug, Default)]
pub(super) struct OutQueue {
    /// Highest priority first. Lanes stay when empty; an application uses few priorities.
    lanes: Vec<Lane>,
    /// Messages not written yet.
    queued: usize,
    /// Messages written but not acknowledged.
    written: usize,
    /// Payload bytes of both.
    bytes: usize,
}

#[derive(Debug)]
struct Lane {
    priority: u16,
    messages: VecDeque<Outgoing>,
    /// How many at the front are written, in the order of their numbers.
    written: usize,
}

/// A message and since when it has been queued or written.
#[derive(Debug)]
struct Outgoing {
    message: Message,
    since: Instant,
}

/// What an acknowledgement settled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) count: u64,
    /// The sum of the times between writing and acknowledgement.
    pub(super) time: Duration,
}

impl OutQueue {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Messages held, unacknowledged ones included.
    pub(super) fn count(&self) -> usize {
        self.queued + self.written
    }

    /// Payload bytes held, unacknowledged ones included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, now: Instant, message: Message) {
        self.queued += 1;
        self.bytes += message.payload_len();
        let lane = self.lane(message.header.priority);
        lane.messages.push_back(Outgoing { message, since: now });
    }

    /// Has `write` number and write the next message, and tells it since when that was queued:
    /// strict order between priorities, first in first out inside one (contract S-1). If it `keeps`
    /// the message, that is until it is acknowledged. False if there is none.
    pub(super) fn write_next(
        &mut self,
        now: Instant,
        keeps: bool,
        write: impl FnOnce(&mut Message, Instant),
    ) -> bool {
        let mut lanes = self.lanes.iter_mut();
        let Some(lane) = lanes.find(|lane| lane.written < lane.messages.len()) else {
            return false;
        };
        let outgoing = &mut lane.messages[lane.written];
        write(&mut outgoing.message, outgoing.since);
        outgoing.since = now;
        self.queued -= 1;
        if keeps {
            lane.written += 1;
            self.written += 1;
        } else {
            self.bytes -= outgoing.message.payload_len();
            lane.messages.remove(lane.written);
        }
        true
    }

    /// The peer has every message up to `seq`. Returns how many were waiting for that (S-7).
    pub(super) fn acked(&mut self, now: Instant, seq: u64) -> Acked {
        let mut acked = Acked::default();
        if self.written == 0 {
            return acked;
        }
        for lane in &mut self.lanes {
            let written = lane.messages.iter().take(lane.written);
            let mut count = 0;
            for Outgoing { message, since } in
                written.take_while(|written| written.message.header.seq <= seq)
            {
                count += 1;
                self.bytes -= message.payload_len();
                acked.time += now.saturating_duration_since(*since);
            }
            lane.messages.drain(..count);
            lane.written -= count;
            self.written -= count;
            acked.count += count as u64;
        }
        acked
    }

    /// Puts unacknowledged messages before all others, in their order. Returns how many (S-9).
    pub(super) fn put_back(&mut self) -> u64 {
        let mut written: Vec<Outgoing> = Vec::with_capacity(self.written);
        for lane in &mut self.lanes {
            written.extend(lane.messages.drain(..std::mem::take(&mut lane.written)));
        }
        written.sort_by_key(|outgoing| outgoing.message.header.seq);
        let count = std::mem::take(&mut self.written);
        self.queued += count;
        let lane = self.lane(PRIORITY_HIGHEST);
        written.into_iter().rev().for_each(|outgoing| lane.messages.push_front(outgoing));
        count as u64
    }

    /// Drops messages put back that the peer turned out to have: those numbered up to `seq`.
    /// Messages never written have the number 0. Returns how many (S-10).
    pub(super) fn drop_received(&mut self, seq: u64) -> u64 {
        let lane = self.lane(PRIORITY_HIGHEST);
        let has = |outgoing: &&Outgoing| (1..=seq).contains(&outgoing.message.header.seq);
        let count = lane.messages.iter().skip(lane.written).take_while(has).count();
        let gone = lane.messages.drain(lane.written..lane.written + count);
        let bytes: usize = gone.map(|gone| gone.message.payload_len()).sum();
        self.queued -= count;
        self.bytes -= bytes;
        count as u64
    }

    /// Makes every queued message one that was never written: a new session counts from the start.
    pub(super) fn forget_seqs(&mut self) {
        let queued =
            self.lanes.iter_mut().flat_map(|lane| lane.messages.iter_mut().skip(lane.written));
        queued.for_each(|outgoing| outgoing.message.header.seq = 0);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn lane(&mut self, priority: u16) -> &mut Lane {
        let found = self.lanes.binary_search_by(|lane| priority.cmp(&lane.priority));
        let index = found.unwrap_or_else(|index| {
            self.lanes.insert(index, Lane { priority, messages: VecDeque::new(), written: 0 });
            index
        });
        &mut self.lanes[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tid: u64, priority: u16) -> Message {
        Message::new(1).with_tid(tid).with_priority(priority).with_front("xx")
    }

    fn drained(mut queue: OutQueue) -> Vec<u64> {
        let mut tids = Vec::new();
        let now = Instant::now();
        while queue.write_next(now, false, |message, _| tids.push(message.header.tid)) {}
        assert_eq!((queue.count(), queue.bytes()), (0, 0));
        tids
    }

    /// A queue that wrote messages `seqs`, whose tids are their numbers.
    fn written(now: Instant, seqs: std::ops::RangeInclusive<u64>) -> OutQueue {
        let mut queue = OutQueue::default();
        for seq in seqs {
            queue.push(now, message(seq, 100 + seq as u16));
            assert!(queue.write_next(now, true, |message, _| message.header.seq = seq));
        }
        queue
    }

    #[test]
    fn priorities_are_strict_and_fair_inside() {
        let mut queue = OutQueue::default();
        for (tid, priority) in [(1, 127), (2, 64), (3, 196), (4, 127), (5, 255), (6, 64)] {
            queue.push(Instant::now(), message(tid, priority));
        }
        assert_eq!((queue.count(), queue.bytes()), (6, 12));
        assert_eq!(drained(queue), [5, 3, 1, 4, 2, 6]);
    }

    #[test]
    fn what_is_put_back_comes_first_in_its_old_order() {
        let mut queue = written(Instant::now(), 1..=2);
        queue.push(Instant::now(), message(9, 255));
        assert!(!queue.is_empty());
        assert_eq!(queue.put_back(), 2);
        assert_eq!((queue.count(), queue.bytes()), (3, 6));
        assert_eq!(drained(queue), [1, 2, 9]);
    }

    #[test]
    fn an_ack_is_cumulative_and_may_exceed_what_was_sent() {
        let begin = Instant::now();
        let later = |ms| begin + Duration::from_millis(ms);
        let mut queue = written(begin, 1..=5);
        let first = Acked { count: 3, time: Duration::from_millis(30) };
        assert_eq!(queue.acked(later(10), 3), first);
        assert_eq!((queue.count(), queue.bytes()), (2, 4));
        assert_eq!(queue.acked(later(10), 2), Acked::default());
        let rest = Acked { count: 2, time: Duration::from_millis(40) };
        assert_eq!(queue.acked(later(20), u64::MAX), rest);
        assert_eq!((queue.count(), queue.bytes()), (0, 0));
    }

    #[test]
    fn what_one_lane_wrote_around_another_goes_back_in_the_order_of_its_numbers() {
        let now = Instant::now();
        let mut queue = OutQueue::default();
        for (seq, priority) in [(1, 64), (2, 196), (3, 64), (4, 127)] {
            queue.push(now, message(seq, priority));
            assert!(queue.write_next(now, true, |message, _| message.header.seq = seq));
        }
        queue.push(now, message(5, 64));
        assert_eq!(queue.acked(now, 1).count, 1);
        assert_eq!((queue.count(), queue.bytes()), (4, 8));
        assert_eq!(queue.put_back(), 3);
        assert_eq!(drained(queue), [2, 3, 4, 5]);
    }

    #[test]
    fn only_written_messages_are_dropped_as_received() {
        let mut queue = written(Instant::now(), 4..=6);
        queue.push(Instant::now(), message(9, 255));
        queue.put_back();
        assert_eq!(queue.drop_received(5), 2);
        assert_eq!(queue.drop_received(100), 1);
        assert_eq!((queue.count(), queue.bytes()), (1, 2));
        assert_eq!(drained(queue), [9]);
    }
}
