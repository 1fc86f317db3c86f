//! What a client asks for and what it is answered (msgr1: connect, connect_reply).
//!
//! ```text
//!   connect         u64 features, u32 host type, u32 global_seq, u32 connect_seq, u32 protocol,
//!                   u32 authorizer protocol, u32 authorizer length, u8 flags;    the authorizer
//!   connect_reply   u8 tag, u64 features, u32 global_seq, u32 connect_seq, u32 protocol,
//!                   u32 authorizer length, u8 flags;                the reply to the authorizer
//! ```

use bytes::BytesMut;

use crate::denc::{DecodeError, Reader, Writer};
use crate::entity::EntityType;
use crate::v1::{ReplyTag, V1Error, parse};

/// Bytes of a connect, the authorizer not counted.
pub const CONNECT_LEN: usize = 8 + 6 * 4 + 1;
/// Bytes of a reply, the authorizer's reply not counted.
pub const REPLY_LEN: usize = 1 + 8 + 4 * 4 + 1;
/// Longest authorizer, and reply to one, that we accept: what a stranger may have us keep.
pub const AUTHORIZER_LEN_MAX: u32 = 16 << 10;

const FLAG_LOSSY: u8 = 1;

const _: () = assert!(CONNECT_LEN == 33 && REPLY_LEN == 26);

/// The protocol number of a connection between a `server` and a client that dials it (msgr1:
/// protocol versions). Daemons of a kind talk a protocol of their own.
pub const fn protocol_version(server: EntityType, client: EntityType) -> u32 {
    let equals = server.to_wire() == client.to_wire();
    match (server, equals) {
        (EntityType::Mon, true) => 13,
        (EntityType::Mon, false) => 15,
        (EntityType::Osd, true) => 10,
        (EntityType::Osd, false) => 24,
        (EntityType::Mds, true) => 36,
        (EntityType::Mds, false) => 32,
        (EntityType::Mgr | EntityType::Client | EntityType::Auth, _) => 0,
    }
}

/// A client's request for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect {
    /// Feature bits it supports.
    pub features: u64,
    /// Its type.
    pub kind: EntityType,
    /// Its number of this connection attempt.
    pub global_seq: u32,
    /// Which connection of the session this is; 0 for a new session.
    pub connect_seq: u32,
    /// See [`protocol_version`].
    pub protocol: u32,
    /// Authentication method of the authorizer; 0 if there is none.
    pub authorizer_protocol: u32,
    /// Bytes of the authorizer behind.
    pub authorizer_len: u32,
    /// It takes the session for lossy; the server's word counts.
    pub lossy: bool,
}

impl Connect {
    /// Reads [`CONNECT_LEN`] bytes. The authorizer's length is within its limit.
    pub fn parse(piece: &[u8]) -> Result<Self, V1Error> {
        let connect = parse("connect", piece, |reader| {
            Ok(Self {
                features: reader.u64()?,
                kind: host_type(reader.u32()?)?,
                global_seq: reader.u32()?,
                connect_seq: reader.u32()?,
                protocol: reader.u32()?,
                authorizer_protocol: reader.u32()?,
                authorizer_len: reader.u32()?,
                lossy: reader.u8()? & FLAG_LOSSY != 0,
            })
        })?;
        check_authorizer_len(connect.authorizer_len)?;
        Ok(connect)
    }

    /// Writes what [`Connect::parse`] reads.
    pub fn write(&self, out: &mut BytesMut) {
        let writer = &mut Writer::new(out);
        writer.u64(self.features);
        writer.u32(self.kind.to_wire().into());
        writer.u32(self.global_seq);
        writer.u32(self.connect_seq);
        writer.u32(self.protocol);
        writer.u32(self.authorizer_protocol);
        writer.u32(self.authorizer_len);
        writer.u8(if self.lossy { FLAG_LOSSY } else { 0 });
    }
}

/// A server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectReply {
    /// What it says.
    pub tag: ReplyTag,
    /// Feature bits it supports; if it refuses for want of features, those it asks for.
    pub features: u64,
    /// Its number of this connection; to [`ReplyTag::RetryGlobal`], the highest one of the client's
    /// that it knows.
    pub global_seq: u32,
    /// Which connection of the session it is, or should be.
    pub connect_seq: u32,
    /// Its own protocol number.
    pub protocol: u32,
    /// Bytes of the authorizer's reply behind.
    pub authorizer_len: u32,
    /// The session is lossy.
    pub lossy: bool,
}

impl ConnectReply {
    /// Reads [`REPLY_LEN`] bytes. The length of the authorizer's reply is within its limit.
    pub fn parse(piece: &[u8]) -> Result<Self, V1Error> {
        let (tag, rest) = parse("connect_reply", piece, |reader| {
            Ok((reader.u8()?, reader.bytes(REPLY_LEN - 1)?))
        })?;
        let tag = ReplyTag::from_wire(tag).ok_or(V1Error::UnknownReply { tag })?;
        let reply = parse("connect_reply", rest, |reader| {
            Ok(Self {
                tag,
                features: reader.u64()?,
                global_seq: reader.u32()?,
                connect_seq: reader.u32()?,
                protocol: reader.u32()?,
                authorizer_len: reader.u32()?,
                lossy: reader.u8()? & FLAG_LOSSY != 0,
            })
        })?;
        check_authorizer_len(reply.authorizer_len)?;
        Ok(reply)
    }

    /// Writes what [`ConnectReply::parse`] reads.
    pub fn write(&self, out: &mut BytesMut) {
        let writer = &mut Writer::new(out);
        writer.u8(self.tag.to_wire());
        writer.u64(self.features);
        writer.u32(self.global_seq);
        writer.u32(self.connect_seq);
        writer.u32(self.protocol);
        writer.u32(self.authorizer_len);
        writer.u8(if self.lossy { FLAG_LOSSY } else { 0 });
    }
}

/// Reads the eight bytes of a SEQ exchange: the last message the sender of it received.
pub(super) fn parse_seq(piece: &[u8]) -> Result<u64, V1Error> {
    parse("last message received", piece, Reader::u64)
}

/// Length of an authorizer of ours.
pub(super) fn authorizer_len(authorizer: &[u8]) -> u32 {
    let len = u32::try_from(authorizer.len()).unwrap_or(u32::MAX);
    assert!(len <= AUTHORIZER_LEN_MAX, "an authorizer of ours is as long as we would accept");
    len
}

fn check_authorizer_len(len: u32) -> Result<(), V1Error> {
    let max = AUTHORIZER_LEN_MAX;
    if len > max { Err(V1Error::AuthorizerTooLong { len, max }) } else { Ok(()) }
}

fn host_type(value: u32) -> Result<EntityType, DecodeError> {
    let unknown = || DecodeError::Invalid { field: "host type", value: value.into() };
    EntityType::from_wire(u8::try_from(value).map_err(|_| unknown())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_the_server_s_unless_both_are_of_a_kind() {
        use EntityType::{Client, Mds, Mgr, Mon, Osd};
        let table = [
            (Mon, Client, 15),
            (Mon, Osd, 15),
            (Mon, Mon, 13),
            (Osd, Client, 24),
            (Osd, Mon, 24),
            (Osd, Osd, 10),
            (Mds, Client, 32),
            (Mds, Mds, 36),
            (Mgr, Client, 0),
        ];
        for (server, client, expected) in table {
            assert_eq!(protocol_version(server, client), expected, "{client} to {server}");
        }
    }

    #[test]
    fn long_authorizers_and_unknown_values_are_refused() {
        let good = Connect {
            features: 1,
            kind: EntityType::Client,
            global_seq: 2,
            connect_seq: 3,
            protocol: 24,
            authorizer_protocol: 2,
            authorizer_len: AUTHORIZER_LEN_MAX,
            lossy: true,
        };
        let written = |connect: Connect| {
            let mut out = BytesMut::new();
            connect.write(&mut out);
            out
        };
        let wire = written(good);
        assert_eq!((wire.len(), Connect::parse(&wire)), (CONNECT_LEN, Ok(good)));
        for kind in [0, 3, 0x108] {
            let mut wire = wire.clone();
            wire[8..12].copy_from_slice(&u32::to_le_bytes(kind));
            assert_eq!(Connect::parse(&wire).unwrap_err().kind(), "v1_payload", "{kind}");
        }
        let long = written(Connect { authorizer_len: AUTHORIZER_LEN_MAX + 1, ..good });
        assert_eq!(Connect::parse(&long).unwrap_err().kind(), "v1_authorizer_too_long");

        let mut reply = [0; REPLY_LEN];
        assert_eq!(ConnectReply::parse(&reply), Err(V1Error::UnknownReply { tag: 0 }));
        reply[0] = 7;
        assert_eq!(ConnectReply::parse(&reply), Err(V1Error::UnknownReply { tag: 7 }));
        reply[0] = 16;
        reply[21..25].fill(0xff);
        assert_eq!(ConnectReply::parse(&reply).unwrap_err().kind(), "v1_authorizer_too_long");
    }
}
