//! Packet devices: where frames come from and go to.
//!
//! Three stand behind the trait: a DPDK queue pair (`dpdk`), one end of a seeded link in memory
//! ([`sim`]), and a wrapper that records what passes ([`pcap`]).
//!
//! Lengths here are of Ethernet frames without the frame check sequence. The `mtu` is the IP one:
//! the longest packet inside a frame, Ethernet header not counted.

use std::fmt::Debug;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use arrayvec::ArrayVec;
use smoltcp::wire::EthernetAddress;

#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod pcap;
pub mod sim;

#[cfg(test)]
#[path = "../tests/page/mod.rs"]
mod page;

/// Most frames one burst carries. memif before DPDK 24.03 breaks above 32.
pub const BURST_MAX: usize = 32;

/// A burst of frames, received or to be sent. The oldest is first.
pub type Burst<F> = ArrayVec<F, BURST_MAX>;

/// What the device knows of a received frame's IP and TCP checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// Nobody looked; we must.
    Unknown,
    /// The device verified them, or vouches for a frame that never crossed a wire.
    Good,
    /// The device found one wrong.
    Bad,
}

/// One owned Ethernet frame. Dropping it returns its memory to where it came from.
pub trait Frame: Send + Debug {
    /// The frame's bytes.
    fn bytes(&self) -> &[u8];
    /// The frame's bytes, to be changed.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Cuts the frame to its first `len` bytes; `len` is at most its present length.
    fn truncate(&mut self, len: usize);
    /// What the device said of the checksums.
    fn checksum(&self) -> ChecksumState;
}

/// The queue of a hardware device that a TCP 4-tuple's frames arrive on.
#[derive(Clone, Debug)]
pub struct Rss {
    /// The Toeplitz key, 40 bytes or more.
    pub key: Vec<u8>,
    /// Redirection table: entry `hash % len` names the queue.
    pub table: Vec<u16>,
}

/// What a device is and can do; does not change while it is open.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The device's name in logs and counters.
    pub name: String,
    /// Our Ethernet address.
    pub mac: EthernetAddress,
    /// Longest IP packet in bytes.
    pub mtu: usize,
    /// Which of the port's queue pairs this is, from 0.
    pub queue: u16,
    /// How many queue pairs the port has.
    pub queues: u16,
    /// How the port spreads flows over its queues, where it does so by itself. `None`: the sender
    /// or somebody else picks the queue, so frames can turn up anywhere.
    pub rss: Option<Rss>,
    /// The device vouches for what it carries: received frames need no checksum test and sent
    /// ones need no checksum (simulated links that do not corrupt).
    pub lossless_memory: bool,
}

/// One receive queue and one transmit queue, used by one thread.
pub trait PacketDevice: Send {
    /// The device's own frames.
    type Frame: Frame + 'static;

    /// What the device is and can do.
    fn info(&self) -> &DeviceInfo;

    /// Called once by the thread that will make all further calls.
    ///
    /// # Errors
    /// If the thread cannot be made known to the device.
    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Appends the frames that arrived to `burst`, as many as fit.
    fn rx_burst(&mut self, now: Instant, burst: &mut Burst<Self::Frame>);

    /// A frame of `len` bytes to be written and sent. Its contents are not defined.
    /// `None`: no memory now, or `len` is longer than a frame can be.
    fn alloc(&mut self, len: usize) -> Option<Self::Frame>;

    /// Sends from the front of `burst` and removes what was taken; the rest is for the next turn.
    fn tx_burst(&mut self, now: Instant, burst: &mut Burst<Self::Frame>);

    /// A file that is readable while received frames wait, for a worker that has nothing to do.
    /// `None`: they have to be polled for.
    fn arrivals(&self) -> Option<OwnedFd> {
        None
    }

    /// Whether the link is up, as far as the device can tell. Cheap enough for every 100 ms only.
    fn link_is_up(&mut self) -> bool {
        true
    }

    /// Frame buffers taken from the device's pool and not yet returned, by anyone.
    fn frames_in_use(&self) -> u64 {
        0
    }

    /// What the device counts itself: name and value, in a fixed order. Of a port with several
    /// queues the first one tells, for all. Not for the data path.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
