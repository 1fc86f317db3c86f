//! What a workload is made of.

use messenger::{Config, EntityType, Policy};
use std::time::Duration;

/// Who there is and what is done to them. [`Shape::stress`] and the like are Ceph's, in full size.
#[derive(Debug, Clone)]
pub struct Shape {
    pub servers: usize,
    pub clients: usize,
    pub server_policy: Policy,
    pub client_policy: Policy,
    pub server_config: Config,
    pub client_config: Config,
    pub client_type: EntityType,
    /// Connections made before the first operation.
    pub seed_connections: usize,
    pub operations: usize,
    pub mix: Mix,
    /// Bytes of a ping's data: from 32 up to this.
    pub data_max: usize,
    /// Pings without a pong, of all connections together.
    pub outstanding_max: usize,
    pub dispatching: Dispatching,
    /// How long everything may take to drain.
    pub drain: Duration,
}

/// In percent; what is left of a hundred are sends.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub connect: u64,
    pub drop: u64,
    pub sleep: u64,
}

/// How pings come to the application.
#[derive(Debug, Clone, Copy)]
pub enum Dispatching {
    /// On the worker.
    Fast,
    /// On the dispatch thread, which sleeps for this long with this probability in percent.
    Queued { percent: u64, sleep: Duration },
}

impl Shape {
    /// #17: lossless clients of servers that remember them.
    pub fn stress(config: Config) -> Self {
        Self {
            servers: 8,
            clients: 32,
            server_policy: Policy::stateful_server(),
            client_policy: Policy::lossless_client(),
            server_config: config.clone(),
            client_config: config,
            client_type: EntityType::Client,
            seed_connections: 100,
            operations: 5000,
            mix: Mix { connect: 9, drop: 10, sleep: 11 },
            data_max: 4 << 20,
            outstanding_max: 64,
            dispatching: Dispatching::Fast,
            drain: Duration::from_secs(300),
        }
    }

    /// #18: peers.
    pub fn stress_1(config: Config) -> Self {
        Self {
            servers: 16,
            seed_connections: 10,
            operations: 10_000,
            mix: Mix { connect: 19, drop: 20, sleep: 11 },
            ..Self::stress(config).between(Policy::lossless_peer_reuse())
        }
    }

    /// The same policy on both sides: nobody is a server.
    pub fn between(self, policy: Policy) -> Self {
        Self { server_policy: policy.clone(), client_policy: policy, ..self }
    }

    /// Whether both sides dial, so that clients need addresses.
    pub fn is_between_peers(&self) -> bool {
        !self.server_policy.server
    }

    /// Whether pings and pongs arrive exactly once, unless their connection is dropped.
    pub fn is_lossless(&self) -> bool {
        !self.server_policy.lossy
    }
}
