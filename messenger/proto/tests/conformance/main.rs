//! The conformance cases of Ceph's wire, by their numbers: `c07_*` is case 7 of the list that
//! `docs/conformance.md` shows whole.
//!
//! The peer of the sessions under test is made of bytes. It shares no code with them but the ciphers'
//! library, so a mistake on one side is not met by the same mistake on the other. Framing cases run
//! against our server and our client, in both revisions, without cephx and with it, in crc and in
//! secure mode.
//!
//! ```text
//!   bytes, crypt, cephx, wire      what Ceph's bytes look like
//!   host, probe                    the sessions under test, and the peer
//!   banner ... v1                  the cases
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod auth;
mod banner;
mod bytes;
mod cephx;
mod client;
mod crypt;
mod framing;
mod host;
mod idents;
mod lossless;
mod messages;
mod page;
mod probe;
mod states;
mod v1;
mod wire;
