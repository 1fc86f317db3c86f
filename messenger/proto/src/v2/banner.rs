//! The first bytes of a transport, sent by both sides at once.
//!
//! ```text
//!   "ceph v2\n"  u16 payload length  u64 supported  u64 required  (more, ignored)
//! ```

use crate::denc::Reader;
use crate::error::ProtocolError;
use crate::v2::Revision;

/// What every msgr2 transport starts with.
pub const MAGIC: [u8; 8] = *b"ceph v2\n";
/// Bytes before the payload: the magic and the payload's length.
pub const PREFIX_LEN: usize = MAGIC.len() + 2;
/// Bytes of the payload we send, and the least we accept.
pub const PAYLOAD_LEN: usize = 16;
/// Feature bit of frame revision 1.
pub const FEATURE_REVISION_1: u64 = 1;
/// Feature bit of on-wire compression, which we offer only if it is configured.
pub const FEATURE_COMPRESSION: u64 = 1 << 1;

/// A banner's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Banner {
    /// Protocol features the sender can use.
    pub supported: u64,
    /// Protocol features it insists on.
    pub required: u64,
}

impl Banner {
    /// What we send if nothing else is configured.
    pub const OURS: Self = Self { supported: FEATURE_REVISION_1, required: 0 };

    /// What we send if this is the newest format of frames we know.
    pub fn offering(revision: Revision, compression: bool) -> Self {
        let revision = match revision {
            Revision::Rev0 => 0,
            Revision::Rev1 => FEATURE_REVISION_1,
        };
        let compression = if compression { FEATURE_COMPRESSION } else { 0 };
        Self { supported: revision | compression, required: 0 }
    }

    /// Whether we and a peer with the banner `theirs` negotiate compression.
    pub fn negotiates_compression(&self, theirs: &Self) -> bool {
        self.supported & theirs.supported & FEATURE_COMPRESSION != 0
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; PREFIX_LEN + PAYLOAD_LEN] {
        let mut out = [0; PREFIX_LEN + PAYLOAD_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&(PAYLOAD_LEN as u16).to_le_bytes());
        out[10..18].copy_from_slice(&self.supported.to_le_bytes());
        out[18..].copy_from_slice(&self.required.to_le_bytes());
        out
    }

    /// Checks the first bytes; the answer is the payload's length, at most `max`.
    pub fn decode_prefix(prefix: &[u8; PREFIX_LEN], max: u16) -> Result<usize, ProtocolError> {
        let [got @ .., len_low, len_high] = *prefix;
        if got != MAGIC {
            return Err(ProtocolError::BadBanner { got });
        }
        let (len, max) = (u16::from_le_bytes([len_low, len_high]).into(), max.into());
        if !(PAYLOAD_LEN..=max).contains(&len) {
            return Err(ProtocolError::BannerLen { len, min: PAYLOAD_LEN, max });
        }
        Ok(len)
    }

    /// Reads the payload, ignoring what later versions added to it.
    pub fn decode_payload(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        let (Ok(supported), Ok(required)) = (reader.u64(), reader.u64()) else {
            let (len, min) = (payload.len(), PAYLOAD_LEN);
            return Err(ProtocolError::BannerLen { len, min, max: usize::MAX });
        };
        Ok(Self { supported, required })
    }

    /// The frame revision that we and a peer with the banner `theirs` use.
    pub fn negotiate(&self, theirs: &Self) -> Result<Revision, ProtocolError> {
        let missing = (theirs.required & !self.supported) | (self.required & !theirs.supported);
        if missing != 0 {
            return Err(ProtocolError::BannerFeatures { missing });
        }
        Ok(match self.supported & theirs.supported & FEATURE_REVISION_1 {
            0 => Revision::Rev0,
            _ => Revision::Rev1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banner_survives_a_round_trip() {
        let wire = Banner::OURS.encode();
        let prefix = wire.first_chunk().unwrap();
        assert_eq!(Banner::decode_prefix(prefix, 4096), Ok(PAYLOAD_LEN));
        assert_eq!(Banner::decode_payload(&wire[PREFIX_LEN..]), Ok(Banner::OURS));
    }

    #[test]
    fn a_payload_length_beyond_our_limit_is_refused() {
        let mut wire = *Banner::OURS.encode().first_chunk().unwrap();
        for (len, accepted) in [(15, false), (16, true), (40, true), (4096, true), (4097, false)] {
            wire[8..].copy_from_slice(&u16::to_le_bytes(len));
            assert_eq!(Banner::decode_prefix(&wire, 4096).is_ok(), accepted, "{len}");
        }
    }

    #[test]
    fn revision_1_needs_both() {
        let old = Banner { supported: 0, required: 0 };
        let new = Banner { supported: 3, required: 0 };
        let strict = Banner { supported: 3, required: 2 };
        assert_eq!(Banner::OURS.negotiate(&old), Ok(Revision::Rev0));
        assert_eq!(Banner::OURS.negotiate(&new), Ok(Revision::Rev1));
        assert_eq!(Banner::offering(Revision::Rev0, true).negotiate(&new), Ok(Revision::Rev0));
        assert_eq!(Banner::offering(Revision::Rev1, false), Banner::OURS);
        let refused = ProtocolError::BannerFeatures { missing: 2 };
        assert_eq!(Banner::OURS.negotiate(&strict), Err(refused));
    }

    #[test]
    fn compression_is_negotiated_if_both_offer_it() {
        let with = Banner::offering(Revision::Rev1, true);
        assert!(with.negotiates_compression(&with));
        assert!(!with.negotiates_compression(&Banner::OURS));
        assert!(!Banner::OURS.negotiates_compression(&with));
    }
}
