//! What goes in and out of a session, apart from bytes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::addr::{EntityAddr, EntityAddrVec};
use crate::auth::{AuthIdentity, Refusal, RefusalCounts};
use crate::entity::{EntityName, EntityType};
use crate::error::ProtocolError;
use crate::message::Message;

/// News about the TCP connection under a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportNews {
    /// The connection asked for by [`SessionEvent::Dial`] is open.
    Opened {
        /// Our end of it.
        local: SocketAddr,
    },
    /// Nobody listens there.
    Refused,
    /// The peer closed it.
    Closed,
    /// It broke: reset, timed out, unreachable.
    Reset,
}

/// What a session asks for or tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// Open a TCP connection, then report with [`TransportNews`].
    Dial {
        /// Where to.
        to: SocketAddr,
    },
    /// Close the transport now. Whatever still comes from it is not for this session.
    Hangup,
    /// An acceptor's peer introduced itself: look it up and answer with `Session::resolve`.
    /// Nothing is read until then.
    Ident(Box<PeerIdent>),
    /// An acceptor's peer has not authenticated; it may try again. For the log.
    TurnedAway(Box<Refusal>),
    /// The session is usable. Precedes every message of it.
    Ready {
        /// It is an old session on a new transport.
        reconnected: bool,
        /// The peer dialled.
        accepted: bool,
    },
    /// A message, in the order received.
    Message(Message),
    /// Our address as the peer sees it, from its HELLO; for the dialling side (contract M-27).
    LearnedAddr(SocketAddr),
    /// TCP refused a dial; the next one follows after a backoff (contract D-11).
    Refused,
    /// The peer lost the session: what was queued is gone, a fresh session is being made
    /// (contract D-10).
    RemoteReset,
    /// The session is parked until there is something to send or the peer returns.
    Standby,
    /// The session is dead for good (contract D-9). Nothing follows but a [`SessionEvent::Hangup`].
    Reset(CloseReason),
}

/// Who wants a session, from CLIENT_IDENT or SESSION_RECONNECT, or a connect of msgr1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdent {
    /// Its type; the number is unknown (-1) for a reconnect.
    pub name: EntityName,
    /// As whom it authenticated.
    pub auth: Option<AuthIdentity>,
    /// Its addresses: the key of its session.
    pub addrs: EntityAddrVec,
    /// Where its TCP connection comes from.
    pub from: SocketAddr,
    /// Its number of this connection attempt.
    pub global_seq: u64,
    /// Its cookie; zero on lossy sessions.
    pub client_cookie: u64,
    /// A new session or an old one.
    pub request: IdentRequest,
}

/// What an ident asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentRequest {
    /// A new session.
    New {
        /// Feature bits it supports.
        features: u64,
        /// It takes itself for lossy; the server's word counts.
        lossy: bool,
    },
    /// The continuation of an old session.
    Reconnect {
        /// The cookie we gave it.
        server_cookie: u64,
        /// Reconnects of the session so far.
        connect_seq: u64,
        /// The last message it received.
        msg_seq: u64,
    },
    /// Either of them, over msgr1, where no side has cookies.
    Connect {
        /// Times the session was open; 0 asks for a new one.
        connect_seq: u64,
        /// Feature bits both sides support.
        features: u64,
        /// It takes itself for lossy; the server's word counts.
        lossy: bool,
    },
}

/// The answer to [`SessionEvent::Ident`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Make a new session here.
    Accept,
    /// Close without a word: the attempt is older than one already seen.
    Refuse,
    /// Ask the peer to wait for our own dial.
    Wait,
    /// The session it wants to continue is gone.
    Reset {
        /// It must also drop what it queued.
        full: bool,
    },
    /// It must try again with a higher connect_seq than this.
    Retry {
        /// Ours.
        connect_seq: u64,
    },
    /// It must try again with a higher global_seq than this.
    RetryGlobal {
        /// The highest we saw from it.
        global_seq: u64,
    },
}

/// Why the transport of a session was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer closed the connection.
    #[error("peer closed the connection")]
    Closed,
    /// The connection broke.
    #[error("connection broke")]
    Broken,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No session within the time allowed (contract K-4).
    #[error("not ready after {0:?}")]
    ReadyTimeout(Duration),
    /// No progress within the time allowed (contract K-5).
    #[error("no progress for {0:?}")]
    IdleTimeout(Duration),
    /// The peer asked us to wait for its own dial.
    #[error("peer asked to wait")]
    Wait,
    /// A test broke it.
    #[error("broken on purpose")]
    Injected,
}

impl Fault {
    /// A stable short name for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Protocol(error) => error.kind(),
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::ReadyTimeout(_) => "ready_timeout",
            Self::IdleTimeout(_) => "idle_timeout",
            Self::Wait => "wait",
            Self::Injected => "injected",
        }
    }
}

/// Why a session ended for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// A fault, and the policy does not try again.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// `Session::close` was called.
    #[error("closed by us")]
    Local,
    /// The shell refused the peer.
    #[error("refused by us")]
    Refused,
    /// The address to dial has no socket address.
    #[error("{0} cannot be dialled")]
    NoAddress(EntityAddr),
}

/// A message that was not taken, and why. It is handed back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The session is dead.
    #[error("the session is closed")]
    Closed(Message),
    /// The queue is at its limit.
    #[error("the session's queue is full")]
    Full(Message),
    /// A section is longer than the limits allow.
    #[error("a section of the message is longer than the limits allow")]
    TooLong(Message),
}

impl SendError {
    /// The message.
    pub fn into_message(self) -> Message {
        match self {
            Self::Closed(message) | Self::Full(message) | Self::TooLong(message) => message,
        }
    }
}

/// What is known about the other side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// Its type; known when dialling, from HELLO when accepting.
    pub kind: Option<EntityType>,
    /// Its type and number, once it introduced itself.
    pub name: Option<EntityName>,
    /// Its addresses, once it introduced itself; before, the one dialled.
    pub addrs: EntityAddrVec,
    /// The address dialled or accepted from (contract C-10).
    pub socket: Option<SocketAddr>,
    /// Feature bits both sides support (contract C-9); zero before the session is first ready.
    pub features: u64,
    /// The number the authentication gave it or us; zero when unknown.
    pub global_id: u64,
    /// As whom it authenticated to us when it last dialled; none if only we did.
    pub auth: Option<AuthIdentity>,
    /// When its last KEEPALIVE2 arrived (contract C-11).
    pub last_keepalive: Option<Instant>,
    /// Our clock, since the Unix epoch, when the last KEEPALIVE2 it acknowledged left (C-12).
    pub last_keepalive_ack: Option<Duration>,
}

/// Counters of one session, over all its transports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Messages put on the wire, replays included.
    pub messages_sent: u64,
    /// Messages put on the wire for the first time: those that `send_time` is about.
    pub send_waits: u64,
    /// The sum of the times these spent in the queue.
    pub send_time: Duration,
    /// Messages acknowledged on the transport they were written to: those that `ack_time` is about.
    pub ack_waits: u64,
    /// The sum of the times between writing these and their acknowledgement.
    pub ack_time: Duration,
    /// Messages handed out.
    pub messages_received: u64,
    /// Bytes the transport took.
    pub bytes_sent: u64,
    /// Bytes the transport gave.
    pub bytes_received: u64,
    /// Of [`SessionStats::bytes_sent`] those on transports in secure mode.
    pub sealed_bytes_sent: u64,
    /// The same, received.
    pub sealed_bytes_received: u64,
    /// Stand-alone ACK frames sent.
    pub acks_sent: u64,
    /// Messages the peer acknowledged.
    pub messages_acked: u64,
    /// Messages dropped because they had been received before.
    pub duplicates: u64,
    /// Messages whose number did not follow the last one's.
    pub skipped: u64,
    /// Frames their sender aborted.
    pub aborted_frames: u64,
    /// Times a message had to wait for a throttle.
    pub throttle_waits: u64,
    /// Transports given up because the peer broke the protocol.
    pub protocol_errors: u64,
    /// Attempts to authenticate that we refused, by kind.
    pub auth_refused: RefusalCounts,
    /// Transports given up because the peer refused each of our authentication methods.
    pub auth_denied: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Faults for want of a session in time.
    pub ready_timeouts: u64,
    /// Faults for want of progress.
    pub idle_timeouts: u64,
    /// Dials asked for.
    pub dials: u64,
}
