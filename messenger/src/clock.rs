//! The time, as everything in this crate reads it: the machine's, or one that a driver moves.
//!
//! Nothing else here asks the machine for the time, so whoever drives the workers of several
//! hosts on one thread (see [`Driven`](crate::Driven)) also decides how late it is for all of
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a virtual clock shows at its beginning, since the Unix epoch.
const VIRTUAL_UNIX: Duration = Duration::from_secs(1_700_000_000);

/// A clock. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Virtual>>);

#[derive(Debug)]
struct Virtual {
    base: Instant,
    /// Nanoseconds since `base`; never goes back.
    passed: AtomicU64,
}

impl Clock {
    /// The machine's clock.
    pub fn real() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`Clock::advance_to`] moves it.
    pub fn virtual_from(base: Instant) -> Self {
        Self(Some(Arc::new(Virtual { base, passed: AtomicU64::new(0) })))
    }

    /// Now.
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(clock) => clock.base + clock.passed(),
        }
    }

    /// Now, since the Unix epoch.
    pub fn unix(&self) -> Duration {
        match &self.0 {
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Some(clock) => VIRTUAL_UNIX + clock.passed(),
        }
    }

    /// Moves a virtual clock on to `time`; times that have passed, and the machine's clock, are
    /// left as they are.
    pub fn advance_to(&self, time: Instant) {
        if let Some(clock) = &self.0 {
            let passed = time.saturating_duration_since(clock.base).as_nanos();
            let passed = u64::try_from(passed).unwrap_or(u64::MAX);
            clock.passed.fetch_max(passed, Ordering::AcqRel);
        }
    }

    /// Lets a time pass: the thread sleeps, or a virtual clock is moved on.
    pub(crate) fn sleep(&self, time: Duration) {
        match &self.0 {
            None => std::thread::sleep(time),
            Some(_) => self.advance_to(self.now() + time),
        }
    }
}

impl Virtual {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_clock_moves_when_told_and_never_back() {
        let base = Instant::now();
        let clock = Clock::virtual_from(base);
        let (other, unix) = (clock.clone(), clock.unix());
        assert_eq!(clock.now(), base);
        clock.advance_to(base + Duration::from_secs(3));
        clock.advance_to(base + Duration::from_secs(1));
        other.sleep(Duration::from_secs(2));
        assert_eq!(clock.now(), base + Duration::from_secs(5));
        assert_eq!(clock.unix() - unix, Duration::from_secs(5));
    }

    #[test]
    fn the_machines_clock_is_not_moved() {
        let clock = Clock::real();
        clock.advance_to(Instant::now() + Duration::from_secs(3600));
        assert!(clock.now() < Instant::now() + Duration::from_secs(60));
    }
}
