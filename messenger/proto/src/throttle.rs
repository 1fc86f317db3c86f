//! A budget shared by many sessions: bytes or messages that may be held at one time.
//!
//! Taking from a budget with room is one atomic exchange and one count. A session that finds no
//! room joins a first-in first-out line; whoever gives back next *grants* the front of the line its
//! share and calls its waker. Nobody polls, nobody is overtaken, and the lock exists only for the
//! line.
//!
//! ```text
//!   try_acquire ----room----> Permit --drop--> release --line not empty--> grant front, wake it
//!        \----no room----> Waiting --granted--> Permit
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use counters::Counts;
pub use counters::ThrottleCounters;

mod counters;

/// Called once when a waiting session was granted its share, on the releasing thread: it must only
/// pass the news on (an inbox, a flag) and return.
pub type Unblock = Arc<dyn Fn() + Send + Sync>;

/// A named budget (contracts T-2, T-3, T-9). All methods may be called from any thread and none
/// blocks beyond the short lock of the waiting line.
pub struct Throttle {
    name: String,
    max: AtomicU64,
    current: AtomicU64,
    /// Entries in `line`, readable without its lock.
    waiting: AtomicUsize,
    line: Mutex<VecDeque<Arc<Ticket>>>,
    counts: Counts,
}

struct Ticket {
    amount: u64,
    granted: AtomicBool,
    unblock: Unblock,
}

impl Throttle {
    /// A budget of `max`; 0 means unlimited, still counted.
    pub fn new(name: impl Into<String>, max: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            max: AtomicU64::new(max),
            current: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            line: Mutex::new(VecDeque::new()),
            counts: Counts::default(),
        })
    }

    /// The name under which counters are reported.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The budget; 0 is unlimited.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// What is held now.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// A snapshot of what was counted.
    pub fn counters(&self) -> ThrottleCounters {
        let waiting = self.waiting.load(Ordering::Relaxed) as u64;
        self.counts.snapshot(self.current(), self.max(), waiting)
    }

    /// Changes the budget and wakes whom the new one admits (T-9).
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::SeqCst);
        self.grant_front();
    }

    /// Takes `amount` if there is room and nobody waits already.
    pub fn try_acquire(self: &Arc<Self>, amount: u64) -> Option<Permit> {
        let is_granted = self.overtakes_nobody(amount);
        let count = if is_granted { &self.counts.tried } else { &self.counts.failed };
        count.add(1);
        is_granted.then(|| self.permit(amount))
    }

    /// Takes `amount` whether there is room or not: for what is held already and cannot wait.
    pub fn take(self: &Arc<Self>, amount: u64) -> Permit {
        self.charge(amount);
        self.permit(amount)
    }

    fn charge(&self, amount: u64) {
        self.counts.taken.add(1);
        self.counts.taken_sum.add(amount);
        self.current.fetch_add(amount, Ordering::SeqCst);
    }

    /// Takes `amount`, or joins the line and has `unblock` called when the share was granted. `now`
    /// is when a wait begins.
    pub fn acquire_or_wait(
        self: &Arc<Self>,
        now: Instant,
        amount: u64,
        unblock: &Unblock,
    ) -> Result<Permit, Waiting> {
        if self.overtakes_nobody(amount) {
            self.counts.granted.add(1);
            return Ok(self.permit(amount));
        }
        let mut line = self.line();
        // Announce first, look again second: a release in between either sees the announcement or
        // is seen by this look.
        self.waiting.store(line.len() + 1, Ordering::SeqCst);
        if line.is_empty() && self.fits(amount) {
            self.waiting.store(0, Ordering::SeqCst);
            self.counts.granted.add(1);
            return Ok(self.permit(amount));
        }
        self.counts.waited.add(1);
        let ticket =
            Arc::new(Ticket { amount, granted: AtomicBool::new(false), unblock: unblock.clone() });
        line.push_back(Arc::clone(&ticket));
        Err(Waiting { throttle: Arc::clone(self), ticket, since: now, settled: false })
    }

    /// T-3: an amount of at least the whole budget passes whenever the budget is not overdrawn, so
    /// one oversized message can never lock itself out.
    fn admits(current: u64, max: u64, amount: u64) -> bool {
        match max {
            0 => true,
            max if amount < max => current.saturating_add(amount) <= max,
            max => current <= max,
        }
    }

    fn permit(self: &Arc<Self>, amount: u64) -> Permit {
        Permit { throttle: Arc::clone(self), amount }
    }

    /// Takes the share unless somebody waits.
    fn overtakes_nobody(&self, amount: u64) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && self.fits(amount)
    }

    /// Takes the share if there is room.
    fn fits(&self, amount: u64) -> bool {
        let max = self.max.load(Ordering::SeqCst);
        self.current
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |current| {
                Self::admits(current, max, amount).then(|| current.saturating_add(amount))
            })
            .is_ok()
    }

    fn release(&self, amount: u64) {
        self.counts.put.add(1);
        self.counts.put_sum.add(amount);
        self.current.fetch_sub(amount, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.grant_front();
        }
    }

    /// Grants from the front while there is room. Wakers run without the lock.
    fn grant_front(&self) {
        loop {
            let mut line = self.line();
            let Some(front) = line.front() else { return };
            if !self.fits(front.amount) {
                return;
            }
            self.counts.granted.add(1);
            let ticket = line.pop_front().expect("the front was just seen");
            self.waiting.store(line.len(), Ordering::SeqCst);
            ticket.granted.store(true, Ordering::SeqCst);
            drop(line);
            (ticket.unblock)();
        }
    }

    /// Leaves the line. True if the share had been granted before.
    fn leave(&self, ticket: &Arc<Ticket>) -> bool {
        let mut line = self.line();
        line.retain(|other| !Arc::ptr_eq(other, ticket));
        self.waiting.store(line.len(), Ordering::SeqCst);
        ticket.granted.load(Ordering::SeqCst)
    }

    /// The line is consistent at every step, so a waker that panicked elsewhere does not spoil it.
    fn line(&self) -> MutexGuard<'_, VecDeque<Arc<Ticket>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Throttle({} {}/{})", self.name, self.current(), self.max())
    }
}

/// A share of a budget; dropping it gives the share back.
#[derive(Debug)]
#[must_use = "dropping a permit gives it back at once"]
pub struct Permit {
    throttle: Arc<Throttle>,
    amount: u64,
}

impl Permit {
    /// How much is held.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes more, whether there is room or not: for what turned out to be larger.
    pub fn grow(&mut self, by: u64) {
        self.throttle.charge(by);
        self.amount += by;
    }

    /// Gives a part back, at most all of it.
    pub fn shrink(&mut self, by: u64) {
        let part = by.min(self.amount);
        self.amount -= part;
        if part > 0 {
            self.throttle.release(part);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.throttle.release(self.amount);
    }
}

/// A place in the line of a throttle; dropping it leaves the line.
#[must_use = "dropping it leaves the line"]
pub struct Waiting {
    throttle: Arc<Throttle>,
    ticket: Arc<Ticket>,
    since: Instant,
    settled: bool,
}

impl Waiting {
    /// The permit, if the share was granted by `now`; otherwise the place in the line.
    pub fn poll(mut self, now: Instant) -> Result<Permit, Self> {
        if !self.ticket.granted.load(Ordering::SeqCst) {
            return Err(self);
        }
        self.settled = true;
        self.throttle.counts.add_wait(now.saturating_duration_since(self.since));
        Ok(self.throttle.permit(self.ticket.amount))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if self.throttle.leave(&self.ticket) {
            self.throttle.release(self.ticket.amount);
        } else {
            self.throttle.counts.left.add(1);
            // Whoever stood behind may fit now.
            self.throttle.grant_front();
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Waiting({} of {:?})", self.ticket.amount, self.throttle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn counting() -> (Unblock, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let unblock: Unblock = Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        (unblock, calls)
    }

    #[test]
    fn a_small_amount_waits_when_the_sum_is_too_much() {
        let throttle = Throttle::new("t", 10);
        let held = throttle.try_acquire(7).unwrap();
        assert!(throttle.try_acquire(4).is_none());
        let more = throttle.try_acquire(3).unwrap();
        assert_eq!(throttle.current(), 10);
        drop((held, more));
        assert_eq!(throttle.current(), 0);
    }

    #[test]
    fn an_oversized_amount_passes_unless_the_budget_is_overdrawn() {
        let throttle = Throttle::new("t", 10);
        let held = throttle.try_acquire(10).unwrap();
        let oversized = throttle.try_acquire(50).unwrap();
        assert!(throttle.try_acquire(50).is_none());
        drop(held);
        assert!(throttle.try_acquire(1).is_none());
        drop(oversized);
        assert!(throttle.try_acquire(1).is_some());
    }

    #[test]
    fn a_part_of_a_permit_can_go_back_early() {
        let throttle = Throttle::new("t", 10);
        let (unblock, calls) = counting();
        let mut held = throttle.try_acquire(10).unwrap();
        let waiting = throttle.acquire_or_wait(Instant::now(), 4, &unblock).unwrap_err();
        held.shrink(3);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        held.shrink(1);
        let granted = waiting.poll(Instant::now()).unwrap();
        held.shrink(100);
        assert_eq!((held.amount(), throttle.current()), (0, 4));
        drop((held, granted));
        assert_eq!(throttle.current(), 0);
    }

    #[test]
    fn a_permit_that_grows_counts_for_more() {
        let throttle = Throttle::new("t", 10);
        let mut held = throttle.try_acquire(3).unwrap();
        held.grow(20);
        assert_eq!((held.amount(), throttle.current()), (23, 23));
        assert!(throttle.try_acquire(1).is_none());
        drop(held);
        assert_eq!(throttle.current(), 0);
    }

    #[test]
    fn zero_means_unlimited_but_counted() {
        let throttle = Throttle::new("t", 0);
        let held = throttle.try_acquire(1 << 40).unwrap();
        assert_eq!(throttle.current(), held.amount());
    }

    #[test]
    fn waiters_are_granted_in_the_order_they_came() {
        let now = Instant::now();
        let throttle = Throttle::new("t", 10);
        let (unblock, calls) = counting();
        let held = throttle.try_acquire(10).unwrap();
        let first = throttle.acquire_or_wait(now, 9, &unblock).unwrap_err();
        let second = throttle.acquire_or_wait(now, 1, &unblock).unwrap_err();
        let third = throttle.acquire_or_wait(now, 1, &unblock).unwrap_err();
        assert!(throttle.try_acquire(0).is_none(), "nobody overtakes the line");

        drop(held);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        let first = first.poll(now).unwrap();
        let second = second.poll(now).unwrap();
        let third = third.poll(now).unwrap_err();

        drop(second);
        assert!(third.poll(now).is_ok());
        drop(first);
        assert_eq!(throttle.current(), 0);
    }

    #[test]
    fn who_leaves_the_line_lets_the_next_one_in() {
        let now = Instant::now();
        let throttle = Throttle::new("t", 10);
        let (unblock, calls) = counting();
        let held = throttle.try_acquire(6).unwrap();
        let big = throttle.acquire_or_wait(now, 8, &unblock).unwrap_err();
        let small = throttle.acquire_or_wait(now, 2, &unblock).unwrap_err();
        drop(big);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(small);
        drop(held);
        assert_eq!(throttle.current(), 0, "a granted share that nobody fetched came back");
    }

    #[test]
    fn a_larger_budget_wakes_waiters() {
        let now = Instant::now();
        let throttle = Throttle::new("t", 2);
        let (unblock, calls) = counting();
        let _held = throttle.try_acquire(2).unwrap();
        let waiting = throttle.acquire_or_wait(now, 1, &unblock).unwrap_err();
        throttle.set_max(3);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(waiting.poll(now).is_ok());
    }

    #[test]
    fn threads_never_hold_more_than_the_budget_and_all_get_through() {
        let now = Instant::now();
        let throttle = Throttle::new("t", 3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let thread = std::thread::current();
                        let unblock: Unblock = Arc::new(move || thread.unpark());
                        let mut claim = throttle.acquire_or_wait(now, 2, &unblock);
                        let permit = loop {
                            match claim {
                                Ok(permit) => break permit,
                                Err(waiting) => {
                                    std::thread::park();
                                    claim = waiting.poll(now);
                                }
                            }
                        };
                        assert!(throttle.current() <= 3);
                        drop(permit);
                    }
                });
            }
        });
        let counters = throttle.counters();
        assert_eq!((counters.val, counters.get, counters.put), (0, 8_000, 8_000));
        assert_eq!((counters.get_started, counters.get_sum), (8_000, 16_000));
    }

    #[test]
    fn what_happens_is_counted_under_the_names_ceph_gives_it() {
        let throttle = Throttle::new("t", 10);
        let (unblock, _) = counting();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);

        let tried = throttle.try_acquire(4).unwrap();
        assert!(throttle.try_acquire(7).is_none());
        let got = throttle.acquire_or_wait(start, 6, &unblock).unwrap();
        let waiting = throttle.acquire_or_wait(start, 5, &unblock).unwrap_err();
        let leaving = throttle.acquire_or_wait(start, 1, &unblock).unwrap_err();
        let counters = throttle.counters();
        assert_eq!((counters.val, counters.max), (10, 10));
        assert_eq!((counters.get_started, counters.get, counters.get_sum), (3, 2, 10));
        assert_eq!((counters.get_or_fail_success, counters.get_or_fail_fail), (1, 1));
        assert_eq!((counters.wait_count, counters.wait_sum), (2, Duration::ZERO));

        drop(leaving);
        drop(got);
        let waited = waiting.poll(at(30)).unwrap();
        let taken = throttle.take(100);
        let counters = throttle.counters();
        assert_eq!((counters.val, counters.take, counters.take_sum), (109, 1, 100));
        assert_eq!((counters.get_started, counters.get, counters.get_sum), (3, 3, 15));
        assert_eq!((counters.wait_count, counters.wait_sum), (2, Duration::from_millis(30)));

        drop((tried, waited, taken));
        let counters = throttle.counters();
        assert_eq!((counters.val, counters.put, counters.put_sum), (0, 4, 115));
        assert_eq!((counters.get_sum, counters.take_sum), (15, 100));
        let named = counters.named();
        assert!(named.contains(&("get_or_fail_success", 1)));
        assert!(named.contains(&("wait_sum_us", 30_000)));
    }
}
