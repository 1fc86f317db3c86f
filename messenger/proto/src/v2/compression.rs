//! On-wire compression: who compresses, with which method, from which size on.
//!
//! Ceph compresses between OSDs only, and only if told to: in practice the request and its answer
//! agree on no compression. Nothing here touches a socket; [`CompressionOptions`] answers questions
//! and the [`Compression`] agreed on belongs to one transport.

use std::fmt;
use std::str::FromStr;

use crate::entity::EntityType;
use crate::error::ProtocolError;
use crate::v2::control::{CompressionDone, CompressionRequest};

mod segments;

pub use segments::RATIO_MAX;
pub(super) use segments::{compress, decompress};

/// The wire number of no compression.
const METHOD_NONE: u32 = 0;
/// Methods that an algorithm list may name: each of ours once.
const METHODS_MAX: usize = Method::ALL.len();

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Method {
    /// Raw snappy blocks.
    Snappy = 1,
    /// Raw deflate.
    Zlib = 2,
    /// Zstandard.
    Zstd = 3,
    /// Chained lz4 blocks.
    Lz4 = 4,
}

impl Method {
    /// Every method, in the order of the wire numbers. Number 5, brotli, is not ours.
    pub const ALL: [Self; 4] = [Self::Snappy, Self::Zlib, Self::Zstd, Self::Lz4];

    /// The method with this wire number.
    pub fn from_wire(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.to_wire() == value)
    }

    /// The wire number.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// Ceph's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Methods, preferred first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Methods(Vec<Method>);

/// A word that names no compression method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of snappy, zlib, zstd, lz4, or none")]
pub struct ParseMethodsError(String);

impl FromStr for Methods {
    type Err = ParseMethodsError;

    /// Reads Ceph's `ms_osd_compression_algorithm`: names between commas or blanks, or `none`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseMethodsError(text.to_owned());
        let words = text.split([',', ' ']).filter(|word| !word.is_empty() && *word != "none");
        let mut methods = Vec::with_capacity(METHODS_MAX);
        for word in words {
            let method = Method::ALL.into_iter().find(|method| method.as_str() == word);
            let method = method.ok_or_else(refused)?;
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        Ok(Self(methods))
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|method| method.as_str()).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}

/// Whether to compress towards peers of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompressionMode {
    /// Never.
    #[default]
    None,
    /// Whatever reaches the least size.
    Force,
}

/// A word that names no compression mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither none nor force")]
pub struct ParseModeError(String);

impl FromStr for CompressionMode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "force" => Ok(Self::Force),
            _ => Err(ParseModeError(text.to_owned())),
        }
    }
}

impl fmt::Display for CompressionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Force => "force",
        })
    }
}

/// What is configured about compression. The default is Ceph's: off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressionOptions {
    /// `ms_osd_compress_mode`: towards OSDs.
    pub osd_mode: CompressionMode,
    /// `ms_osd_compress_min_size`: bytes a frame must have to be compressed.
    pub osd_min_size: u32,
    /// `ms_osd_compression_algorithm`: what we offer and accept.
    pub osd_methods: Methods,
    /// `ms_compress_secure`: also in secure mode, where lengths tell about secrets.
    pub secure: bool,
}

impl Default for CompressionOptions {
    fn default() -> Self {
        Self {
            osd_mode: CompressionMode::None,
            osd_min_size: 1024,
            osd_methods: Methods(vec![Method::Snappy]),
            secure: false,
        }
    }
}

impl CompressionOptions {
    /// Whether our banner offers it: there is somebody towards whom we would compress.
    pub fn is_offered(&self) -> bool {
        self.osd_mode == CompressionMode::Force && !self.osd_methods.0.is_empty()
    }

    /// Whether we compress towards this type of peer, on a secure transport or on another one.
    pub fn mode(&self, peer: EntityType, secure: bool) -> CompressionMode {
        match peer {
            EntityType::Osd if self.secure || !secure => self.osd_mode,
            _ => CompressionMode::None,
        }
    }

    /// What we offer to this type of peer, preferred first.
    pub fn methods(&self, peer: EntityType) -> &[Method] {
        match peer {
            EntityType::Osd => &self.osd_methods.0,
            _ => &[],
        }
    }

    /// Bytes a frame to this type of peer must have to be compressed.
    pub fn min_size(&self, peer: EntityType) -> u32 {
        match peer {
            EntityType::Osd => self.osd_min_size,
            _ => 0,
        }
    }

    /// The first of the peer's methods that is ours, too.
    pub fn pick(&self, peer: EntityType, preferred: &[u32]) -> Option<Method> {
        let known = preferred.iter().filter_map(|method| Method::from_wire(*method));
        known.into_iter().find(|method| self.methods(peer).contains(method))
    }

    /// What the dialling side asks for.
    pub fn request(&self, peer: EntityType, secure: bool) -> CompressionRequest {
        let methods = self.methods(peer);
        CompressionRequest {
            wanted: self.mode(peer, secure) == CompressionMode::Force && !methods.is_empty(),
            methods: methods.iter().map(|method| method.to_wire()).collect(),
        }
    }

    /// What the accepting side makes of a request: its answer, and what follows from it.
    pub fn answer(
        &self,
        peer: EntityType,
        secure: bool,
        request: &CompressionRequest,
    ) -> (CompressionDone, Option<Compression>) {
        let willing = request.wanted && self.mode(peer, secure) == CompressionMode::Force;
        let method = self.pick(peer, &request.methods).filter(|_| willing);
        let done = CompressionDone {
            on: method.is_some(),
            method: method.map_or(METHOD_NONE, Method::to_wire),
        };
        let min_size = self.min_size(peer);
        (done, method.map(|method| Compression { method, min_size }))
    }

    /// What follows for the dialling side from the answer to its `request`.
    pub fn settle(
        &self,
        peer: EntityType,
        request: &CompressionRequest,
        done: CompressionDone,
    ) -> Result<Option<Compression>, ProtocolError> {
        if !done.on {
            return Ok(None);
        }
        let offered = request.wanted && request.methods.contains(&done.method);
        let method = Method::from_wire(done.method).filter(|_| offered);
        let method = method.ok_or(ProtocolError::CompressionMethod { method: done.method })?;
        Ok(Some(Compression { method, min_size: self.min_size(peer) }))
    }
}

/// What the two sides of a transport agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// The format, both ways.
    pub method: Method,
    /// Bytes of segments from which on this side compresses a frame.
    pub min_size: u32,
}
