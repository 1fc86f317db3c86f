//! Configuration that the monitors keep for everybody.

use std::collections::BTreeMap;

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::items;
use crate::kind;
use crate::limits::CONFIG_OPTIONS_MAX;
use crate::payload::Payload;

/// All options that the monitors set for the receiver; answers the subscription `config`, and comes
/// again with each change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MConfig {
    /// Values by option.
    pub options: BTreeMap<String, String>,
}

impl Payload for MConfig {
    const NAME: &'static str = "MConfig";
    const KIND: u16 = kind::CONFIG;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self { options: items::text_map(front, CONFIG_OPTIONS_MAX)? })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        items::put_text_map(front, &self.options);
    }
}
