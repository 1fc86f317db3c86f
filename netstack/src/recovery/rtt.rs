//! Round-trip times of a connection, and the timeouts that follow from them (RFC 6298).

use std::time::Duration;

/// Longest timeout that backing off leads to. RFC 6298 allows no less than a minute; one segment
/// every two seconds is nothing to a network, and much to a peer that has come back.
const RTO_MAX_US: u32 = 2_000_000;
/// Timeout before anything was measured, in shortest timeouts: a second where those are 200 ms.
const INITIAL: u32 = 5;
/// The least round trip is that of the last one to two such times: routes change.
const MIN_WINDOW_US: u64 = 10_000_000;

/// Estimates in microseconds. Times of measuring are those of turns, so none is shorter than one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    /// 0: nothing was measured yet.
    smoothed_us: u32,
    variation_us: u32,
    /// Least of the present window and of the one before.
    least_us: [u32; 2],
    window_since: u64,
    rto_min_us: u32,
    /// The timeout before any backing off.
    timeout_us: u32,
}

impl Rtt {
    /// No estimate; no timeout will be shorter than `rto_min`.
    pub(super) fn new(rto_min: Duration) -> Self {
        let rto_min_us = (rto_min.as_micros() as u32).clamp(1, RTO_MAX_US);
        Self {
            smoothed_us: 0,
            variation_us: 0,
            least_us: [u32::MAX; 2],
            window_since: 0,
            rto_min_us,
            timeout_us: rto_min_us.saturating_mul(INITIAL).min(1_000_000),
        }
    }

    /// A segment that was sent once took so long to be acknowledged.
    pub(super) fn sample(&mut self, now: u64, took_us: u32) {
        let took = took_us.clamp(1, u32::MAX / 8);
        if now.saturating_sub(self.window_since) >= MIN_WINDOW_US {
            self.window_since = now;
            self.least_us = [u32::MAX, self.least_us[0]];
        }
        self.least_us[0] = self.least_us[0].min(took);
        if self.smoothed_us == 0 {
            self.smoothed_us = took;
            self.variation_us = took / 2;
        } else {
            let off = self.smoothed_us.abs_diff(took);
            self.variation_us = self.variation_us - self.variation_us / 4 + off / 4;
            self.smoothed_us = (self.smoothed_us - self.smoothed_us / 8 + took / 8).max(1);
        }
        self.timeout_us = (self.smoothed_us + 4 * self.variation_us).max(self.rto_min_us);
    }

    /// The smoothed round trip, once there is one.
    pub(super) fn smoothed(&self) -> Option<u32> {
        (self.smoothed_us > 0).then_some(self.smoothed_us)
    }

    /// The least round trip of late; 0 before there is one.
    pub(super) fn least(&self) -> u32 {
        match self.least_us[0].min(self.least_us[1]) {
            u32::MAX => 0,
            least => least,
        }
    }

    /// The longest that peers hold acknowledgements back, as far as we are told.
    pub(super) fn ack_delay(&self) -> u32 {
        self.rto_min_us
    }

    /// The retransmission timeout after it ran out `backoff` times in a row.
    pub(super) fn timeout(&self, backoff: u32) -> u32 {
        if backoff == 0 {
            return self.timeout_us;
        }
        let most = self.timeout_us.max(RTO_MAX_US);
        self.timeout_us.saturating_mul(1 << backoff.min(16)).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_timeout_follows_the_mean_and_its_variation() {
        let mut rtt = Rtt::new(5 * MS);
        assert_eq!((rtt.smoothed(), rtt.least(), rtt.timeout(0)), (None, 0, 25_000));
        rtt.sample(0, 8000);
        assert_eq!((rtt.smoothed(), rtt.timeout(0)), (Some(8000), 24_000));
        rtt.sample(0, 16_000);
        assert_eq!(rtt.smoothed(), Some(9000));
        assert_eq!(rtt.timeout(0), 9000 + 4 * (3000 + 2000));
        for _ in 0..100 {
            rtt.sample(0, 100);
        }
        assert_eq!(rtt.timeout(0), 5000, "the shortest one");
    }

    #[test]
    fn backing_off_doubles_up_to_a_limit() {
        let mut rtt = Rtt::new(200 * MS);
        assert_eq!(rtt.timeout(0), 1_000_000);
        rtt.sample(0, 100);
        let timeouts = [0, 1, 2, 3, 4, 99].map(|times| rtt.timeout(times) / 1000);
        assert_eq!(timeouts, [200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn the_least_is_forgotten_after_a_while() {
        let mut rtt = Rtt::new(5 * MS);
        rtt.sample(0, 100);
        rtt.sample(1, 900);
        assert_eq!(rtt.least(), 100);
        rtt.sample(MIN_WINDOW_US, 900);
        assert_eq!(rtt.least(), 100);
        rtt.sample(2 * MIN_WINDOW_US, 800);
        assert_eq!(rtt.least(), 800);
    }
}
