//! Listeners of one stack's workers, and the rule who may share an address.
//!
//! `SO_REUSEPORT` lets every worker listen for itself, but it also lets in any other socket of
//! this user that sets it, silently taking a share of the connections. So the first worker of a
//! stack binds *without* it: the kernel then refuses if anybody listens there, whatever they set.
//! Only when that stands is `SO_REUSEPORT` switched on, and only if the stack has more workers;
//! these set it before they bind and so join the group. Which addresses are the stack's own is
//! remembered in [`PortGroups`], so another stack, even of this process, starts exclusively again
//! and is refused.
//!
//! What stays open: a stranger of the same user who sets `SO_REUSEPORT` himself can still join a
//! group of several workers later. The kernel offers no way to close a group.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::net::{TcpListener, TcpStream};
use rustix::io::Errno;
use socket2::{SockRef, Socket};

use super::PosixConfig;
use crate::stack::SocketError;

/// Pending errors of connections that died in the backlog are skipped, at most this many a call.
const ACCEPT_TRIES: usize = 16;

/// A listening socket of one worker.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) addr: SocketAddr,
    /// Its owner was told that connections wait, and has not yet found none.
    pub(super) reported: bool,
    /// Declared after the socket: the address is free in the kernel before it is free here.
    _member: Member,
}

impl Listener {
    /// Listens on `addr` alone, or beside the other workers of the stack.
    pub(super) fn open(
        config: &PosixConfig,
        groups: &PortGroups,
        addr: SocketAddr,
        backlog: usize,
    ) -> Result<Self, SocketError> {
        let mut members = groups.lock();
        let joins = addr.port() != 0 && members.contains_key(&addr);
        let socket = bind(config, addr, joins)
            .and_then(|socket| {
                socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
                Ok(socket)
            })
            .map_err(|error| bind_error(error, addr))?;
        if groups.shared {
            socket.set_reuse_port(true)?;
        }
        let socket = TcpListener::from_std(socket.into());
        let addr = socket.local_addr()?;
        *members.entry(addr).or_insert(0) += 1;
        drop(members);
        let member = Member { groups: groups.clone(), addr };
        Ok(Self { socket, addr, reported: false, _member: member })
    }

    /// The oldest connection that waits.
    pub(super) fn accept(&mut self) -> Result<Option<(TcpStream, SocketAddr)>, SocketError> {
        for _ in 0..ACCEPT_TRIES {
            let error = match self.socket.accept() {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(error) => error,
            };
            if died_in_backlog(&error) {
                continue;
            }
            self.reported = false;
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(exhausted(error)),
            };
        }
        self.reported = false;
        Err(SocketError::Io(io::ErrorKind::ConnectionAborted.into()))
    }
}

/// The addresses one stack listens on, and how many of its workers do.
///
/// Locked when a listener opens or closes, never on the data path.
#[derive(Clone, Debug)]
pub(super) struct PortGroups {
    members: Arc<Mutex<HashMap<SocketAddr, usize>>>,
    /// The stack has several workers.
    shared: bool,
}

impl PortGroups {
    pub(super) fn new(shared: bool) -> Self {
        Self { members: Arc::default(), shared }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, usize>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One listener's share in a [`PortGroups`] entry.
#[derive(Debug)]
struct Member {
    groups: PortGroups,
    addr: SocketAddr,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.groups.lock();
        if let Some(count) = members.get_mut(&self.addr) {
            *count -= 1;
            if *count == 0 {
                members.remove(&self.addr);
            }
        }
    }
}

fn bind(config: &PosixConfig, addr: SocketAddr, joins: bool) -> io::Result<Socket> {
    let socket = config.socket(addr)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Lets a restart bind beside connections in TIME-WAIT; on Linux never beside a listener.
    socket.set_reuse_address(true)?;
    if joins {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Binds a connecting socket to `addr`.
pub(super) fn bind_local(socket: &Socket, addr: SocketAddr) -> Result<(), SocketError> {
    SockRef::from(socket)
        .set_reuse_address(addr.port() != 0)
        .and_then(|()| socket.bind(&addr.into()))
        .map_err(|error| bind_error(error, addr))
}

fn bind_error(error: io::Error, addr: SocketAddr) -> SocketError {
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => SocketError::AddressInUse(addr),
        // The latter two: an address of a family the socket or the kernel does not have.
        Some(Errno::ADDRNOTAVAIL | Errno::INVAL | Errno::AFNOSUPPORT) => {
            SocketError::AddressNotAvailable(addr)
        }
        _ => exhausted(error),
    }
}

/// Names the limit behind an error, if there is one.
pub(super) fn exhausted(error: io::Error) -> SocketError {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE) => SocketError::Limit("open files"),
        Some(Errno::NOBUFS | Errno::NOMEM) => SocketError::Limit("kernel memory"),
        _ => SocketError::Io(error),
    }
}

/// Linux hands the pending error of the new connection to `accept`; the listener is well.
fn died_in_backlog(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
        )
    )
}
