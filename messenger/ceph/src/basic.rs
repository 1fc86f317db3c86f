//! Messages of no particular service.

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::items;
use crate::kind;
use crate::limits::TEXT_LEN_MAX;
use crate::payload::Payload;

/// A sign of life. The request is empty; a monitor answers with its state as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MPing {
    /// State of the answering monitor, if there is any.
    pub report: Option<String>,
}

impl Payload for MPing {
    const NAME: &'static str = "MPing";
    const KIND: u16 = kind::PING;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        let answered = front.remaining() > 0;
        let report = answered.then(|| items::text(front, TEXT_LEN_MAX)).transpose()?;
        Ok(Self { report })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        if let Some(report) = &self.report {
            front.text(report);
        }
    }
}

/// An empty message whose type is all that it says: shut down. A monitor ignores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MGenericMessage;

impl Payload for MGenericMessage {
    const NAME: &'static str = "MGenericMessage";
    const KIND: u16 = kind::SHUTDOWN;

    fn decode(_front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn encode(&self, _front: &mut Writer<'_>) {}
}
