//! A session against a peer and a shell that do anything in any order: raw bytes, well-formed
//! frames at the wrong time, transports that come and go, commands in every state.
//!
//! The first byte chooses side, policy, protocol and revision, and whether the handshake is done. Each
//! later step is an opcode and its operands. Checked all along: no panic, bounded memory, every
//! transport hung up exactly once, and a closed session that wants nothing more.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use messenger_proto::denc::Writer;
use messenger_proto::v2::control::{
    AuthDone, AuthSignature, ClientIdent, Control, Hello, ServerIdent,
};
use messenger_proto::v2::{Banner, Revision, Tag, Wire};
use messenger_proto::{
    AddrType, Decision, EntityAddr, EntityAddrVec, EntityName, EntityType, GlobalSeq, IdentRequest,
    Identity, Limits, Message, Policy, PolicySet, Session, SessionEvent, SessionOptions, Throttle,
    TransportNews, UnixAnchor, Verdict, auth, features, v1,
};

const SECTION_MAX: u32 = 64 << 10;
const STEPS_MAX: usize = 300;
/// Largest gather list a session may build with these limits: what it stages, one message more.
const GATHER_BYTES_MAX: usize = (256 << 10) + 4 * SECTION_MAX as usize;

struct World<'a> {
    input: &'a [u8],
    now: Instant,
    session: Session,
    wire: Wire,
    /// What msgr1's items are written with, where that is spoken.
    v1: Option<v1::Encoder>,
    target: EntityAddr,
    open: bool,
    dialling: bool,
    dead: bool,
    kept: Vec<Message>,
    verdict: u8,
    throttle: Arc<Throttle>,
}

impl World<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.input.split_first() else {
            return 0;
        };
        self.input = rest;
        *first
    }

    fn bytes(&mut self) -> &[u8] {
        let len = usize::from(self.byte()).min(self.input.len());
        let (bytes, rest) = self.input.split_at(len);
        self.input = rest;
        bytes
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.open {
            let space = self.session.rx_space();
            assert!(space.len() <= SECTION_MAX as usize + 4);
            let len = space.len().min(bytes.len());
            if len == 0 {
                return;
            }
            space[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            let _ = self.session.handle_received(self.now, len);
            self.drain();
        }
    }

    fn control<C: Control>(&mut self, payload: &C) {
        let mut out = BytesMut::new();
        self.wire.control(payload, &mut out);
        self.receive(&out);
    }

    fn frame(&mut self, tag: Tag, first: &[u8], rest: &[u8]) {
        let mut out = BytesMut::new();
        if let Some(encoder) = &self.v1 {
            let number = u64::from(first.first().copied().unwrap_or_default());
            item(encoder, tag, number, rest, &mut out);
            return self.receive(&out);
        }
        let rest = match tag {
            Tag::Message => [rest, &[], &[]],
            _ => [&[][..]; 3],
        };
        let epilogue = self.wire.begin(tag, |writer| writer.bytes(first), rest, &mut out);
        out.extend_from_slice(rest[0]);
        out.extend_from_slice(epilogue.as_bytes());
        self.receive(&out);
    }

    fn drain(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert!(!self.dead || matches!(event, SessionEvent::Hangup));
            match event {
                SessionEvent::Dial { .. } => {
                    assert!(!self.open && !self.dialling);
                    self.dialling = true;
                }
                SessionEvent::Hangup => {
                    assert!(self.open || self.dialling);
                    (self.open, self.dialling) = (false, false);
                }
                SessionEvent::Ident(ident) => {
                    assert!(self.session.rx_space().is_empty());
                    let decision = Decision::about(&ident, Some(&self.session));
                    let verdict = match (self.verdict % 6, ident.request, decision) {
                        (0, _, Decision::Answer(verdict)) => verdict,
                        (1, ..) => Verdict::Wait,
                        (2, ..) => Verdict::Refuse,
                        (3, IdentRequest::New { .. }, _) | (4, IdentRequest::New { .. }, _) => {
                            Verdict::Accept
                        }
                        (3, ..) => Verdict::Retry { connect_seq: 7 },
                        (4, ..) => Verdict::Reset { full: false },
                        _ => Verdict::Accept,
                    };
                    let _ = self.session.resolve(self.now, verdict);
                }
                SessionEvent::Message(message) => self.kept.push(message),
                SessionEvent::Reset(_) => self.dead = true,
                _ => {}
            }
        }
        if self.session.is_closed() {
            assert!(!self.open && !self.dialling);
            assert!(self.session.rx_space().is_empty());
            assert!(self.session.poll_transmit(self.now).is_none());
            assert!(self.session.poll_timeout().is_none());
            assert_eq!(self.session.queued(), (0, 0));
        }
    }

    fn transmit(&mut self, limit: usize) {
        while let Some(gather) = self.session.poll_transmit(self.now) {
            let len = gather.len();
            assert!(len > 0 && len <= GATHER_BYTES_MAX);
            self.session.transmitted(len.min(limit));
            if len > limit {
                return;
            }
        }
    }

    fn opened(&mut self) {
        if self.dialling {
            (self.open, self.dialling) = (true, false);
            let local = "10.0.0.1:5000".parse().unwrap();
            self.session.handle_transport(self.now, TransportNews::Opened { local });
        }
    }

    fn handshake(&mut self, accepts: bool) {
        self.opened();
        if self.v1.is_some() {
            return self.v1_handshake(accepts);
        }
        let supported = u64::from(self.wire.revision == Revision::Rev1);
        self.receive(&Banner { supported, required: 0 }.encode());
        let kind = if accepts { EntityType::Client } else { EntityType::Osd };
        self.control(&Hello { kind, peer_addr: "v2:10.0.0.1:1/0".parse().unwrap() });
        let addrs: EntityAddrVec = self.target.into();
        if accepts {
            self.control(&auth::none::request(EntityType::Client, "admin", 9, EntityType::Osd));
            self.control(&AuthSignature([0; 32]));
            self.control(&ClientIdent {
                addrs: "any:10.0.0.9:0/9".parse::<EntityAddr>().unwrap().into(),
                target: self.target,
                number: 9,
                global_seq: 1,
                supported: features::SUPPORTED,
                required: 0,
                flags: 0,
                cookie: 5,
            });
        } else {
            self.control(&AuthDone { global_id: 9, mode: 1, payload: vec![] });
            self.control(&AuthSignature([0; 32]));
            self.control(&ServerIdent {
                addrs,
                number: 1,
                global_seq: 1,
                supported: features::SUPPORTED,
                required: 0,
                flags: 0,
                cookie: 6,
            });
        }
    }

    fn v1_handshake(&mut self, accepts: bool) {
        let mut out = BytesMut::new();
        if accepts {
            let authorizer = auth::none::request(EntityType::Client, "admin", 9, EntityType::Osd);
            v1::banner::write_client(&mut out);
            EntityAddr::unbound(9).encode_legacy(&mut Writer::new(&mut out));
            let connect = v1::Connect {
                features: features::SUPPORTED,
                kind: EntityType::Client,
                global_seq: 1,
                connect_seq: 0,
                protocol: v1::protocol_version(EntityType::Osd, EntityType::Client),
                authorizer_protocol: authorizer.method,
                authorizer_len: authorizer.payload.len() as u32,
                lossy: false,
            };
            connect.write(&mut out);
            out.extend_from_slice(&authorizer.payload);
        } else {
            v1::banner::write_server(&self.target, &EntityAddr::NONE, &mut out);
            let reply = v1::ConnectReply {
                tag: v1::ReplyTag::Seq,
                features: features::SUPPORTED,
                global_seq: 1,
                connect_seq: 1,
                protocol: 10,
                authorizer_len: 0,
                lossy: false,
            };
            reply.write(&mut out);
        }
        out.extend_from_slice(&0_u64.to_le_bytes());
        self.receive(&out);
    }

    fn step(&mut self) {
        match self.byte() % 16 {
            0..=2 => {
                let bytes = self.bytes().to_vec();
                self.receive(&bytes);
            }
            3..=6 => {
                let tag = Tag::from_wire(self.byte() % 22 + 1).unwrap();
                let (first, rest) = (self.bytes().to_vec(), self.bytes().to_vec());
                self.frame(tag, &first, &rest);
            }
            7 => {
                let (kind, data) = (self.byte().into(), self.bytes().to_vec());
                let message = Message::new(kind).with_priority(kind).with_data(data);
                let _ = self.session.send(self.now, message);
            }
            8 => self.session.send_keepalive(self.now),
            9 => {
                let step = u64::from(self.byte()).pow(2);
                self.now += Duration::from_millis(step);
                self.session.handle_timeout(self.now);
            }
            10 => self.opened(),
            11 if self.open || self.dialling => {
                let news = match self.byte() % 3 {
                    0 => TransportNews::Closed,
                    1 => TransportNews::Reset,
                    _ => TransportNews::Refused,
                };
                self.session.handle_transport(self.now, news);
            }
            12 => {
                self.kept.pop();
                let _ = self.session.handle_unblocked(self.now);
            }
            13 => {
                let limit = self.byte().into();
                self.transmit(limit);
            }
            14 => self.transmit(usize::MAX),
            15 => match self.byte() {
                0 => {
                    self.session.mark_down();
                    self.dead = true;
                }
                1 => self.session.close(),
                2 => self.session.mark_disposable(),
                other => self.verdict = other,
            },
            _ => {}
        }
        self.drain();
    }
}

/// A well-formed item of msgr1.
fn item(encoder: &v1::Encoder, tag: Tag, number: u64, data: &[u8], out: &mut BytesMut) {
    match tag {
        Tag::Message => {
            let mut header = Message::new(1).header;
            header.seq = number;
            let (empty, data) = (Bytes::new(), Bytes::copy_from_slice(data));
            let source = EntityName::new(EntityType::Client, 9);
            encoder.message(&header, source, [&data, &empty, &data], out).copy_to(out);
        }
        Tag::Ack => encoder.ack(number, out),
        Tag::Keepalive2 => encoder.keepalive2(Duration::from_secs(number).into(), out),
        Tag::Keepalive2Ack => encoder.keepalive2_ack(Duration::from_secs(number).into(), out),
        Tag::Hello => encoder.keepalive(out),
        Tag::Wait => encoder.close(out),
        _ => out.extend_from_slice(data),
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, input)) = input.split_first() else {
        return;
    };
    let now = Instant::now();
    let accepts = choice & 1 != 0;
    let policy = match choice >> 1 & 3 {
        0 => Policy::lossy_client(),
        1 => Policy::lossless_peer_reuse(),
        2 => Policy::lossless_client(),
        _ => Policy::stateful_server(),
    };
    if !accepts && policy.server {
        return;
    }
    let revision = if choice & 8 == 0 { Revision::Rev0 } else { Revision::Rev1 };
    let v1 = (choice & 32 != 0).then(|| v1::Encoder::new(v1::Wire::new(features::SUPPORTED, true)));
    let mut target: EntityAddr = "v2:10.0.0.2:6800/2".parse().unwrap();
    if v1.is_some() {
        target.kind = AddrType::Legacy;
    }
    let throttle = Throttle::new("dispatch", 400);
    let identity = Arc::new(Identity {
        name: "osd.1".parse().unwrap(),
        addrs: target.into(),
        listening: vec![target],
        policies: PolicySet::new(policy),
        limits: Limits {
            front_len: SECTION_MAX,
            middle_len: SECTION_MAX,
            data_len: SECTION_MAX,
            queue_bytes: 4 << 10,
            ..Limits::default()
        },
        options: SessionOptions::default(),
        auth: Arc::default(),
        anchor: UnixAnchor { instant: now, unix: Duration::from_secs(1) },
        global_seq: GlobalSeq::new(),
        dispatch_throttle: Some(Arc::clone(&throttle)),
    });
    let socket = target.socket.unwrap();
    let session = match accepts {
        true => Session::accept(now, identity, "10.0.0.9:5000".parse().unwrap(), socket, 1),
        false => Session::dial(now, identity, EntityType::Osd, target, 1),
    };
    let mut world = World {
        input,
        now,
        session,
        wire: Wire { revision, crc_data: true },
        v1,
        target,
        open: accepts,
        dialling: false,
        dead: false,
        kept: Vec::new(),
        verdict: 5, // a new session, until told otherwise
        throttle,
    };
    world.drain();
    if choice & 16 != 0 {
        world.handshake(accepts);
        assert!(world.session.is_ready());
    }
    for _ in 0..STEPS_MAX {
        if world.input.is_empty() {
            break;
        }
        world.step();
    }
    world.session.mark_down();
    world.drain();
    world.kept.clear();
    assert_eq!(world.throttle.current(), 0);
});
