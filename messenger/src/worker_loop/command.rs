//! What other threads ask of a worker.

use super::peer::Peer;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::metrics::WorkerCounters;
use crate::workers::Gate;
use messenger_proto::{Action, EntityAddr, EntityType, Message, PeerIdent, Verdict};
use netstack::stack::{ListenOptions, SocketError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Names one messenger's listeners on all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListenerOwner(pub(crate) u64);

/// An item of a worker's inbox. `Dial` and `Ask::Send` come through the bounded lane, for the
/// application decides how many there are; all others through the control lane.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most commands are messages to send")]
pub(crate) enum Command {
    /// Make a session that dials.
    Dial(Box<Dial>),
    /// Something for the session behind this handle.
    Session(Connection, Ask),
    /// Another worker hands over a session: it is to adopt the newcomer's transport here.
    Adopt(Box<Peer>, Connection),
    /// Where a session is now that left from here; none if it has ended.
    Whereabouts(Connection, Option<Arc<Gate>>),
    /// Listen, but do not accept yet.
    Listen(Box<Listen>),
    /// Accept on all listeners of an owner from now.
    Serve(ListenerOwner, Arc<Endpoint>),
    /// Close the listeners of an owner, or the one at an address; then answer.
    Unlisten(ListenerOwner, Option<SocketAddr>, Sender<()>),
    /// Answer with a snapshot of the counters.
    Count(Sender<WorkerCounters>),
    /// End all sessions and the thread.
    Stop,
}

/// What is asked of one session. There is at most one of each kind under way per connection, but
/// for messages.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are messages to send")]
pub(crate) enum Ask {
    Send(Message),
    Keepalive,
    /// End silently.
    MarkDown,
    /// End with a reset.
    Close,
    MarkDisposable,
    /// A throttle granted what the session waits for.
    Unblock,
    /// The session's peer introduced itself on a new connection: decide about it.
    Judge(Newcomer),
    /// The decision about this newcomer.
    Resolve(Verdict),
    /// Goes on after an interceptor held it.
    Resume(Action),
    /// There was nobody to decide about this newcomer: it may ask again.
    Introduce(Box<PeerIdent>),
}

/// An accepted connection whose peer claims a session that exists.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) connection: Connection,
    pub(crate) ident: Box<PeerIdent>,
}

/// What a dialling session is made of.
#[derive(Debug)]
pub(crate) struct Dial {
    pub(crate) connection: Connection,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) peer_type: EntityType,
    pub(crate) target: EntityAddr,
}

/// What a listening socket is made of.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) owner: ListenerOwner,
    pub(crate) addr: SocketAddr,
    pub(crate) options: ListenOptions,
    pub(crate) reply: Sender<Result<SocketAddr, SocketError>>,
}
