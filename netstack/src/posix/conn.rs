//! One connection: what the kernel last said of it, so that it is asked only when it matters.

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use socket2::SockRef;

use super::counters::Counters;
use super::listen::exhausted;
use crate::stack::{Readiness, Received, SocketError};

/// Most slices one `sendmsg` takes (Linux `UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// Most input, in bytes, that is thrown away for a connection closed by its owner.
const LINGER_INPUT_MAX: usize = 4 << 20;
const DISCARD_LEN: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    stage: Stage,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Reported to the owner and not yet spent: a call would probably not block.
    ready: Readiness,
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
    pub(super) fn accepted(stream: TcpStream, peer: SocketAddr) -> Self {
        Self { stage: Stage::Open, ready: Readiness::WRITABLE, ..Self::opening(stream, peer) }
    }

    pub(super) fn opening(stream: TcpStream, peer: SocketAddr) -> Self {
        Self {
            stream,
            peer,
            stage: Stage::Opening,
            incoming: Incoming::Open,
            outgoing: Outgoing::Open,
            ready: Readiness::NONE,
        }
    }

    /// The kernel refused at once; the owner will be told as if it had happened later.
    pub(super) fn refused(stream: TcpStream, peer: SocketAddr) -> Self {
        Self {
            stage: Stage::Failed(Errno::CONNREFUSED),
            ready: Readiness::ALL,
            ..Self::opening(stream, peer)
        }
    }

    /// For registration with a poll.
    pub(super) fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// What the owner may be told at once.
    pub(super) fn readiness(&self) -> Readiness {
        self.ready
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Takes note of an event and returns the part of it that is news to the owner.
    pub(super) fn on_event(&mut self, event: &Event) -> Readiness {
        let mut seen = Readiness::NONE;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            seen |= Readiness::READABLE;
        }
        if event.is_writable() || event.is_write_closed() || event.is_error() {
            seen |= Readiness::WRITABLE;
        }
        if self.incoming == Incoming::Open && (event.is_read_closed() || event.is_error()) {
            self.incoming = Incoming::HungUp;
        }
        let news = seen.without(self.ready);
        self.ready |= seen;
        news
    }

    /// Whether the connection opened.
    pub(super) fn is_connected(&mut self, counters: &mut Counters) -> Result<bool, SocketError> {
        match self.stage {
            Stage::Open | Stage::Lingering { .. } => return Ok(true),
            Stage::Failed(errno) => return Err(self.error(errno)),
            Stage::Opening if !self.ready.is_writable() => return Ok(false),
            Stage::Opening => {}
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(self.fail(error, counters));
        }
        match self.stream.peer_addr() {
            // A port nobody listens on may be drawn as our own, and the kernel then connects the
            // socket to itself.
            Ok(peer) if peer == self.stream.local_addr()? => {
                Err(self.fail(Errno::CONNREFUSED.into(), counters))
            }
            Ok(_) => {
                self.stage = Stage::Open;
                Ok(true)
            }
            // Woken for nothing; the real event is still to come.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                self.ready = self.ready.without(Readiness::WRITABLE);
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
        match self.stream.read(buffer) {
            Ok(0) => {
                self.incoming = Incoming::Ended;
                Ok(Received::EndOfStream)
            }
            Ok(len) => {
                counters.bytes_received += len as u64;
                // The kernel had no more than this, and what comes now makes an event.
                if len < buffer.len() && self.incoming == Incoming::Open {
                    self.ready = self.ready.without(Readiness::READABLE);
                }
                Ok(Received::Bytes(len))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready = self.ready.without(Readiness::READABLE);
                Ok(Received::WouldBlock)
            }
            Err(error) => Err(self.fail(error, counters)),
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
            flags |= SendFlags::MORE;
        }
        counters.send_calls += 1;
        match sendmsg(&self.stream, gather, &mut SendAncillaryBuffer::default(), flags) {
            Ok(len) => {
                counters.bytes_sent += len as u64;
                self.outgoing = if more { Outgoing::Held } else { Outgoing::Open };
                if len < offered {
                    self.ready = self.ready.without(Readiness::WRITABLE);
                }
                Ok(len)
            }
            Err(Errno::AGAIN) => {
                self.ready = self.ready.without(Readiness::WRITABLE);
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
        // Pushes pending segments by Nagle's rule if that is on, at once if not. It fails only on
        // a dead connection, and then recv and send say so.
        let _ = SockRef::from(&self.stream).set_tcp_cork(false);
    }

    pub(super) fn shutdown(&mut self, counters: &mut Counters) -> Result<(), SocketError> {
        if let Stage::Failed(errno) = self.stage {
            return Err(self.error(errno));
        }
        if self.outgoing == Outgoing::Shut {
            return Ok(());
        }
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => {
                self.outgoing = Outgoing::Shut;
                Ok(())
            }
            Err(error) => {
                let cause = self.stream.take_error()?.unwrap_or(error);
                Err(self.fail(cause, counters))
            }
        }
    }

    /// Makes the close that follows a reset.
    pub(super) fn abort(&self) {
        // If the option fails the peer sees an ordinary end.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Closes the sending half for an owner who gives the connection up. Whether the socket has to
    /// wait for the peer's end; if not it can be dropped, the kernel delivers what was sent.
    pub(super) fn close(&mut self) -> bool {
        let opened = match self.stage {
            Stage::Opening => self.ready.is_writable(),
            stage => stage == Stage::Open,
        };
        let over = !opened || self.incoming == Incoming::Ended;
        if over || self.stream.shutdown(Shutdown::Write).is_err() {
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
            match self.stream.read(&mut scratch) {
                Ok(len) if len > 0 && len <= *budget_bytes => *budget_bytes -= len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                _ => return true,
            }
        }
        true
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
        connection_error(errno, self.peer)
    }
}

/// What the kernel's error means for a connection with `peer`.
fn connection_error(errno: Errno, peer: SocketAddr) -> SocketError {
    match errno {
        Errno::CONNREFUSED => SocketError::Refused,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => SocketError::Reset,
        Errno::TIMEDOUT => SocketError::TimedOut,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN => {
            SocketError::Unreachable(peer)
        }
        other => exhausted(other.into()),
    }
}

/// What is wrong when a connection cannot even be tried.
pub(super) fn connect_error(error: io::Error, peer: SocketAddr) -> SocketError {
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRNOTAVAIL) => SocketError::Limit("local ports for this peer"),
        // A family, or a scope, the kernel does not have.
        Some(Errno::AFNOSUPPORT | Errno::INVAL) => SocketError::Unreachable(peer),
        Some(errno) => connection_error(errno, peer),
        None => SocketError::Io(error),
    }
}
