//! Keys of one secure transport: AES-128-GCM under nonces that are counted, never chosen.
//!
//! ```text
//!   connection secret   key 16 | nonce A 12 | nonce B 12 | 24 unused
//!   nonce               u32 fixed | u64 counter
//!   client              opens with A, seals with B;  the server the other way round
//! ```
//!
//! Both directions share the key, so no nonce of one may ever be a nonce of the other: secrets for
//! which they would meet are refused. A key ends after [`KEY_USES_MAX`] messages each way; the
//! transport then has to be replaced, which brings a fresh secret.

use std::fmt;

use arrayvec::ArrayVec;
use aws_lc_rs::cipher::{AES_128, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use bytes::{Bytes, BytesMut};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::error::ProtocolError;
use crate::v2::Revision;
use crate::v2::preamble::PREAMBLE_LEN;

/// Bytes of a connection secret.
pub const SECRET_LEN: usize = 64;
/// Bytes of a tag behind each ciphertext.
pub const TAG_LEN: usize = 16;
/// GCM messages one key may seal, and open; a frame takes one to three.
pub const KEY_USES_MAX: u64 = 1 << 32;

/// Longest body whose buffer is kept for the next one.
const BENCH_LEN_MAX: usize = 128 << 10;
/// How many such buffers are kept: as many bodies of 64 KiB as a session writes ahead, and one more
/// for the body before them that is half sent.
const BENCHES: usize = 5;
const KEY_LEN: usize = 16;
const NONCE_LEN: usize = 12;
const NONCE_A_AT: usize = KEY_LEN;
const NONCE_B_AT: usize = NONCE_A_AT + NONCE_LEN;
const _: () = assert!(NONCE_B_AT + NONCE_LEN <= SECRET_LEN);
// Revision 0 counts in 32 bits: no nonce comes up twice.
const _: () = assert!(KEY_USES_MAX <= 1 << u32::BITS);

/// Where GCM's counter stands at the first byte of the plaintext.
const GCM_FIRST_BLOCK: u32 = 2;

/// Which end of a transport this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that dialled.
    Client,
    /// The side that accepted.
    Server,
}

/// What authentication gives both sides of one transport. Wiped when dropped.
pub struct ConnectionSecret(Zeroizing<[u8; SECRET_LEN]>);

impl ConnectionSecret {
    /// Takes the secret as authentication delivers it.
    pub fn new(secret: &[u8]) -> Result<Self, ProtocolError> {
        let mut own = Zeroizing::new([0; SECRET_LEN]);
        if secret.len() != SECRET_LEN {
            let (len, expected) = (secret.len(), SECRET_LEN);
            return Err(ProtocolError::ConnectionSecret { len, expected });
        }
        own.copy_from_slice(secret);
        Ok(Self(own))
    }

    /// The keys with which `role` sends and receives frames of this revision.
    pub fn keys(
        &self,
        role: Role,
        revision: Revision,
    ) -> Result<(SealingKey, OpeningKey), ProtocolError> {
        let a = Nonces::new(self.part(NONCE_A_AT), revision);
        let b = Nonces::new(self.part(NONCE_B_AT), revision);
        if a.meets(&b) {
            return Err(ProtocolError::ConnectionSecret { len: SECRET_LEN, expected: SECRET_LEN });
        }
        let (sealing, opening) = match role {
            Role::Client => (b, a),
            Role::Server => (a, b),
        };
        let key: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(self.part(0));
        Ok((SealingKey::new(&key, sealing), OpeningKey::new(&key, opening)))
    }

    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.0[at..].first_chunk().expect("parts lie in the secret")
    }
}

impl fmt::Debug for ConnectionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionSecret")
    }
}

/// The nonces of one direction, each given out once.
#[derive(Debug, Clone, Copy)]
struct Nonces {
    revision: Revision,
    fixed: u32,
    counter: u64,
    left: u64,
}

impl Nonces {
    fn new(first: [u8; NONCE_LEN], revision: Revision) -> Self {
        let [f0, f1, f2, f3, counter @ ..] = first;
        let (fixed, counter) = (u32::from_le_bytes([f0, f1, f2, f3]), u64::from_le_bytes(counter));
        Self { revision, fixed, counter, left: KEY_USES_MAX }
    }

    /// The nonce that is next to be given out.
    fn peek(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&self.fixed.to_le_bytes());
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        nonce
    }

    fn next(&mut self) -> Result<Nonce, ProtocolError> {
        self.left = self.left.checked_sub(1).ok_or(ProtocolError::KeyUsedUp)?;
        let nonce = self.peek();
        match self.revision {
            Revision::Rev0 => self.fixed = self.fixed.wrapping_add(1),
            Revision::Rev1 => self.counter = self.counter.wrapping_add(1),
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Whether one nonce can come up in both directions.
    fn meets(&self, other: &Self) -> bool {
        match self.revision {
            Revision::Rev0 => self.counter == other.counter,
            Revision::Rev1 => {
                let ahead = self.counter.wrapping_sub(other.counter);
                self.fixed == other.fixed && ahead.min(ahead.wrapping_neg()) < KEY_USES_MAX
            }
        }
    }
}

/// Seals what this side sends.
pub struct SealingKey {
    key: LessSafeKey,
    nonces: Nonces,
    /// Where bodies were sealed, the latest first: each is free again once its body is sent. Fresh
    /// memory costs page faults worth the encryption.
    benches: ArrayVec<BytesMut, BENCHES>,
}

impl SealingKey {
    fn new(key: &[u8; KEY_LEN], nonces: Nonces) -> Self {
        Self { key: gcm(key), nonces, benches: ArrayVec::new() }
    }

    /// An empty buffer of this capacity: that of an earlier body if one is free.
    pub(super) fn buffer(&mut self, capacity: usize) -> BytesMut {
        let free = self.benches.iter_mut().position(|bench| bench.try_reclaim(capacity));
        free.map_or_else(|| BytesMut::with_capacity(capacity), |at| self.benches.remove(at))
    }

    /// Freezes what was sealed in a [`SealingKey::buffer`].
    pub(super) fn freeze(&mut self, mut sealed: BytesMut) -> Bytes {
        let body = sealed.split().freeze();
        if body.len() <= BENCH_LEN_MAX {
            if self.benches.is_full() {
                self.benches.pop();
            }
            self.benches.insert(0, sealed);
        }
        body
    }

    /// Gives up the buffers that are kept for later bodies.
    pub(super) fn release(&mut self) {
        self.benches.clear();
    }

    /// The frame format this key is for.
    pub(super) fn revision(&self) -> Revision {
        self.nonces.revision
    }

    /// Leaves so many messages to be sealed.
    #[cfg(test)]
    pub(crate) fn leave(&mut self, messages: u64) {
        self.nonces.left = messages;
    }

    /// Encrypts what `out` holds from `start` on, and appends the tag.
    pub(super) fn seal(&mut self, start: usize, out: &mut BytesMut) -> Result<(), ProtocolError> {
        let nonce = self.nonces.next()?;
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[start..]);
        out.extend_from_slice(tag.expect("frames are far shorter than GCM's limit").as_ref());
        Ok(())
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("left", &self.nonces.left).finish_non_exhaustive()
    }
}

/// Opens what the other side sent.
pub struct OpeningKey {
    key: LessSafeKey,
    /// Decrypts a preamble of revision 0 ahead of its tag.
    peeking: Option<DecryptingKey>,
    nonces: Nonces,
}

impl OpeningKey {
    fn new(key: &[u8; KEY_LEN], nonces: Nonces) -> Self {
        let peeking = (nonces.revision == Revision::Rev0).then(|| {
            let key = UnboundCipherKey::new(&AES_128, key).and_then(DecryptingKey::ctr);
            key.expect("the length is AES-128's")
        });
        Self { key: gcm(key), peeking, nonces }
    }

    /// The frame format this key is for.
    pub(super) fn revision(&self) -> Revision {
        self.nonces.revision
    }

    /// Opens a ciphertext with its tag behind it into `plain`, which is as long as the ciphertext.
    pub(super) fn open_into(
        &mut self,
        sealed: &[u8],
        plain: &mut [u8],
        what: &'static str,
    ) -> Result<(), ProtocolError> {
        let nonce = self.nonces.next()?;
        let not_authentic = ProtocolError::NotAuthentic { what };
        let Some((ciphertext, tag)) = sealed.split_last_chunk::<TAG_LEN>() else {
            return Err(not_authentic);
        };
        plain.copy_from_slice(ciphertext);
        let (aad, tag) = (Aad::empty(), (*tag).into());
        let opened = self.key.open_in_place_separate_tag(nonce, aad, tag, plain, 0..);
        opened.map(|_| ()).map_err(|_| not_authentic)
    }

    /// Opens a ciphertext with its tag behind it: in place if nobody else looks at its bytes.
    pub(super) fn open(
        &mut self,
        sealed: Bytes,
        what: &'static str,
    ) -> Result<Bytes, ProtocolError> {
        let plain_len = sealed.len().saturating_sub(TAG_LEN);
        match sealed.try_into_mut() {
            Ok(mut own) => {
                let nonce = self.nonces.next()?;
                let opened = self.key.open_in_place(nonce, Aad::empty(), &mut own);
                opened.map_err(|_| ProtocolError::NotAuthentic { what })?;
                own.truncate(plain_len);
                Ok(own.freeze())
            }
            Err(shared) => {
                let mut plain = BytesMut::zeroed(plain_len);
                self.open_into(&shared, &mut plain, what)?;
                Ok(plain.freeze())
            }
        }
    }

    /// What a frame of revision 0 will turn out to begin with, if its tag is right.
    pub(super) fn peek(&self, sealed: &[u8; PREAMBLE_LEN]) -> [u8; PREAMBLE_LEN] {
        let peeking = self.peeking.as_ref().expect("revision 0 peeks");
        let mut block = [0; NONCE_LEN + 4];
        block[..NONCE_LEN].copy_from_slice(&self.nonces.peek());
        block[NONCE_LEN..].copy_from_slice(&GCM_FIRST_BLOCK.to_be_bytes());
        let mut plain = *sealed;
        let context = DecryptionContext::Iv128(FixedLength::from(block));
        peeking.decrypt(&mut plain, context).expect("counter mode takes any length");
        plain
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpeningKey").field("left", &self.nonces.left).finish_non_exhaustive()
    }
}

fn gcm(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("the length is AES-128's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(edit: impl FnOnce(&mut [u8; SECRET_LEN])) -> ConnectionSecret {
        let mut bytes = std::array::from_fn(|at| at as u8);
        edit(&mut bytes);
        ConnectionSecret::new(&bytes).unwrap()
    }

    /// A key that seals and the one that opens it.
    fn keys(revision: Revision) -> (SealingKey, OpeningKey) {
        let (sealing, _) = secret(|_| ()).keys(Role::Client, revision).unwrap();
        let (_, opening) = secret(|_| ()).keys(Role::Server, revision).unwrap();
        (sealing, opening)
    }

    fn sealed(key: &mut SealingKey, text: &[u8]) -> Bytes {
        let mut out = BytesMut::from(text);
        key.seal(0, &mut out).unwrap();
        assert_eq!(out.len(), text.len() + TAG_LEN);
        out.freeze()
    }

    #[test]
    fn what_one_side_seals_the_other_opens_in_order_and_once() {
        for revision in [Revision::Rev0, Revision::Rev1] {
            let (mut sealing, mut opening) = keys(revision);
            for text in [&b"one"[..], b"", b"three"] {
                let first = sealed(&mut sealing, text);
                let shared = first.clone(); // keeps it from being opened in place
                assert_eq!(opening.open(first, "text").unwrap(), text);
                assert!(opening.open(shared, "text").is_err(), "a replay");
                sealed(&mut sealing, b"unseen"); // the failure took this one's nonce
            }
            let refused = ProtocolError::NotAuthentic { what: "text" };
            assert_eq!(opening.open(Bytes::from_static(b"short"), "text"), Err(refused));
        }
    }

    /// Takes a buffer of this length and gives it back as a body.
    fn worked_on(key: &mut SealingKey, len: usize) -> Bytes {
        let mut body = key.buffer(len);
        body.resize(len, 0);
        key.freeze(body)
    }

    #[test]
    fn a_body_s_buffer_serves_the_next_one_when_its_bytes_are_sent() {
        let (mut key, _) = keys(Revision::Rev1);
        let held: Vec<Bytes> = (0..BENCHES).map(|_| worked_on(&mut key, 64 << 10)).collect();
        let mut places: Vec<_> = held.iter().map(|body| body.as_ptr()).collect();
        let other = worked_on(&mut key, 64 << 10);
        assert!(!places.contains(&other.as_ptr()), "none of them is sent yet");
        places[0] = other.as_ptr(); // kept instead of the oldest
        drop((held, other));
        let latest = worked_on(&mut key, 60 << 10);
        assert_eq!(latest.as_ptr(), places[0]);
        assert_eq!(worked_on(&mut key, 60 << 10).as_ptr(), places[BENCHES - 1]);
        assert_eq!(
            worked_on(&mut key, 60 << 10).as_ptr(),
            places[BENCHES - 1],
            "it is sent at once"
        );
    }

    #[test]
    fn long_and_released_buffers_are_not_kept() {
        let (mut key, _) = keys(Revision::Rev1);
        assert_eq!(worked_on(&mut key, BENCH_LEN_MAX + 1).len(), BENCH_LEN_MAX + 1);
        assert!(key.benches.is_empty());
        worked_on(&mut key, 60 << 10);
        assert_eq!(key.benches.len(), 1);
        key.release();
        assert!(key.benches.is_empty());
    }

    #[test]
    fn buffers_that_are_too_short_make_room_for_longer_ones() {
        let (mut key, _) = keys(Revision::Rev1);
        let short: Vec<Bytes> = (0..BENCHES).map(|_| worked_on(&mut key, 4 << 10)).collect();
        drop(short);
        let long = worked_on(&mut key, 64 << 10).as_ptr();
        assert_eq!(worked_on(&mut key, 64 << 10).as_ptr(), long);
        assert_eq!(key.benches.len(), BENCHES);
    }

    #[test]
    fn both_directions_keep_apart() {
        let (mut client, mut opening) = secret(|_| ()).keys(Role::Client, Revision::Rev1).unwrap();
        let own = sealed(&mut client, b"reflected");
        assert!(opening.open(own, "text").is_err());
    }

    #[test]
    fn no_nonce_comes_up_twice_and_a_used_up_key_refuses() {
        for revision in [Revision::Rev0, Revision::Rev1] {
            let start = [0xff; NONCE_LEN]; // wraps at once
            let mut nonces = Nonces { left: 1000, ..Nonces::new(start, revision) };
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..1000 {
                assert!(seen.insert(nonces.peek()));
                nonces.next().unwrap();
            }
            assert!(matches!(nonces.next(), Err(ProtocolError::KeyUsedUp)));

            let (mut sealing, mut opening) = keys(revision);
            let text = sealed(&mut sealing, b"text");
            (sealing.nonces.left, opening.nonces.left) = (0, 0);
            let refused = Err(ProtocolError::KeyUsedUp);
            assert_eq!(sealing.seal(0, &mut BytesMut::from("text")), refused);
            assert_eq!(opening.open(text, "text"), Err(ProtocolError::KeyUsedUp));
        }
    }

    #[test]
    fn a_nonce_steps_as_its_revision_says() {
        let first: [u8; NONCE_LEN] = std::array::from_fn(|at| 0x10 + at as u8);
        for (revision, at) in [(Revision::Rev0, 0), (Revision::Rev1, 4)] {
            let mut nonces = Nonces::new(first, revision);
            nonces.next().unwrap();
            let mut second = first;
            second[at] += 1;
            assert_eq!(nonces.peek(), second);
        }
    }

    #[test]
    fn secrets_whose_nonces_would_meet_are_refused() {
        let refused = |edit: fn(&mut [u8; SECRET_LEN]), revision| {
            secret(edit).keys(Role::Client, revision).is_err()
        };
        for revision in [Revision::Rev0, Revision::Rev1] {
            assert!(!refused(|_| (), revision));
            assert!(refused(|secret| secret.copy_within(16..28, 28), revision), "equal");
        }
        let near: fn(&mut [u8; SECRET_LEN]) = |secret| {
            secret.copy_within(16..28, 28);
            secret[28 + 4 + 3] ^= 0x80; // counters 2^31 apart
        };
        assert!(refused(near, Revision::Rev1));
        assert!(!refused(near, Revision::Rev0));
        assert!(ConnectionSecret::new(&[7; SECRET_LEN - 1]).is_err());
    }

    #[test]
    fn no_secret_is_printed() {
        let (sealing, opening) = keys(Revision::Rev0);
        let text = format!("{:?} {sealing:?} {opening:?}", secret(|_| ()));
        let left = KEY_USES_MAX;
        let expected = format!(
            "ConnectionSecret SealingKey {{ left: {left}, .. }} OpeningKey {{ left: {left}, .. }}"
        );
        assert_eq!(text, expected);
    }
}
