//! SESSION_*, WAIT: an old session on a new transport, and a race between two dials.

use super::{Control, control_u64};
use crate::addr::EntityAddrVec;
use crate::denc::{DecodeError, Reader, Writer};
use crate::v2::Tag;

/// The client wants to go on with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReconnect {
    /// Its addresses: the session's key at the server.
    pub addrs: EntityAddrVec,
    /// The cookie made by the side that sent CLIENT_IDENT.
    pub client_cookie: u64,
    /// The cookie made by the side that sent SERVER_IDENT.
    pub server_cookie: u64,
    /// Its number of this connection attempt.
    pub global_seq: u64,
    /// Reconnects of this session so far.
    pub connect_seq: u64,
    /// The last message it received.
    pub msg_seq: u64,
}

impl Control for SessionReconnect {
    const TAG: Tag = Tag::SessionReconnect;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            addrs: EntityAddrVec::decode(reader)?,
            client_cookie: reader.u64()?,
            server_cookie: reader.u64()?,
            global_seq: reader.u64()?,
            connect_seq: reader.u64()?,
            msg_seq: reader.u64()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.addrs.encode(writer);
        writer.u64(self.client_cookie);
        writer.u64(self.server_cookie);
        writer.u64(self.global_seq);
        writer.u64(self.connect_seq);
        writer.u64(self.msg_seq);
    }
}

/// The server does not know the session any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionReset {
    /// The client must also drop what it queued.
    pub full: bool,
}

impl Control for SessionReset {
    const TAG: Tag = Tag::SessionReset;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { full: reader.bool()? })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.bool(self.full);
    }
}

/// The server knows a higher connect_seq: this one. Try again with one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRetry(pub u64);

control_u64!(SessionRetry, SessionRetry);

/// The server saw a higher global_seq of the client: this one. Try again above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRetryGlobal(pub u64);

control_u64!(SessionRetryGlobal, SessionRetryGlobal);

/// The session goes on; the server received messages up to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionReconnectOk(pub u64);

control_u64!(SessionReconnectOk, SessionReconnectOk);

/// The server is dialling too, and its dial wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait;

impl Control for Wait {
    const TAG: Tag = Tag::Wait;

    fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut Writer<'_>) {}
}
