//! What names a flow, and the table that leads from a flow to what is done with its segments.
//!
//! ```text
//!   segment -> FlowKey (4-tuple) -> hash -> place ... place -> Target: a connection, or a
//!                                           `-- probed in order --'      TIME-WAIT record
//! ```

use std::fmt;
use std::hash::BuildHasher;
use std::net::{Ipv6Addr, SocketAddr};

use foldhash::quality::FixedState;

/// Addresses and ports of one connection; IPv4 addresses are held as v4-mapped IPv6 ones.
//
// Aligned as its ports need, not as 128-bit numbers would be: twelve bytes less in every connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, packed(4))]
pub struct FlowKey {
    /// Our address.
    pub local_ip: u128,
    /// The peer's address.
    pub remote_ip: u128,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl FlowKey {
    /// The flow between our `local` and the peer's `remote` address.
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local_ip: mapped(local),
            remote_ip: mapped(remote),
            local_port: local.port(),
            remote_port: remote.port(),
        }
    }

    /// Our address and port.
    pub fn local(&self) -> SocketAddr {
        unmapped(self.local_ip, self.local_port)
    }

    /// The peer's address and port.
    pub fn remote(&self) -> SocketAddr {
        unmapped(self.remote_ip, self.remote_port)
    }

    /// The same flow as the peer sees it.
    pub(crate) fn reversed(&self) -> Self {
        Self {
            local_ip: self.remote_ip,
            remote_ip: self.local_ip,
            local_port: self.remote_port,
            remote_port: self.local_port,
        }
    }
}

fn mapped(addr: SocketAddr) -> u128 {
    match addr {
        SocketAddr::V4(addr) => addr.ip().to_ipv6_mapped().to_bits(),
        SocketAddr::V6(addr) => addr.ip().to_bits(),
    }
}

fn unmapped(ip: u128, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from_bits(ip).to_canonical(), port)
}

/// What a flow's segments go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The connection in this slot.
    Conn(u32),
    /// The TIME-WAIT record in this slot.
    TimeWait(u32),
}

/// Marks a [`Target::TimeWait`] in a packed entry.
const TIME_WAIT_BIT: u32 = 1 << 31;

impl Target {
    /// Never 0, which marks a free place.
    fn pack(self) -> u64 {
        u64::from(match self {
            Self::Conn(slot) => slot,
            Self::TimeWait(slot) => slot | TIME_WAIT_BIT,
        }) + 1
    }

    fn unpack(packed: u64) -> Self {
        let value = (packed - 1) as u32;
        if value & TIME_WAIT_BIT == 0 {
            Self::Conn(value)
        } else {
            Self::TimeWait(value & !TIME_WAIT_BIT)
        }
    }
}

/// Hash and packed target. A packed target of 0 marks a free place.
type Place = [u64; 2];

const FREE: Place = [0, 0];

/// Flows to connections: an open-addressed table under a keyed hash.
///
/// It is made once, at least twice as large as it may ever get full, so it never grows on the
/// packet path; memory that was never written costs nothing. Removal shifts later entries back,
/// so there are no tombstones and churn does not slow it down. The key itself is kept by the
/// target, which a lookup has to touch anyway.
pub(crate) struct FlowTable {
    places: Vec<Place>,
    state: FixedState,
    len: usize,
}

impl FlowTable {
    /// A table for at most `flows_max` flows. Who does not know `seed` cannot find flows that
    /// fall on one place.
    pub(crate) fn new(flows_max: usize, seed: u64) -> Self {
        let places = vec![FREE; (flows_max * 2).next_power_of_two().max(16)];
        Self { places, state: FixedState::with_seed(seed), len: 0 }
    }

    /// How many flows there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The hash all other calls want.
    pub(crate) fn hash(&self, key: &FlowKey) -> u64 {
        self.state.hash_one(key)
    }

    /// The target most likely to be meant, read without following it: the second pass over a
    /// burst reads one place per segment, so the cache misses of a burst overlap.
    pub(crate) fn peek(&self, hash: u64) -> Option<Target> {
        let place = self.places[self.home(hash)];
        (place[0] == hash && place[1] != 0).then(|| Target::unpack(place[1]))
    }

    /// The target with this hash that `is_meant` says has the right key.
    pub(crate) fn find(&self, hash: u64, is_meant: impl Fn(Target) -> bool) -> Option<Target> {
        let mut at = self.home(hash);
        loop {
            let place = self.places[at];
            if place[1] == 0 {
                return None;
            }
            if place[0] == hash {
                let target = Target::unpack(place[1]);
                if is_meant(target) {
                    return Some(target);
                }
            }
            at = self.after(at);
        }
    }

    /// Adds a flow that is not there yet.
    ///
    /// # Panics
    /// If there are as many flows as the table was made for; the limits in front of it are lower.
    pub(crate) fn insert(&mut self, hash: u64, target: Target) {
        assert!(self.len * 2 < self.places.len(), "the flow table is larger than all its users");
        let mut at = self.home(hash);
        while self.places[at][1] != 0 {
            at = self.after(at);
        }
        self.places[at] = [hash, target.pack()];
        self.len += 1;
    }

    /// Lets the flow of `from` lead to `to`.
    pub(crate) fn replace(&mut self, hash: u64, from: Target, to: Target) {
        let at = self.position(hash, from);
        self.places[at] = [hash, to.pack()];
    }

    /// Removes the flow of `target`.
    pub(crate) fn remove(&mut self, hash: u64, target: Target) {
        let mut hole = self.position(hash, target);
        let mut at = hole;
        loop {
            at = self.after(at);
            let place = self.places[at];
            if place[1] == 0 {
                break;
            }
            // Moving it into the hole must not put it before its home.
            let to_hole = self.distance(self.home(place[0]), hole);
            let to_here = self.distance(self.home(place[0]), at);
            if to_hole < to_here {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = FREE;
        self.len -= 1;
    }

    fn position(&self, hash: u64, target: Target) -> usize {
        let wanted = [hash, target.pack()];
        let mut at = self.home(hash);
        while self.places[at] != wanted {
            assert!(self.places[at][1] != 0, "a flow is in the table as long as its target lives");
            at = self.after(at);
        }
        at
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.places.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.places.len() - 1)
    }
}

impl fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> FlowKey {
        let local = SocketAddr::from(([10, 0, 0, 1], 6800));
        FlowKey::new(local, SocketAddr::from(([10, 0, 0, 2], number)))
    }

    #[test]
    fn addresses_survive_the_way_into_a_key_and_back() {
        let v4 = SocketAddr::from(([10, 0, 0, 1], 6800));
        let v6 = SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 7], 3300));
        assert_eq!(FlowKey::new(v4, v4).local(), v4);
        assert_eq!(FlowKey::new(v6, v4).local(), v6);
        assert_eq!(FlowKey::new(v6, v4).remote(), v4);
    }

    #[test]
    fn targets_survive_packing() {
        for target in [Target::Conn(0), Target::TimeWait(0), Target::Conn(TIME_WAIT_BIT - 1)] {
            assert_ne!(target.pack(), 0);
            assert_eq!(Target::unpack(target.pack()), target);
        }
    }

    #[test]
    fn different_seeds_order_flows_differently() {
        let places = |seed| {
            let table = FlowTable::new(1 << 15, seed);
            (0..100).map(|n| table.home(table.hash(&key(n)))).collect::<Vec<_>>()
        };
        assert_eq!(places(1), places(1));
        assert_ne!(places(1), places(2));
    }

    proptest! {
        /// The table is small and hashes are few, so that chains are long, wrap and collide.
        #[test]
        fn agrees_with_a_sorted_map(
            steps in proptest::collection::vec((any::<bool>(), 0..16_u32, 0..40_u64), 1..400),
        ) {
            let mut table = FlowTable::new(16, 7);
            let mut model = BTreeMap::new();
            for (insert, slot, hash) in steps {
                if insert && model.len() < 15 && !model.contains_key(&slot) {
                    table.insert(hash, Target::Conn(slot));
                    model.insert(slot, hash);
                } else if let Some(hash) = model.remove(&slot) {
                    table.remove(hash, Target::Conn(slot));
                }
                prop_assert_eq!(table.len(), model.len());
                for (slot, hash) in &model {
                    let wanted = Target::Conn(*slot);
                    prop_assert_eq!(table.find(*hash, |target| target == wanted), Some(wanted));
                }
                prop_assert_eq!(table.find(hash, |_| false), None);
            }
        }
    }

    #[test]
    fn a_flow_can_change_its_target() {
        let mut table = FlowTable::new(4, 1);
        let hash = table.hash(&key(1));
        table.insert(hash, Target::Conn(3));
        assert_eq!(table.peek(hash), Some(Target::Conn(3)));
        table.replace(hash, Target::Conn(3), Target::TimeWait(9));
        assert_eq!(table.find(hash, |_| true), Some(Target::TimeWait(9)));
        assert_eq!(table.len(), 1);
    }
}
