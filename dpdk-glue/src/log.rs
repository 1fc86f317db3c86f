//! DPDK's log, turned into ours: each line goes to `tracing`, and the latest are kept so that an
//! error can quote them as its cause.
//!
//! DPDK writes to a stream of ours, message by message, on the thread that has something to say.
//! Lines known to mean nothing in the modes we run in are lowered to debug level.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::c_char;
use std::io;
use std::slice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dpdk_sys as sys;

use crate::error::Cause;

/// Most lines kept for [`Cause`]s.
const KEPT_LINES: usize = 64;
/// Most bytes kept of one line.
const KEPT_LINE_LEN: usize = 300;

/// `RTE_LOG_*`, which are part of DPDK's ABI: 1 emergency ... 4 error, 5 warning, 6 notice, 7 info,
/// 8 debug.
const ERROR: u32 = 4;
const WARNING: u32 = 5;
const NOTICE: u32 = 6;
const INFO: u32 = 7;

/// Parts of lines that report, at error or warning level, what is normal for us: no secondary
/// processes, no flow rules on taps, memory of one kind only.
const HARMLESS: [&str; 13] = [
    "Failed to register mp action callback",
    "Failed to send start req to secondary",
    "Failed to send stop req to secondary",
    "All rt-signals are in use",
    "No Rx trigger signal available",
    "Disabling rte flow support",
    "multiq qdisc",
    "Specified qdisc kind is unknown",
    "Could not add qdisc",
    "no mounted hugetlbfs found for that size",
    "No free 1048576 kB hugepages reported",
    "No free 2048 kB hugepages reported",
    "Static memory layout is selected",
];

struct Recent {
    /// Lines seen so far, kept or not.
    seen: u64,
    lines: VecDeque<(u64, String)>,
}

static RECENT: Mutex<Recent> = Mutex::new(Recent { seen: 0, lines: VecDeque::new() });

thread_local! {
    /// Set while this thread tries something that is expected to fail.
    static HUSHED: Cell<bool> = const { Cell::new(false) };
}

/// A place in the log; what comes after it can be quoted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

fn recent() -> MutexGuard<'static, Recent> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends DPDK's log here from now on. Called once, before EAL starts.
pub(crate) fn capture() -> io::Result<()> {
    // SAFETY: `sink` is a function for any thread and any text, and lives as long as the program.
    match unsafe { sys::shim_log_capture(Some(sink)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The present end of the log.
pub(crate) fn mark() -> Mark {
    Mark(recent().seen)
}

/// The complaints since `mark` that are still kept, oldest first.
pub(crate) fn since(mark: Mark) -> Cause {
    let recent = recent();
    let lines = recent.lines.iter().filter(|(at, _)| *at >= mark.0);
    Cause(lines.map(|(_, line)| line.clone()).collect())
}

/// Runs `attempt` with this thread's log lines lowered to trace level; they are still kept.
pub(crate) fn hushed<T>(attempt: impl FnOnce() -> T) -> T {
    HUSHED.set(true);
    let result = attempt();
    HUSHED.set(false);
    result
}

unsafe extern "C" fn sink(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the shim passes a readable buffer of `len` bytes for the time of this call.
    let bytes = unsafe { slice::from_raw_parts(text.cast::<u8>(), len) };
    for line in String::from_utf8_lossy(bytes).lines() {
        let line = line.trim();
        if !line.is_empty() {
            record(level, line);
        }
    }
}

fn record(level: u32, line: &str) {
    let harmless = HARMLESS.iter().any(|part| line.contains(part));
    if level <= WARNING && !harmless {
        keep(line);
    }
    // A thread may log while it ends, after its thread-locals are gone.
    let hushed = HUSHED.try_with(Cell::get).unwrap_or(true);
    match level {
        _ if hushed => tracing::trace!(target: "dpdk", "{line}"),
        _ if harmless => tracing::debug!(target: "dpdk", "{line}"),
        0..=ERROR => tracing::error!(target: "dpdk", "{line}"),
        WARNING => tracing::warn!(target: "dpdk", "{line}"),
        NOTICE => tracing::info!(target: "dpdk", "{line}"),
        INFO => tracing::debug!(target: "dpdk", "{line}"),
        _ => tracing::trace!(target: "dpdk", "{line}"),
    };
}

fn keep(line: &str) {
    let mut recent = recent();
    let at = recent.seen;
    recent.seen += 1;
    if recent.lines.len() == KEPT_LINES {
        recent.lines.pop_front();
    }
    let end = line.floor_char_boundary(KEPT_LINE_LEN);
    recent.lines.push_back((at, line[..end].to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_after_the_mark_are_quoted_and_the_memory_is_bounded() {
        record(ERROR, "before");
        let at = mark();
        record(ERROR, "cannot open it");
        record(INFO, "by the way");
        record(WARNING, "tap: Failed to register mp action callback: 95");
        record(WARNING, "odd");
        assert_eq!(since(at).lines(), ["cannot open it", "odd"]);
        for _ in 0..KEPT_LINES {
            record(ERROR, &"€".repeat(KEPT_LINE_LEN));
        }
        let kept = since(at);
        assert_eq!(kept.lines().len(), KEPT_LINES);
        assert!(
            kept.lines().iter().all(|line| line.len() <= KEPT_LINE_LEN && line.starts_with('€'))
        );
    }
}
