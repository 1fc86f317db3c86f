//! What the front says of the frames it is given.

use std::net::IpAddr;

use smoltcp::wire::EthernetAddress;

use super::DropReason;
use crate::flow::FlowKey;

/// What became of a received frame.
#[derive(Debug)]
pub enum Inbound<F> {
    /// A TCP segment for one of our addresses; headers and checksums are in order.
    Tcp {
        /// The frame, cut to the end of the IP packet.
        frame: F,
        /// Where things are in the frame, and the header's values.
        segment: TcpView,
    },
    /// A host told its Ethernet address. Workers of the same port should hear it too, see
    /// [`Front::learn`](super::Front::learn).
    Learned(Heard),
    /// A router or peer could not deliver one of our TCP segments.
    IcmpError(IcmpError),
    /// Answered or used up here.
    Consumed,
    /// Useless, wrong or hostile; already counted.
    Dropped(DropReason),
}

/// A TCP segment, parsed once.
///
/// `frame[ip_start..][..ip_len]` is the IP packet. An IPv6 packet that had extension headers is
/// given without them: its header was moved up to its TCP segment and rewritten. IPv4 options
/// are still in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpView {
    /// The flow, seen from our side.
    pub key: FlowKey,
    /// Where the IP packet starts in the frame.
    pub ip_start: usize,
    /// Bytes of the IP packet.
    pub ip_len: usize,
    /// Where the TCP header starts in the frame.
    pub tcp_start: usize,
    /// Where the payload starts in the frame.
    pub payload_start: usize,
    /// Bytes of payload.
    pub payload_len: usize,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; means nothing without [`TcpFlags::ACK`].
    pub ack: u32,
    /// The flags.
    pub flags: TcpFlags,
    /// Window as it stands in the header, not scaled.
    pub window: u16,
}

/// Flags of a TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push function.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);

    /// Whether `self` has all of `other`.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether `self` and `other` have a flag in common.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for TcpFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What one worker heard of a neighbour, for its siblings'
/// [`Front::learn`](super::Front::learn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The neighbour.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: EthernetAddress,
    /// It spoke to us first, so it is worth an entry even if nobody asked. Answers are only
    /// believed by a worker that asked.
    pub(crate) worth_an_entry: bool,
    /// It may replace an Ethernet address we have (RFC 4861 section 7.2.5).
    pub(crate) overrides: bool,
}

/// An ICMP error that quotes a TCP segment from one of our addresses.
///
/// Anyone can forge one: use it only if `seq` is in the flow's window (RFC 5927 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The flow of the quoted segment, seen from our side.
    pub key: FlowKey,
    /// Sequence number of the quoted segment.
    pub seq: u32,
    /// What went wrong.
    pub kind: IcmpErrorKind,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpErrorKind {
    /// Network, host or address unreachable, or forbidden: may pass, so never fatal to an open
    /// connection (RFC 1122 section 4.2.3.9).
    Unreachable,
    /// Protocol or port unreachable.
    PortUnreachable,
    /// The packet was too big for a link; 0 if the router did not say its MTU.
    TooBig {
        /// That link's MTU in bytes, as claimed.
        mtu: u32,
    },
}

/// What became of a frame to be sent.
#[derive(Debug)]
pub enum Sent<F> {
    /// Pushed to the output.
    Pushed,
    /// Waits for the neighbour's Ethernet address.
    Waiting,
    /// For one of our own addresses: give it to
    /// [`Front::receive_own`](super::Front::receive_own).
    Own(F),
    /// Dropped and counted.
    Dropped(DropReason),
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The neighbour to hand packets to: the destination itself or a gateway.
    pub next_hop: IpAddr,
    /// The address of ours to speak from.
    pub source: IpAddr,
}
