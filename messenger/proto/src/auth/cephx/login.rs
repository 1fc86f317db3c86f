//! A client's side of getting in at a monitor (cephx: login).
//!
//! ```text
//!   request     u8 10, name, u64 global id
//!   challenge   u8 1, u64 server challenge
//!   answer      u16 0x0100, u8 3, u64 client challenge, u64 proof, old ticket blob, u32 services
//!   done        u16 0x0100, s32 0, ticket list (AUTH), blob { blob E(session key, blob secret) },
//!               blob { ticket list (the other services) }
//! ```

use std::time::Duration;

use bytes::BytesMut;

use super::crypt::{open, proof};
use super::error::CephxError;
use super::services::Services;
use super::ticket::{Ticket, TicketBlob, decode_list, version};
use super::tickets::{Tickets, read_status};
use super::{OP_LOGIN, connection_secret, random_u64};
use crate::auth::name::AuthName;
use crate::auth::secret::Key;
use crate::denc::{Reader, Writer};
use crate::entity::EntityType;
use crate::v2::ConnectionSecret;

/// First byte of a request to a monitor.
pub(super) const PAYLOAD_LOGIN: u8 = 10;
/// The version of the answer that brings the old ticket and the wanted services.
pub(super) const ANSWER_VERSION: u8 = 3;

/// One login, over frames of msgr2 or messages of msgr v1.
#[derive(Debug)]
pub struct MonLogin {
    name: AuthName,
    key: Key,
    wanted: Services,
    global_id: u64,
    old: Option<Ticket>,
}

/// What a client has after a login.
#[derive(Debug)]
pub struct LoggedIn {
    /// Its number and its tickets, one of them for AUTH.
    pub tickets: Tickets,
    /// The AUTH ticket's: signs what both sides said so far.
    pub session_key: Key,
    /// Seals the frames that follow; none in crc mode and on msgr v1.
    pub connection_secret: Option<ConnectionSecret>,
}

impl MonLogin {
    /// A login as somebody whom the monitors share `key` with, to get tickets for `wanted` and AUTH.
    pub fn new(name: AuthName, key: Key, wanted: Services) -> Self {
        let wanted = wanted.with(Services::only(EntityType::Auth));
        Self { name, key, wanted, global_id: 0, old: None }
    }

    /// Keeps the number of an earlier login, if its AUTH ticket is still good; the monitor would not
    /// take our word for it.
    #[must_use]
    pub fn renewing(mut self, tickets: &Tickets, now: Duration) -> Self {
        let good = |ticket: &&Ticket| now < ticket.expires();
        if let Some(ticket) = tickets.get(EntityType::Auth).filter(good) {
            (self.global_id, self.old) = (tickets.global_id(), Some(ticket.clone()));
        }
        self
    }

    /// The number that the monitor is asked to leave us; 0 for a fresh one.
    pub fn global_id(&self) -> u64 {
        self.global_id
    }

    /// What to begin with: the blob of `AUTH_REQUEST` (cephx: login, step 1).
    pub fn request(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u8(PAYLOAD_LOGIN);
        self.name.encode(&mut writer);
        writer.u64(self.global_id);
        out.to_vec()
    }

    /// The answer to the monitor's challenge (cephx: login, step 3).
    pub fn on_challenge(
        &self,
        payload: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, CephxError> {
        let reader = &mut Reader::new(payload);
        version(reader, 1, "challenge")?;
        let (server_challenge, client_challenge) = (reader.u64()?, random_u64(random));
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u16(OP_LOGIN);
        writer.u8(ANSWER_VERSION);
        writer.u64(client_challenge);
        writer.u64(proof(&self.key, server_challenge, client_challenge));
        match &self.old {
            Some(ticket) => ticket.blob.encode(&mut writer),
            None => TicketBlob::default().encode(&mut writer),
        }
        writer.u32(self.wanted.to_wire());
        Ok(out.to_vec())
    }

    /// Takes what the monitor granted: the blob of `AUTH_DONE` with its number and mode (cephx:
    /// login, step 4).
    pub fn on_done(
        self,
        global_id: u64,
        mode: u32,
        payload: &[u8],
        now: Duration,
    ) -> Result<LoggedIn, CephxError> {
        let reader = &mut Reader::new(payload);
        read_status(reader, OP_LOGIN)?;
        let old = self.old.as_ref().map(Ticket::session_key);
        let mut tickets = Tickets::new(global_id);
        tickets.take(decode_list(reader, &self.key, old, now)?);
        let session_key = tickets.session_key(EntityType::Auth).cloned();
        let session_key = session_key.ok_or(CephxError::NoTicket(EntityType::Auth))?;
        // Old monitors stop here.
        let (secret, extra) = match reader.remaining() {
            0 => (&[][..], &[][..]),
            _ => (reader.blob()?, reader.blob()?),
        };
        let connection_secret = if secret.is_empty() {
            connection_secret(mode, &[])?
        } else {
            let opened = open(&session_key, Reader::new(secret).blob()?, "connection secret")?;
            connection_secret(mode, opened.reader().blob()?)?
        };
        if !extra.is_empty() {
            tickets.take(decode_list(&mut Reader::new(extra), &session_key, None, now)?);
        }
        Ok(LoggedIn { tickets, session_key, connection_secret })
    }
}
