//! The handshake as the accepting side sees it: bytes in, bytes out, and what the client asks for.
//!
//! ```text
//!   Banner - Addr - Connect (Blob) --(Request)--> Asked --answer(Accept)--> (Seq) --(Opened)--> Done
//!                     ^                             |
//!                     '-- any other answer ---------'
//! ```
//!
//! A connect of another protocol, or without features that are required, is refused here. All else
//! is for the owner to say: whether the authorizer convinces him, and what becomes of an old session
//! of the same peer. As on Ceph's side a refused client may try again on the same transport.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::addr::{AddrType, EntityAddr, LEGACY_LEN};
use crate::entity::EntityType;
use crate::v1::banner::{self, MAGIC_LEN};
use crate::v1::connect::{CONNECT_LEN, authorizer_len, parse_seq};
use crate::v1::connector::wants_seq;
use crate::v1::{ATTEMPTS_MAX, Connect, ConnectReply, Opened, ReplyTag, V1Error, protocol_version};

const SEQ_LEN: usize = 8;

/// Who accepts whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepting {
    /// Our type.
    pub own: EntityType,
    /// Our address.
    pub own_addr: EntityAddr,
    /// Where the transport comes from.
    pub from: SocketAddr,
}

/// What goes for clients of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Feature bits we support.
    pub supported: u64,
    /// Feature bits a client must have.
    pub required: u64,
    /// Their sessions are lossy.
    pub lossy: bool,
}

/// What the client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It asks for a session: look it up and [`Acceptor::answer`]. Nothing is wanted until then.
    Request(Request),
    /// It takes the session.
    Opened(Opened),
}

/// A client's request for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The client's type.
    pub kind: EntityType,
    /// Its address, the IP filled in if it was blank: the key of its session.
    pub addr: EntityAddr,
    /// Feature bits both sides support.
    pub features: u64,
    /// Its number of this connection attempt.
    pub global_seq: u32,
    /// Which connection of the session this is; 0 for a new session.
    pub connect_seq: u32,
    /// It takes the session for lossy.
    pub lossy: bool,
    /// Authentication method of the authorizer; 0 if there is none.
    pub authorizer_protocol: u32,
    /// The authorizer, opaque here; perhaps empty.
    pub authorizer: Bytes,
    /// The last request had the same authorizer and was answered with a number, a reset or a wait:
    /// the owner was convinced then. No challenge is answered twice, so he has to remember whom he
    /// let in.
    pub convinced: bool,
}

/// The owner's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The session is open.
    Accept(Accept),
    /// Answer this first: the authorizer's verifier is not satisfied yet.
    Challenge(Vec<u8>),
    /// The authorizer does not convince.
    BadAuthorizer,
    /// There is no session to continue.
    ResetSession,
    /// Again with this number.
    RetrySession {
        /// One above the session's own.
        connect_seq: u32,
    },
    /// Again with a number above this one.
    RetryGlobal {
        /// The highest we saw from it.
        global_seq: u32,
    },
    /// Our own dial wins.
    Wait,
}

/// What an accepted client gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accept {
    /// Our number of this connection.
    pub global_seq: u32,
    /// The last message received in the session; 0 for a new one.
    pub in_seq: u64,
    /// What the authorizer's verifier replies.
    pub authorizer_reply: Vec<u8>,
}

/// One transport's handshake, as its server sees it.
///
/// As long as [`Acceptor::wants`] asks for a piece, [`Acceptor::push`] takes it. Bytes to send are
/// appended to `out`.
#[derive(Debug)]
pub struct Acceptor {
    accepting: Accepting,
    addr: EntityAddr,
    attempts: u32,
    /// The authorizer that convinced the owner, with the connect it came with.
    convincing: Option<(Connect, Bytes)>,
    state: State,
}

#[derive(Debug)]
enum State {
    Banner,
    Addr,
    Connect,
    Blob(Connect, Terms),
    /// An answer of ours is due.
    Asked(Connect, Terms, Bytes),
    /// The last message the client received.
    Seq(Opened),
    Done,
}

impl Acceptor {
    /// A handshake on a transport that was just accepted. Writes our banner.
    pub fn new(accepting: Accepting, out: &mut BytesMut) -> Self {
        banner::write_server(&accepting.own_addr, &EntityAddr::v1(accepting.from, 0), out);
        let addr = EntityAddr::NONE;
        Self { accepting, addr, attempts: 0, convincing: None, state: State::Banner }
    }

    /// Bytes of the next piece, never zero; none when it is our turn, and when all is said.
    pub fn wants(&self) -> Option<usize> {
        match &self.state {
            State::Banner => Some(MAGIC_LEN),
            State::Addr => Some(LEGACY_LEN),
            State::Connect => Some(CONNECT_LEN),
            State::Blob(connect, _) => Some(connect.authorizer_len as usize),
            State::Seq(_) => Some(SEQ_LEN),
            State::Asked(..) | State::Done => None,
        }
    }

    /// Whether an [`Acceptor::answer`] is due.
    pub fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked(..))
    }

    /// Takes the next piece, of exactly the length that [`Acceptor::wants`] tells. `terms` says what
    /// goes for the client's type. After an error nothing is wanted any more.
    pub fn push(
        &mut self,
        piece: Bytes,
        terms: &dyn Fn(EntityType) -> Terms,
        out: &mut BytesMut,
    ) -> Result<Option<Heard>, V1Error> {
        debug_assert_eq!(self.wants(), Some(piece.len()));
        match std::mem::replace(&mut self.state, State::Done) {
            State::Banner => {
                banner::check_magic(&piece)?;
                self.state = State::Addr;
                Ok(None)
            }
            State::Addr => {
                let addr = banner::parse_client_addr(&piece)?;
                self.addr = addr.with_ip_if_blank(self.accepting.from.ip());
                self.addr.kind = AddrType::Legacy; // a blank one has no type
                self.state = State::Connect;
                Ok(None)
            }
            State::Connect => {
                self.attempts += 1;
                if self.attempts > ATTEMPTS_MAX {
                    return Err(V1Error::TooManyAttempts { attempts: self.attempts });
                }
                let connect = Connect::parse(&piece)?;
                let terms = terms(connect.kind);
                if connect.authorizer_len > 0 {
                    self.state = State::Blob(connect, terms);
                    return Ok(None);
                }
                Ok(self.on_connect(connect, terms, Bytes::new(), out))
            }
            State::Blob(connect, terms) => Ok(self.on_connect(connect, terms, piece, out)),
            State::Seq(opened) => {
                let acked = Some(parse_seq(&piece)?);
                Ok(Some(Heard::Opened(Opened { acked, ..opened })))
            }
            state @ (State::Asked(..) | State::Done) => {
                self.state = state;
                Ok(None)
            }
        }
    }

    /// Answers the last request. The open session if there is nothing more to hear: a client without
    /// [`RECONNECT_SEQ`](crate::features::RECONNECT_SEQ) says nothing of what it received.
    ///
    /// # Panics
    ///
    /// If no answer is due, or a reply to the authorizer is longer than
    /// [`AUTHORIZER_LEN_MAX`](crate::v1::connect::AUTHORIZER_LEN_MAX).
    pub fn answer(&mut self, answer: Answer, out: &mut BytesMut) -> Option<Opened> {
        let State::Asked(connect, terms, authorizer) =
            std::mem::replace(&mut self.state, State::Connect)
        else {
            panic!("no answer is due");
        };
        let convinced = !matches!(answer, Answer::Challenge(_) | Answer::BadAuthorizer);
        self.convincing = convinced.then_some((connect, authorizer));
        let refusal = self.refusal(&connect, &terms);
        let (reply, blob) = match answer {
            Answer::Accept(accept) => return self.accept(&connect, &terms, &accept, out),
            Answer::Challenge(blob) => {
                (ConnectReply { tag: ReplyTag::ChallengeAuthorizer, ..refusal }, blob)
            }
            Answer::BadAuthorizer => {
                (ConnectReply { tag: ReplyTag::BadAuthorizer, ..refusal }, Vec::new())
            }
            Answer::ResetSession => {
                (ConnectReply { tag: ReplyTag::ResetSession, ..refusal }, Vec::new())
            }
            Answer::RetrySession { connect_seq } => {
                let tag = ReplyTag::RetrySession;
                (ConnectReply { tag, connect_seq, ..refusal }, Vec::new())
            }
            Answer::RetryGlobal { global_seq } => {
                let tag = ReplyTag::RetryGlobal;
                (ConnectReply { tag, global_seq, ..refusal }, Vec::new())
            }
            Answer::Wait => (ConnectReply { tag: ReplyTag::Wait, ..refusal }, Vec::new()),
        };
        write(reply, &blob, out);
        None
    }

    /// Screens a connect, and passes on what is not refused.
    fn on_connect(
        &mut self,
        connect: Connect,
        terms: Terms,
        authorizer: Bytes,
        out: &mut BytesMut,
    ) -> Option<Heard> {
        let refusal = self.refusal(&connect, &terms);
        let missing = terms.required & !connect.features;
        let refused = if connect.protocol != refusal.protocol {
            Some(ReplyTag::BadProtocolVersion)
        } else {
            (missing != 0).then_some(ReplyTag::Features)
        };
        if let Some(tag) = refused {
            write(ConnectReply { tag, ..refusal }, &[], out);
            self.state = State::Connect;
            return None;
        }
        let request = Request {
            kind: connect.kind,
            addr: self.addr,
            features: connect.features & terms.supported,
            global_seq: connect.global_seq,
            connect_seq: connect.connect_seq,
            lossy: connect.lossy,
            authorizer_protocol: connect.authorizer_protocol,
            convinced: self.is_convincing(&connect, &authorizer),
            authorizer: authorizer.clone(),
        };
        self.state = State::Asked(connect, terms, authorizer);
        Some(Heard::Request(request))
    }

    /// Whether the owner was convinced by the same authorizer in the hands of the same type.
    fn is_convincing(&self, connect: &Connect, authorizer: &Bytes) -> bool {
        self.convincing.as_ref().is_some_and(|(before, convincing)| {
            (before.kind, before.authorizer_protocol) == (connect.kind, connect.authorizer_protocol)
                && convincing == authorizer
        })
    }

    fn accept(
        &mut self,
        connect: &Connect,
        terms: &Terms,
        accept: &Accept,
        out: &mut BytesMut,
    ) -> Option<Opened> {
        let seq = wants_seq(connect.features);
        let reply = ConnectReply {
            tag: if seq { ReplyTag::Seq } else { ReplyTag::Ready },
            features: terms.supported,
            global_seq: accept.global_seq,
            connect_seq: connect.connect_seq.wrapping_add(1),
            lossy: terms.lossy,
            ..self.refusal(connect, terms)
        };
        write(reply, &accept.authorizer_reply, out);
        let opened = Opened {
            features: connect.features & terms.supported,
            lossy: terms.lossy,
            global_seq: connect.global_seq,
            connect_seq: reply.connect_seq,
            acked: None,
            authorizer_reply: Bytes::new(),
        };
        if !seq {
            self.state = State::Done;
            return Some(opened);
        }
        out.put_u64_le(accept.in_seq);
        self.state = State::Seq(opened);
        None
    }

    /// What all replies that open nothing have in common.
    fn refusal(&self, connect: &Connect, terms: &Terms) -> ConnectReply {
        ConnectReply {
            tag: ReplyTag::Features,
            features: (connect.features & terms.supported) | terms.required,
            global_seq: 0,
            connect_seq: 0,
            protocol: protocol_version(self.accepting.own, connect.kind),
            authorizer_len: 0,
            lossy: false,
        }
    }
}

fn write(reply: ConnectReply, blob: &[u8], out: &mut BytesMut) {
    ConnectReply { authorizer_len: authorizer_len(blob), ..reply }.write(out);
    out.put_slice(blob);
}
