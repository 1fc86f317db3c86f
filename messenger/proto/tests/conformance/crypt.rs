//! The two ciphers of the protocol, straight from the library: cephx's envelope and secure frames.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    AES_128, DecryptingKey, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use crate::bytes::{In, Out};
use crate::wire::Rev;

pub(crate) type Key = [u8; 16];

const IV: &[u8; 16] = b"cephsageyudagreg";
const MAGIC: u64 = 0xff00_9cad_8826_aa55;
const TAG_LEN: usize = 16;

fn unbound(key: &Key) -> UnboundCipherKey {
    UnboundCipherKey::new(&AES_128, key).unwrap()
}

/// E(key, body).
pub(crate) fn seal(key: &Key, body: Out) -> Vec<u8> {
    cbc(key, Out::new().u8(1).u64(MAGIC).raw(&body.0).0)
}

/// AES-CBC with cephx's vector and padding, without its envelope.
pub(crate) fn cbc(key: &Key, mut text: Vec<u8>) -> Vec<u8> {
    let context = EncryptionContext::Iv128(FixedLength::from(*IV));
    let key = PaddedBlockEncryptingKey::cbc_pkcs7(unbound(key)).unwrap();
    key.less_safe_encrypt(&mut text, context).unwrap();
    text
}

/// The body of E(key, body).
pub(crate) fn open(key: &Key, sealed: &[u8]) -> Vec<u8> {
    let mut text = sealed.to_vec();
    let context = DecryptionContext::Iv128(FixedLength::from(*IV));
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(unbound(key)).unwrap();
    let mut read = In(key.decrypt(&mut text, context).unwrap());
    assert_eq!((read.u8(), read.u64()), (1, MAGIC));
    read.0.to_vec()
}

/// What AUTH_SIGNATURE says about everything received.
pub(crate) fn sign(key: &Key, received: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), received);
    tag.as_ref().try_into().unwrap()
}

/// One direction of a secure transport.
pub(crate) struct Gcm {
    key: Key,
    fixed: u32,
    counter: u64,
    rev: Rev,
}

impl Gcm {
    /// Of the two nonces in a connection secret, `first` is what the server sends with.
    pub(crate) fn new(secret: &[u8], first: bool, rev: Rev) -> Self {
        let mut nonce = In(&secret[if first { 16..28 } else { 28..40 }]);
        let (fixed, counter) = (nonce.u32(), nonce.u64());
        Self { key: secret[..16].try_into().unwrap(), fixed, counter, rev }
    }

    fn nonce(&self) -> [u8; 12] {
        Out::new().u32(self.fixed).u64(self.counter).0.try_into().unwrap()
    }

    fn next(&mut self) -> (LessSafeKey, Nonce) {
        let nonce = Nonce::assume_unique_for_key(self.nonce());
        match self.rev {
            Rev::Zero => self.fixed = self.fixed.wrapping_add(1),
            Rev::One => self.counter = self.counter.wrapping_add(1),
        }
        (LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &self.key).unwrap()), nonce)
    }

    pub(crate) fn seal(&mut self, mut plain: Vec<u8>) -> Vec<u8> {
        let (key, nonce) = self.next();
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut plain).unwrap();
        plain
    }

    pub(crate) fn open(&mut self, sealed: &[u8]) -> Vec<u8> {
        let (key, nonce) = self.next();
        let mut plain = sealed.to_vec();
        key.open_in_place(nonce, Aad::empty(), &mut plain).unwrap();
        plain.truncate(sealed.len() - TAG_LEN);
        plain
    }

    /// The plain text behind `head`, the start of the next ciphertext, before its tag is known.
    pub(crate) fn peek(&self, head: &[u8]) -> Vec<u8> {
        let mut block = [0; 16];
        block[..12].copy_from_slice(&self.nonce());
        block[15] = 2; // the first block of a text
        let mut plain = head.to_vec();
        let key = DecryptingKey::ctr(unbound(&self.key)).unwrap();
        key.decrypt(&mut plain, DecryptionContext::Iv128(FixedLength::from(block))).unwrap();
        plain
    }
}

#[test]
fn the_envelope_is_the_reference_s() {
    let key = std::array::from_fn(|at| at as u8);
    let sealed = seal(&key, Out::new().raw(&[1, 2, 3]));
    assert_eq!(sealed[..4], [0xde, 0x1c, 0x5d, 0x13]);
    assert_eq!(open(&key, &sealed), [1, 2, 3]);
}
