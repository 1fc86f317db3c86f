//! A service's side of letting clients in (cephx: authorizer).

use std::fmt;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::authorizer::{Authorize, decode_head, encode_reply};
use super::crypt::seal;
use super::error::CephxError;
use super::rotating::RotatingSecrets;
use super::ticket::{TicketBlob, TicketInfo};
use super::{Admitted, connection_secret, random_u64, secret_len};
use crate::auth::secret::Key;
use crate::denc::Reader;
use crate::entity::EntityType;

/// Lets clients of one TCP connection in. It demands an answer to a fresh challenge, whatever the
/// ticket is worth, so an authorizer that somebody overheard opens nothing.
#[derive(Debug)]
pub struct AuthorizerVerifier {
    service: EntityType,
    challenge: Option<u64>,
}

/// What a service says to an authorizer.
#[derive(Debug)]
pub enum Answer {
    /// Again, with the answer to this: the blob of `AUTH_REPLY_MORE`, or of msgr v1's
    /// `CHALLENGE_AUTHORIZER`.
    Challenge(Vec<u8>),
    /// Come in.
    Admitted(Box<Admitted>),
}

impl AuthorizerVerifier {
    /// For clients that dial a `service`.
    pub fn new(service: EntityType) -> Self {
        Self { service, challenge: None }
    }

    /// Looks at an authorizer at `now`. A challenge is good for one answer, a right or a wrong one.
    pub fn on_authorizer(
        &mut self,
        authorizer: &[u8],
        mode: u32,
        secrets: &RotatingSecrets,
        now: Duration,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Answer, CephxError> {
        let pending = self.challenge.take();
        let Verified { ticket, nonce, answer } =
            Verified::new(&mut Reader::new(authorizer), self.service, secrets, now)?;
        let Some(answer) = answer else {
            let challenge = random_u64(random);
            self.challenge = Some(challenge);
            return Ok(Answer::Challenge(encode_challenge(&ticket.session_key, challenge)));
        };
        let replayed = || CephxError::Challenge(ticket.name.clone());
        let expected = pending.ok_or_else(replayed)?.wrapping_add(1);
        let same = verify_slices_are_equal(&expected.to_le_bytes(), &answer.to_le_bytes());
        same.map_err(|_| replayed())?;
        let mut secret = Zeroizing::new(vec![0; secret_len(mode)]);
        random(&mut secret);
        Ok(Answer::Admitted(Box::new(Admitted {
            payload: encode_reply(&ticket.session_key, nonce, &secret),
            connection_secret: connection_secret(mode, &secret)?,
            name: ticket.name,
            global_id: ticket.global_id,
            caps: ticket.caps,
            session_key: ticket.session_key,
        })))
    }
}

/// An authorizer whose ticket is good.
pub(super) struct Verified {
    pub(super) ticket: TicketInfo,
    pub(super) nonce: u64,
    pub(super) answer: Option<u64>,
}

impl Verified {
    /// Reads an authorizer for `service`.
    pub(super) fn new(
        reader: &mut Reader<'_>,
        service: EntityType,
        secrets: &RotatingSecrets,
        now: Duration,
    ) -> Result<Self, CephxError> {
        let (claimed, got) = decode_head(reader)?;
        if got != u32::from(service.to_wire()) {
            return Err(CephxError::WrongService { expected: service, got });
        }
        let ticket = TicketInfo::open(&TicketBlob::decode(reader)?, service, secrets, now)?;
        let issued = ticket.global_id;
        if claimed != issued {
            return Err(CephxError::WrongGlobalId { name: ticket.name, claimed, issued });
        }
        let Authorize { nonce, answer } = Authorize::decode(reader, &ticket.session_key)?;
        Ok(Self { ticket, nonce, answer })
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

fn encode_challenge(session_key: &Key, challenge: u64) -> Vec<u8> {
    let sealed = seal(session_key, |body| {
        body.u8(1);
        body.u64(challenge);
    });
    sealed.to_vec()
}
