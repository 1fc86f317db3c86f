//! What the kernel's errors mean at each place they come from.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use crate::stack::SocketError;

/// Of binding to `addr`, or listening there.
pub(super) fn of_bind(error: io::Error, addr: SocketAddr) -> SocketError {
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => SocketError::AddressInUse(addr),
        // The latter two: an address of a family the socket or the kernel does not have.
        Some(Errno::ADDRNOTAVAIL | Errno::INVAL | Errno::AFNOSUPPORT) => {
            SocketError::AddressNotAvailable(addr)
        }
        _ => of_machine(error),
    }
}

/// Of a connection to `peer` that cannot even be tried.
pub(super) fn of_connect(error: io::Error, peer: SocketAddr) -> SocketError {
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRNOTAVAIL) => SocketError::Limit("local ports for this peer"),
        // A family, or a scope, the kernel does not have.
        Some(Errno::AFNOSUPPORT | Errno::INVAL) => SocketError::Unreachable(peer),
        Some(errno) => of_connection(errno, peer),
        None => SocketError::Io(error),
    }
}

/// Of a connection with `peer`.
pub(super) fn of_connection(errno: Errno, peer: SocketAddr) -> SocketError {
    match errno {
        Errno::CONNREFUSED => SocketError::Refused,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => SocketError::Reset,
        Errno::TIMEDOUT => SocketError::TimedOut,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::NETDOWN => {
            SocketError::Unreachable(peer)
        }
        other => of_machine(other.into()),
    }
}

/// Of the machine: names the limit behind it, if there is one.
pub(super) fn of_machine(error: io::Error) -> SocketError {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE) => SocketError::Limit("open files"),
        Some(Errno::NOBUFS | Errno::NOMEM) => SocketError::Limit("kernel memory"),
        _ => SocketError::Io(error),
    }
}

/// Of `accept`: Linux hands it the pending error of the new connection; the listener is well.
pub(super) fn died_in_backlog(errno: Errno) -> bool {
    #[cfg(target_os = "linux")]
    if errno == Errno::NONET {
        return true;
    }
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::INTR
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
    )
}
