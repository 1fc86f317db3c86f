//! `msgr`: serve, ping and demonstrate the messenger from the command line.

#![forbid(unsafe_code)]

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
/// Exit codes: 0 done, 1 failed (the cause is printed), 2 wrong usage.
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
  msgr ceph --mon 127.0.0.1:3300 status
  msgr decode tap.pcapng
  msgr serve --stack dpdk --vdev net_tap0,iface=dt0 --addr 10.99.0.2/24 --bind 10.99.0.2:6800";

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer every message with itself, until SIGINT or SIGTERM
    Serve(serve::ServeArgs),
    /// Measure round trips to a `msgr serve`
    Ping(ping::PingArgs),
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("msgr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
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
        Command::Serve(args) => serve::run(args),
        Command::Ping(args) => ping::run(args),
        Command::Ceph(args) => ceph::run(args),
        Command::Decode(args) => decode::run(args),
        Command::Demo(args) => demo::run(args),
    }
}
