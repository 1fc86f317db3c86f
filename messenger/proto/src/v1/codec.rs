//! The items of one transport whose handshake is over.
//!
//! ```text
//!   ACK u64    KEEPALIVE    KEEPALIVE2 utime    KEEPALIVE2_ACK utime    CLOSE     one byte of tag,
//!   MSG  header | front | middle | data | footer                                  then this
//! ```

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::{BufMut, Bytes, BytesMut};

use crate::auth::cephx::{MessageSigner, SignedFields};
use crate::crc::crc32c;
use crate::denc::{Reader, Writer};
use crate::entity::EntityName;
use crate::features;
use crate::identity::Limits;
use crate::message::{Message, MessageHeader};
use crate::v1::footer::FooterBytes;
use crate::v1::header::{HEADER_LEN, SECTION_NAMES, SECTIONS};
use crate::v1::{CRC_SEED, Footer, Header, Tag, V1Error, parse};
use crate::v2::Utime;

const TAG_LEN: usize = 1;
const SEQ_LEN: usize = 8;
const STAMP_LEN: usize = 8;
const DATA: usize = SECTIONS - 1;

/// How the messages of a transport look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// Footers have room for a signature.
    pub long_footer: bool,
    /// Whether checksums of data are made and checked; those of the other sections always are.
    pub crc_data: bool,
}

impl Wire {
    /// What both sides make of the `features` they have in common.
    pub const fn new(features: u64, crc_data: bool) -> Self {
        Self { long_footer: features & features::MSG_AUTH != 0, crc_data }
    }
}

/// What follows the bytes that [`Encoder::message`] wrote: first the sections, then the footer.
#[derive(Debug)]
#[must_use]
pub struct Tail {
    /// The message's sections, by reference.
    pub sections: [Bytes; SECTIONS],
    /// The end of the message.
    pub footer: FooterBytes,
}

impl Tail {
    /// Appends it to `out`, for callers that do not gather.
    pub fn copy_to(&self, out: &mut BytesMut) {
        self.sections.iter().for_each(|section| out.put_slice(section));
        out.put_slice(self.footer.as_bytes());
    }
}

/// Writes the items of one transport.
#[derive(Debug)]
pub struct Encoder {
    wire: Wire,
    signer: Option<MessageSigner>,
}

impl Encoder {
    /// Writes unsigned messages.
    pub fn new(wire: Wire) -> Self {
        Self { wire, signer: None }
    }

    /// Signs every later message.
    ///
    /// # Panics
    ///
    /// If footers have no room for a signature: whoever signs requires [`features::MSG_AUTH`].
    pub fn sign(&mut self, signer: MessageSigner) {
        assert!(self.wire.long_footer, "a short footer has no room for a signature");
        self.signer = Some(signer);
    }

    /// Writes the start of a message to `out`. The caller sends the tail behind it.
    ///
    /// # Panics
    ///
    /// If a section has 4 GiB or more.
    pub fn message(
        &self,
        header: &MessageHeader,
        source: EntityName,
        sections: [&Bytes; SECTIONS],
        out: &mut BytesMut,
    ) -> Tail {
        let len = |section: &Bytes| u32::try_from(section.len()).expect("sections fit 32 bits");
        let header = Header { message: *header, source, lens: sections.map(len) };
        out.put_u8(Tag::Message.to_wire());
        let header_crc = header.write(out);
        let mut crcs = sections.map(|section| crc32c(CRC_SEED, section));
        if !self.wire.crc_data {
            crcs[DATA] = 0;
        }
        let signer = self.signer.as_ref();
        let footer = Footer {
            crcs,
            no_data_crc: !self.wire.crc_data,
            signature: signer.map(|signer| signature(signer, &header, header_crc, crcs)),
            complete: true,
        };
        Tail { sections: sections.map(Bytes::clone), footer: footer.encode(self.wire.long_footer) }
    }

    /// Writes that everything up to message `seq` arrived.
    pub fn ack(&self, seq: u64, out: &mut BytesMut) {
        out.put_u8(Tag::Ack.to_wire());
        out.put_u64_le(seq);
    }

    /// Writes a sign of life that nobody answers, for peers that do not know the other one.
    pub fn keepalive(&self, out: &mut BytesMut) {
        out.put_u8(Tag::Keepalive.to_wire());
    }

    /// Writes a sign of life to be answered with its stamp.
    pub fn keepalive2(&self, stamp: Utime, out: &mut BytesMut) {
        out.put_u8(Tag::Keepalive2.to_wire());
        stamp.encode(&mut Writer::new(out));
    }

    /// Answers a sign of life.
    pub fn keepalive2_ack(&self, stamp: Utime, out: &mut BytesMut) {
        out.put_u8(Tag::Keepalive2Ack.to_wire());
        stamp.encode(&mut Writer::new(out));
    }

    /// Writes that the session ends here, and on purpose.
    pub fn close(&self, out: &mut BytesMut) {
        out.put_u8(Tag::Close.to_wire());
    }
}

/// What a [`Decoder`] came upon.
#[derive(Debug)]
pub enum Item {
    /// A message begins. Nothing was asked for its sections yet: this is the moment for throttles.
    /// It is always within the limits, and an [`Item::Message`] follows if it is whole.
    Announced(Header),
    /// A message is complete, and its source the one it names.
    Message(Message),
    /// Everything up to this message arrived.
    Ack(u64),
    /// A sign of life that wants no answer.
    Keepalive,
    /// A sign of life to be answered with its stamp.
    Keepalive2(Utime),
    /// The answer to ours.
    Keepalive2Ack(Utime),
    /// The peer ends the session; nothing of it follows.
    Close,
}

/// Reads the items of one transport.
///
/// As long as [`Decoder::wants`] asks for a piece, [`Decoder::push`] takes it, and some pieces
/// complete an item. After an error nothing is wanted any more.
#[derive(Debug)]
pub struct Decoder {
    wire: Wire,
    limits: Limits,
    signer: Option<MessageSigner>,
    state: State,
}

/// Which piece comes next.
#[derive(Debug)]
enum State {
    Tag,
    Ack,
    Keepalive2,
    Keepalive2Ack,
    Header,
    Body(Body),
    Closed,
}

/// A message behind its header.
#[derive(Debug)]
struct Body {
    header: Header,
    header_crc: u32,
    sections: [Bytes; SECTIONS],
    crcs: [u32; SECTIONS],
    /// Index of the section to come; the footer behind the last one.
    next: usize,
}

impl Decoder {
    /// Reads messages whose signatures, if any, are not looked at.
    pub fn new(wire: Wire, limits: Limits) -> Self {
        Self { wire, limits, signer: None, state: State::Tag }
    }

    /// Demands that every message be signed.
    ///
    /// # Panics
    ///
    /// If footers have no room for a signature: whoever demands one requires
    /// [`features::MSG_AUTH`].
    pub fn demand_signatures(&mut self, signer: MessageSigner) {
        assert!(self.wire.long_footer, "a short footer has no room for a signature");
        self.signer = Some(signer);
    }

    /// Bytes of the next piece, never zero; none once the peer closed the session or broke the
    /// protocol.
    pub fn wants(&self) -> Option<usize> {
        Some(match &self.state {
            State::Tag => TAG_LEN,
            State::Ack => SEQ_LEN,
            State::Keepalive2 | State::Keepalive2Ack => STAMP_LEN,
            State::Header => HEADER_LEN,
            State::Body(body) => match body.header.lens.get(body.next) {
                Some(len) => *len as usize,
                None => Footer::len(self.wire.long_footer),
            },
            State::Closed => return None,
        })
    }

    /// The message whose data is the next piece, for callers that have a place for it.
    pub fn announces_data(&self) -> Option<&MessageHeader> {
        match &self.state {
            State::Body(body) if body.next == DATA => Some(&body.header.message),
            _ => None,
        }
    }

    /// Takes the next piece, of exactly the length that [`Decoder::wants`] tells.
    pub fn push(&mut self, piece: Bytes) -> Result<Option<Item>, V1Error> {
        debug_assert_eq!(self.wants(), Some(piece.len()));
        let (next, item) = match std::mem::replace(&mut self.state, State::Closed) {
            State::Tag => self.on_tag(&piece)?,
            State::Ack => (State::Tag, Some(Item::Ack(parse("ACK", &piece, Reader::u64)?))),
            State::Keepalive2 => {
                let stamp = parse("KEEPALIVE2", &piece, Utime::decode)?;
                (State::Tag, Some(Item::Keepalive2(stamp)))
            }
            State::Keepalive2Ack => {
                let stamp = parse("KEEPALIVE2_ACK", &piece, Utime::decode)?;
                (State::Tag, Some(Item::Keepalive2Ack(stamp)))
            }
            State::Header => {
                let (header, header_crc) = Header::parse(&piece)?;
                header.check_lens(&self.limits)?;
                (State::Body(Body::new(header, header_crc)), Some(Item::Announced(header)))
            }
            State::Body(body) if body.next == SECTIONS => {
                let footer = Footer::parse(&piece, self.wire.long_footer)?;
                (State::Tag, Some(Item::Message(self.complete(body, &footer)?)))
            }
            State::Body(mut body) => {
                body.take(piece, self.wire.crc_data);
                (State::Body(body), None)
            }
            State::Closed => (State::Closed, None),
        };
        self.state = next;
        Ok(item)
    }

    fn on_tag(&self, piece: &[u8]) -> Result<(State, Option<Item>), V1Error> {
        let tag = parse("tag", piece, Reader::u8)?;
        Ok(match Tag::from_wire(tag).ok_or(V1Error::UnknownTag { tag })? {
            Tag::Message => (State::Header, None),
            Tag::Ack => (State::Ack, None),
            Tag::Keepalive => (State::Tag, Some(Item::Keepalive)),
            Tag::Keepalive2 => (State::Keepalive2, None),
            Tag::Keepalive2Ack => (State::Keepalive2Ack, None),
            Tag::Close => (State::Closed, Some(Item::Close)),
        })
    }

    /// Checks a whole message, in Ceph's order: given up, checksums, signature.
    fn complete(&self, body: Body, footer: &Footer) -> Result<Message, V1Error> {
        let seq = body.header.message.seq;
        if !footer.complete {
            return Err(V1Error::Aborted { seq });
        }
        // No signature covers the flags. Somebody on the way could set this one and change the data,
        // were it not that an honest sender that sets it signs a checksum of zero.
        let no_data_crc = footer.no_data_crc && (self.signer.is_none() || footer.crcs[DATA] == 0);
        for (index, section) in SECTION_NAMES.into_iter().enumerate() {
            let (expected, got) = (body.crcs[index], footer.crcs[index]);
            let unchecked = index == DATA && (no_data_crc || !self.wire.crc_data);
            if got != expected && !unchecked {
                return Err(V1Error::SectionCrc { section, expected, got });
            }
        }
        if let Some(signer) = &self.signer {
            let expected = signature(signer, &body.header, body.header_crc, footer.crcs);
            let got = footer.signature.ok_or(V1Error::Signature { seq })?;
            verify_slices_are_equal(&expected.to_le_bytes(), &got.to_le_bytes())
                .map_err(|_| V1Error::Signature { seq })?;
        }
        let mut message = Message::received(body.header.message, body.sections);
        message.source = Some(body.header.source);
        Ok(message)
    }
}

impl Body {
    fn new(header: Header, header_crc: u32) -> Self {
        let crcs = [CRC_SEED; SECTIONS]; // the checksum of nothing
        let mut body = Self { header, header_crc, sections: Default::default(), crcs, next: 0 };
        body.skip_empty();
        body
    }

    fn take(&mut self, section: Bytes, crc_data: bool) {
        if self.next != DATA || crc_data {
            self.crcs[self.next] = crc32c(CRC_SEED, &section);
        }
        self.sections[self.next] = section;
        self.next += 1;
        self.skip_empty();
    }

    fn skip_empty(&mut self) {
        while self.header.lens.get(self.next) == Some(&0) {
            self.next += 1;
        }
    }
}

/// A message's signature, made over the checksums as they are in its footer.
fn signature(
    signer: &MessageSigner,
    header: &Header,
    header_crc: u32,
    crcs: [u32; SECTIONS],
) -> u64 {
    let [front, middle, data] = crcs;
    let [front_len, middle_len, data_len] = header.lens;
    signer.signature(&SignedFields {
        header_crc,
        front: (front, front_len),
        middle: (middle, middle_len),
        data: (data, data_len),
        seq: header.message.seq,
    })
}
