//! One object put or got, at the OSD that the monitors name for it.
//!
//! ```text
//!   osd map, osd dump  ->  dial the primary  ->  MOSDOp  ->  MOSDOpReply
//!          ^                                       |
//!          +----- it left, it has a newer map, it says "not me", it keeps silent
//! ```
//!
//! A request sent again keeps its name (client and tid), by which an OSD knows what it did already.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use bytes::Bytes;
use messenger::{Connection, EntityName, EntityType};
use messenger_ceph::{
    MOSDOp, MOSDOpReply, ObjectPlacement, OsdDump, OsdOp, Payload, PlacementError, Target, kind,
    placement,
};
use serde::Serialize;

use super::caller::{CLIENT, Caller, What};
use super::monitor::Monitor;
use super::{cause, now};
use crate::report::SCHEMA;

/// How long an OSD may be silent before the map is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Largest object: more than an OSD takes in one write (Ceph: `osd_max_write_size`, 90 MiB).
const OBJECT_LEN_MAX: usize = 90 << 20;
/// The command that explains what is wrong in a cluster.
const HEALTH: &str = r#"command '{"prefix":"health","detail":"detail"}'"#;
// Linux's numbers are the protocol's.
const ENOENT: i32 = -2;
const ENXIO: i32 = -6;
const EAGAIN: i32 = -11;
const ENOSPC: i32 = -28;
const ESTALE: i32 = -116;
const EDQUOT: i32 = -122;

/// Reads a file that fits an object.
pub(crate) fn read_file(path: &Path) -> Result<Bytes> {
    let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        content.len() <= OBJECT_LEN_MAX,
        "{} has {} bytes, an object has {OBJECT_LEN_MAX} at most; cut it: split --bytes=64M {}",
        path.display(),
        content.len(),
        path.display()
    );
    Ok(content.into())
}

/// Objects of a cluster.
#[derive(Debug)]
pub(crate) struct Objects {
    monitor: Monitor,
    caller: Caller,
    deadline: Instant,
    /// The name of the next request; the OSDs keep those of the past.
    client: EntityName,
    tid: u64,
}

/// What became of a request.
#[derive(Debug, Serialize)]
pub(crate) struct Done {
    schema: u32,
    what: &'static str,
    pool: String,
    object: String,
    bytes: usize,
    pg: String,
    osd: i32,
    epoch: u32,
    /// Version of the object that users see.
    version: u64,
    /// Times that the request was sent.
    requests: i32,
    elapsed_s: f64,
}

impl Done {
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
        } else {
            writeln!(
                out,
                "{} {}/{}: {} bytes, version {}, placement group {} on osd.{}, {:.1} ms",
                self.what,
                self.pool,
                self.object,
                self.bytes,
                self.version,
                self.pg,
                self.osd,
                self.elapsed_s * 1e3
            )?;
        }
        Ok(())
    }
}

impl Objects {
    pub(crate) fn new(monitor: Monitor, deadline: Instant) -> Result<Self> {
        let caller = monitor.caller().beside(CLIENT)?;
        let random = || getrandom::u64().context("the system gives no random numbers");
        let number = i64::try_from(random()? >> 1).expect("63 bits");
        let client = EntityName::new(EntityType::Client, number);
        Ok(Self { monitor, caller, deadline, client, tid: random()? >> 1 })
    }

    /// Replaces the object's content.
    pub(crate) fn put(&mut self, pool: &str, object: &str, content: Bytes) -> Result<Done> {
        let len = content.len();
        let (_, done) = self.request("put", pool, object, &OsdOp::WriteFull(content))?;
        Ok(Done { bytes: len, ..done })
    }

    /// The object's content.
    pub(crate) fn get(&mut self, pool: &str, object: &str) -> Result<(Bytes, Done)> {
        self.request("get", pool, object, &OsdOp::Read { offset: 0, length: 0 })
    }

    fn request(
        &mut self,
        what: &'static str,
        pool: &str,
        object: &str,
        op: &OsdOp,
    ) -> Result<(Bytes, Done)> {
        let started = Instant::now();
        self.tid += 1;
        let mut requests = 0;
        let (reply, target) = loop {
            let target = self.place(pool, object)?;
            let message = MOSDOp {
                retries: requests,
                ..MOSDOp::new(target.pg, target.epoch, self.client, self.tid, object, op.clone())
            };
            let osd = self.caller.dial(EntityType::Osd, &target.addrs)?;
            let message = message.with_mtime(now()).to_message().with_tid(self.tid);
            osd.send_message(message)
                .map_err(|error| anyhow!("cannot send to osd.{}: {error}", target.osd))?;
            requests += 1;
            let reply = self.reply(&osd, &target, pool, object)?;
            osd.mark_down();
            match reply {
                Some(reply) if !is_misplaced(reply.result) => break (reply, target),
                _ => self.pause()?, // the next map tells more
            }
        };
        if reply.result < 0 {
            return Err(self.failure(what, pool, object, reply.result));
        }
        let done = Done {
            schema: SCHEMA,
            what,
            pool: pool.to_owned(),
            object: object.to_owned(),
            bytes: reply.data.len(),
            pg: target.pg.to_string(),
            osd: target.osd,
            epoch: reply.epoch,
            version: reply.user_version,
            requests,
            elapsed_s: started.elapsed().as_secs_f64(),
        };
        Ok((reply.data, done))
    }

    /// Whom to ask, once somebody serves the object's placement group.
    fn place(&mut self, pool: &str, object: &str) -> Result<Target> {
        loop {
            let unplaced = match self.place_now(pool, object)? {
                Ok(target) => return Ok(target),
                Err(unplaced) => unplaced,
            };
            if Instant::now() + LOOK_EVERY >= self.deadline {
                let osd = match unplaced {
                    PlacementError::NotUp { osd, .. } => format!("ceph-osd@{osd}"),
                    _ => "ceph-osd.target".to_owned(),
                };
                return Err(Error::new(unplaced).context(format!(
                    "nobody serves {pool}/{object}; start the OSD on its host: systemctl start {osd}"
                )));
            }
            self.pause()?;
        }
    }

    /// The same by the present map; the inner error passes when an OSD comes up.
    fn place_now(&mut self, pool: &str, object: &str) -> Result<Result<Target, PlacementError>> {
        let ask = placement::osd_map(pool, object);
        let ack = self.monitor.run(&ask, self.deadline)?;
        match ack.result {
            ENOENT => bail!(
                "there is no pool {pool:?}; make it: msgr ceph --mon {} command \
                 '{{\"prefix\":\"osd pool create\",\"pool\":{pool:?}}}'",
                self.monitor.at()
            ),
            result if result < 0 => return Err(self.monitor.refusal(&ask, &ack)),
            _ => {}
        }
        let place = ObjectPlacement::parse(&ack.output)?;
        let dump = self.monitor.output(&placement::osd_dump(), self.deadline)?;
        Ok(place.target(&OsdDump::parse(&dump)?))
    }

    /// The reply; `None` if somebody else should be asked, or the same OSD again.
    fn reply(
        &mut self,
        osd: &Connection,
        target: &Target,
        pool: &str,
        object: &str,
    ) -> Result<Option<MOSDOpReply>> {
        loop {
            let until = self.deadline.min(Instant::now() + LOOK_EVERY);
            let look_again = match self.caller.next(until) {
                Some(news) if news.connection != *osd => false,
                Some(news) => match news.what {
                    What::Over => return Ok(None),
                    What::Message(message) if message.header.kind == kind::OSD_OP_REPLY => {
                        if message.header.tid == self.tid {
                            let reply = MOSDOpReply::from_message(&message);
                            let broken = || format!("osd.{} sent a broken reply", target.osd);
                            return reply.map(Some).with_context(broken);
                        }
                        false
                    }
                    // It knows a newer map, and may have dropped what is not its business.
                    What::Message(message) => message.header.kind == kind::OSD_MAP,
                    What::Ready | What::Refused => false,
                },
                None => true,
            };
            if Instant::now() >= self.deadline {
                bail!(
                    "osd.{} does not answer for placement group {}; this says why: msgr ceph --mon \
                     {} {HEALTH}",
                    target.osd,
                    target.pg,
                    self.monitor.at()
                );
            }
            if look_again {
                match self.place_now(pool, object)? {
                    Ok(now) if now.osd == target.osd && now.addrs == target.addrs => {}
                    _ => return Ok(None),
                }
            }
        }
    }

    /// Lets the cluster change its mind.
    fn pause(&self) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(
            !left.is_zero(),
            "the cluster does not settle; this says why: msgr ceph --mon {} {HEALTH}",
            self.monitor.at()
        );
        std::thread::sleep(left.min(LOOK_EVERY));
        Ok(())
    }

    fn failure(&self, what: &str, pool: &str, object: &str, result: i32) -> Error {
        let mon = self.monitor.at();
        let cause = cause(result);
        match result {
            ENOENT => anyhow!(
                "there is no object {object:?} in pool {pool:?}; store it: msgr ceph --mon {mon} \
                 put {pool} {object} FILE"
            ),
            ENOSPC | EDQUOT => anyhow!(
                "no room for {pool}/{object}: {cause}; this says where: msgr ceph --mon {mon} \
                 {HEALTH}"
            ),
            _ => anyhow!(
                "cannot {what} {pool}/{object}: {cause}; this may say why: msgr ceph --mon {mon} \
                 {HEALTH}"
            ),
        }
    }
}

/// Whether an OSD answered that it is not the one to ask, now.
fn is_misplaced(result: i32) -> bool {
    matches!(result, EAGAIN | ENXIO | ESTALE)
}
