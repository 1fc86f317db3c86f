//! What a peer that speaks msgr1 can do wrong.

use crate::addr::EntityAddr;
use crate::denc::DecodeError;
use crate::v1::connector::Refusal;

/// A peer broke msgr1, or does not want us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum V1Error {
    /// The first bytes are not msgr1's.
    #[error("no msgr1 banner: {}", got.escape_ascii())]
    BadBanner {
        /// The first nine bytes.
        got: [u8; 9],
    },
    /// A structure does not decode.
    #[error("{what} of msgr1 does not decode: {error}")]
    Payload {
        /// Which structure.
        what: &'static str,
        /// Where decoding ended.
        error: DecodeError,
    },
    /// The server is not the one dialled: a different daemon on a recycled port.
    #[error("dialled {dialled}, but {got} answers")]
    NotTheDialled {
        /// Address dialled.
        dialled: EntityAddr,
        /// Address of who answered.
        got: EntityAddr,
    },
    /// An authorizer, or the reply to one, is longer than our limit.
    #[error("authorizer of {len} bytes, at most {max} accepted")]
    AuthorizerTooLong {
        /// Length announced.
        len: u32,
        /// Our limit.
        max: u32,
    },
    /// A reply's tag has no meaning.
    #[error("connect_reply with unknown tag {tag}")]
    UnknownReply {
        /// The tag.
        tag: u8,
    },
    /// The server refuses, and nothing we could say next would change that.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A session opens with another number than the one asked for.
    #[error("session opened with connect_seq {got}, expected {expected}")]
    ConnectSeq {
        /// One above the one asked for.
        expected: u32,
        /// Received.
        got: u32,
    },
    /// The server lacks features that we require.
    #[error("features {missing:#x} are required and not offered")]
    MissingFeatures {
        /// The bits missing.
        missing: u64,
    },
    /// The peer asks, or answers, again and again, and no session comes of it.
    #[error("no session after {attempts} connects")]
    TooManyAttempts {
        /// Connects seen.
        attempts: u32,
    },
    /// An item's tag has no meaning.
    #[error("unknown tag {tag}")]
    UnknownTag {
        /// The tag.
        tag: u8,
    },
    /// A message header's checksum is wrong.
    #[error("message header crc {got:#010x}, expected {expected:#010x}")]
    HeaderCrc {
        /// Computed over the bytes received.
        expected: u32,
        /// Received.
        got: u32,
    },
    /// A message's section is longer than our limit.
    #[error("{section} of {len} bytes, limit {limit}")]
    SectionTooLong {
        /// Name of the section.
        section: &'static str,
        /// Length announced.
        len: u32,
        /// Our limit.
        limit: u32,
    },
    /// A section's checksum is wrong.
    #[error("crc of a message's {section} is {got:#010x}, expected {expected:#010x}")]
    SectionCrc {
        /// Name of the section.
        section: &'static str,
        /// Computed over the bytes received.
        expected: u32,
        /// Received.
        got: u32,
    },
    /// The sender gave a message up half way, and with it the transport.
    #[error("message {seq} was given up by its sender")]
    Aborted {
        /// The message's number.
        seq: u64,
    },
    /// A message's signature is wrong, or missing where one is due.
    #[error("signature of message {seq} does not match")]
    Signature {
        /// The message's number.
        seq: u64,
    },
}

impl V1Error {
    /// A stable short name for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadBanner { .. } => "v1_bad_banner",
            Self::Payload { .. } => "v1_payload",
            Self::NotTheDialled { .. } => "v1_not_the_dialled",
            Self::AuthorizerTooLong { .. } => "v1_authorizer_too_long",
            Self::UnknownReply { .. } => "v1_unknown_reply",
            Self::Refused(_) => "v1_refused",
            Self::ConnectSeq { .. } => "v1_connect_seq",
            Self::MissingFeatures { .. } => "v1_missing_features",
            Self::TooManyAttempts { .. } => "v1_too_many_attempts",
            Self::UnknownTag { .. } => "v1_unknown_tag",
            Self::HeaderCrc { .. } => "v1_header_crc",
            Self::SectionTooLong { .. } => "v1_section_too_long",
            Self::SectionCrc { .. } => "v1_section_crc",
            Self::Aborted { .. } => "v1_aborted",
            Self::Signature { .. } => "v1_signature",
        }
    }
}
