//! Goodput of the native stack over links that lose frames: two hosts on a simulated network, one
//! thread, a virtual clock. So every figure is exact and comes out the same on every machine.
//!
//! ```text
//!   cargo bench -p netstack --no-default-features --bench loss -- \
//!       [--seconds S] [--only NAME] [--seed N] [--round-trip-us N]
//! ```
//!
//! The link has 10 Gb/s and a round trip of 100 µs with a queue of 512 KiB. Losses are random, in
//! both directions. A stall is the longest time in which the reader got nothing.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something fails")]

#[path = "../tests/flows/mod.rs"]
mod flows;

use std::time::Duration;

use flows::{Link, Run};
use netstack::native::Congestion;

const KINDS: [(&str, Congestion); 3] =
    [("none", Congestion::None), ("reno", Congestion::Reno), ("cubic", Congestion::Cubic)];
const LOSSES_PPM: [u32; 6] = [0, 100, 1000, 10_000, 50_000, 100_000];

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let is_bench = args.iter().any(|arg| arg == "--bench");
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let seconds: f64 = match value("--seconds") {
        Some(seconds) => seconds.parse().expect("a number"),
        None if is_bench => 0.5,
        None => 0.005,
    };
    let only = value("--only");
    let mut base = Link::default();
    if let Some(seed) = value("--seed") {
        base.seed = seed.parse().expect("a number");
    }
    if let Some(us) = value("--round-trip-us") {
        base.round_trip = Duration::from_micros(us.parse().expect("a number"));
    }
    let time = Duration::from_secs_f64(seconds);
    println!("one flow, {seconds} s: Mb/s, share of the run without losses, longest stall, resent");
    for (name, congestion) in KINDS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let mut whole = 0.0;
        for loss_ppm in LOSSES_PPM {
            let link = Link { loss_ppm, ..base };
            let result = &Run::new(congestion, link).flows(1, time)[0];
            whole = if loss_ppm == 0 { result.mbit_per_s } else { whole };
            print_row(
                name,
                &format!("loss {:7.2} %", f64::from(loss_ppm) / 10_000.0),
                result,
                whole,
            );
        }
        for (what, link) in base.disturbed() {
            let result = &Run::new(congestion, link).flows(1, time)[0];
            print_row(name, what, result, whole);
        }
        for (what, loss_ppm) in [("two flows", 0), ("two flows, 0.1 %", 1000)] {
            let link = Link { loss_ppm, ..base };
            let results = Run::new(congestion, link).flows(2, 4 * time);
            let rates: Vec<_> = results.iter().map(|result| result.mbit_per_s).collect();
            println!("{name:6} {what:18} {rates:8.0?}  Jain index {:.3}", flows::jain(&rates));
        }
    }
}

fn print_row(name: &str, what: &str, result: &flows::Flow, whole: f64) {
    println!(
        "{name:6} {what:18} {:8.0}  {:5.1} %  {:9.3?}  {}",
        result.mbit_per_s,
        100.0 * result.mbit_per_s / whole,
        result.stall,
        result.resent,
    );
}
