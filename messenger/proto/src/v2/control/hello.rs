//! HELLO.

use super::Control;
use crate::addr::EntityAddr;
use crate::denc::{DecodeError, Reader, Writer};
use crate::entity::EntityType;
use crate::v2::Tag;

/// Both sides' first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The sender's type.
    pub kind: EntityType,
    /// The receiver's address as the sender sees it: the address dialled, or where the transport
    /// comes from.
    pub peer_addr: EntityAddr,
}

impl Control for Hello {
    const TAG: Tag = Tag::Hello;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = EntityType::from_wire(reader.u8()?)?;
        Ok(Self { kind, peer_addr: EntityAddr::decode(reader)? })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u8(self.kind.to_wire());
        self.peer_addr.encode(writer);
    }
}
