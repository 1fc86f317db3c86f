//! Where an entity lives: an IP address and port, plus the nonce that tells one process from the
//! next one on the same port.
//!
//! ```text
//!   new form:     u8 1, struct(1,1) { u32 type, u32 nonce, u32 n, sockaddr of n bytes }
//!   legacy form:  u32 0, u32 nonce, sockaddr_storage of 128 bytes (family big-endian)
//!   vector:       u8 2, u32 count, new forms;   a single address stands for a vector of one
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use crate::denc::{DecodeError, Reader, Writer};

/// Most addresses a vector may hold; a daemon has two to four.
pub const ADDRS_MAX: usize = 32;
/// Bytes of the legacy form, whatever the address.
pub const LEGACY_LEN: usize = 4 + 4 + LEGACY_SOCKADDR_LEN;

const MARKER_LEGACY: u8 = 0;
const MARKER_NEW: u8 = 1;
const MARKER_VECTOR: u8 = 2;
const FAMILY_NONE: u16 = 0;
const FAMILY_IPV4: u16 = 2;
const FAMILY_IPV6: u16 = 10; // Linux's number, on every system
const FAMILY_LEN: usize = 2;
const SOCKADDR_V4_LEN: usize = 16;
const SOCKADDR_V6_LEN: usize = 28;
const LEGACY_SOCKADDR_LEN: usize = 128;
const ORDER_KEY_LEN: usize = 4 + 4 + SOCKADDR_V6_LEN; // type, nonce, sockaddr

/// Which protocol answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum AddrType {
    /// No address.
    None = 0,
    /// The first wire protocol, `v1:`.
    Legacy = 1,
    /// The second wire protocol, `v2:`.
    Msgr2 = 2,
    /// A client that listens nowhere, `any:`.
    Any = 3,
    /// A network, used by monitors' block lists.
    Cidr = 4,
}

impl AddrType {
    /// Those of addresses that can be bound and dialled, preferred first.
    pub const SPOKEN: [Self; 2] = [Self::Msgr2, Self::Legacy];

    const ALL: [Self; 5] = [Self::None, Self::Legacy, Self::Msgr2, Self::Any, Self::Cidr];

    fn from_wire(value: u32) -> Result<Self, DecodeError> {
        let known = Self::ALL.into_iter().find(|kind| *kind as u32 == value);
        known.ok_or_else(|| DecodeError::Invalid { field: "address type", value: value.into() })
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Legacy => "v1",
            Self::Msgr2 => "v2",
            Self::Any => "any",
            Self::Cidr => "cidr",
        }
    }
}

/// One address with its protocol and nonce.
///
/// Ordered by the bytes of Ceph's in-memory structure, because connection races are decided by
/// that order (msgr2: session races): after the type comes the nonce's *little-endian* bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntityAddr {
    /// Protocol spoken there.
    pub kind: AddrType,
    /// Distinguishes process instances; zero for monitors.
    pub nonce: u32,
    /// IP address and port; none for a blank address.
    pub socket: Option<SocketAddr>,
}

impl EntityAddr {
    /// The all-zero address.
    pub const NONE: Self = Self { kind: AddrType::None, nonce: 0, socket: None };

    /// An address of msgr2.
    pub const fn v2(socket: SocketAddr, nonce: u32) -> Self {
        Self { kind: AddrType::Msgr2, nonce, socket: Some(socket) }
    }

    /// An address of msgr1.
    pub const fn v1(socket: SocketAddr, nonce: u32) -> Self {
        Self { kind: AddrType::Legacy, nonce, socket: Some(socket) }
    }

    /// What a client that listens nowhere announces before it knows its own IP address.
    pub const fn unbound(nonce: u32) -> Self {
        Self { kind: AddrType::Any, nonce, socket: None }
    }

    /// Whether the IP address is missing or unspecified (`0.0.0.0`, `::`).
    pub fn is_blank_ip(&self) -> bool {
        self.socket.is_none_or(|socket| socket.ip().is_unspecified())
    }

    /// The same address with a blank IP filled in; port and nonce stay (contract M-27).
    #[must_use]
    pub fn with_ip_if_blank(self, ip: IpAddr) -> Self {
        if !self.is_blank_ip() {
            return self;
        }
        let port = self.socket.map_or(0, |socket| socket.port());
        Self { socket: Some(SocketAddr::new(ip, port)), ..self }
    }

    /// Reads an address in either form.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            MARKER_LEGACY => Self::decode_unmarked_legacy(reader),
            MARKER_NEW => Self::decode_new(reader),
            marker => Err(DecodeError::Invalid { field: "address marker", value: marker.into() }),
        }
    }

    /// Reads the legacy form and no other, as in a handshake of msgr1.
    pub fn decode_legacy(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            MARKER_LEGACY => Self::decode_unmarked_legacy(reader),
            marker => Err(DecodeError::Invalid { field: "address marker", value: marker.into() }),
        }
    }

    fn decode_new(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (_, mut body) = reader.envelope(1)?;
        let kind = AddrType::from_wire(body.u32()?)?;
        let nonce = body.u32()?;
        let len = body.u32()? as usize;
        if len == 0 {
            return Ok(Self { kind, nonce, socket: None });
        }
        let sockaddr = body.bytes(len)?;
        let Some((family, rest)) = sockaddr.split_first_chunk::<FAMILY_LEN>() else {
            return Err(DecodeError::Truncated { needed: FAMILY_LEN, left: len });
        };
        let socket = decode_sockaddr(u16::from_le_bytes(*family), rest)?;
        Ok(Self { kind, nonce, socket })
    }

    fn decode_unmarked_legacy(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.bytes(3)?; // the marker was the first byte of a zero u32
        let nonce = reader.u32()?;
        let storage: [u8; LEGACY_SOCKADDR_LEN] = reader.array()?;
        let family = u16::from_be_bytes([storage[0], storage[1]]);
        let len = if family == FAMILY_IPV4 { SOCKADDR_V4_LEN } else { SOCKADDR_V6_LEN };
        let socket = decode_sockaddr(family, &storage[FAMILY_LEN..len])?;
        let kind = if socket.is_some() { AddrType::Legacy } else { AddrType::None };
        Ok(Self { kind, nonce, socket })
    }

    /// Writes the new form.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(MARKER_NEW);
        writer.envelope(1, 1, |body| {
            body.u32(self.kind as u32);
            body.u32(self.nonce);
            let mut sockaddr = [0; SOCKADDR_V6_LEN];
            let len = encode_sockaddr(self.socket, &mut sockaddr);
            body.blob(&sockaddr[..len]);
        });
    }

    /// Writes the legacy form, which has no room for the type.
    pub fn encode_legacy(&self, writer: &mut Writer<'_>) {
        writer.u32(MARKER_LEGACY.into());
        writer.u32(self.nonce);
        let mut storage = [0; LEGACY_SOCKADDR_LEN];
        let sockaddr = storage.first_chunk_mut().expect("a storage holds any sockaddr");
        encode_sockaddr(self.socket, sockaddr);
        storage[..FAMILY_LEN].reverse(); // big-endian here
        writer.bytes(&storage);
    }

    fn order_key(&self) -> [u8; ORDER_KEY_LEN] {
        let mut key = [0; ORDER_KEY_LEN];
        key[0..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        key[4..8].copy_from_slice(&self.nonce.to_le_bytes());
        let sockaddr = key.last_chunk_mut().expect("the key ends with a sockaddr");
        encode_sockaddr(self.socket, sockaddr);
        key
    }
}

/// Reads what follows the family of a sockaddr; bytes that were not sent count as zero.
fn decode_sockaddr(family: u16, rest: &[u8]) -> Result<Option<SocketAddr>, DecodeError> {
    let max = match family {
        FAMILY_IPV4 => SOCKADDR_V4_LEN,
        FAMILY_NONE | FAMILY_IPV6 => SOCKADDR_V6_LEN,
        _ => {
            return Err(DecodeError::Invalid { field: "address family", value: family.into() });
        }
    } - FAMILY_LEN;
    if rest.len() > max {
        return Err(DecodeError::TooMany { count: rest.len(), max });
    }
    let mut padded = [0; SOCKADDR_V6_LEN - FAMILY_LEN];
    padded[..rest.len()].copy_from_slice(rest);
    let mut reader = Reader::new(&padded);
    let port = u16::from_be_bytes(reader.array()?);
    Ok(match family {
        FAMILY_IPV4 => {
            let ip = Ipv4Addr::from(reader.array::<4>()?);
            Some(SocketAddrV4::new(ip, port).into())
        }
        FAMILY_IPV6 => {
            let flowinfo = u32::from_be_bytes(reader.array()?);
            let ip = Ipv6Addr::from(reader.array::<16>()?);
            Some(SocketAddrV6::new(ip, port, flowinfo, reader.u32()?).into())
        }
        _ => None,
    })
}

/// Fills in a sockaddr and says how many of its bytes go on the wire.
fn encode_sockaddr(socket: Option<SocketAddr>, out: &mut [u8; SOCKADDR_V6_LEN]) -> usize {
    match socket {
        None => SOCKADDR_V6_LEN,
        Some(SocketAddr::V4(v4)) => {
            out[0..2].copy_from_slice(&FAMILY_IPV4.to_le_bytes());
            out[2..4].copy_from_slice(&v4.port().to_be_bytes());
            out[4..8].copy_from_slice(&v4.ip().octets());
            SOCKADDR_V4_LEN
        }
        Some(SocketAddr::V6(v6)) => {
            out[0..2].copy_from_slice(&FAMILY_IPV6.to_le_bytes());
            out[2..4].copy_from_slice(&v6.port().to_be_bytes());
            out[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            out[8..24].copy_from_slice(&v6.ip().octets());
            out[24..28].copy_from_slice(&v6.scope_id().to_le_bytes());
            SOCKADDR_V6_LEN
        }
    }
}

impl Ord for EntityAddr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order_key().cmp(&other.order_key())
    }
}

impl PartialOrd for EntityAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EntityAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket {
            Some(socket) => write!(f, "{}:{socket}/{}", self.kind.prefix(), self.nonce),
            None => write!(f, "{}:-/{}", self.kind.prefix(), self.nonce),
        }
    }
}

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address such as v2:127.0.0.1:6800/123")]
pub struct ParseAddrError(String);

impl FromStr for EntityAddr {
    type Err = ParseAddrError;

    /// Reads `[TYPE:]IP:PORT[/NONCE]`; the type defaults to `v2`, the nonce to 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseAddrError(text.to_owned());
        let typed = AddrType::ALL
            .into_iter()
            .find_map(|kind| Some((kind, text.strip_prefix(kind.prefix())?.strip_prefix(':')?)));
        let (kind, rest) = typed.unwrap_or((AddrType::Msgr2, text));
        let (socket, nonce) = rest.rsplit_once('/').unwrap_or((rest, "0"));
        let nonce = nonce.parse().map_err(|_| refused())?;
        let socket = match socket {
            "-" => None,
            socket => Some(socket.parse().map_err(|_| refused())?),
        };
        Ok(Self { kind, nonce, socket })
    }
}

/// All addresses of one entity, the preferred one first. As a whole, nonces included, it is the
/// key under which a session is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityAddrVec(pub Vec<EntityAddr>);

impl EntityAddrVec {
    /// Whether it holds no address at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first address.
    pub fn first(&self) -> Option<&EntityAddr> {
        self.0.first()
    }

    /// The addresses in order.
    pub fn iter(&self) -> std::slice::Iter<'_, EntityAddr> {
        self.0.iter()
    }

    /// Whether `addr` is literally one of them: type, nonce, IP address and port.
    pub fn contains(&self, addr: &EntityAddr) -> bool {
        self.0.contains(addr)
    }

    /// The first address of a type, or the all-zero one.
    pub fn of(&self, kind: AddrType) -> EntityAddr {
        self.iter().find(|addr| addr.kind == kind).copied().unwrap_or(EntityAddr::NONE)
    }

    /// The address to dial: msgr2's if there is one, else msgr1's, else the all-zero one.
    pub fn preferred(&self) -> EntityAddr {
        let mut spoken = AddrType::SPOKEN.into_iter().map(|kind| self.of(kind));
        spoken.find(|addr| *addr != EntityAddr::NONE).unwrap_or(EntityAddr::NONE)
    }

    /// Reads a vector, or a single address standing for one.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            MARKER_LEGACY => Ok(EntityAddr::decode_unmarked_legacy(reader)?.into()),
            MARKER_NEW => Ok(EntityAddr::decode_new(reader)?.into()),
            MARKER_VECTOR => {
                let count = reader.count(ADDRS_MAX)?;
                (0..count).map(|_| EntityAddr::decode(reader)).collect::<Result<_, _>>().map(Self)
            }
            marker => Err(DecodeError::Invalid { field: "address marker", value: marker.into() }),
        }
    }

    /// Writes the vector form.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(MARKER_VECTOR);
        writer.len(self.0.len());
        for addr in &self.0 {
            addr.encode(writer);
        }
    }
}

impl From<EntityAddr> for EntityAddrVec {
    fn from(addr: EntityAddr) -> Self {
        Self(vec![addr])
    }
}

impl fmt::Display for EntityAddrVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, addr) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{addr}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    fn addr(text: &str) -> EntityAddr {
        text.parse().unwrap()
    }

    #[test]
    fn text_survives_a_round_trip() {
        for text in ["v2:127.0.0.1:6800/123", "any:10.0.0.1:0/7", "v1:[::1]:6789/0", "any:-/9"] {
            assert_eq!(addr(text).to_string(), text);
        }
        assert_eq!(addr("10.0.0.1:3300"), addr("v2:10.0.0.1:3300/0"));
        for text in ["", "v2:", "v3:1.2.3.4:5", "1.2.3.4", "1.2.3.4:5/x", "v2:1.2.3.4:70000/0"] {
            assert!(text.parse::<EntityAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn order_compares_the_nonce_before_the_ip() {
        assert!(addr("v2:10.0.0.9:1/1") < addr("v2:10.0.0.1:1/2"));
        // 0x0100 is 00 01 on the wire and so below 0x0001, which is 01 00.
        assert!(addr("v2:10.0.0.1:1/256") < addr("v2:10.0.0.1:1/1"));
        assert!(addr("v1:10.0.0.9:1/9") < addr("v2:10.0.0.1:1/0"));
        assert_eq!(EntityAddrVec::from(addr("any:10.0.0.1:0/5")).preferred(), EntityAddr::NONE);
    }

    #[test]
    fn the_legacy_form_is_read() {
        let mut wire = vec![0, 0, 0, 0, 5, 0, 0, 0, 0, 2, 0x1a, 0x85, 127, 0, 0, 1];
        wire.resize(8 + 128, 0);
        let mut reader = Reader::new(&wire);
        assert_eq!(EntityAddrVec::decode(&mut reader).unwrap().0, [addr("v1:127.0.0.1:6789/5")]);
        assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn the_legacy_form_survives_a_round_trip() {
        for text in ["v1:127.0.0.1:6789/5", "v1:[2001:db8::1]:6800/4294967295", "none:-/7"] {
            let mut out = BytesMut::new();
            addr(text).encode_legacy(&mut Writer::new(&mut out));
            assert_eq!(out.len(), LEGACY_LEN);
            let mut reader = Reader::new(&out);
            assert_eq!(EntityAddr::decode_legacy(&mut reader).unwrap(), addr(text));
            assert_eq!(reader.remaining(), 0);
        }
        assert!(EntityAddr::decode_legacy(&mut Reader::new(&[1; LEGACY_LEN])).is_err());
    }

    #[test]
    fn lengths_that_no_family_has_are_refused() {
        let encode = |len: u32, family: u16| {
            let mut out = BytesMut::new();
            let mut writer = Writer::new(&mut out);
            writer.u8(1);
            writer.envelope(1, 1, |body| {
                body.u32(2);
                body.u32(0);
                body.u32(len);
                body.u16(family);
                body.bytes(&[0; 40]);
            });
            out
        };
        let decode = |wire: BytesMut| EntityAddr::decode(&mut Reader::new(&wire));
        assert!(decode(encode(16, 2)).is_ok());
        assert!(decode(encode(1, 2)).is_err());
        assert!(decode(encode(17, 2)).is_err());
        assert!(decode(encode(29, 10)).is_err());
        assert!(decode(encode(16, 3)).is_err());
        assert!(decode(encode(60, 2)).is_err());
    }

    #[test]
    fn a_blank_ip_is_filled_and_a_known_one_kept() {
        let ip = "10.1.1.1".parse().unwrap();
        assert_eq!(EntityAddr::unbound(7).with_ip_if_blank(ip), addr("any:10.1.1.1:0/7"));
        assert_eq!(addr("v2:0.0.0.0:68/1").with_ip_if_blank(ip), addr("v2:10.1.1.1:68/1"));
        assert_eq!(addr("v2:10.2.2.2:68/1").with_ip_if_blank(ip), addr("v2:10.2.2.2:68/1"));
    }
}
