//! CRC-32C the way msgr2 counts it: a register preset to a seed, returned without final inversion.
//!
//! The textbook CRC-32C of `data` is `!crc32c(SEGMENT_SEED, data)`. Because nothing is inverted at
//! the end, checksums chain: `crc32c(crc32c(seed, a), b) == crc32c(seed, ab)`.

/// Seed of a preamble's checksum (msgr2: frame preamble).
pub const PREAMBLE_SEED: u32 = 0;

/// Seed of a segment's checksum, which is also the checksum of an empty segment.
pub const SEGMENT_SEED: u32 = u32::MAX;

/// The register after feeding `data` to one that was preset to `seed`.
pub fn crc32c(seed: u32, data: &[u8]) -> u32 {
    !::crc32c::crc32c_append(!seed, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values_match() {
        assert_eq!(crc32c(SEGMENT_SEED, b"123456789"), 0x1cf9_6d7c);
        assert_eq!(crc32c(PREAMBLE_SEED, b"123456789"), 0x58e3_fa20);
        assert_eq!(crc32c(SEGMENT_SEED, b""), 0xffff_ffff);
        assert_eq!(crc32c(PREAMBLE_SEED, b""), 0);
    }

    #[test]
    fn checksums_of_pieces_chain() {
        let whole = crc32c(SEGMENT_SEED, b"one two three");
        let parts = crc32c(crc32c(SEGMENT_SEED, b"one two"), b" three");
        assert_eq!(whole, parts);
    }
}
