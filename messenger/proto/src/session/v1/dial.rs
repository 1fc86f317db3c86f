//! The dialling side of msgr1's handshake.
//!
//! ```text
//!   Greeted: connect -->  Ready: open;  Challenge, RetrySession, RetryGlobal, ResetSession: again;
//!                         Wait: the other side's dial wins;  Refused: a fault
//! ```

use std::time::Instant;

use bytes::Bytes;

use super::{V1, narrow};
use crate::addr::EntityAddr;
use crate::auth::{ClientAuth, ConnectionMode, Key};
use crate::entity::{EntityName, EntityType};
use crate::error::ProtocolError;
use crate::session::transport::Phase;
use crate::session::{Fault, Session, SessionEvent, State, Step};
use crate::v1::{Attempt, Connector, Dial, Opened, Reply, V1Error};
use crate::v2::control::{AuthDone, SessionReset, SessionRetryGlobal};

/// A handshake of ours, and how we prove who we are.
#[derive(Debug)]
pub(in crate::session) struct Dialling {
    connector: Connector,
    /// None where no authorizer is needed, and before the server's greeting.
    auth: Option<ClientAuth>,
    /// Method and authorizer, as the next connect has them.
    authorizer: (u32, Vec<u8>),
}

impl Dialling {
    pub(super) fn wants(&self) -> Option<usize> {
        self.connector.wants()
    }
}

impl Session {
    pub(super) fn dial_v1(&mut self) {
        let dial = Dial {
            own: self.identity.name.kind,
            peer: self.peer.kind.unwrap_or(EntityType::Client),
            own_addr: self.own_v1_addr(),
            target: self.target.unwrap_or(EntityAddr::NONE),
            supported: self.policy.features_supported,
            required: self.policy.features_required,
            lossy: self.policy.lossy,
        };
        if !self.passes(Step::ClientBanner) {
            return;
        }
        let Some(transport) = self.transport() else {
            return;
        };
        let connector = transport.outbox.write(|out| Connector::new(dial, out));
        let dialling = Dialling { connector, auth: None, authorizer: (0, Vec::new()) };
        transport.v1 = Some(V1::Dialling(Box::new(dialling)));
        transport.phase = Phase::Connecting;
        self.passes(Step::ClientBannerSent);
    }

    /// A piece of what the server says.
    pub(super) fn on_v1_reply(&mut self, now: Instant, piece: Bytes) -> Result<(), ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        let Some(V1::Dialling(dialling)) = &mut transport.v1 else {
            return Ok(());
        };
        let reply = transport.outbox.write(|out| dialling.connector.push(piece, out))?;
        match reply {
            None => {}
            Some(Reply::Greeted { own_addr }) => self.on_greeting(own_addr)?,
            Some(Reply::Challenge(challenge)) => {
                if let Some(auth) = &mut dialling.auth {
                    dialling.authorizer.1 = auth.on_reply_more(&challenge)?;
                }
                self.send_connect();
            }
            Some(Reply::ResetSession) => self.on_session_reset(SessionReset { full: true }),
            Some(Reply::RetrySession { connect_seq }) => self.retry(now, connect_seq.into()),
            Some(Reply::RetryGlobal { global_seq }) => {
                self.on_retry_global(SessionRetryGlobal(global_seq.into()));
            }
            Some(Reply::Wait) => self.fault(now, Fault::Wait),
            Some(Reply::Refused(refusal)) => return Err(V1Error::Refused(refusal).into()),
            Some(Reply::Ready(opened)) => self.on_v1_ready(now, &opened)?,
        }
        Ok(())
    }

    /// It is the one dialled, and tells how it sees us.
    fn on_greeting(&mut self, own_addr: EntityAddr) -> Result<(), ProtocolError> {
        if !self.passes(Step::ClientBannerDone) {
            return Ok(());
        }
        if let Some(seen) = own_addr.socket.filter(|_| self.own_v1_addr().is_blank_ip()) {
            self.own_ip = Some(seen.ip());
            self.events.push_back(SessionEvent::LearnedAddr(seen));
        }
        let peer = self.peer.kind.unwrap_or(EntityType::Client);
        if !self.allows_v1(peer) {
            return Err(ProtocolError::NoAuthMethod { peer });
        }
        // Monitors want no authorizer: one logs in there by message.
        if peer != EntityType::Mon {
            let mut auth = self.client_auth(peer);
            let request = auth.request()?;
            if !request.modes.contains(&ConnectionMode::Crc.to_wire()) {
                return Err(ProtocolError::NoAuthMethod { peer });
            }
            if let Some(Dialling { auth: slot, authorizer, .. }) = self.dialling() {
                *slot = Some(auth);
                *authorizer = (request.method, request.payload);
            }
        }
        self.send_connect();
        Ok(())
    }

    /// Asks for the session that our numbers tell of.
    pub(in crate::session) fn send_connect(&mut self) {
        let is_new = self.numbers.connect_seq == 0;
        if !self.passes(if is_new { Step::ClientIdent } else { Step::Reconnect }) {
            return;
        }
        let numbers = &self.numbers;
        let State::Open { transport, .. } = &mut self.state else {
            return;
        };
        let Some(V1::Dialling(dialling)) = &mut transport.v1 else {
            return;
        };
        let (authorizer_protocol, authorizer) = dialling.authorizer.clone();
        let attempt = Attempt {
            global_seq: narrow(numbers.global_seq),
            connect_seq: narrow(numbers.connect_seq),
            in_seq: if is_new { 0 } else { numbers.in_seq },
            authorizer_protocol,
            authorizer,
        };
        transport.outbox.write(|out| dialling.connector.connect(attempt, out));
        transport.phase = if is_new { Phase::Connecting } else { Phase::Resuming };
    }

    fn on_v1_ready(&mut self, now: Instant, opened: &Opened) -> Result<(), ProtocolError> {
        let key = self.check_authorizer_reply(&opened.authorizer_reply)?;
        let resumes = self.numbers.connect_seq > 0;
        if resumes {
            self.numbers.peer_global_seq = opened.global_seq.into();
            self.go_on_behind(opened);
        } else {
            let name = self.peer_name(EntityName::UNNUMBERED);
            let addrs = self.peer.addrs.clone();
            self.take_new_session(name, addrs, opened.global_seq.into(), opened.features);
        }
        self.numbers.connect_seq = opened.connect_seq.into();
        // The server's word on lossy counts (contract P-6).
        self.policy.lossy = opened.lossy || self.disposable;
        self.open_link(opened, key.as_ref())?;
        self.enter_ready(now, resumes);
        Ok(())
    }

    /// The key that signs messages, if what the server replies to our authorizer is right.
    fn check_authorizer_reply(&mut self, reply: &Bytes) -> Result<Option<Key>, ProtocolError> {
        let secrets = self.identity.auth.secrets.as_ref();
        let held = secrets.map_or(0, |secrets| secrets.tickets().global_id());
        let global_id = if held == 0 { self.peer.global_id } else { held };
        let Some(auth) = self.dialling().and_then(|dialling| dialling.auth.as_mut()) else {
            return Ok(None);
        };
        let mode = ConnectionMode::Crc.to_wire();
        let grant = auth.on_done(&AuthDone { global_id, mode, payload: reply.to_vec() })?;
        self.peer.global_id = grant.global_id;
        Ok(grant.session_key)
    }

    fn dialling(&mut self) -> Option<&mut Dialling> {
        match &mut self.transport()?.v1 {
            Some(V1::Dialling(dialling)) => Some(dialling),
            _ => None,
        }
    }
}
