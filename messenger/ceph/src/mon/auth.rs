//! Authentication by messages: logins of msgr1, for which msgr2 has frames; tickets before the old
//! ones run out, and a service's secrets, over either.
//!
//! ```text
//!   AuthClient                                                       AuthServer
//!   log_in()    -- MAuth 0: methods, name ----------------------->
//!               <- MAuthReply: the method, challenge -------------
//!               -- MAuth: proof ---------------------------------->
//!               <- MAuthReply: AUTH ticket -----------------------
//!   poll()      -- MAuth 0x0200: by the AUTH ticket, services ---->
//!               <- MAuthReply: their tickets ---------------------
//!               -- MAuth 0x0400 ---------------------------------->
//!               <- MAuthReply: the service's secrets -------------
//! ```

mod client;
mod server;

use bytes::{Bytes, BytesMut};
use messenger_proto::auth::AuthName;
use messenger_proto::denc::{DecodeError, Reader, Writer};

pub use client::{AUTH_RETRY, AuthClient, AuthErrand, AuthError};
pub use server::AuthServer;

use crate::items;
use crate::kind;
use crate::limits::{AUTH_LEN_MAX, AUTH_METHODS_MAX, TEXT_LEN_MAX};
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

/// What the first step of a login says: who wants in, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    methods: Vec<u32>,
    name: AuthName,
    /// 0: a fresh one.
    global_id: u64,
}

impl Offer {
    const VERSION: u8 = 1;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u8()?;
        if version != Self::VERSION {
            return Err(DecodeError::Invalid { field: "auth offer", value: version.into() });
        }
        let methods = reader.u32_list(AUTH_METHODS_MAX)?;
        Ok(Self { methods, name: AuthName::decode(reader)?, global_id: reader.u64()? })
    }

    fn to_message(&self) -> MAuth {
        let mut payload = BytesMut::new();
        let mut writer = Writer::new(&mut payload);
        writer.u8(Self::VERSION);
        writer.u32_list(&self.methods);
        self.name.encode(&mut writer);
        writer.u64(self.global_id);
        MAuth { payload: payload.freeze(), ..MAuth::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_has_the_length_that_was_captured() {
        let name = "client.admin".parse().unwrap();
        let offer = Offer { methods: vec![2], name, global_id: 0 };
        let message = offer.to_message();
        assert_eq!(Payload::to_message(&message).front.len(), 60);
        assert_eq!(Offer::decode(&mut Reader::new(&message.payload)), Ok(offer));
    }
}
