//! What became of a request for an object.
//!
//! ```text
//!   text object, pg, u64 flags, s32 result, version, u32 map epoch,
//!   u32 count, count x operation, s32 retries, count x s32 result,
//!   version, u64 user version, bool redirect, 24 bytes of a trace
//! ```

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};

use crate::items;
use crate::kind;
use crate::limits::{NAME_LEN_MAX, OPERATIONS_MAX};
use crate::osd::op::RawOp;
use crate::osd::pg::PgId;
use crate::payload::Payload;

const TRACE_LEN: usize = 24;

/// A version in a placement group's log: `epoch'version`. Zero if nothing was changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EVersion {
    /// Counts the group's changes.
    pub version: u64,
    /// Epoch of the change.
    pub epoch: u32,
}

impl EVersion {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { version: reader.u64()?, epoch: reader.u32()? })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.version);
        writer.u32(self.epoch);
    }
}

/// The result of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpResult {
    /// Code of the operation, as in the request.
    pub code: u16,
    /// First byte it concerned.
    pub offset: u64,
    /// Bytes it concerned; those read, for a read.
    pub length: u64,
    /// Bytes of the reply's data that are its output.
    pub output_len: u32,
    /// 0 or a positive result, or a negative errno.
    pub result: i32,
}

/// The answer to an [`MOSDOp`](crate::MOSDOp), with its tid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MOSDOpReply {
    /// Name of the object.
    pub object: String,
    /// Placement group.
    pub pg: PgId,
    /// The request's flags, and the OSD's.
    pub flags: u64,
    /// 0, or a negative errno: -2 if there is no such object.
    pub result: i32,
    /// Version of the change, in the form for older clients.
    pub old_version: EVersion,
    /// Epoch of the OSD's map.
    pub epoch: u32,
    /// Results by operation.
    pub ops: Vec<OpResult>,
    /// Times that the request had been sent before.
    pub retries: i32,
    /// Version of the change in the group's log.
    pub version: EVersion,
    /// Version of the object that users see.
    pub user_version: u64,
    /// Output of all operations, one behind the other.
    pub data: Bytes,
}

impl Payload for MOSDOpReply {
    const NAME: &'static str = "MOSDOpReply";
    const KIND: u16 = kind::OSD_OP_REPLY;
    const VERSION: u16 = 8;
    const COMPAT: u16 = 2;
    const OLDEST: u16 = 8;

    fn decode(front: &mut Reader<'_>, data: &Bytes) -> Result<Self, DecodeError> {
        let object = items::text(front, NAME_LEN_MAX)?;
        let pg = PgId::decode(front)?;
        let (flags, result) = (front.u64()?, front.i32()?);
        let old_version = EVersion::decode(front)?;
        let epoch = front.u32()?;
        let count = front.count(OPERATIONS_MAX)?;
        let raw = (0..count).map(|_| RawOp::decode(front)).collect::<Result<Vec<_>, _>>()?;
        let retries = front.i32()?;
        let with_result = |RawOp { code, offset, length, data_len }| {
            Ok(OpResult { code, offset, length, output_len: data_len, result: front.i32()? })
        };
        let ops = raw.into_iter().map(with_result).collect::<Result<_, DecodeError>>()?;
        let version = EVersion::decode(front)?;
        let user_version = front.u64()?;
        if front.bool()? {
            // A cache tier sends the asker to another pool; we would not know the way.
            return Err(DecodeError::Invalid { field: "redirect", value: 1 });
        }
        front.bytes(TRACE_LEN)?;
        Ok(Self {
            object,
            pg,
            flags,
            result,
            old_version,
            epoch,
            ops,
            retries,
            version,
            user_version,
            data: data.clone(),
        })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        front.text(&self.object);
        self.pg.encode(front);
        front.u64(self.flags);
        front.i32(self.result);
        self.old_version.encode(front);
        front.u32(self.epoch);
        front.len(self.ops.len());
        for op in &self.ops {
            let OpResult { code, offset, length, output_len: data_len, .. } = *op;
            RawOp { code, offset, length, data_len }.encode(front);
        }
        front.i32(self.retries);
        for op in &self.ops {
            front.i32(op.result);
        }
        self.version.encode(front);
        front.u64(self.user_version);
        front.bool(false);
        front.bytes(&[0; TRACE_LEN]);
    }

    fn data(&self) -> Bytes {
        self.data.clone()
    }
}
