//! Cephx: who somebody is, proved with a secret shared with the monitors.
//!
//! ```text
//!   client                     monitor                          service (osd, mds, mgr)
//!   MonLogin  -- request ----> LoginServer::begin
//!             <- challenge --  PendingLogin
//!             -- proof ------> PendingLogin::finish
//!             <- tickets ----  Admitted
//!   Tickets   -- 0x0200 -----> LoginServer::grant_tickets       RotatingSecrets -- 0x0400 -> monitor
//!   Authorizer -- ticket, nonce ------------------------------> AuthorizerVerifier
//!              <- challenge ----------------------------------
//!              -- ticket, nonce, challenge + 1 --------------->
//!              <- nonce + 1 ----------------------------------  Admitted
//! ```
//!
//! Blobs go in and out; which frame or message carries them is the caller's business (msgr2 frames,
//! msgr v1 connects, or `MAuth` messages). Time is Unix time and an argument, like randomness: a
//! function that fills its buffer with bytes nobody can guess.
//!
//! What cephx protects is what its envelope protects: AES-CBC with a fixed vector and a magic number
//! in front. That catches a wrong key, and not every change of a ciphertext. The signatures of
//! msgr2, made with the session key over every byte said so far, catch those; a caller has to check
//! them.

mod authorizer;
mod crypt;
mod error;
mod login;
mod login_server;
mod rotating;
mod services;
mod sign;
mod ticket;
mod tickets;
mod verifier;

#[cfg(test)]
mod tests;

pub use authorizer::{Authorized, Authorizer};
pub use error::CephxError;
pub use login::{LoggedIn, MonLogin};
pub use login_server::{LoginServer, PendingLogin, TicketLifetimes};
pub use rotating::{ROTATING_SECRETS_MAX, RotatingSecret, RotatingSecrets};
pub use services::Services;
pub use sign::{MessageSigner, SignedFields};
pub use ticket::{Caps, TICKET_LEN_MAX, Ticket};
pub use tickets::{TICKETS_MAX, Tickets};
pub use verifier::{Answer, AuthorizerVerifier};

use super::name::AuthName;
use super::secret::Key;
use crate::v2::ConnectionSecret;
use crate::v2::control::MODE_SECURE;
use crate::v2::keys::SECRET_LEN;

/// Number of this method.
pub const METHOD_CEPHX: u32 = 2;

// What requests to a monitor begin with, and their replies.
const OP_LOGIN: u16 = 0x0100;
const OP_TICKETS: u16 = 0x0200;
const OP_ROTATING: u16 = 0x0400;

/// Whom a server has let in.
#[derive(Debug)]
pub struct Admitted {
    /// Who it is.
    pub name: AuthName,
    /// Its number.
    pub global_id: u64,
    /// What it may do here.
    pub caps: Caps,
    /// What the client has to get: the blob of `AUTH_DONE`, or the authorizer reply of msgr v1.
    pub payload: Vec<u8>,
    /// Signs what both sides said so far, and messages of msgr v1.
    pub session_key: Key,
    /// Seals the frames that follow; none in crc mode.
    pub connection_secret: Option<ConnectionSecret>,
}

/// Whether a request is for a monitor rather than for a service.
pub(super) fn is_login(request: &[u8]) -> bool {
    request.first() == Some(&login::PAYLOAD_LOGIN)
}

/// Eight random bytes as a number.
fn random_u64(random: &mut dyn FnMut(&mut [u8])) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Bytes of connection secret that go with a connection mode.
fn secret_len(mode: u32) -> usize {
    if mode == MODE_SECURE { SECRET_LEN } else { 0 }
}

/// The connection secret that a reply brought, as far as the mode needs one.
fn connection_secret(mode: u32, secret: &[u8]) -> Result<Option<ConnectionSecret>, CephxError> {
    if mode != MODE_SECURE {
        return Ok(None);
    }
    let (len, expected) = (secret.len(), SECRET_LEN);
    let secret = ConnectionSecret::new(secret);
    secret.map(Some).map_err(|_| CephxError::ConnectionSecret { len, expected })
}
