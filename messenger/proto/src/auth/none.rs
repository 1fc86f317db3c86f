//! Authentication method none: say who you are, and be believed.
//!
//! ```text
//!   to a monitor     u8 10, u32 entity type, text id, u64 global_id (0: assign me one)
//!   to any other     u8 1,  u32 entity type, text id, u64 global_id
//! ```

use bytes::BytesMut;

use crate::auth::{AuthMethod, AuthName, ConnectionMode};
use crate::denc::{DecodeError, Reader, Writer};
use crate::entity::EntityType;
use crate::v2::control::AuthRequest;

const PAYLOAD_AUTHORIZER: u8 = 1;
const PAYLOAD_LOGIN: u8 = 10;

/// The request of entity `kind.id` to a peer of type `to`.
pub fn request(kind: EntityType, id: &str, global_id: u64, to: EntityType) -> AuthRequest {
    AuthRequest {
        method: AuthMethod::None.to_wire(),
        modes: vec![ConnectionMode::Crc.to_wire()],
        payload: payload(&AuthName::new(kind, id), global_id, to),
    }
}

/// What a request to a peer of type `to` says.
pub(super) fn payload(name: &AuthName, global_id: u64, to: EntityType) -> Vec<u8> {
    let mut payload = BytesMut::new();
    let mut writer = Writer::new(&mut payload);
    writer.u8(if to == EntityType::Mon { PAYLOAD_LOGIN } else { PAYLOAD_AUTHORIZER });
    name.encode(&mut writer);
    writer.u64(global_id);
    payload.to_vec()
}

/// Who a request claims to come from, and the claimed global_id: 0 if it has none yet.
pub(super) fn parse(payload: &[u8]) -> Result<(AuthName, u64), DecodeError> {
    let mut reader = Reader::new(payload);
    let form = reader.u8()?;
    if ![PAYLOAD_AUTHORIZER, PAYLOAD_LOGIN].contains(&form) {
        return Err(DecodeError::Invalid { field: "auth payload", value: form.into() });
    }
    Ok((AuthName::decode(&mut reader)?, reader.u64()?))
}
