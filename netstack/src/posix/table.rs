//! Slots that are used again, and generations that tell their uses apart.

use crate::stack::SocketId;

/// Entries by [`SocketId`]. A name dies with its entry: looking up an old one finds nothing.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Slot<T>>,
    /// Empty slots; the one emptied last is used first, its memory is still warm.
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    entry: Option<T>,
}

impl<T> Table<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// The name the next [`Table::insert`] will give.
    pub(super) fn next_id(&self) -> SocketId {
        match self.free.last() {
            Some(&slot) => SocketId { slot, generation: self.slots[slot as usize].generation },
            None => SocketId { slot: self.slots.len() as u32, generation: 0 },
        }
    }

    pub(super) fn insert(&mut self, entry: T) -> SocketId {
        let id = self.next_id();
        if self.free.pop().is_none() {
            self.slots.push(Slot { generation: 0, entry: None });
        }
        self.slots[id.slot as usize].entry = Some(entry);
        id
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&T> {
        let slot = self.slots.get(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.entry.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, id: SocketId) -> Option<T> {
        self.get(id)?;
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        slot.entry.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_under_another_name() {
        let mut table = Table::new();
        let first = table.insert('a');
        assert_eq!(table.next_id(), SocketId { slot: 1, generation: 0 });
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b');
        assert_eq!(second, SocketId { slot: first.slot, generation: 1 });
        assert_eq!(table.get(first), None);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&'b'));
    }

    #[test]
    fn unknown_names_find_nothing() {
        let mut table = Table::<u8>::new();
        let stranger = SocketId { slot: 7, generation: 0 };
        assert_eq!(table.get(stranger), None);
        assert_eq!(table.get_mut(stranger), None);
        assert_eq!(table.remove(stranger), None);
        assert_eq!(table.next_id(), SocketId { slot: 0, generation: 0 });
    }
}
