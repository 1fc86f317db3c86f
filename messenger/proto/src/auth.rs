//! Who the peer is: authentication of one transport as a pure exchange of frames' contents.
//!
//! ```text
//!   ClientAuth                                                         ServerAuth
//!   request()            -- AUTH_REQUEST -->                           on_request() -> Answer
//!   on_bad_method()     <-- AUTH_BAD_METHOD --                         (another request)
//!   on_reply_more()     <-- AUTH_REPLY_MORE --,  -- AUTH_REQUEST_MORE --> on_more() -> Answer
//!   on_done() -> Grant  <-- AUTH_DONE --                               Answer::Done(.., Grant)
//! ```
//!
//! An exchange belongs to one transport and one side of it; what it may use, [`Auth`], belongs to
//! the messenger. Both sides end with a [`Grant`], which says how the transport goes on. Methods are
//! arms of two private enums, one a side: [`none`] needs a single round and keeps nothing, [`cephx`]
//! goes on about the [`Secrets`] of the messenger.

use std::sync::Arc;

pub mod cephx;
mod client;
mod grant;
pub mod keyring;
pub mod name;
pub mod none;
mod refusal;
mod rules;
pub mod secret;
mod secrets;
mod server;

pub use cephx::Caps;
pub use client::{ClientAuth, Dialling};
pub use grant::{AuthIdentity, Grant};
pub use keyring::Keyring;
pub use name::AuthName;
pub use refusal::{REFUSAL_KINDS, Refusal, RefusalCounts, RefusalKind};
pub use rules::{AuthMethod, AuthRules, ConnectionMode, ParseAuthError, Terms, parse_list};
pub use secret::Key;
pub use secrets::Secrets;
pub use server::{Accepting, Answer, ServerAuth};

/// What all authentications of one messenger share. The default believes everybody and encrypts
/// nothing.
#[derive(Debug, Default)]
pub struct Auth {
    /// Which methods and connection modes are allowed, towards whom.
    pub rules: AuthRules,
    /// What method cephx needs; without it, that method is out of question.
    pub secrets: Option<Secrets>,
}

impl Auth {
    /// Authentication by these rules, without secrets.
    pub fn new(rules: AuthRules) -> Arc<Self> {
        Arc::new(Self { rules, secrets: None })
    }

    /// Authentication by these rules, with secrets for method cephx.
    pub fn with_secrets(rules: AuthRules, secrets: Secrets) -> Arc<Self> {
        Arc::new(Self { rules, secrets: Some(secrets) })
    }
}
