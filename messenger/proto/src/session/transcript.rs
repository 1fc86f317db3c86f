//! Everything said on a transport until both sides sign it (msgr2: AUTH_SIGNATURE).
//!
//! ```text
//!   we sign      what we received: from the peer's banner to its last AUTH_* frame
//!   peer signs   what we sent:     from our banner to ours
//! ```
//! Raw bytes, as they were on the wire, are kept because the key comes last. Both signatures are
//! made as soon as there is one, and nothing is kept any longer than that.

use std::fmt;

use crate::error::ProtocolError;

#[derive(Default)]
pub(super) struct Transcript {
    /// What a peer may say before it has authenticated.
    received_max: usize,
    received: Vec<u8>,
    /// Bounded by what we answer to that.
    sent: Vec<u8>,
}

impl Transcript {
    /// One that takes in so many bytes of a peer.
    pub(super) fn new(received_max: usize) -> Self {
        Self { received_max, ..Self::default() }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        if bytes.len() > self.room() {
            return Err(ProtocolError::UnauthenticatedLen { limit: self.received_max });
        }
        self.received.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
    }

    /// Bytes that the peer may still say.
    pub(super) fn room(&self) -> usize {
        self.received_max - self.received.len()
    }

    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    pub(super) fn sent(&self) -> &[u8] {
        &self.sent
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transcript({} received, {} sent)", self.received.len(), self.sent.len())
    }
}
