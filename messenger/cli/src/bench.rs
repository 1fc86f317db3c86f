//! `msgr bench`: loads whose figures can be defended.
//!
//! ```text
//!   load -> lanes of generators (pure) -> over_messenger | yardstick  ==>  server
//!                 |                                                          |
//!              records, a second at a time  --> report <-- its half of the run
//! ```
//!
//! The generator knows time only as an argument and sends nothing; the two clients send what it
//! says. `pair` starts both ends on this machine, and `ab`, `sweep` and `compare` make statements
//! from several runs.

mod ab;
mod client;
mod compare;
mod comparison;
mod environment;
mod generator;
mod html;
mod lanes;
mod load;
mod meter;
mod over_messenger;
mod pair;
mod random;
mod report;
mod run;
mod save;
mod server;
mod statistics;
mod sweep;
mod yardstick;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use rustix::thread::{CpuSet, sched_setaffinity};

#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a `msgr bench serve`, or a pair of both ends started here
    Run(Box<run::RunArgs>),
    /// Two pairs in turn; exit code 3: B is ahead
    Ab(Box<ab::AbArgs>),
    /// One pair under rising load: the highest rate that keeps a bound
    Sweep(Box<sweep::SweepArgs>),
    /// Records of earlier runs, side by side; exit code 3: the second side is ahead
    Compare(compare::CompareArgs),
    /// Answer loads, until SIGINT or SIGTERM
    Serve(server::ServeArgs),
}

pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::Ab(args) => ab::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Serve(args) => server::run(args).map(|()| ExitCode::SUCCESS),
    }
}

/// Keeps this thread, and those it starts from now, on some CPUs; none: leaves it where it is.
fn pin(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        anyhow::ensure!(*cpu < CpuSet::MAX_CPU, "there is no CPU {cpu}");
        set.set(*cpu);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPUs {cpus:?}"))
}
