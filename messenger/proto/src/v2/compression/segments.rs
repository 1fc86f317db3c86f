//! One segment packed, and unpacked into no more room than was allowed beforehand.
//!
//! ```text
//!   snappy  one raw block; its length comes first
//!   zlib    a byte that means nothing, raw deflate with a window of 32 KiB
//!   zstd    u32 plain length, one frame
//!   lz4     u32 count, count of { u32 plain length, u32 packed length }, the blocks; each of them
//!           may refer to the 64 KiB of plain bytes before it
//! ```
//!
//! A length that a peer announces is checked before there is room for it; where none is announced,
//! room grows up to the limit and no further.

use bytes::Bytes;

use crate::denc::Reader;
use crate::v2::compression::Method;

/// Most plain bytes that one packed byte may stand for. A snappy block cannot have more than 22;
/// for the others this refuses what is hardly anything but a bomb, and we send such segments plain.
pub const RATIO_MAX: usize = 100;

/// How far back a block of lz4 may refer.
const LZ4_WINDOW: usize = 64 << 10;
const LZ4_LENS_LEN: usize = 8;
/// Speed before size, as on a data path.
const ZLIB_LEVEL: u8 = 1;
const ZSTD_LEVEL: i32 = 1;

/// The packed form of a segment.
pub(crate) fn compress(method: Method, plain: &[u8]) -> Vec<u8> {
    let plain_len = || u32::try_from(plain.len()).expect("segments fit the send limits");
    match method {
        Method::Snappy => {
            let mut encoder = snap::raw::Encoder::new();
            encoder.compress_vec(plain).expect("segments are far shorter than 4 GiB")
        }
        Method::Zlib => {
            let mut packed = vec![0];
            packed.extend(miniz_oxide::deflate::compress_to_vec(plain, ZLIB_LEVEL));
            packed
        }
        Method::Zstd => {
            let mut packed = plain_len().to_le_bytes().to_vec();
            let frame = zstd::bulk::compress(plain, ZSTD_LEVEL);
            packed.extend(frame.expect("there is room for what zstd makes of it"));
            packed
        }
        Method::Lz4 => {
            let block = lz4_flex::block::compress(plain);
            let block_len = u32::try_from(block.len()).expect("lz4 hardly grows");
            let lens = [1, plain_len(), block_len].map(u32::to_le_bytes);
            [lens.as_flattened(), &block].concat()
        }
    }
}

/// The segment whose packed form this is; nothing if it is none, or longer than `limit`.
pub(crate) fn decompress(method: Method, packed: &[u8], limit: usize) -> Option<Bytes> {
    let plain = match method {
        Method::Snappy => snappy(packed, limit)?,
        Method::Zlib => zlib(packed, limit)?,
        Method::Zstd => zstd(packed, limit)?,
        Method::Lz4 => lz4(packed, limit)?,
    };
    Some(plain.into())
}

fn snappy(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let len = snap::raw::decompress_len(packed).ok().filter(|len| *len <= limit)?;
    let mut plain = vec![0; len];
    let written = snap::raw::Decoder::new().decompress(packed, &mut plain).ok()?;
    (written == len).then_some(plain)
}

fn zlib(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let (_mark, deflated) = packed.split_first()?;
    miniz_oxide::inflate::decompress_to_vec_with_limit(deflated, limit).ok()
}

fn zstd(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let (len, frame) = packed.split_first_chunk()?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > limit {
        return None;
    }
    let mut plain = Vec::with_capacity(len);
    let mut decoder = zstd::bulk::Decompressor::new().ok()?;
    let written = decoder.decompress_to_buffer(frame, &mut plain).ok()?;
    (written == len).then_some(plain)
}

fn lz4(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut lens = Reader::new(packed);
    let count = lens.u32().ok()? as usize;
    let mut blocks = lens.clone();
    blocks.bytes(count.checked_mul(LZ4_LENS_LEN)?).ok()?; // so it is a count of what is there
    let mut sum = lens.clone();
    let mut len = 0_usize;
    for _ in 0..count {
        len = len.checked_add(sum.u32().ok()? as usize).filter(|len| *len <= limit)?;
        sum.u32().ok()?;
    }
    let mut plain = vec![0; len];
    let mut done = 0;
    for _ in 0..count {
        let (block_len, packed_len) = (lens.u32().ok()? as usize, lens.u32().ok()? as usize);
        let block = blocks.bytes(packed_len).ok()?;
        let (before, room) = plain.split_at_mut(done);
        let (room, window) = (&mut room[..block_len], before.len().saturating_sub(LZ4_WINDOW));
        let written =
            lz4_flex::block::decompress_into_with_dict(block, room, &before[window..]).ok()?;
        if written != block_len {
            return None;
        }
        done += block_len;
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| b"the quick brown fox "[at % 20] ^ (at / 997) as u8).collect()
    }

    #[test]
    fn every_method_brings_back_what_it_packed_within_exactly_its_length() {
        for method in Method::ALL {
            for len in [0, 1, 41, 1000, 65_536, 300_000] {
                let plain = text(len);
                let packed = compress(method, &plain);
                assert!(len < 1000 || packed.len() < len / 2, "{method} {len}: {}", packed.len());
                let again = decompress(method, &packed, len);
                assert_eq!(again.as_deref(), Some(&plain[..]), "{method} {len}");
                if len > 0 {
                    assert_eq!(decompress(method, &packed, len - 1), None, "{method} {len}");
                }
            }
        }
    }

    #[test]
    fn truncated_and_damaged_segments_are_refused_or_bounded() {
        for method in Method::ALL {
            let plain = text(5000);
            let packed = compress(method, &plain);
            for len in 0..packed.len() {
                let cut = decompress(method, &packed[..len], 5000);
                assert!(cut.is_none_or(|plain| plain.len() < 5000), "{method} {len}");
            }
            for bit in 0..packed.len().min(400) * 8 {
                let mut damaged = packed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let result = decompress(method, &damaged, 5000);
                assert!(result.is_none_or(|plain| plain.len() <= 5000), "{method} {bit}");
            }
        }
    }

    #[test]
    fn an_announced_length_is_not_believed() {
        let snappy = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
        assert_eq!(decompress(Method::Snappy, &snappy, 1 << 20), None);
        let zstd = [&u32::MAX.to_le_bytes()[..], &compress(Method::Zstd, b"x")[4..]].concat();
        assert_eq!(decompress(Method::Zstd, &zstd, 1 << 20), None);
        let lz4 = [2_u32, u32::MAX, 1, u32::MAX, 1].map(u32::to_le_bytes);
        assert_eq!(decompress(Method::Lz4, lz4.as_flattened(), 1 << 20), None);
        let lz4 = [u32::MAX].map(u32::to_le_bytes);
        assert_eq!(decompress(Method::Lz4, lz4.as_flattened(), 1 << 20), None);
        // Deflate announces nothing: a bomb ends at the limit.
        let bomb = compress(Method::Zlib, &vec![0; 10 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(decompress(Method::Zlib, &bomb, 1 << 20), None);
    }

    #[test]
    fn blocks_of_lz4_continue_each_other() {
        let plain = text(3000);
        let (first, second) = plain.split_at(1000);
        let packed =
            [lz4_flex::block::compress(first), lz4_flex::block::compress_with_dict(second, first)];
        let lens = [2, 1000, packed[0].len() as u32, 2000, packed[1].len() as u32];
        let lens = lens.map(u32::to_le_bytes);
        let whole = [lens.as_flattened(), &packed[0], &packed[1]].concat();
        assert_eq!(decompress(Method::Lz4, &whole, 3000).as_deref(), Some(&plain[..]));
        assert_eq!(decompress(Method::Lz4, &whole, 2999), None);
    }
}
