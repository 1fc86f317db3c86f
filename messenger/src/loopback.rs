//! Messages to ourselves: a queue and a thread in place of a socket and a worker.
//!
//! No encoding, no checksum, no throttle; first in, first out (semantics 1.13, contract Q-11).

use crate::connection::SendError;
use crate::endpoint::Endpoint;
use messenger_proto::message::Message;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most messages under way to ourselves; beyond it the sender gets its message back.
pub(crate) const LOCAL_QUEUE_MAX: usize = 65_536;

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    stopped: bool,
}

/// The queue of the local-delivery thread.
#[derive(Debug, Default)]
pub(crate) struct LocalQueue {
    state: Mutex<State>,
    bell: Condvar,
}

impl LocalQueue {
    pub(crate) fn push(&self, message: Message) -> Result<(), SendError> {
        let mut state = self.lock();
        if state.stopped {
            return Err(SendError::Closed(message));
        }
        if state.messages.len() == LOCAL_QUEUE_MAX {
            return Err(SendError::Full(message));
        }
        state.messages.push_back(message);
        self.bell.notify_one();
        Ok(())
    }

    /// Lets the thread end; what is queued is dropped (contract M-15).
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let dropped = std::mem::take(&mut state.messages);
        self.bell.notify_all();
        drop(state);
        drop(dropped);
    }

    /// The local-delivery thread: hands out until [`LocalQueue::stop`].
    pub(crate) fn run(&self, endpoint: &Endpoint) {
        while let Some(message) = self.next() {
            endpoint.deliver(endpoint.loopback(), message);
        }
    }

    /// Hands out one message, if there is one, in place of the local-delivery thread.
    pub(crate) fn run_once(&self, endpoint: &Endpoint) -> bool {
        let next = self.lock().messages.pop_front();
        next.map(|message| endpoint.deliver(endpoint.loopback(), message)).is_some()
    }

    fn next(&self) -> Option<Message> {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Some(message);
            }
            if state.stopped {
                return None;
            }
            let woken = self.bell.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
