//! Logins of msgr1, which go through messages; msgr2 has frames for them.

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::items;
use crate::kind;
use crate::limits::{AUTH_LEN_MAX, TEXT_LEN_MAX};
use crate::payload::Payload;

/// One step of a client's login at a monitor. The payload belongs to the method.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MAuth {
    /// Version of the monitor's state that the client has seen.
    pub seen_version: u64,
    /// Number of the authentication method; 0 in the first step, which offers methods.
    pub method: u32,
    /// What the method says.
    pub payload: Bytes,
    /// Epoch of the map of monitors that the client has.
    pub mon_map_epoch: u32,
}

impl Payload for MAuth {
    const NAME: &'static str = "MAuth";
    const KIND: u16 = kind::AUTH;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self {
            seen_version: items::seen_version(front)?,
            method: front.u32()?,
            payload: Bytes::copy_from_slice(items::blob(front, AUTH_LEN_MAX)?),
            mon_map_epoch: front.u32()?,
        })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        items::put_seen_version(front, self.seen_version);
        front.u32(self.method);
        front.blob(&self.payload);
        front.u32(self.mon_map_epoch);
    }
}

/// The monitor's answer to a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MAuthReply {
    /// Number of the method that the monitor chose.
    pub method: u32,
    /// 0, or a negative errno.
    pub result: i32,
    /// The client's number, once it has one.
    pub global_id: u64,
    /// What the method says.
    pub payload: Bytes,
    /// An explanation for people, mostly empty.
    pub message: String,
}

impl Payload for MAuthReply {
    const NAME: &'static str = "MAuthReply";
    const KIND: u16 = kind::AUTH_REPLY;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self {
            method: front.u32()?,
            result: front.i32()?,
            global_id: front.u64()?,
            payload: Bytes::copy_from_slice(items::blob(front, AUTH_LEN_MAX)?),
            message: items::text(front, TEXT_LEN_MAX)?,
        })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        front.u32(self.method);
        front.i32(self.result);
        front.u64(self.global_id);
        front.blob(&self.payload);
        front.text(&self.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_length_that_was_captured() {
        // u8 1, one method, client.admin, global id 0: 30 bytes.
        let offer = MAuth { payload: Bytes::from_static(&[0; 30]), ..MAuth::default() };
        assert_eq!(offer.to_message().front.len(), 60);
    }
}
