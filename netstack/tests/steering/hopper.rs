//! A port whose sender moves flows from queue to queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dpdk_glue::Mbuf;
use netstack::device::dpdk::DpdkDevice;
use netstack::device::{Burst, DeviceInfo, PacketDevice};

/// Some queue pairs of a port as one: receives from all, and sends on the next one after so many
/// frames, whatever flows they are of. With one queue pair it is that queue pair.
#[derive(Debug)]
pub(crate) struct Hopper {
    queues: Vec<DpdkDevice>,
    info: DeviceInfo,
    /// Frames sent on a queue before it is the next one's turn; 0: all go to the first.
    every: Arc<AtomicUsize>,
    sent: usize,
}

impl Hopper {
    pub(crate) fn new(queues: Vec<DpdkDevice>, every: &Arc<AtomicUsize>) -> Self {
        let mut info = queues[0].info().clone();
        if queues.len() > 1 {
            info.queues = 1;
        }
        Self { queues, info, every: every.clone(), sent: 0 }
    }

    fn queue(&mut self) -> &mut DpdkDevice {
        let turns = self.sent.checked_div(self.every.load(Ordering::Relaxed)).unwrap_or(0);
        let queues = self.queues.len();
        &mut self.queues[turns % queues]
    }
}

impl PacketDevice for Hopper {
    type Frame = Mbuf;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn start(&mut self) -> std::io::Result<()> {
        self.queues[0].start()
    }

    fn rx_burst(&mut self, now: Instant, burst: &mut Burst<Mbuf>) {
        for queue in &mut self.queues {
            queue.rx_burst(now, burst);
        }
    }

    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.queues[0].alloc(len)
    }

    fn tx_burst(&mut self, now: Instant, burst: &mut Burst<Mbuf>) {
        let mut frames = std::mem::take(burst).into_iter();
        for frame in frames.by_ref() {
            let mut one = Burst::new();
            one.push(frame);
            self.queue().tx_burst(now, &mut one);
            if let Some(refused) = one.pop() {
                burst.push(refused);
                break;
            }
            self.sent += 1;
        }
        burst.extend(frames);
    }

    fn link_is_up(&mut self) -> bool {
        self.queues[0].link_is_up()
    }

    fn frames_in_use(&self) -> u64 {
        self.queues[0].frames_in_use()
    }
}
