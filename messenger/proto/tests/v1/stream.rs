//! What is written, and what is read of it.

use bytes::{Bytes, BytesMut};
use messenger_proto::auth::cephx::MessageSigner;
use messenger_proto::v1::{Decoder, Encoder, Item, V1Error, Wire};
use messenger_proto::{EntityName, EntityType, Limits, Message, MessageHeader};

pub(crate) const CLIENT: EntityName = EntityName::new(EntityType::Client, 4123);

/// Bytes from hexadecimal digits, spaces ignored.
pub(crate) fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// A reader of messages; signatures are demanded if there is a signer.
pub(crate) fn decoder(wire: Wire, signer: Option<MessageSigner>) -> Decoder {
    let mut decoder = Decoder::new(wire, Limits::default());
    if let Some(signer) = signer {
        decoder.demand_signatures(signer);
    }
    decoder
}

/// A message on the wire.
pub(crate) fn written(encoder: &Encoder, message: &Message) -> BytesMut {
    let mut out = BytesMut::new();
    let sections = [&message.front, &message.middle, &message.data];
    encoder.message(&message.header, CLIENT, sections, &mut out).copy_to(&mut out);
    out
}

/// All items in `bytes`, announcements left out; and how many bytes are left.
pub(crate) fn read(decoder: &mut Decoder, mut bytes: Bytes) -> Result<(Vec<Item>, usize), V1Error> {
    let mut items = Vec::new();
    while let Some(len) = decoder.wants().filter(|len| *len <= bytes.len()) {
        match decoder.push(bytes.split_to(len))? {
            None | Some(Item::Announced(_)) => {}
            Some(item) => items.push(item),
        }
    }
    Ok((items, bytes.len()))
}

/// The only message in `bytes`.
pub(crate) fn read_one(decoder: &mut Decoder, bytes: Bytes) -> Result<Message, V1Error> {
    let (mut items, left) = read(decoder, bytes)?;
    match (items.pop(), items.len(), left) {
        (Some(Item::Message(message)), 0, 0) => Ok(message),
        other => panic!("{other:?}"),
    }
}

/// A message with sections of the given lengths.
pub(crate) fn message(lens: [usize; 3]) -> Message {
    let header = MessageHeader {
        seq: 0x5_0000_0007,
        tid: 3,
        kind: 42,
        priority: 127,
        version: 8,
        compat_version: 3,
        data_off: 5,
    };
    let section = |len: usize| (0..len).map(|at| (at * 7 + len) as u8).collect();
    Message::received(header, lens.map(section))
}

pub(crate) fn sections(message: &Message) -> [Bytes; 3] {
    [message.front.clone(), message.middle.clone(), message.data.clone()]
}
