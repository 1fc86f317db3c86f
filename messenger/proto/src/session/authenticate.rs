//! Authentication of a transport (msgr2: AUTH_*), from HELLO to both signatures.
//!
//! ```text
//!   dialler    HELLO: AUTH_REQUEST -->   Auth: BAD_METHOD: the next method; REPLY_MORE: AuthMore
//!                                        AuthMore: REPLY_MORE: another round;  DONE: Signature
//!   acceptor   Auth: AUTH_REQUEST: BAD_METHOD, REPLY_MORE: AuthMore, or DONE: Signature
//!              AuthMore: AUTH_REQUEST_MORE: BAD_METHOD, REPLY_MORE, or DONE: Signature
//! ```
//! What the frames hold is the business of [`ClientAuth`] and [`ServerAuth`].

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::auth::{
    Accepting, Answer, ClientAuth, ConnectionMode, Dialling, Grant, Refusal, ServerAuth,
};
use crate::entity::EntityType;
use crate::error::ProtocolError;
use crate::session::transport::{Phase, Side};
use crate::session::{Session, SessionEvent, Step};
use crate::v2::control::{
    AuthBadMethod, AuthDone, AuthReplyMore, AuthRequest, AuthRequestMore, AuthSignature,
};
use crate::v2::keys::SECRET_LEN;

/// The authentication of one transport, from one of its ends.
#[derive(Debug)]
pub(super) enum Exchange {
    Client(ClientAuth),
    Server(ServerAuth),
}

impl Session {
    /// An authentication of ours at a `peer`.
    pub(super) fn client_auth(&self, peer: EntityType) -> ClientAuth {
        let name = self.identity.options.auth_name(self.identity.name);
        let number = self.identity.name.number;
        let global_id = match u64::try_from(number) {
            Ok(number) if name.kind == EntityType::Client => number,
            _ => self.peer.global_id,
        };
        let context =
            Dialling { name, global_id, peer, now: self.identity.anchor.unix_at(self.now) };
        ClientAuth::new(Arc::clone(&self.identity.auth), context)
    }

    /// The authentication here of a peer that takes itself for a `peer`.
    pub(super) fn server_auth(&mut self, peer: EntityType) -> ServerAuth {
        let fresh_global_id = (self.cookie() >> 1).max(1); // entity numbers are signed
        let now = self.identity.anchor.unix_at(self.now);
        let context = Accepting { own: self.identity.name.kind, peer, fresh_global_id, now };
        ServerAuth::new(Arc::clone(&self.identity.auth), context)
    }

    /// The dialler's first word, as soon as it knows to whom it talks.
    pub(super) fn send_auth_request(&mut self, peer: EntityType) -> Result<(), ProtocolError> {
        let mut client = self.client_auth(peer);
        let request = client.request()?;
        if !self.passes(Step::AuthRequest) {
            return Ok(());
        }
        if let Some(transport) = self.transport() {
            transport.exchange = Some(Exchange::Client(client));
            transport.send(&request);
        }
        Ok(())
    }

    /// The acceptor is ready for a request of a peer that takes itself for a `peer`.
    pub(super) fn await_auth_request(&mut self, peer: EntityType) {
        let server = self.server_auth(peer);
        if let Some(transport) = self.transport() {
            transport.exchange = Some(Exchange::Server(server));
        }
    }

    pub(super) fn on_auth_request(&mut self, request: &AuthRequest) -> Result<(), ProtocolError> {
        match self.passes(Step::AuthRequestSeen) {
            true => self.answer(|server| server.on_request(request)),
            false => Ok(()),
        }
    }

    pub(super) fn on_auth_request_more(
        &mut self,
        more: &AuthRequestMore,
    ) -> Result<(), ProtocolError> {
        self.answer(|server| server.on_more(&more.0))
    }

    fn answer(&mut self, ask: impl FnOnce(&mut ServerAuth) -> Answer) -> Result<(), ProtocolError> {
        let Some(transport) = self.transport() else {
            return Ok(());
        };
        let Some(Exchange::Server(server)) = &mut transport.exchange else {
            return Ok(());
        };
        match ask(server) {
            Answer::BadMethod(refused, refusal) => {
                transport.send(&refused);
                self.turn_away(refusal);
            }
            Answer::More(blob) => {
                transport.send(&AuthReplyMore(blob));
                transport.phase = Phase::AuthMore;
            }
            Answer::Done(done, grant) => {
                transport.send(&done);
                self.granted(grant)?;
            }
        }
        Ok(())
    }

    /// Takes note of who does not get in.
    pub(super) fn turn_away(&mut self, refusal: Refusal) {
        self.stats.auth_refused.add(refusal.kind());
        self.events.push_back(SessionEvent::TurnedAway(Box::new(refusal)));
    }

    /// A refusal of a first request leaves the next method to try; later the server would not take
    /// another one.
    pub(super) fn on_auth_bad_method(
        &mut self,
        refused: &AuthBadMethod,
    ) -> Result<(), ProtocolError> {
        let Some(transport) = self.transport() else {
            return Ok(());
        };
        match (&transport.phase, &mut transport.exchange) {
            (Phase::Auth, Some(Exchange::Client(client))) => {
                let request = client.on_bad_method(refused)?;
                transport.send(&request);
                Ok(())
            }
            _ => {
                let (method, result) = (refused.method, refused.result);
                Err(ProtocolError::AuthRefused { method, result })
            }
        }
    }

    pub(super) fn on_auth_reply_more(&mut self, more: &AuthReplyMore) -> Result<(), ProtocolError> {
        if let Some(transport) = self.transport()
            && let Some(Exchange::Client(client)) = &mut transport.exchange
        {
            let blob = client.on_reply_more(&more.0)?;
            transport.send(&AuthRequestMore(blob));
            transport.phase = Phase::AuthMore;
        }
        Ok(())
    }

    pub(super) fn on_auth_done(&mut self, done: &AuthDone) -> Result<(), ProtocolError> {
        let Some(transport) = self.transport() else {
            return Ok(());
        };
        let Some(Exchange::Client(client)) = &mut transport.exchange else {
            return Ok(());
        };
        let grant = client.on_done(done)?;
        self.granted(grant)
    }

    /// AUTH_DONE went one way or the other: both sides sign, in the mode that was chosen.
    fn granted(&mut self, mut grant: Grant) -> Result<(), ProtocolError> {
        self.peer.global_id = grant.global_id;
        // A server that we dial tells no name; if it once dialled us, it goes by that.
        if let Some(peer) = grant.peer.take() {
            self.peer.auth = Some(peer);
        }
        let read_ahead_len = self.identity.options.read_ahead_len;
        let Some(transport) = self.transport() else {
            return Ok(());
        };
        let said = transport.transcript.take().unwrap_or_default();
        let ours = AuthSignature(grant.signature(said.received()));
        let theirs = AuthSignature(grant.signature(said.sent()));
        if grant.mode == ConnectionMode::Secure {
            let (len, expected) = (0, SECRET_LEN);
            let secret = grant.connection_secret.take();
            transport.secure(&secret.ok_or(ProtocolError::ConnectionSecret { len, expected })?)?;
        }
        transport.exchange = None;
        transport.inbox.set_ahead_len(read_ahead_len);
        transport.send(&ours);
        transport.phase = Phase::Signature(theirs);
        Ok(())
    }

    pub(super) fn on_signature(
        &mut self,
        signature: &AuthSignature,
        expected: &AuthSignature,
    ) -> Result<(), ProtocolError> {
        verify_slices_are_equal(&signature.0, &expected.0).map_err(|_| ProtocolError::Signature)?;
        match self.transport() {
            Some(transport) if transport.negotiates_compression => self.negotiate_compression(),
            _ => self.begin_session(),
        }
        Ok(())
    }

    /// The transport is set up; a session, new or old, comes next.
    pub(super) fn begin_session(&mut self) {
        let has_session = self.numbers.server_cookie != 0;
        let Some(transport) = self.transport() else {
            return;
        };
        match transport.side {
            Side::Acceptor => transport.phase = Phase::Accepting,
            Side::Dialler if has_session => self.send_reconnect(),
            Side::Dialler => self.send_client_ident(),
        }
    }
}
