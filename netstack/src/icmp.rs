//! ICMP: echo is answered in the frame it came in, errors are read for whom they concern.
//!
//! Neighbour discovery, which is ICMPv6 too, is in [`nd`](crate::neighbor::nd).

use std::time::{Duration, Instant};

use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, Icmpv4Message, Icmpv6Message, Icmpv6Packet, IpProtocol,
    Ipv4Packet, Ipv6Packet, checksum,
};

use crate::flow::FlowKey;
use crate::front::address::{is_v4, mapped_v4};
use crate::front::ip::{Packet, transport_checksum_is_good};
use crate::front::{DropReason, ECHO_BURST, ECHO_REPLIES_PER_SECOND, IcmpError, IcmpErrorKind};

/// Type, code, checksum, and four bytes that belong to the type.
const HEADER_LEN: usize = 8;
/// The part of a quoted TCP header every router quotes: ports and sequence number (RFC 792).
const QUOTED_TCP_LEN: usize = 8;
/// Hop limit of our replies.
const HOP_LIMIT: u8 = 64;

/// What an ICMP message asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    EchoRequest,
    /// A neighbour solicitation or advertisement.
    Neighbor,
    Error(IcmpError),
}

/// Reads the ICMP message of a packet that is for us.
pub(crate) fn parse(frame: &[u8], packet: &Packet) -> Result<Message, DropReason> {
    let message = &frame[packet.payload..packet.end];
    if message.len() < HEADER_LEN {
        return Err(DropReason::IcmpHeader);
    }
    let is_good = match packet.protocol {
        IpProtocol::Icmp => checksum::data(message) == !0,
        _ => transport_checksum_is_good(frame, packet),
    };
    if !is_good {
        return Err(DropReason::IcmpChecksum);
    }
    let mtu = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    match packet.protocol {
        IpProtocol::Icmp => parse_v4(message, mtu),
        _ => parse_v6(message, mtu),
    }
}

/// RFC 792, RFC 1191.
fn parse_v4(message: &[u8], mtu: u32) -> Result<Message, DropReason> {
    let kind = match (Icmpv4Message::from(message[0]), message[1]) {
        (Icmpv4Message::EchoRequest, 0) => return Ok(Message::EchoRequest),
        (Icmpv4Message::DstUnreachable, 2 | 3) => IcmpErrorKind::PortUnreachable,
        (Icmpv4Message::DstUnreachable, 4) => IcmpErrorKind::TooBig { mtu: mtu & 0xffff },
        (Icmpv4Message::DstUnreachable, 0..=15) => IcmpErrorKind::Unreachable,
        _ => return Err(DropReason::IcmpType),
    };
    let quote = &message[HEADER_LEN..];
    let packet = Ipv4Packet::new_unchecked(quote);
    if quote.len() < IPV4_HEADER_LEN
        || packet.version() != 4
        || usize::from(packet.header_len()) < IPV4_HEADER_LEN
        || packet.next_header() != IpProtocol::Tcp
        || packet.frag_offset() != 0
    {
        return Err(DropReason::IcmpQuote);
    }
    let source = mapped_v4(packet.src_addr().to_bits());
    let destination = mapped_v4(packet.dst_addr().to_bits());
    quoted(kind, source, destination, quote.get(usize::from(packet.header_len())..))
}

/// RFC 4443 section 3, RFC 4861.
fn parse_v6(message: &[u8], mtu: u32) -> Result<Message, DropReason> {
    let kind = match (Icmpv6Message::from(message[0]), message[1]) {
        (Icmpv6Message::EchoRequest, 0) => return Ok(Message::EchoRequest),
        (Icmpv6Message::NeighborSolicit | Icmpv6Message::NeighborAdvert, _) => {
            return Ok(Message::Neighbor);
        }
        (Icmpv6Message::DstUnreachable, 4) => IcmpErrorKind::PortUnreachable,
        (Icmpv6Message::DstUnreachable, 0..=6) => IcmpErrorKind::Unreachable,
        (Icmpv6Message::PktTooBig, _) => IcmpErrorKind::TooBig { mtu },
        _ => return Err(DropReason::IcmpType),
    };
    let quote = &message[HEADER_LEN..];
    let packet = Ipv6Packet::new_unchecked(quote);
    if quote.len() < IPV6_HEADER_LEN
        || packet.version() != 6
        || packet.next_header() != IpProtocol::Tcp
    {
        return Err(DropReason::IcmpQuote);
    }
    let (source, destination) = (packet.src_addr().to_bits(), packet.dst_addr().to_bits());
    if is_v4(source) || is_v4(destination) {
        return Err(DropReason::IcmpQuote);
    }
    quoted(kind, source, destination, quote.get(IPV6_HEADER_LEN..))
}

/// The flow of a quoted segment. We sent it, so its source is our end.
fn quoted(
    kind: IcmpErrorKind,
    source: u128,
    destination: u128,
    segment: Option<&[u8]>,
) -> Result<Message, DropReason> {
    let header = segment.and_then(|segment| segment.first_chunk::<QUOTED_TCP_LEN>());
    let [l0, l1, r0, r1, s0, s1, s2, s3] = *header.ok_or(DropReason::IcmpQuote)?;
    let key = FlowKey {
        local_ip: source,
        remote_ip: destination,
        local_port: u16::from_be_bytes([l0, l1]),
        remote_port: u16::from_be_bytes([r0, r1]),
    };
    Ok(Message::Error(IcmpError { key, seq: u32::from_be_bytes([s0, s1, s2, s3]), kind }))
}

/// Turns the echo request `packet` of `frame` into its reply, to be found at `start` of the
/// frame; returns the reply's length. `start` is at most where the request starts.
///
/// IPv4 options are left out of the reply, so it is never longer than the request.
pub(crate) fn make_echo_reply(frame: &mut [u8], packet: &Packet, start: usize) -> usize {
    let (from, to) = (packet.destination, packet.source);
    let data_len = packet.end - packet.payload;
    if is_v4(to) {
        frame.copy_within(packet.start..packet.start + IPV4_HEADER_LEN, start);
        frame.copy_within(packet.payload..packet.end, start + IPV4_HEADER_LEN);
        let len = IPV4_HEADER_LEN + data_len;
        let (header, message) = frame[start..start + len].split_at_mut(IPV4_HEADER_LEN);
        let mut header = Ipv4Packet::new_unchecked(header);
        header.set_header_len(IPV4_HEADER_LEN as u8);
        header.set_total_len(len as u16); // no longer than the request
        header.set_ecn(0);
        header.set_ident(0);
        header.clear_flags();
        header.set_hop_limit(HOP_LIMIT);
        header.set_src_addr((from as u32).into());
        header.set_dst_addr((to as u32).into());
        header.fill_checksum();
        message[0] = Icmpv4Message::EchoReply.into();
        message[2..4].fill(0);
        let sum = !checksum::data(message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        len
    } else {
        let len = IPV6_HEADER_LEN + data_len;
        frame.copy_within(packet.start..packet.start + len, start);
        let (header, message) = frame[start..start + len].split_at_mut(IPV6_HEADER_LEN);
        let mut header = Ipv6Packet::new_unchecked(header);
        header.set_traffic_class(0);
        header.set_hop_limit(HOP_LIMIT);
        header.set_src_addr(from.to_be_bytes().into());
        header.set_dst_addr(to.to_be_bytes().into());
        let mut message = Icmpv6Packet::new_unchecked(message);
        message.set_msg_type(Icmpv6Message::EchoReply);
        message.fill_checksum(&from.to_be_bytes().into(), &to.to_be_bytes().into());
        len
    }
}

/// Lets [`ECHO_REPLIES_PER_SECOND`] replies pass, [`ECHO_BURST`] of them at once.
///
/// Remembers one moment: the one at which everything let pass so far would have been due at the
/// steady rate. A reply may be ahead of that moment by the burst.
#[derive(Debug, Default)]
pub(crate) struct EchoLimit {
    due: Option<Instant>,
}

impl EchoLimit {
    const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / ECHO_REPLIES_PER_SECOND as u64);

    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let due = self.due.map_or(now, |due| due.max(now));
        if due.saturating_duration_since(now) >= Self::INTERVAL * ECHO_BURST {
            return false;
        }
        self.due = Some(due + Self::INTERVAL);
        true
    }
}
