//! The msgr2 wire, revision 0 (v2.0) and 1 (v2.1), in crc mode.
//!
//! ```text
//!   banner     first bytes of a transport: features both ways, choose the revision
//!   tag        what a frame is
//!   preamble   its first 32 bytes: tag and segment lengths under their own checksum
//!   frame      preamble + segments + checksums, written whole, read piece by piece
//!   control    payloads of all frames but MESSAGE
//!   header     first segment of MESSAGE
//! ```

pub mod banner;
pub mod control;
pub mod frame;
pub mod header;
pub mod preamble;
pub mod tag;

pub use banner::Banner;
pub use control::{Control, Utime};
pub use frame::{Assembly, Frame, Revision, Wire};
pub use preamble::Preamble;
pub use tag::Tag;
