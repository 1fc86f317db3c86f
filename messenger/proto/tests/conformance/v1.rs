//! Cases 52 to 58: msgr1.

use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::time::Duration;

use messenger_proto::{EntityName, EntityType, Message, Policy};

use crate::bytes::{Addr, In, Out, crc32c};
use crate::cephx;
use crate::crypt::cbc;
use crate::host::{HERE, Host, Slot, THERE};
use crate::probe::{FEATURES, Manner, Proof, none_payload, stamp};
use crate::wire::Rev;

const SERVER: Addr = Addr { kind: 1, ..HERE };
const CLIENT: Addr = Addr::v1([10, 0, 0, 9], 0, 99);
const SEEN: Addr = Addr::v1([10, 0, 0, 9], 5000, 0);
/// The server that a client of ours dials, and what it sees of the client.
const DIALLED: Addr = Addr { kind: 1, ..THERE };
const SEEN_CLIENT: Addr = Addr::v1([10, 0, 0, 2], 50_000, 0);
/// What Ceph's monitors require of msgr1's clients, once there are pools.
const REQUIRED: u64 = 0x0401_0200_4204_0000;

const CLOSE: u8 = 6;
const MSG: u8 = 7;
const ACK: u8 = 8;
const KEEPALIVE: u8 = 9;
const KEEPALIVE2: u8 = 14;
const KEEPALIVE2_ACK: u8 = 15;

const READY: u8 = 1;
const RESET_SESSION: u8 = 2;
const WAIT: u8 = 3;
const RETRY_SESSION: u8 = 4;
const RETRY_GLOBAL: u8 = 5;
const BAD_PROTOCOL: u8 = 10;
const BAD_AUTHORIZER: u8 = 11;
const FEATURES_MISSING: u8 = 12;
const SEQ: u8 = 13;
const CHALLENGE: u8 = 16;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Connect {
    features: u64,
    kind: u32,
    global_seq: u32,
    connect_seq: u32,
    protocol: u32,
    method: u32,
    authorizer: Vec<u8>,
    flags: u8,
}

impl Connect {
    /// Of a client, right at a server of this kind.
    fn to(kind: EntityType) -> Self {
        let (protocol, method, authorizer) = match kind {
            EntityType::Mon => (15, 0, Vec::new()),
            _ => (24, 1, none_payload()),
        };
        let (features, global_seq, connect_seq) = (FEATURES, 1, 0);
        Self { features, kind: 8, global_seq, connect_seq, protocol, method, authorizer, flags: 1 }
    }

    /// Of an OSD, right at another one.
    fn between_osds(global_seq: u32, connect_seq: u32) -> Self {
        let authorizer = Out::new().u8(1).u32(4).blob(b"7").u64(0).0;
        let (protocol, flags) = (10, 0);
        let as_client = Self::to(EntityType::Osd);
        Self { kind: 4, global_seq, connect_seq, protocol, authorizer, flags, ..as_client }
    }

    fn write(&self) -> Vec<u8> {
        Out::new()
            .u64(self.features)
            .u32(self.kind)
            .u32(self.global_seq)
            .u32(self.connect_seq)
            .u32(self.protocol)
            .u32(self.method)
            .u32(self.authorizer.len() as u32)
            .u8(self.flags)
            .raw(&self.authorizer)
            .0
    }
}

/// What a server answers, and the blob behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reply {
    tag: u8,
    features: u64,
    global_seq: u32,
    connect_seq: u32,
    protocol: u32,
    flags: u8,
    blob: Vec<u8>,
}

impl Reply {
    /// To a client of ours that dialled an OSD for the first time.
    fn new(tag: u8) -> Self {
        let (global_seq, connect_seq, protocol) = (1, 1, 24);
        let (features, blob) = (FEATURES, Vec::new());
        Self { tag, features, global_seq, connect_seq, protocol, flags: 1, blob }
    }

    fn write(&self) -> Vec<u8> {
        Out::new()
            .u8(self.tag)
            .u64(self.features)
            .u32(self.global_seq)
            .u32(self.connect_seq)
            .u32(self.protocol)
            .u32(self.blob.len() as u32)
            .u8(self.flags)
            .raw(&self.blob)
            .0
    }
}

/// A line that speaks msgr1, from the other end of one of our sessions.
struct Line {
    host: Rc<RefCell<Host>>,
    line: usize,
}

impl Line {
    /// To a server of ours, greeted.
    fn to(name: &str, proof: Proof, policy: Policy) -> Self {
        let policy = Policy { features_required: REQUIRED, ..policy };
        let host = Host::new(name, Manner { rev: Rev::One, proof }, policy).over_v1();
        Self::another(&Rc::new(RefCell::new(host)))
    }

    /// Another one to the same server.
    fn another(host: &Rc<RefCell<Host>>) -> Self {
        let mut line = Self::silent(host);
        let hello = Out::new().raw(b"ceph v027").legacy_addr(SERVER).legacy_addr(SEEN).0;
        assert_eq!(line.hear(hello.len()), hello);
        line.say(&Out::new().raw(b"ceph v027").legacy_addr(CLIENT).0);
        line
    }

    fn silent(host: &Rc<RefCell<Host>>) -> Self {
        let line = host.borrow_mut().accept();
        Self { host: Rc::clone(host), line }
    }

    /// A monitor or an OSD that keeps nothing of its clients.
    fn to_kind(kind: EntityType) -> Self {
        let name = if kind == EntityType::Mon { "mon.0" } else { "osd.1" };
        Self::to(name, Proof::None, Policy::stateless_server())
    }

    /// A session with it is open.
    fn opened(kind: EntityType) -> Self {
        let mut line = Self::to_kind(kind);
        assert_eq!(line.connect(&Connect::to(kind)).tag, SEQ);
        line.exchange_seqs(0, 0);
        line
    }

    /// From a client of ours, greeted: it asks for a session.
    fn from_client(proof: Proof, policy: Policy) -> (Self, Connect) {
        let host = Host::new("client.?", Manner { rev: Rev::One, proof }, policy);
        let host = Rc::new(RefCell::new(host));
        host.borrow_mut().dial_to(EntityType::Osd, DIALLED);
        let mut line = Self { host, line: 0 };
        line.greet();
        let connect = line.asked();
        (line, connect)
    }

    /// Greets a client of ours.
    fn greet(&mut self) {
        let hello = Out::new().raw(b"ceph v027").legacy_addr(DIALLED).legacy_addr(SEEN_CLIENT);
        self.say(&hello.0);
        let own = Addr::v1([10, 0, 0, 2], 0, 11);
        let hello = Out::new().raw(b"ceph v027").legacy_addr(own).0;
        assert_eq!(self.hear(hello.len()), hello);
    }

    /// What a client of ours asks for.
    fn asked(&mut self) -> Connect {
        let connect = self.hear(33);
        let mut read = In(&connect);
        let (features, kind, global_seq) = (read.u64(), read.u32(), read.u32());
        let (connect_seq, protocol, method) = (read.u32(), read.u32(), read.u32());
        let (len, flags) = (read.u32(), read.u8());
        let authorizer = self.hear(len as usize);
        Connect { features, kind, global_seq, connect_seq, protocol, method, authorizer, flags }
    }

    fn say(&mut self, bytes: &[u8]) -> &mut Self {
        self.host.borrow_mut().say(self.line, bytes);
        self
    }

    #[track_caller]
    fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut host = self.host.borrow_mut();
        let heard = host.lines[self.line].heard.len();
        assert!(heard >= len, "{heard} bytes, last fault {}", host.slot(self.line).fault());
        host.lines[self.line].heard.drain(..len).collect()
    }

    fn slot(&self) -> Ref<'_, Slot> {
        Ref::map(self.host.borrow(), |host| host.slot(self.line))
    }

    fn send(&self, message: Message) {
        self.host.borrow_mut().send(self.line, message);
    }

    fn connect(&mut self, connect: &Connect) -> Reply {
        self.say(&connect.write());
        let reply = self.hear(26);
        let mut read = In(&reply);
        let (tag, features, global_seq) = (read.u8(), read.u64(), read.u32());
        let (connect_seq, protocol, len) = (read.u32(), read.u32(), read.u32());
        let flags = read.u8();
        let blob = self.hear(len as usize);
        Reply { tag, features, global_seq, connect_seq, protocol, flags, blob }
    }

    /// The server tells the last number it received, and hears ours.
    #[track_caller]
    fn exchange_seqs(&mut self, theirs: u64, ours: u64) {
        assert_eq!(self.hear(8), theirs.to_le_bytes());
        self.say(&ours.to_le_bytes());
        assert!(self.slot().session.is_ready());
    }

    #[track_caller]
    fn is_answered(&mut self) {
        self.say(&[&[KEEPALIVE2][..], &stamp()].concat());
        assert_eq!(self.hear(9), [&[KEEPALIVE2_ACK][..], &stamp()].concat());
        self.stays_open();
    }

    fn is_open(&self) -> bool {
        self.host.borrow().lines[self.line].open
    }

    #[track_caller]
    fn stays_open(&self) {
        assert!(self.is_open(), "{}", self.slot().fault());
        assert_eq!(self.host.borrow().lines[self.line].heard, []);
    }

    #[track_caller]
    fn is_closed_for(&self, kind: &str) {
        assert_eq!(self.slot().fault(), kind);
        assert!(!self.is_open());
        assert_eq!(self.host.borrow().lines[self.line].heard, []);
    }
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
        let header = header(self.seq, front_len);
        let header_crc = crc32c(0, &header) ^ self.header_crc;
        let front_crc = crc32c(0, &self.front) ^ self.front_crc;
        let signature = self
            .signed_with
            .map_or(0, |key| sign(&key, [header_crc, front_crc, front_len, 0, 0, 0, 0], self.seq));
        let footer = Out::new().u32(front_crc).u32(0).u32(0).u64(signature).u8(self.flags);
        Out::new().u8(MSG).raw(&header).u32(header_crc).raw(&self.front).raw(&footer.0).0
    }
}

/// A header of a client's message, without its checksum.
fn header(seq: u64, front_len: u32) -> Vec<u8> {
    let header = Out::new().u64(seq).u64(7).u16(2).u16(127).u16(1).u32(front_len).u32(0).u32(0);
    header.u16(0).u8(8).u64(4242).u16(1).u16(0).0
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
        let mut line = Line::to_kind(kind);
        let connect = Connect::to(kind);
        let reply = line.connect(&connect);
        let expected = Reply { tag: SEQ, protocol: connect.protocol, ..Reply::new(SEQ) };
        assert_eq!(reply, expected);
        line.exchange_seqs(0, 0);
        line.is_answered();
    }
}

/// Without the feature that brings SEQ.
#[test]
fn c52_an_older_client_is_let_in_without_numbers() {
    let mut line = Line::to_kind(EntityType::Osd);
    let connect = Connect { features: FEATURES & !(1 << 6), ..Connect::to(EntityType::Osd) };
    assert_eq!(line.connect(&connect), Reply::new(READY));
    line.is_answered();
}

#[test]
fn c53_another_protocol_or_missing_features_are_told_and_the_line_stays_open() {
    for kind in KINDS {
        let mut line = Line::to_kind(kind);
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
fn c53_a_client_that_is_refused_closes_and_tries_again() {
    let refusals = [
        Reply { protocol: 99, ..Reply::new(BAD_PROTOCOL) },
        Reply::new(BAD_AUTHORIZER),
        Reply { features: FEATURES | 1 << 62, ..Reply::new(FEATURES_MISSING) },
    ];
    for refusal in refusals {
        let (mut line, _) = Line::from_client(Proof::None, Policy::lossy_client());
        line.say(&refusal.write()).is_closed_for("v1_refused");
        line.host.borrow_mut().wait(Duration::from_millis(200));
        assert_eq!(line.host.borrow().dials.len(), 2);
    }
}

#[test]
fn c53_what_a_client_asks_for_is_right() {
    let (mut line, connect) = Line::from_client(Proof::None, Policy::lossy_client());
    let number = Out::new().u8(1).client("admin").u64(0).0;
    assert_eq!(connect, Connect { authorizer: number, ..Connect::to(EntityType::Osd) });
    line.say(&Reply::new(SEQ).write()).say(&[0; 8]);
    assert_eq!(line.hear(8), [0; 8]);
    assert!(line.slot().session.is_ready());
    line.is_answered();
}

#[test]
fn c54_a_session_that_is_not_there_is_reset_or_made_where_nobody_is_known() {
    let mut osd = Line::to("osd.1", Proof::None, Policy::lossless_peer());
    assert_eq!(osd.connect(&Connect::between_osds(1, 5)).tag, RESET_SESSION);
    osd.stays_open();
    let reply = osd.connect(&Connect::between_osds(1, 0));
    assert_eq!((reply.tag, reply.connect_seq, reply.flags), (SEQ, 1, 0));

    let mut monitor = Line::to_kind(EntityType::Mon);
    let reply = monitor.connect(&Connect { connect_seq: 5, ..Connect::to(EntityType::Mon) });
    assert_eq!((reply.tag, reply.connect_seq), (SEQ, 6));
    monitor.exchange_seqs(0, 0);
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
        assert_eq!(line.slot().seqs(), []);
    }
}

#[test]
fn c55_unknown_tags_close_and_so_does_the_tag_for_it() {
    for unknown in [0, 1, 0x63, 255] {
        Line::opened(EntityType::Osd).say(&[unknown]).is_closed_for("v1_unknown_tag");
    }
    let mut line = Line::opened(EntityType::Osd);
    line.say(&[CLOSE]);
    assert!(!line.is_open() && line.slot().session.is_closed());
}

#[test]
fn c55_a_banner_of_msgr2_closes() {
    let greeted = Line::to_kind(EntityType::Osd);
    let mut line = Line::silent(&greeted.host);
    line.hear(281);
    let banner = Out::new().raw(b"ceph v2\n").u16(16).zeros(216).0;
    line.say(&banner).is_closed_for("v1_bad_banner");
}

/// A message that was given up, and one whose front is longer than we take.
#[test]
fn c55_what_else_is_wrong_about_a_message_closes() {
    let mut line = Line::opened(EntityType::Osd);
    line.say(&Written { flags: 0, ..Written::new(1, b"front") }.bytes());
    line.is_closed_for("v1_aborted");

    let mut line = Line::opened(EntityType::Osd);
    let header = header(1, 0x7fff_ffff);
    line.say(&Out::new().u8(MSG).raw(&header).u32(crc32c(0, &header)).0);
    line.is_closed_for("v1_section_too_long");
}

/// An authorizer is announced like a message.
#[test]
fn c55_an_authorizer_beyond_our_limit_closes_before_it_is_read() {
    let announce = |hold: usize, len: u32| {
        let mut line = Line::to_kind(EntityType::Osd);
        line.host.borrow_mut().hold_of_strangers(hold);
        line = Line::another(&line.host);
        let mut connect = Connect::to(EntityType::Osd).write();
        connect.truncate(33);
        connect[28..32].copy_from_slice(&len.to_le_bytes());
        line.say(&connect);
        line
    };
    announce(64 << 10, 0x7fff_ffff).is_closed_for("v1_authorizer_too_long");
    announce(64 << 10, (16 << 10) + 1).is_closed_for("v1_authorizer_too_long");
    announce(32 << 10, (8 << 10) + 1).is_closed_for("unauthenticated_len");
    for quarter in [8 << 10, 16 << 10] {
        let line = announce(4 * quarter as usize, quarter);
        line.stays_open();
        assert!(line.host.borrow_mut().room(line.line) <= quarter as usize);
    }
}

#[test]
fn c55_who_says_nothing_is_closed_after_the_ready_timeout() {
    let line = Line::to_kind(EntityType::Osd);
    line.host.borrow_mut().wait(Duration::from_millis(9_999));
    line.stays_open();
    line.host.borrow_mut().wait(Duration::from_millis(1));
    line.is_closed_for("ready_timeout");
}

#[test]
fn c56_the_old_keepalive_is_not_answered() {
    let mut line = Line::opened(EntityType::Osd);
    line.say(&[KEEPALIVE]).stays_open();
    line.is_answered();
}

#[test]
fn c56_messages_go_both_ways() {
    let mut line = Line::opened(EntityType::Osd);
    line.say(&Written::new(1, b"").bytes()).say(&Written::new(2, b"front").bytes());
    line.say(&Out::new().u8(ACK).u64(0).0).stays_open();
    assert_eq!(line.slot().seqs(), [1, 2]);
    let source = line.slot().received[1].source.unwrap();
    assert_eq!(source, EntityName::new(EntityType::Client, 4242));
    line.send(Message::new(2).with_front("pong"));
    let heard = line.hear(1 + 53 + 4 + 21);
    let mut read = In(&heard);
    assert_eq!((read.u8(), read.u64(), read.u64(), read.u16()), (MSG, 1, 0, 2));
    assert_eq!((read.u16(), read.u16()), (127, 1));
    assert_eq!([read.u32(), read.u32(), read.u32()], [4, 0, 0]);
    assert_eq!((read.u16(), read.u8(), read.u64()), (0, 4, 1), "its source is osd.1");
    assert_eq!((read.u16(), read.u16()), (1, 0));
    assert_eq!(read.u32(), crc32c(0, &heard[1..50]));
    assert_eq!(read.raw(4), b"pong");
    assert_eq!(read.u32(), crc32c(0, b"pong"));
    assert_eq!(read.0, Out::new().zeros(16).u8(1).0);
}

/// Another OSD has a session that brought two messages, and lost its line.
fn with_session() -> Line {
    let mut line = Line::to("osd.1", Proof::None, Policy::lossless_peer());
    assert_eq!(line.connect(&Connect::between_osds(1, 0)).tag, SEQ);
    line.exchange_seqs(0, 0);
    for seq in 1..=2 {
        line.say(&Written::new(seq, b"front").bytes());
        assert_eq!(line.hear(9), Out::new().u8(ACK).u64(seq).0);
    }
    line.host.borrow_mut().cut(line.line);
    line
}

/// Ceph says RETRY_GLOBAL whenever it takes over a socket; ours only if the number is a past one.
#[test]
fn c57_a_session_goes_on_on_a_second_line() {
    let first = with_session();
    let mut line = Line::another(&first.host);
    let reply = line.connect(&Connect::between_osds(2, 1));
    assert_eq!((reply.tag, reply.connect_seq), (RETRY_SESSION, 2));
    let reply = line.connect(&Connect::between_osds(0, 2));
    assert_eq!((reply.tag, reply.global_seq), (RETRY_GLOBAL, 1));
    let reply = line.connect(&Connect::between_osds(2, 2));
    assert_eq!((reply.tag, reply.connect_seq, reply.flags), (SEQ, 3, 0));
    line.exchange_seqs(2, 0);
    line.say(&Written::new(3, b"front").bytes());
    assert_eq!(line.hear(9), Out::new().u8(ACK).u64(3).0);
    assert_eq!(line.slot().seqs(), [1, 2, 3]);
}

#[test]
fn c57_what_the_peer_has_not_is_sent_again() {
    let mut line = Line::to("osd.1", Proof::None, Policy::lossless_peer());
    assert_eq!(line.connect(&Connect::between_osds(1, 0)).tag, SEQ);
    line.exchange_seqs(0, 0);
    line.send(Message::new(98).with_front("reply"));
    let sent = line.hear(1 + 53 + 5 + 21);
    line.host.borrow_mut().cut(line.line);
    let mut again = Line::another(&line.host);
    assert_eq!(again.connect(&Connect::between_osds(2, 2)).tag, SEQ);
    again.exchange_seqs(0, 0);
    assert_eq!(again.hear(sent.len()), sent);
    again.stays_open();
}

/// The table of section 8 for clients.
#[test]
fn c57_a_client_does_what_it_is_told_on_the_same_line() {
    let policy = Policy::lossless_client();
    let retries = [
        (Reply { connect_seq: 7, ..Reply::new(RETRY_SESSION) }, 1, 7),
        (Reply { global_seq: 40, ..Reply::new(RETRY_GLOBAL) }, 41, 0),
        (Reply::new(RESET_SESSION), 1, 0),
    ];
    for (retry, global_seq, connect_seq) in retries {
        let (mut line, connect) = Line::from_client(Proof::None, policy.clone());
        assert_eq!((connect.global_seq, connect.connect_seq, connect.flags), (1, 0, 0));
        line.say(&retry.write());
        assert_eq!(line.asked(), Connect { global_seq, connect_seq, ..connect });
        let opened = Reply { connect_seq: connect_seq + 1, flags: 0, ..Reply::new(SEQ) };
        line.say(&opened.write()).say(&[0; 8]);
        assert_eq!(line.hear(8), [0; 8]);
        line.is_answered();
    }
    let (mut line, _) = Line::from_client(Proof::None, policy);
    line.say(&Reply::new(WAIT).write()).is_closed_for("wait");
    line.host.borrow_mut().wait(Duration::from_millis(14_999));
    assert_eq!(line.host.borrow().dials.len(), 1);
    line.host.borrow_mut().wait(Duration::from_millis(1));
    assert_eq!(line.host.borrow().dials.len(), 2);
}

/// A client that proves itself to an OSD.
fn proven() -> Line {
    let mut line = Line::to("osd.1", Proof::CephxCrc, Policy::stateless_server());
    let authorizer = cephx::authorizer(None);
    let connect = Connect { method: 2, authorizer, ..Connect::to(EntityType::Osd) };
    let reply = line.connect(&connect);
    assert_eq!(reply.tag, CHALLENGE);
    let authorizer = cephx::authorizer(Some(cephx::open_challenge(&reply.blob)));
    let reply = line.connect(&Connect { authorizer, ..connect });
    assert_eq!(reply.tag, SEQ);
    cephx::open_done(&reply.blob, false);
    line.exchange_seqs(0, 0);
    line
}

/// A reply of an OSD's, or of ours, which is signed.
#[track_caller]
fn is_signed(heard: &[u8], front: &[u8], seq: u64) {
    let (header_crc, front_crc) = (In(&heard[50..]).u32(), crc32c(0, front));
    let fields = [header_crc, front_crc, front.len() as u32, 0, 0, 0, 0];
    let signature = sign(&cephx::SESSION_KEY, fields, seq);
    let footer = Out::new().u32(front_crc).u32(0).u32(0).u64(signature).u8(5).0;
    assert_eq!(heard[54..], [front, &footer].concat());
}

#[test]
fn c58_a_client_is_challenged_and_messages_are_signed_both_ways() {
    let mut line = proven();
    let key = Some(cephx::SESSION_KEY);
    line.say(&Written { signed_with: key, flags: 5, ..Written::new(1, b"front") }.bytes());
    assert_eq!(line.slot().seqs(), [1]);
    line.send(Message::new(2).with_front("pong"));
    let heard = line.hear(1 + 53 + 4 + 21);
    is_signed(&heard, b"pong", 1);
}

#[test]
fn c58_a_client_of_ours_answers_the_challenge_and_signs() {
    let (mut line, connect) = Line::from_client(Proof::CephxCrc, Policy::lossy_client());
    assert_eq!(connect.method, 2);
    let (nonce, answer) = cephx::read_authorizer(&connect.authorizer);
    assert_eq!(answer, None);
    let blob = cephx::challenge(77);
    line.say(&Reply { blob, ..Reply::new(CHALLENGE) }.write());
    assert_eq!(cephx::read_authorizer(&line.asked().authorizer), (nonce, Some(78)));
    let blob = cephx::done(nonce, b"");
    line.say(&Reply { blob, ..Reply::new(SEQ) }.write()).say(&[0; 8]);
    assert_eq!(line.hear(8), [0; 8]);
    line.send(Message::new(2).with_front("ping"));
    let heard = line.hear(1 + 53 + 4 + 21);
    is_signed(&heard, b"ping", 1);
    line.say(&Written::new(1, b"front").bytes()).is_closed_for("v1_signature");
}

#[test]
fn c58_a_message_that_is_signed_with_another_key_or_not_at_all_closes() {
    for (signed_with, flags) in [(None, 1), (None, 5), (Some([1; 16]), 5)] {
        let mut line = proven();
        line.say(&Written { signed_with, flags, ..Written::new(1, b"front") }.bytes());
        line.is_closed_for("v1_signature");
        assert_eq!(line.slot().seqs(), []);
    }
}

#[test]
fn c58_who_cannot_prove_itself_is_refused_and_the_line_stays_open() {
    let mut line = Line::to("osd.1", Proof::CephxCrc, Policy::stateless_server());
    let none = Connect::to(EntityType::Osd);
    let answered = Connect { method: 2, authorizer: cephx::authorizer(Some(5)), ..none.clone() };
    for connect in [none.clone(), Connect { authorizer: vec![9; 40], ..answered.clone() }, answered]
    {
        assert_eq!(line.connect(&connect).tag, BAD_AUTHORIZER);
        line.stays_open();
    }
}

#[test]
fn c58_the_signature_is_the_reference_s() {
    let key = std::array::from_fn(|at| at as u8);
    let fields = [0x1111_1111, 0x2222_2222, 5, 0, 0, 0x3333_3333, 6];
    assert_eq!(sign(&key, fields, 0x5_0000_0007), 0x67bb_9398_9832_25e6);
}
