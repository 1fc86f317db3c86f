//! The accepting side of msgr1's handshake.
//!
//! ```text
//!   Request: authorizer --> Challenge, BadAuthorizer: the client tries again
//!                           convinced: the shell's verdict: an answer, or Accept --> (SEQ) open
//! ```

use std::time::Instant;

use bytes::Bytes;

use super::V1;
use crate::addr::AddrType;
use crate::auth::{self, AuthMethod, ConnectionMode, Grant, Refusal, ServerAuth};
use crate::entity::{EntityName, EntityType};
use crate::error::ProtocolError;
use crate::features;
use crate::identity::Identity;
use crate::session::transport::Phase;
use crate::session::{CloseReason, IdentRequest, PeerIdent, Session, State, Step, Verdict};
use crate::v1::{self, Accept, Acceptor, Answer, Heard, Opened, Request, Terms};
use crate::v2::control::AuthRequest;

/// A handshake of a client's, and what convinced us of who it is.
#[derive(Debug)]
pub(in crate::session) struct Accepting {
    acceptor: Acceptor,
    /// For clients of this type.
    auth: Option<(EntityType, ServerAuth)>,
    /// A challenge of ours is to be answered.
    challenged: bool,
    /// None where no authorizer is needed.
    grant: Option<Grant>,
    authorizer_reply: Vec<u8>,
    /// The session that was accepted is an old one.
    resumes: bool,
}

impl Accepting {
    pub(super) fn wants(&self) -> Option<usize> {
        self.acceptor.wants()
    }
}

impl Session {
    pub(super) fn accept_v1(&mut self) {
        let own_addr = self.own_addrs().of(AddrType::Legacy);
        let accepting =
            v1::Accepting { own: self.identity.name.kind, own_addr, from: self.peer_socket() };
        let Some(transport) = self.transport() else {
            return;
        };
        let acceptor = transport.outbox.write(|out| Acceptor::new(accepting, out));
        transport.v1 = Some(V1::Accepting(Box::new(Accepting {
            acceptor,
            auth: None,
            challenged: false,
            grant: None,
            authorizer_reply: Vec::new(),
            resumes: false,
        })));
        transport.phase = Phase::Accepting;
    }

    /// A piece of what the client says.
    pub(super) fn on_v1_request(
        &mut self,
        now: Instant,
        piece: Bytes,
    ) -> Result<(), ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        let Some(V1::Accepting(accepting)) = &mut transport.v1 else {
            return Ok(());
        };
        let identity = &self.identity;
        let terms = |kind| terms(identity, kind);
        let heard = transport.outbox.write(|out| accepting.acceptor.push(piece, &terms, out))?;
        match heard {
            None => Ok(()),
            Some(Heard::Request(request)) => {
                self.on_connect(&request);
                Ok(())
            }
            Some(Heard::Opened(opened)) => self.on_v1_opened(now, &opened),
        }
    }

    fn on_connect(&mut self, request: &Request) {
        self.peer.kind = Some(request.kind);
        self.policy = self.identity.policies.get(request.kind).clone();
        self.policy.lossy |= self.disposable;
        if !request.convinced
            && let Err(answer) = self.check_authorizer(request)
        {
            return self.deny(answer);
        }
        self.ask_for_verdict(PeerIdent {
            auth: self.peer.auth.clone(),
            name: self.peer_name(self.number_of_peer()),
            addrs: request.addr.into(),
            from: self.peer_socket(),
            global_seq: request.global_seq.into(),
            client_cookie: 0,
            request: IdentRequest::Connect {
                connect_seq: request.connect_seq.into(),
                features: request.features,
                lossy: request.lossy,
            },
        });
    }

    /// A daemon authenticates under its number, a client gets one. To a monitor nobody tells it here.
    fn number_of_peer(&self) -> i64 {
        let number = match &self.peer.auth {
            Some(auth) if auth.name.kind != EntityType::Client => auth.name.id.parse().ok(),
            Some(_) => i64::try_from(self.peer.global_id).ok(),
            None => None,
        };
        number.unwrap_or(EntityName::UNNUMBERED)
    }

    /// Whether a client may come in; if not, what to answer. To a monitor clients prove nothing here:
    /// they log in by message, which is for the application to insist on.
    fn check_authorizer(&mut self, request: &Request) -> Result<(), Answer> {
        let (own, kind) = (self.identity.name.kind, request.kind);
        let modes = vec![ConnectionMode::Crc.to_wire()];
        if own == EntityType::Mon && kind != EntityType::Mon {
            if self.allows_v1(kind) {
                return Ok(());
            }
            let methods = self.identity.auth.rules.terms(own, kind).methods;
            let method = methods.first().copied().unwrap_or(AuthMethod::None);
            self.turn_away(Refusal::Mode { peer: kind, method, modes });
            return Err(Answer::BadAuthorizer);
        }
        let fresh = self.server_auth(kind);
        let Some(accepting) = self.accepting() else {
            return Err(Answer::BadAuthorizer);
        };
        let (_, auth) = match accepting.auth.take_if(|(known, _)| *known == kind) {
            Some(same) => accepting.auth.insert(same),
            None => accepting.auth.insert((kind, fresh)),
        };
        accepting.grant = None;
        let answer = if std::mem::take(&mut accepting.challenged) {
            auth.on_more(&request.authorizer)
        } else {
            auth.on_request(&AuthRequest {
                method: request.authorizer_protocol,
                modes,
                payload: request.authorizer.to_vec(),
            })
        };
        match answer {
            auth::Answer::BadMethod(_, refusal) => {
                self.turn_away(refusal);
                Err(Answer::BadAuthorizer)
            }
            auth::Answer::More(challenge) => {
                accepting.challenged = true;
                Err(Answer::Challenge(challenge))
            }
            auth::Answer::Done(done, mut grant) => {
                let (peer, global_id) = (grant.peer.take(), grant.global_id);
                accepting.authorizer_reply = done.payload;
                accepting.grant = Some(grant);
                (self.peer.auth, self.peer.global_id) = (peer, global_id);
                Ok(())
            }
        }
    }

    /// Carries out the shell's answer to a connect.
    pub(in crate::session) fn judge_connect(
        &mut self,
        now: Instant,
        ident: &PeerIdent,
        connect_seq: u64,
        verdict: Verdict,
    ) -> Result<(), ProtocolError> {
        let policy = &self.policy;
        let is_anonymous = policy.lossy && policy.server && !policy.register_lossy_clients;
        match verdict {
            Verdict::Accept if connect_seq == 0 || is_anonymous => {
                return self.accept_connect(now, ident, false);
            }
            // A session that is not here cannot go on here.
            Verdict::Accept | Verdict::Reset { .. } => self.deny(Answer::ResetSession),
            Verdict::Retry { connect_seq } => {
                let connect_seq = super::narrow(connect_seq.saturating_add(1));
                self.deny(Answer::RetrySession { connect_seq });
            }
            Verdict::RetryGlobal { global_seq } => {
                self.deny(Answer::RetryGlobal { global_seq: super::narrow(global_seq) });
            }
            Verdict::Wait => self.deny(Answer::Wait),
            Verdict::Refuse => {
                self.hang_up();
                self.die(CloseReason::Refused);
            }
        }
        Ok(())
    }

    /// This session takes over a transport whose connect asked for it.
    pub(in crate::session) fn adopt_connect(
        &mut self,
        now: Instant,
        ident: &PeerIdent,
        connect_seq: u64,
    ) -> Result<(), ProtocolError> {
        let restarted = connect_seq == 0 && self.established;
        if restarted && self.policy.resetcheck {
            self.lose_queue();
        }
        self.accept_connect(now, ident, connect_seq > 0)
    }

    fn accept_connect(
        &mut self,
        now: Instant,
        ident: &PeerIdent,
        resumes: bool,
    ) -> Result<(), ProtocolError> {
        let IdentRequest::Connect { connect_seq, features, .. } = ident.request else {
            return Ok(());
        };
        if !self.passes(if resumes { Step::ReconnectOk } else { Step::ServerIdent }) {
            return Ok(());
        }
        if !resumes {
            self.take_new_session(ident.name, ident.addrs.clone(), ident.global_seq, features);
        }
        self.numbers.peer_global_seq = ident.global_seq;
        self.numbers.connect_seq = connect_seq.saturating_add(1);
        self.promised = !self.policy.lossy;
        let (global_seq, in_seq) = (self.identity.global_seq.next(), self.numbers.in_seq);
        let Some(accepting) = self.accepting() else {
            return Ok(());
        };
        accepting.resumes = resumes;
        let authorizer_reply = std::mem::take(&mut accepting.authorizer_reply);
        let global_seq = super::narrow(global_seq);
        let accept = Accept { global_seq, in_seq, authorizer_reply };
        match self.answer_v1(Answer::Accept(accept)) {
            Some(opened) => self.on_v1_opened(now, &opened),
            None => Ok(()), // it says first how far it got
        }
    }

    fn on_v1_opened(&mut self, now: Instant, opened: &Opened) -> Result<(), ProtocolError> {
        let Some(accepting) = self.accepting() else {
            return Ok(());
        };
        let resumes = accepting.resumes;
        let key = accepting.grant.take().and_then(|grant| grant.session_key);
        if resumes {
            self.go_on_behind(opened);
        }
        self.open_link(opened, key.as_ref())?;
        self.enter_ready(now, resumes);
        Ok(())
    }

    /// Any answer that opens nothing.
    fn deny(&mut self, answer: Answer) {
        let opened = self.answer_v1(answer);
        debug_assert_eq!(opened, None);
    }

    fn answer_v1(&mut self, answer: Answer) -> Option<Opened> {
        let transport = self.transport()?;
        let Some(V1::Accepting(accepting)) = &mut transport.v1 else {
            return None;
        };
        transport.outbox.write(|out| accepting.acceptor.answer(answer, out))
    }

    fn accepting(&mut self) -> Option<&mut Accepting> {
        match &mut self.transport()?.v1 {
            Some(V1::Accepting(accepting)) => Some(accepting),
            _ => None,
        }
    }
}

/// What goes for clients of a type. Where messages may have to be signed there has to be room for it.
fn terms(identity: &Identity, kind: EntityType) -> Terms {
    let policy = identity.policies.get(kind);
    let methods = identity.auth.rules.terms(identity.name.kind, kind).methods;
    let signs = methods.contains(&AuthMethod::Cephx);
    Terms {
        supported: policy.features_supported,
        required: policy.features_required | if signs { features::MSG_AUTH } else { 0 },
        lossy: policy.lossy,
    }
}
