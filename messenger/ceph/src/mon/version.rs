//! How new is your map?

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::items;
use crate::kind;
use crate::payload::Payload;

/// Asks which versions of a map the monitor has. The answer comes with the request's tid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MMonGetVersion {
    /// The asker's own number, which the answer repeats.
    pub handle: u64,
    /// Which map: `osdmap`, `mdsmap`, `fsmap`, ...
    pub what: String,
}

impl Payload for MMonGetVersion {
    const NAME: &'static str = "MMonGetVersion";
    const KIND: u16 = kind::MON_GET_VERSION;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self { handle: front.u64()?, what: items::name(front)? })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        front.u64(self.handle);
        front.text(&self.what);
    }
}

/// Which versions there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MMonGetVersionReply {
    /// The asker's number.
    pub handle: u64,
    /// Newest version of the map.
    pub newest: u64,
    /// Oldest version that the monitor still keeps.
    pub oldest: u64,
}

impl Payload for MMonGetVersionReply {
    const NAME: &'static str = "MMonGetVersionReply";
    const KIND: u16 = kind::MON_GET_VERSION_REPLY;
    const VERSION: u16 = 2;
    const COMPAT: u16 = 2;
    const OLDEST: u16 = 2;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self { handle: front.u64()?, newest: front.u64()?, oldest: front.u64()? })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        front.u64(self.handle);
        front.u64(self.newest);
        front.u64(self.oldest);
    }
}
