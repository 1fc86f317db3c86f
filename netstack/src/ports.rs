//! Ephemeral ports: a random free one, whose answers the device brings to our own queue.
//!
//! A device that spreads flows over its queues by RSS would bring the answers to a connection we
//! open to any worker. So the hash it will compute for the answer is computed here first, and
//! only ports are taken for which the redirection table names our queue. Where no RSS is at work
//! any free port will do, and [`steer`](crate::steer) brings home what arrives elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use arrayvec::ArrayVec;

use crate::device::{DeviceInfo, Rss};
use crate::guard::Secret;

/// Chooses local ports for one worker.
#[derive(Debug)]
pub(crate) struct Ports {
    first: u16,
    /// How many ports there are to choose from, at least 1.
    count: u32,
    secret: Secret,
    /// How often a start was drawn.
    drawn: u64,
    /// The device's RSS and our queue.
    rss: Option<(Rss, u16)>,
}

impl Ports {
    /// Chooses from `range` in an order drawn from `secret`, for the queue `info` describes.
    pub(crate) fn new(range: &RangeInclusive<u16>, secret: Secret, info: &DeviceInfo) -> Self {
        let count = u32::from(range.end().saturating_sub(*range.start())) + 1;
        let rss = info.rss.clone().filter(|rss| info.queues > 1 && !rss.table.is_empty());
        Self {
            first: *range.start(),
            count,
            secret,
            drawn: 0,
            rss: rss.map(|rss| (rss, info.queue)),
        }
    }

    /// A random start for [`Ports::from`].
    pub(crate) fn draw(&mut self) -> u32 {
        self.drawn += 1;
        (self.secret.port(self.drawn) % u64::from(self.count)) as u32
    }

    /// Each port of the range once, beginning at `start` (RFC 6056 section 3.3.1): those that
    /// serve a connection from the local address to the remote one, or all for a listener.
    pub(crate) fn from(
        &self,
        start: u32,
        flow: Option<(IpAddr, SocketAddr)>,
    ) -> impl Iterator<Item = u16> {
        let ports =
            (0..self.count).map(move |step| self.first + ((start + step) % self.count) as u16);
        ports.filter(move |port| {
            flow.is_none_or(|(local, remote)| {
                self.leads_home(SocketAddr::new(local, *port), remote)
            })
        })
    }

    /// Whether the device brings what `remote` sends to `local` to our queue.
    fn leads_home(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let Some((rss, queue)) = &self.rss else {
            return true;
        };
        let hash = toeplitz(&rss.key, &rss_input(remote, local));
        rss.table[hash as usize % rss.table.len()] == *queue
    }
}

/// Longest input of the hash: two IPv6 addresses and two ports.
const INPUT_MAX: usize = 2 * 16 + 2 * 2;

/// What RSS hashes of a TCP segment from `source` to `destination`.
fn rss_input(source: SocketAddr, destination: SocketAddr) -> ArrayVec<u8, INPUT_MAX> {
    let mut input = ArrayVec::new();
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => input.extend(ip.octets()),
            IpAddr::V6(ip) => input.extend(ip.octets()),
        }
    }
    for port in [source.port(), destination.port()] {
        input.extend(port.to_be_bytes());
    }
    input
}

/// The Toeplitz hash as RSS uses it: for every 1 bit of the input, the 32 bits of the key that
/// start at the same position are added without carry. Bits past the key's end count as 0.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let key_byte = |at: usize| u64::from(key.get(at).copied().unwrap_or(0));
    // The 32 bits of the key at the current input byte, and the 8 that follow.
    let mut window = (0..5).fold(0, |window, at| window << 8 | key_byte(at));
    let mut hash = 0;
    for (at, byte) in input.iter().enumerate() {
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                hash ^= (window >> (8 - bit)) as u32;
            }
        }
        window = (window << 8 | key_byte(at + 5)) & 0xff_ffff_ffff;
    }
    hash
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::EthernetAddress;

    use super::*;

    /// The key of Microsoft's RSS verification suite.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn info(rss: Option<Rss>, queue: u16) -> DeviceInfo {
        DeviceInfo {
            name: "test".into(),
            mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            queue,
            queues: 4,
            rss,
            lossless_memory: false,
        }
    }

    fn local() -> IpAddr {
        IpAddr::from([10, 0, 0, 1])
    }

    fn remote() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 2], 6800))
    }

    #[test]
    fn hashes_are_those_of_the_rss_verification_suite() {
        let cases = [
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x10e8_28a2),
            ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x4020_7d3d),
            ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0xdde5_1bbf),
            (
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                "[fe80::200:f8ff:fe21:67cf]:38024",
                0x02d1_feef,
            ),
        ];
        for (source, destination, hash) in cases {
            let input = rss_input(source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(toeplitz(&KEY, &input), hash, "{source} to {destination}");
        }
    }

    #[test]
    fn a_port_is_chosen_whose_answers_come_to_our_queue() {
        let rss = Rss { key: KEY.to_vec(), table: (0..128).map(|entry| entry % 4).collect() };
        for queue in 0..4 {
            let mut ports =
                Ports::new(&(1000..=1999), Secret::from_seed(3), &info(Some(rss.clone()), queue));
            let start = ports.draw();
            let seen: Vec<_> = ports.from(start, Some((local(), remote()))).collect();
            for port in &seen {
                let input = rss_input(remote(), SocketAddr::new(local(), *port));
                assert_eq!(toeplitz(&KEY, &input) % 4, u32::from(queue));
            }
            assert!((200..300).contains(&seen.len()), "{} of 1000 ports", seen.len());
        }
    }

    #[test]
    fn every_port_is_found_and_then_no_more() {
        let mut ports = Ports::new(&(65_530..=65_535), Secret::from_seed(3), &info(None, 0));
        let start = ports.draw();
        let mut seen: Vec<_> = ports.from(start, Some((local(), remote()))).collect();
        seen.sort_unstable();
        assert_eq!(seen, [65_530, 65_531, 65_532, 65_533, 65_534, 65_535]);
    }

    #[test]
    fn ports_are_spread_over_the_range_and_depend_on_the_seed() {
        let draw = |seed| {
            let secret = Secret::from_seed(seed);
            let mut ports = Ports::new(&(32_768..=60_999), secret, &info(None, 0));
            let mut first = || {
                let start = ports.draw();
                ports.from(start, None).next().unwrap()
            };
            (0..1000).map(|_| first()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        for quarter in 0..4 {
            let from = 32_768 + quarter * 7058;
            let hits = draw(5).iter().filter(|port| (from..from + 7058).contains(*port)).count();
            assert!((180..320).contains(&hits), "{hits} of 1000 in quarter {quarter}");
        }
    }
}
