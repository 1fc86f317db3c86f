//! The same relay for msgr1: a handshake that is a question and an answer, then items.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::{Bytes, BytesMut};
use messenger::{EntityAddr, Message};
use messenger_proto::addr::LEGACY_LEN;
use messenger_proto::denc::{Reader, Writer};
use messenger_proto::v1::banner::{MAGIC, MAGIC_LEN};
use messenger_proto::v1::connect::{CONNECT_LEN, REPLY_LEN};
use messenger_proto::v1::{Connect, ConnectReply, Decoder, Encoder, Item, ReplyTag, Wire};
use messenger_proto::{Limits, features};

use super::{Party, Relay, cut, stream_of};

const SEQ_LEN: usize = 8;
const WIRE: Wire = Wire::new(features::SUPPORTED, true);

/// One transport of each side whose greetings were passed on.
pub(crate) struct LegacyLink {
    streams: [TcpStream; 2],
    dialler: Party,
    /// The question that was passed on last.
    asked: Option<Connect>,
    decoders: [Decoder; 2],
    /// What each side said it has.
    acked: [u64; 2],
}

/// A question of the dialler's, or an answer, with what comes behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct With<T> {
    pub(crate) what: T,
    behind: Vec<u8>,
}

/// A message on its way.
pub(crate) struct LegacyLetter {
    pub(crate) message: Message,
    bytes: Vec<u8>,
}

impl Relay {
    /// The next dial of one side, greetings passed on. What the dialler then asks is still to be
    /// read.
    pub(crate) fn next_legacy_dial(&self, dialler: Party) -> LegacyLink {
        self.next_legacy_dial_as(dialler, |_| ())
    }

    /// The same; the acceptor takes the dialler for who `edit` makes of it.
    pub(crate) fn next_legacy_dial_as(
        &self,
        dialler: Party,
        edit: impl FnOnce(&mut EntityAddr),
    ) -> LegacyLink {
        let decoder = || Decoder::new(WIRE, Limits::default());
        let mut link = LegacyLink {
            streams: self.joined(dialler),
            dialler,
            asked: None,
            decoders: [decoder(), decoder()],
            acked: [0; 2],
        };
        link.greet(self.front(), self.osd, edit);
        link
    }
}

impl LegacyLink {
    fn greet(&mut self, front: EntityAddr, osd: EntityAddr, edit: impl FnOnce(&mut EntityAddr)) {
        let (dialler, acceptor) = (self.dialler, self.dialler.other());
        for party in [dialler, acceptor] {
            assert_eq!(self.read(party, MAGIC_LEN), MAGIC);
            self.send(party, &MAGIC);
        }
        // Of both it is the OSD's own address that is another one on this side.
        let own = self.read(acceptor, LEGACY_LEN);
        assert!(acceptor == Party::Ours || own == legacy(&osd), "{own:?}");
        let own = if acceptor == Party::Osd { legacy(&front) } else { own };
        let seen = self.read(acceptor, LEGACY_LEN);
        self.send(acceptor, &[own, seen].concat());
        let own = self.read(dialler, LEGACY_LEN);
        let mut dialler_addr = EntityAddr::decode_legacy(&mut Reader::new(&own)).unwrap();
        if dialler == Party::Osd {
            assert_eq!(dialler_addr, osd);
            dialler_addr = front;
        }
        edit(&mut dialler_addr);
        self.send(dialler, &legacy(&dialler_addr));
    }

    /// Takes the dialler's question off the wire.
    pub(crate) fn take_connect(&mut self) -> With<Connect> {
        let what = Connect::parse(&self.read(self.dialler, CONNECT_LEN)).unwrap();
        let behind = self.read(self.dialler, what.authorizer_len as usize);
        With { what, behind }
    }

    /// Asks it.
    pub(crate) fn give_connect(&mut self, connect: &With<Connect>) {
        let mut out = BytesMut::new();
        connect.what.write(&mut out);
        out.extend_from_slice(&connect.behind);
        self.send(self.dialler, &out);
        self.asked = Some(connect.what);
    }

    /// Passes the question.
    pub(crate) fn pass_connect(&mut self) -> Connect {
        let connect = self.take_connect();
        self.give_connect(&connect);
        connect.what
    }

    /// Passes the acceptor's answer.
    pub(crate) fn pass_reply(&mut self) -> ConnectReply {
        self.edit_reply(|_| ())
    }

    /// The same, but the dialler gets something else. Returns what was answered. With cephx the
    /// answer to a question may be a challenge, and the question is asked again.
    pub(crate) fn edit_reply(&mut self, edit: impl FnOnce(&mut ConnectReply)) -> ConnectReply {
        let (mut reply, mut behind) = self.take_reply();
        while reply.tag == ReplyTag::ChallengeAuthorizer {
            self.give_reply(&reply, &behind);
            let again = self.take_connect();
            let authorizer_len = again.what.authorizer_len;
            let what = Connect { authorizer_len, ..self.asked.unwrap() };
            self.give_connect(&With { what, ..again });
            (reply, behind) = self.take_reply();
        }
        let mut edited = reply;
        edit(&mut edited);
        self.give_reply(&edited, &behind);
        reply
    }

    fn take_reply(&mut self) -> (ConnectReply, Vec<u8>) {
        let acceptor = self.dialler.other();
        let reply = ConnectReply::parse(&self.read(acceptor, REPLY_LEN)).unwrap();
        let behind = self.read(acceptor, reply.authorizer_len as usize);
        (reply, behind)
    }

    fn give_reply(&mut self, reply: &ConnectReply, behind: &[u8]) {
        let mut out = BytesMut::new();
        reply.write(&mut out);
        out.extend_from_slice(behind);
        self.send(self.dialler.other(), &out);
    }

    /// Passes what both sides have: the acceptor's word, then the dialler's.
    pub(crate) fn pass_seqs(&mut self) -> [u64; 2] {
        [self.dialler.other(), self.dialler].map(|party| {
            let seq = self.read(party, SEQ_LEN);
            self.send(party, &seq);
            u64::from_le_bytes(seq.try_into().unwrap())
        })
    }

    /// Passes the next message of `from`.
    pub(crate) fn pass_message(&mut self, from: Party) -> LegacyLetter {
        let letter = self.take_message(from);
        self.send(from, &letter.bytes);
        letter
    }

    /// Takes the next message of `from` off the wire. Acknowledgements are noted, not passed on;
    /// signs of life are.
    pub(crate) fn take_message(&mut self, from: Party) -> LegacyLetter {
        loop {
            match self.next(from) {
                (Item::Message(message), bytes) => return LegacyLetter { message, bytes },
                (Item::Ack(seq), _) => self.note_ack(from, seq),
                (Item::Keepalive2(_) | Item::Keepalive2Ack(_), bytes) => self.send(from, &bytes),
                (other, _) => panic!("{from:?} sent no message: {other:?}"),
            }
        }
    }

    /// Waits until the OSD has acknowledged all we said so far, and tells us; then breaks both
    /// transports.
    pub(crate) fn cut_after_ack(mut self, seq: u64) {
        while self.acked[Party::Osd as usize] < seq {
            match self.next(Party::Osd) {
                (Item::Ack(acked), _) => self.note_ack(Party::Osd, acked),
                (other, _) => panic!("the OSD acknowledged nothing: {other:?}"),
            }
        }
        let mut ack = BytesMut::new();
        Encoder::new(WIRE).ack(seq, &mut ack);
        self.send(Party::Osd, &ack);
        self.cut();
    }

    /// Breaks both transports, see [`cut`].
    pub(crate) fn cut(self) {
        cut(self.streams);
    }

    fn note_ack(&mut self, from: Party, seq: u64) {
        let acked = &mut self.acked[from as usize];
        *acked = seq.max(*acked);
    }

    /// The next whole item of `from`, and its bytes.
    fn next(&mut self, from: Party) -> (Item, Vec<u8>) {
        let mut bytes = Vec::new();
        loop {
            let len = self.decoders[from as usize].wants().expect("the session goes on");
            let piece = self.read(from, len);
            bytes.extend_from_slice(&piece);
            match self.decoders[from as usize].push(Bytes::from(piece)).unwrap() {
                None | Some(Item::Announced(_)) => {}
                Some(item) => return (item, bytes),
            }
        }
    }

    fn read(&mut self, from: Party, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        stream_of(&mut self.streams, from).read_exact(&mut bytes).expect("more of a session");
        bytes
    }

    fn send(&mut self, from: Party, bytes: &[u8]) {
        stream_of(&mut self.streams, from.other()).write_all(bytes).unwrap();
    }
}

fn legacy(addr: &EntityAddr) -> Vec<u8> {
    let mut out = BytesMut::new();
    addr.encode_legacy(&mut Writer::new(&mut out));
    out.to_vec()
}
