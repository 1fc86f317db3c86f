//! Signals, as DPDK needs them: `SIGPIPE` must not kill us, and `net_tap` must find no real-time
//! signal free.
//!
//! The tap driver takes the first real-time signal without a handler, has the kernel raise it for
//! every frame, and reads only after it came: a signal per frame into the polling thread. When all
//! of them are taken it simply polls, which is several times faster.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{SIG_DFL, SIG_IGN, SIGPIPE, c_int, sigaction, sighandler_t};

/// While it lives, every real-time signal that had its default disposition is ignored.
///
/// Signals the program uses itself are left alone. Only one may live at a time; the lock on EAL's
/// control functions sees to that.
#[derive(Debug)]
pub(crate) struct RealTimeSignals {
    occupied: Vec<c_int>,
}

impl RealTimeSignals {
    pub(crate) fn occupy() -> Self {
        let signals = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let is_free = |signal: &c_int| disposition(*signal).is_ok_and(|now| now == SIG_DFL);
        let occupied = signals.filter(is_free).filter(|s| set(*s, SIG_IGN).is_ok()).collect();
        Self { occupied }
    }
}

impl Drop for RealTimeSignals {
    fn drop(&mut self) {
        for &signal in &self.occupied {
            // Somebody may have put a handler there meanwhile: it stays.
            if disposition(signal).is_ok_and(|now| now == SIG_IGN) {
                // Cannot fail: the same signal was set before.
                let _ = set(signal, SIG_DFL);
            }
        }
    }
}

/// Ignores `SIGPIPE` unless the program has chosen something itself: vhost-user sockets are written
/// to after their peer is gone. Rust's own `main` has done it; a C program around us has not.
pub(crate) fn ignore_sigpipe() -> io::Result<()> {
    if disposition(SIGPIPE)? == SIG_DFL { set(SIGPIPE, SIG_IGN) } else { Ok(()) }
}

fn disposition(signal: c_int) -> io::Result<sighandler_t> {
    let mut now = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: no new action is given, and `now` has room for the present one.
    let result = unsafe { sigaction(signal, ptr::null(), now.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the successful call filled it in.
    Ok(unsafe { now.assume_init() }.sa_sigaction)
}

fn set(signal: c_int, to: sighandler_t) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `sigaction`: default disposition, empty mask, no flags.
    let mut action: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = to;
    // SAFETY: `to` is SIG_DFL or SIG_IGN, so no code of ours runs as a handler.
    match unsafe { sigaction(signal, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_real_time_signals_are_taken_and_given_back() {
        let chosen = libc::SIGRTMAX() - 1;
        set(chosen, SIG_IGN).unwrap();
        let free = libc::SIGRTMAX() - 2;
        assert_eq!(disposition(free).unwrap(), SIG_DFL);
        let occupied = RealTimeSignals::occupy();
        assert_eq!(disposition(free).unwrap(), SIG_IGN);
        assert!(!occupied.occupied.contains(&chosen));
        drop(occupied);
        assert_eq!(disposition(free).unwrap(), SIG_DFL);
        assert_eq!(disposition(chosen).unwrap(), SIG_IGN);
    }
}
