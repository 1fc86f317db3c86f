//! TCP segments with every field open to the writer, and the packets and frames they travel in.
//!
//! smoltcp's own representation knows only segments that make sense; scripts need the others too.

use std::fmt;
use std::net::SocketAddrV4;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol,
    Ipv4Packet, Ipv4Repr, TcpOption, TcpPacket, TcpSeqNumber, checksum,
};

const IP_LEN: usize = 20;
const TCP_LEN: usize = 20;
const ETHERNET_LEN: usize = 14;
const HOP_LIMIT: u8 = 64;
/// Type of an ICMP error for a destination that cannot be reached (RFC 792).
const UNREACHABLE: u8 = 3;
/// Bytes of a TCP header that an ICMP error quotes.
const QUOTED_LEN: usize = 8;

/// The flags of a segment, as in byte 13 of its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const FIN: Self = Self(1);
    pub(crate) const SYN: Self = Self(2);
    pub(crate) const RST: Self = Self(4);
    pub(crate) const PSH: Self = Self(8);
    pub(crate) const ACK: Self = Self(16);

    pub(crate) const LETTERS: [(char, u8); 8] =
        [('S', 2), ('F', 1), ('R', 4), ('P', 8), ('A', 16), ('U', 32), ('E', 64), ('C', 128)];

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.without(Self::PSH).0;
        let shown = Self::LETTERS.iter().filter(|(_, bit)| shown & bit > 0);
        let text: String = shown.map(|(letter, _)| *letter).collect();
        f.write_str(if text.is_empty() { "-" } else { &text })
    }
}

/// The options of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) wscale: Option<u8>,
    pub(crate) sackok: bool,
    /// Blocks of sequence numbers, each with the one after its last.
    pub(crate) sack: Vec<(u32, u32)>,
    /// Time stamp and its echo.
    pub(crate) ts: Option<(u32, u32)>,
}

impl Options {
    fn emit(&self) -> Vec<u8> {
        let mut options = Vec::new();
        options.extend(self.mss.map(TcpOption::MaxSegmentSize));
        options.extend(self.wscale.map(TcpOption::WindowScale));
        options.extend(self.sackok.then_some(TcpOption::SackPermitted));
        options.extend(self.ts.map(|(tsval, tsecr)| TcpOption::TimeStamp { tsval, tsecr }));
        if !self.sack.is_empty() {
            let mut blocks = self.sack.iter().copied();
            options.push(TcpOption::SackRange([blocks.next(), blocks.next(), blocks.next()]));
        }
        let mut bytes = vec![0; options.iter().map(TcpOption::buffer_len).sum()];
        options.iter().fold(&mut bytes[..], |rest, option| option.emit(rest));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Ok((rest, option)) = TcpOption::parse(bytes) {
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
                TcpOption::WindowScale(shift) => options.wscale = Some(shift),
                TcpOption::SackPermitted => options.sackok = true,
                TcpOption::SackRange(blocks) => options.sack.extend(blocks.iter().flatten()),
                TcpOption::TimeStamp { tsval, tsecr } => options.ts = Some((tsval, tsecr)),
                TcpOption::NoOperation | TcpOption::Unknown { .. } => {}
            }
            bytes = rest;
        }
        options
    }
}

/// A segment with its numbers as they are on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: Flags,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) options: Options,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    /// The IPv4 packet that carries it.
    pub(crate) fn packet(&self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let options = self.options.emit();
        let payload_at = TCP_LEN + options.len();
        let mut bytes = vec![0; payload_at + self.payload.len()];
        bytes[TCP_LEN..payload_at].copy_from_slice(&options);
        bytes[payload_at..].copy_from_slice(&self.payload);
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.set_src_port(from.port());
        tcp.set_dst_port(to.port());
        tcp.set_seq_number(TcpSeqNumber(self.seq as i32));
        tcp.set_ack_number(TcpSeqNumber(self.ack as i32));
        tcp.set_window_len(self.window);
        tcp.set_header_len(payload_at as u8);
        tcp.into_inner()[13] = self.flags.0;
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.fill_checksum(&(*from.ip()).into(), &(*to.ip()).into());
        ip(from, to, IpProtocol::Tcp, &bytes)
    }

    /// Reads an IPv4 packet, unless it is another protocol's. Checksums are not looked at: a copy
    /// of what a kernel sends may not have them yet.
    pub(crate) fn read(packet: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, Self)> {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let (source, destination) = (ip.src_addr(), ip.dst_addr());
        if ip.next_header() != IpProtocol::Tcp {
            return None;
        }
        let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
        let segment = Self {
            flags: Flags(ip.payload()[13]),
            seq: tcp.seq_number().0 as u32,
            ack: tcp.ack_number().0 as u32,
            window: tcp.window_len(),
            options: Options::parse(tcp.options()),
            payload: tcp.payload().to_vec(),
        };
        let (from, to) = (tcp.src_port(), tcp.dst_port());
        Some((SocketAddrV4::new(source, from), SocketAddrV4::new(destination, to), segment))
    }

    /// Shows it with numbers counted from both ends' initial ones.
    pub(crate) fn describe(&self, seq_base: u32, ack_base: u32) -> String {
        use fmt::Write as _;
        let mut text = format!("{} {}", self.flags, distance(self.seq, seq_base));
        let mut add = |part: fmt::Arguments<'_>| {
            let _ = text.write_fmt(part); // a string takes everything
        };
        if !self.payload.is_empty() {
            add(format_args!("+{}", self.payload.len()));
        }
        if self.flags.has(Flags::ACK) {
            add(format_args!(" ack {}", distance(self.ack, ack_base)));
        }
        add(format_args!(" win {}", self.window));
        let Options { mss, wscale, sackok, sack, ts } = &self.options;
        if let Some(mss) = mss {
            add(format_args!(" mss {mss}"));
        }
        if let Some(wscale) = wscale {
            add(format_args!(" wscale {wscale}"));
        }
        if *sackok {
            add(format_args!(" sackok"));
        }
        for (from, to) in sack {
            add(format_args!(" sack {}..{}", distance(*from, ack_base), distance(*to, ack_base)));
        }
        if let Some((stamp, echo)) = ts {
            add(format_args!(" ts {stamp} {echo}"));
        }
        text
    }
}

/// Whether the checksums of an IPv4 packet with a segment are right.
pub(crate) fn is_intact(packet: &[u8]) -> bool {
    let ip = Ipv4Packet::new_unchecked(packet);
    let tcp = TcpPacket::new_unchecked(ip.payload());
    ip.verify_checksum() && tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into())
}

/// How far a number is from a base, the short way around.
pub(crate) fn distance(number: u32, base: u32) -> i32 {
    number.wrapping_sub(base) as i32
}

fn ip(from: SocketAddrV4, to: SocketAddrV4, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: HOP_LIMIT,
    };
    let mut packet = vec![0; IP_LEN + payload.len()];
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &Default::default());
    packet[IP_LEN..].copy_from_slice(payload);
    packet
}

/// An ICMP error of this code about a segment that `to` sent to `from`, with sequence number `seq`.
pub(crate) fn unreachable(
    from: SocketAddrV4,
    to: SocketAddrV4,
    code: u8,
    mtu: u16,
    seq: u32,
) -> Vec<u8> {
    let quoted = Segment { seq, ..Segment::default() }.packet(to, from);
    let [high, low] = mtu.to_be_bytes();
    let mut message = vec![UNREACHABLE, code, 0, 0, 0, 0, high, low];
    message.extend(&quoted[..IP_LEN + QUOTED_LEN]);
    let sum = !checksum::data(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, IpProtocol::Icmp, &message)
}

/// A packet in an Ethernet frame.
pub(crate) fn frame(from: EthernetAddress, to: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ETHERNET_LEN + packet.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(from);
    frame.set_dst_addr(to);
    frame.set_ethertype(EthernetProtocol::Ipv4);
    frame.payload_mut().copy_from_slice(packet);
    bytes
}

/// The packet in a frame, if it is one of IPv4.
pub(crate) fn packet_of(bytes: &[u8]) -> Option<&[u8]> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    (frame.ethertype() == EthernetProtocol::Ipv4).then(|| frame.payload())
}

/// The answer of `mac` to a frame that asks for `ip`.
pub(crate) fn answer_arp(bytes: &[u8], mac: EthernetAddress, ip: [u8; 4]) -> Option<Vec<u8>> {
    let asking = EthernetFrame::new_checked(bytes).ok()?;
    if asking.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let question = ArpRepr::parse(&ArpPacket::new_checked(asking.payload()).ok()?).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = question
    else {
        return None;
    };
    if target_protocol_addr.octets() != ip {
        return None;
    }
    let answer = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: mac,
        source_protocol_addr: target_protocol_addr,
        target_hardware_addr: source_hardware_addr,
        target_protocol_addr: source_protocol_addr,
    };
    let mut bytes = vec![0; ETHERNET_LEN + answer.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(mac);
    frame.set_dst_addr(source_hardware_addr);
    frame.set_ethertype(EthernetProtocol::Arp);
    answer.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    Some(bytes)
}
