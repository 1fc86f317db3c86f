//! The thread that reads, and hands everything out that a session has to say.
//!
//! ```text
//!   news?                     hand it out, without the lock
//!   session over?             depart
//!   stream open and room?     read without the lock, then give the session what came
//!   else                      sleep: no stream, or a throttle is full
//! ```
//!
//! As one thread does it all, over one stream after another, messages and callbacks come in the
//! session's order.

use super::link::Link;
use super::pipe::{Pipe, SHORTEST_LIMIT, Seat};
use super::settling::log_fault;
use crate::connection::Connection;
use crate::dispatch_queue::News;
use crate::endpoint::{Delivered, Endpoint};
use messenger_proto::message::Message;
use messenger_proto::{SessionEvent, TransportNews};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Most bytes of one read.
const READ_LEN: usize = 64 << 10;

/// See the [module](self).
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) pipe: Arc<Pipe>,
    buffer: Box<[u8]>,
    held: Option<Held>,
    /// Reads have a time limit.
    limited: bool,
    /// The application was asked whether the peer may come in.
    pub(super) admitted: Cell<bool>,
}

/// Bytes that were read, and that the session has not taken.
struct Held {
    stream: Arc<TcpStream>,
    /// Their place in the buffer.
    bytes: Range<usize>,
}

enum Step {
    HandOut(VecDeque<SessionEvent>),
    /// There is room for what is held.
    Feed,
    /// There is room for so many bytes; something else is to be done at the given time.
    Read(Arc<TcpStream>, usize, Option<Instant>),
    /// Instead of a read.
    Break(Arc<TcpStream>),
    Sleep,
    End,
}

impl Reader {
    pub(super) fn new(connection: &Connection, endpoint: &Arc<Endpoint>, pipe: &Arc<Pipe>) -> Self {
        Self {
            connection: connection.clone(),
            endpoint: Arc::clone(endpoint),
            pipe: Arc::clone(pipe),
            buffer: vec![0; READ_LEN].into(),
            held: None,
            limited: false,
            admitted: Cell::new(false),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Step::HandOut(news) => self.hand_out(news),
                Step::Feed => self.feed(),
                Step::Read(stream, room, limit) => self.read(stream, room, limit),
                Step::Break(stream) => self.pipe.break_stream(&self.connection, &stream),
                Step::Sleep => self.sleep(),
                Step::End => return self.pipe.depart(&self.connection, &self.endpoint),
            }
        }
    }

    fn next(&mut self) -> Step {
        let mut state = self.pipe.lock();
        state.rouses_reader = false;
        self.held.take_if(|held| !state.link.is_on(&held.stream));
        if !state.news.is_empty() {
            return Step::HandOut(std::mem::take(&mut state.news));
        }
        let paused = state.injector.is_paused(Instant::now());
        let room = match &mut state.seat {
            Seat::Here(session) if !session.is_closed() => session.rx_space().len(),
            _ => return Step::End,
        };
        let stream = match &state.link {
            Link::Open(stream) if room > 0 && !paused => Arc::clone(stream),
            _ => return Step::Sleep,
        };
        if self.held.is_some() {
            return Step::Feed;
        }
        match state.injector.breaks_socket() {
            true => Step::Break(stream),
            // What was injected may have news while we read.
            false => Step::Read(stream, room.min(READ_LEN), state.injector.poll_timeout()),
        }
    }

    fn read(&mut self, stream: Arc<TcpStream>, room: usize, limit: Option<Instant>) {
        let outcome = self.read_until(&stream, room, limit);
        if let Ok(len @ 1..) = outcome {
            self.held = Some(Held { stream, bytes: 0..len });
            return self.feed();
        }
        let Self { pipe, connection, .. } = self;
        pipe.change(connection, |state, now| {
            if !state.link.is_on(&stream) {
                return;
            }
            match outcome {
                Ok(_) => {
                    state.link.hang_up();
                    if let Seat::Here(session) = &mut state.seat {
                        session.handle_transport(now, TransportNews::Closed);
                    }
                }
                Err(error) if is_for_now(error.kind()) => {}
                Err(error) => pipe.on_trouble(state, connection, &error, TransportNews::Reset),
            }
        });
    }

    fn read_until(
        &mut self,
        stream: &TcpStream,
        room: usize,
        limit: Option<Instant>,
    ) -> io::Result<usize> {
        if limit.is_some() || self.limited {
            let left = limit.map(|limit| limit.saturating_duration_since(Instant::now()));
            stream.set_read_timeout(left.map(|left| left.max(SHORTEST_LIMIT)))?;
            self.limited = limit.is_some();
        }
        (&*stream).read(&mut self.buffer[..room])
    }

    /// Gives the session as much as it takes of what was read.
    fn feed(&mut self) {
        let Self { pipe, connection, buffer, held, .. } = self;
        pipe.change(connection, |state, now| {
            held.take_if(|held| !state.link.is_on(&held.stream));
            let (Some(Held { bytes, .. }), Seat::Here(session)) = (held.as_mut(), &mut state.seat)
            else {
                return;
            };
            while bytes.start < bytes.end {
                let space = session.rx_space();
                let len = space.len().min(bytes.end - bytes.start);
                if len == 0 {
                    return; // it waits for something
                }
                space[..len].copy_from_slice(&buffer[bytes.start..][..len]);
                bytes.start += len;
                log_fault(connection, session.handle_received(now, len));
            }
            *held = None;
        });
    }

    /// Sleeps until there is something to do. What woke it may be a throttle that has room again.
    fn sleep(&self) {
        self.pipe.reader.sleep(None);
        self.pipe.change(&self.connection, |state, now| {
            if let Seat::Here(session) = &mut state.seat {
                log_fault(&self.connection, session.handle_unblocked(now));
            }
        });
    }

    /// Tells what happened, in order, and how long dispatchers took for what they took here.
    fn hand_out(&self, news: VecDeque<SessionEvent>) {
        let begin = Instant::now();
        let mut fast = false;
        for event in news {
            match event {
                SessionEvent::Message(message) => fast |= self.deliver(message),
                other => self.tell_of(other),
            }
        }
        if fast {
            let time = begin.elapsed();
            self.pipe.simple.count(|counters| counters.fast_dispatch_time += time);
        }
    }

    fn tell_of(&self, event: SessionEvent) {
        match event {
            SessionEvent::Ready { accepted, .. } => {
                if !self.connection.is_down() {
                    self.endpoint.tell_ready(&self.connection, accepted);
                }
                if accepted {
                    self.pipe.change(&self.connection, |state, _| state.welcomes -= 1);
                }
            }
            SessionEvent::TurnedAway(refusal) => {
                Endpoint::log_refusal(&self.connection, &refusal);
            }
            SessionEvent::Ident(ident) => self.introduce(&ident),
            SessionEvent::LearnedAddr(seen) => self.endpoint.learn(seen),
            SessionEvent::Refused => self.endpoint.tell(&self.connection, News::Refused),
            SessionEvent::RemoteReset => {
                self.endpoint.queue.discard(&self.connection);
                self.endpoint.tell(&self.connection, News::RemoteReset);
            }
            SessionEvent::Reset(reason) => {
                tracing::debug!(connection = %self.connection, %reason, "session ended");
                self.endpoint.end(&self.connection);
            }
            other => tracing::warn!(event = ?other, "unknown session event"),
        }
    }

    /// Whether a dispatcher took it on this thread.
    fn deliver(&self, message: Message) -> bool {
        if self.connection.is_down() {
            return false;
        }
        let delivered = self.endpoint.deliver(&self.connection, message);
        self.pipe.simple.count(|counters| match delivered {
            Delivered::Fast => counters.fast_dispatched += 1,
            Delivered::Queued => counters.queued += 1,
        });
        delivered == Delivered::Fast
    }
}

/// Whether a later read may do better.
fn is_for_now(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
