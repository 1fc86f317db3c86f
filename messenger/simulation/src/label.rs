//! What a message says of itself: who sent it, which one it is, and how to tell that it is whole.

use crate::Life;
use messenger::Message;
use netstack::device::sim::Random;

/// Type of messages for the dispatch queue.
const KIND_QUEUED: u16 = 1001;
/// Type of messages for the fast path.
const KIND_FAST: u16 = 1002;
const LABEL_LEN: usize = 32;
const WANTS_REPLY: u16 = 1;

/// The messages one process sends on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Of the sender.
    pub life: Life,
    /// The sender's number for it.
    pub connection: u64,
}

/// Messages that keep their order among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The messages' priority.
    pub priority: u16,
    /// Dispatched on the worker; else by way of the dispatch queue.
    pub fast: bool,
}

/// Names one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// Of which stream it is.
    pub stream: StreamId,
    /// Which lane of it.
    pub lane: Lane,
    /// Its place in the lane, from 0.
    pub index: u32,
    /// Whether the receiver is to send one back.
    pub wants_reply: bool,
}

impl Label {
    /// The message, with `len` bytes of data that belong to this label and no other.
    pub fn message(&self, len: u32) -> Message {
        let mut front = Vec::with_capacity(LABEL_LEN);
        front.extend_from_slice(&self.stream.life.to_le_bytes());
        front.extend_from_slice(&self.stream.connection.to_le_bytes());
        front.extend_from_slice(&self.lane.priority.to_le_bytes());
        let flags = if self.wants_reply { WANTS_REPLY } else { 0 };
        front.extend_from_slice(&flags.to_le_bytes());
        front.extend_from_slice(&self.index.to_le_bytes());
        front.extend_from_slice(&len.to_le_bytes());
        let key = key_of(&front);
        front.extend_from_slice(&key.to_le_bytes());
        let kind = if self.lane.fast { KIND_FAST } else { KIND_QUEUED };
        let message = Message::new(kind).with_priority(self.lane.priority);
        message.with_tid(u64::from(self.index)).with_front(front).with_data(filler(key, len))
    }

    /// The label of a message that arrived, if the message is one of ours and whole.
    pub fn of(message: &Message) -> Option<Self> {
        let front: &[u8; LABEL_LEN] = message.front.as_ref().try_into().ok()?;
        let (said, key) = front.split_at(LABEL_LEN - 8);
        let key = u64::from_le_bytes(key.try_into().ok()?);
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| said[at + i]));
        let half = |at: usize| u16::from_le_bytes([said[at], said[at + 1]]);
        let label = Self {
            stream: StreamId {
                life: number(0),
                connection: u64::from(number(4)) | u64::from(number(8)) << 32,
            },
            lane: Lane { priority: half(12), fast: Self::is_fast(message) },
            index: number(16),
            wants_reply: half(14) & WANTS_REPLY != 0,
        };
        let is_whole = key == key_of(said)
            && message.data == filler(key, number(20))
            && message.header.tid == u64::from(label.index)
            && message.header.priority == label.lane.priority;
        is_whole.then_some(label)
    }

    /// Whether a message is for the fast path.
    pub fn is_fast(message: &Message) -> bool {
        message.header.kind == KIND_FAST
    }
}

fn key_of(said: &[u8]) -> u64 {
    let words = said
        .chunks(8)
        .map(|chunk| chunk.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte)));
    words.fold(0, |key, word| Random::new(key ^ word).next_u64())
}

fn filler(key: u64, len: u32) -> Vec<u8> {
    let (mut random, len) = (Random::new(key), len as usize);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back_and_any_damage_is_seen() {
        let label = Label {
            stream: StreamId { life: 7, connection: 1 << 40 | 3 },
            lane: Lane { priority: 196, fast: true },
            index: 12,
            wants_reply: true,
        };
        assert_eq!(Label::of(&label.message(100)), Some(label));
        for at in 0..100 + LABEL_LEN {
            let mut message = label.message(100);
            let (mut front, mut data) = (message.front.to_vec(), message.data.to_vec());
            match at.checked_sub(100) {
                None => data[at] ^= 4,
                Some(at) => front[at] ^= 4,
            }
            (message.front, message.data) = (front.into(), data.into());
            assert_eq!(Label::of(&message), None, "byte {at}");
        }
    }
}
