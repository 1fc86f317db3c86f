//! Whole sessions against each other and against hand-made bytes, on a virtual clock.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod compressed;
mod every_byte;
mod faults;
mod history;
mod intercept;
mod limits;
mod lossless;
mod pair;
mod probe;
mod races;
mod realm;
mod secure;
mod stories;
mod v1;
