//! What a session's shell keeps in step with it: the handle's outgoing room, the counters, and the
//! facts a handle shows.

use crate::connection::Connection;
use crate::endpoint::DieOn;
use crate::metrics::Counters;
use messenger_proto::{Session, SessionStats};
use std::time::{Duration, Instant};

/// As of the last look at the session.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Messages and bytes that went into the session and have not left it.
    queued: (usize, usize),
    stats: SessionStats,
    /// The facts that change while a session stands.
    keepalives: (Option<Instant>, Option<Duration>),
}

impl Accounts {
    /// A message with so many bytes of payload went in.
    pub(crate) fn enter(&mut self, len: usize) {
        self.queued.0 += 1;
        self.queued.1 += len;
    }

    /// The session takes over a newcomer's transport. What was counted of the newcomer is in the
    /// counters already.
    pub(crate) fn take_over(&mut self, newcomer: &SessionStats) {
        self.stats.bytes_sent += newcomer.bytes_sent;
        self.stats.bytes_received += newcomer.bytes_received;
        self.stats.sealed_bytes_sent += newcomer.sealed_bytes_sent;
        self.stats.sealed_bytes_received += newcomer.sealed_bytes_received;
    }

    /// Brings the handle and the counters up to date.
    pub(crate) fn settle(
        &mut self,
        session: &Session,
        connection: &Connection,
        die_on: DieOn,
        counters: &mut Counters,
    ) {
        let (bytes, messages) = session.queued();
        let left = (self.queued.0.saturating_sub(messages), self.queued.1.saturating_sub(bytes));
        if left != (0, 0) {
            connection.release(left.0, left.1);
            self.queued = (messages, bytes);
        }
        let (before, stats) = (self.stats, session.stats());
        die_on.judge_received(connection, &before, &stats);
        counters.add_session(&before, &stats);
        self.stats = stats;
        let facts = session.peer();
        let keepalives = (facts.last_keepalive, facts.last_keepalive_ack);
        if keepalives != self.keepalives {
            self.keepalives = keepalives;
            connection.set_facts(facts);
        }
    }

    /// The session is gone: the handle gets the rest of its room back.
    pub(crate) fn close(&mut self, connection: &Connection) {
        let (messages, bytes) = std::mem::take(&mut self.queued);
        connection.release(messages, bytes);
    }
}
