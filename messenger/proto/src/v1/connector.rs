//! The handshake as the dialling side sees it: bytes in, bytes out, and what the server says.
//!
//! ```text
//!   Banner - Addrs --(Greeted)--> Idle --connect()--> Reply (Blob) (Seq) --(Ready)--> Done
//!                                   ^                   |         \
//!                                   '-- again: Challenge, Reset,   '-- Wait, Refused --> Done
//!                                       RetrySession, RetryGlobal
//! ```
//!
//! What an answer means for the session is its owner's to know: numbers, queues and authorizers are
//! his. A [`Reply`] that leaves another try says what to change, and [`Connector::connect`] tries.

use bytes::{BufMut, Bytes, BytesMut};

use crate::addr::{AddrType, EntityAddr};
use crate::denc::Writer;
use crate::entity::EntityType;
use crate::features;
use crate::v1::banner::{self, MAGIC_LEN, SERVER_ADDRS_LEN};
use crate::v1::connect::{REPLY_LEN, authorizer_len, parse_seq};
use crate::v1::{ATTEMPTS_MAX, Connect, ConnectReply, ReplyTag, V1Error, protocol_version};

const SEQ_LEN: usize = 8;

/// Who dials whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dial {
    /// Our type.
    pub own: EntityType,
    /// The type dialled.
    pub peer: EntityType,
    /// Our address, which may be blank: what the server sees fills in the IP.
    pub own_addr: EntityAddr,
    /// The address dialled, nonce included.
    pub target: EntityAddr,
    /// Feature bits we support.
    pub supported: u64,
    /// Feature bits without which we do not go on.
    pub required: u64,
    /// We take the session for lossy; the server's word counts.
    pub lossy: bool,
}

/// One connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Our number of this connection attempt.
    pub global_seq: u32,
    /// Which connection of the session this is; 0 for a new session.
    pub connect_seq: u32,
    /// The last message received in the session.
    pub in_seq: u64,
    /// Authentication method of the authorizer; 0 if there is none.
    pub authorizer_protocol: u32,
    /// The authorizer, opaque here.
    pub authorizer: Vec<u8>,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is the one dialled. A [`Connector::connect`] is due.
    Greeted {
        /// Our address as it is now, with the IP address that the server sees if it was blank.
        own_addr: EntityAddr,
    },
    /// The session is open.
    Ready(Opened),
    /// It wants this answered with another authorizer; connect again.
    Challenge(Bytes),
    /// It has no session to continue: forget numbers and queues, connect again with connect_seq 0.
    ResetSession,
    /// Connect again with this number.
    RetrySession {
        /// The connect_seq to use.
        connect_seq: u32,
    },
    /// Connect again with a number above this one.
    RetryGlobal {
        /// The highest global_seq it saw from us.
        global_seq: u32,
    },
    /// Its own dial wins: close, and wait for it.
    Wait,
    /// It refuses: close, and try later.
    Refused(Refusal),
}

/// Why a server refuses. It keeps the connection, but we have nothing else to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It talks another protocol: we are mistaken about its type, or it is about ours.
    #[error("peer talks protocol {theirs}, we talk {ours}")]
    Protocol {
        /// Our protocol number.
        ours: u32,
        /// The server's.
        theirs: u32,
    },
    /// The authorizer does not convince it.
    #[error("peer refuses our authorizer")]
    Authorizer,
    /// We lack features that it requires.
    #[error("peer requires features {missing:#x}, which we do not offer")]
    Features {
        /// The bits missing.
        missing: u64,
    },
}

/// How an open session goes on, the same on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Feature bits both sides support.
    pub features: u64,
    /// The session is lossy: the server's word.
    pub lossy: bool,
    /// The peer's number of this connection.
    pub global_seq: u32,
    /// Which connection of the session this is.
    pub connect_seq: u32,
    /// The last message the peer received, if it says so.
    pub acked: Option<u64>,
    /// The reply to our authorizer, to be checked before anything else here is believed; empty at
    /// the server.
    pub authorizer_reply: Bytes,
}

/// One transport's handshake, as its client sees it.
///
/// As long as [`Connector::wants`] asks for a piece, [`Connector::push`] takes it. Bytes to send are
/// appended to `out`.
#[derive(Debug)]
pub struct Connector {
    dial: Dial,
    attempt: Attempt,
    attempts: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Banner,
    Addrs,
    /// A connect of ours is due.
    Idle,
    Reply,
    /// What an authorizer is answered.
    Blob(ConnectReply),
    /// The last message the server received.
    Seq(Opened),
    Done,
}

impl Connector {
    /// A handshake on a transport that was just opened. Writes our banner.
    pub fn new(dial: Dial, out: &mut BytesMut) -> Self {
        banner::write_client(out);
        Self { dial, attempt: Attempt::default(), attempts: 0, state: State::Banner }
    }

    /// Bytes of the next piece, never zero; none when it is our turn, and when all is said.
    pub fn wants(&self) -> Option<usize> {
        match &self.state {
            State::Banner => Some(MAGIC_LEN),
            State::Addrs => Some(SERVER_ADDRS_LEN),
            State::Reply => Some(REPLY_LEN),
            State::Blob(reply) => Some(reply.authorizer_len as usize),
            State::Seq(_) => Some(SEQ_LEN),
            State::Idle | State::Done => None,
        }
    }

    /// Whether a [`Connector::connect`] is due.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Asks for a session.
    ///
    /// # Panics
    ///
    /// If no connect is due, or the authorizer is longer than
    /// [`AUTHORIZER_LEN_MAX`](crate::v1::connect::AUTHORIZER_LEN_MAX).
    pub fn connect(&mut self, attempt: Attempt, out: &mut BytesMut) {
        assert!(self.is_idle(), "no connect is due");
        let connect = Connect {
            features: self.dial.supported,
            kind: self.dial.own,
            global_seq: attempt.global_seq,
            connect_seq: attempt.connect_seq,
            protocol: self.protocol(),
            authorizer_protocol: attempt.authorizer_protocol,
            authorizer_len: authorizer_len(&attempt.authorizer),
            lossy: self.dial.lossy,
        };
        connect.write(out);
        out.put_slice(&attempt.authorizer);
        self.attempt = attempt;
        self.attempts += 1;
        self.state = State::Reply;
    }

    /// Takes the next piece, of exactly the length that [`Connector::wants`] tells. After an error
    /// nothing is wanted any more.
    pub fn push(&mut self, piece: Bytes, out: &mut BytesMut) -> Result<Option<Reply>, V1Error> {
        debug_assert_eq!(self.wants(), Some(piece.len()));
        match std::mem::replace(&mut self.state, State::Done) {
            State::Banner => {
                banner::check_magic(&piece)?;
                self.state = State::Addrs;
                Ok(None)
            }
            State::Addrs => self.on_addrs(&piece, out).map(Some),
            State::Reply => {
                let reply = ConnectReply::parse(&piece)?;
                if reply.authorizer_len > 0 {
                    self.state = State::Blob(reply);
                    return Ok(None);
                }
                self.on_reply(&reply, Bytes::new())
            }
            State::Blob(reply) => self.on_reply(&reply, piece),
            State::Seq(opened) => {
                let acked = Some(parse_seq(&piece)?);
                out.put_u64_le(self.attempt.in_seq);
                Ok(Some(Reply::Ready(Opened { acked, ..opened })))
            }
            state @ (State::Idle | State::Done) => {
                self.state = state;
                Ok(None)
            }
        }
    }

    fn on_addrs(&mut self, piece: &[u8], out: &mut BytesMut) -> Result<Reply, V1Error> {
        let (got, seen) = banner::parse_server_addrs(piece)?;
        let dialled = self.dial.target;
        if !is_same(&dialled, &got) {
            return Err(V1Error::NotTheDialled { dialled, got });
        }
        let mut own_addr = self.dial.own_addr;
        if let Some(seen) = seen.socket {
            own_addr = own_addr.with_ip_if_blank(seen.ip());
        }
        own_addr.encode_legacy(&mut Writer::new(out));
        self.state = State::Idle;
        Ok(Reply::Greeted { own_addr })
    }

    fn on_reply(&mut self, reply: &ConnectReply, blob: Bytes) -> Result<Option<Reply>, V1Error> {
        let said = match reply.tag {
            ReplyTag::Ready | ReplyTag::Seq => return self.on_open(reply, blob),
            ReplyTag::ChallengeAuthorizer => Reply::Challenge(blob),
            ReplyTag::ResetSession => Reply::ResetSession,
            ReplyTag::RetrySession => Reply::RetrySession { connect_seq: reply.connect_seq },
            ReplyTag::RetryGlobal => Reply::RetryGlobal { global_seq: reply.global_seq },
            ReplyTag::Wait => return Ok(Some(Reply::Wait)),
            ReplyTag::BadProtocolVersion => {
                let (ours, theirs) = (self.protocol(), reply.protocol);
                return Ok(Some(Reply::Refused(Refusal::Protocol { ours, theirs })));
            }
            ReplyTag::BadAuthorizer => return Ok(Some(Reply::Refused(Refusal::Authorizer))),
            ReplyTag::Features => {
                let missing = reply.features & !self.dial.supported;
                return Ok(Some(Reply::Refused(Refusal::Features { missing })));
            }
        };
        if self.attempts >= ATTEMPTS_MAX {
            return Err(V1Error::TooManyAttempts { attempts: self.attempts });
        }
        self.state = State::Idle;
        Ok(Some(said))
    }

    fn on_open(
        &mut self,
        reply: &ConnectReply,
        authorizer_reply: Bytes,
    ) -> Result<Option<Reply>, V1Error> {
        let missing = self.dial.required & !reply.features;
        if missing != 0 {
            return Err(V1Error::MissingFeatures { missing });
        }
        let expected = self.attempt.connect_seq.wrapping_add(1);
        if reply.connect_seq != expected {
            return Err(V1Error::ConnectSeq { expected, got: reply.connect_seq });
        }
        let opened = Opened {
            features: reply.features & self.dial.supported,
            lossy: reply.lossy,
            global_seq: reply.global_seq,
            connect_seq: reply.connect_seq,
            acked: None,
            authorizer_reply,
        };
        match reply.tag {
            // Bit 6 asks for SEQ. A server may send it unasked; nothing would be gained by refusing.
            ReplyTag::Seq => {
                self.state = State::Seq(opened);
                Ok(None)
            }
            _ => Ok(Some(Reply::Ready(opened))),
        }
    }

    fn protocol(&self) -> u32 {
        protocol_version(self.dial.peer, self.dial.own)
    }
}

/// Whether `got` is the daemon that was dialled. One that does not know its own IP address is
/// recognised by port and nonce.
fn is_same(dialled: &EntityAddr, got: &EntityAddr) -> bool {
    let Some(socket) = dialled.socket else {
        return false;
    };
    got.kind == AddrType::Legacy
        && got.nonce == dialled.nonce
        && got.with_ip_if_blank(socket.ip()).socket == dialled.socket
}

/// Whether a client with these features is told how far the session got.
pub(super) fn wants_seq(features: u64) -> bool {
    features & features::RECONNECT_SEQ != 0
}
