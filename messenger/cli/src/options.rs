//! The flags that choose and shape a transport, on top of a configuration file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use messenger::{AddrType, Cidr, Config, EntityAddr, MsType, OpThreads};

/// Which TCP carries the messages.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Stack {
    /// The kernel's TCP
    Posix,
    /// The kernel's TCP with two threads a connection, to compare with
    Simple,
    /// Our own TCP over a DPDK port
    Dpdk,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Transport")]
pub(crate) struct TransportArgs {
    /// Configuration file (TOML); flags take precedence over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which TCP to use [default: posix]
    #[arg(long, value_enum)]
    stack: Option<Stack>,
    /// DPDK software device to make, as EAL takes it: net_tap0,iface=dt0
    #[arg(long, value_name = "DEVICE", conflicts_with = "port")]
    vdev: Option<String>,
    /// PCI address of a card that is bound to a DPDK driver; no card is touched otherwise
    #[arg(long, value_name = "PCI")]
    port: Option<String>,
    /// Address of our own TCP with its prefix length: 10.99.0.2/24 (repeatable)
    #[arg(long = "addr", value_name = "IP/LEN")]
    addrs: Vec<Cidr>,
    /// With --stack dpdk: record every frame to this pcapng file, for Wireshark and msgr decode
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Next hop for addresses outside our networks (one for IPv4, one for IPv6)
    #[arg(long, value_name = "IP")]
    gateway: Vec<IpAddr>,
    /// Worker threads; with DPDK each has a queue pair of the port [default: 1]
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    workers: Option<OpThreads>,
    /// CPUs to pin the workers to, one each: 0,1
    #[arg(long, value_name = "CPU,...", value_delimiter = ',')]
    cpus: Vec<usize>,
}

/// Longest time a flag takes; clocks overflow far above it.
const TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// An address to listen at or to dial: `IP:PORT`, `IP:PORT/NONCE`, with `v1:` in front for msgr1.
pub(crate) fn parse_addr(text: &str) -> Result<EntityAddr, String> {
    let addr = text.parse::<EntityAddr>().ok();
    let is_spoken =
        |addr: &EntityAddr| addr.socket.is_some() && AddrType::SPOKEN.contains(&addr.kind);
    addr.filter(is_spoken)
        .ok_or_else(|| format!("{text:?} is no address; write IP:PORT or v1:IP:PORT"))
}

/// A time given in seconds, fractions allowed.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if time > TIME_MAX {
        return Err(format!("at most {} seconds", TIME_MAX.as_secs()));
    }
    Ok(time)
}

fn parse_threads(text: &str) -> Result<OpThreads, String> {
    text.parse::<u8>().map_err(|error| error.to_string()).and_then(OpThreads::try_from)
}

impl TransportArgs {
    /// The file's settings, then the flags', checked together.
    pub(crate) fn config(&self) -> Result<Config> {
        let mut config = self.file()?;
        if let Some(stack) = self.stack {
            config.ms_type = match stack {
                Stack::Posix => MsType::Posix,
                Stack::Simple => MsType::Simple,
                Stack::Dpdk => MsType::Dpdk,
            };
        }
        if self.vdev.is_some() || self.port.is_some() {
            config.dpdk.vdev = self.vdev.clone().unwrap_or_default();
            config.dpdk.port = self.port.clone().unwrap_or_default();
        }
        if let Some(capture) = &self.capture {
            config.dpdk.capture.clone_from(capture);
        }
        replace(&mut config.native.addrs, &self.addrs);
        replace(&mut config.worker_cpus, &self.cpus);
        for gateway in &self.gateway {
            match gateway {
                IpAddr::V4(v4) => config.native.gateway_v4 = Some(*v4),
                IpAddr::V6(v6) => config.native.gateway_v6 = Some(*v6),
            }
        }
        if let Some(workers) = self.workers {
            config.ms_async_op_threads = workers;
            config.dpdk.queues = workers;
        } else if self.config.is_none() {
            // Ceph's three suit a daemon; a command line gets what it asks for.
            config.ms_async_op_threads = OpThreads::new(1).context("one is a valid count")?;
        }
        if self.capture.is_some() && config.ms_type != MsType::Dpdk {
            bail!("--capture needs --stack dpdk; for the kernel's TCP there is tcpdump");
        }
        if config.ms_type == MsType::Dpdk {
            if config.dpdk.vdev.is_empty() && config.dpdk.port.is_empty() {
                bail!(
                    "--stack dpdk needs a device; try --vdev net_tap0,iface=dt0 (root), or see \
                     msgr demo"
                );
            }
            if config.native.addrs.is_empty() {
                bail!("--stack dpdk needs an address of its own; try --addr 10.99.0.2/24");
            }
        }
        config.check()?;
        tracing::info!("effective configuration:\n{config}");
        Ok(config)
    }

    fn file(&self) -> Result<Config> {
        let Some(path) = &self.config else {
            return Ok(Config::default());
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Config::from_toml(&text).with_context(|| format!("{} is refused", path.display()))
    }
}

/// The configuration that these transport flags ask for.
pub(crate) fn config_of(flags: &[String]) -> Result<Config> {
    #[derive(clap::Parser)]
    #[command(no_binary_name = true)]
    struct Flags {
        #[command(flatten)]
        transport: TransportArgs,
    }
    Flags::try_parse_from(flags)?.transport.config()
}

/// Flags that were given replace what the file said.
fn replace<T: Clone>(setting: &mut Vec<T>, flags: &[T]) {
    if !flags.is_empty() {
        setting.clear();
        setting.extend_from_slice(flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_neither_type_nor_nonce() {
        let full = EntityAddr::v2("127.0.0.1:6800".parse().unwrap(), 7);
        for text in ["v2:127.0.0.1:6800/7", "127.0.0.1:6800/7"] {
            assert_eq!(parse_addr(text), Ok(full));
        }
        let legacy = EntityAddr::v1("[::1]:6800".parse().unwrap(), 0);
        assert_eq!(parse_addr("v1:[::1]:6800"), Ok(legacy));
        for text in ["localhost", "any:127.0.0.1:1/0", "v2:-/7", "127.0.0.1"] {
            assert!(parse_addr(text).unwrap_err().contains("IP:PORT"), "{text}");
        }
    }

    #[test]
    fn seconds_that_are_no_time_are_refused() {
        assert_eq!(parse_seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in ["-1", "nan", "inf", "1e300", "1e9", "soon", ""] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
