//! A monitor's side of authentication by messages, for one session.

use std::time::Duration;

use bytes::Bytes;
use messenger_proto::EntityType;
use messenger_proto::auth::cephx::{CephxError, LoginServer, PendingLogin};
use messenger_proto::auth::{
    Auth, AuthIdentity, AuthMethod, AuthName, Caps, ConnectionMode, Refusal,
};
use messenger_proto::denc::Reader;

use super::{MAuth, MAuthReply, Offer};

/// What each request of method cephx begins with: for tickets, for a service's secrets.
const OP_TICKETS: [u8; 2] = 0x0200_u16.to_le_bytes();
const OP_ROTATING: [u8; 2] = 0x0400_u16.to_le_bytes();

/// Answers the `MAuth`s of one session with a client, who has come in already or is about to.
#[derive(Debug, Default)]
pub struct AuthServer {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Stranger,
    /// Challenged. The number is what it gets if it has none.
    Pending(PendingLogin, u64),
    In(AuthIdentity, u64),
}

/// An answer, and whether it is a refusal.
type Answered = Result<MAuthReply, Refusal>;

impl AuthServer {
    /// A session of msgr1: its client has not said yet who it is.
    pub fn stranger() -> Self {
        Self::default()
    }

    /// A session whose client has authenticated, with frames of msgr2.
    pub fn authenticated(identity: AuthIdentity, global_id: u64) -> Self {
        Self { state: State::In(identity, global_id) }
    }

    /// Who the client is, once it has proved it.
    pub fn identity(&self) -> Option<&AuthIdentity> {
        match &self.state {
            State::In(identity, _) => Some(identity),
            State::Stranger | State::Pending(..) => None,
        }
    }

    /// Answers a message at `now` (Unix time); with the refusal there comes why, for the log. A
    /// client without a number gets `fresh_global_id`.
    pub fn answer(
        &mut self,
        auth: &Auth,
        ask: &MAuth,
        fresh_global_id: u64,
        now: Duration,
    ) -> (MAuthReply, Option<Refusal>) {
        match self.try_answer(auth, ask, fresh_global_id, now) {
            Ok(reply) => (reply, None),
            Err(refusal) => {
                let payload = refused_payload(ask, &refusal);
                let (method, result) = (ask.method, refusal.errno());
                (MAuthReply { method, result, payload, ..MAuthReply::default() }, Some(refusal))
            }
        }
    }

    fn try_answer(
        &mut self,
        auth: &Auth,
        ask: &MAuth,
        fresh_global_id: u64,
        now: Duration,
    ) -> Answered {
        match std::mem::take(&mut self.state) {
            State::Stranger => self.begin(auth, ask, fresh_global_id),
            State::Pending(login, fresh) => self.finish(auth, login, ask, fresh, now),
            State::In(identity, global_id) => {
                let reply = serve(auth, &identity.name, ask, now);
                self.state = State::In(identity, global_id);
                reply.map(|payload| reply_with(ask.method, global_id, payload))
            }
        }
    }

    /// The client says who it is and offers methods; ours is the choice.
    fn begin(&mut self, auth: &Auth, ask: &MAuth, fresh_global_id: u64) -> Answered {
        let peer = EntityType::Client;
        let offer = Offer::decode(&mut Reader::new(&ask.payload));
        let Offer { methods, name, global_id } =
            offer.map_err(|error| Refusal::Nameless { peer, error })?;
        let terms = auth.rules.terms(EntityType::Mon, name.kind);
        let common = |method: &&AuthMethod| methods.contains(&method.to_wire());
        let Some(method) = terms.methods.iter().find(common) else {
            let method = methods.first().copied().unwrap_or_default();
            return Err(Refusal::Method { peer: name.kind, method });
        };
        match method {
            AuthMethod::None => {
                let global_id = if global_id == 0 { fresh_global_id } else { global_id };
                let identity = AuthIdentity { name, caps: Caps::default() };
                self.state = State::In(identity, global_id);
                Ok(reply_with(method.to_wire(), global_id, Bytes::new()))
            }
            AuthMethod::Cephx => {
                let secrets = secrets(auth)?;
                let (login, challenge) = PendingLogin::new(name, global_id, &mut secrets.random());
                let fresh = if global_id == 0 { fresh_global_id } else { global_id };
                self.state = State::Pending(login, fresh);
                Ok(reply_with(method.to_wire(), fresh, challenge.into()))
            }
        }
    }

    /// The client proves that it is who it says. It has one try a session.
    fn finish(
        &mut self,
        auth: &Auth,
        login: PendingLogin,
        ask: &MAuth,
        fresh_global_id: u64,
        now: Duration,
    ) -> Answered {
        let mode = ConnectionMode::Crc.to_wire();
        let admitted = with_server(auth, |server, random| {
            login.finish(server, &ask.payload, mode, fresh_global_id, now, random)
        })?;
        let (global_id, payload) = (admitted.global_id, admitted.payload);
        let identity = AuthIdentity { name: admitted.name, caps: admitted.caps };
        self.state = State::In(identity, global_id);
        Ok(reply_with(AuthMethod::Cephx.to_wire(), global_id, payload.into()))
    }
}

/// What somebody wants who has come in.
fn serve(auth: &Auth, name: &AuthName, ask: &MAuth, now: Duration) -> Result<Bytes, Refusal> {
    let payload = with_server(auth, |server, random| match ask.payload.first_chunk() {
        Some(&OP_ROTATING) => server.rotating_secrets(name),
        _ => server.grant_tickets(&ask.payload, now, random),
    })?;
    Ok(payload.into())
}

/// A refused request for tickets has the refusal in its payload, too.
fn refused_payload(ask: &MAuth, refusal: &Refusal) -> Bytes {
    match (ask.payload.first_chunk(), refusal) {
        (Some(&OP_TICKETS), Refusal::Cephx(error)) => LoginServer::refuse_tickets(error).into(),
        _ => Bytes::new(),
    }
}

fn with_server<T>(
    auth: &Auth,
    act: impl FnOnce(&mut LoginServer, &mut dyn FnMut(&mut [u8])) -> Result<T, CephxError>,
) -> Result<T, Refusal> {
    let secrets = secrets(auth)?;
    let done = secrets.with_login_server(|server| act(server, &mut secrets.random()));
    Ok(done.ok_or(CephxError::NoServiceSecret(EntityType::Auth))??)
}

fn secrets(auth: &Auth) -> Result<&messenger_proto::auth::Secrets, CephxError> {
    auth.secrets.as_ref().ok_or(CephxError::NoServiceSecret(EntityType::Auth))
}

fn reply_with(method: u32, global_id: u64, payload: Bytes) -> MAuthReply {
    MAuthReply { method, result: 0, global_id, payload, message: String::new() }
}
