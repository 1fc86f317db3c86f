//! Sleeps that end on time: a timer descriptor beside the sockets in `epoll`.
//!
//! `epoll_wait` takes whole milliseconds. Rounded down, a sleep of 0.3 ms becomes a busy loop;
//! rounded up, it is 0.7 ms late. So a sleep shorter than [`COARSE_FROM`] is an endless
//! `epoll_wait` that the timer ends; a longer one is left to `epoll_wait`, rounded up, at most
//! 1 ms late. A timer that is already set for the same deadline is not set again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Sleeps at least this long may be 1 ms late: not more than 1/32.
const COARSE_FROM: Duration = Duration::from_millis(32);

const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    /// What the timer will go off for, or went off for and was not yet heard.
    set_for: Option<Instant>,
}

impl Alarm {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set_for: None })
    }

    /// The timeout to poll with, so that it returns at `deadline`. `now` must not be ahead of the
    /// clock, or the sleep ends that much too early.
    pub(super) fn timeout(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
    ) -> io::Result<Option<Duration>> {
        let sleep = deadline.map(|deadline| deadline.saturating_duration_since(now));
        match sleep {
            Some(Duration::ZERO) => return Ok(sleep),
            Some(short) if short < COARSE_FROM => {
                if self.set_for != deadline {
                    self.set(short)?;
                    self.set_for = deadline;
                }
                return Ok(None);
            }
            _ => {}
        }
        if self.set_for.take().is_some() {
            self.set(Duration::ZERO)?;
        }
        Ok(sleep)
    }

    /// The poll reported the timer.
    pub(super) fn went_off(&mut self) {
        self.set_for = None;
    }

    /// Goes off `after` from now; zero: not at all.
    fn set(&self, after: Duration) -> io::Result<()> {
        let it_value = Timespec {
            tv_sec: after.as_secs() as i64, // below COARSE_FROM
            tv_nsec: after.subsec_nanos().into(),
        };
        let spec = Itimerspec { it_interval: NEVER, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    const TOKEN: Token = Token(3);

    fn alarm() -> (Poll, Alarm) {
        let poll = Poll::new().unwrap();
        let alarm = Alarm::new(poll.registry(), TOKEN).unwrap();
        (poll, alarm)
    }

    #[test]
    fn one_poll_sleeps_to_a_deadline_below_a_millisecond() {
        let (mut poll, mut alarm) = alarm();
        let mut events = Events::with_capacity(4);
        for _ in 0..20 {
            let now = Instant::now();
            let deadline = now + Duration::from_micros(300);
            let timeout = alarm.timeout(now, Some(deadline)).unwrap();
            assert_eq!(timeout, None, "left to the timer");
            poll.poll(&mut events, timeout).unwrap();
            assert!(Instant::now() >= deadline);
            assert!(events.iter().any(|event| event.token() == TOKEN));
            alarm.went_off();
        }
    }

    #[test]
    fn a_timer_nobody_needs_any_more_is_stopped() {
        let (mut poll, mut alarm) = alarm();
        let mut events = Events::with_capacity(4);
        let now = Instant::now();
        alarm.timeout(now, Some(now + Duration::from_millis(1))).unwrap();
        let long = Some(COARSE_FROM);
        assert_eq!(alarm.timeout(now, Some(now + COARSE_FROM)).unwrap(), long);
        poll.poll(&mut events, long).unwrap();
        assert!(events.is_empty());
    }

    #[test]
    fn a_deadline_that_passed_does_not_sleep_and_none_has_no_end() {
        let (_poll, mut alarm) = alarm();
        let now = Instant::now();
        assert_eq!(alarm.timeout(now, Some(now)).unwrap(), Some(Duration::ZERO));
        assert_eq!(alarm.timeout(now, None).unwrap(), None);
    }
}
