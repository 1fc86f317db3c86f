//! What Linux gives a socket and other systems do not.
//!
//! Elsewhere the crate builds (checked for FreeBSD) and goes without: `more` holds nothing back, a
//! priority is not granted, and a user timeout is refused, because who sets it counts on it.

use std::io;
use std::time::Duration;

use rustix::net::SendFlags;
use socket2::SockRef;

#[cfg(target_os = "linux")]
pub(super) use linux::*;
#[cfg(not(target_os = "linux"))]
pub(super) use others::*;

#[cfg(target_os = "linux")]
mod linux {
    use super::*;

    /// More follows: a short segment may wait for it.
    pub(in crate::posix) const MORE: SendFlags = SendFlags::MORE;

    /// Sends what [`MORE`] held back: at once, or by Nagle's rule if that is on.
    pub(in crate::posix) fn uncork(socket: &SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_cork(false)
    }

    pub(in crate::posix) fn set_user_timeout(
        socket: &SockRef<'_>,
        after: Duration,
    ) -> io::Result<()> {
        socket.set_tcp_user_timeout(Some(after))
    }

    pub(in crate::posix) fn set_priority(socket: &SockRef<'_>, priority: u32) -> io::Result<()> {
        socket.set_priority(priority)
    }
}

#[cfg(not(target_os = "linux"))]
mod others {
    use super::*;

    pub(in crate::posix) const MORE: SendFlags = SendFlags::empty();

    pub(in crate::posix) fn uncork(_: &SockRef<'_>) -> io::Result<()> {
        Ok(())
    }

    pub(in crate::posix) fn set_user_timeout(_: &SockRef<'_>, _: Duration) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::posix) fn set_priority(_: &SockRef<'_>, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
