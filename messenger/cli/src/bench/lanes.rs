//! The generators of a run, shared by those who send, those who take replies and who watches.
//!
//! A lane has some of the connections and a generator of its own; with as many lanes as worker
//! threads their locks are hardly ever waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::bench::generator::{Generator, Record, TID_BITS, Window};
use crate::bench::load::Load;

/// Most lanes a tid can name.
const LANES_MAX: usize = 1 << (u64::BITS - TID_BITS);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Mutex<Generator>>,
    failure: OnceLock<String>,
    ended: AtomicBool,
}

impl Lanes {
    /// At most `wanted` lanes; connection `c` is in lane `c` modulo their number.
    pub(crate) fn new(load: &Load, wanted: usize) -> Self {
        let count = wanted.min(load.connections).clamp(1, LANES_MAX);
        let now = Instant::now();
        let lane = |index: usize| {
            let connections = (load.connections - index).div_ceil(count);
            let share = connections as f64 / load.connections as f64;
            let seed = load.seed.wrapping_mul(LANES_MAX as u64).wrapping_add(index as u64);
            Mutex::new(Generator::new(load, connections, share, seed, now))
        };
        Self {
            lanes: (0..count).map(lane).collect(),
            failure: OnceLock::new(),
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// The number, among all connections, of one of a lane's.
    pub(crate) fn connection(&self, lane: usize, index: usize) -> usize {
        index * self.lanes.len() + lane
    }

    /// A tid that names its lane.
    pub(crate) fn tid(&self, lane: usize, tid: u64) -> u64 {
        (lane as u64) << TID_BITS | tid
    }

    /// The lane that a tid names, if there is one, and the generator's own tid.
    pub(crate) fn lane_of(&self, tid: u64) -> Option<(usize, u64)> {
        let lane = (tid >> TID_BITS) as usize;
        (lane < self.lanes.len()).then_some((lane, tid & ((1 << TID_BITS) - 1)))
    }

    pub(crate) fn lock(&self, lane: usize) -> MutexGuard<'_, Generator> {
        // A panic in a callback is reported by the messenger; the numbers so far remain good.
        self.lanes[lane].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> impl Iterator<Item = MutexGuard<'_, Generator>> {
        (0..self.lanes.len()).map(|lane| self.lock(lane))
    }

    pub(crate) fn begin(&self, now: Instant, window: Window) {
        self.all().for_each(|mut generator| generator.begin(now, window));
    }

    /// Messages without their reply, and replies so far.
    pub(crate) fn state(&self) -> (usize, u64) {
        let states = self.all().map(|generator| (generator.under_way(), generator.replies()));
        states.fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1))
    }

    /// Whether sends are due that no generator has come to.
    pub(crate) fn is_behind(&self, now: Instant) -> bool {
        self.all().any(|generator| generator.is_behind(now))
    }

    /// Sends that were due by now, and were never made.
    pub(crate) fn count_overdue(&self, now: Instant) -> u64 {
        self.all().map(|mut generator| generator.count_overdue(now)).sum()
    }

    /// Moves what was recorded since the last time into `sum`; `spare` is empty before and after.
    pub(crate) fn take_records(&self, sum: &mut Record, spare: &mut Record) {
        for lane in 0..self.lanes.len() {
            self.lock(lane).exchange(spare);
            sum.add(spare);
            spare.clear();
        }
    }

    /// Ends the run, with the reason that comes first.
    pub(crate) fn fail(&self, why: impl Into<String>) {
        let _ = self.failure.set(why.into());
        self.end();
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Keeps every generator from its work for so long, to show what a report makes of it.
    pub(crate) fn stall(&self, time: Duration) {
        let all: Vec<_> = self.all().collect();
        std::thread::sleep(time);
        drop(all);
    }

    /// From now everybody stops.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::{Kind, Pace};

    #[test]
    fn every_connection_is_in_one_lane_and_tids_lead_back() {
        let load = Load {
            kind: Kind::Echo,
            sizes: "64".parse().unwrap(),
            connections: 5,
            idle_connections: 0,
            pace: Pace::Closed { depth: 2, think_time_s: 0.0 },
            warmup_s: 0.0,
            duration_s: 1.0,
            seed: 1,
        };
        let lanes = Lanes::new(&load, 3);
        let now = Instant::now();
        lanes.begin(now, Window { from: now, until: now + load.duration() });
        let mut uses = [0; 5];
        for lane in 0..lanes.count() {
            while let Some(departure) = lanes.lock(lane).poll_departure(now) {
                uses[lanes.connection(lane, departure.connection)] += 1;
                let tid = lanes.tid(lane, departure.tid);
                assert_eq!(lanes.lane_of(tid), Some((lane, departure.tid)));
            }
        }
        assert_eq!(uses, [2; 5]);
        assert_eq!(lanes.lane_of(u64::MAX), None);
        assert_eq!(lanes.state(), (10, 0));
        assert_eq!(Lanes::new(&load, 100).count(), 5);
    }
}
