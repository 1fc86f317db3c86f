//! Which cluster.

use std::fmt;
use std::str::FromStr;

use messenger_proto::denc::{DecodeError, Reader, Writer};

const LEN: usize = 16;
/// Bytes of the five groups of the text form.
const GROUPS: [usize; 5] = [4, 2, 2, 2, 6];

/// Identifies a cluster: a UUID, sixteen raw bytes on the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fsid(pub [u8; LEN]);

impl Fsid {
    /// Reads the raw bytes.
    ///
    /// # Errors
    /// If there are fewer than sixteen.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.array().map(Self)
    }

    /// Writes the raw bytes.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.0);
    }
}

impl fmt::Display for Fsid {
    /// Lower-case hexadecimal digits in groups of 8, 4, 4, 4 and 12.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.iter();
        for (index, len) in GROUPS.into_iter().enumerate() {
            if index > 0 {
                f.write_str("-")?;
            }
            for byte in bytes.by_ref().take(len) {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Fsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fsid({self})")
    }
}

/// A text that is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a UUID such as 3f04cebd-60a0-46cf-a196-ccb5f627f974")]
pub struct ParseFsidError(String);

impl FromStr for Fsid {
    type Err = ParseFsidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseFsidError(text.to_owned());
        let groups: Vec<&str> = text.split('-').collect();
        let lens = groups.iter().map(|group| group.len());
        if !lens.eq(GROUPS.into_iter().map(|len| 2 * len)) {
            return Err(refused());
        }
        let digits = groups.concat();
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| refused())?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_a_round_trip() {
        let text = "3f04cebd-60a0-46cf-a196-ccb5f627f974";
        let fsid: Fsid = text.parse().unwrap();
        assert_eq!(fsid.0[..2], [0x3f, 0x04]);
        assert_eq!(fsid.to_string(), text);
    }

    #[test]
    fn texts_that_are_no_uuid_are_refused() {
        for text in [
            "",
            "3f04cebd60a046cfa196ccb5f627f974",
            "3f04cebd-60a0-46cf-a196-ccb5f627f97",
            "3f04cebd-60a0-46cf-a196-ccb5f627f97g",
            "+f04cebd-60a0-46cf-a196-ccb5f627f974",
            "3f04cebd-60a0-46cf-a196-ccb5f627f9\u{e4}4",
        ] {
            assert!(text.parse::<Fsid>().is_err(), "{text}");
        }
    }
}
