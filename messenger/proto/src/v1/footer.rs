//! What comes behind a message's sections (msgr1: message footer).
//!
//! ```text
//!   with MSG_AUTH     u32 crc of front, middle, data   u64 signature   u8 flags      21 bytes
//!   without           u32 crc of front, middle, data                   u8 flags      13 bytes
//! ```

use crate::denc::Reader;
use crate::v1::header::SECTIONS;
use crate::v1::{V1Error, parse};

/// Bytes of a footer with room for a signature.
pub const LONG_LEN: usize = SHORT_LEN + SIGNATURE_LEN;
/// Bytes of a footer without.
pub const SHORT_LEN: usize = SECTIONS * 4 + 1;

const SIGNATURE_LEN: usize = 8;
const FLAG_COMPLETE: u8 = 1;
const FLAG_NO_DATA_CRC: u8 = 2;
const FLAG_SIGNED: u8 = 4;

const _: () = assert!(LONG_LEN == 21 && SHORT_LEN == 13);

/// The end of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Checksums of front, middle and data.
    pub crcs: [u32; SECTIONS],
    /// Its data's checksum was not made.
    pub no_data_crc: bool,
    /// The signature, of a message that is signed.
    pub signature: Option<u64>,
    /// Its sender did not give it up.
    pub complete: bool,
}

/// A footer's bytes; none by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct FooterBytes {
    bytes: [u8; LONG_LEN],
    len: usize,
}

impl FooterBytes {
    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push<const N: usize>(&mut self, part: [u8; N]) {
        self.bytes[self.len..][..N].copy_from_slice(&part);
        self.len += N;
    }
}

impl Footer {
    /// Bytes of a footer with room for a signature, or without.
    pub const fn len(long: bool) -> usize {
        if long { LONG_LEN } else { SHORT_LEN }
    }

    /// Reads [`Footer::len`] bytes.
    pub fn parse(piece: &[u8], long: bool) -> Result<Self, V1Error> {
        parse("message footer", piece, |reader: &mut Reader<'_>| {
            let crcs = [reader.u32()?, reader.u32()?, reader.u32()?];
            let signature = if long { reader.u64()? } else { 0 };
            let flags = reader.u8()?;
            Ok(Self {
                crcs,
                no_data_crc: flags & FLAG_NO_DATA_CRC != 0,
                signature: (long && flags & FLAG_SIGNED != 0).then_some(signature),
                complete: flags & FLAG_COMPLETE != 0,
            })
        })
    }

    /// The bytes that [`Footer::parse`] reads. A short footer has no room for a signature.
    pub fn encode(&self, long: bool) -> FooterBytes {
        let mut out = FooterBytes::default();
        self.crcs.into_iter().for_each(|crc| out.push(crc.to_le_bytes()));
        if long {
            out.push(self.signature.unwrap_or(0).to_le_bytes());
        }
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push([flag(self.complete, FLAG_COMPLETE)
            | flag(self.no_data_crc, FLAG_NO_DATA_CRC)
            | flag(long && self.signature.is_some(), FLAG_SIGNED)]);
        out
    }
}
