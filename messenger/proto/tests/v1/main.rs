//! msgr1 on the wire: handshakes of both sides, messages, captured bytes, and bytes of no sense.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod arbitrary;
mod cephx;
mod golden;
mod handshake;
mod link;
mod messages;
mod stream;
