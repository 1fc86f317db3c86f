//! A network in memory: ports with queue pairs, joined by a cable or a switch, with faults.
//!
//! ```text
//!    SimDevice (port 0, queue 0) --tx_burst--> faults of port 0 ---+     +--> inbox (port 1, queue 0)
//!    SimDevice (port 0, queue 1) --tx_burst--> rate, loss, delay   +--MAC-+--> inbox (port 1, queue 1)
//!                                                                  |     +--> inbox (port 2, queue 0)
//!    SimNet: turns links off, changes faults, says when the next frame is due
//! ```
//!
//! Two ports are a cable: every frame reaches the other end. More are a switch that knows all
//! Ethernet addresses from the start and floods what is not for one of them.
//!
//! The network has no clock and no thread. A frame is given a time of arrival when it is sent, and
//! is received by the first [`PacketDevice::rx_burst`] whose `now` has reached it. So one thread
//! can run any number of hosts under a virtual clock, and the same seed and the same calls give
//! the same arrivals; or each device can live on its own thread in real time (then only the order
//! of calls between threads is left to chance). Locks are held for the length of a burst, one per
//! sending port and one per receiving queue; an empty queue is seen without a lock.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use smoltcp::wire::EthernetAddress;

use super::{Burst, ChecksumState, DeviceInfo, Frame, PacketDevice};
use frame::Pool;
use wire::{Egress, InFlight, Inbox};

mod frame;
mod spread;
#[cfg(test)]
mod tests;
mod wire;

pub use frame::SimFrame;
pub use spread::Spread;
pub use wire::{Faults, Random, SimStats};

/// Bytes a frame may be longer than the MTU: an Ethernet header with a VLAN tag.
const LINK_HEADER_MAX: usize = 18;

/// What happens to a frame that finds its queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is lost and counted, as on a wire.
    Drop,
    /// It stays with its sender, as with shared-memory devices.
    Wait,
}

/// One port of a [`SimNet`].
#[derive(Clone, Debug)]
pub struct SimPort {
    /// Name for logs and captures.
    pub name: String,
    /// Its Ethernet address.
    pub mac: EthernetAddress,
    /// Longest IP packet in bytes.
    pub mtu: usize,
    /// Queue pairs, at least 1.
    pub queues: u16,
    /// How frames that come to this port are spread over its queues.
    pub spread: Spread,
    /// Most frames on their way to one of this port's queues.
    pub ring_frames: usize,
    /// What happens to frames beyond that, and beyond [`Faults::queue_bytes`].
    pub when_full: WhenFull,
    /// Frames each queue pair can have outstanding, received ones at their receivers included.
    pub pool_frames: usize,
    /// Received frames are called [`ChecksumState::Good`], and
    /// [`DeviceInfo::lossless_memory`] is set: stacks then send without checksums, so both ends of
    /// a cable must agree. A corrupted frame is called unknown all the same.
    pub vouches: bool,
    /// What this port does to the frames it sends.
    pub faults: Faults,
}

impl SimPort {
    /// A faultless port with MTU 1500 and one queue pair, `index` being the last byte of its
    /// Ethernet address.
    pub fn new(index: u8) -> Self {
        Self {
            name: format!("sim{index}"),
            mac: EthernetAddress([0x02, 0, 0, 0, 0, index]),
            mtu: 1500,
            queues: 1,
            spread: Spread::SameIndex,
            ring_frames: 4096,
            when_full: WhenFull::Drop,
            pool_frames: 16_384,
            vouches: false,
            faults: Faults::default(),
        }
    }
}

struct Port {
    config: SimPort,
    up: AtomicBool,
    egress: Mutex<Egress>,
    inboxes: Vec<SharedInbox>,
}

#[derive(Default)]
struct SharedInbox {
    inbox: Mutex<Inbox>,
    /// Frames in the inbox; tells a receiver without the lock that there are none.
    len: AtomicUsize,
}

/// The handle of a simulated network: it outlives its devices and rules them. Cheap to clone.
#[derive(Clone)]
pub struct SimNet {
    ports: Arc<[Port]>,
}

impl SimNet {
    /// A network of `ports`, and the devices of each port in queue order.
    ///
    /// `seed` decides every loss, delay and bit flip.
    pub fn new(seed: u64, ports: &[SimPort]) -> (Self, Vec<Vec<SimDevice>>) {
        let count = ports.len();
        let port = |(index, config): (usize, &SimPort)| Port {
            config: config.clone(),
            up: AtomicBool::new(true),
            egress: Mutex::new(Egress::new(
                Random::new(seed.wrapping_add(index as u64)),
                config,
                count,
            )),
            inboxes: (0..config.queues.max(1)).map(|_| SharedInbox::default()).collect(),
        };
        let net = Self { ports: ports.iter().enumerate().map(port).collect() };
        let devices = (0..count).map(|port| net.devices(port)).collect();
        (net, devices)
    }

    /// Changes what `port` does to the frames it sends from now on.
    pub fn set_faults(&self, port: usize, faults: Faults) {
        lock(&self.ports[port].egress).faults = faults;
    }

    /// Pulls or plugs the cable of `port`. What is on its way to it is lost when it is pulled.
    pub fn set_link(&self, port: usize, up: bool) {
        self.ports[port].up.store(up, Ordering::Relaxed);
        for shared in self.ports[port].inboxes.iter().filter(|_| !up) {
            let mut inbox = lock(&shared.inbox);
            let lost = inbox.take_all();
            shared.len.store(0, Ordering::Release);
            drop(inbox); // a sender holds its egress first and an inbox second
            for flight in lost {
                lock(&self.ports[flight.from].egress).stats.lost += 1;
            }
        }
    }

    /// Loses everything `from` sends to `to` from now on, or no more.
    pub fn set_blocked(&self, from: usize, to: usize, blocked: bool) {
        lock(&self.ports[from].egress).blocked[to] = blocked;
    }

    /// When the next frame arrives anywhere; `None`: nothing is on its way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let inboxes = self.ports.iter().flat_map(|port| &port.inboxes);
        inboxes.filter_map(|shared| lock(&shared.inbox).next_due()).min()
    }

    /// When the next frame arrives on one queue of `port`.
    pub fn next_arrival(&self, port: usize, queue: usize) -> Option<Instant> {
        let shared = &self.ports[port].inboxes[queue];
        match shared.len.load(Ordering::Acquire) {
            0 => None,
            _ => lock(&shared.inbox).next_due(),
        }
    }

    /// New devices for `port` in queue order, as for a machine that starts over. The old ones are
    /// not to be used any more.
    pub fn reopen(&self, port: usize) -> Vec<SimDevice> {
        self.devices(port)
    }

    /// What became of the frames `port` sent.
    pub fn stats(&self, port: usize) -> SimStats {
        lock(&self.ports[port].egress).stats
    }

    fn devices(&self, port: usize) -> Vec<SimDevice> {
        let config = &self.ports[port].config;
        let queues = config.queues.max(1);
        let device = |queue| SimDevice {
            info: DeviceInfo {
                name: config.name.clone(),
                mac: config.mac,
                mtu: config.mtu,
                queue,
                queues,
                rss: config.spread.rss(queues),
                lossless_memory: config.vouches,
            },
            net: self.clone(),
            port,
            pool: Pool::new(config.pool_frames, config.mtu + LINK_HEADER_MAX),
        };
        (0..queues).map(device).collect()
    }

    /// The only port a frame is for; `None`: all but the sender's.
    fn destination(&self, from: usize, frame: &[u8]) -> Option<usize> {
        if self.ports.len() == 2 {
            return Some(1 - from);
        }
        let mac = frame.first_chunk::<6>()?;
        self.ports.iter().position(|port| port.config.mac.0 == *mac)
    }
}

impl fmt::Debug for SimNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimNet({} ports)", self.ports.len())
    }
}

/// One queue pair of a [`SimNet`]'s port.
#[derive(Debug)]
pub struct SimDevice {
    info: DeviceInfo,
    net: SimNet,
    port: usize,
    pool: Pool,
}

impl PacketDevice for SimDevice {
    type Frame = SimFrame;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn rx_burst(&mut self, now: Instant, burst: &mut Burst<SimFrame>) {
        let shared = &self.net.ports[self.port].inboxes[usize::from(self.info.queue)];
        if shared.len.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut inbox = lock(&shared.inbox);
        while !burst.is_full() {
            let Some(frame) = inbox.pop(now) else { break };
            burst.push(frame);
        }
        shared.len.store(inbox.len(), Ordering::Release);
    }

    fn alloc(&mut self, len: usize) -> Option<SimFrame> {
        self.pool.take(len)
    }

    fn tx_burst(&mut self, now: Instant, burst: &mut Burst<SimFrame>) {
        if burst.is_empty() {
            return;
        }
        let mut egress = lock(&self.net.ports[self.port].egress);
        let mut frames = std::mem::take(burst).into_iter();
        let mut delivery = Delivery {
            net: &self.net,
            from: self.port,
            queue: self.info.queue,
            pool: &mut self.pool,
            open: None,
        };
        for frame in frames.by_ref() {
            if let Err(frame) = delivery.send(now, frame, &mut egress) {
                burst.push(frame);
                break;
            }
        }
        burst.extend(frames);
    }

    fn link_is_up(&mut self) -> bool {
        self.net.ports[self.port].up.load(Ordering::Relaxed)
    }

    fn frames_in_use(&self) -> u64 {
        self.pool.in_use() as u64
    }
}

/// One burst on its way into the inboxes. The inbox of the last frame stays locked for the next.
struct Delivery<'a> {
    net: &'a SimNet,
    from: usize,
    queue: u16,
    /// Where copies come from.
    pool: &'a mut Pool,
    open: Option<(usize, u16, MutexGuard<'a, Inbox>)>,
}

impl Delivery<'_> {
    /// Sends one frame, or gives it back to be sent later.
    fn send(&mut self, now: Instant, frame: SimFrame, egress: &mut Egress) -> Result<(), SimFrame> {
        if let Some(to) = self.net.destination(self.from, frame.bytes()) {
            return self.send_to(now, to, frame, egress);
        }
        let from = self.from;
        for to in (0..self.net.ports.len()).filter(|to| *to != from) {
            // Nothing to wait with: other copies are on their way already.
            let copy = self.pool.copy(&frame);
            if copy.is_none_or(|copy| self.send_to(now, to, copy, egress).is_err()) {
                egress.stats.overflowed += 1;
            }
        }
        Ok(())
    }

    fn send_to(
        &mut self,
        now: Instant,
        to: usize,
        mut frame: SimFrame,
        egress: &mut Egress,
    ) -> Result<(), SimFrame> {
        let from = self.from;
        let (sender, receiver) = (&self.net.ports[from], &self.net.ports[to]);
        let queues = receiver.inboxes.len() as u16; // made from a u16
        let queue =
            receiver.config.spread.pick(frame.bytes(), self.queue, egress.stats.sent, queues);
        let is_full = self.inbox(to, queue).len() >= receiver.config.ring_frames;
        let full = if egress.is_full(now) {
            Some(sender.config.when_full)
        } else {
            is_full.then_some(receiver.config.when_full)
        };
        if full == Some(WhenFull::Wait) {
            return Err(frame);
        }
        egress.stats.sent += 1;
        if full == Some(WhenFull::Drop) {
            egress.stats.overflowed += 1;
            return Ok(());
        }
        let departed = egress.depart(now, frame.bytes().len());
        let is_up = |port: &Port| port.up.load(Ordering::Relaxed);
        if !is_up(sender) || !is_up(receiver) || egress.blocked[to] || egress.loses() {
            egress.stats.lost += 1;
            return Ok(());
        }
        let is_intact = !egress.corrupt(&mut frame);
        frame.checksum = match receiver.config.vouches && is_intact {
            true => ChecksumState::Good,
            false => ChecksumState::Unknown,
        };
        let twin = if egress.duplicates() { self.pool.copy(&frame) } else { None };
        let inbox = self.inbox(to, queue);
        inbox.push(InFlight { due: egress.arrival(departed), from, frame });
        if let Some(frame) = twin {
            egress.stats.duplicated += 1;
            inbox.push(InFlight { due: egress.arrival(departed), from, frame });
        }
        Ok(())
    }

    fn inbox(&mut self, port: usize, queue: u16) -> &mut Inbox {
        if !matches!(&self.open, Some((p, q, _)) if (*p, *q) == (port, queue)) {
            self.close();
            let inbox = lock(&self.net.ports[port].inboxes[usize::from(queue)].inbox);
            self.open = Some((port, queue, inbox));
        }
        &mut self.open.as_mut().expect("opened above").2
    }

    /// Tells the receiver what is there now.
    fn close(&mut self) {
        if let Some((port, queue, inbox)) = self.open.take() {
            let len = &self.net.ports[port].inboxes[usize::from(queue)].len;
            len.store(inbox.len(), Ordering::Release);
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Nobody panics under these locks; if somebody did, the frames are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
