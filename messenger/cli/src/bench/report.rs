//! The record of a run: what was asked for, what came out, where.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::bench::environment::Environment;
use crate::bench::load::Load;
use crate::bench::meter::{Half, Worker};
use crate::report::{Microseconds, aligned, thousands};

/// Layout version of everything the bench writes and says.
pub(crate) const SCHEMA: u32 = 1;
/// The share of late sends, in percent, above which a run says nothing about the server.
pub(crate) const LATE_PERCENT_MAX: f64 = 1.0;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    /// `async+posix`, `kernel-spin`, ...
    pub(crate) transport: String,
    pub(crate) target: String,
    pub(crate) load: Load,
    /// Whether the figures can be used; if not, `problems` says why.
    pub(crate) valid: bool,
    pub(crate) problems: Vec<String>,
    /// Why the run ended before its time.
    pub(crate) ended_early: Option<String>,
    /// From the end of the warm-up to the last reply that counts.
    pub(crate) elapsed_s: f64,
    /// Messages answered, or sent in a stream.
    pub(crate) messages: u64,
    pub(crate) messages_per_s: f64,
    pub(crate) payload_bytes_per_s: f64,
    /// Messages that had no reply when the run ended.
    pub(crate) unanswered: usize,
    /// `rtt`: from the intended time of sending to the reply, nothing halved. In a closed loop the
    /// intended time is that of sending. `sent`: of a stream, to the transport's taking it.
    pub(crate) latency_kind: String,
    pub(crate) latency_us: Microseconds,
    /// Of an open loop.
    pub(crate) open: Option<OpenFigures>,
    /// Quantiles from 0 to 1 with their latency in microseconds.
    pub(crate) curve_us: Vec<(f64, f64)>,
    pub(crate) seconds: Vec<Second>,
    pub(crate) client: Half,
    pub(crate) server: Option<Half>,
    pub(crate) environment: Environment,
}

/// What only an open loop has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenFigures {
    /// From actual sending to the reply: what a closed loop would have told.
    pub(crate) service_us: Microseconds,
    /// Sends that the schedule asked for.
    pub(crate) due: u64,
    /// Of these, how many left later than `late_after_us`, or never.
    pub(crate) late: u64,
    pub(crate) late_percent: f64,
    pub(crate) late_after_us: f64,
}

/// One second of a run, by the time of the replies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Its end, since the end of the warm-up.
    pub(crate) until_s: f64,
    pub(crate) messages_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

impl Second {
    pub(crate) const HEADING: &str = "  second       msg/s         p50         p99         max  us";
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { until_s, messages_per_s, p50_us, p99_us, max_us } = self;
        let rate = thousands(*messages_per_s);
        write!(f, "{until_s:>8.1} {rate:>11} {p50_us:>11.1} {p99_us:>11.1} {max_us:>11.1}")
    }
}

impl Report {
    /// Reads a record.
    ///
    /// # Errors
    /// If it is none, or of another version.
    pub(crate) fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema } = serde_json::from_str(text).context("no record of a bench")?;
        if schema != SCHEMA {
            bail!("a record of schema {schema}; this program reads {SCHEMA}");
        }
        serde_json::from_str(text).context("no record of a single run")
    }

    /// What speaks against the figures.
    pub(crate) fn judge(&mut self) {
        let mut problems = Vec::new();
        if let Some(open) = self.open.filter(|open| open.late_percent > LATE_PERCENT_MAX) {
            problems.push(format!(
                "the generator was late for {:.2} % of sends, more than {LATE_PERCENT_MAX} %",
                open.late_percent
            ));
        }
        if self.unanswered > 0 {
            problems.push(format!("{} messages were not answered", self.unanswered));
        }
        problems.extend(self.ended_early.clone());
        self.valid = problems.is_empty();
        self.problems = problems;
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{} over {} to {}\n\n", self.load, self.transport, self.target);
        out.push_str(&aligned(&self.figures()));
        out.push_str(match self.latency_kind.as_str() {
            "rtt" => "\nRound trips in microseconds, from the intended time of sending.\n",
            _ => "\nMicroseconds from the intended time of sending to the transport's taking it.\n",
        });
        if let Some(open) = &self.open {
            out.push_str(&format!(
                "The generator was late for {:.2} % of {} sends (by more than {:.0} us).\n",
                open.late_percent,
                thousands(open.due as f64),
                open.late_after_us
            ));
        }
        for (name, half) in self.halves() {
            out.push_str(&format!("{name}: {half}\n"));
        }
        if self.halves().any(|(_, half)| !half.workers.is_empty()) {
            out.push('\n');
            out.push_str(&aligned(&self.worker_rows()));
        }
        for (end, worker, counter, count) in self.losses() {
            out.push_str(&format!("LOSS at the {end}, worker {worker}: {counter} {count}\n"));
        }
        for problem in &self.problems {
            out.push_str(&format!("INVALID: {problem}\n"));
        }
        out
    }

    /// For a wiki or a commit.
    pub(crate) fn markdown(&self) -> String {
        let mut out = format!("{} over {} to {}\n\n", self.load, self.transport, self.target);
        out.push_str(&markdown_table(&self.figures()));
        for problem in &self.problems {
            out.push_str(&format!("\n**INVALID**: {problem}\n"));
        }
        if self.halves().any(|(_, half)| !half.workers.is_empty()) {
            out.push('\n');
            out.push_str(&markdown_table(&self.worker_rows()));
        }
        for (end, worker, counter, count) in self.losses() {
            out.push_str(&format!(
                "\n**LOSS** at the {end}, worker {worker}: `{counter}` {count}\n"
            ));
        }
        let Environment { commit, dpdk, kernel, cpu_model, cpus, command, .. } = &self.environment;
        let dpdk = dpdk.as_deref().unwrap_or("no DPDK");
        out.push_str(&format!("\n{cpu_model}, {cpus} CPUs, {kernel}, {dpdk}, commit {commit}\n"));
        out.push_str(&format!("\n    {}\n", command.join(" ")));
        out
    }

    /// The percentiles, with their heading.
    pub(crate) fn figures(&self) -> Vec<Vec<String>> {
        let heading = ["", "msg/s", "MB/s", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let row = |name: &str, us: &Microseconds| {
            let mut row = vec![name.to_owned(), thousands(self.messages_per_s)];
            row.push(format!("{:.1}", self.payload_bytes_per_s / 1e6));
            row.extend(us.all().map(|us| format!("{us:.1}")));
            row
        };
        let mut rows = vec![heading.map(str::to_owned).to_vec(), row("latency", &self.latency_us)];
        rows.extend(self.open.iter().map(|open| row("from actual send", &open.service_us)));
        rows
    }

    /// The table of workers, with its heading.
    pub(crate) fn worker_rows(&self) -> Vec<Vec<String>> {
        let heading = [
            "worker",
            "polls",
            "empty %",
            "rx packets",
            "rx bytes",
            "tx packets",
            "tx bytes",
            "drops",
            "resent",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for (name, half) in self.halves() {
            rows.extend(half.workers.iter().map(|worker| worker_row(name, worker)));
        }
        rows
    }

    /// Client and, if it answered, server.
    pub(crate) fn halves(&self) -> impl Iterator<Item = (&'static str, &Half)> {
        let server = self.server.iter().map(|half| ("server", half));
        std::iter::once(("client", &self.client)).chain(server)
    }

    /// Counters that should be zero and are not.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (&'static str, usize, &str, u64)> {
        self.halves().flat_map(|(name, half)| {
            half.workers.iter().flat_map(move |worker| {
                worker.losses().map(move |(counter, count)| (name, worker.worker, counter, count))
            })
        })
    }
}

/// A table whose first row is its heading.
pub(crate) fn markdown_table(rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        out.push_str(&format!("| {} |\n", row.join(" | ")));
        if index == 0 {
            out.push_str(&format!("| --- |{}\n", " ---: |".repeat(row.len() - 1)));
        }
    }
    out
}

fn worker_row(end: &str, worker: &Worker) -> Vec<String> {
    let count = |name: &str| thousands(worker.get(name) as f64);
    let turns = worker.get("worker_turns").max(1) as f64;
    let empty = worker.get("worker_idle_turns") as f64 * 100.0 / turns;
    let drops: u64 = worker.drops();
    vec![
        format!("{end} {}", worker.worker),
        thousands(turns),
        format!("{empty:.1}"),
        count("dpdk_receive_packets"),
        count("msgr_recv_bytes"),
        count("dpdk_send_packets"),
        count("msgr_send_bytes"),
        thousands(drops as f64),
        count("segments_resent"),
    ]
}
