//! The first bytes of a transport.
//!
//! ```text
//!   client   "ceph v027"   own address                            legacy form, 136 bytes each
//!   server   "ceph v027"   own address   the client's as it sees it
//! ```
//!
//! Both send their banners at once; the client's address comes when it has read the server's part.

use bytes::{BufMut, BytesMut};

use crate::addr::{EntityAddr, LEGACY_LEN};
use crate::denc::{Reader, Writer};
use crate::v1::{V1Error, parse};

/// What every msgr1 transport starts with.
pub const MAGIC: [u8; 9] = *b"ceph v027";
/// Bytes of the magic.
pub const MAGIC_LEN: usize = MAGIC.len();
/// Bytes of the addresses behind the server's magic.
pub const SERVER_ADDRS_LEN: usize = 2 * LEGACY_LEN;

/// Writes the client's first bytes.
pub fn write_client(out: &mut BytesMut) {
    out.put_slice(&MAGIC);
}

/// Writes the server's: its address, and the client's as the server sees it.
pub fn write_server(own: &EntityAddr, seen: &EntityAddr, out: &mut BytesMut) {
    out.put_slice(&MAGIC);
    let writer = &mut Writer::new(out);
    own.encode_legacy(writer);
    seen.encode_legacy(writer);
}

/// Checks the peer's first [`MAGIC_LEN`] bytes.
pub fn check_magic(piece: &[u8]) -> Result<(), V1Error> {
    let got = parse("banner", piece, Reader::array)?;
    if got == MAGIC { Ok(()) } else { Err(V1Error::BadBanner { got }) }
}

/// Reads what follows the server's magic: its address, and ours as it sees it.
pub fn parse_server_addrs(piece: &[u8]) -> Result<(EntityAddr, EntityAddr), V1Error> {
    parse("server's addresses", piece, |reader| {
        Ok((EntityAddr::decode_legacy(reader)?, EntityAddr::decode_legacy(reader)?))
    })
}

/// Reads the client's address.
pub fn parse_client_addr(piece: &[u8]) -> Result<EntityAddr, V1Error> {
    parse("client's address", piece, EntityAddr::decode_legacy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_part_survives_a_round_trip() {
        let own: EntityAddr = "v1:127.0.0.1:6789/7".parse().unwrap();
        let seen: EntityAddr = "v1:127.0.0.1:34567/0".parse().unwrap();
        let mut out = BytesMut::new();
        write_server(&own, &seen, &mut out);
        assert_eq!(out.len(), MAGIC_LEN + SERVER_ADDRS_LEN);
        check_magic(&out[..MAGIC_LEN]).unwrap();
        assert_eq!(parse_server_addrs(&out[MAGIC_LEN..]), Ok((own, seen)));
    }

    #[test]
    fn other_protocols_are_told_apart_by_their_first_bytes() {
        let refused = V1Error::BadBanner { got: *b"ceph v2\n\x10" };
        assert_eq!(check_magic(b"ceph v2\n\x10"), Err(refused));
    }
}
