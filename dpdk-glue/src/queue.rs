//! Queues: where packets come in and go out, in bursts.
//!
//! Each queue belongs to one thread at a time (`Send`, not `Sync`), and keeps its port running.
//! While the port is being plugged in anew (see [`crate::Port`]) a queue is simply empty: it
//! receives nothing and takes nothing.

use std::cell::Cell;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use dpdk_sys as sys;

use crate::mbuf::{Burst, Mbuf, fill_rest, take_front};
use crate::mempool::Mempool;
use crate::port::Link;

/// Counters of received packets that came as chains of several buffers, which only happens when a
/// peer ignores the MTU or its buffers are shorter than ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chains {
    /// Copied together into their first buffer.
    pub linearised: u64,
    /// Too long for one buffer, and dropped.
    pub dropped: u64,
}

/// Both directions of one queue index.
#[derive(Debug)]
pub struct QueuePair {
    /// The receiving queue.
    pub rx: RxQueue,
    /// The sending queue.
    pub tx: TxQueue,
}

/// One receive queue of a started port. Moves between threads, and is not shared by them:
///
/// ```compile_fail
/// fn shared<T: Sync>() {}
/// shared::<dpdk_glue::RxQueue>();
/// ```
#[derive(Debug)]
pub struct RxQueue {
    seat: Seat,
    chains: sys::shim_chains,
}

/// One transmit queue of a started port.
#[derive(Debug)]
pub struct TxQueue {
    seat: Seat,
}

/// A queue's place at the gate of its port.
///
/// Invariant: `queue` is set up on the port while the gate is open, and no other value has this
/// `seat`, nor this `queue` in the same direction.
#[derive(Debug)]
struct Seat {
    link: Arc<Link>,
    seat: usize,
    queue: u16,
    /// One thread at a time.
    _not_sync: PhantomData<Cell<()>>,
}

impl QueuePair {
    /// To be called once for each queue index of a port.
    pub(crate) fn new(link: &Arc<Link>, queue: u16) -> Self {
        let seat = |direction| Seat {
            link: link.clone(),
            seat: 2 * usize::from(queue) + direction,
            queue,
            _not_sync: PhantomData,
        };
        Self {
            rx: RxQueue { seat: seat(0), chains: Default::default() },
            tx: TxQueue { seat: seat(1) },
        }
    }
}

impl RxQueue {
    /// Appends received packets to `burst`, as many as there are and as fit; returns how many.
    /// Each is in one buffer.
    #[inline]
    pub fn recv(&mut self, burst: &mut Burst) -> usize {
        if burst.is_full() {
            return 0;
        }
        let Some(port) = self.seat.link.gate.enter(self.seat.seat) else {
            return 0;
        };
        let queue = self.seat.queue;
        let receive = |slots, count| {
            // SAFETY: the gate is open, so the port is started and has this queue, which by the
            // seat's invariant nobody else polls; `slots` has room for `count` pointers.
            unsafe { sys::shim_rx_burst(port, queue, slots, count, &raw mut self.chains) }
        };
        // SAFETY: a driver hands over what it returns; the shim leaves no chains.
        unsafe { fill_rest(burst, receive) }
    }

    /// A file that is readable while packets wait here. Only taps have one, which is the queue
    /// itself; other drivers of ours would have to be told before each sleep.
    pub fn arrivals(&self) -> Option<OwnedFd> {
        if !self.seat.link.has_arrival_files {
            return None; // and asking would be an error in the log
        }
        let port = self.seat.link.gate.enter(self.seat.seat)?;
        // SAFETY: the gate is open, so the port is started and has this queue.
        let file = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(port, self.seat.queue) };
        if file < 0 {
            return None;
        }
        // SAFETY: the driver keeps the file open while the port is started, which it is until this
        // queue comes to the gate again.
        let file = unsafe { BorrowedFd::borrow_raw(file) };
        file.try_clone_to_owned().ok()
    }

    /// Which of the port's receive queues this is.
    pub fn index(&self) -> u16 {
        self.seat.queue
    }

    /// What became of packets that came in several buffers.
    pub fn chains(&self) -> Chains {
        Chains { linearised: self.chains.linearised, dropped: self.chains.dropped }
    }
}

impl TxQueue {
    /// Sends from the front of `burst` and removes what the device took; returns how many. The
    /// rest stays, in order, for another try.
    #[inline]
    pub fn send(&mut self, burst: &mut Burst) -> usize {
        if burst.is_empty() {
            return 0;
        }
        let Some(port) = self.seat.link.gate.enter(self.seat.seat) else {
            return 0;
        };
        let queue = self.seat.queue;
        let send = |mbufs, count| {
            // SAFETY: as in `recv`; the `count` mbufs are live and ours to give away.
            unsafe { sys::shim_tx_burst(port, queue, mbufs, count) }
        };
        // SAFETY: a driver owns what it took and has not touched the rest.
        unsafe { take_front(burst, send) }
    }

    /// A packet of `len` bytes of undefined contents, from the port's own pool.
    #[inline]
    pub fn alloc(&self, len: usize) -> Option<Mbuf> {
        self.seat.link.pool.alloc(len)
    }

    /// The port's own pool.
    pub fn pool(&self) -> &Mempool {
        &self.seat.link.pool
    }

    /// Which of the port's transmit queues this is.
    pub fn index(&self) -> u16 {
        self.seat.queue
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.link.gate.leave(self.seat);
    }
}
