//! `msgr demo`: the same messages over three transports, each between two processes.
//!
//! ```text
//!   DPDK to DPDK      msgr ping [smoltcp, net_virtio_user] <- shared memory -> [net_vhost, smoltcp] msgr serve
//!   kernel to DPDK    msgr ping [kernel TCP] <- net_tap in a network namespace -> [smoltcp] msgr serve
//!   kernel to kernel  msgr ping [kernel TCP] <- loopback -> [kernel TCP] msgr serve
//! ```

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::report::{PingReport, SCHEMA, table};
use crate::sandbox::{Namespace, Process, ScratchDir};

/// Address of the serving end, in networks that exist only inside the demo.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Address of the asking end.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PREFIX: u8 = 24;
const PORT: u16 = 6800;
/// The kernel's name of the tap; namespaces keep it from meeting another.
const TAP: &str = "msgr-tap";
/// A client that measures may be silent for this long.
const CLIENT_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Messages for each transport
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    count: u64,
    /// Bytes of data in each message
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// One transport between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    DpdkToDpdk,
    KernelToDpdk,
    KernelToKernel,
}

impl Scene {
    const ALL: [Self; 3] = [Self::DpdkToDpdk, Self::KernelToDpdk, Self::KernelToKernel];

    fn name(self) -> &'static str {
        match self {
            Self::DpdkToDpdk => "DPDK to DPDK",
            Self::KernelToDpdk => "kernel to DPDK",
            Self::KernelToKernel => "kernel to kernel",
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::DpdkToDpdk => "net_virtio_user to net_vhost, smoltcp at both ends",
            Self::KernelToDpdk => "kernel TCP to smoltcp on net_tap, in a network namespace",
            Self::KernelToKernel => "kernel TCP at both ends, loopback",
        }
    }

    /// Why it cannot be played here.
    fn obstacle(self) -> Option<&'static str> {
        if self != Self::KernelToKernel && !cfg!(feature = "dpdk") {
            return Some("this program was built without DPDK; run: make demo");
        }
        if self != Self::KernelToDpdk {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            return Some("a tap and a network namespace need root; run: sudo make demo");
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("/dev/net/tun is missing; run: modprobe tun");
        }
        None
    }
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let scratch = ScratchDir::create()?;
    let stage = Stage { args, program: &program, scratch: &scratch };
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for scene in Scene::ALL {
        if let Some(why) = scene.obstacle() {
            progress(&format!("{}: left out, {why}", scene.name()));
            left_out.push((scene.name(), why));
            continue;
        }
        progress(&format!("{}: {}", scene.name(), scene.what()));
        let report = stage.play(scene).with_context(|| format!("\"{}\" failed", scene.name()))?;
        rows.push((scene.name().to_owned(), report));
    }
    print(args, &rows, &left_out)
}

struct Stage<'a> {
    args: &'a DemoArgs,
    program: &'a Path,
    scratch: &'a ScratchDir,
}

impl Stage<'_> {
    fn play(&self, scene: Scene) -> Result<PingReport> {
        match scene {
            Scene::DpdkToDpdk => self.dpdk_to_dpdk(),
            Scene::KernelToDpdk => self.kernel_to_dpdk(),
            Scene::KernelToKernel => self.kernel_to_kernel(),
        }
    }

    fn dpdk_to_dpdk(&self) -> Result<PingReport> {
        let socket = self.scratch.join("vhost.sock");
        let socket = socket.display();
        let mut server = self.msgr("serve");
        server
            .args(["--stack", "dpdk", "--vdev", &format!("net_vhost0,iface={socket},queues=1")])
            .args(["--addr", &format!("{SERVER}/{PREFIX}"), "--bind", &format!("{SERVER}:{PORT}")]);
        let mut client = self.ping();
        client
            .args(["--stack", "dpdk"])
            .args(["--vdev", &format!("net_virtio_user0,path={socket},queues=1")])
            .args(["--addr", &format!("{CLIENT}/{PREFIX}"), &format!("{SERVER}:{PORT}")]);
        converse(server, client, || Ok(()))
    }

    fn kernel_to_dpdk(&self) -> Result<PingReport> {
        let namespace = Namespace::create()?;
        let mut server = namespace.command(self.program);
        server
            .args(["--exit-with-parent", "serve", "--json"])
            .args(["--stack", "dpdk", "--vdev", &format!("net_tap0,iface={TAP}")])
            .args(["--addr", &format!("{SERVER}/{PREFIX}"), "--bind", &format!("{SERVER}:{PORT}")]);
        let mut client = namespace.command(self.program);
        client
            .args(["--exit-with-parent", "ping", "--json", "--stack", "posix"])
            .args(self.load())
            .arg(format!("{SERVER}:{PORT}"));
        converse(server, client, || namespace.add_address(TAP, IpAddr::V4(CLIENT), PREFIX))
    }

    fn kernel_to_kernel(&self) -> Result<PingReport> {
        let mut server = self.msgr("serve");
        server.args(["--stack", "posix", "--bind", "127.0.0.1:0"]);
        let mut server = Process::spawn("server", server)?;
        let ready = server.wait_ready()?;
        let target = ready["addrs"][0].as_str().context("the server told no address")?;
        let mut client = self.ping();
        client.args(["--stack", "posix", target]);
        let report = measure(client)?;
        server.stop()?;
        Ok(report)
    }

    fn msgr(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.program);
        command.args(["--exit-with-parent", subcommand, "--json"]);
        command
    }

    fn ping(&self) -> Command {
        let mut command = self.msgr("ping");
        command.args(self.load());
        command
    }

    fn load(&self) -> [String; 4] {
        ["--count".into(), self.args.count.to_string(), "--size".into(), self.args.size.to_string()]
    }
}

/// Starts the server, prepares the way, lets the client measure, ends both.
fn converse(
    server: Command,
    client: Command,
    prepare: impl FnOnce() -> Result<()>,
) -> Result<PingReport> {
    let mut server = Process::spawn("server", server)?;
    server.wait_ready()?;
    prepare()?;
    let report = measure(client)?;
    server.stop()?;
    Ok(report)
}

fn measure(client: Command) -> Result<PingReport> {
    let mut client = Process::spawn("client", client)?;
    let report: PingReport = serde_json::from_value(client.next_json(CLIENT_PATIENCE)?)
        .context("the client printed something else than a report")?;
    client
        .stop()
        .or_else(|error| if report.ended_early.is_none() { Ok(()) } else { Err(error) })?;
    if let Some(why) = &report.ended_early {
        bail!("the client ended early: {why}");
    }
    Ok(report)
}

/// Says what is going on, where a person watches.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{text}");
    }
}

fn print(
    args: &DemoArgs,
    rows: &[(String, PingReport)],
    left_out: &[(&'static str, &'static str)],
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let scenes: Vec<_> =
            rows.iter().map(|(name, r)| json!({"name": name, "report": r})).collect();
        let left_out: Vec<_> =
            left_out.iter().map(|(name, why)| json!({"name": name, "why": why})).collect();
        writeln!(out, "{}", json!({"schema": SCHEMA, "scenes": scenes, "left_out": left_out}))?;
        return Ok(());
    }
    writeln!(
        out,
        "\n{} messages of {} B each way, one at a time; msgr2.1 with checksums; round trips in microseconds\n",
        args.count, args.size
    )?;
    write!(out, "{}", table(rows))?;
    for (name, why) in left_out {
        writeln!(out, "\n{name}: left out, {why}")?;
    }
    writeln!(
        out,
        "\nOne run on one machine: a demonstration, not a benchmark. Both ends share its cores."
    )?;
    Ok(())
}
