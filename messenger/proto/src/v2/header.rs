//! The first segment of a MESSAGE frame.

use crate::denc::{DecodeError, Reader};
use crate::message::MessageHeader;

/// Bytes of a message header. A longer first segment is legal; what follows is ignored.
pub const HEADER_LEN: usize = 41;

/// What Ceph puts in the flags byte; receivers ignore it.
const FLAGS: u8 = 3;

/// A header's bytes; `ack_seq` is the last message received from the peer.
pub fn encode(header: &MessageHeader, ack_seq: u64) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[0..8].copy_from_slice(&header.seq.to_le_bytes());
    out[8..16].copy_from_slice(&header.tid.to_le_bytes());
    out[16..18].copy_from_slice(&header.kind.to_le_bytes());
    out[18..20].copy_from_slice(&header.priority.to_le_bytes());
    out[20..22].copy_from_slice(&header.version.to_le_bytes());
    out[26..28].copy_from_slice(&header.data_off.to_le_bytes());
    out[28..36].copy_from_slice(&ack_seq.to_le_bytes());
    out[36] = FLAGS;
    out[37..39].copy_from_slice(&header.compat_version.to_le_bytes());
    out
}

/// Reads a header and its `ack_seq`.
pub fn decode(segment: &[u8]) -> Result<(MessageHeader, u64), DecodeError> {
    let mut reader = Reader::new(segment);
    if segment.len() < HEADER_LEN {
        return Err(DecodeError::Truncated { needed: HEADER_LEN, left: segment.len() });
    }
    let (seq, tid) = (reader.u64()?, reader.u64()?);
    let (kind, priority, version) = (reader.u16()?, reader.u16()?, reader.u16()?);
    let _data_pre_padding_len = reader.u32()?;
    let (data_off, ack_seq) = (reader.u16()?, reader.u64()?);
    let (_flags, compat_version) = (reader.u8()?, reader.u16()?);
    let header = MessageHeader { seq, tid, kind, priority, version, compat_version, data_off };
    Ok((header, ack_seq))
}
