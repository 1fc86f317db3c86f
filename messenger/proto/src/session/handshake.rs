//! From the banner to a new session: HELLO and idents. What lies between them is in
//! `authenticate`.

use std::net::SocketAddr;
use std::time::Instant;

use crate::addr::{AddrType, EntityAddr, EntityAddrVec};
use crate::entity::{EntityName, EntityType};
use crate::error::ProtocolError;
use crate::session::transport::{Phase, Side};
use crate::session::{IdentRequest, PeerIdent, Session, SessionEvent, State, Step};
use crate::v2::control::{ClientIdent, FLAG_LOSSY, Hello, IdentMissingFeatures, ServerIdent};

impl Session {
    /// The banners agree.
    pub(super) fn greet(&mut self) {
        let kind = self.identity.name.kind;
        let from = self.peer.socket.map(|socket| EntityAddr::v2(socket, 0));
        let target = self.target;
        let Some(transport) = self.transport() else {
            return;
        };
        let peer_addr = match transport.side {
            Side::Dialler => target,
            Side::Acceptor => from,
        };
        let peer_addr = peer_addr.unwrap_or(EntityAddr::NONE);
        transport.send(&Hello { kind, peer_addr });
        transport.phase = Phase::Hello;
    }

    pub(super) fn on_hello(&mut self, hello: &Hello) -> Result<(), ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        transport.phase = Phase::Auth;
        if transport.side == Side::Acceptor {
            self.peer.kind = Some(hello.kind);
            self.policy = self.identity.policies.get(hello.kind).clone();
            self.policy.lossy |= self.disposable;
            self.await_auth_request(hello.kind);
            return Ok(());
        }
        if let Some(expected) = self.peer.kind.filter(|expected| *expected != hello.kind) {
            return Err(ProtocolError::WrongPeerType { expected, got: hello.kind });
        }
        self.send_auth_request(hello.kind)?;
        if self.transport().is_none() {
            return Ok(());
        }
        if let Some(seen) = hello.peer_addr.socket.filter(|seen| !seen.ip().is_unspecified()) {
            self.own_ip = Some(seen.ip());
            self.events.push_back(SessionEvent::LearnedAddr(seen));
        }
        Ok(())
    }

    pub(super) fn send_client_ident(&mut self) {
        if self.policy.lossy {
            self.numbers.client_cookie = 0;
        } else if self.numbers.client_cookie == 0 {
            self.numbers.client_cookie = self.cookie();
        }
        let number = self.own_name().number;
        let ident = ClientIdent {
            addrs: self.own_addrs(),
            target: self.target.unwrap_or(EntityAddr::NONE),
            number,
            global_seq: self.numbers.global_seq,
            supported: self.policy.features_supported,
            required: self.policy.features_required,
            flags: if self.policy.lossy { FLAG_LOSSY } else { 0 },
            cookie: self.numbers.client_cookie,
        };
        if !self.passes(Step::ClientIdent) {
            return;
        }
        let Some(transport) = self.transport() else {
            return;
        };
        transport.send(&ident);
        transport.phase = Phase::Connecting;
    }

    pub(super) fn on_client_ident(&mut self, ident: ClientIdent) -> Result<(), ProtocolError> {
        self.check_client_addrs(&ident.addrs)?;
        if !self.own_addrs().contains(&ident.target) {
            return Err(ProtocolError::WrongTarget { target: ident.target });
        }
        let missing = self.policy.features_required & !ident.supported;
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        if missing != 0 {
            transport.send(&IdentMissingFeatures(missing));
            return Ok(());
        }
        let (features, lossy) = (ident.supported, ident.flags & FLAG_LOSSY != 0);
        self.ask_for_verdict(PeerIdent {
            auth: self.peer.auth.clone(),
            name: self.peer_name(ident.number),
            addrs: ident.addrs,
            from: self.peer_socket(),
            global_seq: ident.global_seq,
            client_cookie: ident.cookie,
            request: IdentRequest::New { features, lossy },
        });
        Ok(())
    }

    /// Makes a new session with a client the shell accepted.
    pub(super) fn found(&mut self, now: Instant, ident: PeerIdent, features: u64) {
        self.take_new_session(ident.name, ident.addrs, ident.global_seq, features);
        let lossy = self.policy.lossy;
        self.numbers.client_cookie = if lossy { 0 } else { ident.client_cookie };
        self.numbers.server_cookie = if lossy { 0 } else { self.cookie() };
        let answer = ServerIdent {
            addrs: self.own_addrs(),
            number: self.identity.name.number,
            global_seq: self.identity.global_seq.next(),
            supported: self.policy.features_supported,
            required: self.policy.features_required,
            flags: if lossy { FLAG_LOSSY } else { 0 },
            cookie: self.numbers.server_cookie,
        };
        if !self.passes(Step::ServerIdent) {
            return;
        }
        if let Some(transport) = self.transport() {
            transport.send(&answer);
        }
        self.enter_ready(now, false);
    }

    pub(super) fn on_server_ident(
        &mut self,
        now: Instant,
        ident: ServerIdent,
    ) -> Result<(), ProtocolError> {
        if let Some(dialled) = self.target.filter(|target| !ident.addrs.contains(target)) {
            return Err(ProtocolError::NotTheDialled { dialled, addrs: ident.addrs });
        }
        let missing = self.policy.features_required & !ident.supported;
        if missing != 0 {
            return Err(ProtocolError::MissingFeatures { missing });
        }
        let name = self.peer_name(ident.number);
        self.take_new_session(name, ident.addrs, ident.global_seq, ident.supported);
        // The server's word on lossy counts (contract P-6).
        self.policy.lossy = ident.flags & FLAG_LOSSY != 0 || self.disposable;
        self.numbers.server_cookie = if self.policy.lossy { 0 } else { ident.cookie };
        self.enter_ready(now, false);
        Ok(())
    }

    pub(super) fn on_missing_features(
        &self,
        missing: IdentMissingFeatures,
    ) -> Result<(), ProtocolError> {
        Err(ProtocolError::MissingFeatures { missing: missing.0 })
    }

    /// A client must say where it lives, or it could not be told from others.
    pub(super) fn check_client_addrs(&self, addrs: &EntityAddrVec) -> Result<(), ProtocolError> {
        match addrs.first() {
            Some(first) if !first.is_blank_ip() => Ok(()),
            _ => Err(ProtocolError::BlankAddrs { addrs: addrs.clone() }),
        }
    }

    /// Hands the decision about a peer to the shell.
    pub(super) fn ask_for_verdict(&mut self, ident: PeerIdent) {
        let Some(transport) = self.transport() else {
            return;
        };
        transport.phase = Phase::Judging(Box::new(ident.clone()));
        self.events.push_back(SessionEvent::Ident(Box::new(ident)));
    }

    /// What both sides note when a session begins: it counts messages from the start, and what is
    /// still queued belongs to it.
    pub(super) fn take_new_session(
        &mut self,
        name: EntityName,
        addrs: EntityAddrVec,
        global_seq: u64,
        features: u64,
    ) {
        self.peer.name = Some(name);
        self.peer.addrs = addrs;
        self.peer.features = features & self.policy.features_supported;
        self.numbers.peer_global_seq = global_seq;
        self.numbers.connect_seq = 0;
        self.numbers.in_seq = 0;
        self.numbers.out_seq = 0;
        self.ack_due = false;
        self.queue.forget_seqs();
    }

    /// Our addresses, blank IPs filled in.
    pub(super) fn own_addrs(&self) -> EntityAddrVec {
        let own = &self.identity.addrs;
        let Some(ip) = self.own_ip else {
            return own.clone();
        };
        if own.is_empty() {
            let nameless = EntityAddr { kind: AddrType::Any, nonce: 0, socket: None };
            return nameless.with_ip_if_blank(ip).into();
        }
        EntityAddrVec(own.iter().map(|addr| addr.with_ip_if_blank(ip)).collect())
    }

    /// Our name; a client without a number has the one it got when it authenticated.
    pub(super) fn own_name(&self) -> EntityName {
        let name = self.identity.name;
        let is_nameless = name.kind == EntityType::Client && name.number == EntityName::UNNUMBERED;
        match i64::try_from(self.peer.global_id) {
            Ok(number) if is_nameless && number > 0 => EntityName::new(name.kind, number),
            _ => name,
        }
    }

    pub(super) fn peer_name(&self, number: i64) -> EntityName {
        EntityName::new(self.peer.kind.unwrap_or(EntityType::Client), number)
    }

    pub(super) fn peer_socket(&self) -> SocketAddr {
        self.peer.socket.expect("a transport has a peer")
    }
}
