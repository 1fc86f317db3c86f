//! The blocking twin of the worker loop: a thread per listening address, two per connection.
//!
//! ```text
//!   Accepter (thread) --accepted--> Pipe <--dialled-- Messenger::connect_to
//!                                   /  \
//!                  Reader (thread) /    \ Writer (thread)
//!             read, hand out what |      | connect, write, time
//!             the session says    |      |
//!                                 Session (the same, sans-IO)
//! ```
//!
//! It keeps the contracts of the worker loop with other machinery, kernel TCP that blocks and
//! locks in place of polling and inboxes, so what differs between the two is a bug in one of them.
//! Two differences are meant. A stream is closed at once and does not linger as a worker's does, so
//! a peer that still sends may lose the end of what was sent to it. And it is not for speed: a
//! message costs a switch of threads, a connection two stacks (semantics 1.16, SM-10).

use crate::clock::Clock;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::metrics::{Counters, WorkerCounters};
use crate::registry::Found;
use crate::seeds::Seeds;
use crate::shell::Wanted;
use accepter::Accepter;
use netstack::posix::PosixConfig;
use netstack::stack::{ListenOptions, SocketError};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use threads::Threads;

pub(crate) use pipe::Pipe;

mod accepter;
mod adoption;
mod bell;
mod link;
mod pipe;
mod reader;
mod settling;
mod threads;
mod writer;

/// Most connections of a messenger, whatever the configuration says: each has two threads.
const PIPES_MAX: usize = 4096;

/// One messenger's machinery. See the [module](self).
pub(crate) struct Simple {
    options: PosixConfig,
    clock: Clock,
    accepters: Mutex<Vec<Accepter>>,
    threads: Arc<Threads>,
    counters: Mutex<Counters>,
    seeds: Mutex<Seeds>,
}

impl Simple {
    /// Of `options` it heeds what is about sockets, and as its share the most connections of a
    /// worker.
    pub(crate) fn new(options: PosixConfig) -> io::Result<Arc<Self>> {
        let secret = getrandom::u64().map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            options,
            clock: Clock::real(),
            accepters: Mutex::default(),
            threads: Arc::default(),
            counters: Mutex::default(),
            seeds: Mutex::new(Seeds::new(secret)),
        }))
    }

    pub(crate) fn listen(
        &self,
        addr: SocketAddr,
        options: ListenOptions,
    ) -> Result<(), SocketError> {
        let accepter = Accepter::bind(&self.options, addr, options)?;
        lock(&self.accepters).push(accepter);
        Ok(())
    }

    pub(crate) fn unlisten(&self, addr: Option<SocketAddr>) -> Vec<Receiver<()>> {
        let mut accepters = lock(&self.accepters);
        let meant = |accepter: &mut Accepter| addr.is_none_or(|addr| addr == accepter.addr());
        accepters.extract_if(.., meant).filter_map(Accepter::stop).collect()
    }

    pub(crate) fn serve(self: &Arc<Self>, endpoint: &Arc<Endpoint>) -> io::Result<()> {
        let mut accepters = lock(&self.accepters);
        accepters.iter_mut().try_for_each(|accepter| accepter.start(self, endpoint))
    }

    pub(crate) fn connect(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        wanted: Wanted<'_>,
    ) -> Result<Connection, Error> {
        let make = || Ok(Pipe::dial(self, endpoint, wanted));
        let (connection, found) = endpoint.registry.find_or_insert(wanted.shared(), make)?;
        if found == Found::New
            && let Some(pipe) = connection.pipe()
        {
            pipe.start(&connection, endpoint)?;
        }
        Ok(connection)
    }

    /// Waits for the threads of connections that have ended, and of listeners.
    pub(crate) fn join(&self) {
        self.threads.join();
    }

    pub(crate) fn counters(&self) -> WorkerCounters {
        let messenger = lock(&self.counters).named();
        WorkerCounters { worker: 0, messenger, transport: Vec::new() }
    }

    pub(crate) fn runs_current_thread(&self) -> bool {
        self.threads.runs_current()
    }

    /// One connection more, for which [`Simple::leave`] follows, also if they are too many.
    fn enter(&self) -> Result<(), Error> {
        let most = self.options.max_connections.min(PIPES_MAX);
        let mut counters = lock(&self.counters);
        counters.created_connections += 1;
        counters.active_connections += 1;
        match counters.active_connections > most as u64 {
            true => Err(Error::TooManyConnections(most)),
            false => Ok(()),
        }
    }

    fn leave(&self) {
        lock(&self.counters).active_connections -= 1;
    }

    fn count(&self, count: impl FnOnce(&mut Counters)) {
        count(&mut lock(&self.counters));
    }

    /// The machine's: threads that sleep know no other.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A random number nobody outside can predict.
    pub(crate) fn draw(&self) -> u64 {
        lock(&self.seeds).draw()
    }
}

/// What these locks guard is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Simple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simple").field("accepters", &self.accepters).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Config, ConnectOptions, EntityAddr, EntityName, EntityType, Error, Messenger, MsType,
        PosixTable,
    };

    #[test]
    fn a_connection_that_there_are_no_threads_for_is_refused() {
        let config = Config {
            ms_type: MsType::Simple,
            posix: PosixTable { max_connections: 2, ..PosixTable::default() },
            ..Config::default()
        };
        let messenger = Messenger::create(EntityName::new(EntityType::Client, 1), config).unwrap();
        messenger.start().unwrap();
        let nobody = EntityAddr::v2("127.0.0.1:1".parse().unwrap(), 1).into();
        let options = ConnectOptions { anonymous: true, not_local: false };
        let connect = || messenger.connect_to(EntityType::Osd, &nobody, options);
        let (first, _second) = (connect().unwrap(), connect().unwrap());
        assert!(matches!(connect(), Err(Error::TooManyConnections(2))));
        assert_eq!(messenger.counters().connections, 2);
        first.mark_down();
        while messenger.counters().connections == 2 {
            std::thread::yield_now();
        }
        connect().unwrap();
        messenger.shutdown();
        messenger.wait().unwrap();
        assert_eq!(messenger.counters().total("msgr_active_connections"), 0);
    }
}
