//! The dialling side of an authentication.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::cephx::{Authorized, Authorizer, LoggedIn, MonLogin};
use crate::auth::{Auth, AuthMethod, AuthName, ConnectionMode, Grant, Secrets, none};
use crate::entity::EntityType;
use crate::error::ProtocolError;
use crate::v2::Tag;
use crate::v2::control::{AuthBadMethod, AuthDone, AuthRequest};

/// Who dials whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialling {
    /// Our name.
    pub name: AuthName,
    /// Our number if we have one already; 0 if not.
    pub global_id: u64,
    /// The type of the peer, which is what tickets are for.
    pub peer: EntityType,
    /// The time since the Unix epoch: tickets expire.
    pub now: Duration,
}

/// One transport's authentication, as its client sees it. [`ClientAuth::request`] comes first; then
/// each answer of the server has its method here.
#[derive(Debug)]
pub struct ClientAuth {
    auth: Arc<Auth>,
    context: Dialling,
    /// How many of the methods allowed towards this peer were refused.
    refused: usize,
    exchange: Exchange,
}

/// How far the method under way has come.
#[derive(Debug)]
enum Exchange {
    /// No method was tried yet.
    Idle,
    /// All was said with the request.
    None,
    /// A login at a monitor.
    Login(Box<MonLogin>),
    /// A ticket shown to a service.
    Authorizer(Box<Authorizer>),
}

impl ClientAuth {
    /// An authentication that has not begun.
    pub fn new(auth: Arc<Auth>, context: Dialling) -> Self {
        Self { auth, context, refused: 0, exchange: Exchange::Idle }
    }

    /// What to begin with, or to go on with after a refusal. An error if no method is left that has
    /// a connection mode to go with it.
    pub fn request(&mut self) -> Result<AuthRequest, ProtocolError> {
        let peer = self.context.peer;
        let method = loop {
            let method = self.method().ok_or(ProtocolError::NoAuthMethod { peer })?;
            if self.modes(method).next().is_some() && self.is_equipped(method) {
                break method;
            }
            self.refused += 1;
        };
        let payload = match method {
            AuthMethod::None => {
                self.exchange = Exchange::None;
                none::payload(&self.context.name, self.context.global_id, peer)
            }
            AuthMethod::Cephx => self.begin_cephx()?,
        };
        let modes = self.modes(method).map(ConnectionMode::to_wire).collect();
        Ok(AuthRequest { method: method.to_wire(), modes, payload })
    }

    /// The server refused the request: the next of our methods that it allows, or the end.
    pub fn on_bad_method(&mut self, refused: &AuthBadMethod) -> Result<AuthRequest, ProtocolError> {
        self.exchange = Exchange::Idle;
        self.refused += 1;
        while let Some(next) = self.method() {
            if refused.allowed_methods.contains(&next.to_wire()) {
                return self.request();
            }
            self.refused += 1;
        }
        let (method, result) = (refused.method, refused.result);
        Err(ProtocolError::AuthRefused { method, result })
    }

    /// The server wants another round: what to answer.
    pub fn on_reply_more(&mut self, blob: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        match (&self.exchange, &self.auth.secrets) {
            (Exchange::Login(login), Some(secrets)) => {
                Ok(login.on_challenge(blob, &mut secrets.random())?)
            }
            (Exchange::Authorizer(authorizer), _) => Ok(authorizer.on_challenge(blob)?),
            (Exchange::Idle | Exchange::None | Exchange::Login(_), _) => {
                let (tag, state) = (Tag::AuthReplyMore.to_wire(), "for method none");
                Err(ProtocolError::UnexpectedTag { tag, state })
            }
        }
    }

    /// The server is satisfied; whether we are, is checked here.
    pub fn on_done(&mut self, done: &AuthDone) -> Result<Grant, ProtocolError> {
        let offered = self.method().into_iter().flat_map(|method| self.modes(method));
        let mode = offered.into_iter().find(|mode| mode.to_wire() == done.mode);
        let mode = mode.ok_or(ProtocolError::AuthMode { mode: done.mode })?;
        let (session_key, connection_secret) =
            match std::mem::replace(&mut self.exchange, Exchange::Idle) {
                Exchange::Idle | Exchange::None => (None, None),
                Exchange::Login(login) => {
                    let LoggedIn { tickets, session_key, connection_secret } = login.on_done(
                        done.global_id,
                        done.mode,
                        &done.payload,
                        self.context.now,
                    )?;
                    if let Some(secrets) = &self.auth.secrets {
                        secrets.set_tickets(tickets);
                    }
                    (Some(session_key), connection_secret)
                }
                Exchange::Authorizer(authorizer) => {
                    let Authorized { session_key, connection_secret } =
                        authorizer.on_done(&done.payload, done.mode)?;
                    (Some(session_key), connection_secret)
                }
            };
        let global_id = done.global_id;
        Ok(Grant { global_id, mode, session_key, connection_secret, peer: None })
    }

    /// Logs in at a monitor, or shows a service the ticket for it.
    fn begin_cephx(&mut self) -> Result<Vec<u8>, ProtocolError> {
        let Dialling { name, peer, now, .. } = &self.context;
        let no_method = ProtocolError::NoAuthMethod { peer: *peer };
        let secrets = self.auth.secrets.as_ref().ok_or_else(|| no_method.clone())?;
        let tickets = secrets.tickets();
        let payload;
        if *peer == EntityType::Mon {
            let (key, wanted) = secrets.key().ok_or(no_method)?;
            let login = MonLogin::new(name.clone(), key, wanted).renewing(&tickets, *now);
            payload = login.request();
            self.exchange = Exchange::Login(Box::new(login));
        } else {
            let authorizer = tickets.authorizer(*peer, *now, &mut secrets.random())?;
            payload = authorizer.request();
            self.exchange = Exchange::Authorizer(Box::new(authorizer));
        }
        Ok(payload)
    }

    /// Whether we have what the method needs. A missing ticket is no reason to fall back to a weaker
    /// method.
    fn is_equipped(&self, method: AuthMethod) -> bool {
        match (method, self.context.peer) {
            (AuthMethod::None, _) => true,
            (AuthMethod::Cephx, EntityType::Mon) => {
                self.auth.secrets.as_ref().and_then(Secrets::key).is_some()
            }
            (AuthMethod::Cephx, _) => self.auth.secrets.is_some(),
        }
    }

    /// The method under way.
    fn method(&self) -> Option<AuthMethod> {
        let terms = self.auth.rules.terms(self.context.name.kind, self.context.peer);
        terms.methods.get(self.refused).copied()
    }

    /// The modes that go with it.
    fn modes(&self, method: AuthMethod) -> impl Iterator<Item = ConnectionMode> {
        let terms = self.auth.rules.terms(self.context.name.kind, self.context.peer);
        terms.modes.iter().copied().filter(move |mode| method.allows(*mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthRules;

    fn client(rules: AuthRules) -> ClientAuth {
        let name = AuthName::new(EntityType::Client, "admin");
        let context = Dialling { name, global_id: 7, peer: EntityType::Osd, now: Duration::ZERO };
        ClientAuth::new(Auth::new(rules), context)
    }

    #[test]
    fn a_client_takes_no_mode_it_did_not_offer() {
        let both = [ConnectionMode::Secure, ConnectionMode::Crc];
        let mut client = client(AuthRules::uniform(&[AuthMethod::None], &both));
        assert_eq!(client.request().unwrap().modes, [1], "method none has no secret");
        let mut done = AuthDone { global_id: 7, mode: 2, payload: vec![] };
        let refused = client.on_done(&done).unwrap_err();
        assert_eq!(refused, ProtocolError::AuthMode { mode: 2 });
        done.mode = 1;
        assert_eq!(client.on_done(&done).unwrap().global_id, 7);
    }

    #[test]
    fn a_client_gives_up_when_nothing_is_left_to_try() {
        let mut only = client(AuthRules::default());
        only.request().unwrap();
        let refused = AuthBadMethod {
            method: 1,
            result: -95,
            allowed_methods: vec![1, 2],
            allowed_modes: vec![1],
        };
        let error = only.on_bad_method(&refused).unwrap_err();
        assert_eq!(error, ProtocolError::AuthRefused { method: 1, result: -95 });

        let mut bare = client(AuthRules::uniform(&[AuthMethod::Cephx], &[ConnectionMode::Crc]));
        assert_eq!(bare.request().unwrap_err().kind(), "no_auth_method", "no secrets");
        let mut none = client(AuthRules::uniform(&[AuthMethod::None], &[ConnectionMode::Secure]));
        assert_eq!(none.request().unwrap_err().kind(), "no_auth_method");
    }

    #[test]
    fn method_none_has_one_round() {
        let mut client = client(AuthRules::default());
        client.request().unwrap();
        assert_eq!(client.on_reply_more(b"more").unwrap_err().kind(), "unexpected_tag");
    }
}
