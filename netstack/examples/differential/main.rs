//! Our TCP against the kernel's: random scripts of calls and packets, the same for both.
//!
//! ```text
//!   cargo run --package netstack --no-default-features --example differential -- \
//!       --scripts 500 --first 0
//! ```
//!
//! The kernel's runs in a network namespace, ours in simulation. Both must deliver the same bytes,
//! send the same bytes and FINs, reset or not, tell the application the same end, and be left in
//! the same state. When they send what, and in how many segments, is their own affair.
//!
//! What differs and is meant to is in [`judge`]; `docs/tcp-conformance.md` says why. A script that
//! differs otherwise is shown with its seed, and `--first SEED --scripts 1` plays it again.

#![expect(clippy::unwrap_used, reason = "a comparison that cannot go on fails")]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use host::{Host, Native};
use judge::CAUSES;
use kernel::Kernel;
use play::{Outcome, Play};
use script::Script;

mod host;
mod judge;
mod kernel;
#[path = "../../tests/namespace/mod.rs"]
mod namespace;
mod play;
mod script;
#[path = "../../tests/scripts/segment.rs"]
mod segment;

/// The peer's ports: each play has one for itself, so that none meets another's TIME-WAIT.
const PORTS: Range<u16> = 10_000..60_000;
/// A port may be used again after this, longer than the kernel's TIME-WAIT.
const PORT_REST: Duration = Duration::from_secs(62);
/// A script that differs is played this often: the machine may have stood still in a play, and the
/// kernel's timers not.
const PLAYS: usize = 3;
/// Scripts that differ before we stop.
const DIFFERENCES_MAX: usize = 10;

fn main() -> ExitCode {
    let arg = |name: &str| {
        let mut args = std::env::args().skip_while(|arg| arg != name);
        args.nth(1).map(|value| value.parse::<u64>().expect("a number"))
    };
    let (scripts, first) = (arg("--scripts").unwrap_or(500), arg("--first").unwrap_or(0));
    match kernel::inside(|| compare(first, scripts)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(differences) => {
            eprintln!("{differences} scripts differ");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot compare with the kernel: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The two hosts, and how often they have played.
struct Match {
    kernel: Kernel,
    plays: u64,
    /// When the first of [`PORTS`] was used last.
    round_began: Instant,
}

/// Both outcomes, and all that passed on each side.
struct Played {
    ours: (Outcome, String),
    kernels: (Outcome, String),
}

impl Match {
    fn play(&mut self, seed: u64, script: &Script) -> Played {
        let port = PORTS.start + (self.plays % PORTS.len() as u64) as u16;
        if port == PORTS.start && self.plays > 0 {
            std::thread::sleep(PORT_REST.saturating_sub(self.round_began.elapsed()));
            self.round_began = Instant::now();
        }
        self.plays += 1;
        let ours = play(&mut Native::new(seed), script, port);
        Played { ours, kernels: play(&mut self.kernel, script, port) }
    }

    /// What differs in a play, if anything.
    fn differs(&mut self, seed: u64, script: &Script) -> Option<(&'static str, Played)> {
        let played = self.play(seed, script);
        let what = judge::difference(&played.ours.0, &played.kernels.0)?;
        Some((what, played))
    }

    /// Whether it is one of the known causes, or some together, that both differ.
    fn explain(&mut self, seed: u64, script: &Script) -> Option<&'static str> {
        let mut rest = script.clone();
        for cause in CAUSES {
            let Some(without) = cause.take_out(script) else { continue };
            rest = cause.take_out(&rest).unwrap_or(rest);
            if [&without, &rest].iter().any(|script| self.differs(seed, script).is_none()) {
                return Some(cause.why);
            }
        }
        None
    }
}

fn compare(first: u64, scripts: u64) -> io::Result<usize> {
    let mut both = Match { kernel: Kernel::new()?, plays: 0, round_began: Instant::now() };
    let mut explained = BTreeMap::<&str, u64>::new();
    let (mut played, mut differences) = (0, 0);
    for seed in first..first + scripts {
        let script = Script::random(seed);
        played += 1;
        let mut plays = (0..PLAYS).map(|_| both.differs(seed, &script));
        // The last of them, unless one was without a difference.
        let last = plays.try_fold(None, |_, played| Some(Some(played?)));
        let Some(Some((what, Played { ours, kernels }))) = last else { continue };
        if let Some(why) = both.explain(seed, &script) {
            *explained.entry(why).or_default() += 1;
            continue;
        }
        differences += 1;
        println!("seed {seed}: another {what}\n{script}");
        println!("  ours: {}\n{}\n", show(&ours.0), ours.1);
        println!("  kernel: {}\n{}\n", show(&kernels.0), kernels.1);
        if differences == DIFFERENCES_MAX {
            break;
        }
    }
    println!("{played} scripts from seed {first}: {differences} differ");
    for (why, count) in explained {
        println!("  {count} more only by {why}");
    }
    Ok(differences)
}

fn play(host: &mut dyn Host, script: &Script, port: u16) -> (Outcome, String) {
    let mut play = Play::new(host, port);
    play.run(script);
    (play.outcome, play.log.join("\n"))
}

fn show(outcome: &Outcome) -> String {
    let Outcome { read, end, sent, has_fin, was_reset, state, .. } = outcome;
    let read = read.len();
    format!("read {read}, then {end:?}; sent {sent}, FIN {has_fin}, reset {was_reset}; {state:?}")
}
