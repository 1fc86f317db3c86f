//! Who talks: `osd.3`, `client.4123`.

use std::fmt;
use std::str::FromStr;

use crate::denc::{DecodeError, Reader, Writer};

/// Kind of daemon or client, with its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntityType {
    /// Monitor.
    Mon = 1,
    /// Metadata server.
    Mds = 2,
    /// Object storage daemon.
    Osd = 4,
    /// Client.
    Client = 8,
    /// Manager.
    Mgr = 16,
    /// The authentication service; never a peer of a connection.
    Auth = 32,
}

impl EntityType {
    /// Every type, in the order of their wire numbers.
    pub const ALL: [Self; 6] =
        [Self::Mon, Self::Mds, Self::Osd, Self::Client, Self::Mgr, Self::Auth];

    /// The number on the wire.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The type a wire number stands for.
    pub fn from_wire(value: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_wire() == value)
            .ok_or_else(|| DecodeError::Invalid { field: "entity type", value: value.into() })
    }

    /// The lower-case word of names and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Mds => "mds",
            Self::Osd => "osd",
            Self::Client => "client",
            Self::Mgr => "mgr",
            Self::Auth => "auth",
        }
    }
}

impl fmt::Display for EntityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is not `type.number`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an entity name such as osd.3 or client.?")]
pub struct ParseEntityError(String);

impl ParseEntityError {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl FromStr for EntityType {
    type Err = ParseEntityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| ParseEntityError::new(text))
    }
}

/// One entity: its type and number. `client.?` (number -1) is a client that was not numbered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityName {
    /// Kind of entity.
    pub kind: EntityType,
    /// OSD id, monitor rank or a client's global id; -1 when unknown.
    pub number: i64,
}

impl EntityName {
    /// The number of an entity that has none yet.
    pub const UNNUMBERED: i64 = -1;

    /// `kind.number`.
    pub const fn new(kind: EntityType, number: i64) -> Self {
        Self { kind, number }
    }

    /// Reads the nine bytes of a name inside messages: `u8` type, `s64` number.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { kind: EntityType::from_wire(reader.u8()?)?, number: reader.i64()? })
    }

    /// Writes what [`EntityName::decode`] reads.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(self.kind.to_wire());
        writer.i64(self.number);
    }
}

impl fmt::Display for EntityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            number if number < 0 => write!(f, "{}.?", self.kind),
            number => write!(f, "{}.{number}", self.kind),
        }
    }
}

impl FromStr for EntityName {
    type Err = ParseEntityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParseEntityError::new(text);
        let (kind, number) = text.split_once('.').ok_or_else(refused)?;
        let kind = kind.parse().map_err(|_| refused())?;
        let number = match number {
            "?" => Self::UNNUMBERED,
            digits if digits.starts_with(|c: char| c.is_ascii_digit()) => {
                digits.parse().map_err(|_| refused())?
            }
            _ => return Err(refused()),
        };
        Ok(Self { kind, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip_through_text() {
        for text in ["osd.3", "mon.0", "client.4123", "client.?", "mgr.17"] {
            assert_eq!(text.parse::<EntityName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for text in ["", "osd", "osd.", "osd.-3", "disk.1", "client.admin"] {
            assert!(text.parse::<EntityName>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_type_is_an_error() {
        assert!(EntityType::from_wire(3).is_err());
        assert_eq!(EntityType::from_wire(16), Ok(EntityType::Mgr));
    }
}
