//! `msgr`: serve, ping, bench and demonstrate the messenger from the command line.

#![forbid(unsafe_code)]

mod bench;
mod ceph;
mod decode;
mod demo;
mod options;
mod ping;
mod report;
mod sandbox;
mod serve;
mod signals;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Ceph's messenger over DPDK and over kernel TCP
///
/// Exit codes: 0 done, 1 failed (the cause is printed), 2 wrong usage; `bench ab` and
/// `bench compare` also 3, see there.
#[derive(Debug, Parser)]
#[command(version, about, long_about, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error, e.g. info, debug or netstack=trace (default: warn)
    #[arg(long, global = true, value_name = "FILTER", env = "MSGR_LOG")]
    log: Option<String>,
    /// End when the process that started this one ends
    #[arg(long, global = true, hide = true)]
    exit_with_parent: bool,
}

const EXAMPLES: &str = "\
Examples:
  msgr demo
  msgr serve --bind 127.0.0.1:6800
  msgr ping 127.0.0.1:6800 --count 100000 --depth 32
  msgr bench run posix --depth 32
  msgr bench ab dpdk-memif kernel-spin --size 64
  msgr ceph --mon 127.0.0.1:3300 status
  msgr decode tap.pcapng
  msgr serve --stack dpdk --vdev net_tap0,iface=dt0 --addr 10.99.0.2/24 --bind 10.99.0.2:6800";

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer every message with itself, until SIGINT or SIGTERM
    Serve(serve::ServeArgs),
    /// Measure round trips to a `msgr serve`
    Ping(ping::PingArgs),
    /// Loads whose figures can be defended: one, two in turn, a search, a comparison
    Bench(bench::BenchArgs),
    /// Ask a real Ceph cluster: its monitors, an OSD, an object
    Ceph(ceph::CephArgs),
    /// Print the msgr2 frames of a capture: of --capture, of Wireshark, of anybody
    Decode(decode::DecodeArgs),
    /// Messages over DPDK, over DPDK against the kernel, and over the kernel: one table
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("msgr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    let filter = cli.log.as_deref().unwrap_or("warn");
    let filter: EnvFilter = filter
        .parse()
        .with_context(|| format!("--log {filter} is not a filter; try --log debug"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if cli.exit_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .context("cannot ask the kernel to end this process with its parent")?;
    }
    match &cli.command {
        Command::Bench(args) => return bench::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Ping(args) => ping::run(args),
        Command::Ceph(args) => ceph::run(args),
        Command::Decode(args) => decode::run(args),
        Command::Demo(args) => demo::run(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command lines of `msgr bench` in a page, whole again where the page breaks them.
    fn bench_lines(page: &str) -> Vec<String> {
        let page = page.replace("\\\n", " ");
        let commands = page.lines().filter(|line| !line.contains('`'));
        let starts =
            commands.filter_map(|line| line.find("msgr bench").map(|at| line[at..].into()));
        starts.collect()
    }

    #[test]
    fn the_documents_commands_are_understood() {
        let pages = [
            include_str!("../../../README.md"),
            include_str!("../../../docs/performance.md"),
            EXAMPLES,
        ];
        let lines: Vec<_> = pages.into_iter().flat_map(bench_lines).collect();
        assert!(lines.len() >= 8, "{lines:?}");
        for line in lines {
            let outcome = Cli::try_parse_from(line.split_whitespace());
            assert!(outcome.is_ok(), "{line}: {}", outcome.unwrap_err());
        }
    }
}
