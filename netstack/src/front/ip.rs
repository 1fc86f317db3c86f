//! IPv4, IPv6 and TCP headers of received packets: each is read once and believed afterwards.
//!
//! Nothing here knows addresses; whether a packet is for us and from somebody is decided by the
//! front. Lengths are checked before anything is read through them, so no byte a peer sends can
//! index outside the frame.

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, checksum,
};

use super::address::{is_v4, mapped_v4};
use super::{DropReason, TcpFlags, TcpView};
use crate::flow::FlowKey;

/// Most extension headers of an IPv6 packet.
const EXTENSIONS_MAX: usize = 4;
/// Most bytes they have together.
const EXTENSIONS_LEN_MAX: usize = 256;
/// Extension headers count their length in units of this, the first one free.
const EXTENSION_UNIT: usize = 8;
/// The option of one byte (RFC 8200 section 4.2).
const OPTION_PAD1: u8 = 0;
/// Set in an option's type if a host that does not know it must not take the packet.
const OPTION_DISCARD_BITS: u8 = 0xc0;

/// An IP packet whose header is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Where the packet starts in the frame.
    pub(crate) start: usize,
    /// Where its payload starts.
    pub(crate) payload: usize,
    /// Where it ends; what follows in the frame is padding.
    pub(crate) end: usize,
    pub(crate) protocol: IpProtocol,
    pub(crate) source: u128,
    pub(crate) destination: u128,
    pub(crate) hop_limit: u8,
}

/// Where the IP packet `packet`, one of our own making, is to go.
pub(crate) fn destination(packet: &[u8]) -> Option<u128> {
    match packet.first()? >> 4 {
        4 => packet.get(16..)?.first_chunk().map(|ip| mapped_v4(u32::from_be_bytes(*ip))),
        6 => packet.get(24..)?.first_chunk().map(|ip| u128::from_be_bytes(*ip)),
        _ => None,
    }
}

/// Reads the IPv4 header at `start`.
pub(crate) fn parse_v4(frame: &[u8], start: usize, verify: bool) -> Result<Packet, DropReason> {
    let packet = Ipv4Packet::new_checked(&frame[start..]).map_err(|_| DropReason::IpHeader)?;
    let header_len = usize::from(packet.header_len());
    if packet.version() != 4 || header_len < IPV4_HEADER_LEN {
        return Err(DropReason::IpHeader);
    }
    if verify && checksum::data(&frame[start..start + header_len]) != !0 {
        return Err(DropReason::IpChecksum);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Err(DropReason::IpFragment);
    }
    Ok(Packet {
        start,
        payload: start + header_len,
        end: start + usize::from(packet.total_len()),
        protocol: packet.next_header(),
        source: mapped_v4(packet.src_addr().to_bits()),
        destination: mapped_v4(packet.dst_addr().to_bits()),
        hop_limit: packet.hop_limit(),
    })
}

/// Reads the IPv6 header at `start`. Extension headers that may be skipped are taken out: the
/// fixed header is moved up to the payload and rewritten, so everyone after us sees a plain one.
pub(crate) fn parse_v6(frame: &mut [u8], start: usize) -> Result<Packet, DropReason> {
    let packet = Ipv6Packet::new_checked(&frame[start..]).map_err(|_| DropReason::IpHeader)?;
    if packet.version() != 6 {
        return Err(DropReason::IpHeader);
    }
    let source = packet.src_addr().to_bits();
    let destination = packet.dst_addr().to_bits();
    // On the wire these stand for nobody (RFC 4291 section 2.5.5.2), in our tables for IPv4.
    if is_v4(source) || is_v4(destination) {
        return Err(DropReason::IpSource);
    }
    let hop_limit = packet.hop_limit();
    let end = start + packet.total_len();
    let extensions = start + IPV6_HEADER_LEN;
    let (payload, protocol) = skip_extensions(&frame[..end], extensions, packet.next_header())?;
    let start = if payload > extensions {
        frame.copy_within(start..extensions, payload - IPV6_HEADER_LEN);
        payload - IPV6_HEADER_LEN
    } else {
        start
    };
    if payload > extensions {
        let mut plain = Ipv6Packet::new_unchecked(&mut frame[start..]);
        plain.set_payload_len((end - payload) as u16); // less than the u16 it was
        plain.set_next_header(protocol);
    }
    Ok(Packet { start, payload, end, protocol, source, destination, hop_limit })
}

/// Where the first header that is no extension starts, and what it is.
fn skip_extensions(
    packet: &[u8],
    mut at: usize,
    mut next: IpProtocol,
) -> Result<(usize, IpProtocol), DropReason> {
    let limit = packet.len().min(at + EXTENSIONS_LEN_MAX);
    for index in 0..=EXTENSIONS_MAX {
        match next {
            // Only directly after the fixed header (RFC 8200 section 4.1).
            IpProtocol::HopByHop if index == 0 => {}
            IpProtocol::Ipv6Opts => {}
            IpProtocol::Ipv6Frag => return Err(DropReason::IpFragment),
            IpProtocol::HopByHop | IpProtocol::Ipv6Route => return Err(DropReason::IpExtension),
            _ => return Ok((at, next)),
        }
        let [kind, units, ..] = packet[at..] else {
            return Err(DropReason::IpExtension);
        };
        let end = at + EXTENSION_UNIT * (1 + usize::from(units));
        if end > limit {
            return Err(DropReason::IpExtension);
        }
        check_options(&packet[at + 2..end])?;
        next = kind.into();
        at = end;
    }
    Err(DropReason::IpExtension)
}

/// Refuses options that are malformed or that we would have to understand.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let [kind, rest @ ..] = options {
        options = rest;
        if *kind != OPTION_PAD1 {
            let [len, rest @ ..] = options else {
                return Err(DropReason::IpExtension);
            };
            options = rest.get(usize::from(*len)..).ok_or(DropReason::IpExtension)?;
        }
        if kind & OPTION_DISCARD_BITS != 0 {
            return Err(DropReason::IpExtension);
        }
    }
    Ok(())
}

/// Whether the checksum of a TCP or ICMPv6 packet is right, pseudo-header included
/// (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub(crate) fn transport_checksum_is_good(frame: &[u8], packet: &Packet) -> bool {
    let addresses = match is_v4(packet.source) {
        true => &frame[packet.start + 12..packet.start + IPV4_HEADER_LEN],
        false => &frame[packet.start + 8..packet.start + IPV6_HEADER_LEN],
    };
    let sum = checksum::combine(&[
        checksum::data(addresses),
        u8::from(packet.protocol).into(),
        (packet.end - packet.payload) as u16, // an IP length, so it fits
        checksum::data(&frame[packet.payload..packet.end]),
    ]);
    sum == !0
}

/// Reads the TCP header of `packet`.
pub(crate) fn parse_tcp(
    frame: &[u8],
    packet: &Packet,
    verify: bool,
) -> Result<TcpView, DropReason> {
    let segment = &frame[packet.payload..packet.end];
    let tcp = TcpPacket::new_checked(segment).map_err(|_| DropReason::TcpHeader)?;
    if tcp.src_port() == 0 || tcp.dst_port() == 0 {
        return Err(DropReason::TcpHeader);
    }
    if verify && !transport_checksum_is_good(frame, packet) {
        return Err(DropReason::TcpChecksum);
    }
    let flags = TcpFlags(segment[13] & 0x3f);
    let impossible_with_syn = TcpFlags::FIN | TcpFlags::RST;
    if flags.0 == 0 || flags.contains(TcpFlags::SYN) && flags.intersects(impossible_with_syn) {
        return Err(DropReason::TcpFlags);
    }
    let payload_start = packet.payload + usize::from(tcp.header_len());
    Ok(TcpView {
        key: FlowKey {
            local_ip: packet.destination,
            remote_ip: packet.source,
            local_port: tcp.dst_port(),
            remote_port: tcp.src_port(),
        },
        ip_start: packet.start,
        ip_len: packet.end - packet.start,
        tcp_start: packet.payload,
        payload_start,
        payload_len: packet.end - payload_start,
        seq: tcp.seq_number().0 as u32,
        ack: tcp.ack_number().0 as u32,
        flags,
        window: tcp.window_len(),
    })
}
