//! Many seeds on all cores, each run on one.

use crate::history::Tally;
use crate::run::{Failure, run};
use std::fmt;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{available_parallelism, scope};
use std::time::{Duration, Instant};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Which seeds.
    pub seeds: Range<u64>,
    /// How often what happened.
    pub tally: Tally,
    /// Real time.
    pub took: Duration,
}

/// Runs the seeds until one fails.
///
/// # Errors
/// The failure.
pub fn sweep(seeds: Range<u64>) -> Result<Sweep, Box<Failure>> {
    let start = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let work = || -> Result<Tally, Box<Failure>> {
        let mut sum = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(sum);
            }
            // After a failure the others stop too.
            let report = run(seed).inspect_err(|_| next.store(seeds.end, Ordering::Relaxed))?;
            sum += report.tally;
        }
    };
    let cores = available_parallelism().map_or(1, usize::from);
    let outcomes = scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut tally = Tally::default();
    for outcome in outcomes {
        tally += outcome.unwrap_or_else(|panic| resume_unwind(panic))?;
    }
    Ok(Sweep { seeds, tally, took: start.elapsed() })
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.seeds.end - self.seeds.start;
        let rate = count as f64 / self.took.as_secs_f64();
        write!(f, "{count} seeds from {}, {rate:.0} seeds/s: {:?}", self.seeds.start, self.tally)
    }
}
