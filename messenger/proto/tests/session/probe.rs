//! A peer made of bytes: it says exactly what a test wants, right or wrong, to one session.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use messenger_proto::v2::control::{
    AuthRequest, AuthSignature, ClientIdent, Control, FLAG_LOSSY, Hello, SIGNATURE_LEN,
};
use messenger_proto::v2::preamble::PREAMBLE_LEN;
use messenger_proto::v2::{Assembly, Banner, Preamble, Revision, Tag, Wire, banner, header};
use messenger_proto::{
    EntityAddr, EntityType, Identity, Message, ProtocolError, Session, SessionEvent, Verdict, auth,
    features,
};

pub(crate) struct Probe {
    pub(crate) now: Instant,
    pub(crate) session: Session,
    pub(crate) wire: Wire,
    pub(crate) me: EntityAddr,
    pub(crate) target: EntityAddr,
    /// What the session said, not looked at yet.
    pub(crate) heard: BytesMut,
    pub(crate) received: Vec<Message>,
    pub(crate) hung_up: bool,
    pub(crate) error: Option<ProtocolError>,
    /// Accepts the session that is asked for; otherwise the question stays open.
    pub(crate) accepts: bool,
    /// What it takes itself for.
    pub(crate) kind: EntityType,
}

impl Probe {
    /// Dials a listening session of `identity`; nothing is said yet.
    pub(crate) fn dial(identity: Identity, revision: Revision) -> Self {
        let now = identity.anchor.instant;
        let target = *identity.addrs.first().unwrap();
        let me: EntityAddr = "any:10.0.0.9:0/99".parse().unwrap();
        let from = "10.0.0.9:5000".parse().unwrap();
        let local = target.socket.unwrap();
        let session = Session::accept(now, Arc::new(identity), from, local, 7);
        let wire = Wire { revision, crc_data: true };
        let mut probe = Self {
            now,
            session,
            wire,
            me,
            target,
            heard: BytesMut::new(),
            received: Vec::new(),
            hung_up: false,
            error: None,
            accepts: true,
            kind: EntityType::Client,
        };
        probe.drain();
        probe
    }

    /// Says raw bytes and lets the session react.
    pub(crate) fn say(&mut self, mut bytes: &[u8]) -> &mut Self {
        while !bytes.is_empty() {
            let space = self.session.rx_space();
            if space.is_empty() {
                break;
            }
            let len = space.len().min(bytes.len());
            space[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            if let Err(error) = self.session.handle_received(self.now, len) {
                self.error = Some(error);
            }
            self.drain();
        }
        self
    }

    pub(crate) fn control<C: Control>(&mut self, payload: &C) -> &mut Self {
        let frame = self.frame(payload);
        self.say(&frame)
    }

    pub(crate) fn frame<C: Control>(&self, payload: &C) -> BytesMut {
        let mut out = BytesMut::new();
        self.wire.control(payload, &mut out);
        out
    }

    /// A MESSAGE frame with any first segment.
    pub(crate) fn raw_message(&self, head: &[u8], rest: [&[u8]; 3]) -> BytesMut {
        let mut out = BytesMut::new();
        let epilogue = self.wire.begin(Tag::Message, |writer| writer.bytes(head), rest, &mut out);
        rest.iter().for_each(|segment| out.extend_from_slice(segment));
        out.extend_from_slice(epilogue.as_bytes());
        out
    }

    pub(crate) fn message(&self, seq: u64, front: &[u8]) -> BytesMut {
        let mut message = Message::new(2);
        message.header.seq = seq;
        self.raw_message(&header::encode(&message.header, 0), [front, &[], &[]])
    }

    pub(crate) fn banner(&mut self) -> &mut Self {
        let supported = match self.wire.revision {
            Revision::Rev0 => 0,
            Revision::Rev1 => banner::FEATURE_REVISION_1,
        };
        self.say(&Banner { supported, required: 0 }.encode())
    }

    pub(crate) fn hello(&mut self) -> &mut Self {
        let hello = Hello { kind: self.kind, peer_addr: self.target };
        self.control(&hello)
    }

    pub(crate) fn auth_request() -> AuthRequest {
        auth::none::request(EntityType::Client, "admin", 4242, EntityType::Osd)
    }

    pub(crate) fn ident(&self) -> ClientIdent {
        ClientIdent {
            addrs: self.me.into(),
            target: self.target,
            number: 4242,
            global_seq: 1,
            supported: features::SUPPORTED,
            required: features::REQUIRED,
            flags: FLAG_LOSSY,
            cookie: 0,
        }
    }

    /// Goes through the handshake up to, not including, the ident.
    pub(crate) fn signed(&mut self) -> &mut Self {
        self.banner().hello().control(&Self::auth_request());
        self.sign()
    }

    /// The signature of method none.
    pub(crate) fn sign(&mut self) -> &mut Self {
        self.control(&AuthSignature([0; SIGNATURE_LEN]))
    }

    /// Goes through the whole handshake and forgets what was heard.
    pub(crate) fn ready(&mut self) -> &mut Self {
        self.signed();
        let ident = self.ident();
        self.control(&ident);
        assert!(self.session.is_ready(), "{:?}", self.error);
        self.heard.clear();
        self
    }

    /// Tags of the frames heard since the last look; skips the banner.
    pub(crate) fn tags(&mut self) -> Vec<Tag> {
        self.frames().into_iter().map(|(tag, _)| tag).collect()
    }

    /// Frames heard since the last look: their tags and first segments.
    pub(crate) fn frames(&mut self) -> Vec<(Tag, Bytes)> {
        let mut heard = self.heard.split().freeze();
        if heard.starts_with(&banner::MAGIC) {
            let _ = heard.split_to(banner::PREFIX_LEN + banner::PAYLOAD_LEN);
        }
        frames_in(self.wire, heard)
    }

    /// The counter name of the error that made the session hang up; "open" if it did not.
    pub(crate) fn verdict(&self) -> &'static str {
        assert_eq!(self.error.is_some(), self.hung_up);
        self.error.as_ref().map_or("open", ProtocolError::kind)
    }

    /// Hears what the session has to say and does what it asks for.
    pub(crate) fn drain(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Hangup => self.hung_up = true,
                SessionEvent::Message(message) => self.received.push(message),
                SessionEvent::Ident(_) if self.accepts => {
                    if let Err(error) = self.session.resolve(self.now, Verdict::Accept) {
                        self.error = Some(error);
                    }
                }
                _ => {}
            }
        }
        while let Some(gather) = self.session.poll_transmit(self.now) {
            for slice in gather.slices() {
                self.heard.extend_from_slice(&slice);
            }
            let len = gather.len();
            self.session.transmitted(len);
        }
    }
}

/// Tags and first segments of frames in crc mode.
pub(crate) fn frames_in(wire: Wire, mut heard: Bytes) -> Vec<(Tag, Bytes)> {
    let mut frames = Vec::new();
    while !heard.is_empty() {
        let preamble = heard.split_to(PREAMBLE_LEN);
        let preamble = Preamble::decode(preamble[..].try_into().unwrap()).unwrap();
        let mut assembly = Assembly::new(wire, preamble);
        while let Some(len) = assembly.wants() {
            assembly.push(heard.split_to(len)).unwrap();
        }
        let frame = assembly.finish();
        frames.push((Tag::from_wire(frame.tag).unwrap(), frame.segments[0].clone()));
    }
    frames
}
