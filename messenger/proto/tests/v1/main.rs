//! msgr1 on the wire: handshakes of both sides.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod handshake;
mod link;
