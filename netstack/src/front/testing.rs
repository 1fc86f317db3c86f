//! A host with a front and a record of what it sends, and packets to be sent to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr, NdiscNeighborFlags, NdiscRepr,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, checksum,
};

use super::{Front, FrontConfig, Inbound, NeighborTimers, Output, Sent};
use crate::device::{ChecksumState, Frame};

pub(crate) const OURS: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
pub(crate) const PEER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
pub(crate) const OTHER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 3]);
pub(crate) const ALL: EthernetAddress = EthernetAddress::BROADCAST;

#[derive(Clone, Debug)]
pub(crate) struct Heap {
    pub(crate) bytes: Vec<u8>,
    pub(crate) checksum: ChecksumState,
}

impl From<Vec<u8>> for Heap {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, checksum: ChecksumState::Unknown }
    }
}

impl Frame for Heap {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }
    fn checksum(&self) -> ChecksumState {
        self.checksum
    }
}

#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) full: bool,
    pub(crate) no_memory: bool,
}

impl Output<Heap> for Sink {
    fn alloc(&mut self, len: usize) -> Option<Heap> {
        (!self.no_memory).then(|| vec![0xa5; len].into())
    }
    fn push(&mut self, frame: Heap) -> Result<(), Heap> {
        if self.full {
            return Err(frame);
        }
        self.sent.push(frame.bytes);
        Ok(())
    }
}

pub(crate) struct Host {
    pub(crate) front: Front<Heap>,
    pub(crate) out: Sink,
    pub(crate) now: Instant,
}

pub(crate) fn config() -> FrontConfig {
    FrontConfig {
        mac: OURS,
        addrs: ["10.0.0.1/24", "fd00::1/64"].map(|addr| addr.parse().unwrap()).to_vec(),
        gateway_v4: Some("10.0.0.254".parse().unwrap()),
        gateway_v6: None,
        mtu: 1500,
        vlan: None,
        verify_checksums: true,
        neighbor: NeighborTimers::default(),
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(&config())
    }

    pub(crate) fn with(config: &FrontConfig) -> Self {
        let front = Front::new(config).unwrap();
        Self { front, out: Sink::default(), now: Instant::now() }
    }

    pub(crate) fn receive(&mut self, frame: impl Into<Heap>) -> Inbound<Heap> {
        self.front.receive(self.now, frame.into(), &mut self.out)
    }

    /// Sends a TCP segment to `to`.
    pub(crate) fn send(&mut self, to: &str) -> Sent<Heap> {
        let from = if to.contains(':') { "fd00::1" } else { "10.0.0.1" };
        self.send_packet(&tcp(from, to, b"hello"))
    }

    pub(crate) fn send_packet(&mut self, packet: &[u8]) -> Sent<Heap> {
        let mut frame = vec![0; self.front.link_header_len()];
        frame.extend(packet);
        self.front.send(self.now, frame.into(), &mut self.out)
    }

    /// Lets time pass, with every timeout on its way.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.front.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.front.handle_timeout(self.now, &mut self.out);
        }
        self.now = end;
    }

    pub(crate) fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out.sent)
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let found = self.front.counters().find(|(counter, _)| *counter == name);
        found.unwrap_or_else(|| panic!("no counter {name}")).1
    }
}

fn ip_of(text: &str) -> IpAddress {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// A frame to us from the peer, of the type its IP packet asks for.
pub(crate) fn framed(packet: &[u8]) -> Vec<u8> {
    addressed(OURS, PEER, packet)
}

pub(crate) fn addressed(to: EthernetAddress, from: EthernetAddress, packet: &[u8]) -> Vec<u8> {
    let kind = match packet[0] >> 4 {
        4 => EthernetProtocol::Ipv4,
        6 => EthernetProtocol::Ipv6,
        _ => EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; 14 + packet.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_dst_addr(to);
    frame.set_src_addr(from);
    frame.set_ethertype(kind);
    frame.payload_mut().copy_from_slice(packet);
    bytes
}

/// The same frame with an 802.1Q tag.
pub(crate) fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let mut bytes = frame[..12].to_vec();
    bytes.extend([0x81, 0x00]);
    bytes.extend(vlan.to_be_bytes());
    bytes.extend(&frame[12..]);
    bytes
}

pub(crate) fn ip(from: &str, to: &str, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = IpRepr::new(ip_of(from), ip_of(to), protocol, payload.len(), 64);
    let mut bytes = vec![0; repr.header_len() + payload.len()];
    repr.emit(&mut bytes[..], &ChecksumCapabilities::default());
    bytes[repr.header_len()..].copy_from_slice(payload);
    bytes
}

/// A data segment from port 1000 to port 2000.
pub(crate) fn tcp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: 1000,
        dst_port: 2000,
        control: TcpControl::Psh,
        seq_number: TcpSeqNumber(0x0102_0304),
        ack_number: Some(TcpSeqNumber(0x0506_0708)),
        window_len: 4321,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    let mut segment = vec![0; repr.buffer_len()];
    let mut packet = TcpPacket::new_unchecked(&mut segment);
    repr.emit(&mut packet, &ip_of(from), &ip_of(to), &ChecksumCapabilities::default());
    ip(from, to, IpProtocol::Tcp, &segment)
}

/// Changes a TCP packet and mends its checksums.
pub(crate) fn with_tcp(mut packet: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let (start, from, to): (_, IpAddr, IpAddr) = if packet[0] >> 4 == 4 {
        let [a, b] = [&packet[12..16], &packet[16..20]];
        let octets = |ip: &[u8]| <[u8; 4]>::try_from(ip).unwrap();
        (20, octets(a).into(), octets(b).into())
    } else {
        let [a, b] = [&packet[8..24], &packet[24..40]];
        let octets = |ip: &[u8]| <[u8; 16]>::try_from(ip).unwrap();
        (40, octets(a).into(), octets(b).into())
    };
    change(&mut packet[start..]);
    TcpPacket::new_unchecked(&mut packet[start..]).fill_checksum(&from.into(), &to.into());
    packet
}

/// Changes an IPv4 header and mends its checksum.
pub(crate) fn with_v4(mut packet: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    change(&mut packet);
    let header_len = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = !checksum::data(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An ICMP message of `kind`, `code` and everything from byte 4 on.
pub(crate) fn icmp(from: &str, to: &str, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    if from.contains(':') {
        Icmpv6Packet::new_unchecked(&mut message).fill_checksum(&v6(from), &v6(to));
        ip(from, to, IpProtocol::Icmpv6, &message)
    } else {
        let sum = !checksum::data(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        ip(from, to, IpProtocol::Icmp, &message)
    }
}

/// An echo request with `len` bytes of data.
pub(crate) fn echo(from: &str, to: &str, len: usize) -> Vec<u8> {
    let mut rest = vec![0x12, 0x34, 0, 7];
    rest.extend((0..len).map(|byte| byte as u8));
    icmp(from, to, if from.contains(':') { 128 } else { 8 }, 0, &rest)
}

pub(crate) fn arp(
    operation: ArpOperation,
    mac: EthernetAddress,
    ip: &str,
    target: &str,
) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: v4(ip),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: v4(target),
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    bytes
}

pub(crate) fn arp_request(mac: EthernetAddress, ip: &str, target: &str) -> Vec<u8> {
    addressed(ALL, mac, &arp(ArpOperation::Request, mac, ip, target))
}

pub(crate) fn arp_reply(mac: EthernetAddress, ip: &str, target: &str) -> Vec<u8> {
    addressed(OURS, mac, &arp(ArpOperation::Reply, mac, ip, target))
}

pub(crate) fn parse_arp(frame: &[u8]) -> (ArpOperation, EthernetAddress, Ipv4Addr, Ipv4Addr) {
    assert_eq!(frame[12..14], [8, 6]);
    let packet = ArpPacket::new_checked(&frame[14..]).unwrap();
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).unwrap()
    else {
        panic!("not an ARP packet for IPv4")
    };
    (operation, source_hardware_addr, source_protocol_addr, target_protocol_addr)
}

/// Neighbour discovery from `from` with hop limit 255.
pub(crate) fn nd(from: &str, to: &str, message: NdiscRepr<'_>) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(message);
    let mut bytes = vec![0; message.buffer_len()];
    let mut packet = Icmpv6Packet::new_unchecked(&mut bytes[..]);
    message.emit(&v6(from), &v6(to), &mut packet, &ChecksumCapabilities::default());
    let mut packet = ip(from, to, IpProtocol::Icmpv6, &bytes);
    packet[7] = 255;
    packet
}

pub(crate) fn solicit(target: &str, mac: Option<EthernetAddress>) -> NdiscRepr<'static> {
    NdiscRepr::NeighborSolicit { target_addr: v6(target), lladdr: mac.map(Into::into) }
}

pub(crate) fn advert(
    target: &str,
    mac: EthernetAddress,
    flags: NdiscNeighborFlags,
) -> NdiscRepr<'static> {
    NdiscRepr::NeighborAdvert { flags, target_addr: v6(target), lladdr: Some(mac.into()) }
}

/// Source, destination and message of a sent neighbour discovery frame, checked.
pub(crate) fn parse_nd(frame: &[u8]) -> (Ipv6Addr, Ipv6Addr, NdiscRepr<'_>) {
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    assert_eq!(frame[14 + 7], 255, "hop limit");
    let octets = |range: std::ops::Range<usize>| <[u8; 16]>::try_from(&frame[range]).unwrap();
    let (from, to) = (octets(22..38).into(), octets(38..54).into());
    let packet = Icmpv6Packet::new_checked(&frame[54..]).unwrap();
    assert!(packet.verify_checksum(&from, &to));
    (from, to, NdiscRepr::parse(&packet).unwrap())
}
