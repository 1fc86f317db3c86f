//! An open session on a transport of msgr1: what its items mean.

use std::time::Instant;

use bytes::Bytes;

use crate::entity::EntityName;
use crate::error::ProtocolError;
use crate::message::{MessagePermits, ReceiveStamps};
use crate::rx_buffers::RxBuffers;
use crate::session::admission::Admission;
use crate::session::transport::{Reading, Transport};
use crate::session::{CloseReason, Fault, Session, State, Step};
use crate::v1::{Decoder, Encoder, Header, Item};
use crate::v2::control::{Ack, Keepalive2, Keepalive2Ack};

/// Both directions, and what the message being read holds.
#[derive(Debug)]
pub(in crate::session) struct Link {
    pub(in crate::session) encoder: Encoder,
    decoder: Decoder,
    stamps: ReceiveStamps,
    permits: MessagePermits,
}

impl Link {
    pub(super) fn new(encoder: Encoder, decoder: Decoder) -> Self {
        let (stamps, permits) = (ReceiveStamps::default(), MessagePermits::default());
        Self { encoder, decoder, stamps, permits }
    }

    /// The message that was announced may be read.
    pub(in crate::session) fn admit(&mut self, stamps: ReceiveStamps, permits: MessagePermits) {
        (self.stamps, self.permits) = (stamps, permits);
    }
}

impl Transport {
    /// The next piece of an item. The data of a message lands in the application's buffer if there
    /// is one for it.
    pub(super) fn read_v1(&mut self, buffers: &RxBuffers) -> Option<Bytes> {
        let decoder = &self.link()?.decoder;
        let len = decoder.wants()?;
        let tid = decoder.announces_data().map(|header| header.tid);
        if let Some(tid) = tid.filter(|_| buffers.count() > 0 && !self.inbox.is_placed())
            && let Some(buffer) = buffers.lend(tid, len)
        {
            self.lent = Some(tid);
            self.inbox.place(buffer);
        }
        self.inbox.take(len)
    }
}

impl Session {
    pub(super) fn on_v1_piece(&mut self, now: Instant, piece: Bytes) -> Result<(), ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        let Some(link) = transport.link() else {
            return Ok(());
        };
        match link.decoder.push(piece)? {
            None => {}
            Some(Item::Announced(header)) => self.on_announced(now, &header),
            Some(Item::Message(mut message)) => {
                message.stamps = link.stamps;
                message.permits = std::mem::take(&mut link.permits);
                transport.inbox.end_frame();
                if let Some(tid) = transport.lent.take() {
                    self.rx_buffers.spend(tid);
                }
                // Its number is the peer's own to tell, its type was settled when it came in.
                let number = message.source.map_or(EntityName::UNNUMBERED, |name| name.number);
                message.source = Some(self.peer_name(number));
                self.on_message(now, message);
            }
            Some(Item::Ack(seq)) => self.on_ack(&Ack(seq)),
            Some(Item::Keepalive) => self.peer.last_keepalive = Some(now),
            Some(Item::Keepalive2(stamp)) => self.on_keepalive(now, Keepalive2(stamp)),
            Some(Item::Keepalive2Ack(stamp)) => self.on_keepalive_ack(Keepalive2Ack(stamp)),
            Some(Item::Close) => {
                self.hang_up();
                self.die(CloseReason::Fault(Fault::Closed));
            }
        }
        Ok(())
    }

    fn on_announced(&mut self, now: Instant, header: &Header) {
        if !self.passes(Step::MessageSeen) {
            return;
        }
        let dispatch = self.identity.dispatch_throttle.as_ref();
        let len = header.payload_len();
        let admitted = Admission::request(now, len, &self.policy, dispatch, &self.unblock);
        self.stats.throttle_waits += u64::from(admitted.is_err());
        let Some(transport) = self.transport() else {
            return;
        };
        match (admitted, transport.link()) {
            (Ok(permits), Some(link)) => link.admit(ReceiveStamps::admitted(now), permits),
            (Ok(_), None) => {}
            (Err(admission), _) => transport.reading = Reading::Admission(admission),
        }
    }
}
