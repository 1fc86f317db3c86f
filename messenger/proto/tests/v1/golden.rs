//! Bytes captured from Ceph daemons: decoded, then encoded again byte for byte.

use bytes::BytesMut;
use messenger_proto::denc::{Reader, Writer};
use messenger_proto::v1::{
    Connect, ConnectReply, Encoder, Header, Item, ReplyTag, Wire, protocol_version,
};
use messenger_proto::v2::Utime;
use messenger_proto::{EntityAddr, EntityName, EntityType, MessageHeader, features};

use crate::link::addr;
use crate::stream::{decoder, hex, read};

const WIRE: Wire = Wire { long_footer: true, crc_data: true };

#[test]
fn a_client_s_connect() {
    let wire = hex("fffffdffbdcf013f 08000000 01000000 00000000 0f000000 00000000 00000000 01");
    let connect = Connect {
        features: features::SUPPORTED,
        kind: EntityType::Client,
        global_seq: 1,
        connect_seq: 0,
        protocol: protocol_version(EntityType::Mon, EntityType::Client),
        authorizer_protocol: 0,
        authorizer_len: 0,
        lossy: true,
    };
    assert_eq!(Connect::parse(&wire), Ok(connect));
    let mut out = BytesMut::new();
    connect.write(&mut out);
    assert_eq!(out, wire);
}

#[test]
fn a_monitor_s_reply() {
    let wire = hex("0d fffffdffbdcf013f 5d000000 01000000 0f000000 00000000 01");
    let reply = ConnectReply {
        tag: ReplyTag::Seq,
        features: features::SUPPORTED,
        global_seq: 0x5d,
        connect_seq: 1,
        protocol: 15,
        authorizer_len: 0,
        lossy: true,
    };
    assert_eq!(ConnectReply::parse(&wire), Ok(reply));
    let mut out = BytesMut::new();
    reply.write(&mut out);
    assert_eq!(out, wire);
}

#[test]
fn a_monitor_s_address() {
    let mut wire = hex("00000000 00000000 0002 1a85 7f000001").to_vec();
    wire.resize(136, 0);
    let monitor = addr("v1:127.0.0.1:6789/0");
    assert_eq!(EntityAddr::decode_legacy(&mut Reader::new(&wire)), Ok(monitor));
    let mut out = BytesMut::new();
    monitor.encode_legacy(&mut Writer::new(&mut out));
    assert_eq!(out, wire);
}

#[test]
fn an_answer_to_a_sign_of_life() {
    let wire = hex("0f 3fe7036b 00669f3a");
    let stamp = Utime { seconds: 0x6b03_e73f, nanoseconds: 0x3a9f_6600 };
    let (items, left) = read(&mut decoder(WIRE, None), wire.clone()).unwrap();
    assert!(matches!(&items[..], [Item::Keepalive2Ack(got)] if *got == stamp), "{items:?}");
    assert_eq!(left, 0);
    let mut out = BytesMut::new();
    Encoder::new(WIRE).keepalive2_ack(stamp, &mut out);
    assert_eq!(out, wire);
}

/// The front is an MAuth with method none of client.admin, as Ceph's tools send it.
#[test]
fn an_mauth_message() {
    let head =
        hex("07 0100000000000000 0000000000000000 1100 7f00 0100 3c000000 00000000 00000000 0000
         08 ffffffffffffffff 0000 0000 d1e1ee3f");
    let footer = hex("5b63a735 00000000 00000000 0000000000000000 01");
    let header = MessageHeader {
        seq: 1,
        tid: 0,
        kind: 17,
        priority: 127,
        version: 1,
        compat_version: 0,
        data_off: 0,
    };
    let source = EntityName::new(EntityType::Client, -1);
    let (parsed, crc) = Header::parse(&head[1..]).unwrap();
    assert_eq!(parsed, Header { message: header, source, lens: [60, 0, 0] });
    assert_eq!(crc, 0x3fee_e1d1);

    let front = mauth_front();
    let empty = Default::default();
    let mut out = BytesMut::new();
    let encoder = Encoder::new(WIRE);
    let tail = encoder.message(&header, source, [&front, &empty, &empty], &mut out);
    assert_eq!((&out[..], tail.footer.as_bytes()), (&head[..], &footer[..]));

    tail.copy_to(&mut out);
    let (items, left) = read(&mut decoder(WIRE, None), out.freeze()).unwrap();
    let [Item::Message(message)] = &items[..] else {
        panic!("{items:?}");
    };
    assert_eq!((message.header, message.source, left), (header, Some(source), 0));
    assert_eq!(message.front, front);
}

/// Version, session and monitor of its head; protocol 0; a blob with methods, name and number.
fn mauth_front() -> bytes::Bytes {
    hex("0000000000000000 ffff 0000000000000000 00000000
         1e000000 01 01000000 01000000 08000000 05000000 61646d696e 0000000000000000 00000000")
}
