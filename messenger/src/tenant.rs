//! One messenger's share in the workers: its listeners on each of them, its connections on any.

use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::metrics::WorkerCounters;
use crate::registry::Found;
use crate::shell::Wanted;
use crate::worker_loop::{Command, Dial, Listen, ListenerOwner, facts_to_dial};
use crate::workers::{Gate, Workers};
use netstack::stack::{ListenOptions, SocketError};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Tenant {
    workers: Arc<Workers>,
    owner: ListenerOwner,
}

impl Tenant {
    pub(crate) fn new(workers: Arc<Workers>) -> Self {
        static LAST_OWNER: AtomicU64 = AtomicU64::new(0);
        let owner = ListenerOwner(LAST_OWNER.fetch_add(1, Ordering::Relaxed));
        Self { workers, owner }
    }

    /// Listens on every worker, or on none (M-9).
    pub(crate) fn listen(
        &self,
        addr: SocketAddr,
        options: ListenOptions,
    ) -> Result<(), SocketError> {
        for (index, gate) in self.workers.gates().iter().enumerate() {
            let (reply, answer) = channel();
            let listen = Listen { owner: self.owner, addr, options, reply };
            gate.post(Command::Listen(Box::new(listen)));
            let listening = self.workers.answer(&answer).unwrap_or_else(|| {
                let gone = "the worker does not answer";
                Err(SocketError::Io(io::Error::other(gone)))
            });
            if let Err(error) = listening {
                // Not beyond those: it may be our own listener that is in the way.
                for done in self.unlisten_on(&self.workers.gates()[..index], Some(addr)) {
                    // No answer, no listener.
                    let _ = self.workers.answer(&done);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Closes our listeners, or those at one address; each worker answers when it is done.
    pub(crate) fn unlisten(&self, addr: Option<SocketAddr>) -> Vec<Receiver<()>> {
        self.unlisten_on(self.workers.gates(), addr)
    }

    fn unlisten_on(&self, gates: &[Arc<Gate>], addr: Option<SocketAddr>) -> Vec<Receiver<()>> {
        let ask = |gate: &Arc<Gate>| {
            let (done, answer) = channel();
            gate.post(Command::Unlisten(self.owner, addr, done));
            answer
        };
        gates.iter().map(ask).collect()
    }

    pub(crate) fn serve(&self, endpoint: &Arc<Endpoint>) {
        for gate in self.workers.gates() {
            gate.post(Command::Serve(self.owner, Arc::clone(endpoint)));
        }
    }

    /// The connection there is, or a new one on the worker with the fewest.
    pub(crate) fn connect(
        &self,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted<'_>,
    ) -> Result<Connection, Error> {
        let gate = self.workers.least_loaded().ok_or(Error::WorkersGone)?;
        // It dials before anybody else finds it, so whatever they send comes behind that.
        let make = || {
            let facts = facts_to_dial(wanted.kind, wanted.addrs.clone(), wanted.target.socket);
            let connection = Connection::new(endpoint, Arc::clone(gate), facts, wanted.anonymous);
            let dial = Dial {
                connection: connection.clone(),
                endpoint: Arc::clone(endpoint),
                peer_type: wanted.kind,
                target: wanted.target,
            };
            let dialled = gate.send(Command::Dial(Box::new(dial)));
            dialled.map(|()| connection).map_err(|_| Error::Busy)
        };
        let found = endpoint.registry.find_or_insert(wanted.shared(), make);
        if !matches!(found, Ok((_, Found::New))) {
            gate.drop_reference();
        }
        found.map(|(connection, _)| connection)
    }

    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    pub(crate) fn counters(&self) -> Vec<WorkerCounters> {
        self.workers.counters()
    }

    pub(crate) fn runs_current_thread(&self) -> bool {
        self.workers.runs_current_thread()
    }
}
