//! Messages on their way out: queued by priority, then kept until acknowledged if lossless.
//!
//! ```text
//!   push -> lanes --pop--> (written) --keep--> sent --acked--> gone
//!             ^------------put_back-------------'   after a fault
//! ```

use std::collections::VecDeque;

use crate::message::{Message, PRIORITY_HIGHEST};

#[derive(Debug, Default)]
pub(super) struct OutQueue {
    /// Highest priority first. Lanes stay when empty; an application uses few priorities.
    lanes: Vec<Lane>,
    /// Messages in `lanes`.
    queued: usize,
    /// Written but not acknowledged, in the order of their numbers.
    sent: VecDeque<Message>,
    /// Payload bytes in `lanes` and `sent`.
    bytes: usize,
}

#[derive(Debug)]
struct Lane {
    priority: u16,
    messages: VecDeque<Message>,
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

    pub(super) fn push(&mut self, message: Message) {
        self.queued += 1;
        self.bytes += message.payload_len();
        self.lane(message.header.priority).push_back(message);
    }

    /// The next message to write: strict order between priorities, first in first out inside one
    /// (contract S-1).
    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.lanes.iter_mut().find_map(|lane| lane.messages.pop_front())?;
        self.queued -= 1;
        self.bytes -= message.payload_len();
        Some(message)
    }

    /// Keeps a written message until it is acknowledged.
    pub(super) fn keep(&mut self, message: Message) {
        self.bytes += message.payload_len();
        self.sent.push_back(message);
    }

    /// The peer has every message up to `seq`. Returns how many were waiting for that (S-7).
    pub(super) fn acked(&mut self, seq: u64) -> u64 {
        let acked = self.sent.partition_point(|message| message.header.seq <= seq);
        self.bytes -= self.sent.drain(..acked).map(|message| message.payload_len()).sum::<usize>();
        acked as u64
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
        let keep = lane.iter().position(|message| !(1..=seq).contains(&message.header.seq));
        let count = keep.unwrap_or(lane.len());
        let bytes: usize = lane.drain(..count).map(|message| message.payload_len()).sum();
        self.queued -= count;
        self.bytes -= bytes;
        count as u64
    }

    /// Makes every message one that was never written: a new session counts from the start.
    pub(super) fn forget_seqs(&mut self) {
        let messages = self.lanes.iter_mut().flat_map(|lane| &mut lane.messages);
        messages.for_each(|message| message.header.seq = 0);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn lane(&mut self, priority: u16) -> &mut VecDeque<Message> {
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
        std::iter::from_fn(|| queue.pop()).map(|message| message.header.tid).collect()
    }

    /// A queue that wrote messages `seqs`, whose tids are their numbers.
    fn written(seqs: std::ops::RangeInclusive<u64>) -> OutQueue {
        let mut queue = OutQueue::default();
        for seq in seqs {
            queue.push(message(seq, 100 + seq as u16));
            let mut message = queue.pop().unwrap();
            message.header.seq = seq;
            queue.keep(message);
        }
        queue
    }

    #[test]
    fn priorities_are_strict_and_fair_inside() {
        let mut queue = OutQueue::default();
        for (tid, priority) in [(1, 127), (2, 64), (3, 196), (4, 127), (5, 255), (6, 64)] {
            queue.push(message(tid, priority));
        }
        assert_eq!((queue.count(), queue.bytes()), (6, 12));
        assert_eq!(drained(queue), [5, 3, 1, 4, 2, 6]);
    }

    #[test]
    fn what_is_put_back_comes_first_in_its_old_order() {
        let mut queue = written(1..=2);
        queue.push(message(9, 255));
        assert!(!queue.is_empty());
        assert_eq!(queue.put_back(), 2);
        assert_eq!((queue.count(), queue.bytes()), (3, 6));
        assert_eq!(drained(queue), [1, 2, 9]);
    }

    #[test]
    fn an_ack_is_cumulative_and_may_exceed_what_was_sent() {
        let mut queue = written(1..=5);
        assert_eq!(queue.acked(3), 3);
        assert_eq!((queue.count(), queue.bytes()), (2, 4));
        assert_eq!(queue.acked(2), 0);
        assert_eq!(queue.acked(u64::MAX), 2);
        assert_eq!((queue.count(), queue.bytes()), (0, 0));
    }

    #[test]
    fn only_written_messages_are_dropped_as_received() {
        let mut queue = written(4..=6);
        queue.push(message(9, 255));
        queue.put_back();
        assert_eq!(queue.drop_received(5), 2);
        assert_eq!(queue.drop_received(100), 1);
        assert_eq!((queue.count(), queue.bytes()), (1, 2));
        assert_eq!(drained(queue), [9]);
    }
}
