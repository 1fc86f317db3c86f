//! Which connections a messenger has, and who is found under which addresses.
//!
//! Every live connection is listed by its id, from its making until its worker has let go of the
//! session; that is how [`Messenger::wait`](crate::Messenger::wait) knows that nothing is left.
//! Those that others may share are also found by the peer's complete address vector, nonces
//! included.

use crate::connection::Connection;
use crate::error::Error;
use messenger_proto::{EntityAddrVec, IdentRequest, PeerIdent};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct Listing {
    connection: Connection,
    /// Under which it is found; none for anonymous and accepting connections.
    addrs: Option<EntityAddrVec>,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<u64, Listing>,
    by_addrs: HashMap<EntityAddrVec, u64>,
    closed: bool,
}

/// The connections of one messenger. A short lock; not on the path of messages.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    emptied: Condvar,
}

/// The messenger takes no new connections.
#[derive(Debug)]
pub(crate) struct RegistryClosed;

impl Registry {
    /// The connection registered under `addrs`, or the one that `make` makes; without `addrs` it
    /// is always a new one. Nobody finds the new one before `make` is done with it.
    pub(crate) fn find_or_insert(
        &self,
        addrs: Option<&EntityAddrVec>,
        make: impl FnOnce() -> Result<Connection, Error>,
    ) -> Result<(Connection, Found), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::NotRunning);
        }
        if let Some(listing) = addrs.and_then(|addrs| state.find(addrs)) {
            return Ok((listing.connection.clone(), Found::Old));
        }
        let connection = make()?;
        state.insert(connection.clone(), addrs.cloned());
        Ok((connection, Found::New))
    }

    /// Lists a connection that nobody finds by address (yet).
    pub(crate) fn insert(&self, connection: Connection) -> Result<(), RegistryClosed> {
        let mut state = self.lock();
        if state.closed {
            return Err(RegistryClosed);
        }
        state.insert(connection, None);
        Ok(())
    }

    /// The live connection registered under `addrs`.
    pub(crate) fn find(&self, addrs: &EntityAddrVec) -> Option<Connection> {
        self.lock().find(addrs).map(|listing| listing.connection.clone())
    }

    /// The live connection that has the addresses of a peer that introduced itself on `newcomer`;
    /// if there is none and the peer wants a new session, they are the newcomer's from now.
    pub(crate) fn claim(
        &self,
        newcomer: &Connection,
        ident: &PeerIdent,
    ) -> Result<Option<Connection>, RegistryClosed> {
        let mut state = self.lock();
        if state.closed {
            return Err(RegistryClosed);
        }
        if let Some(existing) = state.find(&ident.addrs) {
            return Ok(Some(existing.connection.clone()));
        }
        if let IdentRequest::New { .. } | IdentRequest::Connect { connect_seq: 0, .. } =
            ident.request
        {
            state.list(newcomer, &ident.addrs);
        }
        Ok(None)
    }

    /// Nobody finds it by address any more.
    pub(crate) fn unlist(&self, connection: &Connection) {
        self.lock().unlist(connection);
    }

    /// Its session is gone.
    pub(crate) fn forget(&self, connection: &Connection) {
        let mut state = self.lock();
        state.unlist(connection);
        let listing = state.by_id.remove(&connection.id());
        if state.by_id.is_empty() {
            self.emptied.notify_all();
        }
        drop(state);
        drop(listing);
    }

    /// All live connections, oldest first.
    pub(crate) fn all(&self) -> Vec<Connection> {
        let state = self.lock();
        state.by_id.values().map(|listing| listing.connection.clone()).collect()
    }

    /// How many live connections there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Takes no new connections from now.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
    }

    /// Blocks until the last connection is forgotten.
    pub(crate) fn wait_until_empty(&self) {
        let mut state = self.lock();
        while !state.by_id.is_empty() {
            let woken = self.emptied.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a connection was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Old,
    New,
}

impl State {
    fn find(&self, addrs: &EntityAddrVec) -> Option<&Listing> {
        let listing = self.by_id.get(self.by_addrs.get(addrs)?)?;
        (!listing.connection.is_down()).then_some(listing)
    }

    fn insert(&mut self, connection: Connection, addrs: Option<EntityAddrVec>) {
        let id = connection.id();
        if let Some(addrs) = &addrs {
            self.by_addrs.insert(addrs.clone(), id);
        }
        let listing = Listing { connection, addrs };
        self.by_id.insert(id, listing);
    }

    fn list(&mut self, connection: &Connection, addrs: &EntityAddrVec) {
        if let Some(listing) = self.by_id.get_mut(&connection.id()) {
            listing.addrs = Some(addrs.clone());
            self.by_addrs.insert(addrs.clone(), connection.id());
        }
    }

    fn unlist(&mut self, connection: &Connection) {
        let id = connection.id();
        let Some(listing) = self.by_id.get_mut(&id) else {
            return;
        };
        if let Some(addrs) = listing.addrs.take()
            && self.by_addrs.get(&addrs) == Some(&id)
        {
            self.by_addrs.remove(&addrs);
        }
    }
}
