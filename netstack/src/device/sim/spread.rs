//! How frames that come to a port are spread over its queues.

use crate::device::Rss;

/// Entries of the redirection table, as many as common hardware has.
const TABLE_LEN: u16 = 128;
/// The key of Microsoft's RSS verification suite.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Who picks the queue a frame arrives on, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// The sender's queue number, modulo our queues: memif, vhost-user.
    SameIndex,
    /// Each frame on the next queue, flows torn apart: the worst case.
    RoundRobin,
    /// By flow: the Toeplitz hash of hardware. Frames that are not TCP arrive on queue 0.
    FlowHash {
        /// Whether [`DeviceInfo::rss`](crate::device::DeviceInfo::rss) tells about it.
        announced: bool,
    },
    /// By flow, but after so many frames all flows move on to the next queue, in the middle of
    /// their connections: the kernel's tap does that after a pause.
    Moving {
        /// Frames between two moves.
        every: u32,
    },
}

impl Spread {
    /// The queue, below `queues`, of the `count`-th frame from queue `sender`.
    pub(super) fn pick(self, frame: &[u8], sender: u16, count: u64, queues: u16) -> u16 {
        let queues = u32::from(queues);
        let index = match self {
            _ if queues == 1 => 0,
            Self::SameIndex => u32::from(sender) % queues,
            Self::RoundRobin => (count % u64::from(queues)) as u32,
            Self::FlowHash { .. } => by_flow(frame, queues),
            Self::Moving { every } => {
                let moves = count / u64::from(every.max(1)) % u64::from(queues);
                (by_flow(frame, queues) + moves as u32) % queues
            }
        };
        index as u16 // below queues
    }

    pub(super) fn rss(self, queues: u16) -> Option<Rss> {
        (self == Self::FlowHash { announced: true }).then(|| Rss {
            key: KEY.to_vec(),
            table: (0..TABLE_LEN).map(|entry| entry % queues).collect(),
        })
    }
}

fn by_flow(frame: &[u8], queues: u32) -> u32 {
    rss_hash(frame).unwrap_or(0) % u32::from(TABLE_LEN) % queues
}

/// The RSS hash of a TCP frame: addresses and ports as they stand in it.
fn rss_hash(frame: &[u8]) -> Option<u32> {
    const TCP: u8 = 6;
    let is_v4 = frame.get(12..15)? == [0x08, 0x00, 0x45] && *frame.get(23)? == TCP;
    let is_v6 = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(20)? == TCP;
    match (is_v4, is_v6) {
        (true, _) => Some(toeplitz(&KEY, frame.get(26..38)?)),
        (_, true) => Some(toeplitz(&KEY, frame.get(22..58)?)),
        _ => None,
    }
}

/// For each set bit of the input, the 32 bits of the key that start at its position, all xored.
fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let mut window = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    let mut hash = 0;
    for (byte, next) in input.iter().zip(&key[4..]) {
        for bit in (0..8).rev() {
            if byte >> bit & 1 == 1 {
                hash ^= window;
            }
            window = window << 1 | u32::from(next >> bit & 1);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn the_hash_is_the_one_hardware_computes() {
        // Two rows of the verification suite of Microsoft's RSS documentation.
        let mut v4 = [66, 9, 149, 187, 161, 142, 100, 80, 0, 0, 0, 0];
        v4[8..].copy_from_slice(&[0x0a, 0xea, 0x06, 0xe6]); // ports 2794 and 1766
        assert_eq!(toeplitz(&KEY, &v4), 0x51cc_c178);
        let source: Ipv6Addr = "3ffe:2501:200:1fff::7".parse().unwrap();
        let destination: Ipv6Addr = "3ffe:2501:200:3::1".parse().unwrap();
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&source.octets());
        v6[16..32].copy_from_slice(&destination.octets());
        v6[32..].copy_from_slice(&[0x0a, 0xea, 0x06, 0xe6]);
        assert_eq!(toeplitz(&KEY, &v6), 0x4020_7d3d);
    }

    #[test]
    fn what_is_no_tcp_arrives_on_the_first_queue() {
        let spread = Spread::FlowHash { announced: false };
        assert_eq!(spread.pick(&[0; 60], 3, 9, 4), 0);
        assert_eq!(spread.pick(&[], 3, 9, 4), 0);
        assert_eq!(Spread::Moving { every: 2 }.pick(&[], 0, 5, 4), 2);
    }
}
