//! How a session with one type of peer behaves: what a fault does, who dials, which budgets apply.

use std::sync::Arc;

use crate::entity::EntityType;
use crate::features;
use crate::throttle::Throttle;

/// Session rules for one type of peer (contracts P-1 to P-8). Copied into a session when it dials,
/// or when the peer's HELLO has told its type.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A fault of an established session ends it for good.
    pub lossy: bool,
    /// Never dials; waits for the peer.
    pub server: bool,
    /// With nothing to send, a fault parks the session instead of dialling again.
    pub standby: bool,
    /// Detects that the peer lost the session, and tells the user.
    pub resetcheck: bool,
    /// A new lossy client replaces an older connection of the same address.
    pub register_lossy_clients: bool,
    /// Feature bits we announce.
    pub features_supported: u64,
    /// Feature bits we insist on.
    pub features_required: u64,
    /// Budget for payload bytes of received messages that were not dropped yet.
    pub throttle_bytes: Option<Arc<Throttle>>,
    /// Budget for the number of such messages.
    pub throttle_messages: Option<Arc<Throttle>>,
}

impl Default for Policy {
    /// Ceph's default-constructed policy: lossless client with reset check.
    fn default() -> Self {
        Self {
            lossy: false,
            server: false,
            standby: false,
            resetcheck: true,
            register_lossy_clients: true,
            features_supported: features::SUPPORTED,
            features_required: features::REQUIRED,
            throttle_bytes: None,
            throttle_messages: None,
        }
    }
}

impl Policy {
    /// Keeps sessions of its clients across transports, e.g. a metadata server.
    pub fn stateful_server() -> Self {
        Self { server: true, standby: true, ..Self::default() }
    }

    /// Forgets clients with their transport, one connection per address, e.g. a monitor.
    pub fn stateless_registered_server() -> Self {
        Self { lossy: true, server: true, resetcheck: false, ..Self::default() }
    }

    /// Forgets clients with their transport, any number per address, e.g. an OSD.
    pub fn stateless_server() -> Self {
        Self { register_lossy_clients: false, ..Self::stateless_registered_server() }
    }

    /// Equal peers that rebuild lost sessions by themselves.
    pub fn lossless_peer() -> Self {
        Self { standby: true, resetcheck: false, ..Self::default() }
    }

    /// Equal peers that are told when the other one restarted, e.g. OSD to OSD.
    pub fn lossless_peer_reuse() -> Self {
        Self { standby: true, ..Self::default() }
    }

    /// A client that starts over after a fault, e.g. of monitors and OSDs.
    pub fn lossy_client() -> Self {
        Self { lossy: true, resetcheck: false, ..Self::default() }
    }

    /// A client whose messages arrive exactly once, e.g. of a metadata server.
    pub fn lossless_client() -> Self {
        Self::default()
    }
}

/// The policies of one messenger: a default, and exceptions by type of peer.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    default: Policy,
    by_type: Vec<(EntityType, Policy)>,
}

impl PolicySet {
    /// One policy for every peer.
    pub fn new(default: Policy) -> Self {
        Self { default, by_type: Vec::new() }
    }

    /// The policy towards peers of this type (contract M-23).
    pub fn get(&self, kind: EntityType) -> &Policy {
        let exception = self.by_type.iter().find(|(of, _)| *of == kind);
        exception.map_or(&self.default, |(_, policy)| policy)
    }

    /// Replaces the default.
    pub fn set_default(&mut self, policy: Policy) {
        self.default = policy;
    }

    /// Sets the policy towards one type.
    pub fn set(&mut self, kind: EntityType, policy: Policy) {
        *self.entry(kind) = policy;
    }

    /// Sets both budgets of one type, which gets its own entry if it had none (contract M-24).
    pub fn set_throttles(
        &mut self,
        kind: EntityType,
        bytes: Option<Arc<Throttle>>,
        messages: Option<Arc<Throttle>>,
    ) {
        let entry = self.entry(kind);
        entry.throttle_bytes = bytes;
        entry.throttle_messages = messages;
    }

    /// The budgets of all policies, each once.
    pub fn throttles(&self) -> Vec<&Arc<Throttle>> {
        let exceptions = self.by_type.iter().map(|(_, policy)| policy);
        let policies = std::iter::once(&self.default).chain(exceptions);
        let mut found: Vec<&Arc<Throttle>> = Vec::new();
        for throttle in policies.flat_map(|p| [&p.throttle_messages, &p.throttle_bytes]).flatten() {
            if !found.iter().any(|other| Arc::ptr_eq(other, throttle)) {
                found.push(throttle);
            }
        }
        found
    }

    fn entry(&mut self, kind: EntityType) -> &mut Policy {
        let found = self.by_type.iter().position(|(of, _)| *of == kind);
        let index = found.unwrap_or_else(|| {
            self.by_type.push((kind, self.default.clone()));
            self.by_type.len() - 1
        });
        &mut self.by_type[index].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_the_table_of_the_contract() {
        let row = |p: Policy| {
            [p.lossy, p.server, p.standby, p.resetcheck, p.register_lossy_clients].map(u8::from)
        };
        assert_eq!(row(Policy::default()), [0, 0, 0, 1, 1]);
        assert_eq!(row(Policy::stateful_server()), [0, 1, 1, 1, 1]);
        assert_eq!(row(Policy::stateless_registered_server()), [1, 1, 0, 0, 1]);
        assert_eq!(row(Policy::stateless_server()), [1, 1, 0, 0, 0]);
        assert_eq!(row(Policy::lossless_peer()), [0, 0, 1, 0, 1]);
        assert_eq!(row(Policy::lossless_peer_reuse()), [0, 0, 1, 1, 1]);
        assert_eq!(row(Policy::lossy_client()), [1, 0, 0, 0, 1]);
        assert_eq!(row(Policy::lossless_client()), [0, 0, 0, 1, 1]);
    }

    #[test]
    fn throttles_of_one_type_leave_the_default_alone() {
        let mut policies = PolicySet::new(Policy::lossy_client());
        let bytes = Throttle::new("bytes", 1);
        policies.set_throttles(EntityType::Osd, Some(Arc::clone(&bytes)), None);
        assert!(policies.get(EntityType::Osd).throttle_bytes.is_some());
        assert!(policies.get(EntityType::Osd).lossy);
        assert!(policies.get(EntityType::Mon).throttle_bytes.is_none());
        let messages = Throttle::new("messages", 1);
        policies.set_throttles(EntityType::Mds, Some(bytes), Some(messages));
        let names: Vec<_> = policies.throttles().iter().map(|throttle| throttle.name()).collect();
        assert_eq!(names, ["bytes", "messages"], "each once");
    }
}
