//! `poll`, in its `ppoll` form, which sleeps to the nanosecond.
//!
//! A wait costs as much as there are descriptors armed. Meant for systems without an event queue,
//! and as a second opinion when one is suspected.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::bell::{Bell, Counter};
use super::watched::Watched;
use super::{Driver, Fired, Selector};
use crate::stack::{Readiness, SocketError, SocketId, Waker};

/// A side of the connection is closed, or all of it is.
const HUNG_UP: PollFlags = PollFlags::RDHUP.union(PollFlags::HUP).union(PollFlags::ERR);

#[derive(Debug)]
pub(super) struct PollList {
    watched: Watched,
    bell: Arc<Bell<Counter>>,
    /// Both kept for their memory; a wait fills them again.
    asked: Vec<SocketId>,
    fds: Vec<PollFd<'static>>,
}

impl PollList {
    pub(super) fn new() -> io::Result<Self> {
        let bell = Bell::new(Counter::new()?);
        Ok(Self { watched: Watched::default(), bell, asked: Vec::new(), fds: Vec::new() })
    }
}

impl Selector for PollList {
    fn driver(&self) -> Driver {
        Driver::Poll
    }

    fn add(
        &mut self,
        fd: &Arc<OwnedFd>,
        id: SocketId,
        interest: Readiness,
    ) -> Result<(), SocketError> {
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
        // No sleep is so long that its seconds do not fit; if one were, it would have no end.
        let sleep = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let timeout = sleep.and_then(|sleep| Timespec::try_from(sleep).ok());
        let mut fds = emptied(std::mem::take(&mut self.fds));
        self.asked.clear();
        for entry in self.watched.armed() {
            self.asked.push(entry.id);
            fds.push(PollFd::from_borrowed_fd(entry.fd.as_fd(), flags(entry.armed)));
        }
        fds.push(PollFd::from_borrowed_fd(self.bell.fd(), PollFlags::IN));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        if fds.pop().is_some_and(|bell| !bell.revents().is_empty()) {
            self.bell.heard();
        }
        let start = fired.len();
        fired.extend(self.asked.iter().zip(&fds).filter_map(|(&id, fd)| news(id, fd.revents())));
        self.fds = emptied(fds);
        self.watched.disarm(&fired[start..]);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.bell.waker()
    }
}

/// The memory of a list for descriptors of another lifetime: the standard library collects a
/// vector in place of the vector it came from.
fn emptied<'fd>(mut fds: Vec<PollFd<'_>>) -> Vec<PollFd<'fd>> {
    fds.clear();
    fds.into_iter().map(|_| unreachable!("it is empty")).collect()
}

fn flags(armed: Readiness) -> PollFlags {
    let mut flags = PollFlags::empty();
    if armed.is_readable() {
        flags |= PollFlags::IN | PollFlags::RDHUP;
    }
    if armed.is_writable() {
        flags |= PollFlags::OUT;
    }
    flags
}

fn news(id: SocketId, seen: PollFlags) -> Option<Fired> {
    let mut readiness = Readiness::NONE;
    if seen.intersects(PollFlags::IN | HUNG_UP) {
        readiness |= Readiness::READABLE;
    }
    if seen.intersects(PollFlags::OUT | PollFlags::HUP | PollFlags::ERR) {
        readiness |= Readiness::WRITABLE;
    }
    let fired = Fired { id, readiness, hung_up: seen.intersects(HUNG_UP) };
    (!readiness.is_empty()).then_some(fired)
}
