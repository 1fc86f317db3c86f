//! The descriptors a driver waits for, each with what the kernel is still to be asked for.
//!
//! `poll` and `select` tell the *level*: a descriptor nobody reads stays readable, and asking again
//! would be answered at once, for ever. So a descriptor is asked about what it is **armed** for,
//! and no more. What was reported is disarmed; it is armed again when its owner was told
//! would-block. The owner sees the edges that [`crate::stack`] promises, and nobody spins.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Fired;
use crate::stack::{Readiness, SocketId};

/// A table of descriptors by the slot of their names; it grows as needed (contract E-3).
///
/// It shares each descriptor with its owner, so that none can be closed, and its number used for
/// another, while the kernel is asked about it.
#[derive(Debug, Default)]
pub(super) struct Watched {
    slots: Vec<Option<Entry>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: SocketId,
    pub(super) fd: Arc<OwnedFd>,
    interest: Readiness,
    /// The part of the interest that was not reported, or was asked for again.
    pub(super) armed: Readiness,
}

impl Watched {
    /// Watches `fd`, in place of whatever the slot had.
    pub(super) fn add(&mut self, fd: Arc<OwnedFd>, id: SocketId, interest: Readiness) {
        let slot = id.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Entry { id, fd, interest, armed: interest });
    }

    /// Watches for `interest` from now, all of it armed; the entry and its interest until now, if
    /// there is one.
    pub(super) fn modify(
        &mut self,
        id: SocketId,
        interest: Readiness,
    ) -> Option<(&Entry, Readiness)> {
        let entry = self.entry(id)?;
        let before = std::mem::replace(&mut entry.interest, interest);
        entry.armed = interest;
        Some((entry, before))
    }

    /// Arms what the owner was told would block, as far as it is interested.
    pub(super) fn arm(&mut self, id: SocketId, what: Readiness) {
        if let Some(entry) = self.entry(id) {
            entry.armed |= what.intersection(entry.interest);
        }
    }

    /// Forgets the descriptor and gives it back.
    pub(super) fn remove(&mut self, id: SocketId) -> Option<Arc<OwnedFd>> {
        self.entry(id)?;
        self.slots[id.slot as usize].take().map(|entry| entry.fd)
    }

    /// All that the kernel is to be asked about.
    pub(super) fn armed(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().flatten().filter(|entry| !entry.armed.is_empty())
    }

    /// What the kernel told is not asked for again.
    pub(super) fn disarm(&mut self, fired: &[Fired]) {
        for event in fired {
            if let Some(entry) = self.entry(event.id) {
                entry.armed = entry.armed.without(event.readiness);
            }
        }
    }

    fn entry(&mut self, id: SocketId) -> Option<&mut Entry> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|entry| entry.id == id)
    }
}
