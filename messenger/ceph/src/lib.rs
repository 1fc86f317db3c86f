//! Ceph's messages, as far as it takes to talk to its monitors and OSDs: pure encoding and decoding
//! over [`messenger_proto::Message`].
//!
//! ```text
//!   payload      what all messages have in common: type number, versions, sections
//!   mon          the map of monitors, subscriptions, commands, logins, configuration
//!   osd          heartbeats, commands, writing and reading one object
//!   basic        MPing and MGenericMessage
//!   command      a monitor's command as one JSON object
//!   placement    where an object lives: asked of a monitor, read from its JSON
//!   hash         the hash that names an object's place
//!   fsid, stamp  the nouns
//!   limits       what a peer may make us allocate
//! ```
//!
//! Nothing here opens a socket or knows a connection. A message is made with
//! [`Payload::to_message`] and read with [`Payload::from_message`]:
//!
//! ```
//! use messenger_ceph::{Fsid, JsonCommand, MMonCommand, Payload};
//!
//! let fsid: Fsid = "3f04cebd-60a0-46cf-a196-ccb5f627f974".parse()?;
//! let ask = MMonCommand::new(fsid, &JsonCommand::new("fsid").json());
//! let message = ask.to_message().with_tid(7);
//! assert_eq!(MMonCommand::from_message(&message)?, ask);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Layouts are those of Ceph 16.2 and 18.2, which were compared with running daemons. Bytes of a
//! peer never make anything here panic; what is longer or newer than we know is an [`Error`] where
//! the format says that it matters, and skipped where it says that it does not.
//!
//! There is no CRUSH here. A monitor that is asked `osd map` computes the place of an object for
//! us, which takes a round trip and no map; see [`placement`].

#![forbid(unsafe_code)]

pub mod basic;
pub mod command;
mod error;
mod fsid;
pub mod hash;
mod items;
pub mod kind;
pub mod limits;
pub mod mon;
pub mod osd;
mod payload;
pub mod placement;
mod stamp;

pub use basic::{MGenericMessage, MPing};
pub use command::{JsonCommand, JsonCommandError};
pub use error::Error;
pub use fsid::{Fsid, ParseFsidError};
pub use mon::{
    AUTH_RETRY, AuthClient, AuthErrand, AuthError, AuthServer, MAuth, MAuthReply, MConfig,
    MMonCommand, MMonCommandAck, MMonGetMap, MMonGetVersion, MMonGetVersionReply, MMonMap,
    MMonSubscribe, MMonSubscribeAck, MonInfo, MonMap, Subscription,
};
pub use osd::{
    EVersion, MCommand, MCommandReply, MOSDOp, MOSDOpReply, MOSDPing, OpResult, OsdOp,
    ParsePgError, PgId, PingOp,
};
pub use payload::Payload;
pub use placement::{ObjectPlacement, OsdDump, OsdFind, OsdState, PlacementError, Pool, Target};
pub use stamp::Span;

pub use messenger_proto::v2::Utime;
