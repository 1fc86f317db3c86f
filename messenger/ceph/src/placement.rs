//! Where an object lives, without CRUSH: a monitor knows, and says so in JSON.
//!
//! ```text
//!   osd map POOL OBJECT   epoch, pool, placement group, which OSDs keep it     ObjectPlacement
//!   osd dump              all OSDs with all their addresses, all pools         OsdDump
//!   osd find ID           the public addresses of one OSD                      OsdFind
//! ```
//!
//! An object's primary OSD is dialled at its addresses, *nonce included*: it answers to nobody who
//! means a process that ran there before. [`ObjectPlacement::target`] puts the answers together.
//!
//! Fields that we do not use are skipped, so the answers may grow.

use messenger_proto::{EntityAddr, EntityAddrVec};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};

use crate::command::JsonCommand;
use crate::fsid::Fsid;
use crate::limits::JSON_LEN_MAX;
use crate::osd::PgId;

/// The command that asks where an object lives, or would.
pub fn osd_map(pool: &str, object: &str) -> JsonCommand {
    JsonCommand::new("osd map").with("pool", pool).with("object", object).json()
}

/// The command that asks for the whole map of OSDs.
pub fn osd_dump() -> JsonCommand {
    JsonCommand::new("osd dump").json()
}

/// The command that asks where one OSD is.
pub fn osd_find(osd: i32) -> JsonCommand {
    JsonCommand::new("osd find").with("id", osd).json()
}

/// Why an object's place is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The answer is too long.
    #[error("an answer of {len} bytes, at most {JSON_LEN_MAX} accepted")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The answer is not what was asked for.
    #[error("the monitor's answer")]
    Json(#[source] serde_json::Error),
    /// No OSD serves the placement group at present.
    #[error("no OSD serves placement group {pg}")]
    NoPrimary {
        /// The group.
        pg: PgId,
    },
    /// The dump, which may be older or newer, does not know the OSD, or knows that it is down.
    #[error("osd.{osd} is not up in epoch {epoch}")]
    NotUp {
        /// The OSD.
        osd: i32,
        /// Epoch of the dump.
        epoch: u32,
    },
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, PlacementError> {
    if json.len() > JSON_LEN_MAX {
        return Err(PlacementError::TooLong { len: json.len() });
    }
    serde_json::from_slice(json).map_err(PlacementError::Json)
}

/// The answer to [`osd_map`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ObjectPlacement {
    /// Epoch of the map it was computed from.
    pub epoch: u32,
    /// Name of the pool.
    pub pool: String,
    /// Number of the pool.
    pub pool_id: i64,
    /// Name of the object.
    #[serde(rename = "objname")]
    pub object: String,
    /// The pool with the object's whole hash.
    #[serde(rename = "raw_pgid", deserialize_with = "from_text")]
    pub raw_pg: PgId,
    /// The placement group, which requests name.
    #[serde(rename = "pgid", deserialize_with = "from_text")]
    pub pg: PgId,
    /// OSDs that should keep it.
    pub up: Vec<i32>,
    /// OSDs that keep it now.
    pub acting: Vec<i32>,
    /// The one of them that answers for all.
    #[serde(deserialize_with = "osd_or_none")]
    pub acting_primary: Option<i32>,
}

impl ObjectPlacement {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`PlacementError::TooLong`], [`PlacementError::Json`].
    pub fn parse(json: &[u8]) -> Result<Self, PlacementError> {
        parse(json)
    }

    /// Whom to ask for the object, at which addresses.
    ///
    /// # Errors
    /// [`PlacementError::NoPrimary`], [`PlacementError::NotUp`].
    pub fn target(&self, dump: &OsdDump) -> Result<Target, PlacementError> {
        let osd = self.acting_primary.ok_or(PlacementError::NoPrimary { pg: self.pg })?;
        let state = dump.up(osd).ok_or(PlacementError::NotUp { osd, epoch: dump.epoch })?;
        Ok(Target { epoch: self.epoch, pg: self.pg, osd, addrs: state.public_addrs.clone() })
    }
}

/// Whom to send requests for an object to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Epoch to put into requests.
    pub epoch: u32,
    /// Placement group to put into requests.
    pub pg: PgId,
    /// The OSD that answers for the group.
    pub osd: i32,
    /// Its addresses for clients.
    pub addrs: EntityAddrVec,
}

/// The answer to [`osd_dump`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OsdDump {
    /// Epoch of the map.
    pub epoch: u32,
    /// The cluster.
    #[serde(deserialize_with = "from_text")]
    pub fsid: Fsid,
    /// All pools.
    pub pools: Vec<Pool>,
    /// All OSDs, those that are down included.
    pub osds: Vec<OsdState>,
}

impl OsdDump {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`PlacementError::TooLong`], [`PlacementError::Json`].
    pub fn parse(json: &[u8]) -> Result<Self, PlacementError> {
        parse(json)
    }

    /// An OSD, if it is up.
    pub fn up(&self, osd: i32) -> Option<&OsdState> {
        self.osds.iter().find(|state| state.osd == osd && state.up)
    }

    /// A pool by its name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pool {
    /// Its number.
    #[serde(rename = "pool")]
    pub id: i64,
    /// Its name.
    #[serde(rename = "pool_name")]
    pub name: String,
    /// Placement groups it has.
    pub pg_num: u32,
}

/// One OSD.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OsdState {
    /// Its number.
    pub osd: i32,
    /// Whether it serves.
    #[serde(deserialize_with = "flag")]
    pub up: bool,
    /// Whether objects are placed on it.
    #[serde(rename = "in", deserialize_with = "flag")]
    pub is_in: bool,
    /// Epoch in which it came up.
    pub up_from: u32,
    /// Where clients find it. Nowhere, if it never ran.
    #[serde(deserialize_with = "addrs")]
    pub public_addrs: EntityAddrVec,
    /// Where other OSDs find it.
    #[serde(deserialize_with = "addrs")]
    pub cluster_addrs: EntityAddrVec,
    /// Where heartbeats of the clients' network find it.
    #[serde(rename = "heartbeat_front_addrs", deserialize_with = "addrs")]
    pub heartbeat_front: EntityAddrVec,
    /// Where heartbeats of the OSDs' network find it.
    #[serde(rename = "heartbeat_back_addrs", deserialize_with = "addrs")]
    pub heartbeat_back: EntityAddrVec,
}

/// The answer to [`osd_find`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OsdFind {
    /// Its number.
    pub osd: i32,
    /// Where clients find it, or found it when it last ran.
    #[serde(deserialize_with = "addrs")]
    pub addrs: EntityAddrVec,
    /// Its host, if it ever ran.
    #[serde(default)]
    pub host: Option<String>,
}

impl OsdFind {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`PlacementError::TooLong`], [`PlacementError::Json`].
    pub fn parse(json: &[u8]) -> Result<Self, PlacementError> {
        parse(json)
    }
}

/// Addresses as Ceph dumps them: `{"addrvec":[{"type":"v2","addr":"IP:PORT","nonce":N}]}`.
fn addrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EntityAddrVec, D::Error> {
    #[derive(Deserialize)]
    struct Dumped {
        addrvec: Vec<DumpedAddr>,
    }
    #[derive(Deserialize)]
    struct DumpedAddr {
        #[serde(rename = "type")]
        kind: String,
        addr: String,
        nonce: u32,
    }
    let dumped = Dumped::deserialize(deserializer)?;
    let real = dumped.addrvec.iter().filter(|addr| addr.kind != "none");
    let parse = |DumpedAddr { kind, addr, nonce }: &DumpedAddr| {
        format!("{kind}:{addr}/{nonce}").parse::<EntityAddr>().map_err(D::Error::custom)
    };
    real.map(parse).collect::<Result<_, _>>().map(EntityAddrVec)
}

/// A value with a text form.
fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// An OSD's number; -1 is none.
fn osd_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    Ok(Some(i32::deserialize(deserializer)?).filter(|osd| *osd >= 0))
}

/// A boolean dumped as a number.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(u8::deserialize(deserializer)? != 0)
}
