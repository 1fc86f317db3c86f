//! What a worker does when there is nothing to do.
//!
//! ```text
//!   last work ---- SPIN_TURNS ----> give the core away ---- spin ----> nap, look, nap, look ...
//!                  poll at once     Yield, Adaptive                    or sleep until a frame comes
//! ```
//!
//! Polling costs a core, sleeping costs latency. [`IdlePolicy::Adaptive`] polls as long as another
//! packet is likely soon. Then, over a device with a file that tells of frames
//! ([`PacketDevice::arrivals`](crate::device::PacketDevice::arrivals)), it sleeps until there is
//! one; over others it naps, and a packet that ends a silence waits for a nap's end. One that
//! follows another waits for neither. A sender on this machine ends both at once.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::stack::Waker;

/// Quiet turns in which every policy polls on: some ten microseconds, in which an answer from the
/// same machine is there.
const SPIN_TURNS: u32 = 128;
/// How exactly the kernel ends naps, in nanoseconds. Its default adds 50 us to each.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;
/// Longest sleep over a device that tells of its frames, should it fail to once.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// What a worker does after a number of turns in which nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IdlePolicy {
    /// Polls on: least latency, a whole core.
    Spin,
    /// Lets another thread run that waits for this core, if there is one.
    #[default]
    Yield,
    /// Yields, and sleeps or naps when nothing has happened for a while.
    Adaptive {
        /// Silence after which it does.
        spin: Duration,
        /// Longest nap where the device does not tell of frames; a packet that ends the silence
        /// may wait for so long. Each costs some ten microseconds of the core.
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
    /// Only for a policy that sleeps.
    bell: Option<Arc<Bell>>,
    /// Readable when frames wait.
    arrivals: Option<OwnedFd>,
    naps: u64,
}

impl Rest {
    /// `arrivals` is the device's file that tells of frames, if they come in no other way.
    ///
    /// # Errors
    /// If a policy that sleeps cannot have a file to be woken by.
    pub(super) fn new(policy: IdlePolicy, arrivals: Option<OwnedFd>) -> io::Result<Self> {
        let bell = match policy {
            IdlePolicy::Adaptive { .. } => Some(Arc::new(Bell::new()?)),
            IdlePolicy::Spin | IdlePolicy::Yield => None,
        };
        Ok(Self { policy, quiet_turns: 0, quiet_since: None, bell, arrivals, naps: 0 })
    }

    /// This thread will rest.
    pub(super) fn start(&self) {
        if self.bell.is_some() {
            // Where that is refused naps are longer, and nothing else.
            let _ = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK));
        }
    }

    /// Ends a nap or a sleep.
    pub(super) fn waker(&self) -> Waker {
        match &self.bell {
            None => Waker::noop(),
            Some(bell) => {
                let bell = Arc::clone(bell);
                Waker::new(move || bell.ring())
            }
        }
    }

    /// Naps and sleeps.
    pub(super) fn naps(&self) -> u64 {
        self.naps
    }

    /// Something happened.
    #[inline]
    pub(super) fn disturb(&mut self) {
        self.quiet_turns = 0;
    }

    /// Nothing happened in the turn of time `now`; whether it has been quiet for long enough to
    /// [sleep](Rest::sleep).
    #[inline]
    pub(super) fn after_quiet_turn(&mut self, now: Instant) -> bool {
        if self.quiet_turns == 0 {
            self.quiet_since = Some(now);
        }
        self.quiet_turns = self.quiet_turns.saturating_add(1);
        if self.quiet_turns < SPIN_TURNS {
            std::hint::spin_loop();
            return false;
        }
        match self.policy {
            IdlePolicy::Spin => std::hint::spin_loop(),
            IdlePolicy::Adaptive { spin, .. } if self.is_quiet_for(spin, now) => return true,
            IdlePolicy::Yield | IdlePolicy::Adaptive { .. } => thread::yield_now(),
        }
        false
    }

    /// Sleeps or naps from `now` on; not beyond `deadline`, when something will happen by itself.
    pub(super) fn sleep(&mut self, now: Instant, deadline: Option<Instant>) {
        let (IdlePolicy::Adaptive { nap, .. }, Some(bell)) = (self.policy, &self.bell) else {
            return;
        };
        let most = if self.arrivals.is_some() { LONGEST_SLEEP } else { nap };
        let left = deadline.map_or(most, |at| at.saturating_duration_since(now).min(most));
        if left > Duration::ZERO {
            self.naps += 1;
            bell.sleep(self.arrivals.as_ref(), left);
        }
    }

    fn is_quiet_for(&self, spin: Duration, now: Instant) -> bool {
        self.quiet_since.is_some_and(|since| now.duration_since(since) >= spin)
    }
}

/// Wakes one sleeper; ringing it costs a system call only while that one sleeps.
#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    file: OwnedFd,
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
/// Rung since it last slept: the next sleep is over at once.
const RUNG: u8 = 2;

impl Bell {
    fn new() -> io::Result<Self> {
        let file = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { state: AtomicU8::new(AWAKE), file })
    }

    fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            // It can only fail because it was rung some 2^64 times.
            let _ = rustix::io::write(&self.file, &1_u64.to_ne_bytes());
        }
    }

    /// Sleeps until it rings, there is something to read in `other`, or `time` is over.
    fn sleep(&self, other: Option<&OwnedFd>, time: Duration) {
        let (set, failed) = (Ordering::AcqRel, Ordering::Acquire);
        if self.state.compare_exchange(AWAKE, ASLEEP, set, failed).is_ok() {
            let files = [&self.file].into_iter().chain(other);
            let mut files: ArrayVec<_, 2> =
                files.map(|file| PollFd::new(file, PollFlags::IN)).collect();
            let time = Timespec::try_from(time).ok();
            // A signal ends a sleep early, as a frame does.
            let _ = poll(&mut files, time.as_ref());
            if !files[0].revents().is_empty() {
                let _ = rustix::io::read(&self.file, &mut [0; 8]);
            }
        }
        // Whoever rang since then is seen to in the turn that follows.
        self.state.swap(AWAKE, Ordering::AcqRel);
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
        let mut rest = Rest::new(policy, None).unwrap();
        rest.start();
        for turn in 0..turns {
            let now = begin + quiet * turn / (turns - 1);
            if rest.after_quiet_turn(now) {
                rest.sleep(now, deadline.map(|deadline| now + deadline));
            }
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
        let mut rest = Rest::new(IdlePolicy::Adaptive { spin: SPIN, nap: NAP }, None).unwrap();
        for _ in 0..SPIN_TURNS {
            rest.after_quiet_turn(begin);
        }
        rest.disturb();
        for _ in 0..2 * SPIN_TURNS {
            let is_quiet = rest.after_quiet_turn(begin + SPIN);
            assert!(!is_quiet, "this silence began with the first turn after the work");
        }
        assert!(rest.after_quiet_turn(begin + 2 * SPIN));
    }

    /// Sleeps until something ends it.
    fn sleep(rest: &mut Rest) {
        rest.sleep(Instant::now(), None);
    }

    #[test]
    fn a_sender_ends_a_nap_and_the_next_one_if_it_came_between() {
        let nap = Duration::from_secs(600);
        let mut rest = Rest::new(IdlePolicy::Adaptive { spin: Duration::ZERO, nap }, None).unwrap();
        let waker = rest.waker();
        let bell = Arc::clone(rest.bell.as_ref().unwrap());
        waker.wake();
        waker.wake();
        sleep(&mut rest);
        let worker = thread::spawn(move || {
            sleep(&mut rest);
            rest.naps()
        });
        while bell.state.load(Ordering::Acquire) != ASLEEP {
            thread::yield_now();
        }
        waker.wake();
        assert_eq!(worker.join().unwrap(), 2);
    }

    #[test]
    fn a_frame_ends_a_sleep() {
        let (arrivals, sender) = rustix::pipe::pipe().unwrap();
        let policy = IdlePolicy::Adaptive { spin: SPIN, nap: NAP };
        let mut rest = Rest::new(policy, Some(arrivals)).unwrap();
        let bell = Arc::clone(rest.bell.as_ref().unwrap());
        let worker = thread::spawn(move || {
            // A machine that is very slow to look may see the end of the first sleep.
            while rustix::io::ioctl_fionread(rest.arrivals.as_ref().unwrap()).unwrap() == 0 {
                sleep(&mut rest);
            }
            let before = rest.naps();
            sleep(&mut rest);
            rest.naps() - before
        });
        while bell.state.load(Ordering::Acquire) != ASLEEP {
            thread::yield_now();
        }
        rustix::io::write(&sender, b"x").unwrap();
        assert_eq!(worker.join().unwrap(), 1, "it does not sleep while there is something");
    }
}
