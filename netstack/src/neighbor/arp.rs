//! ARP (RFC 826, RFC 5227): IPv4's way to ask for, tell and announce Ethernet addresses.
//!
//! | received | done |
//! | --- | --- |
//! | request for one of our addresses | answered; the sender gets an entry |
//! | probe (sender 0.0.0.0) for one of ours | answered, nothing learnt |
//! | reply to us | believed if there is an entry, that is, if it was asked for |
//! | announcement (sender and target the same) | may change an entry, never makes one |
//! | anything from one of our addresses | counted as a conflict |

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};

use super::Ask;
use crate::device::Frame;
use crate::front::address::{mapped, v4};
use crate::front::count::Event;
use crate::front::{DropReason, Heard, Output};
use crate::l2::Link;

const NOBODY: EthernetAddress = EthernetAddress([0; 6]);

/// Reads an ARP packet and answers it. What it tells of its sender is returned.
pub(crate) fn receive<F: Frame>(
    link: &mut Link,
    packet: &[u8],
    out: &mut impl Output<F>,
) -> Result<Option<Heard>, DropReason> {
    let parsed = ArpPacket::new_checked(packet).and_then(|packet| ArpRepr::parse(&packet));
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: ip,
        target_protocol_addr: target,
        ..
    }) = parsed
    else {
        return Err(DropReason::ArpHeader);
    };
    let sender = mapped(ip.into());
    if link.addresses.is_own(sender) {
        if mac != link.mac {
            link.counts.event(Event::AddressConflict);
        }
        return Err(DropReason::ArpSender);
    }
    let is_probe = ip.is_unspecified();
    if !mac.is_unicast() || !is_probe && link.addresses.source_on_link(sender).is_none() {
        return Err(DropReason::ArpSender);
    }
    if !is_probe && !link.addresses.is_plausible_source(sender) {
        return Err(DropReason::ArpSender);
    }
    let for_us = link.addresses.is_own(mapped(target.into()));
    let asked = operation == ArpOperation::Request && for_us;
    if asked {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: link.mac,
            source_protocol_addr: target,
            target_hardware_addr: mac,
            target_protocol_addr: ip,
        };
        send(link, mac, reply, Event::ArpReplySent, out);
    } else if !for_us && ip != target {
        return Err(DropReason::ArpNotOurs);
    }
    Ok((!is_probe).then_some(Heard { ip: ip.into(), mac, worth_an_entry: asked, overrides: true }))
}

/// Asks for an address.
pub(crate) fn ask<F: Frame>(link: &mut Link, ask: Ask, out: &mut impl Output<F>) {
    let source = link.addresses.source_on_link(ask.ip).and_then(v4);
    let (Some(source), Some(target)) = (source, v4(ask.ip)) else {
        return;
    };
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: link.mac,
        source_protocol_addr: source,
        target_hardware_addr: ask.mac.unwrap_or(NOBODY),
        target_protocol_addr: target,
    };
    let to = ask.mac.unwrap_or(EthernetAddress::BROADCAST);
    send(link, to, request, Event::ArpRequestSent, out);
}

/// Tells everybody that `ip` is ours.
pub(crate) fn announce<F: Frame>(link: &mut Link, ip: u128, out: &mut impl Output<F>) {
    let Some(ip) = v4(ip) else { return };
    let announcement = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: link.mac,
        source_protocol_addr: ip,
        target_hardware_addr: NOBODY,
        target_protocol_addr: ip,
    };
    send(link, EthernetAddress::BROADCAST, announcement, Event::ArpRequestSent, out);
}

fn send<F: Frame>(
    link: &mut Link,
    to: EthernetAddress,
    packet: ArpRepr,
    event: Event,
    out: &mut impl Output<F>,
) {
    let write = |bytes: &mut [u8]| packet.emit(&mut ArpPacket::new_unchecked(bytes));
    if link.push_new(to, EthernetProtocol::Arp, packet.buffer_len(), write, out).is_ok() {
        link.counts.event(event);
    }
}
