//! Who moves a messenger's bytes: what a [`Messenger`](crate::Messenger) needs of the machinery
//! below it, whichever that is.

use crate::clock::Clock;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::metrics::WorkerCounters;
use crate::registry::Registry;
use crate::simple::Simple;
use crate::tenant::Tenant;
use crate::workers::ANSWER_WITHIN;
use messenger_proto::{EntityAddr, EntityAddrVec, EntityType};
use netstack::stack::{ListenOptions, SocketError};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Shell {
    /// Threads that poll many connections each, shared by the messengers of a process.
    Workers(Tenant),
    /// Threads that block, two for each connection.
    Simple(Arc<Simple>),
}

/// The connection a caller would like to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) kind: EntityType,
    /// Under which it is found.
    pub(crate) addrs: &'a EntityAddrVec,
    /// The one among them to dial.
    pub(crate) target: EntityAddr,
    pub(crate) anonymous: bool,
}

impl Wanted<'_> {
    /// The addresses under which one that is there will do.
    pub(crate) fn shared(&self) -> Option<&EntityAddrVec> {
        (!self.anonymous).then_some(self.addrs)
    }
}

impl Shell {
    /// Binds an address; nobody is accepted before [`Shell::serve`]. Waits.
    pub(crate) fn listen(
        &self,
        addr: SocketAddr,
        options: ListenOptions,
    ) -> Result<(), SocketError> {
        match self {
            Self::Workers(tenant) => tenant.listen(addr, options),
            Self::Simple(simple) => simple.listen(addr, options),
        }
    }

    /// Closes our listeners, or the one at an address. Each that is returned tells by its end or an
    /// answer that something is closed; does not wait for them.
    pub(crate) fn unlisten(&self, addr: Option<SocketAddr>) -> Vec<Receiver<()>> {
        match self {
            Self::Workers(tenant) => tenant.unlisten(addr),
            Self::Simple(simple) => simple.unlisten(addr),
        }
    }

    /// Accepts on all our listeners from now.
    pub(crate) fn serve(&self, endpoint: &Arc<Endpoint>) -> Result<(), Error> {
        match self {
            Self::Workers(tenant) => {
                tenant.serve(endpoint);
                Ok(())
            }
            Self::Simple(simple) => simple.serve(endpoint).map_err(Error::Thread),
        }
    }

    /// The connection there is, or a new one that dials.
    pub(crate) fn connect(
        &self,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted<'_>,
    ) -> Result<Connection, Error> {
        match self {
            Self::Workers(tenant) => tenant.connect(endpoint, wanted),
            Self::Simple(simple) => simple.connect(endpoint, wanted),
        }
    }

    /// What time it is for everybody here.
    pub(crate) fn clock(&self) -> &Clock {
        match self {
            Self::Workers(tenant) => tenant.workers().clock(),
            Self::Simple(simple) => simple.clock(),
        }
    }

    /// Whether nothing moves but on the caller's thread, see [`Driven`](crate::Driven).
    pub(crate) fn is_driven(&self) -> bool {
        match self {
            Self::Workers(tenant) => tenant.workers().are_driven(),
            Self::Simple(_) => false,
        }
    }

    /// A random number.
    pub(crate) fn draw(&self) -> io::Result<u64> {
        match self {
            Self::Workers(tenant) => tenant.workers().draw(),
            Self::Simple(simple) => Ok(simple.draw()),
        }
    }

    /// Waits for the answer to a command; `None`: nobody will answer.
    pub(crate) fn answer<T>(&self, answer: &Receiver<T>) -> Option<T> {
        match self {
            Self::Workers(tenant) => tenant.workers().answer(answer),
            Self::Simple(_) => answer.recv_timeout(ANSWER_WITHIN).ok(),
        }
    }

    /// Waits until every connection of a registry that takes no more has ended.
    pub(crate) fn wait_until_empty(&self, registry: &Registry) {
        match self {
            Self::Workers(tenant) => tenant.workers().wait_until_empty(registry),
            Self::Simple(_) => registry.wait_until_empty(),
        }
    }

    /// Hands out what the endpoint queues; whether that is to be done by threads instead.
    pub(crate) fn attend(&self, endpoint: &Arc<Endpoint>) -> bool {
        match self {
            Self::Workers(tenant) => tenant.workers().attend(endpoint),
            Self::Simple(_) => true,
        }
    }

    /// Waits for whatever still runs for a messenger that has no connections any more.
    pub(crate) fn join(&self) {
        match self {
            Self::Workers(_) => {} // they go on for others
            Self::Simple(simple) => simple.join(),
        }
    }

    /// Snapshots of the counters. Waits, but not on a thread of its own.
    pub(crate) fn counters(&self) -> Vec<WorkerCounters> {
        match self {
            Self::Workers(tenant) => tenant.counters(),
            Self::Simple(simple) => vec![simple.counters()],
        }
    }

    /// Whether the calling thread is one that must not wait for this machinery.
    pub(crate) fn runs_current_thread(&self) -> bool {
        match self {
            Self::Workers(tenant) => tenant.runs_current_thread(),
            Self::Simple(simple) => simple.runs_current_thread(),
        }
    }
}
