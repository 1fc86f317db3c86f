//! Messages between a monitor and everybody else.

mod auth;
mod command;
mod config;
mod map;
mod subscribe;
mod version;

pub use auth::{AUTH_RETRY, AuthClient, AuthErrand, AuthError, AuthServer, MAuth, MAuthReply};
pub use command::{MMonCommand, MMonCommandAck};
pub use config::MConfig;
pub use map::{MMonGetMap, MMonMap, MonInfo, MonMap};
pub use subscribe::{MMonSubscribe, MMonSubscribeAck, Subscription};
pub use version::{MMonGetVersion, MMonGetVersionReply};
