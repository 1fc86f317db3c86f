//! `msgr bench ab`: two pairs in turn, so that what the machine does meets both.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::comparison::{By, Comparison, Side};
use crate::bench::load::{Load, LoadArgs};
use crate::bench::pair::Spec;
use crate::bench::report::Report;
use crate::bench::save;
use crate::bench::statistics::{ROUNDS_MIN, Verdict};
use crate::report::thousands;
use crate::sandbox::Process;

/// What a run may take beyond its own time: start, connections, and the last replies.
const RUN_PATIENCE: Duration = Duration::from_secs(60);
/// The exit code that tells "the wrong side is ahead" from failure.
pub(crate) const BEHIND: u8 = 3;
/// Most rounds.
const ROUNDS_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct AbArgs {
    /// A pair: posix, simple, dpdk-memif, dpdk-vhost, dpdk-tap, kernel-epoll, kernel-spin, each
    /// with @FILE for its configuration
    #[arg(value_name = "A")]
    a: Spec,
    /// The pair to compare it with
    #[arg(value_name = "B")]
    b: Spec,
    #[command(flatten)]
    load: LoadArgs,
    /// Rounds of A and B; fewer than 5 give no answer
    #[arg(long, value_name = "N", default_value_t = ROUNDS_MIN)]
    rounds: usize,
    /// What decides
    #[arg(long, value_enum, default_value = "rate")]
    by: By,
    #[command(flatten)]
    pins: Pins,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(args: &AbArgs) -> Result<ExitCode> {
    save::check(&args.output.save, &save::OF_MANY)?;
    if args.rounds == 0 || args.rounds > ROUNDS_MAX {
        bail!("--rounds is 1 to {ROUNDS_MAX}");
    }
    let load = args.load.load()?;
    let side = |spec: &Spec| Side { name: spec.to_string(), runs: Vec::new() };
    let (mut a, mut b) = (side(&args.a), side(&args.b));
    for round in 1..=args.rounds {
        for (letter, spec, side) in [("A", &args.a, &mut a), ("B", &args.b, &mut b)] {
            let report = measure(spec, &load, &args.pins)
                .with_context(|| format!("round {round} of {letter}, {spec}"))?;
            if !args.output.json {
                println!(
                    "{round:>3} {letter} {:>11} msg/s  p50 {:>8.1}  p99 {:>8.1} us",
                    thousands(report.messages_per_s),
                    report.latency_us.p50,
                    report.latency_us.p99
                );
            }
            side.runs.push(report);
        }
    }
    let comparison = Comparison::new(a, b, true);
    save::write_comparison(&args.output.save, &comparison)?;
    match args.output.json {
        true => println!("{}", serde_json::to_string(&comparison)?),
        false => print!("\n{}", comparison.text()),
    }
    let is_behind = comparison.verdict(args.by) == Verdict::BAhead;
    Ok(if is_behind { ExitCode::from(BEHIND) } else { ExitCode::SUCCESS })
}

/// Where the ends of a pair run; where nothing is said, on a CPU each.
#[derive(Debug, clap::Args)]
pub(crate) struct Pins {
    /// CPUs of the servers [default: the first]
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    server_pin: Vec<usize>,
    /// CPUs of the clients [default: the second]
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    pin: Vec<usize>,
}

/// Where the records of several runs go.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Keep all of it in a file, by its ending .json, .csv, .md or .html; repeatable
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Vec<PathBuf>,
    /// Print one JSON object, with the records of all runs
    #[arg(long)]
    pub(crate) json: bool,
}

/// One run of a pair in a process of its own, with its record. Records of invalid runs count as
/// failures.
pub(crate) fn measure(spec: &Spec, load: &Load, pins: &Pins) -> Result<Report> {
    let (report, outcome) = measure_any(spec, load, pins)?;
    outcome.map(|()| report)
}

/// The same, with the record of an invalid run beside what is wrong with it.
pub(crate) fn measure_any(spec: &Spec, load: &Load, pins: &Pins) -> Result<(Report, Result<()>)> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(["--exit-with-parent", "bench", "run", "--json", &spec.to_string()]);
    command.args(load.flags());
    for (flag, cpus) in [("--server-pin", &pins.server_pin), ("--pin", &pins.pin)] {
        if !cpus.is_empty() {
            let cpus: Vec<_> = cpus.iter().map(ToString::to_string).collect();
            command.args([flag, &cpus.join(",")]);
        }
    }
    let mut client = Process::spawn("client", command)?;
    let record = client.next_json(load.warmup() + load.duration() + RUN_PATIENCE)?;
    let report = Report::from_json(&record.to_string())?;
    let ended = client.stop();
    let outcome = match report.problems.is_empty() {
        true => ended,
        false => Err(anyhow::anyhow!("the run is invalid: {}", report.problems.join("; "))),
    };
    Ok((report, outcome))
}
