//! The one way into a worker from other threads: a bounded queue, and a wake-up only for sleepers.
//!
//! ```text
//!   any thread --send--> [ bounded lane ]--+
//!   any thread --post--> [ control lane ]--+--> owner: doze, wait, take
//!                              |
//!                              +-- wake, only if the owner dozes
//! ```
//!
//! The bounded lane is for everything whose amount the application decides: it can be full, and
//! then the sender gets its item back. The control lane is for what must never be lost (close this
//! connection, a throttle has room again); who posts there has a flag per subject that keeps at
//! most one such item under way, so its length is bounded by the number of connections.
//!
//! A wake-up costs a system call, so it is left out when it is not needed: contract E-9 asks for
//! one only when the queue turns non-empty under another thread's hand. Here the owner says when it
//! is about to sleep ([`Inbox::doze`]) and the first sender after that wakes it; all others, the
//! owner's own thread among them, only append.

use crossbeam::queue::{ArrayQueue, SegQueue};
use netstack::stack::Waker;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// A queue with many senders and one owner. See the [module](self) for the two lanes.
pub struct Inbox<X> {
    bounded: ArrayQueue<X>,
    control: SegQueue<X>,
    /// The lane that comes first in the next take, so that neither starves the other.
    bounded_first: AtomicBool,
    /// Set by the owner before it sleeps, taken by the sender that wakes it.
    dozing: AtomicBool,
    waker: Waker,
}

impl<X> Inbox<X> {
    /// An empty inbox whose bounded lane holds up to `capacity` items; `waker` ends the owner's
    /// sleep.
    ///
    /// # Panics
    /// If `capacity` is zero.
    pub fn new(capacity: usize, waker: Waker) -> Self {
        Self {
            bounded: ArrayQueue::new(capacity),
            control: SegQueue::new(),
            bounded_first: AtomicBool::new(false),
            dozing: AtomicBool::new(false),
            waker,
        }
    }

    /// Appends to the bounded lane. Never blocks; any thread.
    ///
    /// # Errors
    /// Gives the item back if the lane is full.
    pub fn send(&self, item: X) -> Result<(), X> {
        self.bounded.push(item)?;
        self.wake_if_dozing();
        Ok(())
    }

    /// Appends to the control lane, which is never full. Never blocks; any thread.
    ///
    /// The caller keeps the number of its items under way bounded.
    pub fn post(&self, item: X) {
        self.control.push(item);
        self.wake_if_dozing();
    }

    /// Takes the oldest item of a lane; the lanes take turns. Only for the owner.
    pub fn take(&self) -> Option<X> {
        let bounded_first = self.bounded_first.load(Ordering::Relaxed);
        self.bounded_first.store(!bounded_first, Ordering::Relaxed);
        match bounded_first {
            true => self.bounded.pop().or_else(|| self.control.pop()),
            false => self.control.pop().or_else(|| self.bounded.pop()),
        }
    }

    /// Whether both lanes are empty at this moment.
    pub fn is_empty(&self) -> bool {
        self.bounded.is_empty() && self.control.is_empty()
    }

    /// Whether the bounded lane is empty at this moment.
    pub(crate) fn is_bounded_empty(&self) -> bool {
        self.bounded.is_empty()
    }

    /// Items the bounded lane holds at the most.
    pub(crate) fn capacity(&self) -> usize {
        self.bounded.capacity()
    }

    /// Whether the bounded lane is more than half full.
    pub fn is_crowded(&self) -> bool {
        self.bounded.len() > self.bounded.capacity() / 2
    }

    /// The owner announces its sleep. `false`: there is something to take, so it must not sleep.
    ///
    /// After `true` every sender sees the announcement, or was seen by the check here: the store
    /// and the look at the queue on this side, the push and the look at the flag on the other, have
    /// a sequentially consistent fence in between on both sides, so they cannot both miss.
    pub fn doze(&self) -> bool {
        self.dozing.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return true;
        }
        self.rouse();
        false
    }

    /// The owner is awake again.
    pub fn rouse(&self) {
        self.dozing.store(false, Ordering::Relaxed);
    }

    fn wake_if_dozing(&self) {
        fence(Ordering::SeqCst);
        if self.dozing.load(Ordering::Relaxed) && self.dozing.swap(false, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

impl<X> fmt::Debug for Inbox<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("bounded", &self.bounded.len())
            .field("control", &self.control.len())
            .field("capacity", &self.bounded.capacity())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    fn counted() -> (Inbox<u32>, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&wakes);
        let waker = Waker::new(move || {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        (Inbox::new(4, waker), wakes)
    }

    #[test]
    fn a_sleeper_is_woken_once_however_many_items_come() {
        let (inbox, wakes) = counted();
        assert!(inbox.doze());
        inbox.send(1).unwrap();
        inbox.send(2).unwrap();
        inbox.post(3);
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_owner_that_is_awake_is_not_woken() {
        let (inbox, wakes) = counted();
        inbox.send(1).unwrap();
        inbox.post(2);
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_owner_with_work_is_not_allowed_to_sleep() {
        let (inbox, wakes) = counted();
        inbox.send(1).unwrap();
        assert!(!inbox.doze());
        inbox.send(2).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_lane_gives_the_item_back_and_control_passes_it() {
        let (inbox, _) = counted();
        for item in 0..4 {
            inbox.send(item).unwrap();
        }
        assert_eq!(inbox.send(4), Err(4));
        inbox.post(8);
        inbox.post(9);
        let order: Vec<_> = std::iter::from_fn(|| inbox.take()).collect();
        assert_eq!(order, [8, 0, 9, 1, 2, 3]);
        assert!(inbox.is_empty());
    }

    #[test]
    fn crowded_means_more_than_half() {
        let (inbox, _) = counted();
        inbox.send(1).unwrap();
        inbox.send(2).unwrap();
        assert!(!inbox.is_crowded());
        inbox.send(3).unwrap();
        assert!(inbox.is_crowded());
    }
}
