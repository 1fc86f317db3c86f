//! The TCP connection under a session, from the wish for it to its end.
//!
//! ```text
//!   Down --dial--> Wanted --connect--> Opening --> Open
//!    ^                |                   |         ^ |
//!    +----------------+----- hang up -----+---------|-+
//!    +----------------- accepted, adopted ----------+
//! ```
//!
//! Whoever waits in a call holds a clone of the stream; by it they find out later whether the
//! stream is still the session's.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

/// See the [module](self).
pub(super) enum Link {
    Down,
    /// The writer is to connect.
    Wanted(SocketAddr),
    /// The writer waits for it.
    Opening(Arc<TcpStream>, SocketAddr),
    Open(Arc<TcpStream>),
}

impl Link {
    /// Lets go of the stream; who waits in a call on it is woken.
    pub(super) fn hang_up(&mut self) {
        let link = std::mem::replace(self, Self::Down);
        if let Self::Opening(stream, _) | Self::Open(stream) = link {
            // The peer may have been faster.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether this is the stream in use.
    pub(super) fn is_on(&self, other: &Arc<TcpStream>) -> bool {
        match self {
            Self::Opening(stream, _) | Self::Open(stream) => Arc::ptr_eq(stream, other),
            Self::Down | Self::Wanted(_) => false,
        }
    }
}
