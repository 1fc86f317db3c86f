//! What authentication ends with.

use aws_lc_rs::hmac;

use crate::auth::{AuthName, Caps, ConnectionMode, Key};
use crate::v2::ConnectionSecret;
use crate::v2::control::SIGNATURE_LEN;

/// How a transport goes on after AUTH_DONE, the same on both sides.
#[derive(Debug)]
pub struct Grant {
    /// The client's number.
    pub global_id: u64,
    /// The connection mode chosen.
    pub mode: ConnectionMode,
    /// What AUTH_SIGNATURE is made with; none for method none.
    pub session_key: Option<Key>,
    /// Where the keys of a secure transport come from.
    pub connection_secret: Option<ConnectionSecret>,
    /// Who the client is, on the server's side.
    pub peer: Option<AuthIdentity>,
}

impl Grant {
    /// What vouches for everything said so far in one direction (msgr2: AUTH_SIGNATURE):
    /// HMAC-SHA256 under the session key. Method none has no key and signs with zeros.
    pub fn signature(&self, said: &[u8]) -> [u8; SIGNATURE_LEN] {
        let Some(key) = &self.session_key else {
            return [0; SIGNATURE_LEN];
        };
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.secret()), said);
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// An authenticated entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthIdentity {
    /// Its name.
    pub name: AuthName,
    /// What it may do here; nothing is said of it by method none.
    pub caps: Caps,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::v2::Banner;

    #[test]
    fn a_signature_is_the_reference_s() {
        let mut grant = Grant {
            global_id: 1,
            mode: ConnectionMode::Crc,
            session_key: Some(Key::new(std::array::from_fn(|at| at as u8), Duration::ZERO)),
            connection_secret: None,
            peer: None,
        };
        let expected = [
            0x4d, 0xec, 0xbd, 0xe6, 0x79, 0x11, 0xf5, 0x48, 0xb8, 0x1a, 0x6e, 0x23, 0x9d, 0x58,
            0x9d, 0x9d, 0x27, 0x28, 0x72, 0x37, 0x3f, 0xc5, 0xe7, 0x38, 0x01, 0x80, 0x04, 0x2f,
            0xf4, 0x6b, 0xd0, 0x11,
        ];
        assert_eq!(grant.signature(&Banner::OURS.encode()), expected);
        grant.session_key = None;
        assert_eq!(grant.signature(b"anything"), [0; SIGNATURE_LEN]);
    }
}
