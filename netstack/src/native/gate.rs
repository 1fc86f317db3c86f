//! What the [`guard`](crate::guard) decides and a worker carries out.

use smoltcp::socket::tcp::State;

use super::{Before, NativeWorker, Segment};
use crate::clock::Moment;
use crate::conn::{Phase, is_closed_by_peer};
use crate::device::PacketDevice;
use crate::front::{TcpFlags, TcpView};
use crate::guard::{self, COOKIE_PERIOD_TICKS, Stage, Suspect, Verdict};
use crate::listen::Listener;
use crate::recovery;

impl<D: PacketDevice> NativeWorker<D> {
    /// Whether a segment is for its connection to see that is not an ordinary one.
    #[cold]
    pub(super) fn admit(&mut self, at: Moment, slot: u32, segment: &Segment<D::Frame>) -> bool {
        let conn = self.conns.at(slot);
        let (Some(last), key) = (conn.last, conn.key) else {
            return false;
        };
        let stage = match conn.socket().state() {
            State::SynSent => Stage::Calling,
            State::SynReceived => Stage::Answering,
            State::Closed | State::Listen => Stage::Closed,
            _ => Stage::Open,
        };
        let mut known = conn.recovery.known(stage, (last.rcv_nxt, last.window));
        known.expected = known.expected.wrapping_add(last.unsaid);
        known.offered = known.offered.saturating_sub(last.unsaid);
        match guard::judge(&segment.view, &known) {
            Verdict::Pass if stage == Stage::Answering => self.has_place(slot, segment),
            Verdict::Pass => true,
            Verdict::Drop(suspect) => {
                self.suspect(suspect);
                false
            }
            Verdict::Challenge(suspect) => {
                self.suspect(suspect);
                if self.challenges.allows(at.tick, self.conns.challenges(slot)) {
                    self.counts.challenge_acks_sent += 1;
                    self.wire.acknowledge(at, &key, last);
                } else {
                    self.counts.challenge_acks_withheld += 1;
                }
                false
            }
            Verdict::Refuse => {
                self.suspect(Suspect::Ack);
                self.wire.refuse(at, segment.packet());
                false
            }
        }
    }

    /// Whether the listener of a half-open connection has a place for it once it is open. Until
    /// then its peer is not heard, and repeats what it says.
    fn has_place(&mut self, slot: u32, segment: &Segment<D::Frame>) -> bool {
        let conn = self.conns.at(slot);
        let is_reset = segment.view.flags.contains(TcpFlags::RST);
        let is_its = conn.phase == Phase::HalfOpen && !is_reset;
        let listener = self.listeners.get(conn.listener.into()).filter(|_| is_its);
        let has_place = listener.is_none_or(Listener::has_place);
        self.counts.accept_queue_drops += u64::from(!has_place);
        has_place
    }

    /// A SYN has come to a listener whose backlog is full. In a flood it is answered with a
    /// cookie; else the peer tries again.
    pub(super) fn on_syn_without_room(
        &mut self,
        at: Moment,
        listener: u32,
        segment: &Segment<D::Frame>,
    ) {
        let listener = self.listeners.get_mut(listener);
        let is_flooded =
            listener.is_some_and(|listener| listener.is_flooded(at.tick) && listener.has_place());
        let view = &segment.view;
        let offer = recovery::offer_in(segment.options(), self.wire.mss(&view.key));
        let Some(offer) = offer.filter(|_| is_flooded && !self.conns.is_full()) else {
            self.counts.syn_backlog_drops += 1;
            return;
        };
        let cookie = self.secret.cookie(&view.key, view.seq, offer, at.tick);
        self.wire.answer_syn(at, view, offer, cookie, self.sockets.rx_bytes);
        self.cookies_end = at.tick + 2 * COOKIE_PERIOD_TICKS;
        self.counts.syn_cookies_sent += 1;
    }

    /// Whether a segment to a listener brings a cookie back, and so begins a connection.
    pub(super) fn revive(
        &mut self,
        at: Moment,
        listener: u32,
        segment: &mut Segment<D::Frame>,
    ) -> bool {
        let TcpView { key, seq, ack, flags, window, .. } = segment.view;
        let special = TcpFlags::SYN | TcpFlags::RST;
        let is_ack = flags.contains(TcpFlags::ACK) && !flags.intersects(special);
        // A sibling may have sent the cookie.
        let is_time = at.tick < self.cookies_end || self.steer.is_some();
        if !is_time || !is_ack {
            return false;
        }
        let (syn, cookie) = (seq.wrapping_sub(1), ack.wrapping_sub(1));
        let Some(offer) = self.secret.offer(&key, syn, cookie, at.tick) else {
            return false;
        };
        if !self.listeners.get(listener).is_some_and(Listener::has_place) {
            self.counts.accept_queue_drops += 1;
            return true;
        }
        let Some(slot) = self.add_half_open(at, listener, &key) else {
            return true;
        };
        // The window of the SYN is not known, but that of this segment is what counts.
        let window = u32::from(window) << offer.window_shift.unwrap_or(0);
        let window = window.try_into().unwrap_or(u16::MAX);
        self.wire.set_next_isn(cookie);
        self.wire.replay_syn(at, self.conns.at(slot), (syn, window), offer);
        self.counts.syn_cookies_returned += 1;
        self.on_conn_segment(at, slot, segment);
        true
    }

    fn suspect(&mut self, suspect: Suspect) {
        match suspect {
            Suspect::Reset => self.counts.inexact_reset_drops += 1,
            Suspect::Syn => self.counts.late_syn_drops += 1,
            Suspect::Ack => self.counts.bad_ack_drops += 1,
        }
    }

    /// Notes how far a segment with content has brought the connection beyond the `expected` it
    /// last told the peer. If it was answered at once, that answer has told it.
    pub(super) fn note_arrival(
        &mut self,
        slot: u32,
        segment: &TcpView,
        expected: u32,
        before: Before,
    ) {
        let conn = self.conns.at(slot);
        let socket = conn.socket();
        let bytes = socket.recv_queue().saturating_sub(before.received) as u32;
        let is_end = segment.flags.contains(TcpFlags::FIN)
            && is_closed_by_peer(socket.state())
            && !is_closed_by_peer(before.state);
        if let Some(last) = &mut conn.last
            && last.rcv_nxt == expected
        {
            last.unsaid = last.unsaid.wrapping_add(bytes + u32::from(is_end));
        }
        if bytes == 0 && segment.payload_len > 0 {
            self.observe_unread(segment, expected);
        }
    }
}
