//! One session between two threads, and what either of them, or any handle, may do to it.
//!
//! ```text
//!   handles  send, mark_down, ... --+
//!   Reader   bytes received --------+--> change: the session under its lock, then settle: what it
//!   Writer   time, bytes to send ---+    wants of its stream is done, the rest is news for the Reader
//!                                        |
//!   Reader   <---- news, in order -------+   handed out without the lock
//! ```
//!
//! The lock is held for as long as a session needs for one change, never for a system call that
//! waits and never for a callback; only a test's interceptor is asked under it, and so must not use
//! its connection from within. At most one pipe's lock is held at a time; below it come only locks
//! whose holders take no other.

use super::Simple;
use super::bell::Bell;
use super::link::Link;
use super::reader::Reader;
use super::writer::Writer;
use crate::accounts::Accounts;
use crate::connection::{Connection, Flag, SendError};
use crate::endpoint::{Endpoint, Refused};
use crate::error::Error;
use crate::injection::Injector;
use crate::shell::Wanted;
use crate::worker_loop::{Ask, facts_to_dial};
use messenger_proto::message::Message;
use messenger_proto::{Session, SessionEvent};
use std::collections::VecDeque;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time limit of a read or a write: the kernel takes zero for none.
pub(super) const SHORTEST_LIMIT: Duration = Duration::from_millis(1);

/// See the [module](self).
pub(crate) struct Pipe {
    pub(super) simple: Arc<Simple>,
    pub(super) state: Mutex<State>,
    /// The reader sleeps on it when there is nothing to read.
    pub(super) reader: Arc<Bell>,
    /// The writer sleeps on it when there is nothing to write.
    pub(super) writer: Bell,
}

/// What the lock guards.
pub(super) struct State {
    pub(super) seat: Seat,
    pub(super) link: Link,
    /// The writer has bytes of the session that may not be on the wire.
    pub(super) writing: bool,
    /// The reader waits for that to end.
    pub(super) awaited: bool,
    /// Accepted sessions among the news. The peer is told after the application (D-7), so the
    /// writer waits.
    pub(super) welcomes: usize,
    /// For the reader to hand out.
    pub(super) news: VecDeque<SessionEvent>,
    /// The reader has to look at what changed.
    pub(super) rouses_reader: bool,
    pub(super) injector: Injector,
    /// It takes one of the places for sessions that were accepted and are not ready.
    pub(super) accepting: bool,
    departed: bool,
    pub(super) accounts: Accounts,
}

/// Where the session is.
#[expect(clippy::large_enum_variant, reason = "there is one for each connection")]
pub(super) enum Seat {
    Here(Session),
    /// In the hands of the reader, who shows it to an older session of its peer.
    Lent,
    /// It ended, or went into an older session of its peer.
    Gone,
}

impl Pipe {
    /// A handle of a session that dials. Nothing happens before [`Pipe::start`].
    pub(super) fn dial(
        simple: &Arc<Simple>,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted<'_>,
    ) -> Connection {
        let Wanted { kind, addrs, target, anonymous } = wanted;
        let (now, seed) = (Instant::now(), simple.draw());
        let session = Session::dial(now, endpoint.identity(), kind, target, seed);
        let facts = facts_to_dial(kind, addrs.clone(), target.socket);
        let pipe = Self::new(simple, session, Link::Down, false);
        Connection::with_pipe(endpoint, pipe, facts, anonymous)
    }

    /// A session on a stream that an accepter accepted; or none, if the messenger takes no more.
    pub(super) fn accept(
        simple: &Arc<Simple>,
        endpoint: &Arc<Endpoint>,
        stream: TcpStream,
        from: SocketAddr,
    ) {
        if let Err(why) = Self::try_accept(simple, endpoint, stream, from) {
            tracing::debug!(%from, ?why, "connection refused: no more are taken");
            simple.count(|counters| why.count(counters));
        }
    }

    fn try_accept(
        simple: &Arc<Simple>,
        endpoint: &Arc<Endpoint>,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Result<(), Refused> {
        let local = stream.local_addr().map_err(|_| Refused::Connections)?;
        endpoint.begin_accepting()?;
        let (now, seed) = (Instant::now(), simple.draw());
        let session = Session::accept(now, endpoint.identity(), from, local, seed);
        let facts = session.peer().clone();
        let pipe = Self::new(simple, session, Link::Open(Arc::new(stream)), true);
        let connection = Connection::with_pipe(endpoint, Arc::clone(&pipe), facts, false);
        if endpoint.registry.insert(connection.clone()).is_err() {
            endpoint.end_accepting();
            return Err(Refused::Connections);
        }
        pipe.start(&connection, endpoint).map_err(|_| Refused::Connections)
    }

    fn new(simple: &Arc<Simple>, mut session: Session, link: Link, accepting: bool) -> Arc<Self> {
        let reader = Arc::new(Bell::default());
        let to_unblock = Arc::clone(&reader);
        session.set_unblock(Arc::new(move || to_unblock.ring()));
        let state = State {
            seat: Seat::Here(session),
            link,
            writing: false,
            awaited: false,
            welcomes: 0,
            news: VecDeque::new(),
            rouses_reader: false,
            injector: Injector::default(),
            accepting,
            departed: false,
            accounts: Accounts::default(),
        };
        Arc::new(Self {
            simple: Arc::clone(simple),
            state: Mutex::new(state),
            reader,
            writer: Bell::default(),
        })
    }

    /// Starts its threads, the one first that has something to do (contract SM-2). On an error the
    /// connection has ended.
    pub(super) fn start(
        self: &Arc<Self>,
        connection: &Connection,
        endpoint: &Arc<Endpoint>,
    ) -> Result<(), Error> {
        // Its first event is the wish for a TCP connection, or the news that it ended already.
        self.change(connection, |state, now| state.furnish(now, connection, endpoint));
        let accepted = self.lock().accepting;
        let reader = Reader::new(connection, endpoint, self);
        let writer = Writer::new(connection, endpoint, self);
        let threads = &self.simple.threads;
        let start_reader = || threads.spawn("ms_pipe_read", move || reader.run());
        let start_writer = || threads.spawn("ms_pipe_write", move || writer.run());
        let started = self.simple.enter().and_then(|()| {
            let started = match accepted {
                true => start_reader().and_then(|()| start_writer()),
                false => start_writer().and_then(|()| start_reader()),
            };
            started.map_err(Error::Thread)
        });
        started.inspect_err(|error| {
            tracing::warn!(%connection, %error, "no threads for a connection");
            connection.mark_down();
            self.depart(connection, endpoint);
        })
    }

    /// Queues a message in the session, or gives it back.
    pub(crate) fn send(&self, connection: &Connection, message: Message) -> Result<(), SendError> {
        let len = message.payload_len();
        self.change(connection, |state, now| {
            let Seat::Here(session) = &mut state.seat else {
                return Err(SendError::Closed(message));
            };
            session.send(now, message)?;
            state.accounts.enter(len);
            Ok(())
        })
    }

    /// Does what a handle asks for.
    pub(crate) fn ask(&self, connection: &Connection, ask: Ask) {
        self.change(connection, |state, now| {
            let Seat::Here(session) = &mut state.seat else {
                return;
            };
            match ask {
                Ask::Keepalive => {
                    connection.lower(Flag::KeepaliveAsked);
                    session.send_keepalive(now);
                }
                Ask::MarkDown => session.mark_down(),
                Ask::Close => session.close(),
                Ask::MarkDisposable => session.mark_disposable(),
                Ask::Resume(action) => {
                    session.resume(now, action);
                    if session.is_ready() && !connection.is_down() {
                        connection.raise(Flag::Ready); // it was not while it was held
                    }
                    state.rouses_reader = true;
                }
                other => unreachable!("handles do not ask a pipe for {other:?}"),
            }
        });
    }

    /// Makes one change to the session, sees to what it led to, and wakes who has to look.
    pub(super) fn change<R>(
        &self,
        connection: &Connection,
        change: impl FnOnce(&mut State, Instant) -> R,
    ) -> R {
        let mut state = self.lock();
        let result = change(&mut state, Instant::now());
        self.settle(&mut state, connection);
        let rouses_reader = std::mem::take(&mut state.rouses_reader);
        drop(state);
        if rouses_reader {
            self.reader.ring();
        }
        self.writer.ring();
        result
    }

    /// Is no connection of its endpoint any more, and gives everything back that it held.
    pub(super) fn depart(&self, connection: &Connection, endpoint: &Endpoint) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.departed, true) {
            return;
        }
        self.settle(&mut state, connection);
        state.link.hang_up();
        let session = std::mem::replace(&mut state.seat, Seat::Gone);
        let mut accounts = std::mem::take(&mut state.accounts);
        let accepting = std::mem::take(&mut state.accepting);
        let held = (session, std::mem::take(&mut state.news), std::mem::take(&mut state.injector));
        drop(state);
        drop(held);
        accounts.close(connection);
        if accepting {
            endpoint.end_accepting();
        }
        connection.raise(Flag::Closed);
        self.simple.leave();
        endpoint.registry.forget(connection);
        self.writer.ring();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What a session needs of its connection. Some of it holds the connection until the session
    /// is gone, so it comes when it is certain that there will be a reader to see to that.
    fn furnish(&mut self, now: Instant, connection: &Connection, endpoint: &Endpoint) {
        self.injector = endpoint.options.injection.injector(connection.id());
        if self.accepting {
            self.injector.pause(now);
        }
        let Seat::Here(session) = &mut self.seat else {
            return;
        };
        endpoint.furnish(session, connection);
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").finish_non_exhaustive()
    }
}
