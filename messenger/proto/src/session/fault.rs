//! What happens to a session whose transport is gone (contract L-10).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::addr::EntityAddr;
use crate::error::ProtocolError;
use crate::session::transport::Side;
use crate::session::{CloseReason, Fault, Session, SessionEvent, State, later};

impl Session {
    /// Gives the transport up and decides how to go on. The first row that matches wins:
    ///
    /// | state | policy | outcome |
    /// |---|---|---|
    /// | accepting, never ready | lossy, or nothing queued | closed |
    /// | ready, or told to end | lossy | closed |
    /// | nothing to send, not told to wait | standby | parked |
    /// | any | server, or peer cannot be dialled | parked, even with a queue |
    /// | ready | | dial at once |
    /// | dialling | | dial after the backoff |
    pub(super) fn fault(&mut self, now: Instant, fault: Fault) {
        let (was_ready, accepting) = match &self.state {
            State::Dialling { .. } => (false, false),
            State::Open { transport, .. } => {
                let ready = transport.is_ready();
                let known = self.established || self.promised;
                (ready, !ready && transport.side == Side::Acceptor && !known)
            }
            State::Backoff { .. } | State::Standby | State::Closed => return, // late news
        };
        self.count(&fault);
        self.last_fault = Some(fault.clone());
        self.hang_up();
        self.put_back_sent();
        self.keepalive_acks.clear();

        let told_to_wait = fault == Fault::Wait;
        let hopeless = matches!(fault, Fault::Protocol(ProtocolError::WrongPeerType { .. }));
        // Who was given a message for the peer has been promised its delivery.
        let forsaken =
            accepting && (self.policy.lossy || self.queue.is_empty() || self.peer.name.is_none());
        if forsaken || hopeless || self.disposable || (self.policy.lossy && was_ready) {
            return self.die(CloseReason::Fault(fault));
        }
        let nothing_due = self.queue.is_empty() && !self.keepalive_due && !told_to_wait;
        let park = self.policy.standby && nothing_due;
        if park || self.policy.server || self.dial_target().is_none() {
            self.state = State::Standby;
            self.events.push_back(SessionEvent::Standby);
            return;
        }
        self.count_reconnect();
        if was_ready {
            self.backoff = Duration::ZERO;
            self.start_dial(now);
        } else {
            self.back_off(now, told_to_wait);
        }
    }

    /// There is something to send: a parked session dials, unless it is the peer's turn to come
    /// (contracts P-2, P-3, L-12).
    pub(super) fn leave_standby(&mut self, now: Instant) {
        let parked = matches!(self.state, State::Standby);
        if parked && !self.policy.server && self.dial_target().is_some() {
            self.count_reconnect();
            self.start_dial(now);
        }
    }

    /// Asks for a TCP connection; every attempt has a number of its own.
    pub(super) fn start_dial(&mut self, now: Instant) {
        let Some((target, to)) = self.dial_target() else {
            return;
        };
        self.target = Some(target);
        self.peer.socket = Some(to);
        self.numbers.global_seq = self.identity.global_seq.next();
        self.stats.dials += 1;
        self.state = State::Dialling { deadline: later(now, self.identity.options.ready_timeout) };
        self.events.push_back(SessionEvent::Dial { to });
    }

    /// Gives up the transport, or the attempt at one. What it held goes back: throttle permits,
    /// places in throttles' lines, buffers.
    pub(super) fn hang_up(&mut self) {
        if let State::Open { transport, .. } = &mut self.state {
            transport.return_buffer(&self.rx_buffers);
        }
        if matches!(self.state, State::Dialling { .. } | State::Open { .. }) {
            self.state = State::Standby;
            self.events.push_back(SessionEvent::Hangup);
        }
    }

    pub(super) fn die(&mut self, reason: CloseReason) {
        self.state = State::Closed;
        self.queue.clear();
        self.events.push_back(SessionEvent::Reset(reason));
    }

    fn back_off(&mut self, now: Instant, told_to_wait: bool) {
        let options = &self.identity.options;
        self.backoff = match self.backoff {
            _ if told_to_wait => options.max_backoff,
            Duration::ZERO => options.initial_backoff,
            last => last.saturating_mul(2),
        }
        .min(options.max_backoff);
        self.state = State::Backoff { until: later(now, self.backoff) };
    }

    /// The number rises only once there was a session (contract L-11).
    fn count_reconnect(&mut self) {
        if self.numbers.server_cookie != 0 {
            self.numbers.connect_seq = self.numbers.connect_seq.saturating_add(1);
        }
    }

    /// Where to reach the peer: the address dialled, or the one it gave when it dialled us.
    fn dial_target(&self) -> Option<(EntityAddr, SocketAddr)> {
        let target = self.target.unwrap_or_else(|| self.peer.addrs.preferred());
        let to = target.socket.filter(|socket| socket.port() != 0)?;
        Some((target, to))
    }

    fn count(&mut self, fault: &Fault) {
        self.stats.faults += 1;
        match fault {
            Fault::Protocol(error) => {
                self.stats.protocol_errors += 1;
                let denied = matches!(error, ProtocolError::AuthRefused { .. });
                self.stats.auth_denied += u64::from(denied);
            }
            Fault::ReadyTimeout(_) => self.stats.ready_timeouts += 1,
            Fault::IdleTimeout(_) => self.stats.idle_timeouts += 1,
            _ => {}
        }
    }
}
