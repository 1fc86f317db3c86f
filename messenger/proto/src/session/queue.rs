//! Messages on their way out: queued by priority, then kept until acknowledged if lossless.
//!
//! ```text
//!   push -> lanes --pop--> (written) --keep--> sent --acked--> gone
//!             ^------------put_back-------------'   after a fault
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::message::{Message, PRIORITY_HIGHEST};

#[derive(Debug, Default)]
pub(super) struct OutQueue {
    /// Highest priority first. Lanes stay when empty; an application uses few priorities.
    lanes: Vec<Lane>,
    /// Messages in `lanes`.
    queued: usize,
    /// Written but not acknowledged, in the order of their numbers.
    sent: VecDeque<Outgoing>,
    /// Payload bytes in `lanes` and `sent`.
    bytes: usize,
}

#[derive(Debug)]
struct Lane {
    priority: u16,
    messages: VecDeque<Outgoing>,
}

/// A message and since when it has been where it is.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) message: Message,
    pub(super) since: Instant,
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
        self.queued + self.sent.len()
    }

    /// Payload bytes held, unacknowledged ones included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, now: Instant, message: Message) {
        self.queued += 1;
        self.bytes += message.payload_len();
        let outgoing = Outgoing { message, since: now };
        self.lane(outgoing.message.header.priority).push_back(outgoing);
    }

    /// The next message to write: strict order between priorities, first in first out inside one
    /// (contract S-1).
    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.lanes.iter_mut().find_map(|lane| lane.messages.pop_front())?;
        self.queued -= 1;
        self.bytes -= outgoing.message.payload_len();
        Some(outgoing)
    }

    /// Keeps a written message until it is acknowledged.
    pub(super) fn keep(&mut self, now: Instant, message: Message) {
        self.bytes += message.payload_len();
        self.sent.push_back(Outgoing { message, since: now });
    }

    /// The peer has every message up to `seq`. Returns how many were waiting for that (S-7).
    pub(super) fn acked(&mut self, now: Instant, seq: u64) -> Acked {
        let count = self.sent.partition_point(|sent| sent.message.header.seq <= seq);
        let mut acked = Acked { count: count as u64, time: Duration::ZERO };
        for Outgoing { message, since } in self.sent.drain(..count) {
            self.bytes -= message.payload_len();
            acked.time += now.saturating_duration_since(since);
        }
        acked
    }

    /// Puts unacknowledged messages before all others, in their order. Returns how many (S-9).
    pub(super) fn put_back(&mut self) -> u64 {
        let mut sent = std::mem::take(&mut self.sent);
        let count = sent.len();
        self.queued += count;
        let lane = self.lane(PRIORITY_HIGHEST);
        sent.append(lane);
        *lane = sent;
        count as u64
    }

    /// Drops messages put back that the peer turned out to have: those numbered up to `seq`.
    /// Messages never written have the number 0. Returns how many (S-10).
    pub(super) fn drop_received(&mut self, seq: u64) -> u64 {
        let lane = self.lane(PRIORITY_HIGHEST);
        let has = |outgoing: &Outgoing| (1..=seq).contains(&outgoing.message.header.seq);
        let count = lane.iter().position(|outgoing| !has(outgoing)).unwrap_or(lane.len());
        let bytes: usize = lane.drain(..count).map(|gone| gone.message.payload_len()).sum();
        self.queued -= count;
        self.bytes -= bytes;
        count as u64
    }

    /// Makes every message one that was never written: a new session counts from the start.
    pub(super) fn forget_seqs(&mut self) {
        let messages = self.lanes.iter_mut().flat_map(|lane| &mut lane.messages);
        messages.for_each(|outgoing| outgoing.message.header.seq = 0);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn lane(&mut self, priority: u16) -> &mut VecDeque<Outgoing> {
        let found = self.lanes.binary_search_by(|lane| priority.cmp(&lane.priority));
        let index = found.unwrap_or_else(|index| {
            self.lanes.insert(index, Lane { priority, messages: VecDeque::new() });
            index
        });
        &mut self.lanes[index].messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tid: u64, priority: u16) -> Message {
        Message::new(1).with_tid(tid).with_priority(priority).with_front("xx")
    }

    fn drained(mut queue: OutQueue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|out| out.message.header.tid).collect()
    }

    /// A queue that wrote messages `seqs`, whose tids are their numbers.
    fn written(now: Instant, seqs: std::ops::RangeInclusive<u64>) -> OutQueue {
        let mut queue = OutQueue::default();
        for seq in seqs {
            queue.push(now, message(seq, 100 + seq as u16));
            let mut message = queue.pop().unwrap().message;
            message.header.seq = seq;
            queue.keep(now, message);
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
