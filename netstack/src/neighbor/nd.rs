//! Neighbour discovery (RFC 4861): IPv6's way to ask for, tell and announce Ethernet addresses.
//!
//! | received | done |
//! | --- | --- |
//! | solicitation for one of our addresses | answered; the sender gets an entry |
//! | solicitation from `::` (duplicate detection) for one of ours | answered to all nodes |
//! | advertisement | believed if there is an entry; without *override* it changes no address |
//! | advertisement of one of our addresses | counted as a conflict |
//!
//! Everything that has passed a router, and so could come from anywhere, has a hop limit below
//! 255 and is dropped.

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetProtocol, IPV6_HEADER_LEN, IPV6_LINK_LOCAL_ALL_NODES, Icmpv6Packet,
    Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};

use super::Ask;
use crate::device::Frame;
use crate::front::address::{group_mac, is_v4, solicited_node};
use crate::front::count::Event;
use crate::front::ip::Packet;
use crate::front::{DropReason, Heard, Output};
use crate::l2::{Ethernet, Link};

/// The hop limit of packets that never left the link (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;
const MAC_LEN: usize = 6;

/// Reads a solicitation or advertisement whose checksum was found right, and answers it. What it
/// tells of a neighbour is returned.
pub(crate) fn receive<F: Frame>(
    link: &mut Link,
    ethernet: &Ethernet,
    packet: &Packet,
    message: &[u8],
    out: &mut impl Output<F>,
) -> Result<Option<Heard>, DropReason> {
    let icmp = Icmpv6Packet::new_checked(message).map_err(|_| DropReason::NdHeader)?;
    if packet.hop_limit != HOP_LIMIT || icmp.msg_code() != 0 {
        return Err(DropReason::NdHeader);
    }
    match NdiscRepr::parse(&icmp) {
        Ok(NdiscRepr::NeighborSolicit { target_addr, lladdr }) => {
            solicited(link, ethernet, packet, target_addr, ethernet_of(lladdr)?, out)
        }
        Ok(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) => {
            advertised(link, packet, flags, target_addr, ethernet_of(lladdr)?)
        }
        _ => Err(DropReason::NdHeader),
    }
}

/// RFC 4861 sections 7.1.1 and 7.2.3.
fn solicited<F: Frame>(
    link: &mut Link,
    ethernet: &Ethernet,
    packet: &Packet,
    target: Ipv6Addr,
    mac: Option<EthernetAddress>,
    out: &mut impl Output<F>,
) -> Result<Option<Heard>, DropReason> {
    let is_probe = packet.source == 0;
    if target.is_multicast() {
        return Err(DropReason::NdHeader);
    }
    if is_probe
        && (mac.is_some() || packet.destination != solicited_node(target.to_bits()).to_bits())
    {
        return Err(DropReason::NdHeader);
    }
    if !link.addresses.is_own(target.to_bits()) {
        return Err(DropReason::NdNotOurs);
    }
    // The source is on this link or the hop limit would tell, so no route is needed to answer.
    let (to, to_mac, flags) = if is_probe {
        let all = IPV6_LINK_LOCAL_ALL_NODES;
        (all, group_mac(all), NdiscNeighborFlags::OVERRIDE)
    } else {
        let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
        (Ipv6Addr::from_bits(packet.source), mac.unwrap_or(ethernet.source), flags)
    };
    advertise(link, target, to, to_mac, flags, out);
    Ok(mac.filter(|_| link.addresses.source_on_link(packet.source).is_some()).map(|mac| Heard {
        ip: Ipv6Addr::from_bits(packet.source).into(),
        mac,
        worth_an_entry: true,
        overrides: true,
    }))
}

/// RFC 4861 sections 7.1.2 and 7.2.5.
fn advertised(
    link: &mut Link,
    packet: &Packet,
    flags: NdiscNeighborFlags,
    target: Ipv6Addr,
    mac: Option<EthernetAddress>,
) -> Result<Option<Heard>, DropReason> {
    let is_to_all = !link.addresses.is_own(packet.destination);
    let is_solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
    if packet.source == 0 || target.is_multicast() || is_to_all && is_solicited {
        return Err(DropReason::NdHeader);
    }
    if link.addresses.is_own(target.to_bits()) {
        if mac != Some(link.mac) {
            link.counts.event(Event::AddressConflict);
        }
        return Err(DropReason::NdNotOurs);
    }
    if link.addresses.source_on_link(target.to_bits()).is_none() {
        return Err(DropReason::NdNotOurs);
    }
    Ok(mac.map(|mac| Heard {
        ip: target.into(),
        mac,
        worth_an_entry: false,
        overrides: flags.contains(NdiscNeighborFlags::OVERRIDE),
    }))
}

/// Asks for an address.
pub(crate) fn ask<F: Frame>(link: &mut Link, ask: Ask, out: &mut impl Output<F>) {
    let Some(source) = link.addresses.source_on_link(ask.ip) else {
        return;
    };
    let target = Ipv6Addr::from_bits(ask.ip);
    let (to, to_mac) = match ask.mac {
        Some(mac) => (target, mac),
        None => (solicited_node(ask.ip), group_mac(solicited_node(ask.ip))),
    };
    let lladdr = Some(link.mac.into());
    let solicit = NdiscRepr::NeighborSolicit { target_addr: target, lladdr };
    send(link, Ipv6Addr::from_bits(source), to, to_mac, solicit, Event::NdSolicitSent, out);
}

/// Tells everybody that `ip` is ours.
pub(crate) fn announce<F: Frame>(link: &mut Link, ip: u128, out: &mut impl Output<F>) {
    if !is_v4(ip) {
        let all = IPV6_LINK_LOCAL_ALL_NODES;
        let ip = Ipv6Addr::from_bits(ip);
        advertise(link, ip, all, group_mac(all), NdiscNeighborFlags::OVERRIDE, out);
    }
}

fn advertise<F: Frame>(
    link: &mut Link,
    target: Ipv6Addr,
    to: Ipv6Addr,
    to_mac: EthernetAddress,
    flags: NdiscNeighborFlags,
    out: &mut impl Output<F>,
) {
    let lladdr = Some(link.mac.into());
    let advert = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr };
    send(link, target, to, to_mac, advert, Event::NdAdvertSent, out);
}

fn send<F: Frame>(
    link: &mut Link,
    from: Ipv6Addr,
    to: Ipv6Addr,
    to_mac: EthernetAddress,
    message: NdiscRepr<'_>,
    event: Event,
    out: &mut impl Output<F>,
) {
    let message = Icmpv6Repr::Ndisc(message);
    let header = Ipv6Repr {
        src_addr: from,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: HOP_LIMIT,
    };
    let write = |bytes: &mut [u8]| {
        header.emit(&mut Ipv6Packet::new_unchecked(&mut *bytes));
        let mut packet = Icmpv6Packet::new_unchecked(&mut bytes[IPV6_HEADER_LEN..]);
        message.emit(&from, &to, &mut packet, &ChecksumCapabilities::default());
    };
    let len = IPV6_HEADER_LEN + message.buffer_len();
    if link.push_new(to_mac, EthernetProtocol::Ipv6, len, write, out).is_ok() {
        link.counts.event(event);
    }
}

/// The Ethernet address of a link-layer address option; one no host can have is an error.
fn ethernet_of(option: Option<RawHardwareAddress>) -> Result<Option<EthernetAddress>, DropReason> {
    let Some(raw) = option else { return Ok(None) };
    let bytes = raw.as_bytes().get(..MAC_LEN).ok_or(DropReason::NdHeader)?;
    let mac = EthernetAddress::from_bytes(bytes);
    if mac.is_unicast() { Ok(Some(mac)) } else { Err(DropReason::NdHeader) }
}
