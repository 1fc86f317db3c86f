//! What runs on every host: sends what it is told to, takes everything, reports everything.

use crate::cast::Cast;
use crate::history::{Event, History, Wish};
use crate::host::host_of;
use crate::label::{Label, Lane, StreamId};
use crate::{HostId, Life};
use messenger::{Connection, Dispatcher, Message};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes of data of a reply.
const REPLY_LEN_MAX: u32 = 600;

/// A message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parcel {
    /// Priority and way of dispatch.
    pub lane: Lane,
    /// Bytes of data.
    pub len: u32,
    /// Whether the receiver is to send one back.
    pub wants_reply: bool,
}

/// One process's dispatcher.
pub struct Application {
    host: HostId,
    life: Life,
    cast: Arc<Cast>,
    history: Arc<Mutex<History>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// All it ever knew, oldest first.
    connections: Vec<Connection>,
    /// Messages that were taken and not let go.
    held: Vec<Message>,
    hoards: bool,
    /// The process has ended; what it is told now does not count.
    ended: bool,
}

impl Application {
    pub(crate) fn new(
        host: HostId,
        life: Life,
        cast: Arc<Cast>,
        history: Arc<Mutex<History>>,
    ) -> Arc<Self> {
        Arc::new(Self { host, life, cast, history, state: Mutex::default() })
    }

    /// Sends on a connection; `None` if it was not taken.
    pub fn send(&self, connection: &Connection, to: HostId, parcel: Parcel) -> Option<Label> {
        self.know(connection);
        let policy = self.cast.policy_between(self.host, to);
        let wish = Wish {
            from: self.host,
            to,
            to_nonce: connection.peer_addrs().first().map_or(0, |addr| addr.nonce),
            lossless: !policy.lossy,
            resetcheck: policy.resetcheck,
        };
        let stream = StreamId { life: self.life, connection: connection.id() };
        let label = self.history().send(stream, wish, parcel.lane, parcel.wants_reply);
        if connection.send_message(label.message(parcel.len)).is_ok() {
            return Some(label);
        }
        self.history().retract(label);
        None
    }

    /// Its newest connection to a host that can be sent on.
    pub fn connection_to(&self, host: HostId) -> Option<Connection> {
        let is_it = |c: &&Connection| host_of(c) == Some(host) && !c.is_down();
        self.state().connections.iter().rev().find(is_it).cloned()
    }

    /// All connections it ever knew, oldest first.
    pub fn connections(&self) -> Vec<Connection> {
        self.state().connections.clone()
    }

    /// Is about to give a connection up by its address.
    pub(crate) fn forget(&self, connection: &Connection) {
        self.history().forget(self.life, self.host, connection);
    }

    /// Gives a connection up without a word.
    pub fn mark_down(&self, connection: &Connection) {
        let event = Event::MarkedDown { life: self.life, connection: connection.id() };
        if !connection.is_down() {
            self.history().over(self.life, self.host, connection, event);
            connection.mark_down();
        }
    }

    /// Keeps the messages it takes from now on, and their shares of the budgets with them; or lets
    /// them all go.
    pub fn hoard(&self, hoards: bool) {
        let mut state = self.state();
        state.hoards = hoards;
        let held = if hoards { Vec::new() } else { std::mem::take(&mut state.held) };
        drop(state); // a message that goes may wake a session
        drop(held);
    }

    /// Messages and bytes it has sent that have not left.
    pub fn outgoing(&self) -> (usize, usize) {
        let all = self.state().connections.iter().map(Connection::outgoing).collect::<Vec<_>>();
        all.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Nothing it is told counts any more.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.hoard(false);
    }

    fn take(&self, connection: &Connection, message: Message) {
        if self.has_ended() {
            return;
        }
        self.history().deliver(self.life, self.host, connection, &message);
        if let Some(label) = Label::of(&message).filter(|label| label.wants_reply) {
            let from = host_of(connection);
            let len = message.data.len() as u32 % REPLY_LEN_MAX; // below the bound
            let parcel = Parcel { lane: label.lane, len, wants_reply: false };
            if let Some(from) = from {
                self.send(connection, from, parcel);
            }
        }
        let mut state = self.state();
        if state.hoards {
            state.held.push(message);
        }
    }

    fn know(&self, connection: &Connection) {
        let mut state = self.state();
        if !state.connections.contains(connection) {
            state.connections.push(connection.clone());
        }
    }

    fn on_usable(&self, connection: &Connection) {
        if !self.has_ended() {
            self.know(connection);
            self.history().usable(self.life, connection);
        }
    }

    fn has_ended(&self) -> bool {
        self.state().ended
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dispatcher for Application {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, message: &Message) -> bool {
        Label::is_fast(message)
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        self.take(connection, message);
    }

    fn dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        self.take(connection, message);
        Ok(())
    }

    fn handle_fast_connect(&self, connection: &Connection) {
        if !connection.is_loopback() {
            self.on_usable(connection);
        }
    }

    fn handle_fast_accept(&self, connection: &Connection) {
        self.on_usable(connection);
    }

    fn handle_reset(&self, connection: &Connection) -> bool {
        if !self.has_ended() {
            let event = Event::Reset { life: self.life, connection: connection.id() };
            self.history().over(self.life, self.host, connection, event);
        }
        true
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        if !self.has_ended() {
            self.history().peer_lost_session(self.life, self.host, connection);
        }
    }

    fn handle_refused(&self, connection: &Connection) -> bool {
        if !self.has_ended() {
            let event = Event::Refused { life: self.life, connection: connection.id() };
            self.history().note(event);
        }
        true
    }
}

impl std::fmt::Debug for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Application({} life {})", self.cast.name(self.host), self.life)
    }
}
