//! Why a server turns a client away: counted by kind, told by name.
//!
//! The client learns an errno and no more; who looks after the server learns the cause and, as far
//! as it is known, the entity. No secret is in any of it.

use crate::auth::AuthMethod;
use crate::auth::cephx::CephxError;
use crate::denc::DecodeError;
use crate::entity::EntityType;

const EACCES: i32 = -13; // Linux's numbers are the protocol's
const EOPNOTSUPP: i32 = -95;

/// A client that is not let in, for now: it may try again on the same transport.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A method that our rules do not allow.
    #[error("a {peer} wants authentication method {method}, which is not allowed")]
    Method {
        /// The client's type, as it claims.
        peer: EntityType,
        /// Number of the method.
        method: u32,
    },
    /// No connection mode that our rules allow, with a method that they do.
    #[error("a {peer} wants connection modes {modes:?}, none of which is allowed with {method}")]
    Mode {
        /// The client's type, as it claims.
        peer: EntityType,
        /// The method.
        method: AuthMethod,
        /// Numbers of the modes.
        modes: Vec<u32>,
    },
    /// A request of method none that names nobody.
    #[error("a {peer} does not say who it is: {error}")]
    Nameless {
        /// The client's type, as it claims.
        peer: EntityType,
        /// Where decoding ended.
        error: DecodeError,
    },
    /// Another round of a method, of which none is due.
    #[error("a {peer} answers, but was not asked")]
    Unasked {
        /// The client's type, as it claims.
        peer: EntityType,
    },
    /// Method cephx is not convinced.
    #[error(transparent)]
    Cephx(#[from] CephxError),
}

/// What refusals are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum RefusalKind {
    /// The method is not allowed.
    Method,
    /// No connection mode is allowed: a downgrade, or a client of other rules.
    Mode,
    /// A payload is no such payload.
    Malformed,
    /// Nobody is called so.
    UnknownEntity,
    /// The proof of a login is made with another key.
    WrongKey,
    /// A ticket or authorizer does not open with a secret of ours.
    Ticket,
    /// A ticket has run out.
    Expired,
    /// An answer to another challenge, as in a replay.
    Replayed,
    /// A ticket for another service, or of another client.
    Claim,
    /// We lack the secrets to look at it.
    Unequipped,
}

/// How many of the [`RefusalKind`]s there are.
pub const REFUSAL_KINDS: usize = RefusalKind::Unequipped as usize + 1;

impl Refusal {
    /// What it is counted as.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Method { .. } => RefusalKind::Method,
            Self::Mode { .. } => RefusalKind::Mode,
            Self::Nameless { .. } => RefusalKind::Malformed,
            Self::Unasked { .. } => RefusalKind::Replayed,
            Self::Cephx(error) => match error {
                CephxError::Payload(_)
                | CephxError::TooLong { .. }
                | CephxError::Version { .. }
                | CephxError::Operation { .. } => RefusalKind::Malformed,
                CephxError::UnknownPrincipal(_) => RefusalKind::UnknownEntity,
                CephxError::WrongProof(_) => RefusalKind::WrongKey,
                CephxError::NotOurs { .. } | CephxError::UnknownSecret { .. } => {
                    RefusalKind::Ticket
                }
                CephxError::Expired { .. } => RefusalKind::Expired,
                CephxError::Challenge(_) => RefusalKind::Replayed,
                CephxError::WrongService { .. }
                | CephxError::WrongGlobalId { .. }
                | CephxError::Reclaim { .. } => RefusalKind::Claim,
                // The last four are a client's.
                CephxError::NoServiceSecret(_)
                | CephxError::Refused { .. }
                | CephxError::NoTicket(_)
                | CephxError::Nonce
                | CephxError::ConnectionSecret { .. } => RefusalKind::Unequipped,
            },
        }
    }

    /// The negative errno that the client gets.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Method { .. } | Self::Mode { .. } => EOPNOTSUPP,
            Self::Nameless { .. } | Self::Unasked { .. } => EACCES,
            Self::Cephx(error) => error.errno(),
        }
    }
}

/// How many clients were refused, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusalCounts([u64; REFUSAL_KINDS]);

impl RefusalCounts {
    /// Counts one more.
    pub fn add(&mut self, kind: RefusalKind) {
        self.0[kind as usize] += 1;
    }

    /// Adds what was counted since `before`.
    pub fn add_since(&mut self, before: &Self, now: &Self) {
        for (sum, (before, now)) in self.0.iter_mut().zip(before.0.iter().zip(now.0)) {
            *sum += now - before;
        }
    }

    /// How many of this kind.
    pub const fn get(&self, kind: RefusalKind) -> u64 {
        self.0[kind as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_apart_and_summed() {
        let (mut before, mut sum) = (RefusalCounts::default(), RefusalCounts::default());
        before.add(RefusalKind::Method);
        let mut now = before;
        now.add(RefusalKind::Method);
        now.add(RefusalKind::Unequipped);
        sum.add_since(&before, &now);
        let get = |kind| sum.get(kind);
        assert_eq!(get(RefusalKind::Method), 1);
        assert_eq!(get(RefusalKind::Unequipped), 1);
        assert_eq!(get(RefusalKind::Claim), 0);
    }

    #[test]
    fn a_refusal_tells_who_and_why() {
        let name: crate::auth::AuthName = "client.admin".parse().unwrap();
        let refusal = Refusal::from(CephxError::WrongProof(name));
        assert_eq!(refusal.to_string(), "client.admin has another key");
        assert_eq!((refusal.kind(), refusal.errno()), (RefusalKind::WrongKey, EACCES));
    }
}
