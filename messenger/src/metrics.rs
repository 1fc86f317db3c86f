//! One registry, one snapshot: every number of a messenger under the name of a set and its own.
//!
//! ```text
//!   messenger                    connections, callbacks
//!   dispatch_queue               length, how long messages wait
//!   throttle-NAME                each budget of the messenger
//!   AsyncMessenger::Worker-N     a worker's sessions and its loop
//!   transport-N                  what is under it: kernel sockets, or our TCP and its device
//! ```
//!
//! Sets and counters have Ceph's names where they mean the same (semantics 1.14). Who owns a number
//! adds to it without a lock; names exist only in a snapshot. All of them are explained in
//! `docs/counters.md`, and a test compares that page with what a messenger reports.

use messenger_proto::Throttle;
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

mod histogram;
mod worker;

pub(crate) use histogram::Histogram;
pub(crate) use worker::Counters;
pub use worker::WorkerCounters;

/// Name and value of counters, in a fixed order.
pub type NamedCounters = Vec<(&'static str, u64)>;

/// Counters of one kind of thing. It serializes as a map from names to values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterSet {
    /// The set's name, like `throttle-msgr_dispatch_throttler`.
    pub name: String,
    /// Its counters, in a fixed order.
    pub counters: NamedCounters,
}

impl CounterSet {
    /// The set of a budget.
    pub(crate) fn of(throttle: &Arc<Throttle>) -> Self {
        let name = format!("throttle-{}", throttle.name());
        Self { name, counters: throttle.counters().named().to_vec() }
    }

    /// The value of the counter with this name, if there is one.
    pub fn get(&self, name: &str) -> Option<u64> {
        let found = self.counters.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| *value)
    }
}

/// A snapshot of a messenger and the workers it runs on. It serializes as a map from the names of
/// sets to sets; to display it shows what is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessengerCounters {
    /// The workers, in order; shared with other messengers of the same transport.
    pub workers: Vec<WorkerCounters>,
    /// The budgets of the messenger's policies and its dispatch budget, each once: `throttle-NAME`.
    pub throttles: Vec<CounterSet>,
    /// The dispatch queue's counters; none while the messenger is not running.
    pub dispatch_queue: NamedCounters,
    /// Live connections of this messenger.
    pub connections: usize,
    /// Messages in its dispatch queue.
    pub dispatch_queue_messages: usize,
    /// Callbacks of its dispatchers that panicked.
    pub callback_panics: u64,
    /// Received bytes that were not dispatched yet, see `ms_dispatch_throttle_bytes`.
    pub dispatch_throttle_bytes: u64,
}

impl MessengerCounters {
    /// All sets, in a fixed order.
    pub fn sets(&self) -> Vec<CounterSet> {
        let set = |name: &str, counters| CounterSet { name: name.to_owned(), counters };
        let messenger = vec![
            ("connections", self.connections as u64),
            ("callback_panics", self.callback_panics),
        ];
        let mut sets =
            vec![set("messenger", messenger), set("dispatch_queue", self.dispatch_queue.clone())];
        sets.extend(self.throttles.iter().cloned());
        for worker in &self.workers {
            let index = worker.worker;
            let name = format!("AsyncMessenger::Worker-{index}");
            sets.push(set(&name, worker.messenger.clone()));
            sets.push(set(&format!("transport-{index}"), worker.transport.clone()));
        }
        sets
    }

    /// One counter of one set, if there is such a set and it has it.
    pub fn get(&self, set: &str, name: &str) -> Option<u64> {
        self.sets().iter().find(|other| other.name == set)?.get(name)
    }

    /// The sum of one counter over all workers.
    pub fn total(&self, name: &str) -> u64 {
        self.workers.iter().map(|worker| worker.get(name)).sum()
    }
}

impl Serialize for CounterSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.counters.iter().copied())
    }
}

impl Serialize for MessengerCounters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sets = self.sets();
        serializer.collect_map(sets.iter().map(|set| (&set.name, set)))
    }
}

/// A heading and a line for each counter that is not zero.
impl fmt::Display for CounterSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let shown = self.counters.iter().filter(|(_, value)| *value != 0);
        let width = shown.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in shown {
            write!(f, "\n  {name:<width$} {:>19}", thousands(*value))?;
        }
        Ok(())
    }
}

impl fmt::Display for MessengerCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_news = |set: &&CounterSet| set.counters.iter().any(|(_, value)| *value != 0);
        for (index, set) in self.sets().iter().filter(has_news).enumerate() {
            write!(f, "{}{set}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

/// A number with its thousands apart: `12,345`.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> MessengerCounters {
        let budget = CounterSet { name: "throttle-t".into(), counters: vec![("val", 7)] };
        MessengerCounters {
            workers: vec![WorkerCounters {
                worker: 0,
                messenger: vec![("msgr_recv_messages", 1_234_567), ("msgr_faults", 0)],
                transport: vec![("rx", 3)],
            }],
            throttles: vec![budget],
            dispatch_queue: vec![("messages", 0)],
            connections: 2,
            dispatch_queue_messages: 0,
            callback_panics: 0,
            dispatch_throttle_bytes: 0,
        }
    }

    #[test]
    fn a_counter_is_found_by_its_set_and_its_name() {
        let counters = snapshot();
        assert_eq!(counters.get("throttle-t", "val"), Some(7));
        assert_eq!(counters.get("transport-0", "rx"), Some(3));
        let worker = "AsyncMessenger::Worker-0";
        assert_eq!(counters.get(worker, "msgr_recv_messages"), Some(1_234_567));
        assert_eq!(counters.get(worker, "rx"), None);
        assert_eq!(counters.get("throttle-u", "val"), None);
        assert_eq!(counters.total("rx"), 3);
    }

    #[test]
    fn a_person_sees_what_is_not_zero() {
        let text = snapshot().to_string();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines.len(), 8, "{text}");
        assert_eq!(lines[0], "messenger");
        assert!(lines[1].starts_with("  connections") && lines[1].ends_with(" 2"), "{text}");
        assert!(lines[5].ends_with(" 1,234,567"), "{text}");
        assert!(!text.contains("faults") && !text.contains("dispatch_queue"), "{text}");
    }
}
