//! `msgr bench compare`: records of earlier runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::bench::ab::BEHIND;
use crate::bench::comparison::{By, Comparison, Side};
use crate::bench::report::Report;
use crate::bench::save;
use crate::bench::statistics::Verdict;

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// The records (.json) of one side, several with commas between: old1.json,old2.json
    #[arg(value_name = "FILES")]
    a: String,
    /// The records of the other side
    #[arg(value_name = "FILES")]
    b: String,
    /// What decides
    #[arg(long, value_enum, default_value = "rate")]
    by: By,
    /// Keep all of it in a file, by its ending .json, .csv, .md or .html; repeatable
    #[arg(long, value_name = "FILE")]
    save: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode> {
    save::check(&args.save, &save::OF_MANY)?;
    let (a, b) = (side(&args.a)?, side(&args.b)?);
    if let (Some(one), Some(other)) = (a.runs.first(), b.runs.first())
        && one.load != other.load
    {
        bail!("different loads cannot be compared: {} and {}", one.load, other.load);
    }
    let comparison = Comparison::new(a, b, false);
    save::write_comparison(&args.save, &comparison)?;
    match args.json {
        true => println!("{}", serde_json::to_string(&comparison)?),
        false => print!("{}", comparison.text()),
    }
    let is_behind = comparison.verdict(args.by) == Verdict::BAhead;
    Ok(if is_behind { ExitCode::from(BEHIND) } else { ExitCode::SUCCESS })
}

fn side(files: &str) -> Result<Side> {
    let runs: Result<Vec<_>> = files.split(',').map(|file| read(Path::new(file))).collect();
    let side = Side { name: files.to_owned(), runs: runs? };
    if side.runs.iter().any(|run| run.load != side.runs[0].load) {
        bail!("the records of {files} are of different loads");
    }
    Ok(side)
}

fn read(file: &Path) -> Result<Report> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let report = Report::from_json(&text).with_context(|| file.display().to_string())?;
    if !report.valid {
        bail!("{} is of an invalid run: {}", file.display(), report.problems.join("; "));
    }
    Ok(report)
}
