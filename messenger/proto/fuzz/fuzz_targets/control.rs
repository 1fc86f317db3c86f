//! Every control payload, addresses and message headers from arbitrary bytes. What decodes must
//! encode to something that decodes to the same value.
#![no_main]

use std::fmt::Debug;
use std::net::SocketAddr;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use messenger_proto::denc::{Reader, Writer};
use messenger_proto::v2::control::*;
use messenger_proto::v2::{Banner, header};
use messenger_proto::{EntityAddr, EntityAddrVec, EntityName};

fn again<C: Control + PartialEq + Debug>(input: &[u8]) {
    let Ok(payload) = C::parse(input) else { return };
    let mut out = BytesMut::new();
    payload.encode(&mut Writer::new(&mut out));
    assert_eq!(C::parse(&out).unwrap(), payload);
}

fn address(input: &[u8]) {
    let Ok(addrs) = EntityAddrVec::decode(&mut Reader::new(input)) else {
        return;
    };
    let mut out = BytesMut::new();
    addrs.encode(&mut Writer::new(&mut out));
    assert_eq!(EntityAddrVec::decode(&mut Reader::new(&out)).unwrap(), addrs);
    for addr in addrs.iter() {
        let mut shown = *addr;
        if let Some(SocketAddr::V6(socket)) = &mut shown.socket {
            socket.set_flowinfo(0); // text does not show it
        }
        assert_eq!(addr.to_string().parse::<EntityAddr>().unwrap(), shown);
        assert!(addr.cmp(addr).is_eq());
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((which, input)) = input.split_first() else {
        return;
    };
    match which % 25 {
        0 => again::<Hello>(input),
        1 => again::<AuthRequest>(input),
        2 => again::<AuthBadMethod>(input),
        3 => again::<AuthReplyMore>(input),
        4 => again::<AuthRequestMore>(input),
        5 => again::<AuthDone>(input),
        6 => again::<AuthSignature>(input),
        7 => again::<ClientIdent>(input),
        8 => again::<ServerIdent>(input),
        9 => again::<IdentMissingFeatures>(input),
        10 => again::<SessionReconnect>(input),
        11 => again::<SessionReset>(input),
        12 => again::<SessionRetry>(input),
        13 => again::<SessionRetryGlobal>(input),
        14 => again::<SessionReconnectOk>(input),
        15 => again::<Wait>(input),
        16 => again::<Keepalive2>(input),
        17 => again::<Keepalive2Ack>(input),
        18 => again::<Ack>(input),
        19 => again::<CompressionRequest>(input),
        20 => again::<CompressionDone>(input),
        21 => address(input),
        22 => {
            if let Ok((fields, ack_seq)) = header::decode(input) {
                let out = header::encode(&fields, ack_seq);
                assert_eq!(header::decode(&out).unwrap(), (fields, ack_seq));
            }
        }
        23 => {
            let _ = Banner::decode_payload(input);
            if let Ok(text) = std::str::from_utf8(input) {
                let _ = text.parse::<EntityAddr>();
                let _ = text.parse::<EntityName>();
            }
        }
        _ => {
            if let Some(prefix) = input.first_chunk() {
                let _ = Banner::decode_prefix(prefix, 4096);
            }
        }
    }
});
