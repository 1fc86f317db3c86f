//! Authentication method none: say who you are, and be believed.
//!
//! ```text
//!   to a monitor     u8 10, u32 entity type, text id, u64 global_id (0: assign me one)
//!   to any other     u8 1,  u32 entity type, text id, u64 global_id
//! ```

pub mod cephx;
pub mod keyring;
pub mod name;
pub mod secret;

use bytes::BytesMut;

use crate::denc::{DecodeError, Reader, Writer};
use crate::entity::EntityType;
use crate::v2::control::{AuthBadMethod, AuthDone, AuthRequest, MODE_CRC};

/// Number of this method.
pub const METHOD_NONE: u32 = 1;

const PAYLOAD_AUTHORIZER: u8 = 1;
const PAYLOAD_LOGIN: u8 = 10;
const EACCES: i32 = -13; // Linux's numbers are the protocol's
const EOPNOTSUPP: i32 = -95;

/// The request of entity `kind.id` to a peer of type `to`.
pub fn request(kind: EntityType, id: &str, global_id: u64, to: EntityType) -> AuthRequest {
    let mut payload = BytesMut::new();
    let mut writer = Writer::new(&mut payload);
    writer.u8(if to == EntityType::Mon { PAYLOAD_LOGIN } else { PAYLOAD_AUTHORIZER });
    writer.u32(kind.to_wire().into());
    writer.text(id);
    writer.u64(global_id);
    AuthRequest { method: METHOD_NONE, modes: vec![MODE_CRC], payload: payload.to_vec() }
}

/// The answer to a request. A client that has no number yet gets `fresh_global_id`.
pub fn answer(request: &AuthRequest, fresh_global_id: u64) -> Result<AuthDone, AuthBadMethod> {
    let refuse = |result| AuthBadMethod {
        method: request.method,
        result,
        allowed_methods: vec![METHOD_NONE],
        allowed_modes: vec![MODE_CRC],
    };
    if request.method != METHOD_NONE || !request.modes.contains(&MODE_CRC) {
        return Err(refuse(EOPNOTSUPP));
    }
    let global_id = match claimed_global_id(&request.payload).map_err(|_| refuse(EACCES))? {
        0 => fresh_global_id,
        claimed => claimed,
    };
    Ok(AuthDone { global_id, mode: MODE_CRC, payload: Vec::new() })
}

fn claimed_global_id(payload: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(payload);
    let kind = reader.u8()?;
    if ![PAYLOAD_AUTHORIZER, PAYLOAD_LOGIN].contains(&kind) {
        return Err(DecodeError::Invalid { field: "auth payload", value: kind.into() });
    }
    let _entity_type = reader.u32()?;
    let _id = reader.text()?;
    reader.u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_numbers_a_client_and_others_believe_the_number() {
        let login = request(EntityType::Client, "admin", 0, EntityType::Mon);
        assert_eq!(answer(&login, 4242).unwrap().global_id, 4242);
        let authorizer = request(EntityType::Client, "admin", 77, EntityType::Osd);
        assert_eq!(answer(&authorizer, 4242).unwrap().global_id, 77);
    }

    #[test]
    fn refusals_carry_the_protocol_s_errno() {
        let good = request(EntityType::Client, "admin", 0, EntityType::Mon);
        let result = |request: AuthRequest| answer(&request, 1).unwrap_err().result;
        assert_eq!(result(AuthRequest { method: 77, ..good.clone() }), EOPNOTSUPP);
        assert_eq!(result(AuthRequest { modes: vec![2], ..good.clone() }), EOPNOTSUPP);
        assert_eq!(result(AuthRequest { payload: vec![], ..good.clone() }), EACCES);
        assert_eq!(result(AuthRequest { payload: vec![20; 64], ..good }), EACCES);
    }
}
