//! SIGINT and SIGTERM as something to wait for.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Becomes true once somebody asked us to end.
#[derive(Debug)]
pub(crate) struct Stop(mpsc::Receiver<()>);

/// From now on SIGINT and SIGTERM no longer end the process; they are told to the caller.
pub(crate) fn stop_requested() -> Result<Stop> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot watch for signals")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                if sender.send(()).is_err() {
                    break;
                }
            }
        })
        .context("cannot start the signal thread")?;
    Ok(Stop(receiver))
}

impl Stop {
    /// Waits for a signal, until `deadline` if there is one; true: end now.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            return self.0.recv().is_ok();
        };
        match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        }
    }
}
