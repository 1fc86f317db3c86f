//! Subscriptions: maps and configuration that a monitor sends now and with each change.

use std::collections::BTreeMap;

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::fsid::Fsid;
use crate::items;
use crate::kind;
use crate::limits::SUBSCRIPTIONS_MAX;
use crate::payload::Payload;

const FLAG_ONCE: u8 = 1;

/// From where on, and how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subscription {
    /// First version that is wanted; 0 stands for the newest.
    pub start: u64,
    /// Whether one version is enough.
    pub once: bool,
}

/// Subscribes to some things.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MMonSubscribe {
    /// What: `monmap`, `config`, `osdmap`, `mgrmap`, ...
    pub what: BTreeMap<String, Subscription>,
    /// The subscriber's host, by which configuration may differ.
    pub host: String,
}

impl Payload for MMonSubscribe {
    const NAME: &'static str = "MMonSubscribe";
    const KIND: u16 = kind::MON_SUBSCRIBE;
    const VERSION: u16 = 3;
    const OLDEST: u16 = 3; // version 0 is for peers with few feature bits

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        let count = front.count(SUBSCRIPTIONS_MAX)?;
        let item = |front: &mut Reader<'_>| {
            let what = items::name(front)?;
            let start = front.u64()?;
            let once = front.u8()? & FLAG_ONCE != 0;
            Ok((what, Subscription { start, once }))
        };
        let what = (0..count).map(|_| item(front)).collect::<Result<_, DecodeError>>()?;
        Ok(Self { what, host: items::name(front)? })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        front.len(self.what.len());
        for (what, Subscription { start, once }) in &self.what {
            front.text(what);
            front.u64(*start);
            front.bool(*once); // the only flag, and the lowest bit
        }
        front.text(&self.host);
    }
}

/// Confirms a subscription to peers that are old enough to wait for it: those without feature
/// bit 57.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MMonSubscribeAck {
    /// Seconds after which the subscription must be renewed.
    pub interval_seconds: u32,
    /// The cluster.
    pub fsid: Fsid,
}

impl Payload for MMonSubscribeAck {
    const NAME: &'static str = "MMonSubscribeAck";
    const KIND: u16 = kind::MON_SUBSCRIBE_ACK;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self { interval_seconds: front.u32()?, fsid: Fsid::decode(front)? })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        front.u32(self.interval_seconds);
        self.fsid.encode(front);
    }
}
