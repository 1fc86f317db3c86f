//! What [`Recovery`](crate::recovery::Recovery) decides and a worker carries out.
//!
//! Its times are much shorter than those of the other timers, so they have a wheel of their own
//! with finer ticks. As there, a timer that has moved to a later time is left where it is: it
//! comes too early, finds nothing due and is set again.

use super::{NativeWorker, Segment, TIMERS_PER_TICK};
use crate::clock::{Moment, fine_tick_of};
use crate::conn::Phase;
use crate::device::{Frame, PacketDevice};
use crate::recovery::{Alarm, Feed, NO_TIME, Received};
use crate::time_wait::LastAck;

impl<D: PacketDevice> NativeWorker<D> {
    /// Shows a segment to its connection's recovery, and makes of it what the socket is to see.
    /// False: the socket is not to see it.
    pub(super) fn recover(
        &mut self,
        at: Moment,
        slot: u32,
        segment: &mut Segment<D::Frame>,
    ) -> bool {
        let conn = self.conns.at(slot);
        let view = &segment.view;
        let Received { feed, is_loss, is_duplicate } =
            conn.recovery.on_segment(at.micros, view, segment.options(), said(conn.last));
        self.counts.fast_retransmits += u64::from(is_loss);
        self.counts.duplicate_acks_received += u64::from(is_duplicate);
        match feed {
            Feed::As { seq, ack, window } => {
                let tcp = &mut segment.frame.bytes_mut()[segment.view.tcp_start..];
                tcp[4..8].copy_from_slice(&seq.to_be_bytes());
                tcp[8..12].copy_from_slice(&ack.to_be_bytes());
                tcp[14..16].copy_from_slice(&window.to_be_bytes());
                true
            }
            Feed::Hide => {
                match conn.recovery.next_piece() {
                    Some(_) => self.touch(slot),
                    None => self.arm_repair(slot),
                }
                false
            }
        }
    }

    /// Sends again what a connection has lost; false: the device takes no more.
    pub(super) fn resend(&mut self, at: Moment, slot: u32) -> bool {
        let conn = self.conns.at(slot);
        let said = said(conn.last);
        if let Some(feed) = conn.recovery.on_wake(at.micros, said) {
            self.feed(at, slot, feed);
        }
        let conn = self.conns.at(slot);
        let key = conn.key;
        let (_, last, recovery) = conn.parts();
        let Some(last) = last else {
            return true;
        };
        let (sent, is_blocked) = self.wire.resend(at, &key, last, recovery);
        if sent > 0 {
            self.conns.add_resent(slot, sent);
        }
        !is_blocked
    }

    /// Gives the socket an acknowledgement that nobody sent, for the window in it.
    fn feed(&mut self, at: Moment, slot: u32, feed: Feed) {
        let Feed::As { seq, ack, window } = feed else {
            return;
        };
        let conn = self.conns.at(slot);
        let key = conn.key;
        let (sockets, last, _) = conn.parts();
        self.wire.feed_ack(at, &key, sockets, last, (seq, ack, window));
    }

    /// Has the socket take an acknowledgement that its connection's recovery has seen, should it
    /// have found something wrong with the segment. `unsent` is what it had not sent before that.
    pub(super) fn keep_in_step(&mut self, at: Moment, slot: u32, unsent: usize) {
        let conn = self.conns.at(slot);
        if conn.unsent() > unsent && conn.socket().is_active() {
            let feed = conn.recovery.again(said(conn.last));
            self.feed(at, slot, feed);
        }
    }

    /// Sees to it that the connection's losses are looked at in time.
    pub(super) fn arm_repair(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let due = conn.recovery.poll_timeout();
        if due == NO_TIME || conn.detached {
            return;
        }
        let tick = fine_tick_of(due);
        if tick < conn.recovery.armed {
            conn.recovery.armed = tick;
            self.repairs.set(slot, tick);
        }
    }

    /// What is due, looked at once a fine tick.
    pub(super) fn on_fine_tick(&mut self, at: Moment) {
        let mut due = std::mem::take(&mut self.due);
        self.repairs.expire(at.fine_tick, TIMERS_PER_TICK, &mut due);
        for slot in due.drain(..) {
            self.on_repair_time(at, slot);
        }
        self.due = due;
    }

    fn on_repair_time(&mut self, at: Moment, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        conn.recovery.armed = NO_TIME;
        if conn.detached || matches!(conn.phase, Phase::Opening | Phase::HalfOpen) {
            return;
        }
        let said = said(conn.last);
        let (alarm, feed) = conn.recovery.on_time(at.micros, said);
        match alarm {
            Alarm::Nothing => return self.arm_repair(slot),
            Alarm::Reordering => {}
            Alarm::AskWindow if conn.unsent() > 0 => {
                if let Some(last) = conn.last {
                    let key = conn.key;
                    self.wire.ask_window(at, &key, last);
                }
                return;
            }
            Alarm::AskWindow => return,
            Alarm::Probe => self.counts.tail_probes += 1,
            Alarm::Timeout => self.counts.retransmission_timeouts += 1,
        }
        if let Some(feed) = feed {
            self.feed(at, slot, feed);
        }
        self.touch(slot);
    }
}

/// What our last acknowledgement said.
fn said(last: Option<LastAck>) -> (u32, u16) {
    last.map_or((0, 0), |last| (last.rcv_nxt, last.window))
}
