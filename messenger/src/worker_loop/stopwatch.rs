//! The clock of a turn: read at the borders of its phases, so that the end of one is the start of
//! the next.

use crate::clock::Clock;
use std::time::{Duration, Instant};

/// Measures phases that follow each other without a gap.
#[derive(Debug)]
pub(super) struct Stopwatch {
    clock: Clock,
    last: Instant,
}

impl Stopwatch {
    pub(super) fn start(clock: Clock) -> Self {
        let last = clock.now();
        Self { clock, last }
    }

    /// The border that was crossed last.
    pub(super) fn last(&self) -> Instant {
        self.last
    }

    /// The time at this moment; begins nothing.
    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Ends a phase: how long it was. One clock read.
    pub(super) fn lap(&mut self) -> Duration {
        let begin = std::mem::replace(&mut self.last, self.clock.now());
        self.last.saturating_duration_since(begin)
    }
}
