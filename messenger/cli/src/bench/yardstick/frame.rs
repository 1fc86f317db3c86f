//! Frames in the shape of msgr2.1's messages in crc mode.
//!
//! ```text
//!   preamble 32      header 41     crc 4   payload    epilogue 17
//!   len .. crc       tid, kind             if any     flags, crcs; with a payload only
//! ```

/// Bytes before the header.
const PREAMBLE_LEN: usize = 32;
/// Bytes of the message header.
const HEADER_LEN: usize = 41;
const CRC_LEN: usize = 4;
const CRC_AT: usize = PREAMBLE_LEN - CRC_LEN;
/// Everything before the payload.
pub(super) const HEAD_LEN: usize = PREAMBLE_LEN + HEADER_LEN + CRC_LEN;
/// Everything behind it: flags and a checksum for each of four segments.
pub(super) const TAIL_LEN: usize = 1 + 4 * CRC_LEN;
/// Longest payload that is taken.
pub(super) const PAYLOAD_MAX: usize = 64 << 20;
/// The tag of a message.
const TAG: u8 = 17;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) tid: u64,
    /// A type of the bench's messages.
    pub(super) kind: u16,
}

/// The bytes before a payload and those behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrapping {
    pub(super) head: [u8; HEAD_LEN],
    tail: [u8; TAIL_LEN],
    tail_len: usize,
}

impl Wrapping {
    pub(super) fn new(header: Header, payload: &[u8]) -> Self {
        let mut head = [0; HEAD_LEN];
        let (preamble, rest) = head.split_at_mut(PREAMBLE_LEN);
        preamble[0] = TAG;
        let len = u32::try_from(payload.len()).expect("a payload has a maximum");
        preamble[8..12].copy_from_slice(&len.to_le_bytes());
        let crc = crc32c::crc32c(&preamble[..CRC_AT]);
        preamble[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        rest[..8].copy_from_slice(&header.tid.to_le_bytes());
        rest[8..10].copy_from_slice(&header.kind.to_le_bytes());
        let crc = crc32c::crc32c(&rest[..HEADER_LEN]);
        rest[HEADER_LEN..].copy_from_slice(&crc.to_le_bytes());

        let mut tail = [0; TAIL_LEN];
        tail[1..=CRC_LEN].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        Self { head, tail, tail_len: if payload.is_empty() { 0 } else { TAIL_LEN } }
    }

    pub(super) fn tail(&self) -> &[u8] {
        &self.tail[..self.tail_len]
    }
}

/// A frame as it arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) header: Header,
    pub(super) payload: &'a [u8],
    /// Bytes of all of it.
    pub(super) len: usize,
}

/// The first frame of `bytes`; none: it is not whole yet.
///
/// # Errors
/// If it is damaged.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Frame<'_>>, &'static str> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_LEN) else {
        return Ok(None);
    };
    let (preamble, header) = head.split_at(PREAMBLE_LEN);
    if crc32c::crc32c(&preamble[..CRC_AT]) != u32_at(preamble, CRC_AT) || preamble[0] != TAG {
        return Err("a preamble is damaged");
    }
    if crc32c::crc32c(&header[..HEADER_LEN]) != u32_at(header, HEADER_LEN) {
        return Err("a header is damaged");
    }
    let len = u32_at(preamble, 8) as usize;
    if len > PAYLOAD_MAX {
        return Err("a payload is too long");
    }
    let tail_len = if len > 0 { TAIL_LEN } else { 0 };
    if rest.len() < len + tail_len {
        return Ok(None);
    }
    let (payload, tail) = (&rest[..len], &rest[len..len + tail_len]);
    if len > 0 && crc32c::crc32c(payload) != u32_at(tail, 1) {
        return Err("a payload is damaged");
    }
    let tid = u64::from(u32_at(header, 0)) | u64::from(u32_at(header, 4)) << 32;
    let kind = u16::from_le_bytes([header[8], header[9]]);
    Ok(Some(Frame { header: Header { tid, kind }, payload, len: HEAD_LEN + len + tail_len }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(payload: &[u8]) -> Vec<u8> {
        let wrapping = Wrapping::new(Header { tid: 0x1234_5678_9abc, kind: 7 }, payload);
        [&wrapping.head, payload, wrapping.tail()].concat()
    }

    #[test]
    fn a_frame_survives_the_way_and_is_whole_with_its_last_byte() {
        for payload in [&b""[..], b"x", &[7; 4096]] {
            let bytes = encode(payload);
            assert_eq!(bytes.len(), 77 + payload.len() + if payload.is_empty() { 0 } else { 17 });
            let frame = parse(&bytes).unwrap().unwrap();
            assert_eq!(frame.header, Header { tid: 0x1234_5678_9abc, kind: 7 });
            assert_eq!((frame.payload, frame.len), (payload, bytes.len()));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let good = encode(b"payload");
        // The flags and the checksums of segments that are not there carry nothing.
        let meaning = good.len() - TAIL_LEN;
        for at in (0..meaning).chain(meaning + 1..meaning + 5) {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            assert!(parse(&bytes).is_err(), "{at}");
        }
    }
}
