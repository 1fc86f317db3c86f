//! What the application implements: callbacks for messages and for the lives of connections.
//!
//! ```text
//!   worker thread (never block there)           dispatch thread (one per messenger)
//!     handle_fast_authentication
//!     handle_fast_connect / handle_fast_accept    handle_connect / handle_accept
//!     fast_preprocess                             dispatch
//!     can_fast_dispatch? -> fast_dispatch         handle_remote_reset, handle_reset
//!                                                 handle_refused
//! ```
//!
//! Messages to oneself come on the local-delivery thread in place of a worker. Every callback may
//! send, connect and mark connections down, the one it was called for included; none may wait for
//! the messenger to end (contract D-15). A callback that panics ends its connection, not its
//! thread.

use crate::connection::Connection;
use messenger_proto::message::Message;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The application's side of a messenger. All methods have defaults that take no interest.
///
/// Several dispatchers may stand in one messenger, see
/// [`Messenger::add_dispatcher_head`](crate::Messenger::add_dispatcher_head).
pub trait Dispatcher: Send + Sync {
    /// Whether [`Dispatcher::can_fast_dispatch`] can ever be true. Asked once, when the dispatcher
    /// is added (D-2).
    fn can_fast_dispatch_any(&self) -> bool {
        false
    }

    /// Whether this message is for [`Dispatcher::fast_dispatch`]: a pure predicate that may be
    /// asked several times for one message (D-3).
    fn can_fast_dispatch(&self, message: &Message) -> bool {
        let _ = message;
        false
    }

    /// Sees every message in the order its connection received it, before it is decided whether
    /// the message is fast (D-1). Fast dispatchers only. Worker thread.
    fn fast_preprocess(&self, message: &Message) {
        let _ = message;
    }

    /// Takes a message on the thread that received it: no queue and no switch of threads, and so
    /// it must not block. It may run before the queued [`Dispatcher::handle_accept`] or
    /// [`Dispatcher::handle_connect`], and after a reset was queued (D-4).
    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        let _ = (connection, message);
    }

    /// Takes a message on the dispatch thread (D-5).
    ///
    /// # Errors
    /// Gives a message back that is not for this dispatcher; the next one is asked. A message that
    /// nobody takes is logged and dropped.
    fn dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        let _ = connection;
        Err(message)
    }

    /// A peer proved who it is; this is the moment to attach a session of the application's to the
    /// connection, see [`Connection::set_priv_data`]. `false` turns the peer away. Called before
    /// any other callback of the connection, and again when the peer comes back on a new TCP
    /// connection, then for that one. All dispatchers must agree (D-12). Worker thread.
    fn handle_fast_authentication(&self, connection: &Connection) -> bool {
        let _ = connection;
        true
    }

    /// Our connection became usable, for the first time or again; called before any message of the
    /// session is handed out (D-6). Worker thread.
    fn handle_fast_connect(&self, connection: &Connection) {
        let _ = connection;
    }

    /// A connection from a peer became usable (D-7). Worker thread.
    fn handle_fast_accept(&self, connection: &Connection) {
        let _ = connection;
    }

    /// As [`Dispatcher::handle_fast_connect`], queued to the dispatch thread (D-8).
    fn handle_connect(&self, connection: &Connection) {
        let _ = connection;
    }

    /// As [`Dispatcher::handle_fast_accept`], queued to the dispatch thread (D-8).
    fn handle_accept(&self, connection: &Connection) {
        let _ = connection;
    }

    /// The connection is dead for good; no queued message of it follows (D-9, D-14). `true` keeps
    /// it from the dispatchers behind this one. Dispatch thread.
    fn handle_reset(&self, connection: &Connection) -> bool {
        let _ = connection;
        false
    }

    /// The peer lost the session: what was queued or not acknowledged is gone, the connection goes
    /// on with a new session (D-10). Dispatch thread.
    fn handle_remote_reset(&self, connection: &Connection) {
        let _ = connection;
    }

    /// The peer's machine refused the TCP connection; it will be tried again (D-11). `true` keeps
    /// it from the dispatchers behind this one. Dispatch thread.
    fn handle_refused(&self, connection: &Connection) -> bool {
        let _ = connection;
        false
    }
}

/// Where a dispatcher stands among others: the lower number is asked first (contract M-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DispatcherPriority(pub u32);

impl DispatcherPriority {
    /// Asked before the default ones.
    pub const HIGH: Self = Self(u32::MAX / 4);
    /// Where most stand.
    pub const DEFAULT: Self = Self(u32::MAX / 2);
    /// Asked after the default ones.
    pub const LOW: Self = Self(u32::MAX / 4 * 3);
}

impl Default for DispatcherPriority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The dispatchers of one messenger in the order they are asked, and the fast ones among them.
#[derive(Clone, Default)]
pub(crate) struct Dispatchers {
    all: Vec<Place>,
    panics: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Place {
    dispatcher: Arc<dyn Dispatcher>,
    priority: DispatcherPriority,
    fast: bool,
}

impl Dispatchers {
    /// Adds before those of equal priority.
    pub(crate) fn add_head(&mut self, dispatcher: Arc<dyn Dispatcher>, at: DispatcherPriority) {
        let index = self.all.partition_point(|place| place.priority < at);
        self.insert(index, dispatcher, at);
    }

    /// Adds behind those of equal priority.
    pub(crate) fn add_tail(&mut self, dispatcher: Arc<dyn Dispatcher>, at: DispatcherPriority) {
        let index = self.all.partition_point(|place| place.priority <= at);
        self.insert(index, dispatcher, at);
    }

    fn insert(
        &mut self,
        index: usize,
        dispatcher: Arc<dyn Dispatcher>,
        priority: DispatcherPriority,
    ) {
        let fast = dispatcher.can_fast_dispatch_any();
        let place = Place { dispatcher, priority, fast };
        self.all.insert(index, place);
    }

    /// User callbacks that panicked so far.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Shows the message to the fast dispatchers and hands it to the first that wants it; gives it
    /// back if it is for the queue.
    pub(crate) fn try_fast(&self, connection: &Connection, message: Message) -> Option<Message> {
        if !self.all.iter().any(|place| place.fast) {
            return Some(message);
        }
        let taker = self.guard(connection, None, || {
            for dispatcher in self.fast() {
                dispatcher.fast_preprocess(&message);
            }
            self.fast().find(|d| d.can_fast_dispatch(&message))
        });
        let Some(dispatcher) = taker else {
            return Some(message);
        };
        self.guard(connection, (), || {
            fast_dispatch(&**dispatcher, connection, message);
        });
        None
    }

    /// Hands the message to the first dispatcher that takes it; gives it back if none does.
    pub(crate) fn dispatch(
        &self,
        connection: &Connection,
        mut message: Message,
    ) -> Result<(), Message> {
        let permit = message.permits.dispatch.take();
        for place in &self.all {
            let attempt = || place.dispatcher.dispatch(connection, message);
            match self.guard(connection, Ok(()), attempt) {
                Ok(()) => return Ok(()),
                Err(back) => message = back,
            }
        }
        drop(permit);
        Err(message)
    }

    /// Whether all dispatchers let the peer in; one that panics does not.
    pub(crate) fn admit(&self, connection: &Connection) -> bool {
        let admits = |place: &Place| place.dispatcher.handle_fast_authentication(connection);
        self.all.iter().all(|place| self.guard(connection, false, || admits(place)))
    }

    /// Calls all dispatchers.
    pub(crate) fn tell(&self, connection: &Connection, news: fn(&dyn Dispatcher, &Connection)) {
        for place in &self.all {
            self.guard(connection, (), || news(&*place.dispatcher, connection));
        }
    }

    /// Calls dispatchers until one says that it saw to it.
    pub(crate) fn ask(
        &self,
        connection: &Connection,
        news: fn(&dyn Dispatcher, &Connection) -> bool,
    ) {
        let mut asked = self.all.iter();
        asked.any(|place| self.guard(connection, false, || news(&*place.dispatcher, connection)));
    }

    fn fast(&self) -> impl Iterator<Item = &Arc<dyn Dispatcher>> {
        let fast = self.all.iter().filter(|place| place.fast);
        fast.map(|place| &place.dispatcher)
    }

    /// Runs user code; if it panics, the connection it was called for ends, and `otherwise` is the
    /// result. User state that the panic left half-changed is the user's to judge.
    fn guard<R>(&self, connection: &Connection, otherwise: R, call: impl FnOnce() -> R) -> R {
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%connection, "a dispatcher panicked; its connection ends");
            connection.close();
            otherwise
        })
    }
}

/// The dispatch budget's share comes back when the callback returns, whatever the application does
/// with the message (contract T-4).
fn fast_dispatch(dispatcher: &dyn Dispatcher, connection: &Connection, mut message: Message) {
    let permit = message.permits.dispatch.take();
    dispatcher.fast_dispatch(connection, message);
    drop(permit);
}

impl fmt::Debug for Dispatchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for place in &self.all {
            list.entry(&(place.priority.0, place.fast));
        }
        list.finish()
    }
}
