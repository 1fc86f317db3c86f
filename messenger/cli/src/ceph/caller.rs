//! Who we are to a cluster: the one place that makes messengers for `msgr ceph`.
//!
//! Everything that happens on a caller's connections comes out of [`Caller::next`], in order and
//! stamped where it happened, so the commands are plain loops on the main thread.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use messenger::auth::Auth;
use messenger::{
    AddrType, Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddr,
    EntityAddrVec, EntityName, EntityType, Message, Messenger, Policy,
};

/// Under what name clients without a number authenticate, unless the configuration has another.
const AUTH_ID: &str = "admin";
/// What a monitor calls a client that has no number yet.
pub(crate) const CLIENT: EntityName = EntityName::new(EntityType::Client, EntityName::UNNUMBERED);

/// A messenger that dials and listens nowhere.
#[derive(Debug)]
pub(crate) struct Caller {
    messenger: Messenger,
    news: Receiver<News>,
    /// What it speaks with peers that speak both.
    protocol: AddrType,
}

/// Something that happened on a connection.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) connection: Connection,
    pub(crate) at: Instant,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// A session stands, for the first time or again.
    Ready,
    Message(Box<Message>),
    /// Nobody listens there. The session tries again by itself.
    Refused,
    /// The session is over.
    Over,
}

impl Caller {
    /// A messenger for monitors. It authenticates as its configuration says.
    pub(crate) fn start(config: &Config, protocol: AddrType) -> Result<Self> {
        Self::with(Messenger::create(CLIENT, config.clone())?, protocol)
    }

    /// Another one, for OSDs, that shows them the tickets which this one got from a monitor.
    pub(crate) fn beside(&self, name: EntityName) -> Result<Self> {
        // It authenticates as we do, whatever its number: no keyring is asked for that.
        let keyring = PathBuf::new();
        let mut config = Config { keyring, ..self.messenger.config().clone() };
        if config.auth_id.is_empty() {
            config.auth_id = AUTH_ID.to_owned();
        }
        let messenger = Messenger::create(name, config)?;
        messenger.set_auth(self.messenger.auth())?;
        Self::with(messenger, self.protocol)
    }

    fn with(messenger: Messenger, protocol: AddrType) -> Result<Self> {
        messenger.set_default_policy(Policy::lossy_client())?;
        let (sender, news) = mpsc::channel();
        let inbox = Arc::new(Inbox(Mutex::new(sender)));
        messenger.add_dispatcher_tail(inbox, DispatcherPriority::DEFAULT)?;
        messenger.start()?;
        Ok(Self { messenger, news, protocol })
    }

    /// Under what name we authenticate.
    pub(crate) fn auth_name(&self) -> String {
        let id = &self.messenger.config().auth_id;
        format!("client.{}", if id.is_empty() { AUTH_ID } else { id })
    }

    /// How we authenticate, and what monitors gave us for that.
    pub(crate) fn auth(&self) -> Arc<Auth> {
        self.messenger.auth()
    }

    /// How often a peer has refused to let us in, so far.
    pub(crate) fn denials(&self) -> u64 {
        self.messenger.counters().total("msgr_auth_denied")
    }

    /// Dials a peer, always on a connection of its own.
    pub(crate) fn dial(&self, kind: EntityType, addrs: &EntityAddrVec) -> Result<Connection> {
        let options = ConnectOptions { anonymous: true, not_local: true };
        let addrs = match addrs.of(self.protocol) {
            EntityAddr::NONE => addrs,
            addr => &addr.into(),
        };
        self.messenger
            .connect_to(kind, addrs, options)
            .with_context(|| format!("cannot dial {kind} at {addrs}"))
    }

    /// What happened next; `None` if nothing did until then.
    pub(crate) fn next(&self, until: Instant) -> Option<News> {
        self.news.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }
}

/// The sending end; a lock because dispatchers are shared between threads.
#[derive(Debug)]
struct Inbox(Mutex<Sender<News>>);

impl Inbox {
    fn tell(&self, connection: &Connection, what: What) {
        let news = News { connection: connection.clone(), at: Instant::now(), what };
        // Nobody listens once the caller is being dropped.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(news);
    }
}

impl Dispatcher for Inbox {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, _message: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        self.tell(connection, What::Message(Box::new(message)));
    }

    fn handle_fast_connect(&self, connection: &Connection) {
        self.tell(connection, What::Ready);
    }

    fn handle_refused(&self, connection: &Connection) -> bool {
        self.tell(connection, What::Refused);
        true
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        self.tell(connection, What::Over);
    }

    fn handle_reset(&self, connection: &Connection) -> bool {
        self.tell(connection, What::Over);
        true
    }
}
