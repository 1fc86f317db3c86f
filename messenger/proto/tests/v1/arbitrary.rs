//! Whatever a peer sends: no panic, and nothing asked for beyond the limits.

use bytes::{Bytes, BytesMut};
use messenger_proto::addr::LEGACY_LEN;
use messenger_proto::v1::banner::{self, MAGIC, SERVER_ADDRS_LEN};
use messenger_proto::v1::connect::{AUTHORIZER_LEN_MAX, CONNECT_LEN, REPLY_LEN};
use messenger_proto::v1::header::HEADER_LEN;
use messenger_proto::v1::{
    Accept, Answer, Attempt, Connect, ConnectReply, Decoder, Encoder, Header, Heard, Item,
    ReplyTag, Wire,
};
use messenger_proto::{EntityName, EntityType, Limits, Message, MessageHeader};
use proptest::prelude::*;

use crate::link::{Handshake, accepting, addr, dial};
use crate::stream::read_one;

const LARGEST_SECTION: usize = 1000;

fn limits() -> Limits {
    Limits { front_len: 300, middle_len: 200, data_len: 1000, ..Limits::default() }
}

fn kind() -> impl Strategy<Value = EntityType> {
    prop::sample::select(EntityType::ALL.to_vec())
}

fn name() -> impl Strategy<Value = EntityName> {
    (kind(), any::<i64>()).prop_map(|(kind, number)| EntityName::new(kind, number))
}

fn header() -> impl Strategy<Value = MessageHeader> {
    let words = (any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>(), any::<u16>());
    (any::<u64>(), any::<u64>(), words).prop_map(
        |(seq, tid, (kind, priority, version, compat_version, data_off))| MessageHeader {
            seq,
            tid,
            kind,
            priority,
            version,
            compat_version,
            data_off,
        },
    )
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

/// Bytes that get past the first checks more often than random ones.
fn half_sensible() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop::sample::select((0..=20_u8).collect::<Vec<_>>());
    let message =
        (header(), name(), bytes(60), bytes(60)).prop_map(|(header, source, one, two)| {
            let mut out = BytesMut::new();
            let (front, middle, data) = (Bytes::from(one), Bytes::new(), Bytes::from(two));
            let encoder = Encoder::new(Wire { long_footer: true, crc_data: true });
            encoder.message(&header, source, [&front, &middle, &data], &mut out).copy_to(&mut out);
            out.to_vec()
        });
    let announced = (header(), name(), any::<[u32; 3]>()).prop_map(|(message, source, lens)| {
        let mut out = BytesMut::from(&[7][..]);
        Header { message, source, lens }.write(&mut out);
        out.to_vec()
    });
    let part = prop_oneof![tag.prop_map(|tag| vec![tag]), bytes(80), message, announced];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn a_decoder_asks_for_nothing_beyond_its_limits(
        input in half_sensible(),
        long_footer: bool,
        crc_data: bool,
    ) {
        let mut decoder = Decoder::new(Wire { long_footer, crc_data }, limits());
        let mut rest = Bytes::from(input);
        while let Some(len) = decoder.wants() {
            prop_assert!((1..=LARGEST_SECTION).contains(&len), "{} bytes", len);
            if len > rest.len() {
                break;
            }
            match decoder.push(rest.split_to(len)) {
                Ok(Some(Item::Announced(header))) => prop_assert!(header.payload_len() <= 1500),
                Ok(_) => {}
                Err(_) => prop_assert_eq!(decoder.wants(), None),
            }
        }
    }

    #[test]
    fn a_server_takes_whatever_clients_say(
        greeting in prop_oneof![Just(MAGIC.to_vec()), bytes(12)],
        input in bytes(2000),
        connect in any::<bool>(),
        answers in prop::collection::vec(0..7_u8, 0..6),
    ) {
        let mut link = Handshake::new(dial(), accepting());
        link.to_server.clear();
        link.to_server.extend_from_slice(&greeting);
        if connect {
            link.to_server.extend_from_slice(&[0; LEGACY_LEN]);
            honest(&input).write(&mut link.to_server);
        }
        link.to_server.extend_from_slice(&input);
        let mut answers = answers.into_iter();
        loop {
            let largest = AUTHORIZER_LEN_MAX as usize;
            prop_assert!(link.acceptor.wants().is_none_or(|len| (1..=largest).contains(&len)));
            match link.server() {
                Ok(Some(Heard::Request(_))) => {
                    let Some(answer) = answers.next() else { break };
                    link.acceptor.answer(answer_of(answer), &mut link.to_client);
                }
                Ok(Some(Heard::Opened(_)) | None) => break,
                Err(_) => {
                    prop_assert_eq!(link.acceptor.wants(), None);
                    break;
                }
            }
        }
    }

    #[test]
    fn a_client_takes_whatever_servers_say(
        greeting in prop_oneof![Just(MAGIC.to_vec()), bytes(12)],
        input in bytes(2000),
        greeted: bool,
        tags in prop::collection::vec(prop::sample::select(ReplyTag::ALL.to_vec()), 0..4),
    ) {
        let mut link = Handshake::new(dial(), accepting());
        if !greeted {
            link.to_client.clear();
            link.to_client.extend_from_slice(&greeting);
        }
        for tag in tags {
            reply(tag, &input).write(&mut link.to_client);
        }
        link.to_client.extend_from_slice(&input);
        loop {
            let largest = AUTHORIZER_LEN_MAX as usize;
            prop_assert!(link.connector.wants().is_none_or(|len| (1..=largest).contains(&len)));
            match link.client() {
                Ok(Some(_)) if link.connector.is_idle() => {
                    link.connector.connect(Attempt::default(), &mut link.to_server);
                }
                Ok(_) => break,
                Err(_) => {
                    prop_assert_eq!(link.connector.wants(), None);
                    break;
                }
            }
        }
    }

    #[test]
    fn messages_survive_a_round_trip(
        header in header(),
        source in name(),
        sections in [bytes(300), bytes(200), bytes(1000)],
        long_footer: bool,
        crc_data: bool,
    ) {
        let wire = Wire { long_footer, crc_data };
        let sent = Message::received(header, sections.map(Bytes::from));
        let parts = [&sent.front, &sent.middle, &sent.data];
        let mut out = BytesMut::new();
        Encoder::new(wire).message(&header, source, parts, &mut out).copy_to(&mut out);
        let got = read_one(&mut Decoder::new(wire, limits()), out.freeze()).unwrap();
        prop_assert_eq!((got.header, got.source), (header, Some(source)));
        prop_assert_eq!([&got.front, &got.middle, &got.data], parts);
    }

    #[test]
    fn connects_and_replies_survive_a_round_trip(
        numbers: [u32; 4],
        features: u64,
        kind in kind(),
        tag in prop::sample::select(ReplyTag::ALL.to_vec()),
        authorizer_len in 0..=AUTHORIZER_LEN_MAX,
        lossy: bool,
    ) {
        let [global_seq, connect_seq, protocol, authorizer_protocol] = numbers;
        let connect = Connect {
            features,
            kind,
            global_seq,
            connect_seq,
            protocol,
            authorizer_protocol,
            authorizer_len,
            lossy,
        };
        let mut out = BytesMut::new();
        connect.write(&mut out);
        prop_assert_eq!(out.len(), CONNECT_LEN);
        prop_assert_eq!(Connect::parse(&out), Ok(connect));
        prop_assert!((0..CONNECT_LEN).all(|len| Connect::parse(&out[..len]).is_err()));

        let reply = ConnectReply {
            tag,
            features,
            global_seq,
            connect_seq,
            protocol,
            authorizer_len,
            lossy,
        };
        let mut out = BytesMut::new();
        reply.write(&mut out);
        prop_assert_eq!(out.len(), REPLY_LEN);
        prop_assert_eq!(ConnectReply::parse(&out), Ok(reply));
        prop_assert!((0..REPLY_LEN).all(|len| ConnectReply::parse(&out[..len]).is_err()));
    }
}

/// A connect that is not refused.
fn honest(input: &[u8]) -> Connect {
    Connect {
        features: dial().supported,
        kind: EntityType::Client,
        global_seq: 1,
        connect_seq: 0,
        protocol: 24,
        authorizer_protocol: 2,
        authorizer_len: (input.len() / 2) as u32,
        lossy: true,
    }
}

fn answer_of(number: u8) -> Answer {
    match number {
        0 => Answer::Challenge(vec![1; 32]),
        1 => Answer::BadAuthorizer,
        2 => Answer::ResetSession,
        3 => Answer::RetrySession { connect_seq: 4 },
        4 => Answer::RetryGlobal { global_seq: 5 },
        5 => Answer::Wait,
        _ => Answer::Accept(Accept::default()),
    }
}

fn reply(tag: ReplyTag, input: &[u8]) -> ConnectReply {
    ConnectReply {
        tag,
        features: dial().supported,
        global_seq: 1,
        connect_seq: 1,
        protocol: 24,
        authorizer_len: (input.len() % 3) as u32,
        lossy: true,
    }
}

#[test]
fn no_structure_decodes_from_less_than_all_of_it() {
    let mut out = BytesMut::new();
    banner::write_server(&addr("v1:10.0.0.2:1/2"), &dial().target, &mut out);
    let addrs = out.split_off(MAGIC.len());
    assert_eq!(addrs.len(), SERVER_ADDRS_LEN);
    for len in 0..addrs.len() {
        assert!(banner::parse_server_addrs(&addrs[..len]).is_err());
    }
    for len in 0..MAGIC.len() {
        assert!(banner::check_magic(&MAGIC[..len]).is_err());
    }
    for len in 0..HEADER_LEN {
        assert!(Header::parse(&[0; HEADER_LEN][..len]).is_err());
    }
}
