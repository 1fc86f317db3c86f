//! The gate between queues and the control thread: bursts pass without a lock, and still none
//! happens while the port is stopped.
//!
//! ```text
//!   epoch even: open                        queue, before each burst:
//!   epoch odd:  closed                        load epoch
//!                                             even -> burst
//!   control thread:                           odd  -> seen = epoch; no burst
//!     epoch += 1 (odd)
//!     until every seat has seen it, or is gone
//!     stop, plug out, plug in, start
//!     epoch += 1 (even)
//! ```
//!
//! A queue that has seen the odd epoch is outside, and stays so until it sees an even one. A queue
//! that is never polled keeps the control thread waiting, which is right: nobody misses the port.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// What the seat of a dropped queue has seen.
const GONE: u64 = u64::MAX;

/// One seat for each queue; see the module's drawing.
#[derive(Debug)]
pub(crate) struct Gate {
    epoch: AtomicU64,
    /// The port's number while the gate is open: it may change when the port is plugged in anew.
    port: AtomicU16,
    seats: Box<[Seat]>,
}

/// Its own cache line, so the acknowledgements of one queue do not disturb another.
#[derive(Debug)]
#[repr(align(64))]
struct Seat {
    seen: AtomicU64,
}

impl Gate {
    /// An open gate for so many queues.
    pub(crate) fn new(port: u16, seats: usize) -> Self {
        let seats = (0..seats).map(|_| Seat { seen: AtomicU64::new(0) }).collect();
        Self { epoch: AtomicU64::new(0), port: AtomicU16::new(port), seats }
    }

    /// For the queue of `seat`, before a burst: the port to burst on, or `None` to keep out.
    #[inline]
    pub(crate) fn enter(&self, seat: usize) -> Option<u16> {
        // Acquire: an even epoch shows the port that was started before it.
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch.is_multiple_of(2) {
            return Some(self.port.load(Ordering::Relaxed));
        }
        // Release: whoever sees this sees all bursts before it done.
        self.seats[seat].seen.store(epoch, Ordering::Release);
        None
    }

    /// The queue of `seat` is dropped.
    pub(crate) fn leave(&self, seat: usize) {
        self.seats[seat].seen.store(GONE, Ordering::Release);
    }

    /// Closes the gate; only the control thread does, when it is open.
    pub(crate) fn close(&self) {
        let before = self.epoch.fetch_add(1, Ordering::AcqRel);
        debug_assert!(before.is_multiple_of(2));
    }

    /// Whether all queues are out of a closed gate.
    pub(crate) fn is_empty(&self) -> bool {
        let epoch = self.epoch.load(Ordering::Relaxed);
        debug_assert!(!epoch.is_multiple_of(2));
        self.seats.iter().all(|seat| {
            let seen = seat.seen.load(Ordering::Acquire);
            seen == epoch || seen == GONE
        })
    }

    /// Opens the gate to a started port; only the control thread does, when it is closed.
    pub(crate) fn open(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
        // Release: whoever sees the even epoch sees the port, started.
        self.epoch.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn a_closed_gate_is_empty_once_each_queue_has_come_by_or_left() {
        let gate = Gate::new(3, 2);
        assert_eq!(gate.enter(0), Some(3));
        gate.close();
        assert!(!gate.is_empty());
        assert_eq!(gate.enter(0), None);
        assert!(!gate.is_empty(), "the other queue may still be bursting");
        gate.leave(1);
        assert!(gate.is_empty());
        gate.open(5);
        assert_eq!(gate.enter(0), Some(5));
    }

    #[test]
    fn no_queue_is_inside_while_the_port_is_stopped() {
        const QUEUES: usize = 3;
        const ROUNDS: usize = 2_000;
        let gate = Gate::new(0, QUEUES);
        let inside: [AtomicBool; QUEUES] = Default::default();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for seat in 0..QUEUES {
                let (gate, inside, done) = (&gate, &inside, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        if gate.enter(seat).is_some() {
                            inside[seat].store(true, Ordering::Relaxed);
                            std::hint::spin_loop();
                            inside[seat].store(false, Ordering::Relaxed);
                        } else {
                            thread::yield_now();
                        }
                    }
                    gate.leave(seat);
                });
            }
            for _ in 0..ROUNDS {
                gate.close();
                while !gate.is_empty() {
                    thread::yield_now();
                }
                let in_there = inside.iter().any(|flag| flag.load(Ordering::Relaxed));
                gate.open(0);
                if in_there {
                    done.store(true, Ordering::Relaxed);
                    panic!("a queue is inside a closed gate");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
