//! What a worker counts of its sessions and of its own loop: plain numbers that it owns.
//!
//! Times come from clock reads at the borders of a turn's phases, at most four in a turn and two in
//! an idle one, and from two around each batch of messages that a dispatcher takes on the worker: a
//! batch is what one read from a socket brought. No message has a clock read of its own.

use super::NamedCounters;
use messenger_proto::SessionStats;
use messenger_proto::auth::RefusalKind;
use std::time::Duration;

/// One worker's messenger counters (semantics 1.14); the names of [`Counters::named`] are Ceph's
/// where the meaning is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) created_connections: u64,
    pub(crate) active_connections: u64,
    pub(crate) fast_dispatched: u64,
    pub(crate) queued: u64,
    /// Taken from a sender, then dropped because the session had ended.
    pub(crate) send_dropped: u64,
    pub(crate) accept_failures: u64,
    pub(crate) accept_refused: u64,
    pub(crate) accept_refused_bytes: u64,
    pub(crate) dial_failures: u64,
    pub(crate) turns: u64,
    /// Turns in which no socket, timer, command or poller had anything.
    pub(crate) idle_turns: u64,
    pub(crate) commands: u64,
    /// In the driver: asleep, or, for one that polls, receiving and in its TCP.
    pub(crate) wait_time: Duration,
    /// Everything else.
    pub(crate) running_time: Duration,
    /// Of this, reading and decoding.
    pub(crate) recv_time: Duration,
    /// Of this, encoding and writing.
    pub(crate) send_time: Duration,
    /// Of this, in callbacks that take messages on the worker.
    pub(crate) fast_dispatch_time: Duration,
    /// Sums over all sessions, ended ones included.
    pub(crate) sessions: SessionStats,
}

impl Counters {
    /// Adds what a session counted since `before`.
    pub(crate) fn add_session(&mut self, before: &SessionStats, now: &SessionStats) {
        let sum = &mut self.sessions;
        sum.messages_sent += now.messages_sent - before.messages_sent;
        sum.send_waits += now.send_waits - before.send_waits;
        sum.send_time += now.send_time - before.send_time;
        sum.ack_waits += now.ack_waits - before.ack_waits;
        sum.ack_time += now.ack_time - before.ack_time;
        sum.messages_received += now.messages_received - before.messages_received;
        sum.bytes_sent += now.bytes_sent - before.bytes_sent;
        sum.bytes_received += now.bytes_received - before.bytes_received;
        sum.sealed_bytes_sent += now.sealed_bytes_sent - before.sealed_bytes_sent;
        sum.sealed_bytes_received += now.sealed_bytes_received - before.sealed_bytes_received;
        sum.acks_sent += now.acks_sent - before.acks_sent;
        sum.messages_acked += now.messages_acked - before.messages_acked;
        sum.duplicates += now.duplicates - before.duplicates;
        sum.skipped += now.skipped - before.skipped;
        sum.aborted_frames += now.aborted_frames - before.aborted_frames;
        sum.throttle_waits += now.throttle_waits - before.throttle_waits;
        sum.protocol_errors += now.protocol_errors - before.protocol_errors;
        sum.auth_refused.add_since(&before.auth_refused, &now.auth_refused);
        sum.auth_denied += now.auth_denied - before.auth_denied;
        sum.faults += now.faults - before.faults;
        sum.ready_timeouts += now.ready_timeouts - before.ready_timeouts;
        sum.idle_timeouts += now.idle_timeouts - before.idle_timeouts;
        sum.dials += now.dials - before.dials;
    }

    /// Name and value, in a fixed order.
    pub(crate) fn named(&self) -> NamedCounters {
        let sessions = &self.sessions;
        let refused = |kind| sessions.auth_refused.get(kind);
        vec![
            ("msgr_recv_messages", sessions.messages_received),
            ("msgr_send_messages", sessions.messages_sent),
            ("msgr_recv_bytes", sessions.bytes_received),
            ("msgr_send_bytes", sessions.bytes_sent),
            ("msgr_recv_encrypted_bytes", sessions.sealed_bytes_received),
            ("msgr_send_encrypted_bytes", sessions.sealed_bytes_sent),
            ("msgr_created_connections", self.created_connections),
            ("msgr_active_connections", self.active_connections),
            ("msgr_running_total_time_us", us(self.running_time)),
            ("msgr_running_send_time_us", us(self.send_time)),
            ("msgr_running_recv_time_us", us(self.recv_time)),
            ("msgr_running_fast_dispatch_time_us", us(self.fast_dispatch_time)),
            ("msgr_send_messages_queue_lat_count", sessions.send_waits),
            ("msgr_send_messages_queue_lat_sum_us", us(sessions.send_time)),
            ("msgr_ack_lat_count", sessions.ack_waits),
            ("msgr_ack_lat_sum_us", us(sessions.ack_time)),
            ("msgr_fast_dispatched_messages", self.fast_dispatched),
            ("msgr_queued_messages", self.queued),
            ("msgr_send_dropped_messages", self.send_dropped),
            ("msgr_acks_sent", sessions.acks_sent),
            ("msgr_acked_messages", sessions.messages_acked),
            ("msgr_duplicate_messages", sessions.duplicates),
            ("msgr_skipped_messages", sessions.skipped),
            ("msgr_aborted_frames", sessions.aborted_frames),
            ("msgr_throttle_waits", sessions.throttle_waits),
            ("msgr_protocol_errors", sessions.protocol_errors),
            ("msgr_auth_refused_method", refused(RefusalKind::Method)),
            ("msgr_auth_refused_mode", refused(RefusalKind::Mode)),
            ("msgr_auth_refused_malformed", refused(RefusalKind::Malformed)),
            ("msgr_auth_refused_unknown_entity", refused(RefusalKind::UnknownEntity)),
            ("msgr_auth_refused_wrong_key", refused(RefusalKind::WrongKey)),
            ("msgr_auth_refused_ticket", refused(RefusalKind::Ticket)),
            ("msgr_auth_refused_expired", refused(RefusalKind::Expired)),
            ("msgr_auth_refused_replayed", refused(RefusalKind::Replayed)),
            ("msgr_auth_refused_claim", refused(RefusalKind::Claim)),
            ("msgr_auth_refused_unequipped", refused(RefusalKind::Unequipped)),
            ("msgr_auth_denied", sessions.auth_denied),
            ("msgr_faults", sessions.faults),
            ("msgr_dials", sessions.dials),
            ("msgr_dial_failures", self.dial_failures),
            ("msgr_accept_failures", self.accept_failures),
            ("msgr_accept_refused", self.accept_refused),
            ("msgr_accept_refused_bytes", self.accept_refused_bytes),
            ("connection_ready_timeouts", sessions.ready_timeouts),
            ("connection_idle_timeouts", sessions.idle_timeouts),
            ("worker_turns", self.turns),
            ("worker_idle_turns", self.idle_turns),
            ("worker_wait_time_us", us(self.wait_time)),
            ("worker_commands", self.commands),
        ]
    }
}

/// A snapshot of one worker's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCounters {
    /// The worker's number, from 0.
    pub worker: usize,
    /// The messenger's counters, `msgr_*`, `connection_*` and `worker_*`: sums over all messengers
    /// that share the worker.
    pub messenger: NamedCounters,
    /// The transport's counters, see `netstack::stack::Worker::counters`.
    pub transport: NamedCounters,
}

impl WorkerCounters {
    /// The value of the counter with this name; 0 if there is none.
    pub fn get(&self, name: &str) -> u64 {
        let mut all = self.messenger.iter().chain(&self.transport);
        all.find(|(other, _)| *other == name).map_or(0, |(_, value)| *value)
    }

    /// The share of turns in which there was nothing to do, from 0 to 1: how much room a worker
    /// that polls has left. A worker that sleeps has few idle turns, busy or not.
    pub fn idle_ratio(&self) -> f64 {
        let turns = self.get("worker_turns").max(1);
        // Beyond 2^52 turns digits would be lost, which changes no ratio that anybody could see.
        self.get("worker_idle_turns") as f64 / turns as f64
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
