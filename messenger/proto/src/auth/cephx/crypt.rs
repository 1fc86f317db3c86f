//! The envelope around whatever cephx keeps secret, and the proof that one has a key.
//!
//! ```text
//!   E(key, body)    AES-128-CBC, fixed vector, PKCS#7, of: u8 1, u64 magic, body
//! ```

use aws_lc_rs::cipher::{
    AES_128, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
    PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use bytes::BytesMut;
use zeroize::Zeroizing;

use super::error::CephxError;
use super::ticket::TICKET_LEN_MAX;
use crate::auth::secret::Key;
use crate::denc::{Reader, Writer};

/// The vector of every ciphertext: part of the protocol.
pub(super) const IV: [u8; 16] = *b"cephsageyudagreg";

const ENVELOPE_VERSION: u8 = 1;
const ENVELOPE_MAGIC: u64 = 0xff00_9cad_8826_aa55;
const ENVELOPE_LEN: usize = 1 + 8;
const BLOCK_LEN: usize = 16;
/// The longest thing sealed is a ticket with its length and the envelope.
const SEALED_LEN_MAX: usize = TICKET_LEN_MAX + 64;
/// Room for all but unusual bodies: a buffer that grows leaves a copy of the plaintext behind.
const SEAL_CAPACITY: usize = 1024;

/// `E(key, body)`.
pub(super) fn seal(key: &Key, body: impl FnOnce(&mut Writer<'_>)) -> BytesMut {
    let mut out = BytesMut::with_capacity(SEAL_CAPACITY);
    let mut writer = Writer::new(&mut out);
    writer.u8(ENVELOPE_VERSION);
    writer.u64(ENVELOPE_MAGIC);
    body(&mut writer);
    let context = EncryptionContext::Iv128(FixedLength::from(IV));
    let sealing = PaddedBlockEncryptingKey::cbc_pkcs7(unbound(key));
    let sealed = sealing.and_then(|key| key.less_safe_encrypt(&mut out, context));
    sealed.expect("padded CBC takes any length");
    out
}

/// `blob` of `E(key, body)`.
pub(super) fn seal_blob(writer: &mut Writer<'_>, key: &Key, body: impl FnOnce(&mut Writer<'_>)) {
    writer.blob(&seal(key, body));
}

/// What [`seal`] sealed. Wiped when dropped.
pub(super) struct Opened {
    plain: Zeroizing<Vec<u8>>,
    len: usize,
}

impl Opened {
    /// Reads the body.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.plain[ENVELOPE_LEN..self.len])
    }
}

/// Opens what [`seal`] sealed. Padding, version and magic number fail alike.
pub(super) fn open(key: &Key, sealed: &[u8], what: &'static str) -> Result<Opened, CephxError> {
    if sealed.len() > SEALED_LEN_MAX {
        return Err(CephxError::TooLong { what, len: sealed.len(), max: SEALED_LEN_MAX });
    }
    let not_ours = CephxError::NotOurs { what };
    if sealed.is_empty() || !sealed.len().is_multiple_of(BLOCK_LEN) {
        return Err(not_ours);
    }
    let mut plain = Zeroizing::new(sealed.to_vec());
    let context = DecryptionContext::Iv128(FixedLength::from(IV));
    let opening = PaddedBlockDecryptingKey::cbc_pkcs7(unbound(key)).expect("AES-128 has CBC");
    let Ok(len) = opening.decrypt(&mut plain, context).map(|plain| plain.len()) else {
        return Err(not_ours);
    };
    let mut envelope = Reader::new(&plain[..len]);
    if envelope.u8() != Ok(ENVELOPE_VERSION) || envelope.u64() != Ok(ENVELOPE_MAGIC) {
        return Err(not_ours);
    }
    Ok(Opened { plain, len })
}

/// Proof of having `key`, made of both sides' challenges (cephx: login, step 3).
pub(super) fn proof(key: &Key, server_challenge: u64, client_challenge: u64) -> u64 {
    let mut out = BytesMut::with_capacity(SEAL_CAPACITY);
    seal_blob(&mut Writer::new(&mut out), key, |body| {
        body.u64(server_challenge);
        body.u64(client_challenge);
    });
    fold(&out) // with the length in front, as Ceph does
}

/// The exclusive or of all whole little-endian words.
pub(super) fn fold(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
}

pub(super) fn unbound(key: &Key) -> UnboundCipherKey {
    UnboundCipherKey::new(&AES_128, key.secret()).expect("the length is AES-128's")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::cephx::tests::{hex, test_key};

    #[test]
    fn the_envelope_is_ceph_s() {
        let sealed = seal(&test_key(), |body| body.bytes(&[1, 2, 3]));
        assert_eq!(sealed, hex("de1c5d134f2d941370c3a7d58e14a147"));
        let opened = open(&test_key(), &sealed, "text").unwrap();
        assert_eq!(opened.reader().array(), Ok([1, 2, 3]));
        assert_eq!(opened.reader().remaining(), 3);
    }

    #[test]
    fn the_proof_is_ceph_s() {
        let (server, client) = (0x1122_3344_5566_7788, 0x99aa_bbcc_ddee_ff00);
        assert_eq!(proof(&test_key(), server, client), 0x4fad_d850_10bc_ad18);
        let sealed = seal(&test_key(), |body| {
            body.u64(server);
            body.u64(client);
        });
        let expected = "5e4c58eba0ea931c02ef662853edc6c29f2f6fbccbaae9ce9354fc30c472810b";
        assert_eq!(sealed, hex(expected));
    }

    #[test]
    fn another_key_a_changed_envelope_and_half_a_block_do_not_open() {
        let sealed = seal(&test_key(), |body| body.u64(7));
        let refused = |key: &Key, sealed: &[u8]| match open(key, sealed, "text") {
            Err(error) => assert_eq!(error, CephxError::NotOurs { what: "text" }),
            Ok(_) => panic!("opened"),
        };
        refused(&Key::new([9; 16], Default::default()), &sealed);
        refused(&test_key(), &sealed[..15]);
        refused(&test_key(), &[]);
        for at in 0..16 {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            refused(&test_key(), &changed);
        }
        let too_long = open(&test_key(), &[0; SEALED_LEN_MAX + 1], "text").err();
        assert!(matches!(too_long, Some(CephxError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn bodies_of_any_length_come_back(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sealed = seal(&test_key(), |writer| writer.bytes(&body));
            prop_assert_eq!(sealed.len(), (ENVELOPE_LEN + body.len()) / BLOCK_LEN * BLOCK_LEN + BLOCK_LEN);
            let opened = open(&test_key(), &sealed, "text").unwrap();
            prop_assert_eq!(opened.reader().bytes(body.len()), Ok(&body[..]));
        }

        #[test]
        fn arbitrary_bytes_do_not_open(sealed in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&test_key(), &sealed, "text").is_err());
        }
    }
}
