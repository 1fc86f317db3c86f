//! `msgr ceph`: small questions to a real Ceph cluster, over either TCP.
//!
//! ```text
//!   caller      a messenger, and who we are on it
//!   monitor     finds a monitor; runs commands there
//!   objects     puts and gets one object, at the OSD that the monitors name
//!   heartbeat   pings an OSD as its peers do
//! ```

mod caller;
mod heartbeat;
mod monitor;
mod objects;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use messenger::EntityAddr;
use messenger_ceph::{JsonCommand, Utime};

use crate::options::{TransportArgs, parse_seconds};
use monitor::{Monitor, parse_addr};

#[derive(Debug, Args)]
pub(crate) struct CephArgs {
    #[command(flatten)]
    transport: TransportArgs,
    /// Monitors to ask, in this order: IP or IP:PORT
    #[arg(long, value_name = "ADDR,...", required = true, value_delimiter = ',',
          value_parser = parse_addr)]
    mon: Vec<EntityAddr>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Give up after this long; with ping-osd, after this long without an answer
    #[arg(long, global = true, value_name = "SECONDS", default_value = "15",
          value_parser = parse_seconds)]
    timeout: Duration,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// How the cluster is, in its monitors' words
    Status,
    /// Run any command of the monitors: words, or one JSON object with a prefix
    #[command(after_help = COMMAND_EXAMPLES)]
    Command {
        /// What comes behind `ceph`
        #[arg(value_name = "WORD", required = true)]
        words: Vec<String>,
    },
    /// Measure round trips of heartbeats to an OSD
    PingOsd(heartbeat::PingArgs),
    /// Store a file as an object, in the place of what is there
    Put(ObjectArgs),
    /// Fetch an object into a file
    Get(ObjectArgs),
}

const COMMAND_EXAMPLES: &str = "\
Examples:
  msgr ceph --mon 10.0.0.1 command fsid
  msgr ceph --mon 10.0.0.1 command osd tree
  msgr ceph --mon 10.0.0.1 command '{\"prefix\":\"osd pool create\",\"pool\":\"mine\"}'";

#[derive(Debug, Args)]
struct ObjectArgs {
    /// Name of the pool
    pool: String,
    /// Name of the object
    object: String,
    /// The file
    file: PathBuf,
}

pub(crate) fn run(args: &CephArgs) -> Result<()> {
    let config = args.transport.config()?;
    let deadline = Instant::now() + args.timeout;
    let find = || Monitor::find(&config, &args.mon, deadline);
    match &args.task {
        Task::Status => command(find()?, JsonCommand::new("status"), args.json, deadline),
        Task::Command { words } => {
            let asked = parse_command(words)?;
            command(find()?, asked, args.json, deadline)
        }
        Task::PingOsd(ping) => {
            let options = heartbeat::Options {
                stack: config.ms_type,
                patience: args.timeout,
                json: args.json,
            };
            heartbeat::run(find()?, ping, &options)
        }
        Task::Put(ObjectArgs { pool, object, file }) => {
            let content = objects::read_file(file)?;
            let mut objects = objects::Objects::new(find()?, deadline)?;
            objects.put(pool, object, content)?.print(args.json)
        }
        Task::Get(ObjectArgs { pool, object, file }) => {
            let mut objects = objects::Objects::new(find()?, deadline)?;
            let (content, done) = objects.get(pool, object)?;
            std::fs::write(file, content)
                .with_context(|| format!("cannot write {}", file.display()))?;
            done.print(args.json)
        }
    }
}

/// What a negative result means; Linux's numbers are the protocol's.
fn cause(result: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(result.wrapping_neg())
}

/// The time as Ceph's messages tell it.
fn now() -> Utime {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().into()
}

/// Words are a prefix; an object is taken as it is.
fn parse_command(words: &[String]) -> Result<JsonCommand> {
    let text = words.join(" ");
    if !text.trim_start().starts_with('{') {
        return Ok(JsonCommand::new(text.trim()));
    }
    text.parse().with_context(|| {
        format!("{text} is no command; try: msgr ceph --mon ADDR command '{{\"prefix\":\"fsid\"}}'")
    })
}

/// Runs a command; its output is ours.
fn command(
    mut monitor: Monitor,
    mut command: JsonCommand,
    json: bool,
    deadline: Instant,
) -> Result<()> {
    if json {
        command = command.json();
    }
    let ack = monitor.run(&command, deadline)?;
    if ack.result < 0 {
        return Err(monitor.refusal(&command, &ack));
    }
    let mut out = std::io::stdout().lock();
    let output = ack.output.trim_ascii_end();
    let output = output.strip_prefix(b"\n").unwrap_or(output);
    if !output.is_empty() {
        out.write_all(output)?;
        writeln!(out)?;
    }
    if !ack.status.trim().is_empty() {
        eprintln!("{}", ack.status.trim()); // as `ceph` does: a word on the side
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Result<JsonCommand> {
        parse_command(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_a_prefix_and_an_object_is_taken_as_it_is() {
        assert_eq!(command(&["osd", "tree"]).unwrap().prefix(), "osd tree");
        let object = command(&[r#"{"prefix":"osd map","pool":"p","object":"o"}"#]).unwrap();
        assert_eq!(object.text("pool"), Some("p"));
        let refused = command(&[r#"{"pool":"p"}"#]).unwrap_err();
        assert!(format!("{refused:#}").contains("prefix"), "{refused:#}");
    }
}
