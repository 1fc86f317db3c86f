//! A peer comes back on a new TCP connection: its old session decides, and may take the new
//! transport over (contracts L-4 to L-7).
//!
//! ```text
//!   newcomer's reader                              lock held
//!     lend:  take session and stream out           the newcomer's
//!     show:  Decision::about, or adopt at once     the old session's
//!     take back and resolve, unless adopted        the newcomer's
//! ```
//!
//! A session is a value, so it is carried from one lock to the other and both are never held.

use super::link::Link;
use super::pipe::{Seat, State};
use super::reader::Reader;
use super::settling::log_fault;
use crate::connection::{Connection, Flag};
use crate::registry::RegistryClosed;
use messenger_proto::{Decision, PeerIdent, Session, Verdict};
use std::net::TcpStream;
use std::sync::Arc;

/// Most old sessions a newcomer is shown to: each but the last has ended in the meantime.
const INTRODUCTIONS_MAX: usize = 16;

/// What a newcomer leaves to the session that adopts it.
struct Newcomer {
    session: Session,
    stream: Arc<TcpStream>,
}

/// What an old session says to a newcomer that it has not adopted.
enum Answer {
    Verdict(Verdict),
    /// It has to make room first.
    Replace,
    /// It has ended.
    Gone,
}

impl Reader {
    /// The peer introduced itself: it is accepted, or the session that has its addresses decides.
    pub(super) fn introduce(&self, ident: &PeerIdent) {
        let Some(unregistered) = self.meet() else {
            return; // it ended meanwhile
        };
        if !self.admitted.replace(true) && !self.endpoint.dispatchers.admit(&self.connection) {
            return self.resolve(Verdict::Refuse);
        }
        if unregistered {
            // Without a session here this refuses a reconnect, as it should.
            return self.resolve(Verdict::Accept);
        }
        for _ in 0..INTRODUCTIONS_MAX {
            let existing = match self.endpoint.registry.claim(&self.connection, ident) {
                Ok(None) => return self.resolve(Verdict::Accept),
                Ok(Some(existing)) => existing,
                Err(RegistryClosed) => break,
            };
            let Some(newcomer) = self.lend() else {
                return;
            };
            let (newcomer, answer) = match self.show(&existing, ident, newcomer) {
                Ok(()) => return self.pipe.lock().seat = Seat::Gone,
                Err(back) => back,
            };
            self.take_back(newcomer);
            match answer {
                Answer::Verdict(verdict) => return self.resolve(verdict),
                Answer::Replace => {
                    let newer = &self.connection;
                    tracing::debug!(older = %existing, %newer, "replaced by its peer");
                    existing.close();
                }
                Answer::Gone => {}
            }
        }
        self.resolve(Verdict::Refuse);
    }

    /// Takes note of who it is; whether its like is found under no address (contract P-5).
    fn meet(&self) -> Option<bool> {
        let mut state = self.pipe.lock();
        let session = state.session()?;
        self.connection.set_facts(session.peer());
        let policy = session.policy();
        Some(policy.lossy && policy.server && !policy.register_lossy_clients)
    }

    fn resolve(&self, verdict: Verdict) {
        self.pipe.change(&self.connection, |state, now| {
            if let Seat::Here(session) = &mut state.seat {
                log_fault(&self.connection, session.resolve(now, verdict));
                // Others find it by its addresses from now, though over msgr1 it is not ready yet.
                self.connection.set_facts(session.peer());
            }
        });
    }

    /// Takes session and stream out, as soon as the writer has no bytes of them in its hands.
    fn lend(&self) -> Option<Newcomer> {
        loop {
            let mut state = self.pipe.lock();
            if !state.writing {
                return state.lend();
            }
            state.awaited = true;
            drop(state);
            self.pipe.reader.sleep(None);
        }
    }

    fn take_back(&self, newcomer: Newcomer) {
        let Newcomer { mut session, stream } = newcomer;
        self.pipe.change(&self.connection, |state, _| {
            // What was asked meanwhile found no session.
            if self.connection.has(Flag::Down) {
                session.mark_down();
            } else if self.connection.has(Flag::Closing) {
                session.close();
            }
            state.seat = Seat::Here(session);
            state.link = Link::Open(stream);
        });
    }

    /// The session behind `existing` decides about a newcomer, and adopts it if that is what it
    /// decides. The newcomer comes back otherwise.
    fn show(
        &self,
        existing: &Connection,
        ident: &PeerIdent,
        newcomer: Newcomer,
    ) -> Result<(), (Newcomer, Answer)> {
        let Some(pipe) = existing.pipe() else {
            return Err((newcomer, Answer::Gone));
        };
        pipe.change(existing, |state, now| {
            let session = match &mut state.seat {
                Seat::Here(session) if !session.is_closed() && !existing.is_down() => session,
                _ => return Err((newcomer, Answer::Gone)),
            };
            match Decision::about(ident, Some(session)) {
                Decision::Answer(verdict) => Err((newcomer, Answer::Verdict(verdict))),
                Decision::WaitForOurs => {
                    session.send_keepalive(now);
                    Err((newcomer, Answer::Verdict(Verdict::Wait)))
                }
                Decision::Replace => Err((newcomer, Answer::Replace)),
                Decision::Adopt => {
                    state.accounts.take_over(&newcomer.session.stats());
                    log_fault(existing, session.adopt(now, newcomer.session));
                    state.link.hang_up();
                    state.link = Link::Open(newcomer.stream);
                    state.injector.pause(now);
                    state.rouses_reader = true;
                    Ok(())
                }
            }
        })
    }
}

impl State {
    /// What was read is in the session: it had room for all of it before its peer was known.
    fn lend(&mut self) -> Option<Newcomer> {
        let Link::Open(stream) = &self.link else {
            return None;
        };
        let stream = Arc::clone(stream);
        match std::mem::replace(&mut self.seat, Seat::Lent) {
            Seat::Here(session) => {
                self.link = Link::Down;
                Some(Newcomer { session, stream })
            }
            gone => {
                self.seat = gone;
                None
            }
        }
    }
}
