//! Numbers of the message types of this crate, as the header carries them.

pub use messenger_proto::msg_type::{
    MON_COMMAND, MON_COMMAND_ACK, MON_GET_MAP, MON_MAP, MON_SUBSCRIBE, OSD_OP, OSD_OP_REPLY, PING,
};

/// `MGenericMessage` that stands for a shutdown.
pub const SHUTDOWN: u16 = 1;
/// `MMonSubscribeAck`.
pub const MON_SUBSCRIBE_ACK: u16 = 16;
/// `MAuth`.
pub const AUTH: u16 = 17;
/// `MAuthReply`.
pub const AUTH_REPLY: u16 = 18;
/// `MMonGetVersion`.
pub const MON_GET_VERSION: u16 = 19;
/// `MMonGetVersionReply`.
pub const MON_GET_VERSION_REPLY: u16 = 20;
/// `MOSDMap`, which this crate does not read.
pub const OSD_MAP: u16 = 41;
/// `MConfig`.
pub const CONFIG: u16 = 62;
/// `MOSDPing`.
pub const OSD_PING: u16 = 70;
/// `MCommand`.
pub const COMMAND: u16 = 97;
/// `MCommandReply`.
pub const COMMAND_REPLY: u16 = 98;
