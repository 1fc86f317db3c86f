//! Numbers for people and for programs: one measured run, and tables of several.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Layout version of everything `--json` prints.
pub(crate) const SCHEMA: u32 = 1;
/// Longest latency the histogram tells apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// Points of a curve for each halving of what is left of the tail.
const CURVE_TICKS: u32 = 8;

/// Round-trip times, to three digits.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let max = u64::try_from(LATENCY_MAX.as_nanos()).expect("a minute fits 64 bits of ns");
        Self(Histogram::new_with_bounds(1, max, 3).expect("bounds and digits are in range"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(ns.max(1));
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds what `other` has.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The counts themselves, in nanoseconds.
    pub(crate) fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Quantiles from 0 to 1 and their microseconds, denser towards the tail.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let steps = self.0.iter_quantiles(CURVE_TICKS);
        steps.map(|step| (step.quantile_iterated_to(), us(step.value_iterated_to()))).collect()
    }

    pub(crate) fn microseconds(&self) -> Microseconds {
        let at = |quantile| us(self.0.value_at_quantile(quantile));
        Microseconds {
            min: us(self.0.min()),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: us(self.0.max()),
        }
    }
}

fn us(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e6
}

/// A distribution, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Microseconds {
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
}

impl Microseconds {
    /// From the least to the most.
    pub(crate) fn all(&self) -> [f64; 7] {
        [self.min, self.p50, self.p90, self.p99, self.p99_9, self.p99_99, self.max]
    }
}

/// One measured run of `msgr ping`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PingReport {
    pub(crate) schema: u32,
    pub(crate) stack: String,
    pub(crate) target: String,
    pub(crate) size_bytes: usize,
    pub(crate) depth: usize,
    pub(crate) messages: u64,
    pub(crate) elapsed_s: f64,
    pub(crate) messages_per_s: f64,
    /// Always `rtt`: from `send_message` to the reply's callback, nothing halved.
    pub(crate) latency_kind: String,
    pub(crate) latency_us: Microseconds,
    /// Why the run ended before all messages were answered.
    pub(crate) ended_early: Option<String>,
}

impl PingReport {
    pub(crate) fn new(
        run: &Run<'_>,
        latencies: &Latencies,
        elapsed: Duration,
        ended_early: Option<String>,
    ) -> Self {
        let messages = latencies.0.len();
        let elapsed_s = elapsed.as_secs_f64();
        // Counts beyond 2^52 would lose digits here; a run has far fewer.
        let rate = if elapsed_s > 0.0 { messages as f64 / elapsed_s } else { 0.0 };
        Self {
            schema: SCHEMA,
            stack: run.stack.to_owned(),
            target: run.target.clone(),
            size_bytes: run.size,
            depth: run.depth,
            messages,
            elapsed_s,
            messages_per_s: rate,
            latency_kind: "rtt".to_owned(),
            latency_us: latencies.microseconds(),
            ended_early,
        }
    }
}

/// What a run was asked to do.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) stack: &'a str,
    pub(crate) target: String,
    pub(crate) size: usize,
    pub(crate) depth: usize,
}

/// Several runs side by side; the first column names each.
pub(crate) fn table(rows: &[(String, PingReport)]) -> String {
    let mut cells =
        vec![["", "msg/s", "min", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned).to_vec()];
    for (name, report) in rows {
        let l = &report.latency_us;
        let mut row = vec![name.clone(), thousands(report.messages_per_s)];
        row.extend([l.min, l.p50, l.p90, l.p99, l.p99_9, l.max].map(|v| format!("{v:.1}")));
        cells.push(row);
    }
    aligned(&cells)
}

/// Rows of cells, the first column to the left and all others to the right.
pub(crate) fn aligned(cells: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..cells.first().map_or(0, Vec::len))
        .map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in cells {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                out.push_str(&format!("{cell:<width$}"));
            } else {
                out.push_str(&format!("  {cell:>width$}"));
            }
        }
        out.push('\n');
    }
    out
}

/// A rate with its thousands apart: `12,345`.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> PingReport {
        let mut latencies = Latencies::new();
        for us in 1..=1000 {
            latencies.record(Duration::from_micros(us));
        }
        let run = Run { stack: "posix", target: "somewhere".into(), size: 64, depth: 1 };
        PingReport::new(&run, &latencies, Duration::from_millis(500), None)
    }

    #[test]
    fn percentiles_and_rate_come_from_what_was_recorded() {
        let report = report();
        assert_eq!(report.messages, 1000);
        assert!((report.messages_per_s - 2000.0).abs() < 1e-6);
        assert!((report.latency_us.p50 - 500.0).abs() < 1.0, "{:?}", report.latency_us);
        assert!((report.latency_us.p99 - 990.0).abs() < 1.0, "{:?}", report.latency_us);
    }

    #[test]
    fn a_table_is_aligned_and_keeps_the_names() {
        let text = table(&[("short".into(), report()), ("a longer name".into(), report())]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1].len(), lines[2].len());
        assert!(lines[2].starts_with("a longer name  2,000"));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(7.0), "7");
        assert_eq!(thousands(1234.4), "1,234");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
