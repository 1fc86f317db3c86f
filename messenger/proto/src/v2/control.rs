//! Payloads of control frames: one struct per tag, each a sum of small fields.
//!
//! The side that dialled the transport is the client here, whatever the entities are. Trailing
//! bytes that we do not know are ignored.

use std::time::Duration;

use crate::denc::{DecodeError, Reader, Writer};
use crate::error::ProtocolError;
use crate::v2::Tag;

mod auth;
mod hello;
mod ident;
mod link;
mod resume;

pub use auth::{
    AuthBadMethod, AuthDone, AuthReplyMore, AuthRequest, AuthRequestMore, AuthSignature, MODE_CRC,
    MODE_SECURE, SIGNATURE_LEN,
};
pub use hello::Hello;
pub use ident::{ClientIdent, FLAG_LOSSY, IdentMissingFeatures, ServerIdent};
pub use link::{Ack, CompressionDone, CompressionRequest, Keepalive2, Keepalive2Ack};
pub use resume::{
    SessionReconnect, SessionReconnectOk, SessionReset, SessionRetry, SessionRetryGlobal, Wait,
};

/// Most elements of a list in a control payload.
pub const LIST_MAX: usize = 64;

/// The payload of one kind of control frame.
pub trait Control: Sized {
    /// The frame's tag.
    const TAG: Tag;

    /// Reads the payload.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Writes the payload.
    fn encode(&self, writer: &mut Writer<'_>);

    /// Reads a frame's only segment.
    fn parse(segment: &[u8]) -> Result<Self, ProtocolError> {
        Self::decode(&mut Reader::new(segment))
            .map_err(|error| ProtocolError::Payload { what: Self::TAG.name(), error })
    }
}

/// A moment on the wire, kept as sent so that it can be echoed unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Utime {
    /// Seconds since the Unix epoch; wraps in 2106.
    pub seconds: u32,
    /// Nanoseconds; a peer may send more than a second's worth.
    pub nanoseconds: u32,
}

impl Utime {
    /// Reads `u32` seconds, `u32` nanoseconds.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { seconds: reader.u32()?, nanoseconds: reader.u32()? })
    }

    /// Writes what [`Utime::decode`] reads.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.seconds);
        writer.u32(self.nanoseconds);
    }
}

impl From<Duration> for Utime {
    fn from(since_epoch: Duration) -> Self {
        Self { seconds: since_epoch.as_secs() as u32, nanoseconds: since_epoch.subsec_nanos() }
    }
}

impl From<Utime> for Duration {
    fn from(stamp: Utime) -> Self {
        Self::from_secs(stamp.seconds.into()) + Self::from_nanos(stamp.nanoseconds.into())
    }
}

/// Implements [`Control`] for a payload that is a single `u64`.
macro_rules! control_u64 {
    ($name:ident, $tag:ident) => {
        impl Control for $name {
            const TAG: Tag = Tag::$tag;

            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.u64().map(Self)
            }

            fn encode(&self, writer: &mut Writer<'_>) {
                writer.u64(self.0);
            }
        }
    };
}
use control_u64;
