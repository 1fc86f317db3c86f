//! The messages that one read from a socket brought, on their way to dispatchers: timed together,
//! because a clock read costs about as much as a small message.

use super::Tools;
use std::time::Instant;

/// A batch that is being dispatched.
#[derive(Debug)]
pub(super) struct Batch {
    begin: Instant,
    fast_dispatched: u64,
}

impl Batch {
    pub(super) fn begin<W>(tools: &Tools<W>) -> Self {
        Self { begin: Instant::now(), fast_dispatched: tools.counters.fast_dispatched }
    }

    /// Counts the time if a dispatcher took one of them here; queueing is not dispatching.
    pub(super) fn end<W>(self, tools: &mut Tools<W>) {
        if tools.counters.fast_dispatched > self.fast_dispatched {
            tools.counters.fast_dispatch_time += self.begin.elapsed();
        }
    }
}
