//! Cephx by hand: what a client, a service and a monitor say to each other.

use crate::bytes::{In, Out};
use crate::crypt::{Key, open, seal};
use crate::host::NOW;

/// What client.admin and the monitors share.
pub(crate) const PRINCIPAL_KEY: Key = [3; 16];
/// What the service and the monitors share, and its number.
pub(crate) const SERVICE_SECRET: Key = [7; 16];
pub(crate) const SECRET_ID: u64 = 3;
/// What client.admin and the service share by the ticket.
pub(crate) const SESSION_KEY: Key = [9; 16];
pub(crate) const GLOBAL_ID: u64 = 4242;

const AUTH_SESSION_KEY: Key = [4; 16];
const NONCE: u64 = 0x0102_0304_0506_0708;
const AUTH: u32 = 32;
const OSD: u32 = 4;
const HOUR: u32 = 3600;

fn key(out: Out, secret: &Key) -> Out {
    out.u16(1).u32(0).u32(0).u16(16).raw(secret)
}

/// A ticket blob of client.admin.
fn ticket() -> Vec<u8> {
    let now = NOW.as_secs() as u32;
    let caps = Out::new().blob(b"allow *").0;
    let ticket = Out::new()
        .u8(1)
        .u8(2)
        .client("admin")
        .u64(GLOBAL_ID)
        .u64(u64::MAX)
        .u32(now)
        .u32(0)
        .u32(now + HOUR)
        .u32(0)
        .u8(1)
        .u8(0)
        .blob(&caps)
        .u32(0);
    let sealed = seal(&SERVICE_SECRET, key(ticket, &SESSION_KEY));
    Out::new().u8(1).u64(SECRET_ID).blob(&sealed).0
}

fn ticket_list(opens: &Key, service: u32, session_key: &Key) -> Vec<u8> {
    let private = key(Out::new().u8(1), session_key).u32(HOUR).u32(0);
    Out::new().u8(1).u32(1).u32(service).u8(1).blob(&seal(opens, private)).u8(0).blob(&ticket()).0
}

/// What a monitor says to client.admin's login: a ticket for itself and one for OSDs.
pub(crate) fn login_reply() -> Vec<u8> {
    Out::new()
        .u16(0x0100)
        .u32(0)
        .raw(&ticket_list(&PRINCIPAL_KEY, AUTH, &AUTH_SESSION_KEY))
        .blob(b"")
        .blob(&ticket_list(&AUTH_SESSION_KEY, OSD, &SESSION_KEY))
        .0
}

/// An authorizer for an OSD; an answer to its challenge, if there is one.
pub(crate) fn authorizer(challenge: Option<u64>) -> Vec<u8> {
    let answer = challenge.map_or(0, |challenge| challenge.wrapping_add(1));
    let private = Out::new().u8(2).u64(NONCE).u8(challenge.is_some().into()).u64(answer);
    Out::new().u8(1).u64(GLOBAL_ID).u32(OSD).raw(&ticket()).blob(&seal(&SESSION_KEY, private)).0
}

/// The challenge in an OSD's reply to an authorizer.
pub(crate) fn open_challenge(blob: &[u8]) -> u64 {
    let text = open(&SESSION_KEY, blob);
    let mut read = In(&text);
    assert_eq!(read.u8(), 1);
    read.u64()
}

/// The connection secret in an OSD's last word on an authorizer: empty in crc mode.
pub(crate) fn open_done(blob: &[u8], secure: bool) -> Vec<u8> {
    let text = open(&SESSION_KEY, In(blob).blob());
    let mut read = In(&text);
    assert_eq!((read.u8(), read.u64()), (if secure { 2 } else { 1 }, NONCE + 1));
    let secret = if secure { read.blob() } else { &[] };
    assert_eq!(secret.len(), if secure { 64 } else { 0 });
    secret.to_vec()
}

/// An OSD's challenge.
pub(crate) fn challenge(challenge: u64) -> Vec<u8> {
    seal(&SESSION_KEY, Out::new().u8(1).u64(challenge))
}

/// An OSD's last word on an authorizer.
pub(crate) fn done(nonce: u64, secret: &[u8]) -> Vec<u8> {
    let version = if secret.is_empty() { 1 } else { 2 };
    let text = Out::new().u8(version).u64(nonce + 1);
    let text = if secret.is_empty() { text } else { text.blob(secret) };
    Out::new().blob(&seal(&SESSION_KEY, text)).0
}

/// Nonce and answer of client.admin's authorizer.
pub(crate) fn read_authorizer(blob: &[u8]) -> (u64, Option<u64>) {
    let mut read = In(blob);
    assert_eq!((read.u8(), read.u64(), read.u32()), (1, GLOBAL_ID, OSD));
    assert_eq!(read.raw(ticket().len()), ticket());
    let text = open(&SESSION_KEY, read.blob());
    let mut read = In(&text);
    assert_eq!(read.u8(), 2);
    let (nonce, challenged, answer) = (read.u64(), read.u8() == 1, read.u64());
    (nonce, challenged.then_some(answer))
}

/// An answer to a monitor's challenge, made with `key`.
pub(crate) fn login_answer(blob: &[u8], key: &Key) -> Vec<u8> {
    let mut read = In(blob);
    assert_eq!(read.u8(), 1);
    let (server, client) = (read.u64(), NONCE);
    let sealed = Out::new().blob(&seal(key, Out::new().u64(server).u64(client))).0;
    let mut words = In(&sealed);
    let proof = (0..sealed.len() / 8).fold(0, |proof, _| proof ^ words.u64());
    let no_ticket = Out::new().u8(1).u64(0).u32(0).0;
    Out::new().u16(0x0100).u8(3).u64(client).u64(proof).raw(&no_ticket).u32(0x37).0
}
