//! What is encoded decodes to itself, and what is not never panics.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use messenger_proto::denc::{Reader, Writer};
use messenger_proto::v2::control::{
    Ack, AuthBadMethod, AuthDone, AuthRequest, ClientIdent, CompressionRequest, Control, Hello,
    Keepalive2, LIST_MAX, ServerIdent, SessionReconnect, SessionReset,
};
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{Preamble, Tag, Utime, header};
use messenger_proto::{AddrType, EntityAddr, EntityAddrVec, EntityType, MessageHeader};
use proptest::prelude::*;

fn addr_type() -> impl Strategy<Value = AddrType> {
    use AddrType::{Any, Cidr, Legacy, Msgr2, None};
    prop::sample::select(vec![None, Legacy, Msgr2, Any, Cidr])
}

fn addr() -> impl Strategy<Value = EntityAddr> {
    let socket = prop::option::of((any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from));
    (addr_type(), any::<u32>(), socket).prop_map(|(kind, nonce, socket)| EntityAddr {
        kind,
        nonce,
        socket,
    })
}

fn addrs() -> impl Strategy<Value = EntityAddrVec> {
    prop::collection::vec(addr(), 0..5).prop_map(EntityAddrVec)
}

fn list() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 0..=LIST_MAX)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

fn survives<C: Control + PartialEq + Debug>(payload: C) -> Result<(), TestCaseError> {
    let mut out = BytesMut::new();
    payload.encode(&mut Writer::new(&mut out));
    let len = out.len();
    prop_assert!((0..len).all(|short| C::parse(&out[..short]).is_err()), "a prefix decodes");
    out.extend_from_slice(b"from the future");
    let mut reader = Reader::new(&out);
    prop_assert_eq!(C::decode(&mut reader).unwrap(), payload);
    prop_assert_eq!(reader.remaining(), out.len() - len);
    Ok(())
}

proptest! {
    #[test]
    fn addresses(addr in addr(), addrs in addrs()) {
        let mut out = BytesMut::new();
        addr.encode(&mut Writer::new(&mut out));
        addrs.encode(&mut Writer::new(&mut out));
        let mut reader = Reader::new(&out);
        prop_assert_eq!(EntityAddr::decode(&mut reader).unwrap(), addr);
        prop_assert_eq!(EntityAddrVec::decode(&mut reader).unwrap(), addrs);
        prop_assert_eq!(reader.remaining(), 0);
        prop_assert_eq!(addr.to_string().parse::<EntityAddr>().unwrap(), addr);
    }

    #[test]
    fn the_order_of_addresses_is_total(a in addr(), b in addr(), c in addr()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert!(!(a <= b && b <= c) || a <= c);
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
    }

    #[test]
    fn hellos(peer_addr in addr(), kind in prop::sample::select(EntityType::ALL.to_vec())) {
        survives(Hello { kind, peer_addr })?;
    }

    #[test]
    fn authentication(method: u32, result: i32, modes in list(), payload in bytes(), id: u64) {
        survives(AuthRequest { method, modes: modes.clone(), payload: payload.clone() })?;
        survives(AuthDone { global_id: id, mode: method, payload })?;
        let (allowed_methods, allowed_modes) = (modes.clone(), modes);
        survives(AuthBadMethod { method, result, allowed_methods, allowed_modes })?;
    }

    #[test]
    fn idents(addrs in addrs(), target in addr(), number: i64, n: [u64; 5]) {
        let [global_seq, supported, required, flags, cookie] = n;
        survives(ClientIdent {
            addrs: addrs.clone(), target, number, global_seq, supported, required, flags, cookie,
        })?;
        survives(ServerIdent {
            addrs: addrs.clone(), number, global_seq, supported, required, flags, cookie,
        })?;
        survives(SessionReconnect {
            addrs,
            client_cookie: n[0],
            server_cookie: n[1],
            global_seq: n[2],
            connect_seq: n[3],
            msg_seq: n[4],
        })?;
    }

    #[test]
    fn housekeeping(seconds: u32, nanoseconds: u32, n: u64, wanted: bool, methods in list()) {
        survives(Keepalive2(Utime { seconds, nanoseconds }))?;
        survives(Ack(n))?;
        survives(SessionReset { full: wanted })?;
        survives(CompressionRequest { wanted, methods })?;
    }

    #[test]
    fn message_headers(n: [u64; 3], s: [u16; 5], data_off: u16) {
        let [kind, priority, version, compat_version, _] = s;
        let fields = MessageHeader {
            seq: n[0], tid: n[1], kind, priority, version, compat_version, data_off,
        };
        prop_assert_eq!(header::decode(&header::encode(&fields, n[2])).unwrap(), (fields, n[2]));
    }

    #[test]
    fn preambles(lens: [u32; 4]) {
        let preamble = Preamble::new(Tag::Message, lens);
        prop_assert_eq!(Preamble::decode(&preamble.encode()).unwrap(), preamble);
    }

    #[test]
    fn garbage_is_an_error_or_a_value(garbage in bytes()) {
        let mut reader = Reader::new(&garbage);
        let _ = EntityAddrVec::decode(&mut reader);
        let _ = ClientIdent::parse(&garbage);
        let _ = AuthBadMethod::parse(&garbage);
        let _ = header::decode(&garbage);
        if let Some(head) = garbage.first_chunk::<PREAMBLE_LEN>() {
            let _ = Preamble::decode(head);
        }
    }
}
