//! One thread's events: sockets, timers, items from other threads, and pollers, in fair turns.
//!
//! ```text
//!   EventDriver --wait--> file events ---+
//!   timers -----------------------------+-> next_event(now) -> Event (a value, not a callback)
//!   Inbox (any thread) -----------------+
//!   pollers: called once in each collect
//! ```
//!
//! The owner's turn is `collect`, then `next_event` until it is `None`. An event is checked when it
//! is handed out and not when it was found, so what an earlier event of the same turn cancelled,
//! closed or unsubscribed never arrives (contract E-5). Every turn polls the driver once and takes
//! at most a named share of each class, so a flood of one class delays the others by no more than
//! one share (E-7, and the cure for E-8).
//!
//! It knows sockets by their [`SocketId`] only: no sessions, no bytes.

use crate::inbox::Inbox;
use crate::timers::Timers;
use netstack::stack::{EventDriver, Readiness, Ready, SocketId};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

pub use crate::timers::TimerId;

/// Most file events of one turn.
pub const FILES_PER_TURN: usize = 256;
/// Most time events of one turn.
pub const TIMERS_PER_TURN: usize = 256;
/// Most items taken from the inbox in one turn.
pub const EXTERNALS_PER_TURN: usize = 1024;
/// Most pollers of one centre.
pub const POLLERS_MAX: usize = 16;

/// Something the owner of an [`EventCenter`] has to act on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<K, X> {
    /// A socket became ready for something it is watched for.
    File {
        /// The key given to [`EventCenter::watch`].
        key: K,
        /// Which socket.
        socket: SocketId,
        /// For what; never empty, never more than it is watched for.
        readiness: Readiness,
    },
    /// A timer came due. It is gone now.
    Time {
        /// Its name.
        id: TimerId,
        /// The key given to [`EventCenter::add_timer`].
        key: K,
    },
    /// An item from the inbox.
    External(X),
}

/// What a poller did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do.
    Idle,
    /// Some work.
    Busy,
}

/// Called once in each turn, with the turn's time (contract E-12).
pub type Poller = Box<dyn FnMut(Instant) -> Progress + Send>;

/// Names a poller, so that it can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollerId(u64);

/// One socket's entry. The slot number is the index, the generation guards against old news.
struct File<K> {
    generation: u32,
    key: K,
    interest: Readiness,
    /// Reported by the driver, not handed out yet; also what nobody asked for so far.
    pending: Readiness,
    /// Whether the socket is on the ready list.
    listed: bool,
}

/// What is left of this turn's shares.
#[derive(Default)]
struct Shares {
    files: usize,
    timers: usize,
    externals: usize,
}

/// The reactor of one thread. `K` is the owner's key for sockets and timers, `X` what other threads
/// send. One owner, which is the thread that calls it (contracts E-1, E-2: the borrow checker
/// holds them); other threads have the [`Inbox`].
pub struct EventCenter<K, X> {
    files: Vec<Option<File<K>>>,
    ready: VecDeque<SocketId>,
    timers: Timers<K>,
    inbox: Arc<Inbox<X>>,
    pollers: Vec<(PollerId, Poller)>,
    last_poller: u64,
    shares: Shares,
    /// Reused by each `wait`.
    found: Vec<Ready>,
}

impl<K: Copy, X> EventCenter<K, X> {
    /// An empty centre that takes external events from `inbox`.
    pub fn new(inbox: Arc<Inbox<X>>) -> Self {
        Self {
            files: Vec::new(),
            ready: VecDeque::new(),
            timers: Timers::new(),
            inbox,
            pollers: Vec::new(),
            last_poller: 0,
            shares: Shares::default(),
            found: Vec::new(),
        }
    }

    /// Where other threads put external events.
    pub fn inbox(&self) -> &Arc<Inbox<X>> {
        &self.inbox
    }

    /// Watches `socket` for `interest`, in place of what was watched before, key included
    /// (contract E-3). What was reported while nobody asked for it arrives in the next turn. A
    /// name whose slot has a later user by now is not watched.
    pub fn watch(&mut self, socket: SocketId, interest: Readiness, key: K) {
        let slot = socket.slot as usize;
        if slot >= self.files.len() {
            self.files.resize_with(slot + 1, || None);
        }
        match &mut self.files[slot] {
            Some(file) if file.generation == socket.generation => {
                file.key = key;
                file.interest = interest;
            }
            Some(file) if is_older(socket.generation, file.generation) => return,
            entry => {
                *entry = Some(File {
                    generation: socket.generation,
                    key,
                    interest,
                    pending: Readiness::NONE,
                    listed: false,
                });
            }
        }
        self.list_if_wanted(socket);
    }

    /// Forgets the socket; what is pending for it is dropped. Unknown sockets are no error (E-4).
    pub fn unwatch(&mut self, socket: SocketId) {
        if self.file(socket).is_some() {
            self.files[socket.slot as usize] = None;
        }
    }

    /// Puts the socket at the back of the ready list as if the driver had reported `readiness`: for
    /// an owner that stopped before the socket would block. It comes up in the next turn.
    pub fn again(&mut self, socket: SocketId, readiness: Readiness) {
        if let Some(file) = self.file(socket) {
            file.pending |= readiness;
            self.list_if_wanted(socket);
        }
    }

    /// Sets a one-shot timer. One set while a turn is under way fires in a later turn at the
    /// earliest, even if it is due at once.
    pub fn add_timer(&mut self, deadline: Instant, key: K) -> TimerId {
        self.timers.add(deadline, key)
    }

    /// Cancels a timer; whether it was still set. Legal at any time, also in its own turn.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        self.timers.cancel(id)
    }

    /// Adds a poller. While there is one, the driver never sleeps.
    ///
    /// # Errors
    /// Gives it back if there are [`POLLERS_MAX`] already.
    pub fn add_poller(&mut self, poller: Poller) -> Result<PollerId, Poller> {
        if self.pollers.len() == POLLERS_MAX {
            return Err(poller);
        }
        self.last_poller += 1;
        let id = PollerId(self.last_poller);
        self.pollers.push((id, poller));
        Ok(id)
    }

    /// Removes a poller; whether there was one of that name.
    pub fn remove_poller(&mut self, id: PollerId) -> bool {
        let before = self.pollers.len();
        self.pollers.retain(|(other, _)| *other != id);
        self.pollers.len() < before
    }

    /// Begins a turn: polls the driver and every poller once. The driver may sleep only if there
    /// are no pollers and nothing is left over, and then no longer than to `limit` and the nearest
    /// timer (contract E-7). Read the clock again after it.
    ///
    /// # Errors
    /// Only when the driver itself fails.
    pub fn collect(
        &mut self,
        now: Instant,
        limit: Option<Instant>,
        driver: &mut dyn EventDriver,
    ) -> io::Result<Progress> {
        self.timers.begin_round();
        let deadline = self.sleep_until(now, limit);
        let outcome = driver.wait(now, deadline, &mut self.found);
        self.inbox.rouse();
        outcome?;
        let mut found = std::mem::take(&mut self.found);
        for ready in found.drain(..) {
            self.again(ready.socket, ready.readiness);
        }
        self.found = found;
        self.shares = Shares {
            files: self.ready.len().min(FILES_PER_TURN),
            timers: TIMERS_PER_TURN,
            externals: EXTERNALS_PER_TURN,
        };
        let mut progress = Progress::Idle;
        for (_, poller) in &mut self.pollers {
            if poller(now) == Progress::Busy {
                progress = Progress::Busy;
            }
        }
        Ok(progress)
    }

    /// When a turn is due that no socket brings about; at or before `now`: at once.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let busy = self.is_busy() || !self.inbox.is_empty();
        if busy { Some(now) } else { self.timers.next_deadline() }
    }

    /// The next event of this turn: sockets in the order they became ready, then due timers, then
    /// external events. `now` is the time after [`EventCenter::collect`].
    pub fn next_event(&mut self, now: Instant) -> Option<Event<K, X>> {
        self.next_file().or_else(|| self.next_timer(now)).or_else(|| self.next_external())
    }

    /// The next external event, out of turn and beside the share: for an owner whose own work in
    /// this turn fills the inbox.
    pub fn take_external(&mut self) -> Option<X> {
        self.inbox.take()
    }

    /// How many sockets are watched.
    pub fn watched(&self) -> usize {
        self.files.iter().flatten().count()
    }

    fn next_file(&mut self) -> Option<Event<K, X>> {
        while self.shares.files > 0 {
            self.shares.files -= 1;
            let socket = self.ready.pop_front()?;
            let Some(file) = self.file(socket) else {
                continue;
            };
            file.listed = false;
            let readiness = file.pending.intersection(file.interest);
            if readiness.is_empty() {
                continue;
            }
            file.pending = file.pending.without(readiness);
            return Some(Event::File { key: file.key, socket, readiness });
        }
        None
    }

    fn next_timer(&mut self, now: Instant) -> Option<Event<K, X>> {
        self.shares.timers = self.shares.timers.checked_sub(1)?;
        let (id, key) = self.timers.take_due(now)?;
        Some(Event::Time { id, key })
    }

    fn next_external(&mut self) -> Option<Event<K, X>> {
        self.shares.externals = self.shares.externals.checked_sub(1)?;
        self.inbox.take().map(Event::External)
    }

    fn sleep_until(&self, now: Instant, limit: Option<Instant>) -> Option<Instant> {
        if self.is_busy() || !self.inbox.doze() {
            return Some(now);
        }
        let deadlines = self.timers.next_deadline().into_iter().chain(limit);
        deadlines.min()
    }

    fn is_busy(&self) -> bool {
        !self.ready.is_empty() || !self.pollers.is_empty()
    }

    fn file(&mut self, socket: SocketId) -> Option<&mut File<K>> {
        self.files
            .get_mut(socket.slot as usize)?
            .as_mut()
            .filter(|file| file.generation == socket.generation)
    }

    fn list_if_wanted(&mut self, socket: SocketId) {
        let Some(file) = self.file(socket) else {
            return;
        };
        if !file.listed && !file.pending.intersection(file.interest).is_empty() {
            file.listed = true;
            self.ready.push_back(socket);
        }
    }
}

/// Whether `generation` came before `other`; they count round and round.
fn is_older(generation: u32, other: u32) -> bool {
    (1..=u32::MAX / 2).contains(&other.wrapping_sub(generation))
}

impl<K, X> fmt::Debug for EventCenter<K, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventCenter")
            .field("ready", &self.ready.len())
            .field("inbox", &self.inbox)
            .field("pollers", &self.pollers.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
