//! The kernel's own event queue, through mio: `epoll` on Linux, `kqueue` elsewhere.
//!
//! Both are edge-triggered here, so nothing has to be armed again, and a wait costs as much as
//! what it finds, however many descriptors are watched.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use ::mio::event::Event;
use ::mio::unix::SourceFd;
use ::mio::{Events, Interest, Poll, Token};

#[cfg(target_os = "linux")]
use super::alarm::Alarm;
use super::bell::Bell;
use super::watched::Watched;
use super::{Driver, Fired, Selector};
use crate::posix::EVENTS_PER_WAIT_MAX;
use crate::stack::{Readiness, SocketError, SocketId, Waker};

const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
const _: () = assert!(usize::BITS == 64, "a token carries slot and generation, 32 bits each");

#[derive(Debug)]
pub(super) struct EventQueue {
    poll: Poll,
    events: Events,
    watched: Watched,
    bell: Arc<Bell<::mio::Waker>>,
    alarm: Alarm,
}

impl EventQueue {
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let bell = Bell::new(::mio::Waker::new(poll.registry(), WAKER)?);
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let events = Events::with_capacity(EVENTS_PER_WAIT_MAX);
        Ok(Self { poll, events, watched: Watched::default(), bell, alarm })
    }
}

impl Selector for EventQueue {
    fn driver(&self) -> Driver {
        Driver::NATIVE
    }

    fn add(
        &mut self,
        fd: &Arc<OwnedFd>,
        id: SocketId,
        interest: Readiness,
    ) -> Result<(), SocketError> {
        if let Some(interest) = wanted(interest) {
            self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token(id), interest)?;
        }
        self.watched.add(Arc::clone(fd), id, interest);
        Ok(())
    }

    fn modify(&mut self, id: SocketId, interest: Readiness) -> io::Result<()> {
        let Some((entry, before)) = self.watched.modify(id, interest) else {
            return Ok(());
        };
        let (fd, token, registry) = (entry.fd.as_raw_fd(), token(id), self.poll.registry());
        // mio has no registration without an interest.
        match (wanted(before), wanted(interest)) {
            (None, None) => Ok(()),
            (None, Some(interest)) => registry.register(&mut SourceFd(&fd), token, interest),
            (Some(_), None) => registry.deregister(&mut SourceFd(&fd)),
            (Some(_), Some(interest)) => registry.reregister(&mut SourceFd(&fd), token, interest),
        }
    }

    fn arm(&mut self, _id: SocketId, _what: Readiness) {}

    fn del(&mut self, id: SocketId) {
        if let Some(fd) = self.watched.remove(id) {
            // It fails only for a descriptor the queue does not know, and then it is out already.
            let _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
        }
    }

    fn wait(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        fired: &mut Vec<Fired>,
    ) -> io::Result<()> {
        let timeout = self.alarm.timeout(now, deadline)?;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        for event in &self.events {
            match event.token() {
                WAKER => self.bell.heard(),
                ALARM => self.alarm.went_off(),
                _ => fired.push(news(event)),
            }
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.bell.waker()
    }
}

/// `kqueue` takes timeouts in nanoseconds.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    fn new(_: &::mio::Registry, _: Token) -> io::Result<Self> {
        Ok(Self)
    }

    fn timeout(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
    ) -> io::Result<Option<std::time::Duration>> {
        Ok(deadline.map(|deadline| deadline.saturating_duration_since(now)))
    }

    fn went_off(&mut self) {}
}

fn news(event: &Event) -> Fired {
    let mut readiness = Readiness::NONE;
    if event.is_readable() || event.is_read_closed() || event.is_error() {
        readiness |= Readiness::READABLE;
    }
    if event.is_writable() || event.is_write_closed() || event.is_error() {
        readiness |= Readiness::WRITABLE;
    }
    let hung_up = event.is_read_closed() || event.is_error();
    Fired { id: id(event.token()), readiness, hung_up }
}

fn wanted(interest: Readiness) -> Option<Interest> {
    let readable = interest.is_readable().then_some(Interest::READABLE);
    let writable = interest.is_writable().then_some(Interest::WRITABLE);
    match (readable, writable) {
        (Some(readable), Some(writable)) => Some(readable | writable),
        (readable, writable) => readable.or(writable),
    }
}

fn token(id: SocketId) -> Token {
    Token((id.generation as usize) << 32 | id.slot as usize)
}

fn id(token: Token) -> SocketId {
    SocketId { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
