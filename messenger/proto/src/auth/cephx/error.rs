//! Why somebody is not let in, or does not trust who answers.

use std::time::Duration;

use crate::auth::name::AuthName;
use crate::denc::DecodeError;
use crate::entity::EntityType;

const EACCES: i32 = -13; // Linux's numbers are the protocol's

/// Cephx failed. None of this says whose secret is wrong in which byte: a peer learns
/// [`CephxError::errno`] and no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CephxError {
    /// A payload does not decode.
    #[error("cephx payload does not decode: {0}")]
    Payload(#[from] DecodeError),
    /// A sealed part opens with another key than ours, or was changed.
    #[error("{what} does not open with our key")]
    NotOurs {
        /// Which part.
        what: &'static str,
    },
    /// A sealed part or a ticket is too long.
    #[error("{what} of {len} bytes, at most {max} accepted")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Bytes announced.
        len: usize,
        /// Our limit.
        max: usize,
    },
    /// A structure of a version we do not know.
    #[error("{what} of version {version}")]
    Version {
        /// Which structure.
        what: &'static str,
        /// Its version.
        version: u8,
    },
    /// Another request or reply than the one that is due.
    #[error("cephx operation {got:#06x}, expected {expected:#06x}")]
    Operation {
        /// What is due.
        expected: u16,
        /// What came.
        got: u16,
    },
    /// The monitor refuses.
    #[error("the monitor answers {status}")]
    Refused {
        /// Negative errno.
        status: i32,
    },
    /// There is no ticket for a service: not asked for, not granted or expired.
    #[error("no ticket for service {0}")]
    NoTicket(EntityType),
    /// The service does not know what was in our authorizer: it cannot open our ticket.
    #[error("the service has not proved itself: wrong nonce")]
    Nonce,
    /// A connection secret of the wrong length.
    #[error("connection secret of {len} bytes, {expected} needed")]
    ConnectionSecret {
        /// Bytes received.
        len: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// Nobody of this name is known.
    #[error("nobody here is called {0}")]
    UnknownPrincipal(AuthName),
    /// A proof that was not made with this principal's key and our challenge.
    #[error("{0} has another key")]
    WrongProof(AuthName),
    /// A client claims a number without the ticket that was issued with it.
    #[error("{name} claims number {global_id} without its ticket")]
    Reclaim {
        /// Who claims it.
        name: AuthName,
        /// The number.
        global_id: u64,
    },
    /// A ticket is sealed with a service secret that we do not have.
    #[error("a ticket for {service} is sealed with unknown secret {secret_id}")]
    UnknownSecret {
        /// The service.
        service: EntityType,
        /// Number of its secret.
        secret_id: u64,
    },
    /// An authorizer for somebody else.
    #[error("an authorizer for service {got}, this is {expected}")]
    WrongService {
        /// What we are.
        expected: EntityType,
        /// Wire number of the service it is for.
        got: u32,
    },
    /// A ticket has run out.
    #[error("the ticket of {name} expired at {} s, now is {} s", expires.as_secs(), now.as_secs())]
    Expired {
        /// Whose it is.
        name: AuthName,
        /// End of the ticket (Unix time).
        expires: Duration,
        /// Our time (Unix time).
        now: Duration,
    },
    /// A ticket of another client.
    #[error("client {claimed} shows the ticket of {name}, who is client {issued}")]
    WrongGlobalId {
        /// Whose ticket it is.
        name: AuthName,
        /// Number in the authorizer.
        claimed: u64,
        /// Number in the ticket.
        issued: u64,
    },
    /// An answer to another challenge than the last one, as in a replayed authorizer.
    #[error("an authorizer of {0} does not answer our challenge")]
    Challenge(AuthName),
    /// We have no secret to seal tickets for this service with.
    #[error("no secret for tickets of service {0}")]
    NoServiceSecret(EntityType),
}

impl CephxError {
    /// The negative errno that tells a peer of it: `AUTH_BAD_METHOD`, `MAuthReply`.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Refused { status } if *status < 0 => *status,
            _ => EACCES,
        }
    }
}
