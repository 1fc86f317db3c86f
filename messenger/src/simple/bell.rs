//! What one thread sleeps on and any other rings. A ring is never lost: it ends the sleep there is,
//! or else the next one. Several count as one.
//!
//! Its lock is held by nobody who takes another, so it may be rung under any lock.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    woken: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.lock() = true;
        self.woken.notify_one();
    }

    /// Sleeps until it is rung, at the longest until `limit`.
    pub(super) fn sleep(&self, limit: Option<Instant>) {
        let mut rung = self.lock();
        while !std::mem::take(&mut *rung) {
            rung = match limit.map(|limit| limit.saturating_duration_since(Instant::now())) {
                Some(left) if left.is_zero() => return,
                Some(left) => {
                    let woken = self.woken.wait_timeout(rung, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.woken.wait(rung).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rings_before_a_sleep_end_it_and_count_as_one() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        bell.sleep(None);
        let limit = Instant::now() + Duration::from_millis(5);
        bell.sleep(Some(limit));
        assert!(Instant::now() >= limit, "the second ring was lost in the first");
    }

    #[test]
    fn a_sleeper_is_woken() {
        let bell = Bell::default();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| bell.sleep(None));
            bell.ring();
            sleeper.join().unwrap();
        });
    }
}
