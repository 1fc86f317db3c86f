//! Kernel readiness: which system call a worker sleeps in, and what it tells the worker.
//!
//! ```text
//!   Selector ---- EventQueue   epoll or kqueue, through mio    driver/mio.rs
//!            \--- PollList     poll                            driver/poll.rs
//!            \--- SelectSets   select                          driver/select.rs
//! ```
//!
//! All three keep the same promise, so nobody above can tell which one runs: a descriptor is
//! reported once for something it is ready for, and again only after it was armed for that
//! ([`Selector::arm`]), which its owner does when a call would have blocked. Event queues may
//! repeat themselves when more arrives; the owner filters that.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crate::stack::{Readiness, SocketError, SocketId, Waker};

#[cfg(target_os = "linux")]
mod alarm;
mod bell;
mod mio;
mod poll;
mod select;
#[cfg(test)]
mod tests;
mod watched;

/// The system call that waits for sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Driver {
    /// `epoll`, of Linux.
    Epoll,
    /// `kqueue`, of the BSDs.
    Kqueue,
    /// `poll`: a wait costs as much as there are sockets that wait.
    Poll,
    /// `select`: as `poll`, and no descriptor may have a number of 1024 or more.
    Select,
}

impl Driver {
    /// The event queue of this system: the one to use, if nothing speaks against it.
    pub const NATIVE: Self = if cfg!(target_os = "linux") { Self::Epoll } else { Self::Kqueue };

    /// Every driver this system has.
    pub const ALL: [Self; 3] = [Self::NATIVE, Self::Poll, Self::Select];

    /// The name of the system call.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Kqueue => "kqueue",
            Self::Poll => "poll",
            Self::Select => "select",
        }
    }

    /// Ready to watch descriptors.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if this system does not have it.
    pub(super) fn open(self) -> io::Result<Box<dyn Selector>> {
        Ok(match self {
            Self::NATIVE => Box::new(mio::EventQueue::new()?),
            Self::Poll => Box::new(poll::PollList::new()?),
            Self::Select => Box::new(select::SelectSets::new()?),
            absent => {
                let reason = format!("this system has no {absent}; it has {}", Self::NATIVE);
                return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            }
        })
    }
}

impl Default for Driver {
    fn default() -> Self {
        Self::NATIVE
    }
}

/// By [`Driver::name`]; whether this system has it shows when it is opened.
impl FromStr for Driver {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        let all = [Self::Epoll, Self::Kqueue, Self::Poll, Self::Select];
        let found = all.into_iter().find(|driver| driver.name() == name);
        found.ok_or_else(|| UnknownDriver(name.to_owned()))
    }
}

/// A name that no driver has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a driver: epoll, kqueue, poll or select")]
pub struct UnknownDriver(String);

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the kernel told of one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fired {
    pub(super) id: SocketId,
    /// An error or the peer's end counts as ready: the next call tells (contract E-14).
    pub(super) readiness: Readiness,
    /// The peer's end or an error was seen, maybe behind data. Not every driver can tell.
    pub(super) hung_up: bool,
}

/// Descriptors and the sleep until one of them is ready.
pub(super) trait Selector: fmt::Debug + Send {
    /// Which one this is.
    fn driver(&self) -> Driver;

    /// Watches `fd` under the name `id`, whose slot is free, armed for all of `interest`.
    ///
    /// # Errors
    /// [`SocketError::Limit`] if the driver cannot watch this descriptor.
    fn add(
        &mut self,
        fd: &Arc<OwnedFd>,
        id: SocketId,
        interest: Readiness,
    ) -> Result<(), SocketError>;

    /// Watches for `interest` in place of what was watched before, armed for all of it. Does
    /// nothing for an unknown name.
    fn modify(&mut self, id: SocketId, interest: Readiness) -> io::Result<()>;

    /// Reports the descriptor again when it is ready for `what`, as far as it is interested.
    fn arm(&mut self, id: SocketId, what: Readiness);

    /// Forgets the descriptor. An unknown name is no error (contract E-4).
    fn del(&mut self, id: SocketId);

    /// Appends what became ready; sleeps until something is, until woken, or to `deadline`, never
    /// shorter than that. A signal ends the sleep, too.
    fn wait(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        fired: &mut Vec<Fired>,
    ) -> io::Result<()>;

    /// Ends the sleep from other threads.
    fn waker(&self) -> Waker;
}
