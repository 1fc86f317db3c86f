//! The thread that connects, writes, and looks after a session's time.
//!
//! ```text
//!   deadline over?            tell the session
//!   stream wanted?            connect, and wait for it without the lock
//!   something to send?        gather it, then write it without the lock
//!   else                      sleep until the next deadline
//! ```
//!
//! No wait is longer than to the session's deadline, and a shutdown of the stream ends each of
//! those that are for the stream.

use super::link::Link;
use super::pipe::{Pipe, SHORTEST_LIMIT, Seat, State};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use messenger_proto::{Session, TransportNews};
use netstack::posix::blocking;
use netstack::stack::{ConnectOptions, SocketError};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

/// Most bytes of one write.
const WRITE_LEN: usize = 64 << 10;

/// See the [module](self).
pub(super) struct Writer {
    connection: Connection,
    endpoint: Arc<Endpoint>,
    pipe: Arc<Pipe>,
    /// Gathered from the session, not yet on the wire.
    buffer: Vec<u8>,
}

enum Step {
    Time,
    Connect,
    Open(Arc<TcpStream>, SocketAddr),
    Write(Arc<TcpStream>),
    /// Instead of a write.
    Break(Arc<TcpStream>),
    /// As if the kernel had no room now.
    PutOff,
    Sleep,
    End,
}

impl Writer {
    pub(super) fn new(connection: &Connection, endpoint: &Arc<Endpoint>, pipe: &Arc<Pipe>) -> Self {
        Self {
            connection: connection.clone(),
            endpoint: Arc::clone(endpoint),
            pipe: Arc::clone(pipe),
            buffer: Vec::with_capacity(WRITE_LEN),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let (step, deadline) = self.next();
            match step {
                Step::Time => self.pass_time(),
                Step::Connect => self.connect(),
                Step::Open(stream, peer) => self.open(&stream, peer, deadline),
                Step::Write(stream) => self.write(&stream, deadline),
                Step::Break(stream) => self.pipe.break_stream(&self.connection, &stream),
                Step::PutOff => std::thread::yield_now(),
                Step::Sleep => self.pipe.writer.sleep(deadline),
                Step::End => return,
            }
        }
    }

    /// What to do, and how long it may take.
    fn next(&mut self) -> (Step, Option<Instant>) {
        let pipe = Arc::clone(&self.pipe);
        let (mut state, now) = (pipe.lock(), Instant::now());
        match &state.seat {
            Seat::Here(session) if !session.is_closed() => {}
            Seat::Lent => return (Step::Sleep, None),
            _ => return (Step::End, None),
        }
        let deadline = state.deadline();
        let step = match &state.link {
            _ if state.is_due(now) => Step::Time,
            Link::Wanted(_) => Step::Connect,
            _ if state.injector.is_paused(now) || state.welcomes > 0 => Step::Sleep,
            Link::Down => Step::Sleep,
            Link::Opening(stream, peer) => Step::Open(Arc::clone(stream), *peer),
            Link::Open(stream) => {
                let stream = Arc::clone(stream);
                self.gather(&mut state, now, stream)
            }
        };
        (step, deadline)
    }

    /// Fills the buffer with what the session has to send, as much as fits.
    fn gather(&mut self, state: &mut State, now: Instant, stream: Arc<TcpStream>) -> Step {
        match state.session().map(|session| session.poll_transmit(now).is_some()) {
            Some(true) if state.injector.breaks_socket() => return Step::Break(stream),
            Some(true) if state.injector.congests() => return Step::PutOff,
            Some(true) => {}
            _ => return Step::Sleep,
        }
        if let Some(session) = state.session() {
            fill(&mut self.buffer, session, now);
        }
        state.writing = true;
        self.pipe.settle(state, &self.connection);
        Step::Write(stream)
    }

    fn pass_time(&self) {
        self.pipe.change(&self.connection, State::pass_time);
    }

    fn connect(&self) {
        let Self { pipe, connection, endpoint, .. } = self;
        pipe.change(connection, |state, now| {
            let Link::Wanted(peer) = state.link else {
                return;
            };
            state.injector.pause(now);
            let ours = &endpoint.options;
            let options =
                ConnectOptions { bind: ours.connect_from, priority: ours.socket_priority };
            match blocking::connect(&pipe.simple.options, peer, &options) {
                Ok(stream) => state.link = Link::Opening(Arc::new(stream), peer),
                Err(error) => pipe.on_trouble(state, connection, &error, news_of(&error)),
            }
        });
    }

    fn open(&self, stream: &Arc<TcpStream>, peer: SocketAddr, deadline: Option<Instant>) {
        let patience = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let outcome = match blocking::finish_connect(stream, peer, patience) {
            Ok(None) => return,
            Ok(Some(local)) => Ok(local),
            Err(error) => Err(error),
        };
        let Self { pipe, connection, .. } = self;
        pipe.change(connection, |state, now| match outcome {
            _ if !state.link.is_on(stream) => {}
            Ok(local) => {
                state.link = Link::Open(Arc::clone(stream));
                state.rouses_reader = true;
                if let Seat::Here(session) = &mut state.seat {
                    session.handle_transport(now, TransportNews::Opened { local });
                }
            }
            Err(error) => pipe.on_trouble(state, connection, &error, news_of(&error)),
        });
    }

    fn write(&self, stream: &Arc<TcpStream>, deadline: Option<Instant>) {
        let outcome = self.write_all(stream, deadline);
        let Self { pipe, connection, .. } = self;
        pipe.change(connection, |state, _| {
            state.writing = false;
            state.rouses_reader |= std::mem::take(&mut state.awaited);
            if let Err(error) = outcome
                && state.link.is_on(stream)
            {
                pipe.on_trouble(state, connection, &error, TransportNews::Reset);
            }
        });
    }

    fn write_all(&self, stream: &Arc<TcpStream>, mut deadline: Option<Instant>) -> io::Result<()> {
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            let limit = deadline.map(|deadline| {
                deadline.saturating_duration_since(Instant::now()).max(SHORTEST_LIMIT)
            });
            stream.set_write_timeout(limit)?;
            match (&**stream).write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => rest = &rest[len..],
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    // The peer takes nothing. Has the session given it up?
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        self.pass_time();
                        deadline = self.pipe.lock().deadline();
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }
}

/// Moves what the session has to send into the buffer, as much as fits.
fn fill(buffer: &mut Vec<u8>, session: &mut Session, now: Instant) {
    buffer.clear();
    while buffer.len() < WRITE_LEN
        && let Some(gather) = session.poll_transmit(now)
    {
        let before = buffer.len();
        for slice in gather.slices() {
            let len = slice.len().min(WRITE_LEN - buffer.len());
            buffer.extend_from_slice(&slice[..len]);
        }
        session.transmitted(buffer.len() - before);
    }
}

fn news_of(error: &SocketError) -> TransportNews {
    match error {
        SocketError::Refused => TransportNews::Refused,
        _ => TransportNews::Reset,
    }
}
