//! Transports that speak msgr1: another handshake, items instead of frames, the same session.
//!
//! ```text
//!   dialler    Dialling --- Ready ----------------------------> Open
//!   acceptor   Accepting -- Request, verdict, (SEQ) ----------> Open
//! ```
//! What a connect asks for is a new session or an old one, by one number: `connect_seq` is what the
//! cookies of msgr2 are. Both sides raise it by one whenever a session opens, so an old session has
//! one above zero.
//!
//! Nothing is encrypted here. A side whose rules want more than crc mode does not talk msgr1.

mod accept;
mod dial;
mod link;

use std::time::Instant;

use bytes::Bytes;

use crate::addr::{AddrType, EntityAddr};
use crate::auth::cephx::MessageSigner;
use crate::auth::{ConnectionMode, Key};
use crate::entity::EntityType;
use crate::error::ProtocolError;
use crate::features;
use crate::session::inbox::Inbox;
use crate::session::transport::{BUFFERS, Reading, Side, Transport};
use crate::session::{Session, State};
use crate::v1::{Decoder, Encoder, Opened, V1Error, Wire};

pub(super) use accept::Accepting;
pub(super) use dial::Dialling;
pub(super) use link::Link;

/// Where the numbers of messages end: nobody sends so many, and who claims to have them leaves room to
/// count on.
const SEQ_MAX: u64 = 1 << 62;

/// How far a transport that speaks msgr1 has come.
#[derive(Debug)]
pub(super) enum V1 {
    Dialling(Box<Dialling>),
    Accepting(Box<Accepting>),
    Open(Box<Link>),
}

impl Transport {
    /// The items of an open msgr1 session; none on a transport of msgr2.
    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.v1 {
            Some(V1::Open(link)) => Some(link),
            _ => None,
        }
    }
}

impl Session {
    /// The transport opened, and msgr1 is what is spoken there.
    pub(super) fn begin_v1(&mut self) {
        let Some(transport) = self.transport() else {
            return;
        };
        transport.reading = Reading::V1;
        transport.transcript = None; // nobody signs it
        match transport.side {
            Side::Dialler => self.dial_v1(),
            Side::Acceptor => self.accept_v1(),
        }
    }

    /// Takes the next piece, if it is there and it is the peer's turn.
    pub(super) fn step_v1(&mut self, now: Instant) -> Result<bool, ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(false);
        };
        let wanted = match &transport.v1 {
            Some(V1::Dialling(dialling)) => dialling.wants(),
            Some(V1::Accepting(accepting)) => accepting.wants(),
            Some(V1::Open(_)) => {
                let Some(piece) = transport.read_v1(&self.rx_buffers) else {
                    return Ok(false);
                };
                self.on_v1_piece(now, piece)?;
                return Ok(true);
            }
            None => return Ok(false),
        };
        let stranger_len = self.identity.limits.unauthenticated_bytes / BUFFERS;
        let Some(piece) = strangers_piece(&mut transport.inbox, wanted, stranger_len)? else {
            return Ok(false);
        };
        match transport.side {
            Side::Dialler => self.on_v1_reply(now, piece)?,
            Side::Acceptor => self.on_v1_request(now, piece)?,
        }
        Ok(true)
    }

    /// The handshake is over: from here on items go both ways, signed if there is a key.
    fn open_link(&mut self, opened: &Opened, key: Option<&Key>) -> Result<(), ProtocolError> {
        if key.is_some() && opened.features & features::MSG_AUTH == 0 {
            return Err(V1Error::MissingFeatures { missing: features::MSG_AUTH }.into());
        }
        let options = &self.identity.options;
        let wire = Wire::new(opened.features, options.crc_data);
        let mut encoder = Encoder::new(wire);
        let mut decoder = Decoder::new(wire, self.identity.limits);
        if let Some(key) = key {
            encoder.sign(MessageSigner::new(key));
            decoder.demand_signatures(MessageSigner::new(key));
        }
        let read_ahead_len = options.read_ahead_len;
        if let Some(transport) = self.transport() {
            transport.v1 = Some(V1::Open(Box::new(Link::new(encoder, decoder))));
            transport.inbox.set_ahead_len(read_ahead_len);
        }
        Ok(())
    }

    /// Drops what the peer of an old session has. It may have more than we ever sent: then it goes on
    /// with another one, whose end it missed, and would take our first messages for repeated ones.
    fn go_on_behind(&mut self, opened: &Opened) {
        let acked = opened.acked.unwrap_or(0).min(SEQ_MAX);
        self.drop_received(acked);
        self.numbers.out_seq = self.numbers.out_seq.max(acked);
    }

    /// Whether the transport speaks msgr1.
    pub(super) fn speaks_v1(&self) -> bool {
        matches!(&self.state, State::Open { transport, .. } if transport.v1.is_some())
    }

    /// Whether our rules towards a `peer` let a transport go without encryption.
    fn allows_v1(&self, peer: EntityType) -> bool {
        let terms = self.identity.auth.rules.terms(self.identity.name.kind, peer);
        terms.modes.contains(&ConnectionMode::Crc)
    }

    /// Our own msgr1 address, its IP blank as long as we do not know it. Who listens for msgr2 only,
    /// or not at all, is known by its nonce.
    fn own_v1_addr(&self) -> EntityAddr {
        let own = &self.identity.addrs;
        match own.of(AddrType::Legacy) {
            EntityAddr::NONE => EntityAddr::unbound(own.first().map_or(0, |first| first.nonce)),
            addr => addr,
        }
    }
}

/// The next piece of a handshake, if it is there. Of what a stranger says we hold no more than one
/// piece, the authorizer before it, and what is read ahead.
fn strangers_piece(
    inbox: &mut Inbox,
    wanted: Option<usize>,
    limit: usize,
) -> Result<Option<Bytes>, ProtocolError> {
    match wanted {
        Some(len) if len > limit => Err(ProtocolError::UnauthenticatedLen { limit }),
        Some(len) => Ok(inbox.take(len)),
        None => Ok(None),
    }
}

/// A session's number as msgr1 has it. Nobody counts that far; who claims to is not understood.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
