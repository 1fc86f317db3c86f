//! Heartbeats of OSDs.
//!
//! ```text
//!   uuid fsid, u32 map epoch, u8 op, utime stamp,             29 bytes, which padding counts from
//!   u32 padding, u32 up_from, span ping stamp, span send stamp, bool, [span], zeros
//! ```

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};
use messenger_proto::v2::Utime;

use crate::fsid::Fsid;
use crate::kind;
use crate::limits::PING_PAD_MAX;
use crate::payload::Payload;
use crate::stamp::Span;

const HEAD_LEN: usize = 16 + 4 + 1 + 8;
const ZEROS: [u8; 256] = [0; 256];

/// What a heartbeat is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum PingOp {
    /// The map says that the receiver is down.
    YouDied = 2,
    /// Are you there?
    #[default]
    Ping = 4,
    /// I am.
    PingReply = 5,
}

impl PingOp {
    const ALL: [Self; 3] = [Self::YouDied, Self::Ping, Self::PingReply];

    fn from_wire(value: u8) -> Result<Self, DecodeError> {
        let known = Self::ALL.into_iter().find(|op| *op as u8 == value);
        known.ok_or_else(|| DecodeError::Invalid { field: "heartbeat", value: value.into() })
    }
}

/// One heartbeat. Heartbeats travel over connections of their own, as long as ordinary messages so
/// that a path which loses only those is noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MOSDPing {
    /// The cluster; an OSD of another one keeps silent.
    pub fsid: Fsid,
    /// Epoch of the sender's map.
    pub epoch: u32,
    /// What it is.
    pub op: PingOp,
    /// When the ping was sent, by its sender's wall clock; the reply repeats it.
    pub stamp: Utime,
    /// Epoch in which the sender came up.
    pub up_from: u32,
    /// When the ping was sent, by its sender's monotonic clock; the reply repeats it.
    pub ping_stamp: Span,
    /// When this message was sent, by its own sender's monotonic clock.
    pub send_stamp: Span,
    /// Upper bound of the difference of both monotonic clocks, once the sender knows one.
    pub delta_upper_bound: Option<Span>,
    /// Zeros at the end.
    pub padding_len: u16,
}

impl MOSDPing {
    /// The same, padded as Ceph pads for `osd_heartbeat_min_size`.
    #[must_use]
    pub fn padded_for(mut self, min_size: u16) -> Self {
        self.padding_len = min_size.saturating_sub(HEAD_LEN as u16);
        self
    }

    /// The answer to a ping, as long as the ping.
    #[must_use]
    pub fn reply(&self, epoch: u32, up_from: u32, now: Span) -> Self {
        let delta_upper_bound = None;
        Self { op: PingOp::PingReply, epoch, up_from, send_stamp: now, delta_upper_bound, ..*self }
    }
}

impl Payload for MOSDPing {
    const NAME: &'static str = "MOSDPing";
    const KIND: u16 = kind::OSD_PING;
    const VERSION: u16 = 5;
    const COMPAT: u16 = 4;
    const OLDEST: u16 = 5;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        let fsid = Fsid::decode(front)?;
        let epoch = front.u32()?;
        let op = PingOp::from_wire(front.u8()?)?;
        let stamp = Utime::decode(front)?;
        let padding_len = front.count(PING_PAD_MAX)?;
        let up_from = front.u32()?;
        let ping_stamp = Span::decode(front)?;
        let send_stamp = Span::decode(front)?;
        let delta_upper_bound = if front.bool()? { Some(Span::decode(front)?) } else { None };
        front.bytes(padding_len)?;
        let padding_len = u16::try_from(padding_len).expect("bounded by PING_PAD_MAX");
        Ok(Self {
            fsid,
            epoch,
            op,
            stamp,
            up_from,
            ping_stamp,
            send_stamp,
            delta_upper_bound,
            padding_len,
        })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        self.fsid.encode(front);
        front.u32(self.epoch);
        front.u8(self.op as u8);
        self.stamp.encode(front);
        front.u32(self.padding_len.into());
        front.u32(self.up_from);
        self.ping_stamp.encode(front);
        self.send_stamp.encode(front);
        front.bool(self.delta_upper_bound.is_some());
        if let Some(bound) = &self.delta_upper_bound {
            bound.encode(front);
        }
        let mut left = usize::from(self.padding_len);
        while left > 0 {
            let len = left.min(ZEROS.len());
            front.bytes(&ZEROS[..len]);
            left -= len;
        }
    }
}
