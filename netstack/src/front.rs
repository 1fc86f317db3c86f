//! The front: everything between an Ethernet frame and a TCP segment that is ours.
//!
//! ```text
//!    rx_burst                                                     tx_burst
//!       | receive(now, frame, out)                                    ^
//!       v                                                             |
//!    Ethernet, VLAN ----> IPv4 / IPv6 ----> TCP checks ----> Inbound::Tcp (parsed once)
//!       |                     |                                       | out.push(frame)
//!       +--> ARP              +--> ICMP echo, errors, ND              |
//!             \________________________/                              |
//!                 neighbour table  <------ send(now, frame, out) -----+
//! ```
//!
//! One front serves one worker and is used by its thread alone. It does no I/O: frames and the
//! time are handed in, frames to be sent go to an [`Output`], and after every call
//! [`Front::poll_timeout`] says when [`Front::handle_timeout`] is wanted next. What is received
//! is either passed on, answered here, or dropped with a counted [`DropReason`]; nothing a peer
//! sends makes the front allocate beyond its named limits, and nothing makes it panic.
//!
//! What is left out on purpose: IP fragments (dropped and counted), duplicate address detection
//! for our own addresses (they are configured by hand; other hosts' detection is answered, and
//! conflicts are counted), multicast listener reports (a switch that snoops MLD *and* has a
//! querier needs its snooping off), and router discovery (the gateway is configured).

use std::net::IpAddr;
use std::time::Instant;

use arrayvec::ArrayVec;
use smoltcp::wire::{EthernetProtocol, IpProtocol};

use crate::device::{ChecksumState, Frame};
use crate::icmp::{self, EchoLimit, Message};
use crate::l2::{Ethernet, Link};
use crate::neighbor::{Neighbors, arp, nd};
use count::Event;
use ip::Packet;

pub(crate) mod address;
mod config;
pub(crate) mod count;
pub(crate) mod ip;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verdict;

pub use config::{FrontConfig, FrontConfigError, NeighborTimers};
pub use count::DropReason;
pub use verdict::{Heard, IcmpError, IcmpErrorKind, Inbound, Route, Sent, TcpFlags, TcpView};

/// Most addresses a front can have, the automatic link-local one not counted.
pub const ADDRS_MAX: usize = 16;
/// Most neighbours a worker remembers.
pub const NEIGHBORS_MAX: usize = 1024;
/// Most neighbours that may be asked for at one time.
pub const UNRESOLVED_MAX: usize = 256;
/// Most frames that wait for one neighbour's address.
pub const WAITING_PER_NEIGHBOR_MAX: usize = 16;
/// Most frames that wait for all neighbours together.
pub const WAITING_MAX: usize = 256;
/// Echo requests answered in a second, over a burst of [`ECHO_BURST`].
pub const ECHO_REPLIES_PER_SECOND: u32 = 10_000;
/// Echo requests answered at once after a pause.
pub const ECHO_BURST: u32 = 64;

/// What the worker lends for output.
pub trait Output<F> {
    /// A frame of `len` bytes with undefined contents; `None` if there is no memory now.
    fn alloc(&mut self, len: usize) -> Option<F>;

    /// Queues a frame that is ready for the wire.
    ///
    /// # Errors
    /// Gives the frame back if the queue is full; it is then dropped and counted.
    fn push(&mut self, frame: F) -> Result<(), F>;
}

/// Ethernet, ARP, ND, ICMP echo and header checks of one worker.
#[derive(Debug)]
pub struct Front<F> {
    link: Link,
    neighbors: Neighbors<F>,
    echo_limit: EchoLimit,
    verify_checksums: bool,
}

/// A received frame that is for us and in order.
enum Accepted {
    Tcp(Ethernet, TcpView),
    Arp(Ethernet),
    Icmp(Ethernet, Packet, Message),
}

impl<F: Frame> Front<F> {
    /// A front that knows no neighbour yet.
    ///
    /// # Errors
    /// See [`FrontConfigError`].
    pub fn new(config: &FrontConfig) -> Result<Self, FrontConfigError> {
        Ok(Self {
            link: Link::new(config)?,
            neighbors: Neighbors::new(config.neighbor),
            echo_limit: EchoLimit::default(),
            verify_checksums: config.verify_checksums,
        })
    }

    /// Bytes of the Ethernet header of sent frames: 14, or 18 with a VLAN tag. A frame given to
    /// [`Front::send`] has its IP packet there.
    pub fn link_header_len(&self) -> usize {
        self.link.header_len()
    }

    /// Looks at one received frame.
    pub fn receive(&mut self, now: Instant, mut frame: F, out: &mut impl Output<F>) -> Inbound<F> {
        match self.accept(&mut frame) {
            Ok(Accepted::Tcp(ethernet, segment)) => {
                if self.neighbors.has_aging() {
                    self.neighbors.confirm(now, segment.key.remote_ip, ethernet.source);
                }
                frame.truncate(segment.ip_start + segment.ip_len);
                Inbound::Tcp { frame, segment }
            }
            Ok(Accepted::Arp(ethernet)) => {
                let heard = arp::receive(&mut self.link, &frame.bytes()[ethernet.payload..], out);
                self.heard(now, heard, out)
            }
            Ok(Accepted::Icmp(ethernet, packet, message)) => {
                self.receive_icmp(now, frame, &ethernet, &packet, message, out)
            }
            Err(reason) => Inbound::Dropped(self.link.dropped(reason)),
        }
    }

    /// Looks at a frame that [`Front::send`] gave back as [`Sent::Own`]. Checksums are not tested.
    pub fn receive_own(&mut self, mut frame: F) -> Inbound<F> {
        let start = self.link.header_len();
        let bytes = frame.bytes_mut();
        let parsed = match bytes.get(start).map(|first| first >> 4) {
            Some(4) => ip::parse_v4(bytes, start, false),
            Some(6) => ip::parse_v6(bytes, start),
            _ => Err(DropReason::IpHeader),
        };
        let accepted = parsed.and_then(|packet| match packet.protocol {
            IpProtocol::Tcp => ip::parse_tcp(bytes, &packet, false),
            _ => Err(DropReason::IpProtocol),
        });
        match accepted {
            Ok(segment) => {
                frame.truncate(segment.ip_start + segment.ip_len);
                Inbound::Tcp { frame, segment }
            }
            Err(reason) => Inbound::Dropped(self.link.dropped(reason)),
        }
    }

    /// Sends a frame: [`Front::link_header_len`] bytes of room, then an IP packet up to its end.
    ///
    /// The Ethernet header is filled in from the route and the neighbour table. On a miss the
    /// frame waits, and the neighbour is asked once, however many frames wait for it.
    pub fn send(&mut self, now: Instant, frame: F, out: &mut impl Output<F>) -> Sent<F> {
        let packet = frame.bytes().get(self.link.header_len()..).unwrap_or_default();
        let destination = match ip::destination(packet) {
            Some(destination) if packet.len() <= self.link.mtu => destination,
            _ => return Sent::Dropped(self.link.dropped(DropReason::SendPacket)),
        };
        let Some((next_hop, _)) = self.link.addresses.route(destination) else {
            return Sent::Dropped(self.link.dropped(DropReason::SendNoRoute));
        };
        if let Some(mac) = self.neighbors.resolve(now, next_hop) {
            return match self.link.push(mac, kind_of(destination), frame, out) {
                Ok(()) => Sent::Pushed,
                Err(reason) => Sent::Dropped(reason),
            };
        }
        if next_hop == destination && self.link.addresses.is_own(destination) {
            return Sent::Own(frame);
        }
        self.neighbors.wait(now, next_hop, frame, &mut self.link.counts);
        self.ask(out);
        Sent::Waiting
    }

    /// What a sibling worker heard. May release frames that waited.
    pub fn learn(&mut self, now: Instant, heard: Heard, out: &mut impl Output<F>) {
        if !self.neighbors.heard(now, &heard, &mut self.link.counts) {
            return;
        }
        let ip = address::mapped(heard.ip);
        while let Some(frame) = self.neighbors.take_waiting(ip) {
            // A frame through a gateway may be of another destination, never of another family.
            let _counted = self.link.push(heard.mac, kind_of(ip), frame, out);
        }
    }

    /// Announces our addresses to the link (gratuitous ARP, unsolicited advertisements).
    ///
    /// One worker of a port is enough.
    pub fn link_up(&mut self, _now: Instant, out: &mut impl Output<F>) {
        let own: ArrayVec<u128, { ADDRS_MAX + 1 }> = self.link.addresses.iter().collect();
        for ip in own {
            arp::announce(&mut self.link, ip, out);
            nd::announce(&mut self.link, ip, out);
        }
    }

    /// Does what is due. Call it when [`Front::poll_timeout`] has come; earlier is harmless.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Output<F>) {
        self.neighbors.handle_timeout(now, &mut self.link.counts);
        self.ask(out);
    }

    /// When [`Front::handle_timeout`] is wanted; `None`: not before the next other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.neighbors.poll_timeout()
    }

    /// The next neighbour that did not answer, see [`Route::next_hop`]; each is told once.
    pub fn unreachable(&mut self) -> Option<IpAddr> {
        self.neighbors.unreachable().map(address::unmapped)
    }

    /// Whether `ip` is one of our addresses.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.link.addresses.is_own(address::mapped(ip))
    }

    /// The way to `dst`; `None` if there is none.
    pub fn route(&self, dst: IpAddr) -> Option<Route> {
        let (next_hop, source) = self.link.addresses.route(address::mapped(dst))?;
        let (next_hop, source) = (address::unmapped(next_hop), address::unmapped(source));
        Some(Route { next_hop, source })
    }

    /// How often a frame was dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.link.counts.dropped(reason)
    }

    /// Names and values of all counters, always in the same order.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let gauges = [
            ("neighbors", self.neighbors.len() as u64),
            ("neighbor_waiting_frames_in_use", self.neighbors.waiting_len() as u64),
        ];
        gauges.into_iter().chain(self.link.counts.iter())
    }

    /// Received frames with a checksum that is wrong, whoever found out.
    pub fn bad_checksums(&self) -> u64 {
        let reasons = [
            DropReason::IpChecksum,
            DropReason::TcpChecksum,
            DropReason::IcmpChecksum,
            DropReason::DeviceChecksum,
        ];
        reasons.iter().map(|reason| self.link.counts.dropped(*reason)).sum()
    }

    /// See [`Neighbors::reserved`].
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> [usize; 4] {
        self.neighbors.reserved()
    }

    /// Reads a frame's headers down to TCP, ARP or ICMP and says whether it is for us.
    fn accept(&self, frame: &mut F) -> Result<Accepted, DropReason> {
        let verify = match frame.checksum() {
            ChecksumState::Bad => return Err(DropReason::DeviceChecksum),
            ChecksumState::Good => false,
            ChecksumState::Unknown => self.verify_checksums,
        };
        let bytes = frame.bytes_mut();
        let ethernet = self.link.parse(bytes)?;
        let packet = match ethernet.kind {
            EthernetProtocol::Ipv4 => ip::parse_v4(bytes, ethernet.payload, verify)?,
            EthernetProtocol::Ipv6 => ip::parse_v6(bytes, ethernet.payload)?,
            EthernetProtocol::Arp => return Ok(Accepted::Arp(ethernet)),
            EthernetProtocol::Unknown(_) => return Err(DropReason::EtherType),
        };
        self.check_addresses(&packet)?;
        match packet.protocol {
            IpProtocol::Tcp
                if ethernet.unicast && self.link.addresses.is_own(packet.destination) =>
            {
                Ok(Accepted::Tcp(ethernet, ip::parse_tcp(bytes, &packet, verify)?))
            }
            IpProtocol::Tcp => Err(DropReason::NotUnicast),
            IpProtocol::Icmp if ethernet.kind == EthernetProtocol::Ipv4 => {
                Ok(Accepted::Icmp(ethernet, packet, icmp::parse(bytes, &packet)?))
            }
            IpProtocol::Icmpv6 if ethernet.kind == EthernetProtocol::Ipv6 => {
                Ok(Accepted::Icmp(ethernet, packet, icmp::parse(bytes, &packet)?))
            }
            _ => Err(DropReason::IpProtocol),
        }
    }

    /// Whether the packet is from somebody and for us. Only neighbour discovery may come from
    /// nobody: that is how a host looks for others that have its address.
    fn check_addresses(&self, packet: &Packet) -> Result<(), DropReason> {
        let own = &self.link.addresses;
        let is_probe = packet.source == 0 && packet.protocol == IpProtocol::Icmpv6;
        if !is_probe && !own.is_plausible_source(packet.source) {
            return Err(DropReason::IpSource);
        }
        if own.is_own(packet.source) {
            return Err(DropReason::IpSourceOurs);
        }
        if !own.is_own(packet.destination) && !own.is_joined(packet.destination) {
            return Err(DropReason::IpNotOurs);
        }
        Ok(())
    }

    fn receive_icmp(
        &mut self,
        now: Instant,
        frame: F,
        ethernet: &Ethernet,
        packet: &Packet,
        message: Message,
        out: &mut impl Output<F>,
    ) -> Inbound<F> {
        let link = &mut self.link;
        match message {
            Message::Neighbor => {
                let bytes = &frame.bytes()[packet.payload..packet.end];
                let heard = nd::receive(link, ethernet, packet, bytes, out);
                self.heard(now, heard, out)
            }
            Message::Error(error) if link.addresses.is_own(error.key.local_ip) => {
                link.counts.event(Event::IcmpError);
                Inbound::IcmpError(error)
            }
            Message::Error(_) => Inbound::Dropped(link.dropped(DropReason::IcmpQuote)),
            Message::EchoRequest => {
                let is_unicast = ethernet.unicast && link.addresses.is_own(packet.destination);
                if !is_unicast || packet.source == 0 {
                    return Inbound::Dropped(link.dropped(DropReason::NotUnicast));
                }
                if !self.echo_limit.allows(now) {
                    return Inbound::Dropped(link.dropped(DropReason::EchoLimit));
                }
                self.reply_to_echo(now, frame, *packet, out)
            }
        }
    }

    /// Replies in the frame the request came in, unless a VLAN tag has to be added.
    fn reply_to_echo(
        &mut self,
        now: Instant,
        mut frame: F,
        mut packet: Packet,
        out: &mut impl Output<F>,
    ) -> Inbound<F> {
        let start = self.link.header_len();
        if packet.start < start {
            let shift = start - packet.start;
            let Some(mut longer) = out.alloc(packet.end + shift) else {
                return Inbound::Dropped(self.link.dropped(DropReason::SendNoFrame));
            };
            longer.bytes_mut()[shift..].copy_from_slice(&frame.bytes()[..packet.end]);
            frame = longer;
            packet.start += shift;
            packet.payload += shift;
            packet.end += shift;
        }
        let len = icmp::make_echo_reply(frame.bytes_mut(), &packet, start);
        frame.truncate(start + len);
        match self.send(now, frame, out) {
            Sent::Pushed | Sent::Waiting => {
                self.link.counts.event(Event::EchoReplySent);
                Inbound::Consumed
            }
            Sent::Dropped(reason) => Inbound::Dropped(reason),
            Sent::Own(_) => unreachable!("an own source was refused on arrival"),
        }
    }

    /// Takes in what ARP or ND found.
    fn heard(
        &mut self,
        now: Instant,
        heard: Result<Option<Heard>, DropReason>,
        out: &mut impl Output<F>,
    ) -> Inbound<F> {
        match heard {
            Ok(Some(heard)) => {
                self.learn(now, heard, out);
                Inbound::Learned(heard)
            }
            Ok(None) => Inbound::Consumed,
            Err(reason) => Inbound::Dropped(self.link.dropped(reason)),
        }
    }

    /// Sends the requests that are due.
    fn ask(&mut self, out: &mut impl Output<F>) {
        while let Some(ask) = self.neighbors.poll_ask() {
            match address::is_v4(ask.ip) {
                true => arp::ask(&mut self.link, ask, out),
                false => nd::ask(&mut self.link, ask, out),
            }
        }
    }
}

/// The Ethernet type of packets to `ip`.
fn kind_of(ip: u128) -> EthernetProtocol {
    if address::is_v4(ip) { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 }
}
