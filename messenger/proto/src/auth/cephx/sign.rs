//! Signatures of msgr v1's messages (msgr v1: signature).

use std::fmt;

use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext};
use aws_lc_rs::iv::FixedLength;

use super::crypt::{IV, fold, unbound};
use crate::auth::secret::Key;

/// Signs the messages of one msgr v1 connection, in the way of peers with feature bit 61.
pub struct MessageSigner(EncryptingKey);

/// What of a message is signed: checksums and lengths of its sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedFields {
    /// Checksum of the header.
    pub header_crc: u32,
    /// Checksum and length of the front.
    pub front: (u32, u32),
    /// Checksum and length of the middle.
    pub middle: (u32, u32),
    /// Checksum and length of the data.
    pub data: (u32, u32),
    /// The message's number.
    pub seq: u64,
}

impl MessageSigner {
    /// Signs with the session key of the authorizer.
    pub fn new(session_key: &Key) -> Self {
        Self(EncryptingKey::cbc(unbound(session_key)).expect("AES-128 has CBC"))
    }

    /// The signature, for the footer or to compare with the one there.
    pub fn signature(&self, fields: &SignedFields) -> u64 {
        let SignedFields { header_crc, front, middle, data, seq } = *fields;
        let seq = seq as u32; // the low half is signed
        let words = [header_crc, front.0, front.1, middle.0, middle.1, data.0, data.1, seq];
        let mut block = [0; 4 * 8];
        for (to, word) in block.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        // The padding that Ceph encrypts, too, comes behind the words that count.
        let context = EncryptionContext::Iv128(FixedLength::from(IV));
        self.0.less_safe_encrypt(&mut block, context).expect("whole blocks");
        fold(&block)
    }
}

impl fmt::Debug for MessageSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageSigner")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::cephx::tests::test_key;

    #[test]
    fn the_signature_is_ceph_s() {
        let fields = SignedFields {
            header_crc: 0x1111_1111,
            front: (0x2222_2222, 5),
            middle: (0, 0),
            data: (0x3333_3333, 6),
            seq: 0x5_0000_0007,
        };
        let signer = MessageSigner::new(&test_key());
        assert_eq!(signer.signature(&fields), 0x67bb_9398_9832_25e6);
        let other_half = SignedFields { seq: 7, ..fields };
        assert_eq!(signer.signature(&other_half), 0x67bb_9398_9832_25e6);
        let next = SignedFields { seq: 8, ..fields };
        assert_ne!(signer.signature(&next), 0x67bb_9398_9832_25e6);
    }
}
