//! The clock of a turn: read at the borders of its phases, so that the end of one is the start of
//! the next.

use std::time::{Duration, Instant};

/// Measures phases that follow each other without a gap.
#[derive(Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// The border that was crossed last.
    pub(super) fn last(&self) -> Instant {
        self.0
    }

    /// Ends a phase: how long it was. One clock read.
    pub(super) fn lap(&mut self) -> Duration {
        let begin = std::mem::replace(&mut self.0, Instant::now());
        self.0.saturating_duration_since(begin)
    }
}
