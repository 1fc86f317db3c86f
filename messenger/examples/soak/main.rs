//! The synthetic workload of Ceph's messenger tests in full size, round after round, until its time
//! is over; then everything must be as it was after the first rounds.
//!
//! ```text
//!   make soak ROW=few STACK=posix MINUTES=10
//! ```
//!
//! A row is one of Ceph's failure matrix (`Row`). Rounds alternate between the shapes of #17 and
//! #18, each with fresh messengers on the same workers. Progress goes to the terminal, one line of
//! summary to standard output.

#![allow(clippy::unwrap_used, reason = "shares the tests' set-up")]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/synthetic/mod.rs"]
mod synthetic;

mod growth;
mod options;
mod rows;

use common::Net;
use growth::{Level, Probes};
use options::{Options, Stack};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use synthetic::{Totals, Workload};

/// Rounds after which the level is taken that the end is measured by: one of each shape.
const WARM_UP_ROUNDS: u64 = 2;
/// Workers of each host.
const WORKERS: u16 = 2;
/// The servers' address and the clients', where the kernel has both.
const IPS: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    let mut report = Report::default();
    let outcome = net(options.stack).and_then(|net| soak(&*net, &options, began, &mut report));
    print_summary(&options, began.elapsed(), &report, outcome.as_ref().err());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What happened so far.
#[derive(Debug, Default)]
struct Report {
    rounds: u64,
    totals: Totals,
    faults: u64,
    /// After the rounds that warm up.
    before: Level,
    /// At the end.
    after: Level,
}

/// Another transport comes in here.
fn net(stack: Stack) -> Result<Box<dyn Net>, String> {
    match stack {
        Stack::Posix => Ok(Box::new(common::Posix::between(IPS, WORKERS.into()))),
        Stack::Sim => Ok(Box::new(common::sim::Sim::new(WORKERS))),
        #[cfg(feature = "dpdk")]
        Stack::Dpdk => Ok(Box::new(common::dpdk::Dpdk::borrow())),
        #[cfg(not(feature = "dpdk"))]
        Stack::Dpdk => Err(String::from(
            "dpdk is not built in: run cargo without --no-default-features, as make soak does",
        )),
        Stack::Simple => Ok(Box::new(common::Simple::between(IPS))),
    }
}

fn soak(
    net: &dyn Net,
    options: &Options,
    began: Instant,
    report: &mut Report,
) -> Result<(), String> {
    let end = began + options.time;
    let probes = Probes::start(net).map_err(|error| format!("cannot start: {error}"))?;
    while Instant::now() < end || report.rounds < WARM_UP_ROUNDS {
        let is_warm = report.rounds >= WARM_UP_ROUNDS;
        let seed = options.seed.wrapping_add(report.rounds);
        let shape = options.row.shape(report.rounds);
        let mut workload = Workload::start(net, shape, seed)
            .map_err(|error| format!("round {} does not start: {error}", report.rounds))?;
        let outcome = workload.run(|| is_warm && Instant::now() >= end);
        report.faults = workload.faults();
        report.totals += outcome
            .and_then(|()| workload.finish())
            .map_err(|rule| format!("round {}, seed {seed}: {rule}", report.rounds))?;
        report.rounds += 1;
        if report.rounds == WARM_UP_ROUNDS {
            probes.level(&mut report.before)?;
        }
        print_progress(options, began.elapsed(), report);
    }
    probes.level_no_higher_than(&report.before, &mut report.after)
}

fn print_progress(options: &Options, elapsed: Duration, report: &Report) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let Totals { pings, pongs, bytes, .. } = report.totals;
        // Nobody to tell if the terminal is gone.
        let _ = write!(
            out,
            "\r{} on {}: {} of {} s, {} rounds, {pings} pings, {pongs} pongs, {} MB, {} faults ",
            options.row,
            options.stack,
            elapsed.as_secs(),
            options.time.as_secs(),
            report.rounds,
            bytes >> 20,
            report.faults,
        );
        let _ = out.flush();
    }
}

fn print_summary(options: &Options, elapsed: Duration, report: &Report, failure: Option<&String>) {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    let Report { rounds, totals, faults, before, after } = report;
    let [rss_before, rss_after] = [before, after].map(Level::rss_mb);
    let [fds_before, fds_after] = [before.fds, after.fds];
    let (row, stack, seconds) = (options.row, options.stack, elapsed.as_secs());
    let Totals { pings, pongs, forgotten, bytes, connects, drops, resets, remote_resets, .. } =
        *totals;
    let megabytes = bytes >> 20;
    if options.json {
        // A text without control characters: what is a string to Rust is one to JSON.
        let failure =
            failure.map_or_else(|| String::from("null"), |failure| format!("{failure:?}"));
        println!(
            "{{\"row\":\"{row}\",\"stack\":\"{stack}\",\"seconds\":{seconds},\"rounds\":{rounds},\
             \"pings\":{pings},\"pongs\":{pongs},\"forgotten\":{forgotten},\
             \"megabytes\":{megabytes},\"connects\":{connects},\"drops\":{drops},\
             \"resets\":{resets},\"remote_resets\":{remote_resets},\"faults\":{faults},\
             \"rss_mb\":[{rss_before},{rss_after}],\"fds\":[{fds_before},{fds_after}],\
             \"failure\":{failure}}}"
        );
    } else {
        let verdict =
            failure.map_or_else(|| String::from("ok"), |failure| format!("FAILED: {failure}"));
        println!(
            "soak {row} on {stack}: {seconds} s, {rounds} rounds, {connects} connects, {drops} \
             drops, {pings} pings, {pongs} pongs, {forgotten} forgotten, {megabytes} MB, {faults} \
             faults, rss {rss_before} -> {rss_after} MB, fds {fds_before} -> {fds_after}: {verdict}"
        );
    }
}
