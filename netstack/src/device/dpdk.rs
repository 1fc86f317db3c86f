//! Queue pairs of a DPDK port as packet devices: a thin coat over `dpdk-glue`.
//!
//! ```text
//!   DpdkConfig --open--> [DpdkDevice 0, DpdkDevice 1, ...]     one for each queue pair
//!                            |  rx_burst: mbufs as they came, one buffer each
//!                            |  tx_burst: what the port did not take stays in front
//! ```
//!
//! **Checksums.** Nothing is left for the device to compute when sending: full checksums are on
//! every wire, unless both ends agree that theirs is memory. When receiving, hardware ports may verify them; software devices are not asked,
//! for what they report is the word of a peer process.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dpdk_glue::{
    Chains, Checksum, Eal, Mbuf, Mempool, PoolConfig, Port, PortInfo, PortStats, Proof, QueuePair,
};
pub use dpdk_glue::{EalOptions, Error, MemoryMode, PortConfig, PortSource, Vdev};
use smoltcp::wire::EthernetAddress;

use super::{BURST_MAX, Burst, ChecksumState, DeviceInfo, Frame, PacketDevice, Rss};

/// Buffers each worker may keep in its own cache.
const POOL_CACHE: u32 = 256;
/// Frames a worker may hold besides what is in the rings: the burst it works on, the one to be
/// sent, and what waits for neighbours or in the rings between workers.
const FRAMES_HELD: u32 = 1024;
/// Shortest buffers we make, in bytes; what drivers expect as a minimum.
const ROOM_MIN: usize = 2048;
/// EtherType for local experiments (IEEE 802, 9.2.4): nobody answers or forwards a probe.
const PROBE_ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Length of a probe frame in bytes: the shortest Ethernet carries.
const PROBE_LEN: usize = 60;

/// How long the driver's counters are good for.
const STATS_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(BURST_MAX == dpdk_glue::BURST_MAX);

/// The release of DPDK that we run with, as it names itself.
pub fn version() -> &'static str {
    Eal::version()
}

/// Where frames come from and how much room they get.
#[derive(Clone, Debug)]
pub struct DpdkConfig {
    /// How DPDK is started. The first port of a process decides, further ones must agree.
    pub eal: EalOptions,
    /// Which device.
    pub source: PortSource,
    /// Its queues, descriptors and MTU.
    pub port: PortConfig,
    /// Packet buffers for all queues. `None`: as many as the rings, caches and workers can hold.
    pub mbufs: Option<u32>,
    /// See [`DeviceInfo::lossless_memory`]: the link is memory of this machine, and both ends do
    /// without checksums of IP and TCP.
    pub lossless_memory: bool,
}

impl DpdkConfig {
    /// A port with one queue pair and everything else as is usual.
    pub fn new(source: PortSource) -> Self {
        let (eal, port) = (EalOptions::default(), PortConfig::default());
        Self { eal, source, port, mbufs: None, lossless_memory: false }
    }

    /// The pool this port needs, so that full rings and caches never starve a worker.
    fn pool(&self) -> PoolConfig {
        let port = &self.port;
        let each = u32::from(port.rx_descriptors) + u32::from(port.tx_descriptors);
        let needed = u32::from(port.queues) * (each + POOL_CACHE + FRAMES_HELD);
        // A pool is best one short of a power of two: its ring holds so many.
        let mbufs = self.mbufs.unwrap_or_else(|| needed.next_power_of_two() - 1);
        let room = self.source.room_for(port.mtu).max(ROOM_MIN).next_multiple_of(64);
        // A cache may not hold more than two thirds of the pool.
        PoolConfig { mbufs, room, cache: POOL_CACHE.min(mbufs / 2) }
    }
}

/// Starts DPDK if need be, opens the port, and returns a device for each queue pair, in order.
///
/// Blocks for half a second, and for `peer_wait` where the other end has to be started first.
///
/// # Errors
/// What DPDK said about it.
pub fn open(config: &DpdkConfig) -> Result<Vec<DpdkDevice>, Error> {
    let eal = Eal::start(&config.eal)?;
    let pool_config = config.pool();
    let bytes = u64::from(pool_config.mbufs) * pool_config.room as u64;
    tracing::info!(
        mbufs = pool_config.mbufs,
        room_bytes = pool_config.room,
        megabytes = bytes >> 20,
        version = Eal::version(),
        "packet buffers"
    );
    let pool = Mempool::new(&eal, pool_config)?;
    let (port, queues) = Port::open(&eal, &config.source, &pool, &config.port)?;
    let device = |queues: QueuePair| DpdkDevice {
        info: device_info(config, port.info(), queues.rx.index()),
        port: port.clone(),
        queues,
        eal: eal.clone(),
        stats: Cell::new(None),
    };
    Ok(queues.into_iter().map(device).collect())
}

fn device_info(config: &DpdkConfig, port: &PortInfo, queue: u16) -> DeviceInfo {
    DeviceInfo {
        name: port.name.clone(),
        mac: EthernetAddress(port.mac),
        mtu: port.mtu.into(),
        queue,
        queues: port.queues,
        rss: port.rss.clone().map(|rss| Rss { key: rss.key, table: rss.table }),
        lossless_memory: config.lossless_memory,
    }
}

/// One queue pair of a DPDK port.
pub struct DpdkDevice {
    info: DeviceInfo,
    queues: QueuePair,
    port: Port,
    eal: Eal,
    /// What the driver said last, and when.
    stats: Cell<Option<(Instant, PortStats)>>,
}

impl DpdkDevice {
    /// The port this is a queue pair of: link, counters, reconnects.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Counters of the whole port, `None` while it is unplugged. Not for the data path.
    pub fn stats(&self) -> Option<PortStats> {
        self.port.stats()
    }

    /// The same, up to [`STATS_EVERY`] old, and while it is unplugged as they were last.
    fn recent_stats(&self) -> PortStats {
        let now = Instant::now();
        match self.stats.get() {
            Some((at, stats)) if now.duration_since(at) < STATS_EVERY => stats,
            known => {
                let known = known.map(|(_, stats)| stats).unwrap_or_default();
                let stats = self.port.stats().unwrap_or(known);
                self.stats.set(Some((now, stats)));
                stats
            }
        }
    }

    /// What became of received frames that came in several buffers.
    pub fn chains(&self) -> Chains {
        self.queues.rx.chains()
    }

    /// Finds out whether frames move, within `time`; see [`dpdk_glue::Proof`]. Sends harmless
    /// frames to our own address. For before the device is put to work: frames that arrive
    /// meanwhile are lost.
    ///
    /// # Errors
    /// If the other end takes nothing although the link is up.
    pub fn prove(&mut self, time: Duration) -> Result<Proof, Error> {
        let mut probe = [0; PROBE_LEN];
        probe[..6].copy_from_slice(&self.port.info().mac);
        probe[6..12].copy_from_slice(&self.port.info().mac);
        probe[12..14].copy_from_slice(&PROBE_ETHERTYPE);
        self.queues.prove(&self.port, &probe, time)
    }
}

impl PacketDevice for DpdkDevice {
    type Frame = Mbuf;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn start(&mut self) -> io::Result<()> {
        Ok(self.eal.register_thread()?)
    }

    #[inline]
    fn rx_burst(&mut self, _now: Instant, burst: &mut Burst<Mbuf>) {
        self.queues.rx.recv(burst);
    }

    #[inline]
    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.queues.tx.alloc(len)
    }

    #[inline]
    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst<Mbuf>) {
        self.queues.tx.send(burst);
    }

    fn arrivals(&self) -> Option<OwnedFd> {
        self.queues.rx.arrivals()
    }

    fn link_is_up(&mut self) -> bool {
        self.port.link_is_up()
    }

    fn frames_in_use(&self) -> u64 {
        self.port.pool().in_use()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        if self.info.queue != 0 {
            return Vec::new();
        }
        let stats = self.recent_stats();
        vec![
            ("port_receive_packets", stats.rx_packets),
            ("port_receive_bytes", stats.rx_bytes),
            ("port_send_packets", stats.tx_packets),
            ("port_send_bytes", stats.tx_bytes),
            ("port_receive_dropped_errors", stats.rx_missed),
            ("port_receive_total_errors", stats.rx_errors),
            ("port_send_total_errors", stats.tx_errors),
            ("port_receive_nombuf_errors", stats.rx_no_mbuf),
            ("port_reconnects", self.port.reconnects()),
        ]
    }
}

impl fmt::Debug for DpdkDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpdkDevice").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }

    #[inline]
    fn checksum(&self) -> ChecksumState {
        match self.checksum() {
            Checksum::Unknown => ChecksumState::Unknown,
            Checksum::Good => ChecksumState::Good,
            Checksum::Bad => ChecksumState::Bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::page;

    fn ring() -> DpdkConfig {
        let vdev = "net_ring0".parse().unwrap();
        let mut config = DpdkConfig::new(PortSource::Vdev(vdev));
        config.eal.memory_mb = 64;
        config
    }

    #[test]
    fn the_pool_holds_what_rings_caches_and_workers_can_hold() {
        let mut config = ring();
        let pool = config.pool();
        assert_eq!(pool, PoolConfig { mbufs: 4095, room: ROOM_MIN, cache: POOL_CACHE });
        config.port.queues = 4;
        config.port.mtu = 9000;
        let pool = config.pool();
        assert_eq!(pool.mbufs, 16_383);
        assert!(pool.room >= 9000 + 18 && pool.room < 9100);
        config.mbufs = Some(100);
        assert_eq!(config.pool().cache, 50);
    }

    /// The only test of this program that starts EAL, which a process can do once.
    #[test]
    fn devices_carry_bursts_and_keep_what_was_not_taken() {
        let mut config = ring();
        config.port.queues = 2;
        let mut devices = open(&config).unwrap();
        let now = Instant::now();
        for (queue, device) in devices.iter_mut().enumerate() {
            assert_eq!(usize::from(device.info().queue), queue);
            assert_eq!((device.info().queues, device.info().mtu), (2, 1500));
            device.start().unwrap();
            let mut burst = Burst::new();
            let mut sent = 0_u32;
            while burst.is_empty() {
                for number in sent..sent + BURST_MAX as u32 {
                    let mut frame = device.alloc(64).unwrap();
                    frame.bytes_mut()[..4].copy_from_slice(&number.to_be_bytes());
                    burst.push(frame);
                }
                device.tx_burst(now, &mut burst);
                sent += (BURST_MAX - burst.len()) as u32;
            }
            assert_eq!(burst[0].bytes()[..4], sent.to_be_bytes(), "what is left begins here");
            burst.clear();
            let mut received = 0;
            loop {
                device.rx_burst(now, &mut burst);
                if burst.is_empty() {
                    break;
                }
                received += burst.drain(..).filter(|frame| frame.bytes().len() == 64).count();
            }
            assert_eq!(received, sent as usize);
            assert_eq!(device.frames_in_use(), 0);
            assert!(device.alloc(ROOM_MIN + 1).is_none());
        }

        let counters = devices[0].counters();
        let names: Vec<_> = counters.iter().map(|(name, _)| *name).collect();
        page::assert_tells("transport-N: DPDK port", &names);
        assert!(counters.contains(&("port_receive_total_errors", 0)));
        assert!(counters[0].1 > 0, "{counters:?}");
        assert!(devices[1].counters().is_empty(), "the first queue tells for the port");
    }
}
