//! What can be told of a connection by looking at its segments: losses, windows, round trips.
//!
//! smoltcp says nothing about any of this. What a peer said and what we have said is enough to know
//! it, and both are in the connection's two cache lines already.

use super::NativeWorker;
use crate::clock::Moment;
use crate::device::PacketDevice;
use crate::front::{TcpFlags, TcpView};
use crate::wheel::{NEVER, TICK};

const _: () = assert!(TICK.as_millis() == 1, "closed windows are counted in milliseconds");

/// What was known before a connection sent.
pub(super) struct BeforeSending {
    snd_nxt: Option<u32>,
    /// A timer of smoltcp's has run out.
    is_due: bool,
    resent: u64,
}

impl<D: PacketDevice> NativeWorker<D> {
    /// Looks at a segment before its connection gets it.
    pub(super) fn observe(&mut self, at: Moment, slot: u32, segment: &TcpView) {
        let (conn, counts) = (self.conns.at(slot), &mut self.counts);
        let Some(last) = &mut conn.last else {
            return;
        };
        if segment.flags.contains(TcpFlags::RST) {
            return;
        }
        let is_full = segment.window == 0;
        if std::mem::replace(&mut last.is_peer_full, is_full) != is_full {
            counts.zero_windows_received += u64::from(is_full);
            counts.zero_windows_now = match is_full {
                true => counts.zero_windows_now + 1,
                false => counts.zero_windows_now - 1,
            };
        }
        if !segment.flags.contains(TcpFlags::ACK) {
            return;
        }
        let news = segment.ack.wrapping_sub(conn.snd_una) as i32;
        let outstanding = last.snd_nxt.wrapping_sub(segment.ack) as i32;
        let is_pure = segment.payload_len == 0
            && !segment.flags.intersects(TcpFlags::SYN | TcpFlags::FIN)
            && segment.window == conn.peer_window;
        if news > 0 && outstanding >= 0 {
            conn.snd_una = segment.ack;
            conn.round_trip.acked(at.micros, segment.ack);
        } else if news == 0 && outstanding > 0 && is_pure {
            // RFC 5681 section 2, the definition of a duplicate.
            counts.duplicate_acks_received += 1;
        }
        conn.peer_window = segment.window;
    }

    /// Looks at a segment that had data and has made nothing readable. `expected` is what we had
    /// last told the peer to expect.
    pub(super) fn observe_unread(&mut self, segment: &TcpView, expected: u32) {
        let ahead = segment.seq.wrapping_sub(expected) as i32;
        if ahead > 0 {
            self.counts.out_of_order_segments += 1;
            self.counts.out_of_order_bytes += segment.payload_len as u64;
        } else if ahead.saturating_add(segment.payload_len as i32) <= 0 {
            self.counts.repeated_segments_received += 1;
        }
    }

    /// To be called before a connection sends; the result is for [`Self::observe_sent`].
    pub(super) fn before_sending(&mut self, at: Moment, slot: u32) -> BeforeSending {
        let conn = self.conns.at(slot);
        BeforeSending {
            snd_nxt: conn.last.map(|last| last.snd_nxt),
            is_due: conn.due <= at.tick,
            resent: self.wire.segments_resent(),
        }
    }

    /// Looks at what a connection has sent.
    pub(super) fn observe_sent(&mut self, at: Moment, slot: u32, before: &BeforeSending) {
        let resent = self.wire.segments_resent() - before.resent;
        let (conn, counts) = (self.conns.at(slot), &mut self.counts);
        let Some(last) = conn.last else {
            return;
        };
        match before.snd_nxt {
            // The SYN.
            None => conn.snd_una = last.snd_nxt.wrapping_sub(1),
            // A byte the peer has already, to make it speak.
            Some(snd_nxt) if resent > 0 && snd_nxt == conn.snd_una => {
                counts.keepalives_sent += resent;
                return;
            }
            Some(_) if resent > 0 => {
                // smoltcp repeats for two reasons: its timer, or the third duplicate.
                counts.retransmission_timeouts += u64::from(before.is_due);
                counts.fast_retransmits += u64::from(!before.is_due);
                conn.round_trip.resent();
                return self.conns.add_resent(slot, resent);
            }
            Some(_) => {}
        }
        if before.snd_nxt != Some(last.snd_nxt) {
            conn.round_trip.sent(at.micros, last.snd_nxt);
        }
    }

    /// The connection gets no more segments: its peer's window is nobody's concern.
    pub(super) fn forget_window(&mut self, slot: u32) {
        if let Some(last) = &mut self.conns.at(slot).last
            && std::mem::take(&mut last.is_peer_full)
        {
            self.counts.zero_windows_now -= 1;
        }
    }

    /// Adds the time since the last tick for each window that is closed.
    pub(super) fn count_zero_windows(&mut self, last_tick: u64, tick: u64) {
        if last_tick != NEVER {
            let passed = tick.saturating_sub(last_tick);
            self.counts.zero_window_ms += self.counts.zero_windows_now * passed;
        }
    }
}
