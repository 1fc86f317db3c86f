//! The device, what stands in front of it, and what waits for it.
//!
//! ```text
//!   frame --send--> Front --push--> queue --tx_burst--> device
//!                     `---- to one of our addresses ---> own
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use smoltcp::phy::{Checksum, DeviceCapabilities, Medium};

use crate::device::{Burst, Frame, PacketDevice};
use crate::front::{Front, Output, Sent};

/// Most frames to ourselves that wait; further ones are dropped, and TCP repeats them.
const OWN_MAX: usize = 256;

/// What the wire counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WireCounts {
    pub(crate) tx_frames: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_full: u64,
    pub(crate) link_down_drops: u64,
    pub(crate) no_frame_drops: u64,
    pub(crate) own_drops: u64,
    pub(crate) resets_sent: u64,
    pub(crate) segments_resent: u64,
    pub(crate) keepalives_sent: u64,
    pub(crate) zero_windows_sent: u64,
    /// Sockets over which smoltcp panicked.
    pub(crate) panics: u64,
    /// Frames the device took in the last flush that had any.
    pub(crate) tx_last_burst: u64,
    /// Frames the device could not give for want of memory.
    pub(crate) alloc_failures: u64,
}

/// The device and what stands in front of it.
pub(super) struct Port<D: PacketDevice> {
    pub(super) device: D,
    pub(super) front: Front<D::Frame>,
    /// Frames the device has not taken yet.
    pub(super) queue: Burst<D::Frame>,
    /// The link is known to be down: what the device does not take is dropped, as if sent over a
    /// cable that is pulled out. Else it would be kept, and senders held back, for as long.
    pub(super) is_cut: bool,
    /// Frames from one of our addresses to another.
    pub(super) own: VecDeque<D::Frame>,
    pub(super) caps: DeviceCapabilities,
    /// Where a packet goes when there is no frame for it.
    pub(super) scratch: Vec<u8>,
    pub(super) counts: WireCounts,
}

impl<D: PacketDevice> Port<D> {
    /// A port that has sent nothing.
    pub(super) fn new(device: D, front: Front<D::Frame>) -> Self {
        let mut caps = DeviceCapabilities::default();
        let info = device.info();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = info.mtu;
        // The front has verified what comes in.
        let checksum = if info.lossless_memory { Checksum::None } else { Checksum::Tx };
        caps.checksum.ipv4 = checksum;
        caps.checksum.tcp = checksum;
        let scratch = vec![0; info.mtu];
        Self {
            device,
            front,
            queue: Burst::new(),
            is_cut: false,
            own: VecDeque::new(),
            caps,
            scratch,
            counts: WireCounts::default(),
        }
    }

    /// The front, and where it sends to.
    pub(super) fn split(&mut self, now: Instant) -> (&mut Front<D::Frame>, Queue<'_, D>) {
        let Self { device, front, queue, is_cut, counts, .. } = self;
        (front, Queue { now, device, queue, is_cut: *is_cut, counts })
    }

    /// A frame for `len` bytes that there will be room for; `None`: not now.
    pub(super) fn frame(&mut self, now: Instant, len: usize) -> Option<D::Frame> {
        let (_, mut queue) = self.split(now);
        if queue.has_room() { queue.alloc(len) } else { None }
    }

    /// Lets the front address a frame and queues it.
    pub(super) fn send(&mut self, now: Instant, frame: D::Frame) {
        let (front, mut queue) = self.split(now);
        if let Sent::Own(frame) = front.send(now, frame, &mut queue) {
            if self.own.len() < OWN_MAX {
                self.own.push_back(frame);
            } else {
                self.counts.own_drops += 1;
            }
        }
    }
}

/// The device's send queue, as the front sees it.
pub(crate) struct Queue<'a, D: PacketDevice> {
    now: Instant,
    device: &'a mut D,
    queue: &'a mut Burst<D::Frame>,
    is_cut: bool,
    counts: &'a mut WireCounts,
}

impl<D: PacketDevice> Queue<'_, D> {
    pub(super) fn has_room(&mut self) -> bool {
        if self.queue.is_full() {
            self.device.tx_burst(self.now, self.queue);
            self.drop_if_cut();
        }
        !self.queue.is_full()
    }

    pub(super) fn flush(&mut self) {
        let waiting = self.queue.len();
        let mut before = usize::MAX;
        while !self.queue.is_empty() && self.queue.len() < before {
            before = self.queue.len();
            self.device.tx_burst(self.now, self.queue);
        }
        if self.queue.len() < waiting {
            self.counts.tx_last_burst = (waiting - self.queue.len()) as u64;
        }
        self.drop_if_cut();
    }

    fn drop_if_cut(&mut self) {
        if self.is_cut {
            self.counts.link_down_drops += self.queue.len() as u64;
            self.queue.clear();
        }
    }
}

impl<D: PacketDevice> Output<D::Frame> for Queue<'_, D> {
    fn alloc(&mut self, len: usize) -> Option<D::Frame> {
        let frame = self.device.alloc(len);
        self.counts.alloc_failures += u64::from(frame.is_none());
        frame
    }

    fn push(&mut self, frame: D::Frame) -> Result<(), D::Frame> {
        if !self.has_room() {
            self.counts.tx_full += 1;
            return Err(frame);
        }
        self.counts.tx_frames += 1;
        self.counts.tx_bytes += frame.bytes().len() as u64;
        self.queue.push(frame);
        Ok(())
    }
}
