//! Requests for one object, of one operation each.
//!
//! ```text
//!   struct(1,1) { pg, s8 shard }, u32 hash, u32 map epoch, u32 flags,
//!   struct(2,2) { client, u64 tid, u32 incarnation }, 24 bytes of a trace,
//!   u32 incarnation, utime, struct(6,3) { s64 pool, s32 -1, text key, text namespace, s64 hash },
//!   text object, u16 count, count x operation,
//!   u64 snapshot, u64 and list<u64> snapshot context, s32 retries, u64 features
//! ```

use bytes::Bytes;
use messenger_proto::denc::{DecodeError, Reader, Writer};
use messenger_proto::v2::Utime;
use messenger_proto::{EntityName, EntityType, features};

use crate::hash::rjenkins;
use crate::items;
use crate::kind;
use crate::limits::NAME_LEN_MAX;
use crate::osd::pg::PgId;
use crate::payload::Payload;

const CODE_READ: u16 = 0x1201;
const CODE_WRITE_FULL: u16 = 0x2202;
const FLAGS_READ: u32 = 0x10;
const FLAGS_WRITE: u32 = 0x24; // write, and answer once it is on disk
const NO_SHARD: u8 = u8::MAX;
const NO_HASH: i64 = -1;
const NO_SNAPSHOT: u64 = u64::MAX - 1; // the object as it is now
const TRACE_LEN: usize = 24;

/// Bytes of one operation: `u16` code, `u32` flags, 28 bytes of arguments, `u32` data length.
const OPERATION_LEN: usize = 38;

/// What is to be done with the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OsdOp {
    /// Replaces the whole content.
    WriteFull(Bytes),
    /// Reads a part; what there is of it.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes; 0 stands for all from the first on.
        length: u64,
    },
}

/// One operation as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawOp {
    pub(super) code: u16,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) data_len: u32,
}

impl RawOp {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut op = Reader::new(reader.bytes(OPERATION_LEN)?);
        let code = op.u16()?;
        op.u32()?;
        let (offset, length) = (op.u64()?, op.u64()?);
        op.bytes(8 + 4)?;
        Ok(Self { code, offset, length, data_len: op.u32()? })
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u16(self.code);
        writer.u32(0);
        writer.u64(self.offset);
        writer.u64(self.length);
        writer.u64(0); // where to truncate, and how often that happened
        writer.u32(0);
        writer.u32(self.data_len);
    }
}

/// A request for one object without locator key and namespace, as the newest snapshot has it.
///
/// An epoch newer than the OSD's map makes the request wait; an older one is fine as long as the
/// placement group has not moved since. The answer comes with the request's tid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MOSDOp {
    /// Placement group, not the raw one.
    pub pg: PgId,
    /// Epoch of the map by which the group and its primary were found.
    pub epoch: u32,
    /// Who asks. With [`MOSDOp::tid`] it names the request, also when it is sent again.
    pub client: EntityName,
    /// The client's number of the request; the header's should be the same.
    pub tid: u64,
    /// Time of the change, for the object's attributes.
    pub mtime: Utime,
    /// Name of the object.
    pub object: String,
    /// What to do.
    pub op: OsdOp,
    /// Times that the request was sent before.
    pub retries: i32,
    /// Features of the sender.
    pub features: u64,
}

impl MOSDOp {
    /// A request in the form of our supported features.
    pub fn new(
        pg: PgId,
        epoch: u32,
        client: EntityName,
        tid: u64,
        object: &str,
        op: OsdOp,
    ) -> Self {
        Self {
            pg,
            epoch,
            client,
            tid,
            mtime: Utime::default(),
            object: object.to_owned(),
            op,
            retries: 0,
            features: features::SUPPORTED,
        }
    }

    /// Sets the time of the change.
    #[must_use]
    pub fn with_mtime(mut self, mtime: Utime) -> Self {
        self.mtime = mtime;
        self
    }

    fn raw_op(&self) -> RawOp {
        match &self.op {
            OsdOp::WriteFull(data) => RawOp {
                code: CODE_WRITE_FULL,
                offset: 0,
                length: data.len() as u64,
                data_len: u32::try_from(data.len()).expect("a message's data is below 4 GiB"),
            },
            OsdOp::Read { offset, length } => {
                RawOp { code: CODE_READ, offset: *offset, length: *length, data_len: 0 }
            }
        }
    }
}

impl Payload for MOSDOp {
    const NAME: &'static str = "MOSDOp";
    const KIND: u16 = kind::OSD_OP;
    const VERSION: u16 = 8;
    const COMPAT: u16 = 3;
    const OLDEST: u16 = 8;

    fn decode(front: &mut Reader<'_>, data: &Bytes) -> Result<Self, DecodeError> {
        let pg = PgId::decode(&mut front.envelope(1)?.1)?;
        front.u32()?; // the hash, which the name tells
        let epoch = front.u32()?;
        front.u32()?; // flags, which the operation tells
        let (_, mut request) = front.envelope(2)?;
        let (client, tid) = (EntityName::decode(&mut request)?, request.u64()?);
        front.bytes(TRACE_LEN + 4)?;
        let mtime = Utime::decode(front)?;
        front.envelope(6)?;
        let object = items::text(front, NAME_LEN_MAX)?;
        let op = decode_only_op(front, data)?;
        front.u64()?;
        front.u64()?;
        let snapshots = u64::from(front.u32()?) * 8;
        front.bytes(usize::try_from(snapshots).unwrap_or(usize::MAX))?;
        let retries = front.i32()?;
        Ok(Self { pg, epoch, client, tid, mtime, object, op, retries, features: front.u64()? })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        let op = self.raw_op();
        front.envelope(1, 1, |body| {
            self.pg.encode(body);
            body.u8(NO_SHARD);
        });
        front.u32(rjenkins(self.object.as_bytes()));
        front.u32(self.epoch);
        front.u32(if op.code == CODE_READ { FLAGS_READ } else { FLAGS_WRITE });
        front.envelope(2, 2, |body| {
            self.client.encode(body);
            body.u64(self.tid);
            body.u32(0);
        });
        front.bytes(&[0; TRACE_LEN]);
        front.u32(0);
        self.mtime.encode(front);
        front.envelope(6, 3, |body| {
            body.i64(self.pg.pool);
            body.i32(-1);
            body.text("");
            body.text("");
            body.i64(NO_HASH);
        });
        front.text(&self.object);
        front.u16(1);
        op.encode(front);
        front.u64(NO_SNAPSHOT);
        front.u64(0);
        front.u32(0);
        front.i32(self.retries);
        front.u64(self.features);
    }

    fn data(&self) -> Bytes {
        match &self.op {
            OsdOp::WriteFull(data) => data.clone(),
            OsdOp::Read { .. } => Bytes::new(),
        }
    }
}

fn decode_only_op(front: &mut Reader<'_>, data: &Bytes) -> Result<OsdOp, DecodeError> {
    match front.u16()? {
        1 => {}
        count => {
            let value = count.into();
            return Err(DecodeError::Invalid { field: "count of operations", value });
        }
    }
    let op = RawOp::decode(front)?;
    match op.code {
        CODE_READ => Ok(OsdOp::Read { offset: op.offset, length: op.length }),
        CODE_WRITE_FULL => {
            let needed = op.data_len as usize;
            if needed > data.len() {
                return Err(DecodeError::Truncated { needed, left: data.len() });
            }
            Ok(OsdOp::WriteFull(data.slice(..needed)))
        }
        code => Err(DecodeError::Invalid { field: "operation", value: code.into() }),
    }
}

/// For whoever makes requests without a name yet: `client.?`.
impl Default for MOSDOp {
    fn default() -> Self {
        let client = EntityName::new(EntityType::Client, EntityName::UNNUMBERED);
        let read = OsdOp::Read { offset: 0, length: 0 };
        Self::new(PgId::default(), 0, client, 0, "", read)
    }
}
