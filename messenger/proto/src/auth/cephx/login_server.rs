//! A monitor's side: it knows everybody's key, and gives tickets (cephx: login).

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::BytesMut;
use zeroize::Zeroizing;

use super::crypt::{proof, seal_blob};
use super::error::CephxError;
use super::login::{ANSWER_VERSION, PAYLOAD_LOGIN};
use super::rotating::RotatingSecrets;
use super::services::Services;
use super::ticket::{Caps, Issue, TicketBlob, TicketInfo, encode_list, version};
use super::tickets::read_op;
use super::verifier::Verified;
use super::{Admitted, OP_LOGIN, OP_TICKETS, connection_secret, random_u64, secret_len};
use crate::auth::keyring::{Keyring, Principal};
use crate::auth::name::AuthName;
use crate::auth::secret::{KEY_LEN, Key};
use crate::denc::{DecodeError, Reader, Writer};
use crate::entity::EntityType;

/// Answers from this version on bring the services that are wanted.
const ANSWER_WITH_SERVICES: u8 = 2;

/// How long tickets are good, and secrets current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketLifetimes {
    /// Of AUTH tickets, with which a client gets others.
    pub auth: Duration,
    /// Of tickets for services.
    pub service: Duration,
}

impl Default for TicketLifetimes {
    /// Ceph's: three days and an hour.
    fn default() -> Self {
        Self { auth: Duration::from_secs(72 * 3600), service: Duration::from_secs(3600) }
    }
}

/// What a monitor knows: principals with their keys, and the services' secrets.
#[derive(Debug, Clone)]
pub struct LoginServer {
    /// Everybody who may come in.
    pub keyring: Keyring,
    lifetimes: TicketLifetimes,
    secrets: BTreeMap<EntityType, RotatingSecrets>,
}

/// A login that has been challenged. A challenge is good for one answer.
#[derive(Debug)]
pub struct PendingLogin {
    name: AuthName,
    claimed: u64,
    challenge: u64,
}

impl LoginServer {
    /// A monitor with fresh secrets for every service.
    pub fn new(
        keyring: Keyring,
        lifetimes: TicketLifetimes,
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Self {
        let secrets = Services::ALL.iter().map(|service| (service, RotatingSecrets::default()));
        let mut server = Self { keyring, lifetimes, secrets: secrets.collect() };
        server.rotate(now, random);
        server
    }

    /// Replaces the secrets that are used up, and says whether there are new ones. To be called now
    /// and then, more often than the shorter lifetime.
    pub fn rotate(&mut self, now: Duration, random: &mut dyn FnMut(&mut [u8])) -> bool {
        let lifetimes = self.lifetimes;
        self.secrets.iter_mut().fold(false, |rotated, (service, secrets)| {
            secrets.rotate(now, lifetimes.of(*service), random) || rotated
        })
    }

    /// The secrets of a service, to verify its authorizers in the monitor's own process.
    pub fn secrets(&self, service: EntityType) -> Option<&RotatingSecrets> {
        self.secrets.get(&service)
    }

    /// Challenges whoever asks, known or not (cephx: login, step 2). The reply is the blob of
    /// `AUTH_REPLY_MORE`.
    pub fn begin(
        request: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(PendingLogin, Vec<u8>), CephxError> {
        let reader = &mut Reader::new(request);
        let kind = reader.u8()?;
        if kind != PAYLOAD_LOGIN {
            return Err(DecodeError::Invalid { field: "auth payload", value: kind.into() }.into());
        }
        let (name, claimed) = (AuthName::decode(reader)?, reader.u64()?);
        Ok(PendingLogin::new(name, claimed, random))
    }

    /// Gives tickets to a client that has one for AUTH, but no other one for AUTH (cephx: separate
    /// ticket request). The reply to an error is [`LoginServer::refuse_tickets`].
    pub fn grant_tickets(
        &self,
        payload: &[u8],
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, CephxError> {
        let reader = &mut Reader::new(payload);
        read_op(reader, OP_TICKETS)?;
        let auth = EntityType::Auth;
        let Verified { ticket, .. } = Verified::new(reader, auth, self.of(auth)?, now)?;
        version(reader, 1, "ticket request")?;
        // Only who has the principal's key gets a longer life for its AUTH ticket.
        let wanted = Services::from_wire(reader.u32()?).without(Services::only(auth));
        let Some(principal) = self.keyring.get(&ticket.name) else {
            return Err(CephxError::UnknownPrincipal(ticket.name));
        };
        let client = Client { name: &ticket.name, global_id: ticket.global_id, principal };
        let issues = self.issues(&client, wanted, now, random)?;
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u16(OP_TICKETS);
        writer.i32(0);
        encode_list(&mut writer, &ticket.session_key, None, &issues);
        Ok(out.to_vec())
    }

    /// The reply to a ticket request that failed.
    pub fn refuse_tickets(error: &CephxError) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u16(OP_TICKETS);
        writer.i32(error.errno());
        out.to_vec()
    }

    /// Gives a service its secrets (cephx: rotating secrets), if `name`, who is logged in, is one.
    pub fn rotating_secrets(&self, name: &AuthName) -> Result<Vec<u8>, CephxError> {
        let Some(principal) = self.keyring.get(name) else {
            return Err(CephxError::UnknownPrincipal(name.clone()));
        };
        match name.kind {
            EntityType::Osd | EntityType::Mds | EntityType::Mgr => {
                Ok(self.of(name.kind)?.reply(&principal.key))
            }
            other => Err(CephxError::NoServiceSecret(other)),
        }
    }

    fn of(&self, service: EntityType) -> Result<&RotatingSecrets, CephxError> {
        self.secrets(service).ok_or(CephxError::NoServiceSecret(service))
    }

    fn issue(
        &self,
        client: &Client<'_>,
        service: EntityType,
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Issue, CephxError> {
        let validity = self.lifetimes.of(service);
        let ticket = TicketInfo {
            name: client.name.clone(),
            global_id: client.global_id,
            created: now,
            expires: now.saturating_add(validity),
            caps: caps(client.principal, service),
            session_key: Key::generate(now, random),
        };
        let blob = ticket.seal(service, self.of(service)?)?;
        Ok(Issue { service, session_key: ticket.session_key, validity, blob })
    }

    fn issues(
        &self,
        client: &Client<'_>,
        wanted: Services,
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<Issue>, CephxError> {
        wanted.iter().map(|service| self.issue(client, service, now, random)).collect()
    }
}

/// Whom tickets are for.
struct Client<'a> {
    name: &'a AuthName,
    global_id: u64,
    principal: &'a Principal,
}

impl PendingLogin {
    /// Challenges `name`, who claims to have a number already, or none with 0. For logins that do
    /// not come in a blob of [`LoginServer::begin`], as on msgr v1.
    pub fn new(name: AuthName, claimed: u64, random: &mut dyn FnMut(&mut [u8])) -> (Self, Vec<u8>) {
        let challenge = random_u64(random).max(1); // Ceph's are never 0
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u8(1);
        writer.u64(challenge);
        (Self { name, claimed, challenge }, out.to_vec())
    }

    /// Who wants in, as it says.
    pub fn name(&self) -> &AuthName {
        &self.name
    }

    /// Looks at the answer to the challenge, and gives tickets (cephx: login, step 4). Who has no
    /// number yet gets `fresh_global_id`. `mode` is the connection mode that was chosen.
    pub fn finish(
        self,
        server: &LoginServer,
        answer: &[u8],
        mode: u32,
        fresh_global_id: u64,
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Admitted, CephxError> {
        let LoginAnswer { client_challenge, proof, old, wanted } = LoginAnswer::decode(answer)?;
        let principal = self.check(server, client_challenge, proof)?;
        let old = self.old_ticket(server, &old, now);
        let global_id = match (self.claimed, &old) {
            (0, _) => fresh_global_id,
            (claimed, Some(old)) if old.global_id == claimed => claimed,
            (global_id, _) => return Err(CephxError::Reclaim { name: self.name, global_id }),
        };

        let client = Client { name: &self.name, global_id, principal };
        let issue = server.issue(&client, EntityType::Auth, now, random)?;
        let session_key = issue.session_key.clone();
        let old_session_key = old.as_ref().map(|old| &old.session_key);
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u16(OP_LOGIN);
        writer.i32(0);
        encode_list(&mut writer, &principal.key, old_session_key, &[issue]);

        let mut secret = Zeroizing::new(vec![0; secret_len(mode)]);
        random(&mut secret);
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
            let mut sealed = BytesMut::new();
            seal_blob(&mut Writer::new(&mut sealed), &session_key, |body| body.blob(&secret));
            writer.blob(&sealed);
            let wanted = wanted.without(Services::only(EntityType::Auth));
            let issues = server.issues(&client, wanted, now, random)?;
            let mut extra = BytesMut::new();
            if !issues.is_empty() {
                encode_list(&mut Writer::new(&mut extra), &session_key, None, &issues);
            }
            writer.blob(&extra);
        }
        Ok(Admitted {
            global_id,
            caps: caps(principal, EntityType::Mon),
            payload: out.to_vec(),
            session_key,
            connection_secret: connection_secret(mode, &secret)?,
            name: self.name,
        })
    }

    /// The principal, if it has proved itself. Unknown ones take as long as others.
    fn check<'a>(
        &self,
        server: &'a LoginServer,
        client_challenge: u64,
        got: u64,
    ) -> Result<&'a Principal, CephxError> {
        let nobody = Key::new([0; KEY_LEN], Duration::ZERO);
        let principal = server.keyring.get(&self.name);
        let key = principal.map_or(&nobody, |principal| &principal.key);
        let expected = proof(key, self.challenge, client_challenge);
        let same = verify_slices_are_equal(&expected.to_le_bytes(), &got.to_le_bytes());
        let Some(principal) = principal else {
            return Err(CephxError::UnknownPrincipal(self.name.clone()));
        };
        same.map_err(|_| CephxError::WrongProof(self.name.clone()))?;
        Ok(principal)
    }

    /// The AUTH ticket of an earlier login of the same principal, if it is still good.
    fn old_ticket(
        &self,
        server: &LoginServer,
        old: &TicketBlob,
        now: Duration,
    ) -> Option<TicketInfo> {
        if old.is_blank() {
            return None;
        }
        let secrets = server.secrets(EntityType::Auth)?;
        let ticket = TicketInfo::open(old, EntityType::Auth, secrets, now).ok()?;
        (ticket.name == self.name).then_some(ticket)
    }
}

/// Step 3 as it comes in.
struct LoginAnswer {
    client_challenge: u64,
    proof: u64,
    old: TicketBlob,
    wanted: Option<Services>,
}

impl LoginAnswer {
    fn decode(answer: &[u8]) -> Result<Self, CephxError> {
        let reader = &mut Reader::new(answer);
        read_op(reader, OP_LOGIN)?;
        let version = reader.u8()?;
        if !(1..=ANSWER_VERSION).contains(&version) {
            return Err(CephxError::Version { what: "login answer", version });
        }
        let (client_challenge, proof) = (reader.u64()?, reader.u64()?);
        let old = TicketBlob::decode(reader)?;
        let wanted = match version {
            ANSWER_WITH_SERVICES.. => Some(Services::from_wire(reader.u32()?)),
            _ => None,
        };
        Ok(Self { client_challenge, proof, old, wanted })
    }
}

impl TicketLifetimes {
    fn of(&self, service: EntityType) -> Duration {
        if service == EntityType::Auth { self.auth } else { self.service }
    }
}

/// What a principal may do at a service. What it may do at the AUTH service is up to nobody's caps.
fn caps(principal: &Principal, service: EntityType) -> Caps {
    let text = principal.caps.get(service.as_str()).cloned().unwrap_or_default();
    Caps { allow_all: false, text }
}
