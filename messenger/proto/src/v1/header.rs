//! The first 53 bytes of a message, under a checksum of their own (msgr1: message header).
//!
//! ```text
//!   u64 seq  u64 tid  u16 type  u16 priority  u16 version  u32 front, middle, data length
//!   u16 data_off  entity_name source  u16 compat_version  u16 reserved  u32 crc
//! ```

use bytes::BytesMut;

use crate::crc::crc32c;
use crate::denc::Writer;
use crate::entity::EntityName;
use crate::identity::Limits;
use crate::message::MessageHeader;
use crate::v1::{CRC_SEED, V1Error, parse};

/// Bytes of a message header, the tag before it not counted.
pub const HEADER_LEN: usize = 53;

/// Sections of a message: front, middle, data.
pub const SECTIONS: usize = 3;

const CRC_AT: usize = HEADER_LEN - 4;
const SOURCE_LEN: usize = 1 + 8;
pub(super) const SECTION_NAMES: [&str; SECTIONS] = ["front", "middle", "data"];

/// What announces a message. Other than with msgr2 the source travels along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The fields that belong to the message.
    pub message: MessageHeader,
    /// Who sent it, as it says.
    pub source: EntityName,
    /// Bytes of its sections: front, middle, data.
    pub lens: [u32; SECTIONS],
}

impl Header {
    /// Reads [`HEADER_LEN`] bytes and checks them. The answer's second half is their checksum,
    /// which signatures cover.
    pub fn parse(piece: &[u8]) -> Result<(Self, u32), V1Error> {
        let (header, got) = parse("message header", piece, |reader| {
            let (seq, tid) = (reader.u64()?, reader.u64()?);
            let (kind, priority, version) = (reader.u16()?, reader.u16()?, reader.u16()?);
            let lens = [reader.u32()?, reader.u32()?, reader.u32()?];
            let data_off = reader.u16()?;
            let source = reader.bytes(SOURCE_LEN)?;
            let (compat_version, _reserved) = (reader.u16()?, reader.u16()?);
            let message =
                MessageHeader { seq, tid, kind, priority, version, compat_version, data_off };
            Ok(((message, source, lens), reader.u32()?))
        })?;
        let expected = crc32c(CRC_SEED, &piece[..CRC_AT]);
        if got != expected {
            return Err(V1Error::HeaderCrc { expected, got });
        }
        let (message, source, lens) = header;
        // Only now does an unknown type say something about the sender, not about the wire.
        let source = parse("message source", source, EntityName::decode)?;
        Ok((Self { message, source, lens }, got))
    }

    /// Writes what [`Header::parse`] reads, and returns the checksum.
    pub fn write(&self, out: &mut BytesMut) -> u32 {
        let at = out.len();
        let Self { message, source, lens } = self;
        let writer = &mut Writer::new(out);
        writer.u64(message.seq);
        writer.u64(message.tid);
        writer.u16(message.kind);
        writer.u16(message.priority);
        writer.u16(message.version);
        lens.iter().for_each(|len| writer.u32(*len));
        writer.u16(message.data_off);
        source.encode(writer);
        writer.u16(message.compat_version);
        writer.u16(0);
        let crc = crc32c(CRC_SEED, &out[at..]);
        Writer::new(out).u32(crc);
        crc
    }

    /// Refuses a section longer than its limit, before anybody allocates for it.
    pub fn check_lens(&self, limits: &Limits) -> Result<(), V1Error> {
        let limits = [limits.front_len, limits.middle_len, limits.data_len];
        for ((section, len), limit) in SECTION_NAMES.into_iter().zip(self.lens).zip(limits) {
            if len > limit {
                return Err(V1Error::SectionTooLong { section, len, limit });
            }
        }
        Ok(())
    }

    /// Bytes of all sections: what byte budgets count (contract T-1).
    pub fn payload_len(&self) -> u64 {
        self.lens.iter().map(|len| u64::from(*len)).sum()
    }
}
