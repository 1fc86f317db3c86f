//! AUTH_*: who are you, and how shall we talk?

use super::{Control, LIST_MAX};
use crate::denc::{DecodeError, Reader, Writer};
use crate::v2::Tag;

/// Connection mode with checksums.
pub const MODE_CRC: u32 = 1;
/// Connection mode with encryption.
pub const MODE_SECURE: u32 = 2;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 32;

/// The client proposes a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRequest {
    /// Authentication method.
    pub method: u32,
    /// Connection modes, preferred first.
    pub modes: Vec<u32>,
    /// What the method has to say.
    pub payload: Vec<u8>,
}

impl Control for AuthRequest {
    const TAG: Tag = Tag::AuthRequest;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (method, modes) = (reader.u32()?, reader.u32_list(LIST_MAX)?);
        Ok(Self { method, modes, payload: reader.blob()?.to_vec() })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.method);
        writer.u32_list(&self.modes);
        writer.blob(&self.payload);
    }
}

/// The server refuses a method and lists what it would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthBadMethod {
    /// The method refused.
    pub method: u32,
    /// Negative errno.
    pub result: i32,
    /// Methods it takes.
    pub allowed_methods: Vec<u32>,
    /// Connection modes it takes.
    pub allowed_modes: Vec<u32>,
}

impl Control for AuthBadMethod {
    const TAG: Tag = Tag::AuthBadMethod;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (method, result) = (reader.u32()?, reader.i32()?);
        let (allowed_methods, allowed_modes) =
            (reader.u32_list(LIST_MAX)?, reader.u32_list(LIST_MAX)?);
        Ok(Self { method, result, allowed_methods, allowed_modes })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.method);
        writer.i32(self.result);
        writer.u32_list(&self.allowed_methods);
        writer.u32_list(&self.allowed_modes);
    }
}

/// The server wants another round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthReplyMore(pub Vec<u8>);

impl Control for AuthReplyMore {
    const TAG: Tag = Tag::AuthReplyMore;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.blob()?.to_vec()))
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.blob(&self.0);
    }
}

/// The client's part of another round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRequestMore(pub Vec<u8>);

impl Control for AuthRequestMore {
    const TAG: Tag = Tag::AuthRequestMore;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.blob()?.to_vec()))
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.blob(&self.0);
    }
}

/// The server is satisfied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthDone {
    /// The client's number.
    pub global_id: u64,
    /// The connection mode chosen.
    pub mode: u32,
    /// What the method has to say.
    pub payload: Vec<u8>,
}

impl Control for AuthDone {
    const TAG: Tag = Tag::AuthDone;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (global_id, mode) = (reader.u64()?, reader.u32()?);
        Ok(Self { global_id, mode, payload: reader.blob()?.to_vec() })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.global_id);
        writer.u32(self.mode);
        writer.blob(&self.payload);
    }
}

/// Proof that nobody changed what was said so far; zeros for method none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthSignature(pub [u8; SIGNATURE_LEN]);

impl Control for AuthSignature {
    const TAG: Tag = Tag::AuthSignature;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.0);
    }
}
