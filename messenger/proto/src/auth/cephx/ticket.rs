//! Tickets: what a service may know of a client, sealed so that only the service can read it.
//!
//! ```text
//!   ticket blob   u8 1, u64 secret id, blob E(service secret, ticket)      opaque to the client
//!   ticket        u8 1, u8 2, name, u64 global id, u64 -1, utime created, utime expires,
//!                 caps { u8 1, bool all, blob { text } }, u32 flags, key session key
//!   ticket list   u8 1, n * { u32 service, u8 1, blob E(K, u8 1, key session key, utime validity),
//!                 u8 enc, enc ? blob E(old session key, blob ticket blob) : blob ticket blob }
//! ```

use std::time::Duration;

use bytes::BytesMut;

use super::crypt::{open, seal, seal_blob};
use super::error::CephxError;
use super::rotating::RotatingSecrets;
use super::tickets::TICKETS_MAX;
use crate::auth::name::AuthName;
use crate::auth::secret::Key;
use crate::denc::{DecodeError, Reader, Writer};
use crate::entity::EntityType;
use crate::v2::Utime;

/// Longest ticket, as long as it is sealed.
pub const TICKET_LEN_MAX: usize = 16 << 10;

const TICKET_VERSION: u8 = 2;
const NO_AUID: u64 = u64::MAX;
/// A client renews when this part of a ticket's life is left.
const RENEW_WITH_PART_LEFT: u32 = 4;

/// What a principal may do at a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// Everything, whatever the text says.
    pub allow_all: bool,
    /// In Ceph's words, such as `allow rw pool=images`.
    pub text: String,
}

impl Caps {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, CephxError> {
        version(reader, 1, "caps")?;
        let (allow_all, text) = (reader.bool()?, reader.blob()?);
        let text = if text.is_empty() { "" } else { Reader::new(text).text()? };
        Ok(Self { allow_all, text: text.to_owned() })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(1);
        writer.bool(self.allow_all);
        let mut text = BytesMut::new();
        if !self.text.is_empty() {
            Writer::new(&mut text).text(&self.text);
        }
        writer.blob(&text);
    }
}

/// A ticket as clients pass it on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TicketBlob {
    /// Which of the service's secrets opens it.
    pub(super) secret_id: u64,
    pub(super) sealed: Vec<u8>,
}

impl TicketBlob {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, CephxError> {
        version(reader, 1, "ticket blob")?;
        let (secret_id, sealed) = (reader.u64()?, reader.blob()?);
        let (len, max) = (sealed.len(), TICKET_LEN_MAX);
        if len > max {
            return Err(CephxError::TooLong { what: "ticket", len, max });
        }
        Ok(Self { secret_id, sealed: sealed.to_vec() })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(1);
        writer.u64(self.secret_id);
        writer.blob(&self.sealed);
    }

    /// The blob that stands for no ticket.
    pub(super) fn is_blank(&self) -> bool {
        self.sealed.is_empty()
    }

    fn to_bytes(&self) -> BytesMut {
        let mut out = BytesMut::new();
        self.encode(&mut Writer::new(&mut out));
        out
    }
}

/// What is inside of a [`TicketBlob`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TicketInfo {
    pub(super) name: AuthName,
    pub(super) global_id: u64,
    pub(super) created: Duration,
    pub(super) expires: Duration,
    pub(super) caps: Caps,
    pub(super) session_key: Key,
}

impl TicketInfo {
    /// Seals the ticket for `service` with the secret in use.
    pub(super) fn seal(
        &self,
        service: EntityType,
        secrets: &RotatingSecrets,
    ) -> Result<TicketBlob, CephxError> {
        let Some((secret_id, secret)) = secrets.current() else {
            return Err(CephxError::NoServiceSecret(service));
        };
        let sealed = seal(&secret.key, |body| {
            body.u8(1);
            body.u8(TICKET_VERSION);
            self.name.encode(body);
            body.u64(self.global_id);
            body.u64(NO_AUID);
            Utime::from(self.created).encode(body);
            Utime::from(self.expires).encode(body);
            self.caps.encode(body);
            body.u32(0); // flags
            self.session_key.encode(body);
        });
        let (len, max) = (sealed.len(), TICKET_LEN_MAX);
        if len > max {
            return Err(CephxError::TooLong { what: "ticket", len, max });
        }
        Ok(TicketBlob { secret_id, sealed: sealed.to_vec() })
    }

    /// Opens a ticket for `service` that is still good at `now`.
    pub(super) fn open(
        blob: &TicketBlob,
        service: EntityType,
        secrets: &RotatingSecrets,
        now: Duration,
    ) -> Result<Self, CephxError> {
        let secret_id = blob.secret_id;
        let Some(secret) = secrets.get(secret_id) else {
            return Err(CephxError::UnknownSecret { service, secret_id });
        };
        let opened = open(&secret.key, &blob.sealed, "ticket")?;
        let reader = &mut opened.reader();
        version(reader, 1, "service ticket")?;
        version(reader, TICKET_VERSION, "ticket")?;
        let (name, global_id) = (AuthName::decode(reader)?, reader.u64()?);
        // The number says nothing, but it is in front of the times: who changes these in the
        // ciphertext spoils it.
        let auid = reader.u64()?;
        if auid != NO_AUID {
            return Err(DecodeError::Invalid { field: "auid", value: auid }.into());
        }
        let (created, expires) = (Utime::decode(reader)?.into(), Utime::decode(reader)?.into());
        let caps = Caps::decode(reader)?;
        let _flags = reader.u32()?;
        let session_key = Key::decode(reader)?;
        if now >= expires {
            return Err(CephxError::Expired { name, expires, now });
        }
        Ok(Self { name, global_id, created, expires, caps, session_key })
    }
}

/// What a client holds for one service.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub(super) service: EntityType,
    pub(super) session_key: Key,
    pub(super) blob: TicketBlob,
    expires: Duration,
    renew_at: Duration,
}

impl Ticket {
    /// The service it is for.
    pub fn service(&self) -> EntityType {
        self.service
    }

    /// What client and service share by it.
    pub fn session_key(&self) -> &Key {
        &self.session_key
    }

    /// When it ends (Unix time, by our clock).
    pub fn expires(&self) -> Duration {
        self.expires
    }

    /// When to ask for the next one: a quarter of its life is left (Unix time, by our clock).
    pub fn renew_at(&self) -> Duration {
        self.renew_at
    }
}

/// One entry of a ticket list that a monitor makes.
pub(super) struct Issue {
    pub(super) service: EntityType,
    pub(super) session_key: Key,
    pub(super) validity: Duration,
    pub(super) blob: TicketBlob,
}

/// Writes a list of which `key` opens the session keys. With the session key of an old ticket, the
/// new tickets are sealed once more.
pub(super) fn encode_list(
    writer: &mut Writer<'_>,
    key: &Key,
    old_session_key: Option<&Key>,
    issues: &[Issue],
) {
    writer.u8(1);
    writer.len(issues.len());
    for Issue { service, session_key, validity, blob } in issues {
        writer.u32(service.to_wire().into());
        writer.u8(1);
        seal_blob(writer, key, |body| {
            body.u8(1);
            session_key.encode(body);
            Utime::from(*validity).encode(body);
        });
        writer.bool(old_session_key.is_some());
        match old_session_key {
            Some(old) => seal_blob(writer, old, |body| body.blob(&blob.to_bytes())),
            None => writer.blob(&blob.to_bytes()),
        }
    }
}

/// Reads a list of tickets, granted just now.
pub(super) fn decode_list(
    reader: &mut Reader<'_>,
    key: &Key,
    old_session_key: Option<&Key>,
    now: Duration,
) -> Result<Vec<Ticket>, CephxError> {
    version(reader, 1, "ticket list")?;
    let count = reader.count(TICKETS_MAX)?;
    (0..count).map(|_| decode_ticket(reader, key, old_session_key, now)).collect()
}

fn decode_ticket(
    reader: &mut Reader<'_>,
    key: &Key,
    old_session_key: Option<&Key>,
    now: Duration,
) -> Result<Ticket, CephxError> {
    let service = service(reader.u32()?)?;
    version(reader, 1, "ticket")?;
    let opened = open(key, reader.blob()?, "session key")?;
    let private = &mut opened.reader();
    version(private, 1, "session key")?;
    let (session_key, validity) = (Key::decode(private)?, Utime::decode(private)?);
    let sealed_twice = reader.bool()?;
    let blob = reader.blob()?;
    let blob = if sealed_twice {
        let what = "renewed ticket";
        let opened = open(old_session_key.ok_or(CephxError::NotOurs { what })?, blob, what)?;
        TicketBlob::decode(&mut Reader::new(opened.reader().blob()?))?
    } else {
        TicketBlob::decode(&mut Reader::new(blob))?
    };
    let validity = Duration::from(validity);
    let expires = now.saturating_add(validity);
    let renew_at = expires - (validity / RENEW_WITH_PART_LEFT).min(expires);
    Ok(Ticket { service, session_key, blob, expires, renew_at })
}

/// A service's number on the wire.
fn service(wire: u32) -> Result<EntityType, DecodeError> {
    let invalid = DecodeError::Invalid { field: "service", value: wire.into() };
    let service = u8::try_from(wire).ok().and_then(|wire| EntityType::from_wire(wire).ok());
    service.ok_or(invalid)
}

/// Reads the version of a structure that exists in one version.
pub(super) fn version(
    reader: &mut Reader<'_>,
    known: u8,
    what: &'static str,
) -> Result<(), CephxError> {
    match reader.u8()? {
        version if version == known => Ok(()),
        version => Err(CephxError::Version { what, version }),
    }
}
