//! What method cephx needs of a messenger: its own key, tickets it got, secrets it verifies with.
//!
//! ```text
//!   client    key, services wanted --login--> tickets --authorizer--> a service
//!   service   rotating secrets, which it gets from a monitor by message
//!   monitor   a login server: everybody's keys, every service's secrets
//! ```
//!
//! All sessions of a messenger share one set. Only handshakes look at it, so a lock does no harm.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::auth::Key;
use crate::auth::cephx::{LoginServer, RotatingSecrets, Services, Tickets};

type Random = dyn Fn(&mut [u8]) + Send + Sync;

/// The secrets of one messenger. None of them is ever printed.
pub struct Secrets {
    random: Box<Random>,
    key: Option<(Key, Services)>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    tickets: Tickets,
    rotating: RotatingSecrets,
    monitor: Option<LoginServer>,
}

impl Secrets {
    /// No secrets yet. `random` fills its argument with bytes that nobody can guess; session keys
    /// and connection secrets are made of them.
    pub fn new(random: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        Self { random: Box::new(random), key: None, shared: Mutex::default() }
    }

    /// With our own key: logs in at monitors, and asks them for tickets of the services `wanted`.
    #[must_use]
    pub fn with_key(mut self, key: Key, wanted: Services) -> Self {
        self.key = Some((key, wanted));
        self
    }

    /// As a monitor, which lets others log in.
    #[must_use]
    pub fn with_monitor(self, server: LoginServer) -> Self {
        self.lock().monitor = Some(server);
        self
    }

    /// The tickets of the latest login.
    pub fn tickets(&self) -> Tickets {
        self.lock().tickets.clone()
    }

    /// Replaces the tickets, as after a renewal.
    pub fn set_tickets(&self, tickets: Tickets) {
        self.lock().tickets = tickets;
    }

    /// Replaces the secrets with which a service verifies its clients' tickets.
    pub fn set_rotating(&self, rotating: RotatingSecrets) {
        self.lock().rotating = rotating;
    }

    /// Does something with the login server, if we are a monitor: rotates secrets, renews tickets.
    pub fn with_login_server<R>(&self, act: impl FnOnce(&mut LoginServer) -> R) -> Option<R> {
        self.lock().monitor.as_mut().map(act)
    }

    /// Our key and what we want tickets of.
    pub fn key(&self) -> Option<(Key, Services)> {
        self.key.clone()
    }

    /// The secrets for the tickets of our clients, where we are no monitor.
    pub fn rotating(&self) -> RotatingSecrets {
        self.lock().rotating.clone()
    }

    /// The source of bytes that nobody can guess.
    pub fn random(&self) -> impl FnMut(&mut [u8]) {
        |bytes| (self.random)(bytes)
    }

    /// The sets are whole at every moment.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}
