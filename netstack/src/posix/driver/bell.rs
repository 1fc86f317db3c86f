//! The waker: ends the sleep of a worker from any thread.
//!
//! At most one stroke is under way. Who rings again before it was heard makes no system call: the
//! worker is going to look around anyway (contract E-10).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::stack::Waker;

/// What a selector notices.
pub(super) trait Clapper: Send + Sync + 'static {
    /// Makes the current or the next sleep end.
    fn strike(&self);
    /// The selector noticed; it must not notice the same stroke again.
    fn still(&self);
}

#[derive(Debug)]
pub(super) struct Bell<C> {
    clapper: C,
    /// Rung and not yet heard: ringing again would be a system call for nothing.
    rung: AtomicBool,
}

impl<C: Clapper> Bell<C> {
    pub(super) fn new(clapper: C) -> Arc<Self> {
        Arc::new(Self { clapper, rung: AtomicBool::new(false) })
    }

    /// Makes the current or the next sleep end.
    fn ring(&self) {
        // Pairs with the swap in `heard`: what the ringer did before is seen after the sleep.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.clapper.strike();
        }
    }

    /// The selector reported it.
    pub(super) fn heard(&self) {
        // In this order: a stroke that comes in between would be taken away, and no other follow.
        self.clapper.still();
        self.rung.swap(false, Ordering::AcqRel);
    }

    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        let bell = Arc::clone(self);
        Waker::new(move || bell.ring())
    }
}

impl Clapper for mio::Waker {
    fn strike(&self) {
        // mio takes a full counter for success; nothing else happens to a live descriptor.
        let _ = self.wake();
    }

    /// Edge-triggered: every stroke is noticed once.
    fn still(&self) {}
}

/// An event descriptor, for selectors that look at the level of descriptors.
#[derive(Debug)]
pub(super) struct Counter(OwnedFd);

impl Counter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }
}

impl Clapper for Counter {
    fn strike(&self) {
        // It fails only if the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn still(&self) {
        // It fails only if nobody struck.
        let _ = rustix::io::read(&self.0, &mut [0; size_of::<u64>()]);
    }
}

impl Bell<Counter> {
    /// Readable while a stroke is not heard.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.clapper.0.as_fd()
    }
}
