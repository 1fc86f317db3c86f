//! Frames in every form two sides can agree on. Functions that begin with `case_` and a number port
//! Ceph's tests of that number in the checklist.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod choice;
mod lengths;
mod link;
mod repeated;
mod roundtrip;
mod tampering;
