//! `msgr bench sweep`: one pair under rising load, and the highest rate that keeps a bound.
//!
//! A closed loop doubles its depth. An open loop doubles its rate until the bound or the run is
//! broken, and then halves what is between the last good rate and the first bad one.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::bench::ab::{Output, Pins, measure_any};
use crate::bench::load::{LoadArgs, Pace};
use crate::bench::pair::Spec;
use crate::bench::report::{Report, SCHEMA};
use crate::bench::save;
use crate::report::{aligned, thousands};

/// Most runs of a search.
const STEPS_MAX: usize = 64;
/// A search ends when the first bad rate is less than so much above the last good one.
const CLOSE_ENOUGH: f64 = 1.05;

#[derive(Debug, clap::Args)]
pub(crate) struct SweepArgs {
    /// A pair, as for `msgr bench run`
    #[arg(value_name = "PAIR")]
    spec: Spec,
    /// The load to begin with: --depth or --rate rises from what is given
    #[command(flatten)]
    load: LoadArgs,
    /// Closed loop: the depth to end with
    #[arg(long, value_name = "N", default_value_t = 64)]
    to: usize,
    /// The bound: microseconds that 99 % of messages may take at most
    #[arg(long, value_name = "US")]
    p99_below: Option<f64>,
    /// Open loop: most runs
    #[arg(long, value_name = "N", default_value_t = 16)]
    steps: usize,
    #[command(flatten)]
    pins: Pins,
    #[command(flatten)]
    output: Output,
}

/// All steps of a sweep.
#[derive(Debug, Serialize)]
pub(crate) struct Sweep {
    schema: u32,
    pair: String,
    p99_below_us: Option<f64>,
    /// The highest rate whose run was valid and kept the bound.
    best_messages_per_s: Option<f64>,
    pub(crate) steps: Vec<Step>,
}

/// One run of a sweep.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    keeps_bound: bool,
    pub(crate) run: Report,
}

pub(crate) fn run(args: &SweepArgs) -> Result<ExitCode> {
    save::check(&args.output.save, &save::OF_MANY)?;
    if args.steps == 0 || args.steps > STEPS_MAX {
        bail!("--steps is 1 to {STEPS_MAX}");
    }
    let load = args.load.load()?;
    let mut sweep = Sweep {
        schema: SCHEMA,
        pair: args.spec.to_string(),
        p99_below_us: args.p99_below,
        best_messages_per_s: None,
        steps: Vec::new(),
    };
    match load.pace {
        Pace::Closed { depth, think_time_s } => {
            let mut depth = depth;
            while depth <= args.to {
                sweep.step(args, format!("depth {depth}"), Pace::Closed { depth, think_time_s })?;
                depth *= 2;
            }
        }
        Pace::Open { rate_per_s, arrivals } => {
            let mut search = Search::new(rate_per_s);
            for _ in 0..args.steps {
                let Some(rate_per_s) = search.next() else {
                    break;
                };
                let pace = Pace::Open { rate_per_s, arrivals };
                let is_good = sweep.step(args, format!("{rate_per_s:.0} msg/s"), pace)?;
                search.learn(is_good);
            }
        }
    }
    let best = sweep.steps.iter().filter(|step| step.keeps_bound);
    sweep.best_messages_per_s = best.map(|step| step.run.messages_per_s).reduce(f64::max);
    save::write_sweep(&args.output.save, &sweep)?;
    match args.output.json {
        true => println!("{}", serde_json::to_string(&sweep)?),
        false => print!("\n{}", sweep.text()),
    }
    Ok(ExitCode::SUCCESS)
}

impl Sweep {
    /// Makes one run; whether it was valid and kept the bound.
    fn step(&mut self, args: &SweepArgs, name: String, pace: Pace) -> Result<bool> {
        let load = args.load.load_at(pace)?;
        let (run, outcome) = measure_any(&args.spec, &load, &args.pins)?;
        if let Some(why) = &run.ended_early {
            bail!("{name}: {why}");
        }
        let keeps_bound =
            run.valid && args.p99_below.is_none_or(|bound| run.latency_us.p99 <= bound);
        if !args.output.json {
            let p99 = run.latency_us.p99;
            let rate = thousands(run.messages_per_s);
            let note = outcome.err().map_or_else(String::new, |why| format!("  {why:#}"));
            println!("{name:>16} {rate:>11} msg/s  p99 {p99:>9.1} us{note}");
        }
        self.steps.push(Step { name, keeps_bound, run });
        Ok(keeps_bound)
    }

    pub(crate) fn text(&self) -> String {
        let best = match (self.best_messages_per_s, self.p99_below_us) {
            (None, _) => "no run kept the bound".to_owned(),
            (Some(best), None) => format!("at most {} msg/s", thousands(best)),
            (Some(best), Some(bound)) => {
                format!("at most {} msg/s with 99 % below {bound} us", thousands(best))
            }
        };
        format!("{}\n{}: {best}\n", aligned(&self.rows()), self.pair)
    }

    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let heading = ["", "msg/s", "p50", "p99", "p99.99", "keeps the bound"];
        let row = |step: &Step| {
            let us = &step.run.latency_us;
            let mut row = vec![step.name.clone(), thousands(step.run.messages_per_s)];
            row.extend([us.p50, us.p99, us.p99_99].map(|us| format!("{us:.1}")));
            row.push(if step.keeps_bound { "yes" } else { "no" }.to_owned());
            row
        };
        let heading = heading.map(str::to_owned).to_vec();
        std::iter::once(heading).chain(self.steps.iter().map(row)).collect()
    }
}

/// Looks for the highest good value, if all below it are good too.
#[derive(Debug)]
struct Search {
    next: f64,
    good: Option<f64>,
    bad: Option<f64>,
}

impl Search {
    fn new(first: f64) -> Self {
        Self { next: first, good: None, bad: None }
    }

    /// What to try next; none: it is found.
    fn next(&self) -> Option<f64> {
        match (self.good, self.bad) {
            (Some(good), Some(bad)) if bad / good < CLOSE_ENOUGH => None,
            _ => Some(self.next),
        }
    }

    /// What became of it.
    fn learn(&mut self, is_good: bool) {
        *(if is_good { &mut self.good } else { &mut self.bad }) = Some(self.next);
        self.next = match (self.good, self.bad) {
            (Some(good), Some(bad)) => f64::midpoint(good, bad),
            (Some(good), None) => good * 2.0,
            (None, bad) => bad.unwrap_or(self.next) / 2.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(first: f64, limit: f64) -> (f64, usize) {
        let mut search = Search::new(first);
        let mut steps = 0;
        while let Some(rate) = search.next() {
            search.learn(rate <= limit);
            steps += 1;
            assert!(steps < 100);
        }
        (search.good.unwrap(), steps)
    }

    #[test]
    fn the_highest_good_rate_is_found_from_below_and_from_above() {
        for first in [1e3, 7e4, 5e6] {
            let (rate, steps) = found(first, 123_456.0);
            assert!((117_000.0..=123_456.0).contains(&rate), "{rate} from {first}");
            assert!(steps <= 16, "{steps} from {first}");
        }
    }
}
