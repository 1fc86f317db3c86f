//! TCP segments of Ethernet frames, and the bytes they carry put in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET_LEN: usize = 6 + 6 + 2;
const VLAN_LEN: usize = 4;
const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV4_LEN_MIN: usize = 20;
const IPV6_LEN: usize = 40;
const TCP_LEN_MIN: usize = 20;
const PROTOCOL_TCP: u8 = 6;
const FLAG_SYN: u8 = 2;
/// Bytes kept that came before their predecessors.
const AHEAD_MAX: usize = 64 << 20;

/// A TCP segment on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) syn: bool,
    seq: u32,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The segment of an Ethernet frame; none if it holds anything else, or is cut short. Fragments
    /// are anything else: no TCP of ours makes them.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        let (mut kind, mut packet) = (u16_at(frame, ETHERNET_LEN - 2)?, frame.get(ETHERNET_LEN..)?);
        if kind == VLAN {
            (kind, packet) = (u16_at(packet, 2)?, packet.get(VLAN_LEN..)?);
        }
        let (from, to, protocol, tcp) = match kind {
            IPV4 => ipv4(packet)?,
            IPV6 => ipv6(packet)?,
            _ => return None,
        };
        if protocol != PROTOCOL_TCP {
            return None;
        }
        let header: &[u8; TCP_LEN_MIN] = tcp.first_chunk()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < TCP_LEN_MIN {
            return None;
        }
        let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        Some(Self {
            from: SocketAddr::new(from, u16_at(tcp, 0)?),
            to: SocketAddr::new(to, u16_at(tcp, 2)?),
            syn: header[13] & FLAG_SYN != 0,
            seq,
            payload: tcp.get(header_len..)?,
        })
    }
}

type IpParts<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn ipv4(packet: &[u8]) -> Option<IpParts<'_>> {
    let header: &[u8; IPV4_LEN_MIN] = packet.first_chunk()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let is_fragment = u16_at(packet, 6)? & 0x3fff != 0;
    let payload = packet.get(header_len..u16_at(packet, 2)?.into())?;
    let addr = |at: usize| Ipv4Addr::from([0, 1, 2, 3].map(|byte| header[at + byte])).into();
    (!is_fragment && header_len >= IPV4_LEN_MIN).then(|| (addr(12), addr(16), header[9], payload))
}

fn ipv6(packet: &[u8]) -> Option<IpParts<'_>> {
    let header: &[u8; IPV6_LEN] = packet.first_chunk()?;
    let payload = packet.get(IPV6_LEN..IPV6_LEN + usize::from(u16_at(packet, 4)?))?;
    let addr = |at: usize| {
        let bytes: Option<&[u8; 16]> = header[at..].first_chunk();
        bytes.map(|bytes| IpAddr::from(Ipv6Addr::from(*bytes)))
    };
    Some((addr(8)?, addr(24)?, header[6], payload))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The sequence number of its SYN.
    start: u32,
    /// The one to come.
    next: u32,
    /// What came before its predecessors.
    ahead: Vec<(u32, Vec<u8>)>,
    ahead_bytes: usize,
}

impl Stream {
    /// One that begins with this SYN.
    pub(crate) fn begin(syn: &Segment<'_>) -> Self {
        let next = syn.seq.wrapping_add(1);
        Self { start: syn.seq, next, ahead: Vec::new(), ahead_bytes: 0 }
    }

    /// Whether this SYN is its own, perhaps sent again.
    pub(crate) fn began_with(&self, syn: &Segment<'_>) -> bool {
        self.start == syn.seq
    }

    /// Takes a segment and appends what is in order now. `false`: too much is missing.
    pub(crate) fn take(&mut self, segment: &Segment<'_>, out: &mut impl Extend<u8>) -> bool {
        if segment.payload.is_empty() || segment.syn {
            return true;
        }
        if !self.append(segment.seq, segment.payload, out) {
            self.ahead_bytes += segment.payload.len();
            self.ahead.push((segment.seq, segment.payload.to_vec()));
            return self.ahead_bytes <= AHEAD_MAX;
        }
        // Each that fits may be the predecessor of another.
        while let Some(at) = self.ahead.iter().position(|(seq, _)| !self.is_ahead(*seq)) {
            let (seq, payload) = self.ahead.swap_remove(at);
            self.ahead_bytes -= payload.len();
            self.append(seq, &payload, out);
        }
        true
    }

    /// Whether nothing is missing before what came.
    pub(crate) fn is_whole(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Appends what is new of a payload, unless it is not its turn.
    fn append(&mut self, seq: u32, payload: &[u8], out: &mut impl Extend<u8>) -> bool {
        if self.is_ahead(seq) {
            return false;
        }
        let known = self.next.wrapping_sub(seq) as usize;
        if let Some(new) = payload.get(known..) {
            self.next = self.next.wrapping_add(new.len() as u32);
            out.extend(new.iter().copied());
        }
        true
    }

    /// Sequence numbers are a circle; half of it is ahead.
    fn is_ahead(&self, seq: u32) -> bool {
        seq.wrapping_sub(self.next).cast_signed() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(seq: u32, payload: &[u8]) -> Segment<'_> {
        let addr: SocketAddr = "10.0.0.1:1".parse().unwrap();
        Segment { from: addr, to: addr, syn: false, seq, payload }
    }

    fn ordered(start: u32, pieces: &[(u32, &[u8])]) -> (Vec<u8>, bool) {
        let mut stream = Stream::begin(&Segment { syn: true, ..segment(start, b"") });
        let mut out = Vec::new();
        for (offset, payload) in pieces {
            let seq = start.wrapping_add(1 + offset);
            assert!(stream.take(&segment(seq, payload), &mut out));
        }
        (out, stream.is_whole())
    }

    #[test]
    fn bytes_are_put_in_order_wherever_the_numbers_start() {
        for start in [0, 7, u32::MAX - 4, u32::MAX] {
            let whole = (b"abcdefgh".to_vec(), true);
            assert_eq!(ordered(start, &[(0, b"abc"), (3, b"def"), (6, b"gh")]), whole);
            assert_eq!(ordered(start, &[(6, b"gh"), (3, b"def"), (0, b"abc")]), whole, "turned");
            let twice: [(u32, &[u8]); 4] = [(0, b"abc"), (0, b"abcde"), (1, b"b"), (4, b"efgh")];
            assert_eq!(ordered(start, &twice), whole, "sent again");
            assert_eq!(ordered(start, &[(0, b"ab"), (3, b"d")]), (b"ab".to_vec(), false), "lost");
        }
    }

    #[test]
    fn a_gap_that_is_never_filled_is_given_up() {
        let mut stream = Stream::begin(&segment(0, b""));
        let (mut out, chunk) = (Vec::new(), vec![0; 1 << 20]);
        let given_up = (0..100).any(|i| !stream.take(&segment(100 + (i << 20), &chunk), &mut out));
        assert!(given_up && out.is_empty());
    }

    #[test]
    fn segments_of_both_families_are_found() {
        let tcp =
            [&[0x1a, 0x90, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2][..], &[0; 6], b"hi"].concat();
        let mut v4 = vec![0x45, 0, 0, 42, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        v4.extend(&tcp);
        v4.extend([0; 4]); // Ethernet's padding
        let mut v6 = vec![0x60, 0, 0, 0, 0, 22, 6, 64];
        v6.extend([0xfd; 32]);
        v6.extend(&tcp);
        for (kind, packet) in [(IPV4, v4), (IPV6, v6)] {
            for vlan in [&[][..], &[0x81, 0, 0, 5]] {
                let frame = [&[0; 12], vlan, &kind.to_be_bytes()[..], &packet].concat();
                let segment = Segment::parse(&frame).unwrap();
                assert_eq!((segment.from.port(), segment.to.port()), (6800, 80));
                assert_eq!((segment.seq, segment.syn, segment.payload), (9, true, &b"hi"[..]));
                for len in 0..frame.len() - 6 {
                    assert_eq!(Segment::parse(&frame[..len]), None, "cut at {len}");
                }
                for at in 0..frame.len() {
                    for value in 0..=u8::MAX {
                        let mut frame = frame.clone();
                        frame[at] = value;
                        let parsed = Segment::parse(&frame);
                        assert!(parsed.is_none_or(|segment| segment.payload.len() <= 6), "{at}");
                    }
                }
            }
        }
    }
}
