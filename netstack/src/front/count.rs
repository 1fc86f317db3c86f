//! What the front counts: every frame it drops, by reason, and every event worth a number.

/// Why a frame went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter than its Ethernet header or tag.
    EthernetTooShort,
    /// Sent from a multicast Ethernet address.
    EthernetSource,
    /// For another Ethernet address than ours.
    EthernetNotOurs,
    /// Tagged for a VLAN we are not on.
    OtherVlan,
    /// Neither ARP, IPv4 nor IPv6, or a family none of our addresses belongs to.
    EtherType,
    /// IP header too short, of a wrong version, or with lengths that contradict each other.
    IpHeader,
    /// IPv4 header checksum wrong.
    IpChecksum,
    /// An IP fragment; TCP never needs one between peers that agree on an MSS.
    IpFragment,
    /// IPv6 extension headers too many, too long, malformed, or with an order to discard.
    IpExtension,
    /// An IP source no host may have: multicast, broadcast, unspecified, loopback, v4-mapped.
    IpSource,
    /// An own address as the source of a frame from outside (LAND).
    IpSourceOurs,
    /// For an IP address that is not ours.
    IpNotOurs,
    /// A transport we do not speak.
    IpProtocol,
    /// TCP header too short, longer than the packet, or with a port of 0.
    TcpHeader,
    /// TCP flags no host sends: none, SYN with FIN, SYN with RST.
    TcpFlags,
    /// TCP checksum wrong.
    TcpChecksum,
    /// The device found a checksum wrong.
    DeviceChecksum,
    /// TCP or an echo request in an Ethernet broadcast or multicast.
    NotUnicast,
    /// Malformed ICMP.
    IcmpHeader,
    /// ICMP checksum wrong.
    IcmpChecksum,
    /// An ICMP message that means nothing to us.
    IcmpType,
    /// An ICMP error about something we cannot have sent.
    IcmpQuote,
    /// More echo requests than [`ECHO_REPLIES_PER_SECOND`](super::ECHO_REPLIES_PER_SECOND).
    EchoLimit,
    /// Malformed ARP.
    ArpHeader,
    /// ARP with a sender no host of our links may have.
    ArpSender,
    /// ARP about somebody else.
    ArpNotOurs,
    /// Malformed neighbour discovery, or some that crossed a router.
    NdHeader,
    /// Neighbour discovery about somebody else.
    NdNotOurs,
    /// An outgoing packet is no IP, too short, or longer than the MTU.
    SendPacket,
    /// An outgoing packet has no route.
    SendNoRoute,
    /// An outgoing frame found the transmit queue full.
    SendQueueFull,
    /// No frame could be had for an outgoing packet.
    SendNoFrame,
    /// Waited for a neighbour and had to make room for a newer frame.
    WaitOverflow,
    /// Waited for a neighbour that did not answer, or that was evicted.
    WaitUnreachable,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::NAMES.len();

    const NAMES: [&str; 34] = [
        "drop_ethernet_too_short",
        "drop_ethernet_source",
        "drop_ethernet_not_ours",
        "drop_other_vlan",
        "drop_ether_type",
        "drop_ip_header",
        "drop_ip_checksum",
        "drop_ip_fragment",
        "drop_ip_extension",
        "drop_ip_source",
        "drop_ip_source_ours",
        "drop_ip_not_ours",
        "drop_ip_protocol",
        "drop_tcp_header",
        "drop_tcp_flags",
        "drop_tcp_checksum",
        "drop_device_checksum",
        "drop_not_unicast",
        "drop_icmp_header",
        "drop_icmp_checksum",
        "drop_icmp_type",
        "drop_icmp_quote",
        "drop_echo_limit",
        "drop_arp_header",
        "drop_arp_sender",
        "drop_arp_not_ours",
        "drop_nd_header",
        "drop_nd_not_ours",
        "drop_send_packet",
        "drop_send_no_route",
        "drop_send_queue_full",
        "drop_send_no_frame",
        "drop_wait_overflow",
        "drop_wait_unreachable",
    ];

    /// The counter's name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Things that happened and are no loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Event {
    ArpRequestSent,
    ArpReplySent,
    NdSolicitSent,
    NdAdvertSent,
    EchoReplySent,
    IcmpError,
    AddressConflict,
    NeighborMoved,
    NeighborUnasked,
    NeighborEvicted,
    NeighborRefused,
    NeighborUnreachable,
}

impl Event {
    const NAMES: [&str; 12] = [
        "arp_requests_sent",
        "arp_replies_sent",
        "nd_solicits_sent",
        "nd_adverts_sent",
        "echo_replies_sent",
        "icmp_errors",
        "address_conflicts",
        "neighbors_moved",
        "neighbors_unasked",
        "neighbors_evicted",
        "neighbors_refused",
        "neighbors_unreachable",
    ];
}

/// One fixed slot per reason and per event.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    drops: [u64; DropReason::COUNT],
    events: [u64; Event::NAMES.len()],
}

impl Default for Counts {
    fn default() -> Self {
        Self { drops: [0; DropReason::COUNT], events: [0; Event::NAMES.len()] }
    }
}

impl Counts {
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events[event as usize] += 1;
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Names and values, always in the same order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let events = Event::NAMES.into_iter().zip(self.events);
        let drops = DropReason::NAMES.into_iter().zip(self.drops);
        events.chain(drops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_event_has_its_own_name() {
        assert_eq!(DropReason::WaitUnreachable as usize + 1, DropReason::COUNT);
        assert_eq!(Event::NeighborUnreachable as usize + 1, Event::NAMES.len());
        let mut names: Vec<_> = Counts::default().iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT + Event::NAMES.len());
        assert_eq!(DropReason::TcpChecksum.name(), "drop_tcp_checksum");
        assert_eq!(DropReason::WaitOverflow.name(), "drop_wait_overflow");
    }
}
