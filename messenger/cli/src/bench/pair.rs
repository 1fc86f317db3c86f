//! Both ends of a run on this machine, by name.
//!
//! ```text
//!   posix, simple              messenger over kernel TCP, loopback
//!   dpdk-memif, dpdk-vhost     messenger over our TCP, shared memory between the processes
//!   dpdk-tap                   messenger over our TCP on net_tap; the client over kernel TCP (root)
//!   kernel-epoll, kernel-spin  bare frames over kernel TCP, loopback: the yardstick
//! ```
//!
//! With `@FILE` behind its name a pair takes that configuration at both ends. Without, links in
//! shared memory have frames and socket buffers as large as the loopback of the kernel has them.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result};
use messenger::{Config, EntityAddr};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::bench::yardstick::Waiting;
use crate::options::parse_addr;
use crate::sandbox::{Namespace, Process, ScratchDir};

/// Address of the serving end, in networks that exist only between the two.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Address of the loading end.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const PREFIX: u8 = 24;
const PORT: u16 = 6800;
/// The kernel's name of the tap; namespaces keep it from meeting another.
const TAP: &str = "msgr-tap";
/// How both ends of a link in shared memory are set: it loses nothing, spoils nothing, and its frames
/// may be long. Loopback has no checksums either.
const SHARED_MEMORY: &str = "\
ms_async_op_threads = 1

[dpdk]
mtu = 9000
lossless_memory = true

[native]
rx_buffer_bytes = 1048575
tx_buffer_bytes = 1048576
congestion = \"none\"
";
/// MTU of Ethernet; memif buffers have to be asked for above it.
const ETHERNET_MTU: u16 = 1500;
/// Bytes of a memif buffer beyond the MTU: Ethernet and VLAN headers, and some headroom.
const MEMIF_EXTRA: u16 = 64;

/// What carries the messages between both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Posix,
    Simple,
    Memif,
    Vhost,
    Tap,
    Yardstick(Waiting),
}

const WIRES: [(&str, Wire); 7] = [
    ("posix", Wire::Posix),
    ("simple", Wire::Simple),
    ("dpdk-memif", Wire::Memif),
    ("dpdk-vhost", Wire::Vhost),
    ("dpdk-tap", Wire::Tap),
    ("kernel-epoll", Wire::Yardstick(Waiting::Epoll)),
    ("kernel-spin", Wire::Yardstick(Waiting::Spin)),
];

/// A pair as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    wire: Wire,
    config: Option<PathBuf>,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, file) = text.split_once('@').map_or((text, None), |(n, f)| (n, Some(f)));
        let found = WIRES.iter().find(|(known, _)| *known == name);
        let names: Vec<_> = WIRES.iter().map(|(name, _)| *name).collect();
        let (_, wire) = found.ok_or_else(|| {
            format!("{name:?} is no pair; there are {}, each with @FILE", names.join(", "))
        })?;
        if file.is_some() && matches!(wire, Wire::Yardstick(_)) {
            return Err(format!("{name} has no messenger to configure"));
        }
        Ok(Self { wire: *wire, config: file.map(PathBuf::from) })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = WIRES.iter().find(|(_, wire)| *wire == self.wire).map_or("", |(name, _)| name);
        f.write_str(name)?;
        self.config.iter().try_for_each(|file| write!(f, "@{}", file.display()))
    }
}

/// Which of the two ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Server,
    Client,
}

/// A running server and the way to it. What it made on the machine goes with it.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) server: Process,
    pub(crate) target: EntityAddr,
    spec: Spec,
    scratch: ScratchDir,
    namespace: Option<Namespace>,
}

impl Pair {
    /// Starts the server, on `cpus` if there are any.
    ///
    /// # Errors
    /// If it does not become ready.
    pub(crate) fn start(spec: &Spec, cpus: &[usize]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let scratch = ScratchDir::create()?;
        let namespace = match spec.wire {
            Wire::Tap => Some(Namespace::create()?),
            _ => None,
        };
        let mut command = match &namespace {
            Some(namespace) => namespace.command(&program),
            None => Command::new(&program),
        };
        command.args(["--exit-with-parent", "bench", "serve", "--json"]);
        command.args(spec.flags(End::Server, &scratch)?);
        if !cpus.is_empty() {
            let cpus: Vec<_> = cpus.iter().map(ToString::to_string).collect();
            command.args(["--pin", &cpus.join(",")]);
        }
        let bind = match spec.wire {
            Wire::Memif | Wire::Vhost | Wire::Tap => format!("{SERVER}:{PORT}"),
            Wire::Posix | Wire::Simple | Wire::Yardstick(_) => "127.0.0.1:0".to_owned(),
        };
        let mut server = Process::spawn("server", {
            command.args(["--bind", &bind]);
            command
        })?;
        let ready = server.wait_ready().with_context(|| format!("{spec} does not start"))?;
        let addr = ready["addrs"][0].as_str().context("the server told no address")?;
        let target = parse_addr(addr).map_err(anyhow::Error::msg)?;
        if let Some(namespace) = &namespace {
            namespace.add_address(TAP, IpAddr::V4(CLIENT), PREFIX)?;
        }
        Ok(Self { server, target, spec: spec.clone(), scratch, namespace })
    }

    /// How the client waits, if this is the yardstick.
    pub(crate) fn yardstick(&self) -> Option<Waiting> {
        match self.spec.wire {
            Wire::Yardstick(waiting) => Some(waiting),
            _ => None,
        }
    }

    /// Puts this process where it can reach the server, and says what its messenger needs.
    ///
    /// # Errors
    /// If it may not go there, or the configuration is refused.
    pub(crate) fn join(&self) -> Result<Config> {
        if let Some(namespace) = &self.namespace {
            let file = File::open(namespace.path())?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network namespace")?;
        }
        self.spec.config(End::Client, &self.scratch)
    }
}

impl Spec {
    /// The flags that give one end its transport.
    fn flags(&self, end: End, scratch: &ScratchDir) -> Result<Vec<String>> {
        let file = self.config_file(scratch)?;
        let flags = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut flags: Vec<String> = match (self.wire, end) {
            (Wire::Yardstick(Waiting::Epoll), _) => flags(&["--yardstick", "epoll"]),
            (Wire::Yardstick(Waiting::Spin), _) => flags(&["--yardstick", "spin"]),
            (Wire::Posix, _) | (Wire::Tap, End::Client) => flags(&["--stack", "posix"]),
            (Wire::Simple, _) => flags(&["--stack", "simple"]),
            (Wire::Memif | Wire::Vhost | Wire::Tap, _) => {
                let vdev = self.vdev(end, scratch, file.as_deref())?;
                let addr = if end == End::Server { SERVER } else { CLIENT };
                let addr = format!("{addr}/{PREFIX}");
                flags(&["--stack", "dpdk", "--vdev", &vdev, "--addr", &addr])
            }
        };
        if let Some(file) = file {
            flags.extend(["--config".to_owned(), file.display().to_string()]);
        }
        Ok(flags)
    }

    /// The device of one end; `file` has what both are configured with, flags apart.
    fn vdev(&self, end: End, scratch: &ScratchDir, file: Option<&Path>) -> Result<String> {
        let flags = match file {
            Some(file) => ["--config".to_owned(), file.display().to_string()],
            None => ["--workers".to_owned(), "1".to_owned()],
        };
        let config = crate::options::config_of(&flags)?;
        let socket = scratch.join("wire.sock");
        let socket = socket.display();
        let workers = u8::from(config.ms_async_op_threads);
        Ok(match (self.wire, end) {
            (Wire::Memif, _) => {
                let role = if end == End::Server { "server" } else { "client" };
                let jumbo = match config.dpdk.mtu {
                    mtu if mtu > ETHERNET_MTU => format!(",bsize={}", mtu + MEMIF_EXTRA),
                    _ => String::new(),
                };
                format!("net_memif0,role={role},socket-abstract=no,socket={socket}{jumbo}")
            }
            (Wire::Vhost, End::Server) => format!("net_vhost0,iface={socket},queues={workers}"),
            (Wire::Vhost, End::Client) => {
                format!("net_virtio_user0,path={socket},queues={workers}")
            }
            _ => format!("net_tap0,iface={TAP}"),
        })
    }

    fn config(&self, end: End, scratch: &ScratchDir) -> Result<Config> {
        if let Wire::Yardstick(_) = self.wire {
            return Ok(Config::default());
        }
        crate::options::config_of(&self.flags(end, scratch)?)
    }

    /// The file that configures both ends, if there is one.
    fn config_file(&self, scratch: &ScratchDir) -> Result<Option<PathBuf>> {
        if self.config.is_some() || !matches!(self.wire, Wire::Memif | Wire::Vhost) {
            return Ok(self.config.clone());
        }
        let file = scratch.join("shared-memory.toml");
        std::fs::write(&file, SHARED_MEMORY).context("cannot write the configuration")?;
        Ok(Some(file))
    }
}
