//! What a peer can do wrong, with the numbers a person needs to find out why.

use crate::addr::{EntityAddr, EntityAddrVec};
use crate::auth::cephx::CephxError;
use crate::denc::DecodeError;
use crate::entity::EntityType;
use crate::v1::V1Error;

/// A peer broke the protocol. The transport is closed; policy decides what happens to the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first bytes are not msgr2's.
    #[error("no msgr2 banner: {}", got.escape_ascii())]
    BadBanner {
        /// The first eight bytes.
        got: [u8; 8],
    },
    /// The banner's payload is too short or longer than we take.
    #[error("banner payload of {len} bytes, {min} to {max} accepted")]
    BannerLen {
        /// Length announced.
        len: usize,
        /// Shortest accepted.
        min: usize,
        /// Longest accepted.
        max: usize,
    },
    /// One side's banner requires what the other does not support.
    #[error("banner requires unknown protocol features {missing:#x}")]
    BannerFeatures {
        /// Required bits that are not supported.
        missing: u64,
    },
    /// A preamble's checksum is wrong.
    #[error("preamble crc {got:#010x}, expected {expected:#010x}")]
    PreambleCrc {
        /// Computed over the bytes received.
        expected: u32,
        /// Received.
        got: u32,
    },
    /// A frame has no segment or more than four, or a control frame more than one.
    #[error("frame with tag {tag} has {count} segments")]
    SegmentCount {
        /// The frame's tag.
        tag: u8,
        /// Segments announced.
        count: u8,
    },
    /// The last of several segments is empty.
    #[error("frame with tag {tag} ends with an empty segment")]
    LastSegmentEmpty {
        /// The frame's tag.
        tag: u8,
    },
    /// A segment is longer than our limit.
    #[error("segment {segment} of a frame with tag {tag} announces {len} bytes, limit {limit}")]
    SegmentTooLong {
        /// The frame's tag.
        tag: u8,
        /// Index of the segment.
        segment: usize,
        /// Length announced.
        len: u32,
        /// Our limit.
        limit: u32,
    },
    /// A segment's checksum is wrong.
    #[error("crc of segment {segment} is {got:#010x}, expected {expected:#010x} (tag {tag})")]
    SegmentCrc {
        /// The frame's tag.
        tag: u8,
        /// Index of the segment.
        segment: usize,
        /// Computed over the bytes received.
        expected: u32,
        /// Received.
        got: u32,
    },
    /// The epilogue's status is neither complete nor aborted.
    #[error("late status {status:#04x} of a frame with tag {tag}")]
    LateStatus {
        /// The frame's tag.
        tag: u8,
        /// The status byte.
        status: u8,
    },
    /// Bytes that were to be sealed with the connection's key are not what the peer sealed.
    #[error("{what} is not authentic")]
    NotAuthentic {
        /// Which part of a frame.
        what: &'static str,
    },
    /// A key has sealed or opened as much as it may; the transport needs a new one.
    #[error("the connection's key is used up")]
    KeyUsedUp,
    /// A connection secret that no keys can be made of.
    #[error("connection secret of {len} bytes, {expected} needed, with distinct nonces")]
    ConnectionSecret {
        /// Bytes received.
        len: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// A compressed segment does not decompress, or not within its limit.
    #[error("segment {segment} of a frame with tag {tag} is no {method} within {limit} bytes")]
    Decompression {
        /// The frame's tag.
        tag: u8,
        /// Index of the segment.
        segment: usize,
        /// The method agreed on.
        method: &'static str,
        /// Most bytes it may have had.
        limit: usize,
    },
    /// The server chose a compression method we did not offer.
    #[error("peer chose compression method {method}, which was not offered")]
    CompressionMethod {
        /// The method chosen.
        method: u32,
    },
    /// A frame is compressed though compression was not agreed on.
    #[error("compressed frame with tag {tag}, but compression is off")]
    Compressed {
        /// The frame's tag.
        tag: u8,
    },
    /// A tag without meaning.
    #[error("unknown tag {tag}")]
    UnknownTag {
        /// The tag.
        tag: u8,
    },
    /// A tag that is not legal now.
    #[error("tag {tag} is not legal {state}")]
    UnexpectedTag {
        /// The tag.
        tag: u8,
        /// What the session was doing.
        state: &'static str,
    },
    /// The peer sends frame after frame and makes no session of them.
    #[error("no session after {frames} frames")]
    HandshakeTooLong {
        /// Frames received.
        frames: u32,
    },
    /// The peer says more before it has authenticated than we keep of strangers.
    #[error("more than {limit} bytes before authentication")]
    UnauthenticatedLen {
        /// Bytes it may say.
        limit: usize,
    },
    /// A payload does not decode.
    #[error("payload of {what} does not decode: {error}")]
    Payload {
        /// Name of the frame.
        what: &'static str,
        /// Where decoding ended.
        error: DecodeError,
    },
    /// Somebody else than expected answers.
    #[error("peer is a {got}, expected a {expected}")]
    WrongPeerType {
        /// The type dialled.
        expected: EntityType,
        /// The type that answered.
        got: EntityType,
    },
    /// The rules leave no authentication method towards the peer, or no connection mode for any.
    #[error("no authentication method is configured towards a {peer}")]
    NoAuthMethod {
        /// The type of the peer.
        peer: EntityType,
    },
    /// Method cephx cannot go on: what the peer sent is wrong, or a ticket is missing.
    #[error(transparent)]
    Cephx(#[from] CephxError),
    /// The peer refuses each of our authentication methods.
    #[error("peer refuses authentication method {method} with {result}")]
    AuthRefused {
        /// The method refused.
        method: u32,
        /// Negative errno.
        result: i32,
    },
    /// The peer chose a connection mode we did not offer.
    #[error("peer chose connection mode {mode}, which was not offered")]
    AuthMode {
        /// The mode chosen.
        mode: u32,
    },
    /// The peer's authentication signature is wrong.
    #[error("authentication signature does not match")]
    Signature,
    /// A client's ident names a target that is not one of our addresses.
    #[error("client looks for {target}, which is not here")]
    WrongTarget {
        /// Whom it looks for.
        target: EntityAddr,
    },
    /// A client's ident has no address, or a blank first one.
    #[error("client has no address: {addrs}")]
    BlankAddrs {
        /// What it sent.
        addrs: EntityAddrVec,
    },
    /// The server is not the one dialled: a different daemon on a recycled port.
    #[error("dialled {dialled}, but {addrs} answers")]
    NotTheDialled {
        /// Address dialled.
        dialled: EntityAddr,
        /// Addresses of who answered.
        addrs: EntityAddrVec,
    },
    /// A side lacks features the other one requires.
    #[error("features {missing:#x} are required and not offered")]
    MissingFeatures {
        /// The bits missing.
        missing: u64,
    },
    /// A peer that speaks msgr1 broke that protocol.
    #[error(transparent)]
    V1(#[from] V1Error),
}

impl ProtocolError {
    /// A stable short name for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::BadBanner { .. } => "bad_banner",
            Self::BannerLen { .. } => "banner_len",
            Self::BannerFeatures { .. } => "banner_features",
            Self::PreambleCrc { .. } => "preamble_crc",
            Self::SegmentCount { .. } => "segment_count",
            Self::LastSegmentEmpty { .. } => "last_segment_empty",
            Self::SegmentTooLong { .. } => "segment_too_long",
            Self::SegmentCrc { .. } => "segment_crc",
            Self::LateStatus { .. } => "late_status",
            Self::NotAuthentic { .. } => "not_authentic",
            Self::KeyUsedUp => "key_used_up",
            Self::ConnectionSecret { .. } => "connection_secret",
            Self::Decompression { .. } => "decompression",
            Self::CompressionMethod { .. } => "compression_method",
            Self::Compressed { .. } => "compressed",
            Self::UnknownTag { .. } => "unknown_tag",
            Self::UnexpectedTag { .. } => "unexpected_tag",
            Self::HandshakeTooLong { .. } => "handshake_too_long",
            Self::UnauthenticatedLen { .. } => "unauthenticated_len",
            Self::Payload { .. } => "payload",
            Self::WrongPeerType { .. } => "wrong_peer_type",
            Self::NoAuthMethod { .. } => "no_auth_method",
            Self::Cephx(_) => "cephx",
            Self::AuthRefused { .. } => "auth_refused",
            Self::AuthMode { .. } => "auth_mode",
            Self::Signature => "signature",
            Self::WrongTarget { .. } => "wrong_target",
            Self::BlankAddrs { .. } => "blank_addrs",
            Self::NotTheDialled { .. } => "not_the_dialled",
            Self::MissingFeatures { .. } => "missing_features",
            Self::V1(error) => error.kind(),
        }
    }
}
