//! A worker's time, as its three users count it.

use std::time::{Duration, Instant};

use smoltcp::time::Instant as TcpInstant;

use crate::wheel::TICK;

/// Microseconds in a tick of the wheel for repairs: less than a round trip in most networks.
const FINE_TICK_US: u64 = 64;

/// The first fine tick at or after a time in microseconds.
pub(crate) fn fine_tick_of(micros: u64) -> u64 {
    micros.div_ceil(FINE_TICK_US)
}

/// One point in time in its three forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// As callers give it.
    pub(crate) wall: Instant,
    /// In microseconds since the worker's first.
    pub(crate) micros: u64,
    /// As the timer wheel counts it.
    pub(crate) tick: u64,
    /// As the wheel for repairs counts it.
    pub(crate) fine_tick: u64,
    /// As smoltcp is shown it.
    pub(crate) tcp: TcpInstant,
}

/// Turns the time callers give into a [`Moment`].
///
/// smoltcp's shortest retransmission timeout is one second, far too long for a local network. So
/// it is shown a clock that runs `speed` times faster than the real one. Every duration it is
/// given has to be stretched by [`Clock::stretch`], which is the only other place to know that.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The first time ever seen; all others are counted from there.
    epoch: Option<Instant>,
    speed: u32,
}

impl Clock {
    /// A clock that shows smoltcp `speed` seconds for each real one.
    pub(crate) fn new(speed: u32) -> Self {
        Self { epoch: None, speed: speed.max(1) }
    }

    /// The moment callers call `now`.
    pub(crate) fn at(&mut self, now: Instant) -> Moment {
        let epoch = *self.epoch.get_or_insert(now);
        let micros = now.saturating_duration_since(epoch).as_micros() as u64;
        Moment {
            wall: now,
            micros,
            tick: micros / TICK.as_micros() as u64,
            fine_tick: micros / FINE_TICK_US,
            tcp: TcpInstant::from_micros((micros * u64::from(self.speed)) as i64),
        }
    }

    /// When fine tick `tick` begins; `None` before the first moment.
    pub(crate) fn time_of_fine(&self, tick: u64) -> Option<Instant> {
        self.epoch?.checked_add(Duration::from_micros(tick.checked_mul(FINE_TICK_US)?))
    }

    /// When tick `tick` begins; `None` before the first moment.
    pub(crate) fn time_of(&self, tick: u64) -> Option<Instant> {
        let micros = tick.checked_mul(TICK.as_micros() as u64)?;
        self.epoch?.checked_add(Duration::from_micros(micros))
    }

    /// A real duration as it has to be told to smoltcp.
    pub(crate) fn stretch(&self, real: Duration) -> Duration {
        real * self.speed
    }

    /// The first tick at or after a time smoltcp asked for, and after `at`.
    pub(crate) fn tick_of(&self, time: TcpInstant, at: Moment) -> u64 {
        let tick_micros = TICK.as_micros() as u64 * u64::from(self.speed);
        let tick = (time.total_micros().max(0) as u64).div_ceil(tick_micros);
        tick.max(at.tick + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoltcp_sees_time_run_faster_and_asks_in_its_own() {
        let mut clock = Clock::new(5);
        let begin = Instant::now();
        assert_eq!(clock.time_of(7), None);
        assert_eq!(clock.at(begin).tick, 0);
        assert_eq!(clock.time_of(7), Some(begin + 7 * TICK));
        assert_eq!(clock.at(begin + 7 * TICK).tick, 7);
        let at = clock.at(begin + Duration::from_micros(2_500_900));
        assert_eq!(at.tick, 2500);
        assert_eq!(at.tcp, TcpInstant::from_micros(12_504_500));
        // Its second is 200 ms; a tick is never early and never the present one.
        let second = smoltcp::time::Duration::from_secs(1);
        assert_eq!(clock.tick_of(at.tcp + second, at), 2701);
        assert_eq!(clock.tick_of(TcpInstant::ZERO, at), 2501);
        assert_eq!(clock.stretch(Duration::from_secs(60)), Duration::from_secs(300));
    }

    #[test]
    fn time_before_the_first_moment_is_the_first_moment() {
        let mut clock = Clock::new(5);
        let begin = Instant::now() + Duration::from_secs(1);
        clock.at(begin);
        assert_eq!(clock.at(begin - Duration::from_millis(1)).tick, 0);
    }
}
