//! The accepting side of an authentication.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::cephx::{
    self, Admitted, AuthorizerVerifier, CephxError, LoginServer, PendingLogin,
};
use crate::auth::rules::Terms;
use crate::auth::{
    Auth, AuthIdentity, AuthMethod, Caps, ConnectionMode, Grant, Refusal, Secrets, none,
};
use crate::entity::EntityType;
use crate::v2::control::{AuthBadMethod, AuthDone, AuthRequest};

/// Who accepts whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepting {
    /// Our type.
    pub own: EntityType,
    /// The peer's type, as it claims.
    pub peer: EntityType,
    /// The number for a client that has none yet.
    pub fresh_global_id: u64,
    /// The time since the Unix epoch: tickets expire.
    pub now: Duration,
}

/// The answer to AUTH_REQUEST or AUTH_REQUEST_MORE.
#[derive(Debug)]
pub enum Answer {
    /// Refused, and why; the same kind of frame may be tried again.
    BadMethod(AuthBadMethod, Refusal),
    /// Another round is needed.
    More(Vec<u8>),
    /// Convinced.
    Done(AuthDone, Grant),
}

/// One transport's authentication, as its server sees it.
#[derive(Debug)]
pub struct ServerAuth {
    auth: Arc<Auth>,
    context: Accepting,
    exchange: Exchange,
}

/// How far the method under way has come.
#[derive(Debug)]
enum Exchange {
    /// No round is due.
    Idle,
    /// A client was challenged by the monitor.
    Login(PendingLogin, ConnectionMode),
    /// A client shows its ticket.
    Authorizer(AuthorizerVerifier, ConnectionMode),
}

/// What a round of cephx leads to.
enum Round {
    Challenge(Vec<u8>),
    Admitted(Box<Admitted>),
}

impl ServerAuth {
    /// An authentication that has not begun.
    pub fn new(auth: Arc<Auth>, context: Accepting) -> Self {
        Self { auth, context, exchange: Exchange::Idle }
    }

    /// The client proposes a method.
    pub fn on_request(&mut self, request: &AuthRequest) -> Answer {
        let Terms { methods, modes } = self.terms();
        let peer = self.context.peer;
        let method = methods.iter().copied().find(|method| method.to_wire() == request.method);
        let Some(method) = method else {
            let method = request.method;
            return self.refuse(method, Refusal::Method { peer, method });
        };
        let allowed = |mode: &ConnectionMode| modes.contains(mode) && method.allows(*mode);
        let preferred = request.modes.iter().filter_map(|mode| ConnectionMode::from_wire(*mode));
        let Some(mode) = preferred.into_iter().find(allowed) else {
            let modes = request.modes.clone();
            return self.refuse(request.method, Refusal::Mode { peer, method, modes });
        };
        match method {
            AuthMethod::None => {
                let (name, claimed) = match none::parse(&request.payload) {
                    Ok(parsed) => parsed,
                    Err(error) => {
                        return self.refuse(request.method, Refusal::Nameless { peer, error });
                    }
                };
                let fresh = self.context.fresh_global_id;
                let global_id = if claimed == 0 { fresh } else { claimed };
                let grant = Grant {
                    global_id,
                    mode,
                    session_key: None,
                    connection_secret: None,
                    peer: Some(AuthIdentity { name, caps: Caps::default() }),
                };
                let done = AuthDone { global_id, mode: mode.to_wire(), payload: Vec::new() };
                Answer::Done(done, grant)
            }
            AuthMethod::Cephx => {
                let round = self.begin_cephx(&request.payload, mode);
                self.answer(round, mode)
            }
        }
    }

    /// The client's part of another round, which a method asked for.
    pub fn on_more(&mut self, blob: &[u8]) -> Answer {
        match std::mem::replace(&mut self.exchange, Exchange::Idle) {
            Exchange::Idle => {
                let peer = self.context.peer;
                self.refuse(AuthMethod::Cephx.to_wire(), Refusal::Unasked { peer })
            }
            Exchange::Login(login, mode) => {
                let round = self.finish_login(login, blob, mode);
                self.answer(round, mode)
            }
            Exchange::Authorizer(verifier, mode) => {
                let round = self.verify(verifier, blob, mode);
                self.answer(round, mode)
            }
        }
    }

    /// A login at a monitor, or an authorizer: the first byte tells.
    fn begin_cephx(&mut self, payload: &[u8], mode: ConnectionMode) -> Result<Round, CephxError> {
        if self.context.own == EntityType::Mon && cephx::is_login(payload) {
            let secrets = self.secrets()?;
            let (login, challenge) = LoginServer::begin(payload, &mut secrets.random())?;
            self.exchange = Exchange::Login(login, mode);
            return Ok(Round::Challenge(challenge));
        }
        self.verify(AuthorizerVerifier::new(self.context.own), payload, mode)
    }

    fn finish_login(
        &self,
        login: PendingLogin,
        answer: &[u8],
        mode: ConnectionMode,
    ) -> Result<Round, CephxError> {
        let Accepting { own, fresh_global_id, now, .. } = self.context;
        let secrets = self.secrets()?;
        let admitted = secrets.with_login_server(|server| {
            let random = &mut secrets.random();
            login.finish(server, answer, mode.to_wire(), fresh_global_id, now, random)
        });
        let admitted = admitted.ok_or(CephxError::NoServiceSecret(own))??;
        Ok(Round::Admitted(Box::new(admitted)))
    }

    fn verify(
        &mut self,
        mut verifier: AuthorizerVerifier,
        authorizer: &[u8],
        mode: ConnectionMode,
    ) -> Result<Round, CephxError> {
        let Accepting { own, now, .. } = self.context;
        let answer = {
            let secrets = self.secrets()?;
            let as_monitor = secrets.with_login_server(|server| server.secrets(own).cloned());
            let rotating = as_monitor.flatten().unwrap_or_else(|| secrets.rotating());
            let random = &mut secrets.random();
            verifier.on_authorizer(authorizer, mode.to_wire(), &rotating, now, random)?
        };
        match answer {
            cephx::Answer::Admitted(admitted) => Ok(Round::Admitted(admitted)),
            cephx::Answer::Challenge(challenge) => {
                self.exchange = Exchange::Authorizer(verifier, mode);
                Ok(Round::Challenge(challenge))
            }
        }
    }

    fn secrets(&self) -> Result<&Secrets, CephxError> {
        self.auth.secrets.as_ref().ok_or(CephxError::NoServiceSecret(self.context.own))
    }

    fn answer(&self, round: Result<Round, CephxError>, mode: ConnectionMode) -> Answer {
        match round {
            Err(error) => self.refuse(AuthMethod::Cephx.to_wire(), error.into()),
            Ok(Round::Challenge(challenge)) => Answer::More(challenge),
            Ok(Round::Admitted(admitted)) => {
                let Admitted { name, global_id, caps, payload, session_key, connection_secret } =
                    *admitted;
                let grant = Grant {
                    global_id,
                    mode,
                    session_key: Some(session_key),
                    connection_secret,
                    peer: Some(AuthIdentity { name, caps }),
                };
                Answer::Done(AuthDone { global_id, mode: mode.to_wire(), payload }, grant)
            }
        }
    }

    fn refuse(&self, method: u32, refusal: Refusal) -> Answer {
        let Terms { methods, modes } = self.terms();
        let bad_method = AuthBadMethod {
            method,
            result: refusal.errno(),
            allowed_methods: methods.iter().map(|method| method.to_wire()).collect(),
            allowed_modes: modes.iter().map(|mode| mode.to_wire()).collect(),
        };
        Answer::BadMethod(bad_method, refusal)
    }

    fn terms(&self) -> Terms<'_> {
        self.auth.rules.terms(self.context.own, self.context.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AuthRules, RefusalKind};

    fn server(modes: &[ConnectionMode]) -> ServerAuth {
        let rules = AuthRules::uniform(&[AuthMethod::None], modes);
        let (own, peer) = (EntityType::Mon, EntityType::Client);
        let now = Duration::ZERO;
        ServerAuth::new(Auth::new(rules), Accepting { own, peer, fresh_global_id: 4242, now })
    }

    fn granted(answer: Answer) -> Grant {
        match answer {
            Answer::Done(done, grant) => {
                assert_eq!((done.global_id, done.mode), (grant.global_id, grant.mode.to_wire()));
                grant
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_without_a_number_gets_one_and_others_are_believed() {
        let mut server = server(&[ConnectionMode::Crc]);
        let login = none::request(EntityType::Client, "admin", 0, EntityType::Mon);
        let grant = granted(server.on_request(&login));
        assert_eq!(grant.global_id, 4242);
        assert_eq!(grant.peer.unwrap().name.to_string(), "client.admin");
        let authorizer = none::request(EntityType::Client, "admin", 77, EntityType::Osd);
        assert_eq!(granted(server.on_request(&authorizer)).global_id, 77);
    }

    #[test]
    fn the_client_s_preference_counts_among_what_is_allowed() {
        let good = none::request(EntityType::Client, "admin", 0, EntityType::Mon);
        let modes = |own: &[ConnectionMode], modes: Vec<u32>| {
            server(own).on_request(&AuthRequest { modes, ..good.clone() })
        };
        let both = [ConnectionMode::Secure, ConnectionMode::Crc];
        assert_eq!(granted(modes(&both, vec![9, 2, 1])).mode, ConnectionMode::Crc);
        let refused = modes(&[ConnectionMode::Secure], vec![2, 1]);
        assert!(matches!(refused, Answer::BadMethod(bad, _) if bad.allowed_modes == [2]));
    }

    #[test]
    fn refusals_carry_the_protocol_s_errno() {
        let good = none::request(EntityType::Client, "admin", 0, EntityType::Mon);
        let refused =
            |request: AuthRequest| match server(&[ConnectionMode::Crc]).on_request(&request) {
                Answer::BadMethod(refused, refusal) => (refused.result, refusal.kind()),
                other => panic!("{other:?}"),
            };
        let other_method = refused(AuthRequest { method: 77, ..good.clone() });
        assert_eq!(other_method, (-95, RefusalKind::Method));
        let other_mode = refused(AuthRequest { modes: vec![2], ..good.clone() });
        assert_eq!(other_mode, (-95, RefusalKind::Mode));
        for payload in [vec![], vec![20; 64]] {
            let nobody = refused(AuthRequest { payload, ..good.clone() });
            assert_eq!(nobody, (-13, RefusalKind::Malformed));
        }
    }
}
