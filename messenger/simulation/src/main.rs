//! Runs seeds of the simulation: one to look at it closely, or many.

use clap::Parser;
use messenger_simulation::{Failure, run, sweep};
use std::process::ExitCode;

/// Whole messengers over a simulated network, one seed or many.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Run this seed twice and compare
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Begin with this one
    #[arg(long, default_value_t = 0)]
    first: u64,
}

fn main() -> ExitCode {
    let Options { seed, seeds, first } = Options::parse();
    let outcome = match seed {
        Some(seed) => run_twice(seed),
        None => sweep(first..first + seeds).map(|sweep| println!("{sweep}")),
    };
    if let Err(failure) = &outcome {
        println!("{failure}");
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_twice(seed: u64) -> Result<(), Box<Failure>> {
    let (report, again) = (run(seed)?, run(seed)?);
    println!("{report:#?}");
    if report == again {
        return Ok(());
    }
    let what = format!("another run when run again: {again:#?}");
    Err(Box::new(Failure { seed, what, tail: String::new() }))
}
