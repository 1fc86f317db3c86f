//! Cases 52 to 58: msgr1.

use bytes::{Bytes, BytesMut};
use messenger_proto::auth::Key as SessionKey;
use messenger_proto::auth::cephx::{
    Answer as Proven, AuthorizerVerifier, MessageSigner, RotatingSecret, RotatingSecrets,
};
use messenger_proto::v1::{
    Accept, Accepting, Acceptor, Answer, Decoder, Encoder, Heard, Item, Opened, Request, Terms,
    V1Error, Wire,
};
use messenger_proto::{EntityName, EntityType, Limits, Message};

use crate::bytes::{Addr, In, Out, crc32c};
use crate::cephx;
use crate::crypt::cbc;
use crate::host::NOW;
use crate::probe::{FEATURES, none_payload, stamp};

const SERVER: Addr = Addr::v1([10, 0, 0, 2], 6801, 22);
const CLIENT: Addr = Addr::v1([10, 0, 0, 9], 0, 99);
const SEEN: Addr = Addr::v1([10, 0, 0, 9], 5000, 0);
/// What monitors of a cluster with pools require of msgr1's clients.
const REQUIRED: u64 = 0x0401_0200_4204_0000;

const MSG: u8 = 7;
const CLOSE: u8 = 6;
const ACK: u8 = 8;
const KEEPALIVE: u8 = 9;
const KEEPALIVE2: u8 = 14;
const KEEPALIVE2_ACK: u8 = 15;

const BAD_PROTOCOL: u8 = 10;
const FEATURES_MISSING: u8 = 12;
const SEQ: u8 = 13;
const CHALLENGE: u8 = 16;

/// What a client asks for.
#[derive(Debug, Clone)]
struct Connect {
    features: u64,
    protocol: u32,
    method: u32,
    authorizer: Vec<u8>,
}

impl Connect {
    /// Right at a server of this kind.
    fn to(kind: EntityType) -> Self {
        match kind {
            EntityType::Mon => {
                Self { features: FEATURES, protocol: 15, method: 0, authorizer: Vec::new() }
            }
            _ => Self { features: FEATURES, protocol: 24, method: 1, authorizer: none_payload() },
        }
    }

    fn write(&self) -> Vec<u8> {
        let len = self.authorizer.len() as u32;
        let connect = Out::new().u64(self.features).u32(8).u32(1).u32(0).u32(self.protocol);
        connect.u32(self.method).u32(len).u8(1).raw(&self.authorizer).0
    }
}

/// What a server answers, and the blob behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    tag: u8,
    features: u64,
    connect_seq: u32,
    protocol: u32,
    flags: u8,
    blob: Vec<u8>,
}

/// A transport of msgr1 to a server of ours.
struct Line {
    acceptor: Acceptor,
    verifier: AuthorizerVerifier,
    kind: EntityType,
    session_key: Option<SessionKey>,
    codec: Option<(Encoder, Decoder)>,
    said: BytesMut,
    heard: BytesMut,
    received: Vec<Message>,
    end: Option<&'static str>,
}

impl Line {
    /// Connected, and greeted.
    fn to(kind: EntityType) -> Self {
        let mut line = Self::silent(kind);
        let hello = Out::new().raw(b"ceph v027").legacy_addr(SERVER).legacy_addr(SEEN).0;
        assert_eq!(line.hear(hello.len()), hello);
        line.say(&Out::new().raw(b"ceph v027").legacy_addr(CLIENT).0);
        line
    }

    /// Connected.
    fn silent(kind: EntityType) -> Self {
        let from = SEEN.known().socket.unwrap();
        let accepting = Accepting { own: kind, own_addr: SERVER.known(), from };
        let mut heard = BytesMut::new();
        Self {
            acceptor: Acceptor::new(accepting, &mut heard),
            verifier: AuthorizerVerifier::new(kind),
            kind,
            session_key: None,
            codec: None,
            said: BytesMut::new(),
            heard,
            received: Vec::new(),
            end: None,
        }
    }

    fn say(&mut self, bytes: &[u8]) -> &mut Self {
        self.said.extend_from_slice(bytes);
        while self.end.is_none() {
            let wants = match &self.codec {
                None => self.acceptor.wants(),
                Some((_, decoder)) => decoder.wants(),
            };
            let Some(len) = wants.filter(|len| *len <= self.said.len()) else {
                break;
            };
            let piece = self.said.split_to(len).freeze();
            if let Err(error) = self.take(piece) {
                self.end = Some(error.kind());
            }
        }
        self
    }

    fn take(&mut self, piece: Bytes) -> Result<(), V1Error> {
        match &mut self.codec {
            None => {
                let terms = |_| Terms { supported: FEATURES, required: REQUIRED, lossy: true };
                match self.acceptor.push(piece, &terms, &mut self.heard)? {
                    Some(Heard::Request(request)) => self.answer(&request),
                    Some(Heard::Opened(opened)) => self.open(&opened),
                    None => {}
                }
            }
            Some((encoder, decoder)) => match decoder.push(piece)? {
                Some(Item::Message(message)) => self.received.push(message),
                Some(Item::Keepalive2(stamp)) => encoder.keepalive2_ack(stamp, &mut self.heard),
                Some(Item::Close) => self.end = Some("closed"),
                _ => {}
            },
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) {
        let authorizer_reply = match request.authorizer_protocol {
            2 => {
                let (authorizer, random) = (&request.authorizer, &mut |bytes: &mut [u8]| {
                    bytes.fill(6);
                });
                let proven =
                    self.verifier.on_authorizer(authorizer, 1, &secrets(), NOW, random).unwrap();
                match proven {
                    Proven::Challenge(challenge) => {
                        self.acceptor.answer(Answer::Challenge(challenge), &mut self.heard);
                        return;
                    }
                    Proven::Admitted(admitted) => {
                        self.session_key = Some(admitted.session_key);
                        admitted.payload
                    }
                }
            }
            _ => Vec::new(),
        };
        let accept = Accept { global_seq: 5, in_seq: 0, authorizer_reply };
        self.acceptor.answer(Answer::Accept(accept), &mut self.heard);
    }

    fn open(&mut self, opened: &Opened) {
        let wire = Wire::new(opened.features, true);
        let (mut encoder, mut decoder) =
            (Encoder::new(wire), Decoder::new(wire, Limits::default()));
        if let Some(key) = &self.session_key {
            encoder.sign(MessageSigner::new(key));
            decoder.demand_signatures(MessageSigner::new(key));
        }
        self.codec = Some((encoder, decoder));
    }

    fn hear(&mut self, len: usize) -> Vec<u8> {
        self.heard.split_to(len).to_vec()
    }

    /// Sends a message to the client.
    fn send(&mut self, message: &Message) {
        let (encoder, _) = self.codec.as_ref().unwrap();
        let sections = [&message.front, &message.middle, &message.data];
        let source = EntityName::new(self.kind, 1);
        encoder
            .message(&message.header, source, sections, &mut self.heard)
            .copy_to(&mut self.heard);
    }

    fn connect(&mut self, connect: &Connect) -> Reply {
        self.say(&connect.write());
        let reply = self.hear(26);
        let mut read = In(&reply);
        let (tag, features, _global_seq) = (read.u8(), read.u64(), read.u32());
        let (connect_seq, protocol, len) = (read.u32(), read.u32(), read.u32());
        let flags = read.u8();
        let blob = self.hear(len as usize);
        Reply { tag, features, connect_seq, protocol, flags, blob }
    }

    /// A session is open.
    fn opened(kind: EntityType) -> Self {
        let mut line = Self::to(kind);
        assert_eq!(line.connect(&Connect::to(kind)).tag, SEQ);
        line.take_seq();
        line
    }

    /// Either side tells what it received before: nothing.
    fn take_seq(&mut self) {
        assert_eq!(self.hear(8), [0; 8]);
        self.say(&[0; 8]);
    }

    #[track_caller]
    fn is_answered(&mut self) {
        self.say(&[&[KEEPALIVE2][..], &stamp()].concat());
        assert_eq!(self.hear(9), [&[KEEPALIVE2_ACK][..], &stamp()].concat());
        self.stays_open();
    }

    #[track_caller]
    fn stays_open(&self) {
        assert_eq!((self.end, &self.heard[..]), (None, &[][..]));
    }

    #[track_caller]
    fn is_closed_for(&self, kind: &str) {
        assert_eq!((self.end, &self.heard[..]), (Some(kind), &[][..]));
    }
}

fn secrets() -> RotatingSecrets {
    let key = SessionKey::new(cephx::SERVICE_SECRET, NOW);
    let mut secrets = RotatingSecrets::default();
    let expires = NOW + std::time::Duration::from_secs(3600);
    secrets.insert(cephx::SECRET_ID, RotatingSecret { key, expires });
    secrets
}

/// A message on the wire, and what may be wrong about it.
struct Written {
    seq: u64,
    front: Vec<u8>,
    header_crc: u32,
    front_crc: u32,
    signed_with: Option<[u8; 16]>,
    flags: u8,
}

impl Written {
    fn new(seq: u64, front: &[u8]) -> Self {
        let (header_crc, front_crc) = (0, 0);
        Self { seq, front: front.to_vec(), header_crc, front_crc, signed_with: None, flags: 1 }
    }

    fn bytes(&self) -> Vec<u8> {
        let front_len = self.front.len() as u32;
        let header = Out::new().u64(self.seq).u64(7).u16(2).u16(127).u16(1).u32(front_len).u32(0);
        let header = header.u32(0).u16(0).u8(8).u64(4242).u16(1).u16(0);
        let header_crc = crc32c(0, &header.0) ^ self.header_crc;
        let front_crc = crc32c(0, &self.front) ^ self.front_crc;
        let signature = self
            .signed_with
            .map_or(0, |key| sign(&key, [header_crc, front_crc, front_len, 0, 0, 0, 0], self.seq));
        let footer = Out::new().u32(front_crc).u32(0).u32(0).u64(signature).u8(self.flags);
        Out::new().u8(MSG).raw(&header.0).u32(header_crc).raw(&self.front).raw(&footer.0).0
    }
}

/// The signature of a message: checksums and lengths, and its number.
fn sign(key: &[u8; 16], fields: [u32; 7], seq: u64) -> u64 {
    let text = fields.into_iter().fold(Out::new(), Out::u32).u32(seq as u32);
    let sealed = cbc(key, text.0);
    let mut read = In(&sealed);
    (0..4).fold(0, |sum, _| sum ^ read.u64())
}

const KINDS: [EntityType; 2] = [EntityType::Mon, EntityType::Osd];

#[test]
fn c52_a_client_is_let_in_and_its_keepalive_answered() {
    for kind in KINDS {
        let mut line = Line::to(kind);
        let connect = Connect::to(kind);
        let reply = line.connect(&connect);
        let expected = Reply {
            tag: SEQ,
            features: FEATURES,
            connect_seq: 1,
            protocol: connect.protocol,
            flags: 1,
            blob: Vec::new(),
        };
        assert_eq!(reply, expected);
        line.take_seq();
        line.is_answered();
    }
}

#[test]
fn c53_another_protocol_or_missing_features_are_told_and_the_line_stays_open() {
    for kind in KINDS {
        let mut line = Line::to(kind);
        let good = Connect::to(kind);
        let reply = line.connect(&Connect { protocol: 99, ..good.clone() });
        assert_eq!((reply.tag, reply.protocol), (BAD_PROTOCOL, good.protocol));
        line.stays_open();
        let reply = line.connect(&Connect { features: 0, ..good.clone() });
        assert_eq!((reply.tag, reply.features), (FEATURES_MISSING, REQUIRED));
        line.stays_open();
        assert_eq!(line.connect(&good).tag, SEQ);
    }
}

#[test]
fn c55_wrong_checksums_close() {
    for kind in KINDS {
        let mut line = Line::opened(kind);
        line.say(&Written { header_crc: 1, ..Written::new(1, b"") }.bytes());
        line.is_closed_for("v1_header_crc");
        let mut line = Line::opened(kind);
        line.say(&Written { front_crc: 1, ..Written::new(1, b"front") }.bytes());
        line.is_closed_for("v1_section_crc");
        assert!(line.received.is_empty());
    }
}

#[test]
fn c55_unknown_tags_close_and_so_does_the_tag_for_it() {
    for unknown in [0, 1, 0x63, 255] {
        Line::opened(EntityType::Osd).say(&[unknown]).is_closed_for("v1_unknown_tag");
    }
    Line::opened(EntityType::Osd).say(&[CLOSE]).is_closed_for("closed");
}

#[test]
fn c55_a_banner_of_msgr2_closes() {
    let mut line = Line::silent(EntityType::Osd);
    line.hear(281);
    let banner = Out::new().raw(b"ceph v2\n").u16(16).zeros(216).0;
    line.say(&banner).is_closed_for("v1_bad_banner");
}

/// A message that was given up, and one whose sections are longer than we take.
#[test]
fn c55_what_else_is_wrong_about_a_message_closes() {
    let mut line = Line::opened(EntityType::Osd);
    line.say(&Written { flags: 0, ..Written::new(1, b"front") }.bytes());
    line.is_closed_for("v1_aborted");

    let mut line = Line::opened(EntityType::Osd);
    let header = Out::new().u64(1).u64(7).u16(2).u16(127).u16(1).u32(0x7fff_ffff).u32(0).u32(0);
    let header = header.u16(0).u8(8).u64(4242).u16(1).u16(0).0;
    line.say(&Out::new().u8(MSG).raw(&header).u32(crc32c(0, &header)).0);
    line.is_closed_for("v1_section_too_long");
}

#[test]
fn c56_the_old_keepalive_is_not_answered() {
    let mut line = Line::opened(EntityType::Osd);
    line.say(&[KEEPALIVE]).stays_open();
    line.is_answered();
}

#[test]
fn c56_a_message_arrives_and_is_answered_by_another_one() {
    let mut line = Line::opened(EntityType::Osd);
    line.say(&Written::new(1, b"").bytes()).say(&Written::new(2, b"front").bytes());
    line.say(&Out::new().u8(ACK).u64(0).0).stays_open();
    let seqs: Vec<_> = line.received.iter().map(|message| message.header.seq).collect();
    assert_eq!(seqs, [1, 2]);
    let source = line.received[1].source.unwrap();
    assert_eq!(source, EntityName::new(EntityType::Client, 4242));
    line.send(&Message::new(2).with_front("pong"));
    let heard = line.hear(1 + 53 + 4 + 21);
    assert_eq!((heard[0], &heard[54..58]), (MSG, &b"pong"[..]));
    assert_eq!(crc32c(0, &heard[1..50]).to_le_bytes(), heard[50..54]);
    assert_eq!(crc32c(0, b"pong").to_le_bytes(), heard[58..62]);
    assert_eq!(heard[62..79], Out::new().zeros(16).u8(1).0);
}

/// A client that proves itself, and the session key.
fn proven() -> Line {
    let mut line = Line::to(EntityType::Osd);
    let connect =
        Connect { method: 2, authorizer: cephx::authorizer(None), ..Connect::to(EntityType::Osd) };
    let reply = line.connect(&connect);
    assert_eq!(reply.tag, CHALLENGE);
    let challenge = cephx::open_challenge(&reply.blob);
    let reply =
        line.connect(&Connect { authorizer: cephx::authorizer(Some(challenge)), ..connect });
    assert_eq!(reply.tag, SEQ);
    cephx::open_done(&reply.blob, false);
    line.take_seq();
    line
}

#[test]
fn c58_a_client_is_challenged_and_messages_are_signed_both_ways() {
    let mut line = proven();
    let key = Some(cephx::SESSION_KEY);
    line.say(&Written { signed_with: key, flags: 5, ..Written::new(1, b"front") }.bytes());
    assert_eq!(line.received.len(), 1);
    line.send(&Message::new(2).with_front("pong"));
    let heard = line.hear(1 + 53 + 4 + 21);
    let header_crc = In(&heard[50..]).u32();
    let front_crc = crc32c(0, b"pong");
    let signature = sign(&cephx::SESSION_KEY, [header_crc, front_crc, 4, 0, 0, 0, 0], 0);
    let footer = Out::new().u32(front_crc).u32(0).u32(0).u64(signature).u8(5).0;
    assert_eq!(heard[58..], footer);
}

#[test]
fn c58_a_message_that_is_signed_with_another_key_or_not_at_all_closes() {
    for (signed_with, flags) in [(None, 1), (None, 5), (Some([1; 16]), 5)] {
        let mut line = proven();
        line.say(&Written { signed_with, flags, ..Written::new(1, b"front") }.bytes());
        line.is_closed_for("v1_signature");
        assert!(line.received.is_empty());
    }
}

#[test]
fn c58_the_signature_is_the_reference_s() {
    let key = std::array::from_fn(|at| at as u8);
    let fields = [0x1111_1111, 0x2222_2222, 5, 0, 0, 0x3333_3333, 6];
    assert_eq!(sign(&key, fields, 0x5_0000_0007), 0x67bb_9398_9832_25e6);
}
