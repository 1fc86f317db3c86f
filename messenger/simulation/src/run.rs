//! One seed, from its plan to a verdict.

use crate::history::Tally;
use crate::plan::Plan;
use crate::world::World;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A run in which everything was as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which one.
    pub seed: u64,
    /// Over every event with its time, and what the network did.
    pub hash: u64,
    /// How often what happened.
    pub tally: Tally,
    /// Virtual time.
    pub elapsed: Duration,
    /// Steps of the clock.
    pub steps: u64,
    /// Frames the network carried, and how many of those it damaged.
    pub frames: (u64, u64),
}

/// A run in which something was not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which one.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
    /// The last events.
    pub tail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, tail } = self;
        write!(f, "{tail}seed {seed}: {what}\nagain: make simulate SEED={seed}")
    }
}

impl std::error::Error for Failure {}

/// Runs the plan of one seed.
///
/// # Errors
/// If anything happens that must not.
pub fn run(seed: u64) -> Result<Report, Box<Failure>> {
    run_plan(&Plan::new(seed))
}

/// Runs a plan.
///
/// # Errors
/// If anything happens that must not.
pub fn run_plan(plan: &Plan) -> Result<Report, Box<Failure>> {
    let mut world = World::new(plan.seed, plan.cast.clone(), plan.tuning.clone());
    // After a panic the world is only looked at.
    let outcome = catch_unwind(AssertUnwindSafe(|| play(&mut world, plan)));
    let outcome = outcome.unwrap_or_else(|panic| Err(words_of(&*panic)));
    outcome.map_err(|what| {
        let tail = world.history().tail();
        // What panicked once may panic again when it is dropped.
        std::mem::forget(world);
        Box::new(Failure { seed: plan.seed, what, tail })
    })
}

fn play(world: &mut World, plan: &Plan) -> Result<Report, String> {
    for (at, action) in &plan.actions {
        world.run(at.saturating_sub(world.elapsed()))?;
        world.apply(*action);
    }
    world.heal();
    world.drain()?;
    world.probe()?;
    world.close()?;
    let stats: Vec<_> = (0..plan.cast.members.len()).map(|host| world.net().stats(host)).collect();
    let frames = stats.iter().map(|stats| (stats.sent, stats.corrupted));
    let frames = frames.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let mut hasher = DefaultHasher::new();
    (world.history().hash(), frames, world.steps(), world.elapsed()).hash(&mut hasher);
    Ok(Report {
        seed: plan.seed,
        hash: hasher.finish(),
        tally: world.tally(),
        elapsed: world.elapsed(),
        steps: world.steps(),
        frames,
    })
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", words.unwrap_or("without words"))
}
