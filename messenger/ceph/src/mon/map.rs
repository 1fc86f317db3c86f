//! The map of monitors: who they are and where.
//!
//! ```text
//!   struct(v, 6) {
//!     uuid fsid, u32 epoch, utime changed, utime created,
//!     2 x struct(1,1) { u64 } features that monitors must have, that they may have
//!     map<text name, struct(5,1) { text name, addresses, u16 priority, u16 weight, map location }>
//!     list<text> ranks,
//!     u8 oldest release                                                      from version 7
//!     rules of elections, which concern monitors alone                       skipped
//!   }
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use messenger_proto::denc::{DecodeError, Reader, Writer};
use messenger_proto::v2::Utime;
use messenger_proto::{EntityAddrVec, addr::ADDRS_MAX};

use crate::fsid::Fsid;
use crate::items;
use crate::kind;
use crate::limits::{LOCATIONS_MAX, MON_MAP_LEN_MAX, MONITORS_MAX};
use crate::payload::Payload;

/// Version 9 is what Ceph 16 and 18 write. Older than 6 has not been written for years.
const KNOWN: u8 = 9;
/// What we write: it ends where clients stop to be interested, and they take it.
const WRITTEN: u8 = 6;
const FIRST_WITH_RELEASE: u8 = 7;
const INFO_VERSION: u8 = 5;
const FEATURES_VERSION: u8 = 1;

const _: () = assert!(WRITTEN < FIRST_WITH_RELEASE && FIRST_WITH_RELEASE <= KNOWN);
const _: () = assert!(ADDRS_MAX * 64 * MONITORS_MAX <= MON_MAP_LEN_MAX);

/// One monitor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonInfo {
    /// Its name.
    pub name: String,
    /// Where it answers; the nonces are 0.
    pub addrs: EntityAddrVec,
    /// Clients ask those of the lowest number first.
    pub priority: u16,
    /// Among equals, clients prefer higher weights.
    pub weight: u16,
    /// Where it stands, by type of place.
    pub location: BTreeMap<String, String>,
}

impl MonInfo {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (_, mut body) = reader.envelope(INFO_VERSION)?;
        let mut info = Self {
            name: items::name(&mut body)?,
            addrs: EntityAddrVec::decode(&mut body)?,
            ..Self::default()
        };
        // Older forms end earlier.
        if body.remaining() > 0 {
            info.priority = body.u16()?;
        }
        if body.remaining() > 0 {
            info.weight = body.u16()?;
        }
        if body.remaining() > 0 {
            info.location = items::text_map(&mut body, LOCATIONS_MAX)?;
        }
        Ok(info)
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.envelope(INFO_VERSION, 1, |body| {
            body.text(&self.name);
            self.addrs.encode(body);
            body.u16(self.priority);
            body.u16(self.weight);
            items::put_text_map(body, &self.location);
        });
    }
}

/// All monitors of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonMap {
    /// The cluster.
    pub fsid: Fsid,
    /// Rises with each change.
    pub epoch: u32,
    /// When it changed last.
    pub changed: Utime,
    /// When the cluster was made.
    pub created: Utime,
    /// Features that every monitor must have.
    pub persistent_features: u64,
    /// Features that are in use while all monitors have them.
    pub optional_features: u64,
    /// The monitors, by name.
    pub monitors: Vec<MonInfo>,
    /// Names by rank: a monitor's number is its place here.
    pub ranks: Vec<String>,
    /// Oldest release that may join: 16 is Pacific, 18 Reef. Read from version 7 on, never written.
    pub min_release: Option<u8>,
}

impl MonMap {
    /// The first map of a new cluster, in which monitors have the ranks of their order here.
    pub fn new(fsid: Fsid, created: Duration, monitors: Vec<MonInfo>) -> Self {
        let ranks = monitors.iter().map(|monitor| monitor.name.clone()).collect();
        let created = Utime::from(created);
        Self { fsid, epoch: 1, changed: created, created, monitors, ranks, ..Self::default() }
    }

    /// Reads a map of version 6 or newer.
    ///
    /// # Errors
    /// If it is broken, or needs a newer decoder than this one.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (version, mut body) = reader.envelope(KNOWN)?;
        if version < WRITTEN {
            let value = version.into();
            return Err(DecodeError::Invalid { field: "version of a map of monitors", value });
        }
        let body = &mut body;
        let mut map = Self {
            fsid: Fsid::decode(body)?,
            epoch: body.u32()?,
            changed: Utime::decode(body)?,
            created: Utime::decode(body)?,
            persistent_features: features(body)?,
            optional_features: features(body)?,
            ..Self::default()
        };
        for _ in 0..body.count(MONITORS_MAX)? {
            items::name(body)?; // the key, which is the name inside once more
            map.monitors.push(MonInfo::decode(body)?);
        }
        map.ranks = items::names(body, MONITORS_MAX)?;
        if version >= FIRST_WITH_RELEASE {
            map.min_release = Some(body.u8()?);
        }
        Ok(map)
    }

    /// Writes version 6: all but [`MonMap::min_release`].
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.envelope(WRITTEN, WRITTEN, |body| {
            self.fsid.encode(body);
            body.u32(self.epoch);
            self.changed.encode(body);
            self.created.encode(body);
            for features in [self.persistent_features, self.optional_features] {
                body.envelope(FEATURES_VERSION, FEATURES_VERSION, |body| body.u64(features));
            }
            let mut by_name: Vec<&MonInfo> = self.monitors.iter().collect();
            by_name.sort_by(|a, b| a.name.cmp(&b.name));
            body.len(by_name.len());
            for monitor in by_name {
                body.text(&monitor.name);
                monitor.encode(body);
            }
            items::put_texts(body, &self.ranks);
        });
    }

    /// The monitor of a rank.
    pub fn ranked(&self, rank: usize) -> Option<&MonInfo> {
        let name = self.ranks.get(rank)?;
        self.monitors.iter().find(|monitor| monitor.name == *name)
    }
}

fn features(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let (_, mut body) = reader.envelope(FEATURES_VERSION)?;
    body.u64()
}

/// The map of monitors; answers [`MMonGetMap`] and the subscription `monmap`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MMonMap {
    /// The map.
    pub map: MonMap,
}

impl Payload for MMonMap {
    const NAME: &'static str = "MMonMap";
    const KIND: u16 = kind::MON_MAP;

    fn decode(front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        let mut encoded = Reader::new(items::blob(front, MON_MAP_LEN_MAX)?);
        Ok(Self { map: MonMap::decode(&mut encoded)? })
    }

    fn encode(&self, front: &mut Writer<'_>) {
        let mut encoded = BytesMut::new();
        self.map.encode(&mut Writer::new(&mut encoded));
        front.blob(&encoded);
    }
}

/// Asks for the map of monitors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MMonGetMap;

impl Payload for MMonGetMap {
    const NAME: &'static str = "MMonGetMap";
    const KIND: u16 = kind::MON_GET_MAP;

    fn decode(_front: &mut Reader<'_>, _data: &Bytes) -> Result<Self, DecodeError> {
        Ok(Self)
    }

    fn encode(&self, _front: &mut Writer<'_>) {}
}
