//! The round-trip time of a connection, measured from outside: smoltcp keeps its own estimate to
//! itself.
//!
//! One segment at a time is timed, and none that was sent again (RFC 6298 section 3, Karn's
//! algorithm); the mean is smoothed as there. Times are those of turns, so an estimate is never
//! shorter than a turn.

use std::time::Duration;

/// Twelve bytes in a connection's first cache line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RoundTrip {
    /// 0: nothing was measured yet.
    smoothed_us: u32,
    /// The sequence number whose acknowledgement ends the measurement.
    seq: u32,
    /// 0: nothing is being timed. Wraps after 71 minutes, when every segment was sent again.
    since_us: u32,
}

impl RoundTrip {
    /// Everything before `seq` is on its way for the first time.
    pub(crate) fn sent(&mut self, now_us: u64, seq: u32) {
        if self.since_us == 0 {
            self.seq = seq;
            self.since_us = (now_us as u32).max(1);
        }
    }

    /// Something was sent again: an acknowledgement would not say of which copy it is.
    pub(crate) fn resent(&mut self) {
        self.since_us = 0;
    }

    /// The peer has everything before `ack`.
    pub(crate) fn acked(&mut self, now_us: u64, ack: u32) {
        let is_timed = self.since_us != 0 && ack.wrapping_sub(self.seq) as i32 >= 0;
        if !is_timed {
            return;
        }
        let sample = (now_us as u32).wrapping_sub(self.since_us).max(1);
        self.smoothed_us = match self.smoothed_us {
            0 => sample,
            mean => ((u64::from(mean) * 7 + u64::from(sample)) / 8) as u32,
        };
        self.since_us = 0;
    }

    /// The estimate, once there is one.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        (self.smoothed_us > 0).then(|| Duration::from_micros(self.smoothed_us.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn the_first_sample_is_the_estimate_and_later_ones_move_it_by_an_eighth() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.smoothed(), None);
        trip.sent(SECOND, 100);
        trip.sent(SECOND + 500, 200); // one at a time
        trip.acked(SECOND + 600, 99);
        assert_eq!(trip.smoothed(), None);
        trip.acked(SECOND + 800, 150);
        assert_eq!(trip.smoothed(), Some(Duration::from_micros(800)));
        trip.sent(2 * SECOND, 300);
        trip.acked(2 * SECOND + 1600, 300);
        assert_eq!(trip.smoothed(), Some(Duration::from_micros(900)));
    }

    #[test]
    fn what_was_sent_again_is_not_timed() {
        let mut trip = RoundTrip::default();
        trip.sent(SECOND, 100);
        trip.resent();
        trip.acked(9 * SECOND, 100);
        assert_eq!(trip.smoothed(), None);
    }

    #[test]
    fn numbers_and_times_that_wrap_are_no_trouble() {
        let mut trip = RoundTrip::default();
        let late = (1 << 32) - 100;
        trip.sent(late, 5);
        trip.acked(late + 300, u32::MAX - 5);
        assert_eq!(trip.smoothed(), None);
        trip.acked(late + 300, 6);
        assert_eq!(trip.smoothed(), Some(Duration::from_micros(300)));
    }
}
