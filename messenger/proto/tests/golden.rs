//! Bytes captured from Ceph daemons and published test vectors: decoded, then encoded again byte
//! for byte.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use messenger_proto::denc::{Reader, Writer};
use messenger_proto::v2::control::{
    Ack, AuthBadMethod, AuthDone, AuthReplyMore, AuthRequest, AuthRequestMore, AuthSignature,
    ClientIdent, CompressionDone, CompressionRequest, Control, Hello, IdentMissingFeatures,
    Keepalive2, Keepalive2Ack, ServerIdent, SessionReconnect, SessionReconnectOk, SessionReset,
    SessionRetry, SessionRetryGlobal, Wait,
};
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{
    Assembly, Banner, ConnectionSecret, Decoder, Encoder, Frame, Preamble, Revision, Role, Tag,
    Utime, Wire, header,
};
use messenger_proto::{EntityAddr, EntityType, Message, auth, features};

const REV0: Wire = Wire { revision: Revision::Rev0, crc_data: true };
const REV1: Wire = Wire { revision: Revision::Rev1, crc_data: true };

/// Bytes from hexadecimal digits, spaces ignored.
fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A one-segment preamble written `tag 01 low length bytes .. crc`, filled up.
fn preamble(start: &str, crc: &str) -> String {
    format!("{start}0000 0800 {} {crc}", "00".repeat(20))
}

fn read(wire: Wire, mut bytes: Bytes) -> Frame {
    let preamble = Preamble::decode(bytes.split_to(PREAMBLE_LEN)[..].try_into().unwrap()).unwrap();
    let mut assembly = Assembly::new(wire, preamble);
    while let Some(len) = assembly.wants() {
        assembly.push(bytes.split_to(len)).unwrap();
    }
    assert!(bytes.is_empty(), "{} bytes too many", bytes.len());
    assembly.finish()
}

/// A captured control frame is what `payload` encodes to, and decodes to it.
fn is_frame<C: Control + PartialEq + Debug>(wire: Wire, captured: &str, payload: C) {
    let captured = hex(captured);
    let frame = read(wire, captured.clone());
    assert_eq!(frame.tag, C::TAG.to_wire());
    assert_eq!(C::parse(&frame.segments[0]).unwrap(), payload);
    let mut out = BytesMut::new();
    wire.control(&payload, &mut out);
    assert_eq!(out, captured, "{payload:?}");
}

/// A captured payload is what `payload` encodes to, and decodes to it.
fn is_payload<C: Control + PartialEq + Debug>(captured: &str, payload: C) {
    let captured = hex(captured);
    assert_eq!(C::parse(&captured).unwrap(), payload);
    let mut out = BytesMut::new();
    payload.encode(&mut Writer::new(&mut out));
    assert_eq!(out, captured, "{payload:?}");
}

fn addr(text: &str) -> EntityAddr {
    text.parse().unwrap()
}

#[test]
fn banners_of_two_releases() {
    for (captured, supported) in [("01", 1), ("03", 3)] {
        let wire = hex(&format!("636570682076320a 1000 {captured}00000000000000 0000000000000000"));
        let banner = Banner { supported, required: 0 };
        assert_eq!(Banner::decode_payload(&wire[10..]), Ok(banner));
        assert_eq!(banner.encode(), wire[..]);
    }
}

#[test]
fn hello() {
    let segment = "01 01 01 01 1c000000 02000000 00000000 10000000 0200 ae9c 7f000001
        0000000000000000";
    let frame = preamble("01 01 2400", "3fbd6b06") + segment + "ac00a3b3";
    let hello = Hello { kind: EntityType::Mon, peer_addr: addr("v2:127.0.0.1:44700/0") };
    is_frame(REV1, &frame, hello);
    let v6 = "01 01 0101 28000000 02000000 00000000 1c000000 0a00 df20 00000000
        00000000000000000000000000000001 00000000";
    let hello = Hello { kind: EntityType::Mon, peer_addr: addr("v2:[::1]:57120/0") };
    is_payload(v6, hello);
}

#[test]
fn authentication() {
    let segment = "01000000 01000000 01000000 16000000 0a 08000000 05000000 61646d696e
        0000000000000000";
    let frame = preamble("02 01 2600", "8c5ee4be") + segment + "d8ede50c";
    is_frame(REV1, &frame, auth::none::request(EntityType::Client, "admin", 0, EntityType::Mon));

    let segment = "4d000000 a1ffffff 01000000 01000000 02000000 02000000 01000000";
    let frame = preamble("03 01 1c00", "e80a8959") + segment + "6e662e64";
    let refused = AuthBadMethod {
        method: 77,
        result: -95,
        allowed_methods: vec![1],
        allowed_modes: vec![2, 1],
    };
    is_frame(REV1, &frame, refused);

    let blob = "01 8525e004bc9c131f";
    let frame = preamble("04 01 0d00", "6a094bc5") + "09000000" + blob + "bc4af226";
    is_frame(REV1, &frame, AuthReplyMore(hex(blob).to_vec()));

    let blob = "0001 03 e12db41e0eba01e6 bf8ce52aaae9db1e 01 0000000000000000 00000000 37000000";
    let frame = preamble("05 01 2800", "b83ac75b") + "24000000" + blob + "b0e10929";
    is_frame(REV1, &frame, AuthRequestMore(hex(blob).to_vec()));

    let segment = "7c37000000000000 01000000 00000000";
    let frame = preamble("06 01 1000", "5b0630a6") + segment + "6fef6f47";
    is_frame(REV1, &frame, AuthDone { global_id: 0x377c, mode: 1, payload: vec![] });

    let frame = preamble("07 01 2000", "a80c9872") + &"00".repeat(32) + "55c96e75";
    is_frame(REV1, &frame, AuthSignature([0; 32]));
}

#[test]
fn idents() {
    let client = "02 01000000 01 0101 1c000000 03000000 04030201 10000000 0200 0000 7f000001
        0000000000000000 01 0101 1c000000 02000000 00000000 10000000 0200 0ce4 7f000001
        0000000000000000 7c37000000000000 0100000000000000 fffffdffbdcf013f 0000000000000008
        0100000000000000 0000000000000000";
    let ident = ClientIdent {
        addrs: addr("any:127.0.0.1:0/16909060").into(),
        target: addr("v2:127.0.0.1:3300/0"),
        number: 0x377c,
        global_seq: 1,
        supported: features::SUPPORTED,
        required: features::ADDR2,
        flags: 1,
        cookie: 0,
    };
    is_payload(client, ident);

    let server = "02 02000000 01 0101 1c000000 02000000 00000000 10000000 0200 0ce4 7f000001
        0000000000000000 01 0101 1c000000 01000000 00000000 10000000 0200 1a85 7f000001
        0000000000000000 0000000000000000 5c00000000000000 fffffdffbdcf013f 000004420002010c
        0100000000000000 0000000000000000";
    let addrs = vec![addr("v2:127.0.0.1:3300/0"), addr("v1:127.0.0.1:6789/0")];
    let ident = ServerIdent {
        addrs: messenger_proto::EntityAddrVec(addrs),
        number: 0,
        global_seq: 0x5c,
        supported: features::SUPPORTED,
        required: 0x0c01_0200_4204_0000,
        flags: 1,
        cookie: 0,
    };
    is_payload(server, ident);

    let frame = preamble("0a 01 0800", "67c8e79e") + "0000000000000008 ba150ef9";
    is_frame(REV1, &frame, IdentMissingFeatures(features::ADDR2));
}

#[test]
fn reconnects() {
    let request = "02 02000000
        01 0101 1c000000 02000000 907d0000 10000000 0200 1a9a 7f000003 0000000000000000
        01 0101 1c000000 01000000 907d0000 10000000 0200 1a9b 7f000003 0000000000000000
        18893f6c8aa50ff7 88f3e157524fb8f5 0200000000000000 0100000000000000 c508000000000000";
    let addrs = vec![addr("v2:127.0.0.3:6810/32144"), addr("v1:127.0.0.3:6811/32144")];
    let payload = SessionReconnect {
        addrs: messenger_proto::EntityAddrVec(addrs),
        client_cookie: 0xf70f_a58a_6c3f_8918,
        server_cookie: 0xf5b8_4f52_57e1_f388,
        global_seq: 2,
        connect_seq: 1,
        msg_seq: 2245,
    };
    let captured_crc = 0x2fe5_20cb; // of the whole segment, so it vouches for the elided bytes
    assert_eq!(messenger_proto::crc::crc32c(u32::MAX, &hex(request)), captured_crc);
    is_payload(request, payload);

    let frame = preamble("0f 01 0800", "61827cbf") + "c508000000000000 3a12da7b";
    is_frame(REV1, &frame, SessionReconnectOk(2245));
    let frame = preamble("0d 01 0800", "f8e2bbfe") + "0700000000000000 71488e89";
    is_frame(REV1, &frame, SessionRetry(7));
    let frame = preamble("0e 01 0800", "5509691d") + "0100000000000000 5230eb3a";
    is_frame(REV1, &frame, SessionRetryGlobal(1));
    let frame = preamble("0c 01 0100", "4abb9819") + "01 ad2fe95f";
    is_frame(REV1, &frame, SessionReset { full: true });
    is_frame(REV1, &preamble("10 01 0000", "c8e3aab0"), Wait);
}

#[test]
fn housekeeping() {
    let frame = preamble("14 01 0800", "7374bc5b") + "0200000000000000 3bb7afe1";
    is_frame(REV1, &frame, Ack(2));
    let stamp = Utime { seconds: 0x6b03_e73f, nanoseconds: 0x1e91_7500 };
    let frame = preamble("12 01 0800", "d8d5f599") + "3fe7036b 0075911e 1e6e2b7e";
    is_frame(REV1, &frame, Keepalive2(stamp));
    let frame = preamble("13 01 0800", "ec5ee03b") + "3fe7036b 0075911e 1e6e2b7e";
    is_frame(REV1, &frame, Keepalive2Ack(stamp));
    let stamp = Utime { seconds: 0x6b03_e740, nanoseconds: 0x13d3_1600 };
    let frame = preamble("12 01 0800", "d8d5f599")
        + "40e7036b 0016d313 00 58c94afe 000000000000000000000000";
    is_frame(REV0, &frame, Keepalive2(stamp));
    let frame = preamble("15 01 0900", "487b07d4") + "01 01000000 01000000 8b965d24";
    is_frame(REV1, &frame, CompressionRequest { wanted: true, methods: vec![1] });
    let frame = preamble("16 01 0500", "50d6f7e9") + "01 01000000 de4cd95f";
    is_frame(REV1, &frame, CompressionDone { on: true, method: 1 });
}

#[test]
fn keepalive_vectors_of_both_revisions() {
    let keepalive = || Keepalive2(Utime { seconds: 1, nanoseconds: 2 });
    let head = preamble("12 01 0800", "d8d5f599") + "01000000 02000000";
    is_frame(REV1, &format!("{head} d3138c85"), keepalive());
    is_frame(REV0, &format!("{head} 00 d3138c85 000000000000000000000000"), keepalive());
}

/// A MESSAGE frame whose sections are `rest`.
fn write_message(wire: Wire, message: &Message, seq: u64, ack_seq: u64) -> BytesMut {
    let mut fields = message.header;
    fields.seq = seq;
    let head = header::encode(&fields, ack_seq);
    let rest = [&message.front[..], &message.middle[..], &message.data[..]];
    let mut out = BytesMut::new();
    let epilogue = wire.begin(Tag::Message, |writer| writer.bytes(&head), rest, &mut out);
    rest.iter().for_each(|segment| out.extend_from_slice(segment));
    out.extend_from_slice(epilogue.as_bytes());
    out
}

#[test]
fn message_vectors_of_both_revisions() {
    let message = Message::new(2).with_tid(7).with_front("hello").with_data("world!");
    let header = "0100000000000000 0700000000000000 0200 7f00 0100 00000000 0000
        0000000000000000 03 0100 0000";
    let preamble = "1104290000000800 050000000800 000000000800 060000000010 0000 b7d09835";
    let rev1 = format!(
        "{preamble}{header} e8ee2809 68656c6c6f 776f726c6421 0e b3448e65 ffffffff 69a96692"
    );
    let rev0 = format!(
        "{preamble}{header} 68656c6c6f 776f726c6421 00 e8ee2809 b3448e65 ffffffff 69a96692"
    );
    for (wire, vector) in [(REV1, hex(&rev1)), (REV0, hex(&rev0))] {
        assert_eq!(write_message(wire, &message, 1, 0), vector);
        let frame = read(wire, vector);
        let (fields, ack_seq) = header::decode(&frame.segments[0]).unwrap();
        assert_eq!((fields.seq, fields.tid, fields.kind, ack_seq), (1, 7, 2, 0));
        let sections: [&[u8]; 3] = [b"hello", b"", b"world!"];
        assert_eq!(frame.segments[1..], sections);
    }
}

/// Vectors of secure mode: a KEEPALIVE2, then a MESSAGE, sealed by the server on a fresh transport
/// whose connection secret is 00 01 02 ...
fn sealed_vectors() -> [(Revision, [Bytes; 2]); 2] {
    let rev1 = [
        "d62f0baf0f4fbeef17dd5df5c727eb3e3abc748736f46bbf85cb2911bfd0e434d3d9213f83a6fb1c
        e3a0d5c8dad0511b89b8f12bf9c3bbe86b152db6879046985e5812a422977d9bce807a40ada1ac21
        55e0fecef307eebf2f8b7c603ac2dfd2",
        "28337eada5fdbfbcf74edf1bbdf6c7d0325501add26001f7bd8e51f21686d42229813043e1680a42
        fe5de5cb28eb3ead8353862682d13b6fec0cbd118d94ebdd3078c8cb945d8b04150204e6607ab75d
        70fcd27c8e2ad847f825d7e2e459d26eecef82beb4bf9a85a1aca2c2569f1a3e0e4432c267857306
        583a97488a8e063fd266ecfd0812170b347f346b6c6444caf41dff5d74aab1331bb58ca2baa5bce1",
    ];
    let rev0 = [
        "d62f0baf0f4fbeef17dd5df5c727eb3e3abc748736f46bbf85cb2911bfd0e434d3d9213f83a6fb1c
        e3a0d5c8dad0511b89b8f12bf9c3bbe86b152db687904698f55cdf9095b620b3055e95e828a26583",
        "6b02800d86bfd2c7b8a9286ab596aab6584588649180e658598a15f80f76eec056fecca75cd64b6a
        f8c9ba445f729bc050d09a323f98ff4240ad177df1ed09644c233de355e3abc58aea0ffee8abac62
        7590b0ffb54c62831a457557258dc2b6768608e713feb198292d80842b43f1f5a8ff25d99381f1d2
        e3e2887160536c926f778f4a1dc595cfdacf039e80f94d82",
    ];
    [(Revision::Rev1, rev1.map(hex)), (Revision::Rev0, rev0.map(hex))]
}

#[test]
fn sealed_vectors_of_both_revisions() {
    let secret: Vec<u8> = (0..64).collect();
    let secret = ConnectionSecret::new(&secret).unwrap();
    let keepalive = Keepalive2(Utime { seconds: 1, nanoseconds: 2 });
    let message = Message::new(2).with_tid(7).with_front("hello").with_data("world!");
    let mut fields = message.header;
    fields.seq = 1;
    let head = header::encode(&fields, 0);
    for (revision, vectors) in sealed_vectors() {
        let wire = Wire { revision, crc_data: true };
        let (mut encoder, mut decoder) = (Encoder::new(wire), Decoder::new(wire));
        encoder.secure(secret.keys(Role::Server, revision).unwrap().0);
        decoder.secure(secret.keys(Role::Client, revision).unwrap().1);

        let mut out = BytesMut::new();
        encoder.control(&keepalive, &mut out).unwrap();
        assert_eq!(out.split(), vectors[0]);
        let rest = [&message.front, &message.middle, &message.data];
        let tail = encoder.begin(Tag::Message, |writer| writer.bytes(&head), rest, &mut out);
        tail.unwrap().copy_to(&mut out);
        assert_eq!(out, vectors[1]);

        let [first, second] = vectors.map(|mut bytes| {
            let head_len = decoder.head_len();
            decoder.begin(bytes.split_to(head_len)).unwrap();
            while let Some(len) = decoder.wants() {
                decoder.push(bytes.split_to(len)).unwrap();
            }
            assert!(bytes.is_empty());
            decoder.finish(&[1 << 10; 4]).unwrap()
        });
        assert_eq!(Keepalive2::parse(&first.segments[0]).unwrap(), keepalive);
        let sections: [&[u8]; 4] = [&head, b"hello", b"", b"world!"];
        assert_eq!(second.segments, sections);
    }
}

/// Its sender was no daemon and set another flag than Ceph does, and we do; nobody reads it.
#[test]
fn a_captured_request_for_the_monitor_map() {
    let head = "0100000000000000 0000000000000000 0500 7f00 0100 00000000 0000 0000000000000000";
    let captured = preamble("11 01 2900", "af9604f0") + head + "01 0100 0000 5fe4c730";
    let frame = read(REV1, hex(&captured));
    let (fields, ack_seq) = header::decode(&frame.segments[0]).unwrap();
    assert_eq!((fields.seq, fields.kind, fields.priority, fields.version), (1, 5, 127, 1));
    let written = write_message(REV1, &Message::received(fields, Default::default()), 1, ack_seq);
    let (flags_at, crc_at) = (PREAMBLE_LEN + 36, PREAMBLE_LEN + header::HEADER_LEN);
    assert_eq!(written[flags_at], 3);
    let mut as_captured = written.clone();
    as_captured[flags_at] = 1;
    let crc = messenger_proto::crc::crc32c(u32::MAX, &as_captured[PREAMBLE_LEN..crc_at]);
    as_captured[crc_at..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(as_captured, hex(&captured));
}

/// The cluster's id in the data was not kept, so 37 bytes with its checksum stand for it.
#[test]
fn a_captured_answer_to_a_command() {
    let head = "0200000000000000 0100000000000000 3300 c400 0100 00000000 0000
        0200000000000000 03 0100 0000";
    let front = "0000000000000000 ffff 0000000000000000 00000000 00000000 01000000 12000000
        7b22707265666978223a202266736964227d";
    let data = "33663034636562642d363061302d343663662d613139362d636362356636323766 01bdb5f9";
    let captured = format!(
        "11 04 29000000 0800 34000000 0800 00000000 0800 25000000 0010 00 00 bfe4835a
         {head} d2335fb1 {front} {data} 0e 44353d4d ffffffff 14500279"
    );
    let frame = read(REV1, hex(&captured));
    let (fields, ack_seq) = header::decode(&frame.segments[0]).unwrap();
    assert_eq!((fields.seq, fields.tid, fields.kind, fields.priority), (2, 1, 51, 196));
    let [_, sections @ ..] = frame.segments;
    assert_eq!(sections.each_ref().map(Bytes::len), [52, 0, 37]);
    let message = Message::received(fields, sections);
    assert_eq!(write_message(REV1, &message, 2, ack_seq), hex(&captured));
}

#[test]
fn an_address_as_published() {
    let wire = hex("0101011c000000 02000000 04030201 10000000 0200 1a90 c0a80001 0000000000000000");
    let expected = addr("v2:192.168.0.1:6800/16909060");
    assert_eq!(EntityAddr::decode(&mut Reader::new(&wire)), Ok(expected));
    let mut out = BytesMut::new();
    expected.encode(&mut Writer::new(&mut out));
    assert_eq!(out, wire);
}

/// The ciphertexts were not kept; whatever stands for them comes back as it was.
#[test]
fn an_authorizer_and_what_an_osd_says_to_it() {
    let [ticket, sealed] = [112, 32].map(|len| "5a".repeat(len));
    let authorizer = format!(
        "01 3d10000000000000 04000000 01 0200000000000000 70000000 {ticket} 20000000 {sealed}"
    );
    let captured = format!("02000000 01000000 01000000 ae000000 {authorizer}");
    assert_eq!(hex(&captured).len(), 190);
    let request = AuthRequest { method: 2, modes: vec![1], payload: hex(&authorizer).to_vec() };
    is_payload(&captured, request);
    is_payload(&format!("20000000 {sealed}"), AuthReplyMore(hex(&sealed).to_vec()));
    let reply = format!("20000000 {sealed}");
    let done = AuthDone { global_id: 0x103d, mode: 1, payload: hex(&reply).to_vec() };
    is_payload(&format!("3d10000000000000 01000000 24000000 {reply}"), done);
}
