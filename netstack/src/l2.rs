//! Our end of the link: Ethernet and VLAN headers, in and out.
//!
//! ```text
//!    0            6            12     14                       untagged
//!    | destination | source     | type | payload ...
//!    0            6            12     14     16     18         with an 802.1Q tag
//!    | destination | source     | 8100 | vlan | type | payload ...
//! ```

use smoltcp::wire::{EthernetAddress, EthernetProtocol};

use crate::device::Frame;
use crate::front::address::Addresses;
use crate::front::count::Counts;
use crate::front::{DropReason, FrontConfig, FrontConfigError, Output};

/// Bytes of an untagged header.
pub(crate) const HEADER_LEN: usize = 14;
/// Bytes an 802.1Q tag adds.
pub(crate) const TAG_LEN: usize = 4;
const TAG_TYPE: u16 = 0x8100;
const VLAN_BITS: u16 = 0x0fff;
const VLAN_MAX: u16 = 4094;

/// A header that was found in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ethernet {
    pub(crate) source: EthernetAddress,
    pub(crate) kind: EthernetProtocol,
    /// Where the payload starts.
    pub(crate) payload: usize,
    /// To our own address, not to a group or to all.
    pub(crate) unicast: bool,
}

/// What we are on the link, and what we count there.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) mac: EthernetAddress,
    pub(crate) mtu: usize,
    pub(crate) addresses: Addresses,
    pub(crate) counts: Counts,
    vlan: Option<u16>,
}

impl Link {
    pub(crate) fn new(config: &FrontConfig) -> Result<Self, FrontConfigError> {
        match config.vlan {
            Some(vlan) if !(1..=VLAN_MAX).contains(&vlan) => Err(FrontConfigError::BadVlan(vlan)),
            vlan => Ok(Self {
                mac: config.mac,
                mtu: config.mtu,
                addresses: Addresses::new(config)?,
                counts: Counts::default(),
                vlan,
            }),
        }
    }

    /// Bytes of the header of frames we send.
    pub(crate) fn header_len(&self) -> usize {
        HEADER_LEN + if self.vlan.is_some() { TAG_LEN } else { 0 }
    }

    /// Reads the header of a received frame and says whether it is for us.
    pub(crate) fn parse(&self, frame: &[u8]) -> Result<Ethernet, DropReason> {
        let (header, rest) =
            frame.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::EthernetTooShort)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, k0, k1] = *header;
        let destination = EthernetAddress([d0, d1, d2, d3, d4, d5]);
        let source = EthernetAddress([s0, s1, s2, s3, s4, s5]);
        let unicast = destination == self.mac;
        if !unicast && !destination.is_broadcast() && !self.addresses.is_joined_mac(destination) {
            return Err(DropReason::EthernetNotOurs);
        }
        if source.is_multicast() {
            return Err(DropReason::EthernetSource);
        }
        let mut kind = u16::from_be_bytes([k0, k1]);
        let mut payload = HEADER_LEN;
        if kind == TAG_TYPE {
            let [t0, t1, k0, k1, ..] = *rest else {
                return Err(DropReason::EthernetTooShort);
            };
            let vlan = u16::from_be_bytes([t0, t1]) & VLAN_BITS;
            // VLAN 0 is a priority on an otherwise untagged frame.
            if vlan != 0 && Some(vlan) != self.vlan {
                return Err(DropReason::OtherVlan);
            }
            kind = u16::from_be_bytes([k0, k1]);
            payload += TAG_LEN;
        }
        Ok(Ethernet { source, kind: kind.into(), payload, unicast })
    }

    /// Writes the header of a frame that left [`Link::header_len`] bytes for it, and queues it.
    pub(crate) fn push<F: Frame>(
        &mut self,
        destination: EthernetAddress,
        kind: EthernetProtocol,
        mut frame: F,
        out: &mut impl Output<F>,
    ) -> Result<(), DropReason> {
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&destination.0);
        bytes[6..12].copy_from_slice(&self.mac.0);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            bytes[12..14].copy_from_slice(&TAG_TYPE.to_be_bytes());
            bytes[14..16].copy_from_slice(&vlan.to_be_bytes());
            at += TAG_LEN;
        }
        bytes[at..at + 2].copy_from_slice(&u16::from(kind).to_be_bytes());
        out.push(frame).map_err(|_| self.dropped(DropReason::SendQueueFull))
    }

    /// Sends a packet of `len` bytes that `write` writes.
    pub(crate) fn push_new<F: Frame>(
        &mut self,
        destination: EthernetAddress,
        kind: EthernetProtocol,
        len: usize,
        write: impl FnOnce(&mut [u8]),
        out: &mut impl Output<F>,
    ) -> Result<(), DropReason> {
        let Some(mut frame) = out.alloc(self.header_len() + len) else {
            return Err(self.dropped(DropReason::SendNoFrame));
        };
        write(&mut frame.bytes_mut()[self.header_len()..]);
        self.push(destination, kind, frame, out)
    }

    /// Counts a loss.
    pub(crate) fn dropped(&mut self, reason: DropReason) -> DropReason {
        self.counts.drop(reason);
        reason
    }
}
