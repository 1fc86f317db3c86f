//! Whether packets really move: what one end of a link can find out by itself.
//!
//! A started port with its link up proves nothing yet. `net_virtio_user` in particular can look
//! perfect and lose every frame. One end can know three things, strongest first:
//!
//! * a frame arrived: the way in works, and the peer is alive;
//! * the device took more frames than its transmit queue has room for: something at the other end
//!   takes them out (for drivers that copy at once, like `net_tap` and `net_vhost`, already the
//!   first frame tells);
//! * it took fewer than that and nothing came: nothing speaks against it, nothing proves it.
//!
//! That the *peer's stack* understood a frame only an answer can tell: ping it.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::mbuf::Burst;
use crate::port::Port;
use crate::queue::{QueuePair, TxQueue};

/// Probe frames sent at once.
const PROBES: usize = 8;
/// Time between two bursts of them.
const PROBE_EVERY: Duration = Duration::from_millis(1);

/// What [`QueuePair::prove`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A frame arrived.
    Received,
    /// The other end takes frames out.
    Consumed,
    /// The device took this many frames, fewer than its queue has room for.
    Taken {
        /// How many.
        frames: u64,
    },
    /// The link stayed down: no peer yet.
    LinkDown,
}

impl QueuePair {
    /// Sends copies of `frame` until it is proved that the other end takes them, a frame arrives,
    /// or `time` is over. For before the queue pair is put to work: frames that arrive meanwhile
    /// are lost. Blocks for `time` at most.
    ///
    /// `frame` should do no harm in numbers: a few more than a transmit queue has descriptors may
    /// be sent.
    ///
    /// # Errors
    /// [`Error::Stalled`]: the link is up, the transmit queue is full, and nobody empties it.
    pub fn prove(&mut self, port: &Port, frame: &[u8], time: Duration) -> Result<Proof, Error> {
        let begin = Instant::now();
        let (mut arrived, mut probes) = (Burst::new(), Burst::new());
        let mut frames: u64 = 0;
        loop {
            if self.rx.recv(&mut arrived) > 0 {
                return Ok(Proof::Received);
            }
            if port.link_is_up() {
                self.tx.fill(frame, &mut probes);
                frames += self.tx.send(&mut probes) as u64;
            }
            if frames > port.frames_unseen() {
                return Ok(Proof::Consumed);
            }
            if begin.elapsed() >= time {
                break;
            }
            thread::sleep(PROBE_EVERY);
        }
        match frames {
            _ if !port.link_is_up() => Ok(Proof::LinkDown),
            // The probes that are left were refused by a full queue.
            sent if !probes.is_empty() => {
                Err(Error::Stalled { name: port.info().name.clone(), sent })
            }
            frames => Ok(Proof::Taken { frames }),
        }
    }
}

impl TxQueue {
    /// Adds copies of `frame` to a burst.
    fn fill(&self, frame: &[u8], probes: &mut Burst) {
        while probes.len() < PROBES
            && let Some(mut mbuf) = self.alloc(frame.len())
        {
            mbuf.bytes_mut().copy_from_slice(frame);
            probes.push(mbuf);
        }
    }
}
