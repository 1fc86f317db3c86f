//! One connection: what the kernel last said of it, so that it is asked only when it matters.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;

use super::counters::Counters;
use super::driver::Fired;
use super::{errno, system};
use crate::stack::{Readiness, Received, SocketError};

/// Most slices one `sendmsg` takes (Linux `UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// Most input, in bytes, that is thrown away for a connection closed by its owner.
const LINGER_INPUT_MAX: usize = 4 << 20;
const DISCARD_LEN: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    fd: Arc<OwnedFd>,
    peer: SocketAddr,
    stage: Stage,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Reported to the owner and not yet spent: a call would probably not block.
    ready: Readiness,
    /// Spent, and the driver was not yet told.
    spent: Readiness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    /// The kernel tells an error once and an end of stream after it; we go on telling the error.
    Failed(Errno),
    /// Closed by its owner, waiting for the peer's end; so much more input is thrown away.
    Lingering {
        budget_bytes: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    /// Every arrival makes an event.
    Open,
    /// The peer's end or an error has arrived, maybe behind data: no further event will come.
    HungUp,
    /// Everything was read.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgoing {
    Open,
    /// The kernel was told that more follows and may hold back a short segment.
    Held,
    Shut,
}

impl Connection {
    pub(super) fn accepted(fd: OwnedFd, peer: SocketAddr) -> Self {
        Self { stage: Stage::Open, ready: Readiness::WRITABLE, ..Self::opening(fd, peer) }
    }

    pub(super) fn opening(fd: OwnedFd, peer: SocketAddr) -> Self {
        Self {
            fd: Arc::new(fd),
            peer,
            stage: Stage::Opening,
            incoming: Incoming::Open,
            outgoing: Outgoing::Open,
            ready: Readiness::NONE,
            spent: Readiness::NONE,
        }
    }

    /// The kernel refused at once; the owner will be told as if it had happened later.
    pub(super) fn refused(fd: OwnedFd, peer: SocketAddr) -> Self {
        Self {
            stage: Stage::Failed(Errno::CONNREFUSED),
            ready: Readiness::ALL,
            ..Self::opening(fd, peer)
        }
    }

    /// For the driver.
    pub(super) fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// What the owner may be told at once.
    pub(super) fn readiness(&self) -> Readiness {
        self.ready
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()?.as_socket().ok_or_else(|| Errno::AFNOSUPPORT.into())
    }

    /// Takes note of an event and returns the part of it that is news to the owner.
    pub(super) fn on_event(&mut self, event: Fired) -> Readiness {
        if self.incoming == Incoming::Open && event.hung_up {
            self.incoming = Incoming::HungUp;
        }
        let news = event.readiness.without(self.ready);
        self.ready |= event.readiness;
        news
    }

    /// What the owner was told would block, since this was asked last.
    pub(super) fn take_spent(&mut self) -> Readiness {
        std::mem::take(&mut self.spent)
    }

    /// Whether the connection opened.
    pub(super) fn is_connected(&mut self, counters: &mut Counters) -> Result<bool, SocketError> {
        match self.stage {
            Stage::Open | Stage::Lingering { .. } => return Ok(true),
            Stage::Failed(errno) => return Err(self.error(errno)),
            Stage::Opening if !self.ready.is_writable() => return Ok(false),
            Stage::Opening => {}
        }
        if let Some(error) = self.socket().take_error()? {
            return Err(self.fail(error, counters));
        }
        match self.socket().peer_addr() {
            // A port nobody listens on may be drawn as our own, and the kernel then connects the
            // socket to itself.
            Ok(peer) if peer.as_socket() == Some(self.local_addr()?) => {
                Err(self.fail(Errno::CONNREFUSED.into(), counters))
            }
            Ok(_) => {
                self.stage = Stage::Open;
                Ok(true)
            }
            // Woken for nothing; the real event is still to come.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.spend(Readiness::WRITABLE);
                Ok(false)
            }
            Err(error) => Err(self.fail(error, counters)),
        }
    }

    pub(super) fn recv(
        &mut self,
        buffer: &mut [u8],
        counters: &mut Counters,
    ) -> Result<Received, SocketError> {
        debug_assert!(!buffer.is_empty(), "an empty buffer would read as an end of stream");
        if let Stage::Failed(errno) = self.stage {
            return Err(self.error(errno));
        }
        if self.incoming == Incoming::Ended {
            return Ok(Received::EndOfStream);
        }
        if !self.ready.is_readable() {
            return Ok(Received::WouldBlock);
        }
        counters.recv_calls += 1;
        match rustix::io::read(&self.fd, &mut *buffer) {
            Ok(0) => {
                self.incoming = Incoming::Ended;
                Ok(Received::EndOfStream)
            }
            Ok(len) => {
                counters.bytes_received += len as u64;
                // The kernel had no more than this, and what comes now makes an event.
                if len < buffer.len() && self.incoming == Incoming::Open {
                    self.spend(Readiness::READABLE);
                }
                Ok(Received::Bytes(len))
            }
            Err(Errno::AGAIN) => {
                self.spend(Readiness::READABLE);
                Ok(Received::WouldBlock)
            }
            Err(errno) => Err(self.fail(errno.into(), counters)),
        }
    }

    pub(super) fn send(
        &mut self,
        gather: &[IoSlice<'_>],
        more: bool,
        counters: &mut Counters,
    ) -> Result<usize, SocketError> {
        if self.outgoing == Outgoing::Shut {
            return Err(SocketError::Shutdown);
        }
        if let Stage::Failed(errno) = self.stage {
            return Err(self.error(errno));
        }
        let gather = &gather[..gather.len().min(IOV_MAX)];
        let offered: usize = gather.iter().map(|slice| slice.len()).sum();
        if offered == 0 || !self.ready.is_writable() {
            return Ok(0);
        }
        let mut flags = SendFlags::NOSIGNAL;
        if more {
            flags |= system::MORE;
        }
        counters.send_calls += 1;
        match sendmsg(&self.fd, gather, &mut SendAncillaryBuffer::default(), flags) {
            Ok(len) => {
                counters.bytes_sent += len as u64;
                self.outgoing = if more { Outgoing::Held } else { Outgoing::Open };
                if len < offered {
                    self.spend(Readiness::WRITABLE);
                }
                Ok(len)
            }
            Err(Errno::AGAIN) => {
                self.spend(Readiness::WRITABLE);
                Ok(0)
            }
            Err(errno) => Err(self.fail(errno.into(), counters)),
        }
    }

    /// Whether a flush has something to release.
    pub(super) fn is_held(&self) -> bool {
        self.outgoing == Outgoing::Held
    }

    /// Sends what was held back for more bytes to come.
    pub(super) fn release(&mut self) {
        self.outgoing = Outgoing::Open;
        // It fails only on a dead connection, and then recv and send say so.
        let _ = system::uncork(&self.socket());
    }

    pub(super) fn shutdown(&mut self, counters: &mut Counters) -> Result<(), SocketError> {
        if let Stage::Failed(errno) = self.stage {
            return Err(self.error(errno));
        }
        if self.outgoing == Outgoing::Shut {
            return Ok(());
        }
        match self.socket().shutdown(Shutdown::Write) {
            Ok(()) => {
                self.outgoing = Outgoing::Shut;
                Ok(())
            }
            Err(error) => {
                let cause = self.socket().take_error()?.unwrap_or(error);
                Err(self.fail(cause, counters))
            }
        }
    }

    /// Makes the close that follows a reset.
    pub(super) fn abort(&self) {
        // If the option fails the peer sees an ordinary end.
        let _ = self.socket().set_linger(Some(Duration::ZERO));
    }

    /// Closes the sending half for an owner who gives the connection up. Whether the socket has to
    /// wait for the peer's end; if not it can be dropped, the kernel delivers what was sent.
    pub(super) fn close(&mut self) -> bool {
        let opened = match self.stage {
            Stage::Opening => self.ready.is_writable(),
            stage => stage == Stage::Open,
        };
        let over = !opened || self.incoming == Incoming::Ended;
        if over || self.socket().shutdown(Shutdown::Write).is_err() {
            return false;
        }
        self.stage = Stage::Lingering { budget_bytes: LINGER_INPUT_MAX };
        !self.discard()
    }

    pub(super) fn is_lingering(&self) -> bool {
        matches!(self.stage, Stage::Lingering { .. })
    }

    /// Throws away what the peer still sends. True: it is over, by the peer's end or an error, or
    /// because the peer sent more than [`LINGER_INPUT_MAX`] and deserves the reset.
    pub(super) fn discard(&mut self) -> bool {
        let mut scratch = [0; DISCARD_LEN];
        while let Stage::Lingering { budget_bytes } = &mut self.stage {
            match rustix::io::read(&self.fd, &mut scratch) {
                Ok(len) if len > 0 && len <= *budget_bytes => *budget_bytes -= len,
                Err(Errno::AGAIN) => return false,
                _ => return true,
            }
        }
        true
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.fd)
    }

    /// The kernel has no more of it now, and says so when it has.
    fn spend(&mut self, what: Readiness) {
        self.ready = self.ready.without(what);
        self.spent |= what;
    }

    fn fail(&mut self, error: io::Error, counters: &mut Counters) -> SocketError {
        counters.failed += 1;
        match Errno::from_io_error(&error) {
            Some(errno) => {
                self.stage = Stage::Failed(errno);
                self.error(errno)
            }
            None => SocketError::Io(error),
        }
    }

    fn error(&self, errno: Errno) -> SocketError {
        errno::of_connection(errno, self.peer)
    }
}
