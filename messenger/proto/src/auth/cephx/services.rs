//! Which services somebody wants tickets of.

use crate::entity::EntityType;

/// A set of services, on the wire the sum of their types' numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Services(u32);

impl Services {
    /// No service.
    pub const NONE: Self = Self(0);
    /// Everything there are tickets for: auth, mon, mds, osd and mgr.
    pub const ALL: Self = Self(0x37);

    /// The set of one service; clients are none.
    pub const fn only(service: EntityType) -> Self {
        Self(service as u32 & Self::ALL.0)
    }

    /// The services of both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The services of this set that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a service is in the set.
    pub const fn contains(self, service: EntityType) -> bool {
        self.0 & Self::only(service).0 != 0
    }

    /// The services, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = EntityType> {
        EntityType::ALL.into_iter().filter(move |service| self.contains(*service))
    }

    /// The mask on the wire.
    pub const fn to_wire(self) -> u32 {
        self.0
    }

    /// What of a mask we know.
    pub const fn from_wire(mask: u32) -> Self {
        Self(mask & Self::ALL.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_a_set() {
        use EntityType::{Auth, Client, Mds, Mgr, Mon, Osd};
        assert!(Services::ALL.iter().eq([Mon, Mds, Osd, Mgr, Auth]));
        assert_eq!(Services::from_wire(u32::MAX), Services::ALL);
        assert!(Services::only(Client).is_empty());
        let without = Services::ALL.without(Services::only(Auth));
        assert_eq!((without.to_wire(), without.contains(Auth)), (0x17, false));
        assert_eq!(without.with(Services::only(Auth)), Services::ALL);
    }
}
