//! `select`: for systems that have nothing else.
//!
//! Its sets are arrays of bits by descriptor number, [`FD_SETSIZE`] long: a descriptor with a
//! greater number cannot be watched, and adding it is an error. Its timeouts are microseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::select::{FD_SETSIZE, FdSet, select};
use nix::sys::time::TimeVal;

use super::bell::{Bell, Counter};
use super::watched::Watched;
use super::{Driver, Fired, Selector};
use crate::stack::{Readiness, SocketError, SocketId, Waker};

/// Longest single sleep; after it the caller finds its deadline still ahead and sleeps again.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct SelectSets {
    watched: Watched,
    bell: Arc<Bell<Counter>>,
}

impl SelectSets {
    pub(super) fn new() -> io::Result<Self> {
        let bell = Bell::new(Counter::new()?);
        if !fits(bell.fd()) {
            return Err(io::Error::other(OUT_OF_SET));
        }
        Ok(Self { watched: Watched::default(), bell })
    }
}

impl Selector for SelectSets {
    fn driver(&self) -> Driver {
        Driver::Select
    }

    fn add(
        &mut self,
        fd: &Arc<OwnedFd>,
        id: SocketId,
        interest: Readiness,
    ) -> Result<(), SocketError> {
        if !fits(fd.as_fd()) {
            return Err(SocketError::Limit(OUT_OF_SET));
        }
        self.watched.add(Arc::clone(fd), id, interest);
        Ok(())
    }

    fn modify(&mut self, id: SocketId, interest: Readiness) -> io::Result<()> {
        self.watched.modify(id, interest);
        Ok(())
    }

    fn arm(&mut self, id: SocketId, what: Readiness) {
        self.watched.arm(id, what);
    }

    fn del(&mut self, id: SocketId) {
        self.watched.remove(id);
    }

    fn wait(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        fired: &mut Vec<Fired>,
    ) -> io::Result<()> {
        let sleep = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let mut timeout = sleep.map(rounded_up);
        let bell = self.bell.fd();
        let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
        readable.insert(bell);
        let mut last = bell.as_raw_fd();
        for entry in self.watched.armed() {
            last = last.max(entry.fd.as_raw_fd());
            if entry.armed.is_readable() {
                readable.insert(entry.fd.as_fd());
            }
            if entry.armed.is_writable() {
                writable.insert(entry.fd.as_fd());
            }
        }
        match select(last + 1, &mut readable, &mut writable, None, timeout.as_mut()) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        if readable.contains(bell) {
            self.bell.heard();
        }
        let start = fired.len();
        for entry in self.watched.armed() {
            let mut readiness = Readiness::NONE;
            if readable.contains(entry.fd.as_fd()) {
                readiness |= Readiness::READABLE;
            }
            if writable.contains(entry.fd.as_fd()) {
                readiness |= Readiness::WRITABLE;
            }
            if !readiness.is_empty() {
                // The end of the stream is readable, time and again: the owner reads it.
                fired.push(Fired { id: entry.id, readiness, hung_up: false });
            }
        }
        self.watched.disarm(&fired[start..]);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.bell.waker()
    }
}

const OUT_OF_SET: &str = "descriptor numbers that select can watch (FD_SETSIZE)";

fn fits(fd: BorrowedFd<'_>) -> bool {
    usize::try_from(fd.as_raw_fd()).is_ok_and(|number| number < FD_SETSIZE)
}

/// Not a moment too early: the rest of a microsecond makes a whole one.
fn rounded_up(sleep: Duration) -> TimeVal {
    let sleep = sleep.min(SLEEP_MAX) + Duration::from_nanos(999);
    TimeVal::new(sleep.as_secs() as _, sleep.subsec_micros().into())
}
