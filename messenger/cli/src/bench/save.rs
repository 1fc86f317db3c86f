//! Records in files, in the format that a file's ending names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::bench::comparison::Comparison;
use crate::bench::html;
use crate::bench::report::{Report, markdown_table};
use crate::bench::sweep::Sweep;

/// Formats of the record of a run.
pub(crate) const OF_ONE: [&str; 5] = ["json", "csv", "md", "html", "hlog"];
/// Formats of several runs together.
pub(crate) const OF_MANY: [&str; 4] = ["json", "csv", "md", "html"];

/// Refuses files before the run that could not be written after it.
pub(crate) fn check(files: &[PathBuf], endings: &[&str]) -> Result<()> {
    for file in files {
        if !endings.contains(&ending(file)) {
            bail!("{} does not end in one of .{}", file.display(), endings.join(", ."));
        }
        std::fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn ending(file: &Path) -> &str {
    file.extension().and_then(|ending| ending.to_str()).unwrap_or("")
}

/// Writes what `text` has for the ending of each of the files.
fn write_each(files: &[PathBuf], text: impl Fn(&str) -> Result<String>) -> Result<()> {
    for file in files {
        let text = text(ending(file))?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Writes the record of a run to each of the files.
pub(crate) fn write(files: &[PathBuf], report: &Report, log: &HdrLog) -> Result<()> {
    let runs = [(report.transport.as_str(), report)];
    write_each(files, |ending| {
        Ok(match ending {
            "json" => serde_json::to_string_pretty(report)? + "\n",
            "csv" => csv(&runs),
            "md" => report.markdown(),
            "html" => html::page("msgr bench", &runs, ""),
            _ => String::from_utf8_lossy(&log.text).into_owned(),
        })
    })
}

/// Writes two sides to each of the files.
pub(crate) fn write_comparison(files: &[PathBuf], comparison: &Comparison) -> Result<()> {
    let Comparison { a, b, .. } = comparison;
    let names: Vec<_> = [("A", a), ("B", b)]
        .into_iter()
        .flat_map(|(letter, side)| {
            let runs = side.runs.iter().enumerate();
            runs.map(move |(at, run)| (format!("{letter}{} {}", at + 1, run.transport), run))
        })
        .collect();
    let runs: Vec<_> = names.iter().map(|(name, run)| (name.as_str(), *run)).collect();
    write_each(files, |ending| {
        Ok(match ending {
            "json" => serde_json::to_string_pretty(comparison)? + "\n",
            "csv" => csv(&runs),
            "md" => comparison.markdown(),
            _ => html::page("msgr bench", &runs, &comparison.text()),
        })
    })
}

/// Writes all steps to each of the files.
pub(crate) fn write_sweep(files: &[PathBuf], sweep: &Sweep) -> Result<()> {
    let steps = sweep.steps.iter().map(|step| (step.name.as_str(), &step.run));
    let runs: Vec<_> = steps.collect();
    write_each(files, |ending| {
        Ok(match ending {
            "json" => serde_json::to_string_pretty(sweep)? + "\n",
            "csv" => csv(&runs),
            "md" => markdown_table(&sweep.rows()),
            _ => html::page("msgr bench", &runs, &sweep.text()),
        })
    })
}

/// A line a run, for spreadsheets.
fn csv(runs: &[(&str, &Report)]) -> String {
    let mut out = String::from(
        "name,transport,kind,size,connections,valid,elapsed_s,messages,messages_per_s,\
         payload_bytes_per_s,min_us,p50_us,p90_us,p99_us,p99_9_us,p99_99_us,max_us,late_percent,\
         client_cpu_us_per_message,server_cpu_us_per_message\n",
    );
    for (name, run) in runs {
        let kind = run.load.kind.to_possible_value();
        let mut cells = vec![
            (*name).to_owned(),
            run.transport.clone(),
            kind.map_or_else(String::new, |kind| kind.get_name().to_owned()),
            format!("\"{}\"", run.load.sizes),
            run.load.connections.to_string(),
            run.valid.to_string(),
            run.elapsed_s.to_string(),
            run.messages.to_string(),
            run.messages_per_s.to_string(),
            run.payload_bytes_per_s.to_string(),
        ];
        cells.extend(run.latency_us.all().map(|us| us.to_string()));
        cells.push(run.open.map_or_else(String::new, |open| open.late_percent.to_string()));
        cells.push(run.client.cpu_us_per_message.to_string());
        let server = run.server.as_ref().map(|half| half.cpu_us_per_message.to_string());
        cells.push(server.unwrap_or_default());
        out.push_str(&(cells.join(",") + "\n"));
    }
    out
}

/// The histograms of all seconds as an HDR log (V2, deflated), in nanoseconds; nothing if no file
/// for it was asked for.
#[derive(Debug)]
pub(crate) struct HdrLog {
    wanted: bool,
    text: Vec<u8>,
}

impl HdrLog {
    pub(crate) fn new(files: &[PathBuf]) -> Self {
        let wanted = files.iter().any(|file| ending(file) == "hlog");
        let mut text = Vec::new();
        if wanted {
            let mut serializer = V2DeflateSerializer::new();
            let mut header = IntervalLogWriterBuilder::new();
            header.add_comment("msgr bench: latencies in nanoseconds");
            header.with_start_time(std::time::SystemTime::now());
            // Writing to memory does not fail.
            let _ = header.begin_log_with(&mut text, &mut serializer);
        }
        Self { wanted, text }
    }

    /// Adds an interval that began so long after the warm-up.
    pub(crate) fn add(&mut self, start_s: f64, length_s: f64, histogram: &Histogram<u64>) {
        if !self.wanted {
            return;
        }
        let mut serializer = V2DeflateSerializer::new();
        let line = IntervalLogWriterBuilder::new();
        if let Ok(mut log) = line.begin_log_with(&mut self.text, &mut serializer) {
            let (start, length) =
                (Duration::from_secs_f64(start_s), Duration::from_secs_f64(length_s));
            if let Err(error) = log.write_histogram(histogram, start, length, None) {
                tracing::error!("an interval is missing in the HDR log: {error:?}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64ct::{Base64, Encoding};
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn a_log_is_read_back_by_the_readers_of_such_logs() {
        let mut log = HdrLog::new(&["run.hlog".into()]);
        let mut histogram = Histogram::new(3).unwrap();
        for ns in [1000_u64, 2000, 3000] {
            histogram.record(ns).unwrap();
            log.add(ns as f64 / 1000.0 - 1.0, 1.0, &histogram);
        }
        let mut counts = Vec::new();
        for entry in IntervalLogIterator::new(&log.text) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                let bytes = Base64::decode_vec(interval.encoded_histogram()).unwrap();
                let read: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
                counts.push((interval.start_timestamp().as_secs(), read.len()));
            }
        }
        assert_eq!(counts, [(0, 1), (1, 2), (2, 3)]);
        assert!(String::from_utf8_lossy(&log.text).starts_with("#msgr bench"));
    }

    #[test]
    fn a_file_of_no_known_format_is_refused_before_the_run() {
        for name in ["run.txt", "run", "run.hlog"] {
            assert!(check(&[name.into()], &OF_MANY).is_err(), "{name}");
        }
        assert!(check(&["/no/such/dir/run.json".into()], &OF_ONE).is_err());
    }
}
