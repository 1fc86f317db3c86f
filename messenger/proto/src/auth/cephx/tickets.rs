//! The tickets of one client, and how to get more of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;

use super::OP_TICKETS;
use super::authorizer::{Authorizer, encode_authorizer};
use super::error::CephxError;
use super::services::Services;
use super::ticket::{Ticket, decode_list};
use crate::auth::secret::Key;
use crate::denc::{Reader, Writer};
use crate::entity::EntityType;

/// Most tickets of one reply: one a service.
pub const TICKETS_MAX: usize = 8;

/// What a client got from the monitors: its number, and a ticket a service. Without the ticket of
/// the AUTH service there is no renewal, only a new login.
#[derive(Debug, Clone, Default)]
pub struct Tickets {
    global_id: u64,
    held: BTreeMap<EntityType, Ticket>,
}

impl Tickets {
    pub(super) fn new(global_id: u64) -> Self {
        Self { global_id, held: BTreeMap::new() }
    }

    /// The client's number; 0 before any login.
    pub fn global_id(&self) -> u64 {
        self.global_id
    }

    /// The ticket for a service, expired or not.
    pub fn get(&self, service: EntityType) -> Option<&Ticket> {
        self.held.get(&service)
    }

    /// Which of the wanted tickets are missing, or have but a quarter of their life left.
    pub fn due(&self, wanted: Services, now: Duration) -> Services {
        let fresh =
            |service: &EntityType| self.get(*service).is_some_and(|ticket| now < ticket.renew_at());
        let fresh = wanted.iter().filter(fresh);
        fresh.fold(wanted, |due, service| due.without(Services::only(service)))
    }

    /// When the first of the wanted tickets becomes [`due`](Self::due); `None` if one is missing,
    /// or none wanted.
    pub fn renew_at(&self, wanted: Services) -> Option<Duration> {
        let stamps = wanted.iter().map(|service| self.get(service).map(Ticket::renew_at));
        stamps.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Asks the monitor for tickets, by the one for AUTH (cephx: separate ticket request).
    pub fn request(
        &self,
        wanted: Services,
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, CephxError> {
        let auth = self.good(EntityType::Auth, now)?;
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.u16(OP_TICKETS);
        encode_authorizer(&mut writer, self.global_id, auth, super::random_u64(random), None);
        writer.u8(1);
        writer.u32(wanted.to_wire());
        Ok(out.to_vec())
    }

    /// Takes the reply to [`Tickets::request`] and says what it brought.
    pub fn on_reply(&mut self, payload: &[u8], now: Duration) -> Result<Services, CephxError> {
        let reader = &mut Reader::new(payload);
        read_status(reader, OP_TICKETS)?;
        let auth =
            self.held.get(&EntityType::Auth).ok_or(CephxError::NoTicket(EntityType::Auth))?;
        let granted = decode_list(reader, &auth.session_key, None, now)?;
        Ok(self.take(granted))
    }

    /// Begins to authorize us at a service.
    pub fn authorizer(
        &self,
        service: EntityType,
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Authorizer, CephxError> {
        let ticket = self.good(service, now)?.clone();
        Ok(Authorizer::new(self.global_id, ticket, super::random_u64(random)))
    }

    pub(super) fn take(&mut self, granted: Vec<Ticket>) -> Services {
        let mut services = Services::NONE;
        for ticket in granted {
            services = services.with(Services::only(ticket.service));
            self.held.insert(ticket.service, ticket);
        }
        services
    }

    pub(super) fn session_key(&self, service: EntityType) -> Option<&Key> {
        self.get(service).map(Ticket::session_key)
    }

    fn good(&self, service: EntityType, now: Duration) -> Result<&Ticket, CephxError> {
        let ticket = self.get(service).filter(|ticket| now < ticket.expires());
        ticket.ok_or(CephxError::NoTicket(service))
    }
}

/// What every reply of a monitor begins with.
pub(super) fn read_status(reader: &mut Reader<'_>, op: u16) -> Result<(), CephxError> {
    read_op(reader, op)?;
    match reader.i32()? {
        0 => Ok(()),
        status => Err(CephxError::Refused { status }),
    }
}

/// What every request to a monitor begins with.
pub(super) fn read_op(reader: &mut Reader<'_>, expected: u16) -> Result<(), CephxError> {
    match reader.u16()? {
        got if got == expected => Ok(()),
        got => Err(CephxError::Operation { expected, got }),
    }
}
