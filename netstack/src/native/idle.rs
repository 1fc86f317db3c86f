//! What a worker does when there is nothing to do.
//!
//! ```text
//!   last work ---- SPIN_TURNS ----> give the core away ---- spin ----> nap, look, nap, look ...
//!                  poll at once     Yield, Adaptive                    Adaptive
//! ```
//!
//! Polling costs a core, sleeping costs latency. [`IdlePolicy::Adaptive`] polls as long as another
//! packet is likely soon and then naps: a packet that ends a silence waits for a nap's end, one that
//! follows another does not. A sender on this machine ends a nap at once.

use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::stack::Waker;

/// Quiet turns in which every policy polls on: some ten microseconds, in which an answer from the
/// same machine is there.
const SPIN_TURNS: u32 = 128;
/// How exactly the kernel ends naps, in nanoseconds. Its default adds 50 us to each.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;

/// What a worker does after a number of turns in which nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IdlePolicy {
    /// Polls on: least latency, a whole core.
    Spin,
    /// Lets another thread run that waits for this core, if there is one.
    #[default]
    Yield,
    /// Yields, and naps when nothing has happened for a while.
    Adaptive {
        /// Silence after which it naps.
        spin: Duration,
        /// Longest nap, which a packet that ends the silence may wait. Each costs some ten
        /// microseconds of the core.
        nap: Duration,
    },
}

/// How long it has been quiet, and what to do about it.
#[derive(Debug)]
pub(super) struct Rest {
    policy: IdlePolicy,
    quiet_turns: u32,
    /// The first of them.
    quiet_since: Option<Instant>,
    /// Who naps, once it is known.
    sleeper: Arc<OnceLock<Thread>>,
    naps: u64,
}

impl Rest {
    pub(super) fn new(policy: IdlePolicy) -> Self {
        Self { policy, quiet_turns: 0, quiet_since: None, sleeper: Arc::default(), naps: 0 }
    }

    /// This thread will rest.
    pub(super) fn start(&self) {
        if matches!(self.policy, IdlePolicy::Adaptive { .. }) {
            let _ = self.sleeper.set(thread::current());
            // Where that is refused naps are longer, and nothing else.
            let _ = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK));
        }
    }

    /// Ends a nap.
    pub(super) fn waker(&self) -> Waker {
        if !matches!(self.policy, IdlePolicy::Adaptive { .. }) {
            return Waker::noop();
        }
        let sleeper = Arc::clone(&self.sleeper);
        Waker::new(move || {
            if let Some(thread) = sleeper.get() {
                thread.unpark();
            }
        })
    }

    /// Naps taken.
    pub(super) fn naps(&self) -> u64 {
        self.naps
    }

    /// Something happened.
    pub(super) fn disturb(&mut self) {
        self.quiet_turns = 0;
    }

    /// Nothing happened in the turn of time `now`, and nothing will by itself before `deadline`.
    pub(super) fn after_quiet_turn(&mut self, now: Instant, deadline: Option<Instant>) {
        if self.quiet_turns == 0 {
            self.quiet_since = Some(now);
        }
        self.quiet_turns = self.quiet_turns.saturating_add(1);
        if self.quiet_turns < SPIN_TURNS {
            return std::hint::spin_loop();
        }
        let quiet = self.quiet_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        match self.policy {
            IdlePolicy::Spin => std::hint::spin_loop(),
            IdlePolicy::Adaptive { spin, nap } if quiet >= spin => {
                let left = deadline.map_or(nap, |deadline| deadline.duration_since(now).min(nap));
                if left > Duration::ZERO {
                    self.naps += 1;
                    thread::park_timeout(left);
                }
            }
            IdlePolicy::Yield | IdlePolicy::Adaptive { .. } => thread::yield_now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIN: Duration = Duration::from_millis(1);
    const NAP: Duration = Duration::from_micros(10);

    /// Naps in `turns` quiet turns, the last of which is `quiet` after the first.
    fn naps(policy: IdlePolicy, turns: u32, quiet: Duration, deadline: Option<Duration>) -> u64 {
        let begin = Instant::now();
        let mut rest = Rest::new(policy);
        rest.start();
        for turn in 0..turns {
            let now = begin + quiet * turn / (turns - 1);
            rest.after_quiet_turn(now, deadline.map(|deadline| now + deadline));
        }
        rest.naps()
    }

    #[test]
    fn only_the_adaptive_policy_naps_and_only_after_a_silence() {
        let adaptive = IdlePolicy::Adaptive { spin: SPIN, nap: NAP };
        assert_eq!(naps(IdlePolicy::Spin, 1000, 2 * SPIN, None), 0);
        assert_eq!(naps(IdlePolicy::Yield, 1000, 2 * SPIN, None), 0);
        assert_eq!(naps(adaptive, 1000, SPIN / 2, None), 0, "not yet");
        assert_eq!(naps(adaptive, SPIN_TURNS - 1, 2 * SPIN, None), 0, "too few turns");
        assert_eq!(naps(adaptive, 1001, 2 * SPIN, None), 501, "from the middle on");
        assert_eq!(naps(adaptive, 1001, 2 * SPIN, Some(Duration::ZERO)), 0, "work is due");
    }

    #[test]
    fn work_ends_a_silence() {
        let begin = Instant::now();
        let mut rest = Rest::new(IdlePolicy::Adaptive { spin: SPIN, nap: NAP });
        for _ in 0..SPIN_TURNS {
            rest.after_quiet_turn(begin, None);
        }
        rest.disturb();
        for _ in 0..2 * SPIN_TURNS {
            rest.after_quiet_turn(begin + SPIN, None);
        }
        assert_eq!(rest.naps(), 0, "this silence began with the first turn after the work");
        rest.after_quiet_turn(begin + 2 * SPIN, None);
        assert_eq!(rest.naps(), 1);
    }

    #[test]
    fn a_sender_ends_a_nap() {
        let policy = IdlePolicy::Adaptive { spin: Duration::ZERO, nap: Duration::from_secs(600) };
        let mut rest = Rest::new(policy);
        let waker = rest.waker();
        let sleeper = Arc::clone(&rest.sleeper);
        let worker = thread::spawn(move || {
            rest.start();
            for _ in 0..SPIN_TURNS {
                rest.after_quiet_turn(Instant::now(), None);
            }
            rest.naps()
        });
        while sleeper.get().is_none() {
            thread::yield_now();
        }
        waker.wake(); // before the nap or in it
        assert_eq!(worker.join().unwrap(), 1);
    }
}
