//! A packet device around a packet device that loses frames, and takes its time.
//!
//! ```text
//!    worker  <--rx_burst--  Lossy  <-- delay, loss --  device
//!            --tx_burst-->         ---- loss ------->
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netstack::device::sim::Random;
use netstack::device::{BURST_MAX, Burst, DeviceInfo, PacketDevice};

/// What is done to frames, in both directions, and how many were lost so far.
#[derive(Clone)]
pub(crate) struct Faults {
    random: Random,
    loss_ppm: u32,
    /// Time each received frame waits.
    delay: Duration,
    /// Frames lost, received ones and sent ones.
    pub(crate) lost: [u64; 2],
}

impl Faults {
    /// Losses of `loss_ppm` frames in a million by the dice of `seed`, and a round trip that is
    /// longer by `delay`.
    pub(crate) fn new(seed: u64, loss_ppm: u32, delay: Duration) -> Self {
        Self { random: Random::new(seed), loss_ppm, delay, lost: [0; 2] }
    }

    fn loses(&mut self, way: usize) -> bool {
        let is_lost = self.random.chance(self.loss_ppm);
        self.lost[way] += u64::from(is_lost);
        is_lost
    }
}

/// The faults of a device, in the hands of somebody else.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Mutex<Faults>>);

impl Handle {
    /// Puts others in the place of the present ones, which are returned.
    pub(crate) fn replace(&self, faults: Faults) -> Faults {
        std::mem::replace(&mut self.lock(), faults)
    }

    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the [module](self).
pub(crate) struct Lossy<D: PacketDevice> {
    device: D,
    faults: Handle,
    /// Received frames, and when they will have arrived.
    late: VecDeque<(Instant, D::Frame)>,
    /// Frames at the front of the worker's burst that the device has not taken: they are not to be
    /// lost by a second cast of the dice.
    spared: usize,
}

impl<D: PacketDevice> Lossy<D> {
    /// Without faults as yet.
    pub(crate) fn new(device: D) -> (Self, Handle) {
        let faults = Handle(Arc::new(Mutex::new(Faults::new(0, 0, Duration::ZERO))));
        let handle = faults.clone();
        (Self { device, faults, late: VecDeque::new(), spared: 0 }, handle)
    }
}

impl<D: PacketDevice> PacketDevice for Lossy<D> {
    type Frame = D::Frame;

    fn info(&self) -> &DeviceInfo {
        self.device.info()
    }

    fn start(&mut self) -> std::io::Result<()> {
        self.device.start()
    }

    fn rx_burst(&mut self, now: Instant, burst: &mut Burst<D::Frame>) {
        let mut faults = self.faults.lock();
        let mut fresh = Burst::new();
        self.device.rx_burst(now, &mut fresh);
        for frame in fresh {
            if !faults.loses(0) {
                self.late.push_back((now + faults.delay, frame));
            }
        }
        while burst.len() < BURST_MAX && self.late.front().is_some_and(|(at, _)| *at <= now) {
            burst.extend(self.late.pop_front().map(|(_, frame)| frame));
        }
    }

    fn alloc(&mut self, len: usize) -> Option<D::Frame> {
        self.device.alloc(len)
    }

    fn tx_burst(&mut self, now: Instant, burst: &mut Burst<D::Frame>) {
        let mut faults = self.faults.lock();
        let mut index = 0;
        let spared = self.spared;
        burst.retain(|_| {
            index += 1;
            index <= spared || !faults.loses(1)
        });
        self.device.tx_burst(now, burst);
        self.spared = burst.len();
    }

    fn link_is_up(&mut self) -> bool {
        self.device.link_is_up()
    }

    fn frames_in_use(&self) -> u64 {
        self.device.frames_in_use()
    }
}
