//! Destinations an application posts for the data of replies it waits for (contract C-13).
//!
//! ```text
//!   post(tid) --> Posted --reply's data begins--> Lent --last byte--> gone: it is the message's data
//!                   ^                               |
//!                   '------- transport broke -------'   the reply will come again
//! ```
//!
//! The data section of the message with that tid is read straight into the buffer, and
//! [`Message::data`](crate::Message::data) then *is* the buffer:
//! [`Bytes::try_into_mut`](bytes::Bytes::try_into_mut) gives it back without a copy. A buffer that
//! is too small is left alone. Revoking is safe at any time: what is being read into is owned by
//! the session until the message is there or its transport is gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

/// Most buffers one connection has posted at a time.
pub const RX_BUFFERS_MAX: usize = 4096;

/// The posted buffers of one connection; any thread. A session without any pays one look at a
/// counter a message.
#[derive(Debug, Default)]
pub struct RxBuffers {
    count: AtomicUsize,
    buffers: Mutex<BTreeMap<u64, Place>>,
}

#[derive(Debug)]
enum Place {
    Posted(BytesMut),
    Lent,
}

impl RxBuffers {
    /// Posts a buffer whose capacity is at least the length of the data expected. One that was
    /// posted under the same tid before is replaced.
    ///
    /// # Errors
    /// Gives it back if [`RX_BUFFERS_MAX`] are posted.
    pub fn post(&self, tid: u64, buffer: BytesMut) -> Result<(), BytesMut> {
        let mut buffers = self.lock();
        if buffers.len() >= RX_BUFFERS_MAX && !buffers.contains_key(&tid) {
            return Err(buffer);
        }
        buffers.insert(tid, Place::Posted(buffer));
        self.count.store(buffers.len(), Ordering::Release);
        Ok(())
    }

    /// Takes a buffer back. `None`: it is unknown, used up, or being read into; in the last case
    /// it comes with its message, or is freed if that never completes.
    pub fn revoke(&self, tid: u64) -> Option<BytesMut> {
        match self.remove(&mut self.lock(), tid)? {
            Place::Posted(buffer) => Some(buffer),
            Place::Lent => None,
        }
    }

    /// How many are posted, those being read into included.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Lends the buffer for `tid` if it takes `len` bytes; it has exactly that length then.
    pub(crate) fn lend(&self, tid: u64, len: usize) -> Option<BytesMut> {
        let mut buffers = self.lock();
        let place = buffers.get_mut(&tid)?;
        if !matches!(place, Place::Posted(buffer) if buffer.capacity() >= len) {
            return None;
        }
        let Place::Posted(mut buffer) = std::mem::replace(place, Place::Lent) else {
            return None;
        };
        buffer.resize(len, 0);
        Some(buffer)
    }

    /// The message that has the buffer is complete.
    pub(crate) fn spend(&self, tid: u64) {
        self.remove(&mut self.lock(), tid);
    }

    /// The message did not complete: its next copy may use the buffer.
    pub(crate) fn restore(&self, tid: u64, buffer: BytesMut) {
        if let Some(place @ Place::Lent) = self.lock().get_mut(&tid) {
            *place = Place::Posted(buffer);
        }
    }

    fn remove(
        &self,
        buffers: &mut MutexGuard<'_, BTreeMap<u64, Place>>,
        tid: u64,
    ) -> Option<Place> {
        let place = buffers.remove(&tid);
        self.count.store(buffers.len(), Ordering::Release);
        place
    }

    /// The map is whole at every moment.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Place>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_once_and_comes_back_unless_it_was_revoked() {
        let buffers = RxBuffers::default();
        buffers.post(7, BytesMut::with_capacity(100)).unwrap();
        assert!(buffers.lend(7, 101).is_none(), "too small");
        assert!(buffers.lend(8, 1).is_none());
        let buffer = buffers.lend(7, 100).unwrap();
        assert_eq!(buffer.len(), 100);
        assert!(buffers.lend(7, 1).is_none(), "in use");
        buffers.restore(7, buffer);
        let buffer = buffers.lend(7, 50).unwrap();
        assert!(buffers.revoke(7).is_none());
        buffers.restore(7, buffer);
        assert_eq!(buffers.count(), 0);
    }

    #[test]
    fn the_number_of_buffers_is_bounded() {
        let buffers = RxBuffers::default();
        for tid in 0..RX_BUFFERS_MAX as u64 {
            buffers.post(tid, BytesMut::new()).unwrap();
        }
        assert!(buffers.post(1 << 40, BytesMut::new()).is_err());
        assert!(buffers.post(3, BytesMut::new()).is_ok(), "one in the place of another");
        assert!(buffers.revoke(3).is_some() && buffers.revoke(3).is_none());
    }
}
