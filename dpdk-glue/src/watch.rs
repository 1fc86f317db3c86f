//! The thread that watches a port's link, and restarts what does not come back by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::error::Error;
use crate::gate::Gate;
use crate::log;
use crate::port::Shared;
use crate::vdev::{Driver, Vdev};

/// Time between two looks at the link.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two attempts to find the peer again.
pub(crate) const RETRY_EVERY: Duration = Duration::from_millis(100);
/// Time between two looks whether all queues are out of the gate.
const WAIT_EVERY: Duration = Duration::from_millis(1);
/// So many looks must find the link down before the peer counts as lost: memif shakes hands for
/// some milliseconds after it has started.
const LOOKS_DOWN: u32 = 3;

/// The running thread; dropping it ends and joins it, which takes no longer than one attempt to
/// reconnect.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// With a gate, lost peers are found again; without, only the link's state is kept.
    pub(crate) fn start(
        name: &str,
        shared: &Arc<Shared>,
        gate: Option<Arc<Gate>>,
    ) -> Result<Self, Error> {
        let (stop, stopped) = mpsc::channel();
        let watcher = Watcher { shared: shared.clone(), gate, stopped };
        let thread =
            thread::Builder::new().name(format!("watch {name}")).spawn(|| watcher.run())?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the link panicked");
        }
    }
}

/// The port goes down.
struct Stopped;

struct Watcher {
    shared: Arc<Shared>,
    gate: Option<Arc<Gate>>,
    stopped: Receiver<()>,
}

impl Watcher {
    fn run(self) {
        let mut looks_down = 0;
        while self.pause(LOOK_EVERY).is_ok() {
            let up = self.shared.device().link_is_up();
            if self.shared.link_up.swap(up, Ordering::Relaxed) != up {
                let state = if up { "up" } else { "down" };
                tracing::info!(port = self.shared.device().name(), "link is {state}");
            }
            looks_down = if up { 0 } else { looks_down + 1 };
            if let Some(gate) = &self.gate
                && looks_down >= LOOKS_DOWN
            {
                looks_down = 0;
                if self.reconnect(gate).is_err() {
                    return;
                }
            }
        }
    }

    fn pause(&self, time: Duration) -> Result<(), Stopped> {
        match self.stopped.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }

    /// Restarts the device behind a closed gate until the peer is there. When it returns with
    /// success the gate is open again.
    fn reconnect(&self, gate: &Gate) -> Result<(), Stopped> {
        gate.close();
        while !gate.is_empty() {
            self.pause(WAIT_EVERY)?;
        }
        self.take_down();
        let id = loop {
            if let Some(id) = log::hushed(|| self.try_to_start()) {
                break id;
            }
            self.pause(RETRY_EVERY)?;
        };
        self.shared.reconnects.fetch_add(1, Ordering::Relaxed);
        gate.open(id);
        tracing::info!(port = self.shared.device().name(), "the peer is back");
        Ok(())
    }

    /// memif survives a stop; virtio_user has lost its backend for good and is plugged out.
    fn take_down(&self) {
        let mut device = self.shared.device();
        if device.vdev().map(Vdev::driver) == Some(Driver::Memif) {
            device.stop();
        } else {
            log::hushed(|| device.detach());
        }
    }

    fn try_to_start(&self) -> Option<u16> {
        let mut device = self.shared.device();
        if device.id().is_none()
            && let Err(error) = device.attach()
        {
            tracing::trace!(%error, "the peer is not back yet");
            device.detach();
            return None;
        }
        if let Err(error) = device.start() {
            tracing::trace!(%error, "the peer is not back yet");
            if device.vdev().map(Vdev::driver) != Some(Driver::Memif) {
                device.detach();
            }
            return None;
        }
        device.id()
    }
}
