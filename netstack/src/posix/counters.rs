//! What a worker counts.

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections somebody owns.
    pub(super) connections: u64,
    /// Closed connections that wait for the peer's end.
    pub(super) lingering: u64,
    pub(super) accepted: u64,
    pub(super) started: u64,
    pub(super) failed: u64,
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) waits: u64,
    pub(super) events: u64,
    pub(super) events_stale: u64,
    pub(super) accept_calls: u64,
    pub(super) recv_calls: u64,
    pub(super) send_calls: u64,
    pub(super) uncork_calls: u64,
}

impl Counters {
    /// Names and values; the names ending in `_calls` count system calls.
    pub(super) fn snapshot(&self, listeners: usize) -> Vec<(&'static str, u64)> {
        vec![
            ("connections_in_use", self.connections),
            ("connections_lingering_in_use", self.lingering),
            ("listeners_in_use", listeners as u64),
            ("connections_accepted", self.accepted),
            ("connections_started", self.started),
            ("connections_failed", self.failed),
            ("received_bytes", self.bytes_received),
            ("sent_bytes", self.bytes_sent),
            ("events", self.events),
            ("events_stale", self.events_stale),
            ("wait_calls", self.waits),
            ("accept_calls", self.accept_calls),
            ("recv_calls", self.recv_calls),
            ("send_calls", self.send_calls),
            ("uncork_calls", self.uncork_calls),
        ]
    }
}
