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
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use socket2::SockRef;

use super::errno;
use super::net_handler::{NetHandler, Sharing};
use crate::stack::{ListenOptions, SocketError};

/// Pending errors of connections that died in the backlog are skipped, at most this many a call.
pub(super) const ACCEPT_TRIES: usize = 16;

/// A listening socket of one worker.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) addr: SocketAddr,
    /// Its owner was told that connections wait, and has not yet found none.
    pub(super) reported: bool,
    /// Of the connections it accepts.
    priority: Option<u32>,
    /// Declared after the socket: the address is free in the kernel before it is free here.
    _member: Member,
}

impl Listener {
    /// Listens on `addr` alone, or beside the other workers of the stack.
    pub(super) fn open(
        net: &NetHandler,
        groups: &PortGroups,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> Result<Self, SocketError> {
        let mut members = groups.lock();
        let sharing = match groups.shared {
            false => Sharing::Alone,
            true if addr.port() != 0 && members.contains_key(&addr) => Sharing::Joins,
            true => Sharing::Founds,
        };
        let fd = net
            .listen(addr, options.backlog, sharing)
            .map_err(|error| errno::of_bind(error, addr))?;
        let bound = SockRef::from(&fd).local_addr()?;
        let addr = bound.as_socket().unwrap_or(addr);
        *members.entry(addr).or_insert(0) += 1;
        drop(members);
        let member = Member { groups: groups.clone(), addr };
        let (fd, priority) = (Arc::new(fd), options.priority);
        Ok(Self { fd, addr, reported: false, priority, _member: member })
    }

    /// The oldest connection that waits.
    pub(super) fn accept(
        &mut self,
        net: &NetHandler,
    ) -> Result<Option<(OwnedFd, SocketAddr)>, SocketError> {
        for _ in 0..ACCEPT_TRIES {
            match net.accept(&self.fd, self.priority) {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(errno) if errno::died_in_backlog(errno) => {}
                Err(Errno::AGAIN) => {
                    self.reported = false;
                    return Ok(None);
                }
                Err(errno) => {
                    self.reported = false;
                    return Err(errno::of_machine(errno.into()));
                }
            }
        }
        self.reported = false;
        Err(SocketError::Io(std::io::ErrorKind::ConnectionAborted.into()))
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
