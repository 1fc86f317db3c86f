//! Names of principals: `client.admin`, `osd.3`, `mon.`.

use std::fmt;
use std::str::FromStr;

use crate::denc::{DecodeError, Reader, Writer};
use crate::entity::{EntityType, ParseEntityError};

/// Longest id of a principal.
pub const AUTH_ID_LEN_MAX: usize = 256;

/// Who authenticates: a type and a free text, unlike the numbers of
/// [`EntityName`](crate::EntityName). The id may be empty: `mon.` is the key all monitors share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthName {
    /// Kind of entity.
    pub kind: EntityType,
    /// What stands behind the dot.
    pub id: String,
}

impl AuthName {
    /// `kind.id`.
    pub fn new(kind: EntityType, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }

    /// Reads `u32` type, `text` id.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u32()?;
        let kind = u8::try_from(kind)
            .map_err(|_| DecodeError::Invalid { field: "entity type", value: kind.into() })?;
        let (kind, id) = (EntityType::from_wire(kind)?, reader.text()?);
        if id.len() > AUTH_ID_LEN_MAX {
            return Err(DecodeError::TooMany { count: id.len(), max: AUTH_ID_LEN_MAX });
        }
        Ok(Self::new(kind, id))
    }

    /// Writes what [`AuthName::decode`] reads.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.kind.to_wire().into());
        writer.text(&self.id);
    }
}

impl fmt::Display for AuthName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.id)
    }
}

impl FromStr for AuthName {
    type Err = ParseEntityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            Some((kind, id)) if id.len() <= AUTH_ID_LEN_MAX => Ok(Self::new(kind.parse()?, id)),
            _ => Err(ParseEntityError::new(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn names_survive_text_and_wire() {
        for text in ["client.admin", "osd.3", "mon.", "client.rgw.a-b"] {
            let name: AuthName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            let mut out = BytesMut::new();
            name.encode(&mut Writer::new(&mut out));
            assert_eq!(AuthName::decode(&mut Reader::new(&out)), Ok(name));
        }
        for text in ["", "client", "disk.1"] {
            assert!(text.parse::<AuthName>().is_err(), "{text}");
        }
        assert!(format!("osd.{}", "3".repeat(AUTH_ID_LEN_MAX + 1)).parse::<AuthName>().is_err());
    }

    #[test]
    fn the_wire_s_type_is_not_cut_to_a_byte() {
        let mut reader = Reader::new(&[8, 1, 0, 0, 0, 0, 0, 0]);
        assert!(matches!(AuthName::decode(&mut reader), Err(DecodeError::Invalid { .. })));
    }
}
