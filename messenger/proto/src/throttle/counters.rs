//! What a throttle counts: as little as the fast path can, the rest derived in the snapshot.
//!
//! Taking a share adds to one counter beside the budget itself, giving it back to two; everything
//! else counts where somebody is refused, waits, or leaves, which is slow anyway. All additions are
//! relaxed: a snapshot of a busy throttle may be a few shares out of step with itself, that of a
//! quiet one is exact.
//!
//! ```text
//!   get     = granted (at once or after a wait) + get_or_fail_success
//!   get_sum = put_sum + val - take_sum          what came in and was not taken went back, or is held
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts that cannot be derived.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) granted: Count,
    pub(super) tried: Count,
    pub(super) failed: Count,
    pub(super) taken: Count,
    pub(super) taken_sum: Count,
    pub(super) put: Count,
    pub(super) put_sum: Count,
    pub(super) waited: Count,
    /// Left the line without a share.
    pub(super) left: Count,
    pub(super) wait_ns: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counts {
    pub(super) fn add_wait(&self, time: Duration) {
        self.wait_ns.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The snapshot, given the budget and how many stand in line.
    pub(super) fn snapshot(&self, val: u64, max: u64, waiting: u64) -> ThrottleCounters {
        let (granted, tried) = (self.granted.get(), self.tried.get());
        let (put_sum, take_sum) = (self.put_sum.get(), self.taken_sum.get());
        ThrottleCounters {
            val,
            max,
            get_started: granted + self.left.get() + waiting,
            get: granted + tried,
            get_sum: (put_sum + val).saturating_sub(take_sum),
            get_or_fail_fail: self.failed.get(),
            get_or_fail_success: tried,
            take: self.taken.get(),
            take_sum,
            put: self.put.get(),
            put_sum,
            wait_count: self.waited.get(),
            wait_sum: Duration::from_nanos(self.wait_ns.get()),
        }
    }
}

/// A snapshot of a throttle, with Ceph's names (semantics 1.14, set `throttle-NAME`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleCounters {
    /// What is held now.
    pub val: u64,
    /// The budget; 0 is unlimited.
    pub max: u64,
    /// Shares asked for by somebody who would wait.
    pub get_started: u64,
    /// Shares got, waited for or not.
    pub get: u64,
    /// Their sum.
    pub get_sum: u64,
    /// Shares asked for by somebody who would not wait, and refused.
    pub get_or_fail_fail: u64,
    /// The same, and got.
    pub get_or_fail_success: u64,
    /// Shares taken without asking whether there is room.
    pub take: u64,
    /// Their sum.
    pub take_sum: u64,
    /// Shares given back.
    pub put: u64,
    /// Their sum.
    pub put_sum: u64,
    /// Times somebody had to wait.
    pub wait_count: u64,
    /// How long those waited who got their share.
    pub wait_sum: Duration,
}

impl ThrottleCounters {
    /// Name and value, in a fixed order; Ceph's average `wait` is its count and its sum here.
    pub fn named(&self) -> [(&'static str, u64); 13] {
        let wait_sum_us = u64::try_from(self.wait_sum.as_micros()).unwrap_or(u64::MAX);
        [
            ("val", self.val),
            ("max", self.max),
            ("get_started", self.get_started),
            ("get", self.get),
            ("get_sum", self.get_sum),
            ("get_or_fail_fail", self.get_or_fail_fail),
            ("get_or_fail_success", self.get_or_fail_success),
            ("take", self.take),
            ("take_sum", self.take_sum),
            ("put", self.put),
            ("put_sum", self.put_sum),
            ("wait_count", self.wait_count),
            ("wait_sum_us", wait_sum_us),
        ]
    }
}
