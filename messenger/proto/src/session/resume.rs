//! An old session on a new transport (msgr2: session reconnect), from both sides.
//!
//! ```text
//!   dialler   SESSION_RECONNECT -->   RECONNECT_OK: go on;  RETRY, RETRY_GLOBAL: ask again;
//!                                     RESET: start over;    WAIT: the other side's dial wins
//!   acceptor  the shell looks the old session up, asks `Decision::about` it, and answers: a verdict
//!             for this transport, or the old session adopts it
//! ```

use std::sync::Arc;
use std::time::Instant;

use crate::addr::AddrType;
use crate::entity::EntityName;
use crate::error::ProtocolError;
use crate::session::transport::{Phase, Side};
use crate::session::{
    CloseReason, Fault, IdentRequest, PeerIdent, Session, SessionEvent, State, Step, Verdict,
};
use crate::v2::control::{
    SessionReconnect, SessionReconnectOk, SessionReset, SessionRetry, SessionRetryGlobal, Wait,
};

/// RETRY answers on one transport before a race is assumed; without one there is one at most.
const RETRIES_MAX: u32 = 3;

impl Session {
    pub(super) fn send_reconnect(&mut self) {
        if !self.passes(Step::Reconnect) {
            return;
        }
        let request = SessionReconnect {
            addrs: self.own_addrs(),
            client_cookie: self.numbers.client_cookie,
            server_cookie: self.numbers.server_cookie,
            global_seq: self.numbers.global_seq,
            connect_seq: self.numbers.connect_seq,
            msg_seq: self.numbers.in_seq,
        };
        let Some(transport) = self.transport() else {
            return;
        };
        transport.send(&request);
        transport.phase = Phase::Resuming;
    }

    pub(super) fn on_reconnect_ok(&mut self, now: Instant, ok: SessionReconnectOk) {
        self.drop_received(ok.0);
        self.enter_ready(now, true);
    }

    /// Both sides may dial at once, and each raise its number above the other's for ever. As in
    /// any race the dial of the lower-addressed side wins, so the other one soon stands back.
    pub(super) fn retry(&mut self, now: Instant, connect_seq: u64) {
        self.numbers.connect_seq = connect_seq;
        let kind = self.target.map_or(AddrType::Msgr2, |target| target.kind);
        let ours_loses = self.own_addrs().of(kind) > self.peer.addrs.of(kind);
        let Some(transport) = self.transport() else {
            return;
        };
        transport.retries += 1;
        if transport.retries > RETRIES_MAX && ours_loses {
            self.fault(now, Fault::Wait);
        } else {
            self.ask_to_resume();
        }
    }

    pub(super) fn on_retry_global(&mut self, retry: SessionRetryGlobal) {
        self.numbers.global_seq = self.identity.global_seq.next_above(retry.0);
        self.ask_to_resume();
    }

    /// The server lost the session (contract L-9). If our queue dies with it the user is told.
    pub(super) fn on_session_reset(&mut self, reset: SessionReset) {
        self.numbers.server_cookie = 0;
        self.numbers.connect_seq = 0;
        self.numbers.in_seq = 0;
        if reset.full {
            self.numbers.client_cookie = 0;
            self.numbers.out_seq = 0;
            self.lose_queue();
        }
        match self.speaks_v1() {
            true => self.send_connect(),
            false => self.send_client_ident(),
        }
    }

    fn ask_to_resume(&mut self) {
        match self.speaks_v1() {
            true => self.send_connect(),
            false => self.send_reconnect(),
        }
    }

    pub(super) fn on_session_reconnect(
        &mut self,
        request: SessionReconnect,
    ) -> Result<(), ProtocolError> {
        self.check_client_addrs(&request.addrs)?;
        self.ask_for_verdict(PeerIdent {
            auth: self.peer.auth.clone(),
            name: self.peer_name(EntityName::UNNUMBERED),
            addrs: request.addrs,
            from: self.peer_socket(),
            global_seq: request.global_seq,
            client_cookie: request.client_cookie,
            request: IdentRequest::Reconnect {
                server_cookie: request.server_cookie,
                connect_seq: request.connect_seq,
                msg_seq: request.msg_seq,
            },
        });
        Ok(())
    }

    /// Carries out the shell's answer to an ident.
    pub(super) fn judge(&mut self, now: Instant, verdict: Verdict) -> Result<(), ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        if !matches!(transport.phase, Phase::Judging(_)) {
            return Ok(());
        }
        // All answers but acceptance leave the peer another try on this transport.
        let judged = std::mem::replace(&mut transport.phase, Phase::Accepting);
        let Phase::Judging(ident) = judged else {
            return Ok(());
        };
        if matches!(verdict, Verdict::Retry { .. }) && !self.passes(Step::SessionRetry) {
            return Ok(());
        }
        let Some(transport) = self.transport() else {
            return Ok(());
        };
        match (ident.request, verdict) {
            (IdentRequest::Connect { connect_seq, .. }, _) => {
                return self.judge_connect(now, &ident, connect_seq, verdict);
            }
            (IdentRequest::New { features, .. }, Verdict::Accept) => {
                self.found(now, *ident, features);
            }
            (_, Verdict::Wait) => transport.send(&Wait),
            (IdentRequest::Reconnect { .. }, Verdict::Reset { full }) => {
                transport.send(&SessionReset { full });
            }
            (IdentRequest::Reconnect { .. }, Verdict::Retry { connect_seq }) => {
                transport.send(&SessionRetry(connect_seq));
            }
            (IdentRequest::Reconnect { .. }, Verdict::RetryGlobal { global_seq }) => {
                transport.send(&SessionRetryGlobal(global_seq));
            }
            // A session that is not here cannot go on here.
            (IdentRequest::Reconnect { .. }, Verdict::Accept) => {
                transport.send(&SessionReset { full: true });
            }
            (_, Verdict::Refuse) | (IdentRequest::New { .. }, _) => {
                self.hang_up();
                self.die(CloseReason::Refused);
            }
        }
        Ok(())
    }

    /// This session takes over the transport of `accepted`, whose ident asked for it (contract
    /// L-6). Its own transport, if any, is given up: the shell closes it first and moves the new
    /// one in its place; neither session tells it to hang up. Queues, numbers, counters and the
    /// application's handle stay this session's. Errors are as for `Session::handle_received`.
    ///
    /// # Panics
    ///
    /// If this session is closed, or `accepted` does not wait for a verdict.
    pub fn adopt(&mut self, now: Instant, mut accepted: Self) -> Result<(), ProtocolError> {
        assert!(!self.is_closed(), "a closed session adopts nothing");
        self.now = now;
        let buffers = Arc::clone(&self.rx_buffers);
        self.put_back_sent();
        if let Some(transport) = self.transport() {
            transport.return_buffer(&buffers);
        }
        // What the shell was not told of its own transport yet would be about the new one.
        self.events
            .retain(|event| !matches!(event, SessionEvent::Dial { .. } | SessionEvent::Hangup));
        self.state = std::mem::replace(&mut accepted.state, State::Closed);
        self.own_ip = accepted.own_ip;
        self.peer.socket = accepted.peer.socket;
        self.peer.global_id = accepted.peer.global_id;
        self.peer.auth = accepted.peer.auth.take();
        self.stats.bytes_sent += accepted.stats.bytes_sent;
        self.stats.bytes_received += accepted.stats.bytes_received;
        self.stats.sealed_bytes_sent += accepted.stats.sealed_bytes_sent;
        self.stats.sealed_bytes_received += accepted.stats.sealed_bytes_received;
        self.progress = accepted.progress;
        self.arrived = accepted.arrived;

        let transport = self.transport().expect("an accepted session has a transport");
        let Phase::Judging(ident) = std::mem::replace(&mut transport.phase, Phase::Accepting)
        else {
            panic!("an adopted session waits for a verdict");
        };
        match ident.request {
            IdentRequest::Connect { connect_seq, .. } => {
                let adopted = self.adopt_connect(now, &ident, connect_seq);
                return self.advance_behind(now, adopted);
            }
            IdentRequest::New { features, .. } => {
                let known = self.numbers.client_cookie != 0 && self.numbers.server_cookie != 0;
                let restarted = known && self.numbers.client_cookie != ident.client_cookie;
                if restarted && self.policy.resetcheck {
                    self.lose_queue();
                }
                self.found(now, *ident, features);
            }
            IdentRequest::Reconnect { connect_seq, msg_seq, .. } => {
                self.numbers.connect_seq = connect_seq;
                self.numbers.peer_global_seq = ident.global_seq;
                self.drop_received(msg_seq);
                if self.passes(Step::ReconnectOk) {
                    let ok = SessionReconnectOk(self.numbers.in_seq);
                    if let Some(transport) = self.transport() {
                        transport.send(&ok);
                    }
                    self.enter_ready(now, true);
                }
            }
        }
        self.advance(now)
    }

    /// The peer knows nothing of the session any more: what was queued in it is gone, and the user is
    /// told (contract D-10).
    pub(super) fn lose_queue(&mut self) {
        self.queue.clear();
        self.events.push_back(SessionEvent::RemoteReset);
    }

    /// Unacknowledged messages are to be written again, under the numbers they had (S-9).
    pub(super) fn put_back_sent(&mut self) {
        self.numbers.out_seq -= self.queue.put_back();
    }

    /// The peer has what was put back up to `seq` (S-10).
    pub(super) fn drop_received(&mut self, seq: u64) {
        let dropped = self.queue.drop_received(seq);
        self.numbers.out_seq += dropped;
        self.stats.messages_acked += dropped;
    }

    /// Whether the current attempt at a transport is this side's own.
    pub(super) fn is_dialling(&self) -> bool {
        match &self.state {
            State::Dialling { .. } | State::Backoff { .. } => true,
            State::Open { transport, .. } => {
                transport.side == Side::Dialler && !transport.is_ready()
            }
            State::Standby | State::Closed => false,
        }
    }
}
