//! What a front is made with, and what is wrong with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{EthernetAddress, IpCidr};

use super::ADDRS_MAX;

/// What a front is made with.
#[derive(Clone, Debug)]
pub struct FrontConfig {
    /// Our Ethernet address.
    pub mac: EthernetAddress,
    /// Our addresses with the prefixes of their links; at most [`ADDRS_MAX`]. If one of them is
    /// IPv6, the link-local address made from `mac` (EUI-64) is added.
    pub addrs: Vec<IpCidr>,
    /// Where IPv4 packets for other links go.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Where IPv6 packets for other links go.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Longest IP packet, in bytes.
    pub mtu: usize,
    /// Tag every sent frame for this 802.1Q VLAN (1 to 4094) and take frames of this VLAN.
    /// Untagged frames are taken too: many devices strip the tag.
    pub vlan: Option<u16>,
    /// Verify checksums of frames the device knows nothing of. Only a device that vouches for
    /// what it carries may go without.
    pub verify_checksums: bool,
    /// How long neighbours are trusted, and how they are asked.
    pub neighbor: NeighborTimers,
}

/// How long a neighbour's Ethernet address is trusted, and how it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborTimers {
    /// Time after which an address that nothing confirmed is forgotten. In its last quarter, an
    /// address that is in use is asked for again by unicast.
    pub lifetime: Duration,
    /// Time between two requests.
    pub retry: Duration,
    /// Requests without an answer after which a neighbour is unreachable.
    pub attempts: u8,
}

impl Default for NeighborTimers {
    /// 60 s, and 3 requests 1 s apart (RFC 4861 section 10).
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(60), retry: Duration::from_secs(1), attempts: 3 }
    }
}

/// Why a [`FrontConfig`] cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrontConfigError {
    /// More than [`ADDRS_MAX`] addresses.
    #[error("{0} addresses given, at most {ADDRS_MAX} are possible")]
    TooManyAddrs(usize),
    /// Not an address a host can have, or its prefix is longer than the address.
    #[error("{0} is not an address a host can have")]
    BadAddr(IpCidr),
    /// The gateway cannot be reached without a gateway.
    #[error("gateway {0} is on none of the links of our addresses")]
    GatewayOffLink(IpAddr),
    /// Not a VLAN number.
    #[error("VLAN {0} is outside 1 to 4094")]
    BadVlan(u16),
}
