//! The waker: ends the sleep of a worker from any thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::{Registry, Token};

#[derive(Debug)]
pub(super) struct Bell {
    waker: mio::Waker,
    /// Rung and not yet heard: ringing again would be a system call for nothing.
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self { waker: mio::Waker::new(registry, token)?, rung: AtomicBool::new(false) })
    }

    /// Makes the current or the next poll return.
    pub(super) fn ring(&self) {
        // Pairs with the swap in `heard`: what the ringer did before is seen after the poll.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // mio takes a full counter for success; nothing else happens to a live eventfd.
            let _ = self.waker.wake();
        }
    }

    /// The poll reported it.
    pub(super) fn heard(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}
