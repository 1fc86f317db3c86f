//! The guard: what keeps strangers from connections that are not theirs.
//!
//! `secret` has the numbers a stranger would have to guess, `seed` brings smoltcp to use them.

mod secret;
mod seed;

pub(crate) use secret::Secret;
pub(crate) use seed::seed_for;
