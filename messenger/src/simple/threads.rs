//! The threads of one messenger, none of which outlives a [`Threads::join`].
//!
//! Who ends joins the one that ended before it:
//!
//! ```text
//!   live: A B C          B ends:  ended = B
//!   live: A C            A ends:  ended = A, joins B
//!   live: C              join():  waits for C to end, then joins it; C joins A
//! ```
//!
//! so at any time one thread at most has ended and waits to be joined, and nobody is needed who
//! does nothing else.

use slab::Slab;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Threads {
    state: Mutex<State>,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    live: Slab<JoinHandle<()>>,
    ended: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts one that runs `body`.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let mut state = self.lock(); // so that it does not end before it is listed
        let slot = state.live.vacant_entry();
        let (threads, key) = (Arc::clone(self), slot.key());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _exit = Exit { threads, key };
            body();
        });
        slot.insert(thread?);
        Ok(())
    }

    /// Whether the calling thread is one of them.
    pub(super) fn runs_current(&self) -> bool {
        let current = std::thread::current().id();
        self.lock().live.iter().any(|(_, thread)| thread.thread().id() == current)
    }

    /// Waits until all have ended. Not for one of them to call.
    pub(super) fn join(&self) {
        let mut state = self.lock();
        while !state.live.is_empty() {
            let woken = self.emptied.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        let last = state.ended.take();
        drop(state);
        join(last);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's last act, also if it panics.
struct Exit {
    threads: Arc<Threads>,
    key: usize,
}

impl Drop for Exit {
    fn drop(&mut self) {
        let mut state = self.threads.lock();
        let own = state.live.remove(self.key);
        let before = state.ended.replace(own);
        if state.live.is_empty() {
            self.threads.emptied.notify_all();
        }
        drop(state);
        join(before);
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of a connection panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    #[test]
    fn all_have_ended_when_they_are_joined() {
        let threads = Arc::new(Threads::default());
        let ended = Arc::new(AtomicUsize::new(0));
        for _ in 0..50 {
            let ended = Arc::clone(&ended);
            let body = move || {
                ended.fetch_add(1, Ordering::Relaxed);
            };
            threads.spawn("test", body).unwrap();
        }
        threads.join();
        assert_eq!(ended.load(Ordering::Relaxed), 50);
        assert_eq!(Arc::strong_count(&threads), 1, "their last acts are over, too");
        threads.join();
    }

    #[test]
    fn one_that_panics_is_joined_like_the_others() {
        let threads = Arc::new(Threads::default());
        threads.spawn("test", || panic!("a test of panics: expected in the output")).unwrap();
        threads.join();
        assert_eq!(Arc::strong_count(&threads), 1);
    }

    #[test]
    fn a_thread_knows_whose_it_is() {
        let threads = Arc::new(Threads::default());
        let (tell, told) = channel();
        let inside = Arc::clone(&threads);
        threads.spawn("test", move || tell.send(inside.runs_current()).unwrap()).unwrap();
        assert!(told.recv().unwrap());
        assert!(!threads.runs_current());
        threads.join();
    }
}
