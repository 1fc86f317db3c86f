//! CLIENT_IDENT, SERVER_IDENT, IDENT_MISSING_FEATURES: a new session.

use super::{Control, control_u64};
use crate::addr::{EntityAddr, EntityAddrVec};
use crate::denc::{DecodeError, Reader, Writer};
use crate::v2::Tag;

/// Ident flag: the sender takes the session for lossy.
pub const FLAG_LOSSY: u64 = 1;

/// The client introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdent {
    /// Its addresses.
    pub addrs: EntityAddrVec,
    /// Whom it wants to talk to.
    pub target: EntityAddr,
    /// Its entity number.
    pub number: i64,
    /// Its number of this connection attempt.
    pub global_seq: u64,
    /// Feature bits it supports.
    pub supported: u64,
    /// Feature bits it requires; not checked by servers.
    pub required: u64,
    /// See [`FLAG_LOSSY`].
    pub flags: u64,
    /// Names the session; zero when lossy.
    pub cookie: u64,
}

impl Control for ClientIdent {
    const TAG: Tag = Tag::ClientIdent;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            addrs: EntityAddrVec::decode(reader)?,
            target: EntityAddr::decode(reader)?,
            number: reader.i64()?,
            global_seq: reader.u64()?,
            supported: reader.u64()?,
            required: reader.u64()?,
            flags: reader.u64()?,
            cookie: reader.u64()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.addrs.encode(writer);
        self.target.encode(writer);
        writer.i64(self.number);
        writer.u64(self.global_seq);
        writer.u64(self.supported);
        writer.u64(self.required);
        writer.u64(self.flags);
        writer.u64(self.cookie);
    }
}

/// The server accepts a new session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdent {
    /// Its addresses.
    pub addrs: EntityAddrVec,
    /// Its entity number.
    pub number: i64,
    /// Its messenger's connection counter.
    pub global_seq: u64,
    /// Feature bits it supports.
    pub supported: u64,
    /// Feature bits it requires.
    pub required: u64,
    /// See [`FLAG_LOSSY`]; the client adopts it.
    pub flags: u64,
    /// Names the session; zero when lossy.
    pub cookie: u64,
}

impl Control for ServerIdent {
    const TAG: Tag = Tag::ServerIdent;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            addrs: EntityAddrVec::decode(reader)?,
            number: reader.i64()?,
            global_seq: reader.u64()?,
            supported: reader.u64()?,
            required: reader.u64()?,
            flags: reader.u64()?,
            cookie: reader.u64()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.addrs.encode(writer);
        writer.i64(self.number);
        writer.u64(self.global_seq);
        writer.u64(self.supported);
        writer.u64(self.required);
        writer.u64(self.flags);
        writer.u64(self.cookie);
    }
}

/// The server requires feature bits that the client lacks; these are they.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentMissingFeatures(pub u64);

control_u64!(IdentMissingFeatures, IdentMissingFeatures);
