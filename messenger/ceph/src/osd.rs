//! Messages between an OSD and its clients, and among OSDs.

mod command;
mod op;
mod pg;
mod ping;
mod reply;

pub use command::{MCommand, MCommandReply};
pub use op::{MOSDOp, OsdOp};
pub use pg::{ParsePgError, PgId};
pub use ping::{MOSDPing, PingOp};
pub use reply::{EVersion, MOSDOpReply, OpResult};
