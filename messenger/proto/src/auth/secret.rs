//! One AES-128 key with its birthday: a principal's, a session's or a service's.
//!
//! ```text
//!   key     u16 type 1 (AES), utime created, u16 length 16, secret
//!   text    the same 28 bytes in base64, as keyrings have it
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use crate::denc::{DecodeError, Reader, Writer};
use crate::v2::Utime;

/// Bytes of a secret.
pub const KEY_LEN: usize = 16;

const TYPE_AES: u16 = 1;
const ENCODED_LEN: usize = 2 + 8 + 2 + KEY_LEN; // type, created, length, secret
/// Room for keys of other types, too: they are refused for their type, not for their length.
const TEXT_LEN_MAX: usize = 128;

/// A text that is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// No base64, or far too much of it.
    #[error("a key is {} characters of base64", ENCODED_LEN.div_ceil(3) * 4)]
    Text,
    /// Base64 of something else, such as a key of another type.
    #[error("not an AES-128 key: {0}")]
    Encoding(DecodeError),
    /// There is more than a key.
    #[error("{0} bytes behind the key")]
    Trailing(usize),
}

/// A secret key. Wiped when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct Key {
    created: Utime,
    secret: Zeroizing<[u8; KEY_LEN]>,
}

impl Key {
    /// A key of known bytes, made at `created` (Unix time).
    pub fn new(secret: [u8; KEY_LEN], created: Duration) -> Self {
        Self { created: created.into(), secret: Zeroizing::new(secret) }
    }

    /// A new key, at `now` (Unix time), of bytes that nobody can guess.
    pub fn generate(now: Duration, random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        random(&mut *secret);
        Self { created: now.into(), secret }
    }

    /// The bytes: the key of the signatures of msgr2, for one.
    pub fn secret(&self) -> &[u8; KEY_LEN] {
        &self.secret
    }

    /// When the key was made (Unix time).
    pub fn created(&self) -> Duration {
        self.created.into()
    }

    /// Reads a key; other types than AES-128 are refused.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u16()?;
        if kind != TYPE_AES {
            return Err(DecodeError::Invalid { field: "key type", value: kind.into() });
        }
        let created = Utime::decode(reader)?;
        let len = reader.u16()?;
        if usize::from(len) != KEY_LEN {
            return Err(DecodeError::Invalid { field: "key length", value: len.into() });
        }
        Ok(Self { created, secret: Zeroizing::new(reader.array()?) })
    }

    /// Writes what [`Key::decode`] reads.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(TYPE_AES);
        self.created.encode(writer);
        writer.u16(KEY_LEN as u16);
        writer.bytes(&*self.secret);
    }

    /// The key as keyrings have it.
    pub fn to_base64(&self) -> Zeroizing<String> {
        let mut raw = Zeroizing::new([0; ENCODED_LEN]);
        raw[..2].copy_from_slice(&TYPE_AES.to_le_bytes());
        raw[2..6].copy_from_slice(&self.created.seconds.to_le_bytes());
        raw[6..10].copy_from_slice(&self.created.nanoseconds.to_le_bytes());
        raw[10..12].copy_from_slice(&(KEY_LEN as u16).to_le_bytes());
        raw[12..].copy_from_slice(&*self.secret);
        Zeroizing::new(Base64::encode_string(&*raw))
    }
}

impl FromStr for Key {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut raw = Zeroizing::new([0; TEXT_LEN_MAX]);
        let decoded = Base64::decode(text, &mut *raw).map_err(|_| ParseKeyError::Text)?;
        let mut reader = Reader::new(decoded);
        let key = Self::decode(&mut reader).map_err(ParseKeyError::Encoding)?;
        match reader.remaining() {
            0 => Ok(key),
            left => Err(ParseKeyError::Trailing(left)),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let same = verify_slices_are_equal(&*self.secret, &*other.secret).is_ok();
        same && self.created == other.created
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    const TEXT: &str = "AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw==";

    fn key() -> Key {
        Key::new(std::array::from_fn(|at| at as u8), Duration::from_secs(1_700_000_000))
    }

    #[test]
    fn a_key_has_the_text_that_ceph_gives_it() {
        assert_eq!(key().to_base64().as_str(), TEXT);
        assert_eq!(TEXT.parse(), Ok(key()));
    }

    #[test]
    fn a_key_has_one_encoding() {
        let mut out = BytesMut::new();
        key().encode(&mut Writer::new(&mut out));
        assert_eq!(Base64::encode_string(&out), TEXT);
        assert_eq!(Key::decode(&mut Reader::new(&out)), Ok(key()));
    }

    #[test]
    fn texts_that_are_no_keys_say_why() {
        let parse = |text: &str| text.parse::<Key>().unwrap_err();
        let other_type = [&[2, 0][..], &[0; 8], &[32, 0], &[7; 32]].concat();
        let (kind, value) = ("key type", 2);
        let expected = ParseKeyError::Encoding(DecodeError::Invalid { field: kind, value });
        assert_eq!(parse(&Base64::encode_string(&other_type)), expected);
        assert_eq!(parse("not base64!"), ParseKeyError::Text);
        assert_eq!(parse(&"A".repeat(1 << 20)), ParseKeyError::Text);
        assert!(matches!(parse(""), ParseKeyError::Encoding(_)));
        assert!(matches!(parse(&TEXT[..36]), ParseKeyError::Encoding(_)));
        let long = [&[1, 0][..], &[0; 8], &[16, 0], &[7; 17]].concat();
        assert_eq!(parse(&Base64::encode_string(&long)), ParseKeyError::Trailing(1));
    }

    #[test]
    fn no_secret_is_printed_and_each_byte_of_it_counts() {
        assert_eq!(format!("{:?}", key()), "Key");
        for at in 0..KEY_LEN {
            let mut secret = *key().secret();
            secret[at] ^= 1;
            assert_ne!(Key::new(secret, key().created()), key());
        }
    }
}
