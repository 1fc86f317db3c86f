//! What can be told of a connection by looking at its segments: losses, windows, round trips.
//!
//! smoltcp says nothing about any of this. What a peer said and what we have said is enough to know
//! it, and both are in the connection's two cache lines already.

use super::NativeWorker;
use crate::device::PacketDevice;
use crate::front::{TcpFlags, TcpView};
use crate::wheel::{NEVER, TICK};

const _: () = assert!(TICK.as_millis() == 1, "closed windows are counted in milliseconds");

impl<D: PacketDevice> NativeWorker<D> {
    /// Looks at a segment before its connection gets it.
    pub(super) fn observe(&mut self, slot: u32, segment: &TcpView) {
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

    /// Looks at what smoltcp has sent: a SYN is all that it repeats. `before` is the count of
    /// segments sent again until then.
    pub(super) fn observe_sent(&mut self, slot: u32, before: u64) {
        let resent = self.wire.segments_resent() - before;
        if resent > 0 {
            self.counts.retransmission_timeouts += resent;
            self.conns.add_resent(slot, resent);
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
