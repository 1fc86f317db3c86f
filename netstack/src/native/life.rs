//! How connections come, change and go.
//!
//! ```text
//!   SYN --on_syn--> half open --on_handshake--> waiting        connect --add_conn--> opening
//!                        \                       /                            |
//!                         `----- remove        accept               on_opened |  fail
//!                                                `----------> open <----------'
//!                     detach: segments no longer lead to it    |
//!                     begin_time_wait: a record does instead   `-> remove
//! ```

use smoltcp::socket::tcp::{Socket, State};

use super::{LAST_WORD_TICKS, NativeWorker, Segment};
use crate::clock::Moment;
use crate::conn::{Fault, Phase};
use crate::device::PacketDevice;
use crate::flow::{FlowKey, Target};
use crate::front::{IcmpError, IcmpErrorKind, TcpFlags};
use crate::listen::Listener;
use crate::stack::Readiness;
use crate::steer::{Claim, Parcel};
use crate::wheel::NEVER;

impl<D: PacketDevice> NativeWorker<D> {
    /// A segment of no flow of ours.
    pub(super) fn on_stranger(&mut self, at: Moment, mut segment: Segment<D::Frame>) {
        let owner = self.steer.as_ref().and_then(|steer| steer.other_owner(&segment.view.key));
        if let Some(owner) = owner
            && !segment.is_handed
        {
            return self.hand_over(owner, Parcel::Segment(segment.frame, segment.view));
        }
        let flags = segment.view.flags;
        let is_syn = flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK);
        match self.listeners.find(segment.view.key.local()) {
            Some(listener) if is_syn => self.on_syn(at, listener, segment, None),
            Some(listener) if self.revive(at, listener, &mut segment) => {}
            // RFC 9293 section 3.10.7.2: dropped, not refused.
            Some(_) if !flags.intersects(TcpFlags::ACK | TcpFlags::RST) => {}
            _ => {
                self.counts.strangers_refused += 1;
                self.wire.refuse(at, segment.packet());
            }
        }
    }

    /// A SYN begins a flow anew that is in TIME-WAIT. The record knows where our numbers ended, and
    /// stays until the listener has room: a cookie would be a number anywhere.
    pub(super) fn reopen(
        &mut self,
        at: Moment,
        record: u32,
        old_end: u32,
        segment: Segment<D::Frame>,
    ) {
        let slot = self.listeners.find(segment.view.key.local());
        let listener = slot.and_then(|slot| self.listeners.get(slot));
        if listener.is_some_and(|listener| !listener.has_room()) {
            self.counts.syn_backlog_drops += 1;
            return;
        }
        self.counts.time_wait_reused += 1;
        self.end_time_wait(record);
        match slot {
            Some(listener) => self.on_syn(at, listener, segment, Some(old_end)),
            None => self.on_stranger(at, segment),
        }
    }

    /// A peer wants to connect. Without room it is not answered, so that it tries again. `old_end`
    /// is where our numbers in a connection just before ended.
    fn on_syn(
        &mut self,
        at: Moment,
        listener: u32,
        mut segment: Segment<D::Frame>,
        old_end: Option<u32>,
    ) {
        let key = segment.view.key;
        if !self.listeners.get(listener).is_some_and(Listener::has_room) {
            return self.on_syn_without_room(at, listener, &segment);
        }
        let Some(slot) = self.add_half_open(at, listener, &key) else {
            return;
        };
        if !self.recover(at, slot, &mut segment) {
            return self.remove(slot);
        }
        self.wire.set_next_isn(match old_end {
            Some(end) => self.secret.sequence_number_beyond(&key, at.micros, end),
            None => self.secret.sequence_number(&key, at.micros),
        });
        let (sockets, last, _) = self.conns.at(slot).parts();
        self.wire.ingress(at, sockets, last, segment.packet());
        if self.conns.at(slot).socket().state() == State::SynReceived {
            self.touch(slot);
        } else {
            self.remove(slot);
        }
    }

    /// Adds a connection for a listener, with a socket that waits for the SYN; `None`: there can be
    /// no more.
    pub(super) fn add_half_open(
        &mut self,
        at: Moment,
        listener: u32,
        key: &FlowKey,
    ) -> Option<u32> {
        if self.conns.is_full() || !self.claim(key) {
            self.counts.syn_limit_drops += 1;
            return None;
        }
        let mut socket = self.sockets.socket();
        socket.listen(key.local()).expect("a new socket can listen on any port but 0");
        let slot = self.add_conn(*key, Phase::HalfOpen, socket, at.tick + self.limits.half_open);
        self.conns.at(slot).listener = listener as u16;
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.half_open += 1;
        }
        Some(slot)
    }

    /// The socket's state has changed.
    pub(super) fn on_state(&mut self, slot: u32, was: State, fault: Fault) {
        let conn = self.conns.at(slot);
        match (conn.phase, conn.socket().state()) {
            (Phase::HalfOpen | Phase::Opening, State::SynReceived) => {}
            (Phase::HalfOpen, State::Established | State::CloseWait) => self.on_handshake(slot),
            (Phase::HalfOpen, _) => self.remove(slot),
            (Phase::Opening, State::Closed) => match fault {
                Fault::Reset => self.fail(slot, Fault::Refused),
                fault => self.fail(slot, fault),
            },
            (Phase::Opening, _) => self.on_opened(slot),
            // Both sides had closed and this was the last acknowledgement.
            (Phase::Open | Phase::Waiting, State::Closed) if was == State::LastAck => {
                self.detach(slot);
            }
            (Phase::Open | Phase::Waiting, State::Closed) => self.fail(slot, fault),
            (Phase::Open | Phase::Waiting, _) if conn.has_peer_closed() => {
                self.tell(slot, Readiness::READABLE);
            }
            (Phase::Open | Phase::Waiting | Phase::Orphan, _) => {}
        }
    }

    /// The peer has completed the handshake it began.
    fn on_handshake(&mut self, slot: u32) {
        let conn = self.conns.at(slot);
        conn.phase = Phase::Waiting;
        conn.deadline = NEVER;
        if let Some(listener) = self.listeners.get_mut(conn.listener.into()) {
            listener.completed(slot);
            if !std::mem::replace(&mut listener.has_news, true) {
                self.news.push(listener.id);
            }
        }
    }

    /// The peer has answered the handshake we began.
    fn on_opened(&mut self, slot: u32) {
        self.opening.remove(&slot);
        self.counts.connections_opened += 1;
        let conn = self.conns.at(slot);
        conn.phase = Phase::Open;
        conn.deadline = NEVER;
        conn.wants_room = false;
        if conn.shut {
            conn.socket_mut().close();
        }
        self.tell(slot, Readiness::WRITABLE);
        if self.conns.at(slot).has_peer_closed() {
            self.tell(slot, Readiness::READABLE);
        }
    }

    /// The connection has ended, and the application has still to be told.
    pub(super) fn fail(&mut self, slot: u32, fault: Fault) {
        match fault {
            Fault::Refused => self.counts.connections_refused += 1,
            Fault::Reset => self.counts.connections_reset += 1,
            Fault::TimedOut => self.counts.connections_timed_out += 1,
            Fault::Unreachable => self.counts.connections_unreachable += 1,
        }
        self.opening.remove(&slot);
        self.cancel_timers(slot);
        let conn = self.conns.at(slot);
        conn.fault = Some(fault);
        conn.is_readable = false;
        conn.phase = if conn.phase == Phase::Opening { Phase::Open } else { conn.phase };
        conn.armed = NEVER;
        conn.due = NEVER;
        conn.deadline = NEVER;
        self.detach(slot);
        self.tell(slot, Readiness::ALL);
    }

    /// An ICMP error ends a connection that is being opened, and only if it quotes our SYN: to
    /// open ones it may be passing trouble or a forgery (RFC 1122 4.2.3.9, RFC 5927 section 4.1).
    pub(super) fn on_icmp_error(&mut self, error: IcmpError, is_handed: bool) {
        let hash = self.flows.hash(&error.key);
        let Some(Target::Conn(slot)) = self.find(hash, &error.key) else {
            let owner = self.steer.as_ref().and_then(|steer| steer.other_owner(&error.key));
            if let Some(owner) = owner
                && !is_handed
            {
                self.hand_over(owner, Parcel::IcmpError(error));
            }
            return;
        };
        let conn = self.conns.at(slot);
        let syn = conn.last.map(|last| last.snd_nxt.wrapping_sub(1));
        if conn.phase != Phase::Opening || syn != Some(error.seq) {
            return;
        }
        match error.kind {
            IcmpErrorKind::PortUnreachable => self.fail(slot, Fault::Refused),
            IcmpErrorKind::Unreachable => self.fail(slot, Fault::Unreachable),
            // smoltcp cannot lower its MSS, and a SYN is never too big.
            IcmpErrorKind::TooBig { .. } => {}
        }
    }

    /// Adds a connection whose flow is not in the table and has been claimed.
    pub(super) fn add_conn(
        &mut self,
        key: FlowKey,
        phase: Phase,
        socket: Socket<'static>,
        end: u64,
    ) -> u32 {
        let slot = self.conns.add(key, phase, socket, self.sockets.recovery);
        self.limit(slot, end);
        self.flows.insert(self.flows.hash(&key), Target::Conn(slot));
        slot
    }

    /// Segments of the flow no longer lead to the connection.
    fn detach(&mut self, slot: u32) {
        let conn = self.conns.at(slot);
        if !std::mem::replace(&mut conn.detached, true) {
            let key = conn.key;
            self.flows.remove(self.flows.hash(&key), Target::Conn(slot));
            self.release(&key);
            self.forget_window(slot);
        }
    }

    /// Nothing will be looked at for this connection any more.
    fn cancel_timers(&mut self, slot: u32) {
        self.wheel.cancel(slot);
        self.repairs.cancel(slot);
    }

    /// Takes a connection out of everything.
    pub(super) fn remove(&mut self, slot: u32) {
        self.detach(slot);
        self.cancel_timers(slot);
        self.opening.remove(&slot);
        let conn = self.conns.remove(slot);
        if conn.phase == Phase::HalfOpen
            && let Some(listener) = self.listeners.get_mut(conn.listener.into())
        {
            listener.half_open -= 1;
        }
        self.counts.connections_closed += 1;
    }

    /// Resets an orphan. The reset is sent with the next turn.
    pub(super) fn abort(&mut self, at: Moment, slot: u32) {
        let conn = self.conns.at(slot);
        conn.socket_mut().abort();
        self.limit(slot, at.tick + LAST_WORD_TICKS);
        self.touch(slot);
    }

    /// Both sides have closed and the last acknowledgement is out: a record takes the place of
    /// the connection. What the application has not read yet it can still read.
    pub(super) fn begin_time_wait(&mut self, at: Moment, slot: u32) {
        if let Some(oldest) = self.time_wait.to_evict() {
            self.counts.time_wait_evicted += 1;
            self.end_time_wait(oldest);
        }
        let conn = self.conns.at(slot);
        let last = conn.last.expect("a connection that has ended has spoken");
        let (key, phase) = (conn.key, conn.phase);
        conn.detached = true;
        self.forget_window(slot);
        let record = self.time_wait.add(&key, last, at.tick + self.limits.time_wait);
        let hash = self.flows.hash(&key);
        self.flows.replace(hash, Target::Conn(slot), Target::TimeWait(record));
        if phase == Phase::Orphan {
            self.remove(slot);
        } else {
            self.cancel_timers(slot);
            self.conns.at(slot).armed = NEVER;
        }
    }

    pub(super) fn end_time_wait(&mut self, record: u32) {
        let key = self.time_wait.key(record);
        self.flows.remove(self.flows.hash(&key), Target::TimeWait(record));
        self.release(&key);
        self.time_wait.remove(record);
    }

    fn hand_over(&mut self, owner: usize, parcel: Parcel<D::Frame>) {
        match self.steer.as_ref().map(|steer| steer.hand_over(owner, parcel)) {
            Some(Ok(())) => self.counts.frames_handed_over += 1,
            Some(Err(_)) | None => self.counts.handover_full_drops += 1,
        }
    }

    /// Makes a flow ours, as far as siblings are concerned.
    pub(super) fn claim(&self, key: &FlowKey) -> bool {
        self.steer.as_ref().is_none_or(|steer| steer.claim(key) == Claim::Granted)
    }

    fn release(&self, key: &FlowKey) {
        if let Some(steer) = &self.steer {
            steer.release(key);
        }
    }
}
