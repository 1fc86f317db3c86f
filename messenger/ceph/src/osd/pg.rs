//! Placement groups.

use std::fmt;
use std::str::FromStr;

use messenger_proto::denc::{DecodeError, Reader, Writer};

const VERSION: u8 = 1;
const NO_PREFERRED_OSD: i32 = -1;

/// A placement group: a pool's number, and the group's within it. A *raw* one has the object's
/// whole hash in place of the latter, which has more bits than the pool has groups.
///
/// Its text form is `1.2a`: decimal pool, hexadecimal group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgId {
    /// Pool.
    pub pool: i64,
    /// Group, or hash.
    pub seed: u32,
}

impl PgId {
    /// Reads the 17 bytes `u8` 1, `s64` pool, `u32` group, `s32` -1.
    ///
    /// # Errors
    /// If there are fewer, or the first says that they mean something else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            VERSION => {}
            other => {
                let value = other.into();
                return Err(DecodeError::Invalid { field: "version of a placement group", value });
            }
        }
        let id = Self { pool: reader.i64()?, seed: reader.u32()? };
        reader.i32()?;
        Ok(id)
    }

    /// Writes what [`PgId::decode`] reads.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(VERSION);
        writer.i64(self.pool);
        writer.u32(self.seed);
        writer.i32(NO_PREFERRED_OSD);
    }
}

impl fmt::Display for PgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.pool, self.seed)
    }
}

/// A text that is not a placement group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a placement group such as 1.2a")]
pub struct ParsePgError(String);

impl FromStr for PgId {
    type Err = ParsePgError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (pool, seed) = text.split_once('.')?;
            let digits = seed.bytes().all(|digit| digit.is_ascii_hexdigit());
            let seed = digits.then(|| u32::from_str_radix(seed, 16).ok())??;
            Some(Self { pool: pool.parse().ok()?, seed })
        };
        parse().ok_or_else(|| ParsePgError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives_a_round_trip() {
        for text in ["1.6cf8deff", "1.0", "12.ffffffff"] {
            assert_eq!(text.parse::<PgId>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1.", ".1", "1.+1", "1.g", "1.1ffffffff", "1.0.0"] {
            assert!(text.parse::<PgId>().is_err(), "{text}");
        }
    }
}
