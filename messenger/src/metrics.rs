//! Counters: plain numbers that a worker owns, and snapshots of them with names.

use messenger_proto::SessionStats;

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
    pub(crate) dial_failures: u64,
    pub(crate) turns: u64,
    pub(crate) commands: u64,
    pub(crate) busy_us: u64,
    /// Sums over all sessions, ended ones included.
    pub(crate) sessions: SessionStats,
}

impl Counters {
    /// Adds what a session counted since `before`.
    pub(crate) fn add_session(&mut self, before: &SessionStats, now: &SessionStats) {
        let sum = &mut self.sessions;
        sum.messages_sent += now.messages_sent - before.messages_sent;
        sum.messages_received += now.messages_received - before.messages_received;
        sum.bytes_sent += now.bytes_sent - before.bytes_sent;
        sum.bytes_received += now.bytes_received - before.bytes_received;
        sum.acks_sent += now.acks_sent - before.acks_sent;
        sum.messages_acked += now.messages_acked - before.messages_acked;
        sum.duplicates += now.duplicates - before.duplicates;
        sum.skipped += now.skipped - before.skipped;
        sum.aborted_frames += now.aborted_frames - before.aborted_frames;
        sum.throttle_waits += now.throttle_waits - before.throttle_waits;
        sum.protocol_errors += now.protocol_errors - before.protocol_errors;
        sum.faults += now.faults - before.faults;
        sum.ready_timeouts += now.ready_timeouts - before.ready_timeouts;
        sum.idle_timeouts += now.idle_timeouts - before.idle_timeouts;
        sum.dials += now.dials - before.dials;
    }

    /// Name and value, in a fixed order.
    pub(crate) fn named(&self) -> Vec<(&'static str, u64)> {
        let sessions = &self.sessions;
        vec![
            ("msgr_recv_messages", sessions.messages_received),
            ("msgr_send_messages", sessions.messages_sent),
            ("msgr_recv_bytes", sessions.bytes_received),
            ("msgr_send_bytes", sessions.bytes_sent),
            ("msgr_created_connections", self.created_connections),
            ("msgr_active_connections", self.active_connections),
            ("msgr_running_total_time_us", self.busy_us),
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
            ("msgr_faults", sessions.faults),
            ("msgr_dials", sessions.dials),
            ("msgr_dial_failures", self.dial_failures),
            ("msgr_accept_failures", self.accept_failures),
            ("msgr_accept_refused", self.accept_refused),
            ("connection_ready_timeouts", sessions.ready_timeouts),
            ("connection_idle_timeouts", sessions.idle_timeouts),
            ("worker_turns", self.turns),
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
    pub messenger: Vec<(&'static str, u64)>,
    /// The transport's counters, see `netstack::stack::Worker::counters`.
    pub transport: Vec<(&'static str, u64)>,
}

impl WorkerCounters {
    /// The value of the counter with this name; 0 if there is none.
    pub fn get(&self, name: &str) -> u64 {
        let mut all = self.messenger.iter().chain(&self.transport);
        all.find(|(other, _)| *other == name).map_or(0, |(_, value)| *value)
    }
}

/// A snapshot of a messenger and the workers it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessengerCounters {
    /// The workers, in order; shared with other messengers of the same transport.
    pub workers: Vec<WorkerCounters>,
    /// Live connections of this messenger.
    pub connections: usize,
    /// Messages in its dispatch queue.
    pub dispatch_queue_messages: usize,
    /// Callbacks of its dispatchers that panicked.
    pub callback_panics: u64,
    /// Received bytes that were not dispatched yet, see `ms_dispatch_throttle_bytes`.
    pub dispatch_throttle_bytes: u64,
}

impl MessengerCounters {
    /// The sum of one counter over all workers.
    pub fn total(&self, name: &str) -> u64 {
        self.workers.iter().map(|worker| worker.get(name)).sum()
    }
}
