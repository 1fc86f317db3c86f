//! A client's side of getting in at a service (cephx: authorizer).
//!
//! ```text
//!   authorizer   u8 1, u64 global id, u32 service, ticket blob,
//!                blob E(session key, u8 2, u64 nonce, bool challenged, u64 challenge + 1)
//!   challenge    E(session key, u8 1, u64 challenge)         no length in front
//!   done         blob E(session key, u8 version, u64 nonce + 1, version 2: blob connection secret)
//! ```

use bytes::BytesMut;

use super::connection_secret;
use super::crypt::{open, seal_blob};
use super::error::CephxError;
use super::ticket::{Ticket, version};
use crate::auth::secret::Key;
use crate::denc::{Reader, Writer};
use crate::v2::ConnectionSecret;

const AUTHORIZER_VERSION: u8 = 1;
const AUTHORIZE_VERSION: u8 = 2;
/// First version of the reply that brings a connection secret.
const REPLY_WITH_SECRET: u8 = 2;

/// One attempt to get in at one service, over msgr2 or msgr v1.
#[derive(Debug)]
pub struct Authorizer {
    global_id: u64,
    ticket: Ticket,
    nonce: u64,
}

/// What a connection to a service gets of it.
#[derive(Debug)]
pub struct Authorized {
    /// Signs what both sides said so far, and messages of msgr v1.
    pub session_key: Key,
    /// Seals the frames that follow; none in crc mode.
    pub connection_secret: Option<ConnectionSecret>,
}

impl Authorizer {
    pub(super) fn new(global_id: u64, ticket: Ticket, nonce: u64) -> Self {
        Self { global_id, ticket, nonce }
    }

    /// What to begin with: the blob of `AUTH_REQUEST`, or behind a connect of msgr v1.
    pub fn request(&self) -> Vec<u8> {
        self.blob(None)
    }

    /// The answer to the service's challenge.
    pub fn on_challenge(&self, challenge: &[u8]) -> Result<Vec<u8>, CephxError> {
        let opened = open(&self.ticket.session_key, challenge, "challenge")?;
        let reader = &mut opened.reader();
        version(reader, 1, "challenge")?;
        Ok(self.blob(Some(reader.u64()?)))
    }

    /// The service is satisfied; are we? `mode` is the connection mode it chose.
    pub fn on_done(self, payload: &[u8], mode: u32) -> Result<Authorized, CephxError> {
        let session_key = self.ticket.session_key;
        let opened = open(&session_key, Reader::new(payload).blob()?, "authorizer reply")?;
        let reader = &mut opened.reader();
        let (version, nonce) = (reader.u8()?, reader.u64()?);
        if nonce != self.nonce.wrapping_add(1) {
            return Err(CephxError::Nonce);
        }
        let secret = if version >= REPLY_WITH_SECRET { reader.blob()? } else { &[] };
        let connection_secret = connection_secret(mode, secret)?;
        Ok(Authorized { session_key, connection_secret })
    }

    fn blob(&self, challenge: Option<u64>) -> Vec<u8> {
        let mut out = BytesMut::new();
        let writer = &mut Writer::new(&mut out);
        encode_authorizer(writer, self.global_id, &self.ticket, self.nonce, challenge);
        out.to_vec()
    }
}

/// Writes an authorizer, and the proof of having opened `challenge`.
pub(super) fn encode_authorizer(
    writer: &mut Writer<'_>,
    global_id: u64,
    ticket: &Ticket,
    nonce: u64,
    challenge: Option<u64>,
) {
    writer.u8(AUTHORIZER_VERSION);
    writer.u64(global_id);
    writer.u32(ticket.service.to_wire().into());
    ticket.blob.encode(writer);
    seal_blob(writer, &ticket.session_key, |body| {
        body.u8(AUTHORIZE_VERSION);
        body.u64(nonce);
        body.bool(challenge.is_some());
        body.u64(challenge.map_or(0, |challenge| challenge.wrapping_add(1)));
    });
}

/// The sealed part of an authorizer.
pub(super) struct Authorize {
    pub(super) nonce: u64,
    /// The challenge plus one.
    pub(super) answer: Option<u64>,
}

impl Authorize {
    pub(super) fn decode(reader: &mut Reader<'_>, session_key: &Key) -> Result<Self, CephxError> {
        let opened = open(session_key, reader.blob()?, "authorizer")?;
        let reader = &mut opened.reader();
        let (version, nonce) = (reader.u8()?, reader.u64()?);
        if !(1..=AUTHORIZE_VERSION).contains(&version) {
            return Err(CephxError::Version { what: "authorizer", version });
        }
        let challenged = version >= AUTHORIZE_VERSION && reader.bool()?;
        let answer = if challenged { Some(reader.u64()?) } else { None };
        Ok(Self { nonce, answer })
    }
}

/// Reads what stands in front of an authorizer's ticket: the client's number and the service's.
pub(super) fn decode_head(reader: &mut Reader<'_>) -> Result<(u64, u32), CephxError> {
    version(reader, AUTHORIZER_VERSION, "authorizer")?;
    Ok((reader.u64()?, reader.u32()?))
}

/// The service's reply, with a connection secret or without.
pub(super) fn encode_reply(session_key: &Key, nonce: u64, secret: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    seal_blob(&mut Writer::new(&mut out), session_key, |body| {
        body.u8(if secret.is_empty() { 1 } else { REPLY_WITH_SECRET });
        body.u64(nonce.wrapping_add(1));
        if !secret.is_empty() {
            body.blob(secret);
        }
    });
    out.to_vec()
}
