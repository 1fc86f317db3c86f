//! What a peer says in the options of its segments that concerns what we send.

/// Most blocks that fit into the options of a segment (RFC 2018 section 3).
pub(super) const BLOCKS_MAX: usize = 4;
/// Largest shift of a window (RFC 7323 section 2.3).
const SHIFT_MAX: u8 = 14;

const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// The options of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mss: Option<u16>,
    pub(super) window_shift: Option<u8>,
    pub(super) is_sack_permitted: bool,
    blocks: [(u32, u32); BLOCKS_MAX],
    blocks_len: usize,
}

impl Options {
    /// Reads the bytes between the fixed header and the payload. What follows something broken is
    /// not there.
    pub(super) fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let [kind, rest @ ..] = bytes {
            match *kind {
                END => break,
                NOTHING => bytes = rest,
                kind => {
                    let len = usize::from(rest.first().copied().unwrap_or(0));
                    let Some(data) = bytes.get(2..len) else {
                        break;
                    };
                    options.read(kind, data);
                    bytes = &bytes[len..];
                }
            }
        }
        options
    }

    fn read(&mut self, kind: u8, data: &[u8]) {
        match (kind, data) {
            (MSS, [high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
            (WINDOW_SCALE, [shift]) => self.window_shift = Some((*shift).min(SHIFT_MAX)),
            (SACK_PERMITTED, []) => self.is_sack_permitted = true,
            (SACK, data) => {
                let (blocks, _) = data.as_chunks::<8>();
                for block in blocks.iter().take(BLOCKS_MAX) {
                    let [a, b, c, d, e, f, g, h] = *block;
                    let edges =
                        (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                    self.blocks[self.blocks_len.min(BLOCKS_MAX - 1)] = edges;
                    self.blocks_len = (self.blocks_len + 1).min(BLOCKS_MAX);
                }
            }
            _ => {}
        }
    }

    /// Blocks of sequence numbers the peer has beyond what it acknowledges, as it ordered them:
    /// the first byte and the one after the last.
    pub(super) fn blocks(&self) -> &[(u32, u32)] {
        &self.blocks[..self.blocks_len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_tells_what_the_peer_can_do() {
        let syn = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        let options = Options::parse(&syn);
        assert_eq!(options.mss, Some(1460));
        assert_eq!(options.window_shift, Some(7));
        assert!(options.is_sack_permitted);
        assert_eq!(Options::parse(&[3, 3, 99]).window_shift, Some(14));
    }

    #[test]
    fn blocks_come_in_the_order_they_were_given() {
        let ack = [1, 1, 5, 18, 0, 0, 0, 9, 0, 0, 0, 12, 0, 0, 0, 3, 0, 0, 0, 5];
        assert_eq!(Options::parse(&ack).blocks(), [(9, 12), (3, 5)]);
    }

    #[test]
    fn what_is_broken_ends_the_list() {
        for broken in
            [&[2][..], &[2, 0], &[2, 1, 4, 2], &[2, 9, 0, 0], &[3, 2, 4, 3, 1], &[0, 4, 2]]
        {
            let options = Options::parse(broken);
            assert_eq!(options, Options::default(), "{broken:?}");
        }
        let many = [[5, 34].as_slice(), &[7; 32], &[5, 10], &[9; 8]].concat();
        assert_eq!(Options::parse(&many).blocks().len(), BLOCKS_MAX);
    }
}
