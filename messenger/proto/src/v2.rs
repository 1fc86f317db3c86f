//! The msgr2 wire, revision 0 (v2.0) and 1 (v2.1), in crc and in secure mode.
//!
//! ```text
//!   banner       first bytes of a transport: features both ways, choose the revision
//!   tag          what a frame is
//!   preamble     its first 32 bytes: tag and segment lengths under their own checksum
//!   frame        preamble + segments + checksums, written whole, read piece by piece
//!   sealed       the same under authentication tags instead of checksums
//!   keys         AES-128-GCM, and nonces that are counted
//!   compression  methods, and who uses them
//!   codec        the frames of one transport, in the form agreed on
//!   control      payloads of all frames but MESSAGE
//!   header       first segment of MESSAGE
//! ```

pub mod banner;
pub mod codec;
pub mod compression;
pub mod control;
pub mod frame;
pub mod header;
pub mod keys;
pub mod preamble;
mod sealed;
pub mod tag;

pub use banner::Banner;
pub use codec::{Decoder, Encoder, Tail};
pub use compression::{Compression, CompressionMode, CompressionOptions, Method};
pub use control::{Control, Utime};
pub use frame::{Assembly, Frame, Revision, Wire};
pub use keys::{ConnectionSecret, OpeningKey, Role, SealingKey};
pub use preamble::Preamble;
pub use tag::Tag;
