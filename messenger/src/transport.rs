//! From the configuration to what moves the bytes: workers, one set per transport and process
//! (contract M-2), or threads of the messenger's own.

#[cfg(feature = "dpdk")]
use crate::config::{Cidr, Congestion, Idle};
use crate::config::{Config, DpdkTable, MsType, NativeTable, OpThreads, PosixTable};
use crate::error::Error;
use crate::shell::Shell;
use crate::simple::Simple;
use crate::tenant::Tenant;
use crate::workers::{Workers, WorkersOptions};
#[cfg(feature = "dpdk")]
use netstack::device::PacketDevice;
#[cfg(feature = "dpdk")]
use netstack::device::pcap::{CaptureFile, PcapDevice};
#[cfg(feature = "dpdk")]
use netstack::native::{Congestion as TcpCongestion, IdlePolicy, NativeConfig, NativeStack};
use netstack::posix::{PosixConfig, PosixStack};
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
#[cfg(feature = "dpdk")]
use std::time::{Instant, SystemTime};

/// The release of DPDK that we run with, as it names itself; none if it is not built in.
pub fn dpdk_version() -> Option<&'static str> {
    #[cfg(feature = "dpdk")]
    let version = Some(netstack::device::dpdk::version());
    #[cfg(not(feature = "dpdk"))]
    let version = None;
    version
}

/// Messengers with equal settings share their workers.
#[derive(Clone, Debug, PartialEq)]
struct Settings {
    cpus: Vec<usize>,
    inbox_items: NonZeroUsize,
    stack: StackSettings,
}

#[derive(Clone, Debug, PartialEq)]
enum StackSettings {
    Posix(OpThreads, PosixTable),
    Dpdk(Box<(NativeTable, DpdkTable)>),
}

static RUNNING: Mutex<Vec<(Settings, Weak<Workers>)>> = Mutex::new(Vec::new());

/// What moves the bytes of a messenger with this configuration.
pub(crate) fn shell(config: &Config) -> Result<Shell, Error> {
    let stack = match config.ms_type {
        MsType::Posix => StackSettings::Posix(config.ms_async_op_threads, config.posix.clone()),
        MsType::Dpdk => StackSettings::Dpdk(Box::new((config.native.clone(), config.dpdk.clone()))),
        MsType::Simple => {
            let options = posix(config.ms_async_op_threads, &config.posix);
            let simple = Simple::new(options).map_err(|source| failed(MsType::Simple, source))?;
            return Ok(Shell::Simple(simple));
        }
    };
    Ok(Shell::Workers(Tenant::new(workers(config, stack)?)))
}

/// The process's workers for this configuration; starts them if nobody uses them yet.
fn workers(config: &Config, stack: StackSettings) -> Result<Arc<Workers>, Error> {
    let settings = Settings {
        cpus: config.worker_cpus.clone(),
        inbox_items: config.worker_inbox_items,
        stack,
    };
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    running.retain(|(_, workers)| workers.strong_count() > 0);
    let same = running.iter().filter(|(other, _)| *other == settings);
    if let Some(workers) = same.filter_map(|(_, workers)| workers.upgrade()).next() {
        return Ok(workers);
    }
    let workers = start(&settings)?;
    running.push((settings, Arc::downgrade(&workers)));
    Ok(workers)
}

fn start(settings: &Settings) -> Result<Arc<Workers>, Error> {
    let options = |name: &str| WorkersOptions {
        name: name.to_owned(),
        inbox_items: settings.inbox_items,
        cpus: settings.cpus.clone(),
    };
    match &settings.stack {
        StackSettings::Posix(threads, table) => {
            let stack = PosixStack::new(posix(*threads, table));
            let started = Workers::start(stack, &options("msgr-posix"));
            started.map_err(|source| failed(MsType::Posix, source))
        }
        StackSettings::Dpdk(tables) => start_dpdk(&tables.0, &tables.1, &options("msgr-dpdk")),
    }
}

#[cfg(not(feature = "dpdk"))]
fn start_dpdk(_: &NativeTable, _: &DpdkTable, _: &WorkersOptions) -> Result<Arc<Workers>, Error> {
    Err(Error::NotBuiltIn(MsType::Dpdk))
}

#[cfg(feature = "dpdk")]
fn start_dpdk(
    native: &NativeTable,
    dpdk: &DpdkTable,
    options: &WorkersOptions,
) -> Result<Arc<Workers>, Error> {
    let failed = |source| failed(MsType::Dpdk, source);
    let (devices, config) = (dpdk::open(dpdk).map_err(failed)?, native_config(native));
    // Two kinds of workers, so that who does not record does not pay.
    let workers = match dpdk.capture.as_os_str().is_empty() {
        true => Workers::start(NativeStack::new(devices, config), options),
        false => {
            let devices = record(devices, dpdk).map_err(failed)?;
            Workers::start(NativeStack::new(devices, config), options)
        }
    };
    workers.map_err(failed)
}

/// Has each device recorded to a file of its own.
#[cfg(feature = "dpdk")]
fn record<D: PacketDevice>(
    devices: Vec<D>,
    table: &DpdkTable,
) -> io::Result<Vec<PcapDevice<D, CaptureFile>>> {
    let anchor = (Instant::now(), SystemTime::now());
    let record = |device: D| {
        let mut path = table.capture.clone().into_os_string();
        match device.info().queue {
            0 => {}
            queue => path.push(format!(".{queue}")),
        }
        let file = CaptureFile::create(path.as_ref(), table.capture_bytes);
        file.and_then(|file| PcapDevice::new(device, file, anchor)).map_err(|error| {
            let reason = format!("cannot record to {}: {error}", path.display());
            io::Error::new(error.kind(), reason)
        })
    };
    devices.into_iter().map(record).collect()
}

#[cfg(feature = "dpdk")]
mod dpdk {
    use crate::config::DpdkTable;
    use netstack::device::dpdk::{
        DpdkConfig, DpdkDevice, EalOptions, MemoryMode, PortConfig, PortSource,
    };
    use std::io;
    use std::time::Duration;

    /// Longest time a port is given to show that frames move.
    const PROOF_TIME: Duration = Duration::from_millis(500);

    /// One device for each queue pair of a port that was put to the proof: `net_virtio_user` can
    /// start, say that its link is up, and lose every frame.
    pub(super) fn open(table: &DpdkTable) -> io::Result<Vec<DpdkDevice>> {
        let source = match table.port.is_empty() {
            true => PortSource::Vdev(table.vdev.parse().map_err(io::Error::other)?),
            false => PortSource::Device(table.port.clone()),
        };
        let memory_mode = match table.hugepages {
            true => MemoryMode::InMemory {
                single_file_segments: true, // net_virtio_user needs it, and no driver minds
            },
            false => MemoryMode::NoHuge,
        };
        let config = DpdkConfig {
            eal: EalOptions {
                memory_mb: table.memory_mb,
                memory_mode,
                pci: Vec::from_iter((!table.port.is_empty()).then(|| table.port.clone())),
                extra_args: table.eal_args.clone(),
                ..EalOptions::default()
            },
            port: PortConfig {
                queues: u8::from(table.queues).into(),
                rx_descriptors: table.rx_descriptors,
                tx_descriptors: table.tx_descriptors,
                mtu: table.mtu,
                peer_wait: Duration::from_millis(table.peer_wait_ms),
                ..PortConfig::default()
            },
            lossless_memory: table.lossless_memory,
            ..DpdkConfig::new(source)
        };
        let mut devices = netstack::device::dpdk::open(&config).map_err(io::Error::other)?;
        if let Some(device) = devices.first_mut() {
            let proof = device.prove(PROOF_TIME).map_err(io::Error::other)?;
            tracing::info!(?proof, "frames through the port");
        }
        Ok(devices)
    }
}

#[cfg(feature = "dpdk")]
fn native_config(table: &NativeTable) -> NativeConfig {
    let cidr = |cidr: &Cidr| netstack::IpCidr::new(cidr.addr.into(), cidr.prefix_len);
    NativeConfig {
        addrs: table.addrs.iter().map(cidr).collect(),
        gateway_v4: table.gateway_v4,
        gateway_v6: table.gateway_v6,
        vlan: table.vlan,
        rx_buffer_bytes: table.rx_buffer_bytes,
        tx_buffer_bytes: table.tx_buffer_bytes,
        max_connections: table.max_connections,
        keepalive: duration(table.keepalive_ms),
        user_timeout: duration(table.user_timeout_ms),
        clock_multiplier: table.clock_multiplier,
        congestion: match table.congestion {
            Congestion::Cubic => TcpCongestion::Cubic,
            Congestion::Reno => TcpCongestion::Reno,
            Congestion::None => TcpCongestion::None,
        },
        idle: match table.idle {
            Idle::Spin => IdlePolicy::Spin,
            Idle::Yield => IdlePolicy::Yield,
            Idle::Adaptive => IdlePolicy::Adaptive {
                spin: Duration::from_micros(table.idle_spin_us),
                nap: Duration::from_micros(table.idle_nap_us),
            },
        },
        ..NativeConfig::default()
    }
}

fn failed(ms_type: MsType, source: io::Error) -> Error {
    Error::Transport { ms_type, source }
}

fn posix(threads: OpThreads, table: &PosixTable) -> PosixConfig {
    PosixConfig {
        driver: table.driver,
        workers: threads.count(),
        max_connections: table.max_connections,
        nodelay: table.nodelay,
        rcvbuf: non_zero(table.rcvbuf_bytes),
        sndbuf: non_zero(table.sndbuf_bytes),
        keepalive: duration(table.keepalive_ms),
        user_timeout: duration(table.user_timeout_ms),
        ..PosixConfig::default()
    }
}

/// Zero stands for "not set".
fn non_zero(value: usize) -> Option<usize> {
    (value > 0).then_some(value)
}

/// Zero stands for "never".
fn duration(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}
