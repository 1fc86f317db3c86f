//! The msgr1 wire: what Ceph's messengers spoke before msgr2, and old clients still speak.
//!
//! ```text
//!   banner       first bytes of a transport: who listens here, and whom it sees
//!   connect      what a client asks for and what it is answered, authorizers included
//!   connector    the handshake as the dialling side sees it
//!   acceptor     the handshake as the accepting side sees it
//!   tag          what a message, or a shorter item, of an open session begins with
//!   header       53 bytes before a message's sections
//!   footer       checksums and signature behind them
//!   codec        the items of one transport: an encoder and a decoder
//! ```
//!
//! Everything that reads does it piece by piece: `wants()` tells the length of the next piece and
//! `push()` takes it. The pieces are whole sections, so a payload is handed on as it was received,
//! and a length is checked against its limit before anybody is asked for a piece of that length.
//!
//! Only messages carry checksums, and only they can be signed: the handshake and the shorter items
//! are believed as they come, and nothing is encrypted. Where both sides can, they talk msgr2.

pub mod acceptor;
pub mod banner;
pub mod codec;
pub mod connect;
pub mod connector;
mod error;
pub mod footer;
pub mod header;
pub mod tag;

pub use acceptor::{Accept, Accepting, Acceptor, Answer, Heard, Request, Terms};
pub use codec::{Decoder, Encoder, Item, Tail, Wire};
pub use connect::{Connect, ConnectReply, protocol_version};
pub use connector::{Attempt, Connector, Dial, Opened, Refusal, Reply};
pub use error::V1Error;
pub use footer::Footer;
pub use header::Header;
pub use tag::{ReplyTag, Tag};

use crate::denc::{DecodeError, Reader};

/// Seed of every checksum (msgr1: header, footer).
pub const CRC_SEED: u32 = 0;

/// Connects one transport may bring. An honest client needs a handful: a challenge, a number or two
/// that were too low, a reset.
pub const ATTEMPTS_MAX: u32 = 64;

/// Reads a piece that is exactly one structure.
fn parse<'a, T>(
    what: &'static str,
    piece: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<T, V1Error> {
    read(&mut Reader::new(piece)).map_err(|error| V1Error::Payload { what, error })
}
