//! Workers without threads: whoever made them turns them, one turn at a time.
//!
//! ```text
//!   driver:  next_turn(worker) -> move the clock -> turn(worker) -> dispatch(items)
//! ```
//!
//! What has a thread of its own elsewhere is a call here: each worker's turn, the dispatch queue
//! and the local queue of every messenger. Time and random numbers come from the driver too, so the
//! same seed and the same calls give the same run. Calls of a messenger that wait for workers turn
//! them on the calling thread instead; the clock stands still meanwhile.
//!
//! All calls, those of the messengers included, are to come from one thread.

use super::{Gate, Workers};
use crate::clock::Clock;
use crate::endpoint::Endpoint;
use crate::inbox::Inbox;
use crate::seeds::Seeds;
use crate::worker_loop::WorkerLoop;
use netstack::stack::{EventDriver, NetworkStack, Worker};
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// Most rounds of turns in which workers answer: each step of an answer takes one, and there are a
/// handful.
const ANSWER_ROUNDS_MAX: usize = 1000;

/// How [`Driven`] workers are made.
#[derive(Clone, Debug)]
pub struct DriveOptions {
    /// What time it is for the workers and their messengers.
    pub clock: Clock,
    /// Decides every nonce and cookie.
    pub seed: u64,
    /// Items each worker's inbox holds before senders get their message back.
    pub inbox_items: NonZeroUsize,
}

/// The driver's handle of workers that have no threads.
///
/// Time and random numbers come from the driver, so the same seed and the same calls give the same
/// run. A driver moves the clock to the earliest [`Driven::next_turn`] or arrival, then calls
/// [`Driven::turn`] and [`Driven::dispatch`]. Calls of a messenger that wait for workers turn them
/// on the calling thread; [`Messenger::wait`](crate::Messenger::wait) before `shutdown` is an
/// error, for nobody else could shut it down. All calls are to come from one thread.
pub struct Driven(Arc<Workers>);

impl Driven {
    /// The workers of `stack`, ready to be turned.
    ///
    /// # Errors
    /// If the stack cannot make its workers, or one cannot start.
    pub fn new<S: NetworkStack>(stack: S, options: &DriveOptions) -> io::Result<Self> {
        let mut seeds = Seeds::new(options.seed);
        let (mut gates, mut loops) = (Vec::new(), Vec::new());
        for (index, mut worker) in stack.into_workers()?.into_iter().enumerate() {
            let inbox = Inbox::new(options.inbox_items.get(), worker.waker());
            let gate = Arc::new(Gate::new(index, inbox));
            gates.push(Arc::clone(&gate));
            worker.start()?;
            let clock = options.clock.clone();
            let turns: Box<dyn Turns> =
                Box::new(WorkerLoop::new(worker, gate, clock, seeds.draw()));
            loops.push(turns);
        }
        let drive = Drive {
            loops: Mutex::new(loops),
            seeds: Mutex::new(seeds),
            endpoints: Mutex::default(),
        };
        let clock = options.clock.clone();
        Ok(Self(Arc::new(Workers { gates, clock, threads: Mutex::default(), drive: Some(drive) })))
    }

    /// For [`Messenger::with_workers`](crate::Messenger::with_workers).
    pub fn workers(&self) -> Arc<Workers> {
        Arc::clone(&self.0)
    }

    /// One turn of a worker, at the time its clock shows.
    ///
    /// # Errors
    /// If the worker's device fails.
    ///
    /// # Panics
    /// If there is no such worker, or in a callback of a turn.
    pub fn turn(&self, worker: usize) -> io::Result<()> {
        self.drive().loops()[worker].turn()
    }

    /// When the worker's next turn is due, apart from frames that arrive; maybe early, never late.
    ///
    /// # Panics
    /// As [`Driven::turn`].
    pub fn next_turn(&self, worker: usize) -> Option<Instant> {
        self.drive().loops()[worker].next_turn()
    }

    /// Breaks the TCP connection of one of the worker's sessions, the `pick`-th modulo their
    /// number, as if the peer had reset it. Whether there was one.
    ///
    /// # Panics
    /// As [`Driven::turn`].
    pub fn break_transport(&self, worker: usize, pick: u64) -> bool {
        self.drive().loops()[worker].break_transport(pick)
    }

    /// Hands out at most `items` of what waits in each messenger's local and dispatch queue; how
    /// many it were.
    pub fn dispatch(&self, items: usize) -> usize {
        self.drive().dispatch(items)
    }

    fn drive(&self) -> &Drive {
        self.0.drive.as_ref().expect("made with it")
    }
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Driven").field(&self.0).finish()
    }
}

/// A [`WorkerLoop`] whatever its worker.
pub(crate) trait Turns: Send {
    fn turn(&mut self) -> io::Result<()>;
    fn next_turn(&self) -> Option<Instant>;
    fn break_transport(&mut self, pick: u64) -> bool;
}

impl<W: Worker + Send> Turns for WorkerLoop<W> {
    fn turn(&mut self) -> io::Result<()> {
        self.turn_by_hand()
    }

    fn next_turn(&self) -> Option<Instant> {
        Self::next_turn(self)
    }

    fn break_transport(&mut self, pick: u64) -> bool {
        Self::break_transport(self, pick)
    }
}

/// What stands in the place of threads.
pub(super) struct Drive {
    /// Locked for the length of a turn.
    loops: Mutex<Vec<Box<dyn Turns>>>,
    seeds: Mutex<Seeds>,
    /// Those of the messengers that run.
    endpoints: Mutex<Vec<Weak<Endpoint>>>,
}

impl Drive {
    pub(super) fn draw(&self) -> u64 {
        lock(&self.seeds).draw()
    }

    /// Whether the caller is in a callback of a turn.
    pub(super) fn is_turning(&self) -> bool {
        self.loops.try_lock().is_err()
    }

    /// Turns all workers until `done` gives something.
    ///
    /// # Panics
    /// If that takes too many rounds: the workers have lost the question.
    pub(super) fn turn_until<T>(&self, mut done: impl FnMut() -> Option<T>) -> T {
        for _ in 0..ANSWER_ROUNDS_MAX {
            if let Some(result) = done() {
                return result;
            }
            for turns in &mut *self.loops() {
                if let Err(error) = turns.turn() {
                    tracing::error!(%error, "a driven worker failed");
                }
            }
        }
        panic!("no answer within {ANSWER_ROUNDS_MAX} rounds of turns");
    }

    pub(super) fn attend(&self, endpoint: &Arc<Endpoint>) {
        let mut endpoints = lock(&self.endpoints);
        endpoints.retain(|endpoint| endpoint.strong_count() > 0);
        endpoints.push(Arc::downgrade(endpoint));
    }

    fn dispatch(&self, items: usize) -> usize {
        let endpoints = lock(&self.endpoints).clone(); // callbacks may start messengers
        let running = endpoints.iter().filter_map(Weak::upgrade);
        running.map(|endpoint| endpoint.hand_out(items)).sum()
    }

    fn loops(&self) -> MutexGuard<'_, Vec<Box<dyn Turns>>> {
        lock(&self.loops)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
