//! Who plays: the hosts of a world, and how each treats each other.

use messenger::{EntityName, EntityType, Policy};
use netstack::device::sim::Spread;

/// One host of a cast.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// What its messenger is.
    pub kind: EntityType,
    /// Workers it has, each with a queue of its NIC.
    pub queues: u16,
    /// Which queue a frame arrives on.
    pub spread: Spread,
}

/// The hosts of a world.
#[derive(Clone, Debug)]
pub struct Cast {
    /// In the order of their addresses.
    pub members: Vec<Member>,
    /// Peers use `lossless_peer_reuse`, else `lossless_peer`.
    pub reuse: bool,
    /// Stateless servers are of the registering sort.
    pub registered: bool,
}

impl Cast {
    /// Hosts with one worker each.
    pub fn of(kinds: &[EntityType]) -> Self {
        let member =
            |kind: &EntityType| Member { kind: *kind, queues: 1, spread: Spread::SameIndex };
        Self { members: kinds.iter().map(member).collect(), reuse: true, registered: false }
    }

    /// The name of one of them.
    pub fn name(&self, host: usize) -> EntityName {
        EntityName::new(self.members[host].kind, host as i64)
    }

    /// How a `me` treats a `peer`.
    pub fn policy(&self, me: EntityType, peer: EntityType) -> Policy {
        use EntityType::{Client, Mds};
        match (me, peer) {
            (Client, Mds) => Policy::lossless_client(),
            (Mds, Client) => Policy::stateful_server(),
            (Client, _) => Policy::lossy_client(),
            (_, Client) if self.registered => Policy::stateless_registered_server(),
            (_, Client) => Policy::stateless_server(),
            _ if self.reuse => Policy::lossless_peer_reuse(),
            _ => Policy::lossless_peer(),
        }
    }

    /// How one of them treats another.
    pub fn policy_between(&self, me: usize, peer: usize) -> Policy {
        self.policy(self.members[me].kind, self.members[peer].kind)
    }

    /// Whether they have anything to say to each other.
    pub fn are_acquainted(&self, one: usize, other: usize) -> bool {
        let is_client = |host: usize| self.members[host].kind == EntityType::Client;
        one != other && !(is_client(one) && is_client(other))
    }

    /// All pairs that have, in both directions.
    pub fn pairs(&self) -> Vec<(usize, usize)> {
        let hosts = 0..self.members.len();
        let all = hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to)));
        all.filter(|(from, to)| self.are_acquainted(*from, *to)).collect()
    }
}
