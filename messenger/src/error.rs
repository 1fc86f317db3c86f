//! What can go wrong with a messenger as a whole. Peers' faults are not here: they end a session.

use crate::config::{ConfigError, MsType};
use crate::connection::SendError;
use messenger_proto::{EntityAddr, EntityAddrVec, EntityType};
use netstack::stack::SocketError;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Why a call of a [`Messenger`](crate::Messenger) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The transport was left out of this program.
    #[error("{0} is not built in; build with the feature \"dpdk\"")]
    NotBuiltIn(MsType),
    /// The transport's workers could not be started.
    #[error("cannot start {ms_type}")]
    Transport {
        /// The transport.
        ms_type: MsType,
        /// What the machine said.
        source: io::Error,
    },
    /// A thread could not be made.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The operating system gave no random number.
    #[error("no random numbers")]
    Random(#[source] io::Error),
    /// An address cannot be bound.
    #[error("cannot bind {addr}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: SocketError,
    },
    /// Every port of the range is in use.
    #[error("no free port of {min} to {max} on {ip}")]
    NoFreePort {
        /// The IP address.
        ip: IpAddr,
        /// `ms_bind_port_min`.
        min: u16,
        /// `ms_bind_port_max`.
        max: u16,
    },
    /// The wire protocol of that type of address is not spoken here.
    #[error("{0} is an address of neither protocol spoken here, v1 and v2")]
    AddrType(EntityAddr),
    /// Public and local addresses do not pair up.
    #[error("there must be one public address for each local one")]
    PublicAddrs,
    /// Only before `start`.
    #[error("the messenger is started already")]
    Started,
    /// Only between `start` and `shutdown`.
    #[error("the messenger is not running")]
    NotRunning,
    /// None of the addresses can be dialled.
    #[error("{0} has no address that can be dialled")]
    NoAddress(EntityAddrVec),
    /// The policy towards such peers is to wait for them.
    #[error("the policy towards a {0} is to be its server, which never dials")]
    ServerPolicy(EntityType),
    /// The worker's inbox is full; try again.
    #[error("the worker has too many commands waiting")]
    Busy,
    /// `ms_type = "simple"` has no threads for one more connection; fewer may come and go.
    #[error("all {0} connections are in use")]
    TooManyConnections(usize),
    /// The worker ended because its transport failed; the log says why.
    #[error("the transport's workers have ended")]
    WorkersGone,
    /// The call waits for a thread and was made on that thread.
    #[error("{0} would wait for the thread that calls it")]
    OwnThread(&'static str),
    /// The message was not taken.
    #[error(transparent)]
    Send(Box<SendError>),
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        Self::Send(Box::new(error))
    }
}
