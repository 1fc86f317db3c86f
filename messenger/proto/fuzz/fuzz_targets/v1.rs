//! msgr1 from arbitrary bytes: both handshakes, and items whose headers' checksums are made right, so
//! that lengths of the fuzzer's own making get past them.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use messenger_proto::crc::crc32c;
use messenger_proto::v1::header::HEADER_LEN;
use messenger_proto::v1::{
    Accept, Accepting, Acceptor, Answer, Attempt, CRC_SEED, Connector, Decoder, Dial, Encoder,
    Heard, Item, Reply, Terms, Wire,
};
use messenger_proto::{EntityAddr, EntityType, Limits, features};

/// Longest piece anybody may ask for, and the longest section.
const LONGEST: usize = 64 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let input = Bytes::copy_from_slice(input);
    match choice & 3 {
        0 => accept(*choice, input),
        1 => connect(*choice, input),
        _ => read(*choice, input),
    }
});

/// The next piece, if there is one.
fn piece(wants: Option<usize>, rest: &mut Bytes) -> Option<Bytes> {
    let len = wants?;
    assert!((1..=LONGEST).contains(&len));
    (len <= rest.len()).then(|| rest.split_to(len))
}

fn accept(choice: u8, mut rest: Bytes) {
    let from = "10.0.0.1:34567".parse().unwrap();
    let own_addr = EntityAddr::v1("10.0.0.2:6801".parse().unwrap(), 77);
    let mut out = BytesMut::new();
    let accepting = Accepting { own: EntityType::Osd, own_addr, from };
    let mut acceptor = Acceptor::new(accepting, &mut out);
    let terms = |_| Terms { supported: features::SUPPORTED, required: 0, lossy: true };
    while let Some(piece) = piece(acceptor.wants(), &mut rest) {
        match acceptor.push(piece, &terms, &mut out) {
            Ok(Some(Heard::Request(request))) => {
                let answer = match request.authorizer.first() {
                    None => Answer::Accept(Accept::default()),
                    Some(byte) if (byte ^ choice) & 1 == 0 => Answer::Challenge(vec![*byte; 32]),
                    Some(_) => Answer::RetryGlobal { global_seq: request.global_seq },
                };
                acceptor.answer(answer, &mut out);
            }
            Ok(_) => {}
            Err(_) => assert_eq!(acceptor.wants(), None),
        }
    }
}

fn connect(choice: u8, mut rest: Bytes) {
    let target = EntityAddr::v1("10.0.0.2:6801".parse().unwrap(), 77);
    let dial = Dial {
        own: EntityType::Client,
        peer: EntityType::Osd,
        own_addr: EntityAddr::unbound(1),
        target,
        supported: features::SUPPORTED,
        required: 0,
        lossy: true,
    };
    let mut out = BytesMut::new();
    let mut connector = Connector::new(dial, &mut out);
    if choice & 4 == 0 {
        let mut greeting = BytesMut::new();
        messenger_proto::v1::banner::write_server(&target, &target, &mut greeting);
        greeting.extend_from_slice(&rest);
        rest = greeting.freeze();
    }
    while let Some(piece) = piece(connector.wants(), &mut rest) {
        match connector.push(piece, &mut out) {
            Ok(Some(Reply::Wait | Reply::Refused(_) | Reply::Ready(_))) => {
                assert!(connector.wants().is_none() && !connector.is_idle());
            }
            Ok(Some(_)) => connector.connect(Attempt::default(), &mut out),
            Ok(None) => {}
            Err(_) => assert_eq!(connector.wants(), None),
        }
    }
}

fn read(choice: u8, mut rest: Bytes) {
    let wire = Wire { long_footer: choice & 4 != 0, crc_data: choice & 8 != 0 };
    let longest = LONGEST as u32;
    let limits =
        Limits { front_len: longest, middle_len: longest, data_len: longest, ..Limits::default() };
    let mut decoder = Decoder::new(wire, limits);
    while let Some(mut piece) = piece(decoder.wants(), &mut rest) {
        if piece.len() == HEADER_LEN && choice & 16 != 0 {
            let mut header = BytesMut::from(&piece[..]);
            let crc = crc32c(CRC_SEED, &header[..HEADER_LEN - 4]);
            header[HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
            piece = header.freeze();
        }
        match decoder.push(piece) {
            Ok(Some(Item::Message(message))) => {
                // What was read can be written, and is read again.
                let source = message.source.unwrap();
                let mut out = BytesMut::new();
                let sections = [&message.front, &message.middle, &message.data];
                let tail = Encoder::new(wire).message(&message.header, source, sections, &mut out);
                tail.copy_to(&mut out);
                let (mut again, mut rest) = (Decoder::new(wire, limits), out.freeze());
                let mut last = None;
                while let Some(len) = again.wants().filter(|len| *len <= rest.len()) {
                    last = again.push(rest.split_to(len)).unwrap();
                }
                assert!(matches!(last, Some(Item::Message(same)) if same.header == message.header));
            }
            Ok(_) => {}
            Err(_) => assert_eq!(decoder.wants(), None),
        }
    }
}
