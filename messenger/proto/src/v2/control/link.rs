//! KEEPALIVE2, ACK, COMPRESSION_*: housekeeping of a transport.

use super::{Control, LIST_MAX, Utime, control_u64};
use crate::denc::{DecodeError, Reader, Writer};
use crate::v2::Tag;

/// Are you there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive2(pub Utime);

impl Control for Keepalive2 {
    const TAG: Tag = Tag::Keepalive2;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Utime::decode(reader).map(Self)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.0.encode(writer);
    }
}

/// I am; the stamp is the question's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive2Ack(pub Utime);

impl Control for Keepalive2Ack {
    const TAG: Tag = Tag::Keepalive2Ack;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Utime::decode(reader).map(Self)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        self.0.encode(writer);
    }
}

/// Everything up to this message arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack(pub u64);

control_u64!(Ack, Ack);

/// Shall we compress? Sent, and answered, only if both banners offer compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressionRequest {
    /// The client wants to.
    pub wanted: bool,
    /// Methods, preferred first.
    pub methods: Vec<u32>,
}

impl Control for CompressionRequest {
    const TAG: Tag = Tag::CompressionRequest;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { wanted: reader.bool()?, methods: reader.u32_list(LIST_MAX)? })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.bool(self.wanted);
        writer.u32_list(&self.methods);
    }
}

/// The server's decision on compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionDone {
    /// Frames from now on may be compressed.
    pub on: bool,
    /// The method.
    pub method: u32,
}

impl Control for CompressionDone {
    const TAG: Tag = Tag::CompressionDone;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { on: reader.bool()?, method: reader.u32()? })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.bool(self.on);
        writer.u32(self.method);
    }
}
