//! What follows a change: the session's wishes, its news, the accounts; and faults made on purpose.

use super::link::Link;
use super::pipe::{Pipe, Seat, State};
use crate::connection::{Connection, Flag};
use crate::endpoint::Endpoint;
use messenger_proto::{ProtocolError, Session, SessionEvent, TransportNews};
use std::fmt;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

impl Pipe {
    /// Does what the session wants of its stream, keeps the rest for the reader, and brings the
    /// handle and the counters up to date.
    pub(super) fn settle(&self, state: &mut State, connection: &Connection) {
        // It is there as long as the reader is, and so as long as a session.
        let Some(endpoint) = connection.endpoint() else {
            return;
        };
        while let Some(event) = state.session().and_then(Session::poll_event) {
            state.sort(event, connection, &endpoint);
        }
        self.account(state, connection, &endpoint);
    }

    /// Brings the handle and the counters up to date.
    fn account(&self, state: &mut State, connection: &Connection, endpoint: &Endpoint) {
        let Seat::Here(session) = &mut state.seat else {
            return;
        };
        // One that is marked down while it is parked has nothing to say.
        state.rouses_reader |= session.is_closed();
        if !session.is_ready() {
            connection.lower(Flag::Ready);
        }
        let die_on = endpoint.options.die_on;
        self.simple.count(|counters| {
            counters.turns += 1;
            state.accounts.settle(session, connection, die_on, counters);
        });
    }

    /// The session's stream broke, or could not be had.
    pub(super) fn on_trouble(
        &self,
        state: &mut State,
        connection: &Connection,
        error: &dyn fmt::Display,
        news: TransportNews,
    ) {
        tracing::debug!(%connection, %error, "transport failed");
        state.link.hang_up();
        if let Some(session) = state.session() {
            if !session.is_ready() {
                self.simple.count(|counters| counters.dial_failures += 1);
            }
            session.handle_transport(Instant::now(), news);
        }
    }

    /// A fault made on purpose.
    pub(super) fn break_stream(&self, connection: &Connection, stream: &Arc<TcpStream>) {
        self.change(connection, |state, _| {
            if state.link.is_on(stream) {
                self.on_trouble(state, connection, &"broken on purpose", TransportNews::Reset);
            }
        });
    }
}

impl State {
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.seat {
            Seat::Here(session) => Some(session),
            Seat::Lent | Seat::Gone => None,
        }
    }

    fn sort(&mut self, event: SessionEvent, connection: &Connection, endpoint: &Endpoint) {
        match event {
            SessionEvent::Dial { to } => {
                self.link.hang_up();
                self.link = Link::Wanted(to);
            }
            SessionEvent::Hangup => {
                self.link.hang_up();
                self.rouses_reader = true; // it is parked, or in a call that has just ended
                self.release_late(None);
            }
            // Parked, as the handle will say.
            SessionEvent::Standby => {}
            SessionEvent::Message(message) => {
                let kind = self.session().and_then(|session| session.peer().kind);
                if endpoint.options.injection.swallows(|| kind) {
                    return;
                }
                if let Some(message) = self.injector.hold_back(Instant::now(), kind, message) {
                    self.tell(SessionEvent::Message(message));
                }
            }
            SessionEvent::Ready { accepted, .. } => {
                self.welcomes += usize::from(accepted);
                if let Some(session) = self.session() {
                    connection.set_facts(session.peer());
                }
                if !connection.is_down() {
                    connection.raise(Flag::Ready);
                }
                if std::mem::take(&mut self.accepting) {
                    endpoint.end_accepting();
                }
                self.tell(event);
            }
            SessionEvent::RemoteReset => {
                self.injector.discard();
                self.tell(event);
            }
            SessionEvent::Reset(_) => {
                self.injector.discard();
                // Nobody finds it by its addresses while the reader is on its way to tell.
                endpoint.registry.unlist(connection);
                self.tell(event);
            }
            other => self.tell(other),
        }
    }

    fn tell(&mut self, event: SessionEvent) {
        self.news.push_back(event);
        self.rouses_reader = true;
    }

    /// When something is to be done at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let session = match &self.seat {
            Seat::Here(session) => session.poll_timeout(),
            Seat::Lent | Seat::Gone => None,
        };
        session.into_iter().chain(self.injector.poll_timeout()).min()
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Tells whomever it concerns what time it is.
    pub(super) fn pass_time(&mut self, now: Instant) {
        self.rouses_reader |= self.injector.ends_pause(now);
        self.release_late(Some(now));
        if let Some(session) = self.session()
            && session.poll_timeout().is_some_and(|deadline| deadline <= now)
        {
            session.handle_timeout(now);
        }
    }

    /// Lets go of the messages that were held back until `now`, or of all of them.
    fn release_late(&mut self, now: Option<Instant>) {
        while let Some(message) = self.injector.take_late(now) {
            self.tell(SessionEvent::Message(message));
        }
    }
}

pub(super) fn log_fault(connection: &Connection, outcome: Result<(), ProtocolError>) {
    let Err(error) = outcome else {
        return;
    };
    if let Some(endpoint) = connection.endpoint() {
        endpoint.options.die_on.judge_fault(connection, &error);
    }
    tracing::debug!(%connection, %error, "peer broke the protocol");
}
