//! Which addresses are ours, which links they are on, and the way to all others.
//!
//! Inside the front every address is a `u128`; IPv4 ones are v4-mapped, as in
//! [`FlowKey`](crate::flow::FlowKey). One comparison then serves both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::{ADDRS_MAX, FrontConfig, FrontConfigError};

/// Bits of the prefix of link-local addresses (RFC 4291 section 2.5.6).
const LINK_LOCAL_PREFIX: u8 = 64;
const MAPPED_PREFIX: u128 = 0xffff;
const ALL_NODES: u128 = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).to_bits();
const SOLICITED_NODE: u128 = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).to_bits();
const SOLICITED_NODE_BITS: u128 = 0x00ff_ffff;

/// `ip` as the front writes it.
pub(crate) fn mapped(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => mapped_v4(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The IPv4 address `bits` as the front writes it.
pub(crate) fn mapped_v4(bits: u32) -> u128 {
    MAPPED_PREFIX << 32 | u128::from(bits)
}

/// `ip` as everybody else writes it.
pub(crate) fn unmapped(ip: u128) -> IpAddr {
    Ipv6Addr::from_bits(ip).to_canonical()
}

/// The IPv4 address in `ip`, if it is one.
pub(crate) fn v4(ip: u128) -> Option<Ipv4Addr> {
    is_v4(ip).then(|| Ipv4Addr::from_bits(ip as u32))
}

pub(crate) fn is_v4(ip: u128) -> bool {
    ip >> 32 == MAPPED_PREFIX
}

/// Whether a host can have this address: no multicast, broadcast, unspecified or loopback one
/// (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5).
pub(crate) fn is_host(ip: u128) -> bool {
    match v4(ip).map(|ip| ip.octets()[0]) {
        Some(first) => first != 0 && first != 127 && first < 224,
        None => ip > 1 && ip >> 120 != 0xff,
    }
}

/// The multicast group a neighbour with address `ip` listens on (RFC 4291 section 2.7.1).
pub(crate) fn solicited_node(ip: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(SOLICITED_NODE | ip & SOLICITED_NODE_BITS)
}

/// The Ethernet address of an IPv6 multicast group (RFC 2464 section 7).
pub(crate) fn group_mac(group: Ipv6Addr) -> EthernetAddress {
    let [.., a, b, c, d] = group.octets();
    EthernetAddress([0x33, 0x33, a, b, c, d])
}

/// The link-local address made from `mac` (RFC 2464 section 5).
fn link_local(mac: EthernetAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let pair = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

#[derive(Clone, Copy, Debug)]
struct Own {
    ip: u128,
    /// Ones where an address must agree to be on the link.
    mask: u128,
}

impl Own {
    fn new(ip: IpAddr, prefix_len: u8) -> Self {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let host_bits = width - u32::from(prefix_len);
        Self { ip: mapped(ip), mask: u128::MAX.checked_shl(host_bits).unwrap_or(0) }
    }

    fn on_link(&self, ip: u128) -> bool {
        (self.ip ^ ip) & self.mask == 0 && is_v4(self.ip) == is_v4(ip)
    }

    /// The link's broadcast address; links of two addresses have none (RFC 3021).
    fn is_broadcast(&self, ip: u128) -> bool {
        is_v4(ip) && self.on_link(ip) && !self.mask > 1 && ip | self.mask == u128::MAX
    }
}

/// Our addresses and the gateways.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    /// The longest prefix first, so that the first match is the best one.
    own: ArrayVec<Own, { ADDRS_MAX + 1 }>,
    gateway_v4: Option<u128>,
    gateway_v6: Option<u128>,
}

impl Addresses {
    pub(crate) fn new(config: &FrontConfig) -> Result<Self, FrontConfigError> {
        if config.addrs.len() > ADDRS_MAX {
            return Err(FrontConfigError::TooManyAddrs(config.addrs.len()));
        }
        let mut own = ArrayVec::new();
        for cidr in &config.addrs {
            own.push(checked(*cidr)?);
        }
        if config.addrs.iter().any(|cidr| matches!(cidr, IpCidr::Ipv6(_))) {
            let ip = link_local(config.mac);
            if !own.iter().any(|own| own.ip == ip.to_bits()) {
                own.push(Own::new(ip.into(), LINK_LOCAL_PREFIX));
            }
        }
        own.sort_by_key(|own| std::cmp::Reverse(own.mask));
        let addresses = Self {
            own,
            gateway_v4: config.gateway_v4.map(|ip| mapped(ip.into())),
            gateway_v6: config.gateway_v6.map(|ip| mapped(ip.into())),
        };
        for gateway in [addresses.gateway_v4, addresses.gateway_v6].into_iter().flatten() {
            if !is_host(gateway) || addresses.source_on_link(gateway).is_none() {
                return Err(FrontConfigError::GatewayOffLink(unmapped(gateway)));
            }
        }
        Ok(addresses)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u128> + '_ {
        self.own.iter().map(|own| own.ip)
    }

    pub(crate) fn is_own(&self, ip: u128) -> bool {
        self.own.iter().any(|own| own.ip == ip)
    }

    /// Whether `ip` is an IPv6 group we belong to: all nodes, or the solicited-node group of one
    /// of our addresses.
    pub(crate) fn is_joined(&self, ip: u128) -> bool {
        ip == ALL_NODES
            || ip & !SOLICITED_NODE_BITS == SOLICITED_NODE
                && self
                    .own
                    .iter()
                    .any(|own| !is_v4(own.ip) && solicited_node(own.ip).to_bits() == ip)
    }

    /// Whether `mac` is the Ethernet address of a group we belong to.
    pub(crate) fn is_joined_mac(&self, mac: EthernetAddress) -> bool {
        let [0x33, 0x33, rest @ ..] = mac.0 else {
            return false;
        };
        let low = u128::from(u32::from_be_bytes(rest));
        self.is_joined(ALL_NODES & !0xffff_ffff | low)
            || self.is_joined(SOLICITED_NODE & !0xffff_ffff | low)
    }

    /// Whether a packet from outside may carry `ip` as its source. Our own addresses are the
    /// caller's question.
    pub(crate) fn is_plausible_source(&self, ip: u128) -> bool {
        is_host(ip) && !self.own.iter().any(|own| own.is_broadcast(ip))
    }

    /// The address of ours to speak from to the neighbour `ip`; `None` if it is no neighbour.
    pub(crate) fn source_on_link(&self, ip: u128) -> Option<u128> {
        self.own.iter().find(|own| own.on_link(ip)).map(|own| own.ip)
    }

    /// The neighbour on the way to `destination` and the address of ours to speak from.
    pub(crate) fn route(&self, destination: u128) -> Option<(u128, u128)> {
        if self.is_own(destination) {
            return Some((destination, destination));
        }
        if !self.is_plausible_source(destination) {
            return None;
        }
        if let Some(source) = self.source_on_link(destination) {
            return Some((destination, source));
        }
        let gateway = if is_v4(destination) { self.gateway_v4? } else { self.gateway_v6? };
        Some((gateway, self.source_towards(gateway, destination)?))
    }

    /// A link-local gateway says nothing about the address to speak from: link-local addresses
    /// stay on the link, so one of wider scope is needed.
    fn source_towards(&self, gateway: u128, destination: u128) -> Option<u128> {
        let source = self.source_on_link(gateway)?;
        if !is_link_local(source) || is_link_local(destination) {
            return Some(source);
        }
        self.iter().find(|&ip| !is_v4(ip) && !is_link_local(ip))
    }
}

fn is_link_local(ip: u128) -> bool {
    ip >> 118 == 0xfe80 >> 6
}

fn checked(cidr: IpCidr) -> Result<Own, FrontConfigError> {
    let ip: IpAddr = cidr.address().into();
    let own = Own::new(ip, cidr.prefix_len());
    // A v4-mapped IPv6 address would stand for the IPv4 one in every table.
    if ip.is_ipv6() && is_v4(own.ip) || !is_host(own.ip) || own.is_broadcast(own.ip) {
        return Err(FrontConfigError::BadAddr(cidr));
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::NeighborTimers;

    fn config(addrs: &[&str]) -> FrontConfig {
        FrontConfig {
            mac: EthernetAddress([2, 0, 0, 0, 0, 7]),
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
            gateway_v4: None,
            gateway_v6: None,
            mtu: 1500,
            vlan: None,
            verify_checksums: true,
            neighbor: NeighborTimers::default(),
        }
    }

    fn ip(text: &str) -> u128 {
        mapped(text.parse().unwrap())
    }

    #[test]
    fn a_packet_goes_to_the_neighbour_itself_or_to_the_gateway_of_its_family() {
        let mut config = config(&["10.0.0.2/24", "10.0.1.2/24", "fd00::2/64"]);
        config.gateway_v4 = Some("10.0.0.1".parse().unwrap());
        let addresses = Addresses::new(&config).unwrap();
        assert_eq!(addresses.route(ip("10.0.1.9")), Some((ip("10.0.1.9"), ip("10.0.1.2"))));
        assert_eq!(addresses.route(ip("8.8.8.8")), Some((ip("10.0.0.1"), ip("10.0.0.2"))));
        assert_eq!(addresses.route(ip("fd00::9")), Some((ip("fd00::9"), ip("fd00::2"))));
        assert_eq!(addresses.route(ip("2001:db8::1")), None, "no IPv6 gateway");
        assert_eq!(addresses.route(ip("10.0.0.2")), Some((ip("10.0.0.2"), ip("10.0.0.2"))));
        for nobody in [
            "10.0.0.255",
            "255.255.255.255",
            "224.0.0.1",
            "0.0.0.0",
            "127.0.0.1",
            "::",
            "::1",
            "ff02::1",
        ] {
            assert_eq!(addresses.route(ip(nobody)), None, "{nobody}");
        }
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let addresses = Addresses::new(&config(&["10.0.0.2/8", "10.1.0.2/16"])).unwrap();
        assert_eq!(addresses.route(ip("10.1.2.3")), Some((ip("10.1.2.3"), ip("10.1.0.2"))));
        assert_eq!(addresses.route(ip("10.2.2.3")), Some((ip("10.2.2.3"), ip("10.0.0.2"))));
    }

    #[test]
    fn a_link_local_gateway_is_not_spoken_through_with_a_link_local_source() {
        let mut config = config(&["fd00::2/64"]);
        config.gateway_v6 = Some("fe80::1".parse().unwrap());
        let addresses = Addresses::new(&config).unwrap();
        assert_eq!(addresses.route(ip("2001:db8::1")), Some((ip("fe80::1"), ip("fd00::2"))));
    }

    #[test]
    fn an_ipv6_address_brings_the_link_local_one_and_the_groups_of_both() {
        let addresses = Addresses::new(&config(&["fd00::1234:5678/64"])).unwrap();
        assert!(addresses.is_own(ip("fe80::ff:fe00:7")));
        assert!(addresses.is_joined(ip("ff02::1")));
        assert!(addresses.is_joined(ip("ff02::1:ff34:5678")));
        assert!(addresses.is_joined(ip("ff02::1:ff00:7")));
        assert!(!addresses.is_joined(ip("ff02::1:ff34:5679")));
        assert!(!addresses.is_joined(ip("ff02::2")));
        assert!(addresses.is_joined_mac(EthernetAddress([0x33, 0x33, 0, 0, 0, 1])));
        assert!(addresses.is_joined_mac(EthernetAddress([0x33, 0x33, 0xff, 0x34, 0x56, 0x78])));
        assert!(!addresses.is_joined_mac(EthernetAddress([0x33, 0x33, 0, 0x34, 0x56, 0x78])));
        assert!(!addresses.is_joined_mac(EthernetAddress([0x01, 0x00, 0x5e, 0, 0, 1])));
        let v4_only = Addresses::new(&config(&["10.0.0.1/24"])).unwrap();
        assert_eq!(v4_only.iter().count(), 1);
    }

    #[test]
    fn a_prefix_of_nothing_covers_its_own_family_only() {
        let addresses = Addresses::new(&config(&["10.0.0.1/0"])).unwrap();
        assert_eq!(addresses.route(ip("9.9.9.9")), Some((ip("9.9.9.9"), ip("10.0.0.1"))));
        assert_eq!(addresses.route(ip("fd00::1")), None);
        let addresses = Addresses::new(&config(&["fd00::1/0"])).unwrap();
        assert_eq!(addresses.route(ip("9.9.9.9")), None);
    }

    #[test]
    fn links_of_one_or_two_addresses_have_no_broadcast_address() {
        let addresses = Addresses::new(&config(&["10.0.0.1/31", "10.9.9.9/32"])).unwrap();
        assert!(addresses.is_plausible_source(ip("10.0.0.0")));
        assert!(addresses.is_plausible_source(ip("10.9.9.8")));
    }

    #[test]
    fn configurations_that_cannot_work_are_refused() {
        for bad in [
            "224.0.0.1/24",
            "127.0.0.1/8",
            "10.0.0.255/24",
            "ff02::5/64",
            "::1/128",
            "::ffff:10.0.0.1/120",
        ] {
            let error = Addresses::new(&config(&[bad])).unwrap_err();
            assert_eq!(error, FrontConfigError::BadAddr(bad.parse().unwrap()));
        }
        let many = vec!["10.0.0.1/24"; ADDRS_MAX + 1];
        assert_eq!(
            Addresses::new(&config(&many)).unwrap_err(),
            FrontConfigError::TooManyAddrs(ADDRS_MAX + 1)
        );
        let mut off_link = config(&["10.0.0.1/24"]);
        off_link.gateway_v4 = Some("10.0.1.1".parse().unwrap());
        assert!(matches!(Addresses::new(&off_link), Err(FrontConfigError::GatewayOffLink(_))));
    }
}
