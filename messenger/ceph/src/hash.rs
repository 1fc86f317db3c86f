//! The hash that places objects: Bob Jenkins' hash of 1996 ("lookup2"), over an object's name.

/// An arbitrary start value, the golden ratio's bits.
const START: u32 = 0x9e37_79b9;
/// Bytes that are mixed in at a time: three words.
const BLOCK_LEN: usize = 12;
/// The three rounds of mixing, each with its three shifts.
const ROUNDS: [[u32; 3]; 3] = [[13, 8, 13], [12, 16, 5], [3, 10, 15]];

/// The hash of a name. With a pool's number it makes the raw placement group of an object that
/// has neither a locator key nor a namespace.
///
/// ```
/// use messenger_ceph::hash::rjenkins;
///
/// assert_eq!(rjenkins(b"hello"), 0xb706_399e);
/// ```
pub fn rjenkins(name: &[u8]) -> u32 {
    let mut state = [START, START, 0];
    let (blocks, tail) = name.as_chunks::<BLOCK_LEN>();
    for block in blocks {
        mix(&mut state, words(block));
    }
    let mut block = [0; BLOCK_LEN];
    block[..tail.len()].copy_from_slice(tail);
    let [a, b, c] = words(&block);
    // The lowest byte of the last word is the length's.
    let len = name.len() as u32; // of 4 GiB and more, the low bits
    mix(&mut state, [a, b, (c << 8).wrapping_add(len)]);
    state[2]
}

fn words(block: &[u8; BLOCK_LEN]) -> [u32; 3] {
    let (words, _) = block.as_chunks::<4>();
    [0, 1, 2].map(|index| u32::from_le_bytes(words[index]))
}

fn mix(state: &mut [u32; 3], input: [u32; 3]) {
    let [mut a, mut b, mut c] = *state;
    a = a.wrapping_add(input[0]);
    b = b.wrapping_add(input[1]);
    c = c.wrapping_add(input[2]);
    for [first, second, third] in ROUNDS {
        a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> first);
        b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << second);
        c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> third);
    }
    *state = [a, b, c];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_have_their_known_hashes() {
        assert_eq!(rjenkins(b""), 0xbd49_d10d);
        assert_eq!(rjenkins(b"hello"), 0xb706_399e);
        // A monitor's `osd map` placed these.
        assert_eq!(rjenkins(b"obj1"), 0x6cf8_deff);
        assert_eq!(rjenkins(b"twelve bytes"), 0xffd0_2e10);
        assert_eq!(rjenkins(b"a name of 27 bytes, no less"), 0xe8fb_34cf);
    }

    #[test]
    fn every_byte_of_a_tail_counts() {
        let name = b"a name of 27 bytes, no less";
        let hashes: std::collections::BTreeSet<u32> =
            (0..=name.len()).map(|len| rjenkins(&name[..len])).collect();
        assert_eq!(hashes.len(), name.len() + 1);
    }
}
