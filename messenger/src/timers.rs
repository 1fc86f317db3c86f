//! One-shot timers in order of their deadline, each with the key it was set for.
//!
//! Contract E-6. A timer's name holds its deadline, so cancelling finds the entry itself: nothing
//! dead stays behind and the queue is never longer than the timers that are set.

use std::collections::BTreeMap;
use std::time::Instant;

/// Names one timer until it fires or is cancelled. Ids count up from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    deadline: Instant,
    id: u64,
}

impl TimerId {
    /// When it fires.
    pub fn deadline(self) -> Instant {
        self.deadline
    }

    /// The running number, from 1.
    pub fn id(self) -> u64 {
        self.id
    }
}

/// The timers of one event centre.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    set: BTreeMap<TimerId, K>,
    last_id: u64,
    /// Timers with a larger id were set in the round under way and wait for the next one.
    round_ends_at: u64,
}

impl<K> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { set: BTreeMap::new(), last_id: 0, round_ends_at: 0 }
    }

    pub(crate) fn add(&mut self, deadline: Instant, key: K) -> TimerId {
        self.last_id += 1;
        let id = TimerId { deadline, id: self.last_id };
        self.set.insert(id, key);
        id
    }

    /// Whether it was still set.
    pub(crate) fn cancel(&mut self, id: TimerId) -> bool {
        self.set.remove(&id).is_some()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(id, _)| id.deadline)
    }

    /// All timers set until now may fire in the round that begins.
    pub(crate) fn begin_round(&mut self) {
        self.round_ends_at = self.last_id;
    }

    /// Takes the earliest timer that is due and was set before this round.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(TimerId, K)> {
        let due = self
            .set
            .keys()
            .take_while(|id| id.deadline <= now)
            .find(|id| id.id <= self.round_ends_at);
        let id = *due?;
        self.set.remove_entry(&id)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }
}
