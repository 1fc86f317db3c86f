//! Whether later frames of a transport may be compressed (msgr2: COMPRESSION_*).
//!
//! ```text
//!   dialler    COMPRESSION_REQUEST -->
//!   acceptor                           <-- COMPRESSION_DONE
//! ```
//! Only if both banners offer compression, but then always, even to say no; right behind the
//! signatures. What both say is up to [`CompressionOptions`](crate::v2::CompressionOptions).

use crate::entity::EntityType;
use crate::error::ProtocolError;
use crate::session::transport::{Phase, Side};
use crate::session::{Session, Step};
use crate::v2::control::{CompressionDone, CompressionRequest};

impl Session {
    pub(super) fn negotiate_compression(&mut self) {
        let dials = self.transport().is_some_and(|transport| transport.side == Side::Dialler);
        if dials && !self.passes(Step::CompressionRequest) {
            return;
        }
        let (request, _) = self.compression_request();
        if let Some(transport) = self.transport() {
            transport.phase = Phase::Compression;
            if dials {
                transport.send(&request);
            }
        }
    }

    pub(super) fn on_compression_request(&mut self, request: &CompressionRequest) {
        if !self.passes(Step::CompressionRequestSeen) {
            return;
        }
        let (peer, secure) = self.compression_terms();
        let (done, compression) = self.identity.options.compression.answer(peer, secure, request);
        if let Some(transport) = self.transport() {
            transport.send(&done);
            transport.compress(compression);
        }
        self.begin_session();
    }

    pub(super) fn on_compression_done(
        &mut self,
        done: CompressionDone,
    ) -> Result<(), ProtocolError> {
        let (request, peer) = self.compression_request();
        let compression = self.identity.options.compression.settle(peer, &request, done)?;
        if let Some(transport) = self.transport() {
            transport.compress(compression);
        }
        self.begin_session();
        Ok(())
    }

    /// What we ask for; the same whenever it is asked on one transport.
    fn compression_request(&mut self) -> (CompressionRequest, EntityType) {
        let (peer, secure) = self.compression_terms();
        (self.identity.options.compression.request(peer, secure), peer)
    }

    fn compression_terms(&mut self) -> (EntityType, bool) {
        let peer = self.peer.kind.unwrap_or(EntityType::Client);
        (peer, self.transport().is_some_and(|transport| transport.encoder.is_secure()))
    }
}
