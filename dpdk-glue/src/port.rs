//! Ports: a device found or plugged in, configured, started, and brought back when its peer was.
//!
//! ```text
//!   Port ---\
//!   RxQueue ---> Link: gate, mempool, watch thread, device        last one out: stop, close,
//!   TxQueue --/                                                   plug out
//! ```
//!
//! **What the watch thread does.** Every 100 ms it asks for the link, off the data path. Two
//! software drivers do not come back by themselves when the other end dies and a new one appears:
//! the client ends of `net_memif` and `net_virtio_user`. For these it closes the gate, waits until
//! every queue has seen that, restarts the device until the peer is there again, and opens the
//! gate. Packets on their way are lost, as on any cable pulled out.
//!
//! **What nobody can mend.** When a memif peer ends, however it ends, the driver unmaps the shared
//! rings from a thread of its own, maybe under a burst: a port with traffic may crash its process.
//! Use memif where both ends end together, `net_vhost` and `net_virtio_user` everywhere else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::{Device, room_for};
use crate::eal::Eal;
use crate::error::Error;
use crate::gate::Gate;
use crate::log;
use crate::mempool::Mempool;
use crate::queue::QueuePair;
use crate::vdev::Vdev;
use crate::watch::{RETRY_EVERY, Watch};

/// Which device a port is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSource {
    /// A software device, plugged in when the port opens and out when it closes.
    Vdev(Vdev),
    /// One that EAL has probed, by name: the address of a PCI device. Once closed it is gone for
    /// this process.
    Device(String),
    /// The only one that EAL has probed.
    Only,
}

impl PortSource {
    /// Bytes of data the buffers of the port's pool must take, for packets of `mtu` bytes.
    pub fn room_for(&self, mtu: u16) -> usize {
        room_for(self, mtu)
    }
}

/// How a port is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Queue pairs.
    pub queues: u16,
    /// Descriptors of each receive queue; adjusted to what the driver takes.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue; adjusted to what the driver takes.
    pub tx_descriptors: u16,
    /// Longest IP packet in bytes.
    pub mtu: u16,
    /// Lets a hardware port verify received checksums, where it can. Software devices are never
    /// asked: what they say is no proof, see [`crate::Checksum`].
    pub rx_checksum: bool,
    /// How long the client end of a software link waits for the other end to appear.
    pub peer_wait: Duration,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            queues: 1,
            rx_descriptors: 512,
            tx_descriptors: 512,
            mtu: 1500,
            rx_checksum: true,
            peer_wait: Duration::from_secs(5),
        }
    }
}

/// What a port is; does not change while it is open.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// The device's name.
    pub name: String,
    /// Its driver's.
    pub driver: String,
    /// Its Ethernet address. All zeroes for devices without one, like `net_ring`.
    pub mac: [u8; 6],
    /// Longest IP packet in bytes.
    pub mtu: u16,
    /// Queue pairs.
    pub queues: u16,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// The port verifies some received checksums.
    pub rx_checksum: bool,
    /// How hardware spreads flows over the queues.
    pub rss: Option<Rss>,
}

/// Receive-side scaling: which queue a TCP 4-tuple's packets arrive on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The Toeplitz key, 40 bytes or more.
    pub key: Vec<u8>,
    /// Redirection table: entry `hash % len` names the queue.
    pub table: Vec<u16>,
}

/// A port's counters since it was opened, or plugged in anew, as its driver counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets lost because a receive queue was full.
    pub rx_missed: u64,
    /// Packets received with an error.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Receptions that failed for lack of buffers.
    pub rx_no_mbuf: u64,
}

/// A started device. Cheap to clone; any thread may use it.
///
/// It runs until the last `Port` and the last of its queues are dropped.
#[derive(Clone, Debug)]
pub struct Port {
    link: Arc<Link>,
    info: Arc<PortInfo>,
}

/// What the queues of a port share. Dropping it takes the port down.
///
/// Invariant: while the gate is open, the device is started and has all queues.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: Mempool,
    /// Frames that a transmit queue takes without anybody taking them out.
    frames_unseen: u64,
    /// Its receive queues have files that tell of packets.
    pub(crate) has_arrival_files: bool,
    shared: Arc<Shared>,
    /// Dropped before the device: its thread is joined, and then nobody else holds `shared`.
    watch: Option<Watch>,
}

/// What the watch thread shares with the port's handles.
#[derive(Debug)]
pub(crate) struct Shared {
    device: Mutex<Device>,
    pub(crate) link_up: AtomicBool,
    pub(crate) reconnects: AtomicU64,
}

impl Shared {
    pub(crate) fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    /// Opens a port and starts it. Returns it with its queue pairs, in order of their index.
    ///
    /// The client end of a software link waits up to `peer_wait` for the other end. Blocks for some
    /// 20 ms, for `net_virtio_user` 0.3 s.
    ///
    /// Success means that the driver started and found nothing to complain about; whether packets
    /// move is another question, see [`QueuePair::prove`].
    ///
    /// # Errors
    /// What the port cannot do, or the call that failed, with DPDK's words about it.
    pub fn open(
        eal: &Eal,
        source: &PortSource,
        pool: &Mempool,
        config: &PortConfig,
    ) -> Result<(Self, Vec<QueuePair>), Error> {
        let mut device = Device::new(eal, source, pool, config)?;
        let mut info = bring_up(&mut device, config.peer_wait)?;
        info.rss = device.rss();
        let id = device.id().expect("a device that is up has a number");
        log_up(&info);

        let gate = Arc::new(Gate::new(id, 2 * usize::from(config.queues)));
        let comes_back = device.vdev().is_some_and(Vdev::is_client);
        let frames_unseen = device.frames_unseen(info.tx_descriptors);
        let has_arrival_files = device.has_arrival_files();
        let link_up = AtomicBool::new(device.link_is_up());
        let reconnects = AtomicU64::new(0);
        let shared = Arc::new(Shared { device: Mutex::new(device), link_up, reconnects });
        let watch = Some(Watch::start(&info.name, &shared, comes_back.then(|| gate.clone()))?);
        let pool = pool.clone();
        let link = Arc::new(Link { gate, pool, frames_unseen, has_arrival_files, shared, watch });
        let queues = (0..config.queues).map(|queue| QueuePair::new(&link, queue)).collect();
        Ok((Self { link, info: Arc::new(info) }, queues))
    }

    /// What the port is.
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Whether the link was up at the last look, at most 100 ms ago. Costs one load.
    ///
    /// `net_virtio_user` says so whenever its backend holds the socket, served or not; a tap, when
    /// the kernel's interface is up.
    pub fn link_is_up(&self) -> bool {
        self.link.shared.link_up.load(Ordering::Relaxed)
    }

    /// How often the other end was lost and found again.
    pub fn reconnects(&self) -> u64 {
        self.link.shared.reconnects.load(Ordering::Relaxed)
    }

    /// The driver's counters. Waits for the watch thread, should it be restarting the device; not
    /// for the data path. `None` while the device is unplugged.
    pub fn stats(&self) -> Option<PortStats> {
        let stats = self.link.shared.device().stats()?;
        Some(PortStats {
            rx_packets: stats.ipackets,
            tx_packets: stats.opackets,
            rx_bytes: stats.ibytes,
            tx_bytes: stats.obytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            tx_errors: stats.oerrors,
            rx_no_mbuf: stats.rx_nombuf,
        })
    }

    pub(crate) fn frames_unseen(&self) -> u64 {
        self.link.frames_unseen
    }

    /// The pool its queues receive into.
    pub fn pool(&self) -> &Mempool {
        &self.link.pool
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // All queues are gone, so nothing bursts; the thread must be too before the device goes.
        self.watch.take();
        self.shared.device().detach();
    }
}

/// Attaches and starts; the client end of a link again and again while its peer may be missing.
fn bring_up(device: &mut Device, peer_wait: Duration) -> Result<PortInfo, Error> {
    if !device.vdev().is_some_and(Vdev::is_client) {
        return try_up(device);
    }
    let begin = Instant::now();
    loop {
        // Its complaints are quoted if it comes to that.
        let cause = match log::hushed(|| try_up(device)) {
            Err(Error::Call { call: "rte_vdev_init" | "rte_eth_dev_start", cause, .. }) => cause,
            done => return done,
        };
        if begin.elapsed() >= peer_wait {
            let name = device.name().to_owned();
            return Err(Error::NoPeer { name, waited: peer_wait, cause });
        }
        thread::sleep(RETRY_EVERY);
    }
}

fn try_up(device: &mut Device) -> Result<PortInfo, Error> {
    let result = device.attach().and_then(|info| device.start().map(|()| info));
    if result.is_err() {
        device.detach();
    }
    result
}

fn log_up(info: &PortInfo) {
    let mac = info.mac.map(|byte| format!("{byte:02x}")).join(":");
    tracing::info!(
        port = info.name,
        driver = info.driver,
        mac,
        mtu = info.mtu,
        queues = info.queues,
        rx_descriptors = info.rx_descriptors,
        tx_descriptors = info.tx_descriptors,
        rx_checksum = info.rx_checksum,
        rss = info.rss.is_some(),
        "port is up"
    );
}
