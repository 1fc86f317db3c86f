//! The control side of a port: find or plug in, configure, start, stop, plug out.
//!
//! ```text
//!   attach --> configure --> start --> (bursts) --> stop --> detach
//! ```
//! One thread at a time, under the lock of [`control`]; when none of the port's queues is inside
//! its gate, wherever a started port is stopped.

use std::path::Path;

use dpdk_sys as sys;

mod names;
mod setup;

use names::{Claim, find_port, only_port, remove_stale_socket};

use crate::eal::{Eal, MemoryMode, control};
use crate::error::{Error, c_string};
use crate::log::{self, Mark};
use crate::mempool::Mempool;
use crate::port::{PortConfig, PortInfo, PortSource};
use crate::signals::RealTimeSignals;
use crate::vdev::{Driver, Vdev};

/// Ethernet header and one VLAN tag, which come before the IP packet in a frame.
const FRAME_OVERHEAD: usize = 14 + 4;
/// What virtio puts before a frame (virtio 1.2, section 5.1.6): its drivers ask for room for it in
/// each buffer, even where they keep it elsewhere.
const VIRTIO_HEADER: usize = 12;
/// Log2 of the descriptors of a memif ring, unless `rsize` says otherwise, and the most it may say.
const MEMIF_RSIZE: u32 = 10;
const MEMIF_RSIZE_MAX: u32 = 14;
/// Frames in a ring of `net_ring`.
const RING_LEN: u64 = 1024;
/// Descriptors of a virtio_user ring, unless `queue_size` says otherwise.
const VIRTIO_QUEUE_SIZE: u32 = 256;
/// The one trace of a virtio_user port that did not start.
const VIRTIO_USER_FAILED: &str = "Failed to start device";

/// A port as the control thread holds it.
///
/// Invariant: `id`, if present, is the number of the port that `claim` names; `plugged` and
/// `started` say what is to be undone. The pool keeps EAL up.
#[derive(Debug)]
pub(crate) struct Device {
    pool: Mempool,
    config: PortConfig,
    claim: Claim,
    vdev: Option<Vdev>,
    id: Option<u16>,
    plugged: bool,
    started: bool,
}

/// Bytes of data a buffer needs, so that a frame with an IP packet of `mtu` bytes lies in one, with
/// what its driver puts before it, and a memif buffer as well.
pub(crate) fn room_for(source: &PortSource, mtu: u16) -> usize {
    let frame = usize::from(mtu) + FRAME_OVERHEAD;
    match source {
        PortSource::Vdev(vdev) if vdev.driver() == Driver::Memif => {
            frame.max(usize::from(vdev.memif_bsize()))
        }
        PortSource::Vdev(vdev) if vdev.driver() == Driver::VirtioUser => frame + VIRTIO_HEADER,
        _ => frame,
    }
}

impl Device {
    /// Checks what can be checked before anything is touched.
    pub(crate) fn new(
        eal: &Eal,
        source: &PortSource,
        pool: &Mempool,
        config: &PortConfig,
    ) -> Result<Self, Error> {
        let (name, vdev) = match source {
            PortSource::Vdev(vdev) => (vdev.name().to_owned(), Some(vdev.clone())),
            PortSource::Device(name) => (name.clone(), None),
            PortSource::Only => (only_port()?, None),
        };
        // It takes a link down when the other end is gone, maybe while EAL is taken down.
        if vdev.as_ref().is_some_and(|vdev| vdev.driver() == Driver::Memif) {
            eal.keep_memory();
        }
        let shares_files = vdev.as_ref().is_some_and(|vdev| vdev.driver() == Driver::VirtioUser);
        let many_files = MemoryMode::InMemory { single_file_segments: false };
        if shares_files && eal.memory_mode() == many_files {
            return Err(Error::VirtioUserMemory { name });
        }
        let (needed, room) = (room_for(source, config.mtu), pool.config().room);
        if room < needed {
            return Err(Error::Room { name, needed, room });
        }
        let (pool, config, claim) = (pool.clone(), config.clone(), Claim::new(&name)?);
        Ok(Self { pool, config, claim, vdev, id: None, plugged: false, started: false })
    }

    pub(crate) fn name(&self) -> &str {
        self.claim.name()
    }

    pub(crate) fn vdev(&self) -> Option<&Vdev> {
        self.vdev.as_ref()
    }

    /// PCI devices are named by their address.
    fn is_software(&self) -> bool {
        self.vdev.is_some() || !self.name().contains(':')
    }

    /// Frames that the transmit queue takes without anybody taking them out. None for software
    /// devices that copy a frame where it belongs, or drop it, while they take it.
    pub(crate) fn frames_unseen(&self, tx_descriptors: u16) -> u64 {
        let number = |key, default| {
            let arg = self.vdev.as_ref().and_then(|vdev| vdev.arg(key)?.parse().ok());
            arg.unwrap_or(default)
        };
        match self.vdev.as_ref().map(Vdev::driver) {
            Some(Driver::Memif) => 1 << number("rsize", MEMIF_RSIZE).min(MEMIF_RSIZE_MAX),
            Some(Driver::Ring) => RING_LEN,
            Some(Driver::VirtioUser) => number("queue_size", VIRTIO_QUEUE_SIZE).into(),
            Some(Driver::Tap | Driver::Vhost | Driver::Other) => 0,
            None => tx_descriptors.into(),
        }
    }

    /// Whether its receive queues have files that tell of packets: a tap's interrupt is its file.
    pub(crate) fn has_arrival_files(&self) -> bool {
        self.vdev.as_ref().is_some_and(|vdev| vdev.driver() == Driver::Tap)
    }

    pub(crate) fn id(&self) -> Option<u16> {
        self.id
    }

    /// Finds the port, or plugs the software device in, and configures it and its queues.
    pub(crate) fn attach(&mut self) -> Result<PortInfo, Error> {
        let (_control, mark) = control();
        let _signals = RealTimeSignals::occupy();
        self.plug(mark)?;
        let id = find_port(self.name())?;
        self.id = Some(id);
        let info = self.configure(id, mark)?;
        // Without a fixed address the next plug would roll another.
        self.vdev = self.vdev.take().map(|vdev| {
            if vdev.driver() == Driver::VirtioUser { vdev.with_mac(info.mac) } else { vdev }
        });
        Ok(info)
    }

    fn plug(&mut self, mark: Mark) -> Result<(), Error> {
        let Some(vdev) = &self.vdev else {
            return Ok(());
        };
        if let Some(path) = vdev.listens_on() {
            remove_stale_socket(Path::new(path));
        }
        let name = c_string("vdev", vdev.name())?;
        let args = c_string("vdev", vdev.args())?;
        // SAFETY: EAL is up, and both are strings, which DPDK copies.
        let code = unsafe { sys::rte_vdev_init(name.as_ptr(), args.as_ptr()) };
        self.check("rte_vdev_init", code, mark)?;
        self.plugged = true;
        Ok(())
    }

    /// Starts a configured port. The real-time signals must be taken here too, for a tap that was
    /// stopped opens its queues again.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        let Some(id) = self.id else { return Ok(()) };
        let (_control, mark) = control();
        let _signals = RealTimeSignals::occupy();
        // SAFETY: EAL is up; the port is configured.
        let code = unsafe { sys::rte_eth_dev_start(id) };
        self.check("rte_eth_dev_start", code, mark)?;
        self.started = true;
        let cause = log::since(mark);
        if cause.lines().iter().any(|line| line.contains(VIRTIO_USER_FAILED)) {
            return Err(Error::SilentFailure { name: self.name().to_owned(), cause });
        }
        Ok(())
    }

    /// Stops a started port. The caller knows that no queue is inside a burst.
    pub(crate) fn stop(&mut self) {
        if let (Some(id), true) = (self.id, self.started) {
            let (_control, _) = control();
            // SAFETY: EAL is up, and nobody is inside a burst.
            let code = unsafe { sys::rte_eth_dev_stop(id) };
            tracing::debug!(port = self.name(), code, "stopped");
            self.started = false;
        }
    }

    /// Undoes all that was done: stops and closes the port, plugs a software device out.
    pub(crate) fn detach(&mut self) {
        self.stop();
        let (_control, mark) = control();
        if let Some(id) = self.id.take() {
            // SAFETY: EAL is up, the port is stopped, and its number is forgotten.
            let code = unsafe { sys::rte_eth_dev_close(id) };
            self.report_failure(self.check("rte_eth_dev_close", code, mark));
        }
        if self.plugged
            && let Ok(name) = c_string("vdev", self.name())
        {
            self.plugged = false;
            // SAFETY: EAL is up, and the name is a string.
            let code = unsafe { sys::rte_vdev_uninit(name.as_ptr()) };
            self.report_failure(self.check("rte_vdev_uninit", code, mark));
        }
    }

    fn report_failure(&self, result: Result<(), Error>) {
        if let Err(error) = result {
            tracing::warn!(port = self.name(), %error, "while the port goes down");
        }
    }

    /// Whether the link is up, as far as the driver can tell.
    pub(crate) fn link_is_up(&self) -> bool {
        let Some(id) = self.id.filter(|_| self.started) else {
            return false;
        };
        let (_control, _) = control();
        // SAFETY: EAL is up.
        unsafe { sys::shim_link_is_up(id) == 1 }
    }

    /// The port's counters; `None` while it is not there.
    pub(crate) fn stats(&self) -> Option<sys::rte_eth_stats> {
        let id = self.id?;
        let mut stats = sys::rte_eth_stats::default();
        let (_control, _) = control();
        // SAFETY: EAL is up, and `stats` has room for the answer.
        (unsafe { sys::rte_eth_stats_get(id, &raw mut stats) } == 0).then_some(stats)
    }

    fn check(&self, call: &'static str, code: i32, mark: Mark) -> Result<(), Error> {
        match code {
            0 => Ok(()),
            code => Err(Error::call(call, self.name(), code, log::since(mark))),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.detach();
    }
}
