//! A hashed timer wheel: setting and cancelling cost the same however many timers run.
//!
//! ```text
//!   tick 0    1    2   ...  now  ...              4095
//!      [ ]  [ ]  [ ]  ...  [*]  [ ]-id-id  [ ]-id  [ ]     one doubly linked list per tick
//! ```
//!
//! A timer is a small number (the slot of what it belongs to) with at most one deadline, kept in
//! the list `deadline % SLOTS`. Walking over a list takes what is due and leaves what is due in a
//! later round. Deadlines are ticks of [`TICK`] since the wheel's beginning; the wheel itself knows
//! no clock.

use std::time::Duration;

/// Length of one tick.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// A deadline that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// Lists in the wheel; timers further away than this many ticks are passed over once a round.
const SLOTS: usize = 4096;
/// No timer.
const NIL: u32 = u32::MAX;

const _: () = assert!(SLOTS.is_power_of_two());

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// [`NEVER`] if not set; else it is in the list of `deadline % SLOTS`.
    deadline: u64,
    next: u32,
    prev: u32,
}

const IDLE: Entry = Entry { deadline: NEVER, next: NIL, prev: NIL };

/// Timers by id.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Box<[u32]>,
    /// Grows to the largest id that was ever set.
    entries: Vec<Entry>,
    /// The next tick to be walked over.
    tick: u64,
    /// Where the walk over `tick`'s list was interrupted; [`NIL`]: it has not begun.
    cursor: u32,
    len: usize,
}

impl Wheel {
    /// A wheel without timers at tick 0, for ids below `ids_max` or not many more.
    pub(crate) fn new(ids_max: usize) -> Self {
        Self {
            heads: vec![NIL; SLOTS].into_boxed_slice(),
            entries: Vec::with_capacity(ids_max),
            tick: 0,
            cursor: NIL,
            len: 0,
        }
    }

    /// How many timers are set.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The earliest deadline. Walks over all timers, so it is for drivers of a virtual clock.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let set = self.entries.iter().map(|entry| entry.deadline).filter(|tick| *tick != NEVER);
        set.min()
    }

    /// Sets the deadline of `id` to `deadline`, or to the next tick if that has passed.
    pub(crate) fn set(&mut self, id: u32, deadline: u64) {
        self.cancel(id);
        let index = id as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, IDLE);
        }
        // A list that is being walked over is for the next round.
        let earliest = self.tick + u64::from(self.cursor != NIL);
        let deadline = deadline.clamp(earliest, NEVER - 1);
        let head = &mut self.heads[slot_of(deadline)];
        let next = std::mem::replace(head, id);
        self.entries[index] = Entry { deadline, next, prev: NIL };
        if next != NIL {
            self.entries[next as usize].prev = id;
        }
        self.len += 1;
    }

    /// Forgets the deadline of `id`, if there is one.
    pub(crate) fn cancel(&mut self, id: u32) {
        let Some(&Entry { deadline, next, prev }) = self.entries.get(id as usize) else {
            return;
        };
        if deadline == NEVER {
            return;
        }
        if prev == NIL {
            self.heads[slot_of(deadline)] = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next != NIL {
            self.entries[next as usize].prev = prev;
        }
        if self.cursor == id {
            self.end_or_resume_at(next);
        }
        self.entries[id as usize] = IDLE;
        self.len -= 1;
    }

    /// Moves the wheel on to tick `now` and appends the ids whose deadline is not after it to
    /// `due`; their deadlines are forgotten. Looks at no more than `budget` timers: what is left
    /// comes with the next call.
    pub(crate) fn expire(&mut self, now: u64, budget: usize, due: &mut Vec<u32>) {
        if now.saturating_sub(self.tick) > SLOTS as u64 {
            // After a long pause one round finds everything.
            self.tick = now - SLOTS as u64 + 1;
            self.cursor = NIL;
        }
        let mut budget = budget;
        while self.tick <= now {
            if self.cursor == NIL {
                self.cursor = self.heads[slot_of(self.tick)];
            }
            while self.cursor != NIL {
                if budget == 0 {
                    return;
                }
                budget -= 1;
                let id = self.cursor;
                let Entry { deadline, next, .. } = self.entries[id as usize];
                self.cursor = next;
                if deadline <= now {
                    self.cancel(id);
                    due.push(id);
                }
            }
            self.tick += 1;
        }
    }

    /// The timer under the cursor went away; the walk goes on behind it.
    fn end_or_resume_at(&mut self, next: u32) {
        self.cursor = next;
        if next == NIL {
            self.tick += 1;
        }
    }
}

fn slot_of(deadline: u64) -> usize {
    deadline as usize & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u32, u64),
        Cancel(u32),
        Advance(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..40_u32, 0..12_000_u64).prop_map(|(id, ahead)| Step::Set(id, ahead)),
            1 => (0..40_u32).prop_map(Step::Cancel),
            3 => (0..300_u64, 0..6_usize).prop_map(|(ticks, budget)| Step::Advance(ticks, budget)),
            1 => (0..20_000_u64, Just(1000)).prop_map(|(ticks, b)| Step::Advance(ticks, b)),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(steps in proptest::collection::vec(step(), 1..300)) {
            let mut wheel = Wheel::new(0);
            let mut model = BTreeMap::new();
            let mut now = 0;
            let mut due = Vec::new();
            for step in steps {
                match step {
                    Step::Set(id, ahead) => {
                        wheel.set(id, now + ahead);
                        model.insert(id, now + ahead);
                    }
                    Step::Cancel(id) => {
                        wheel.cancel(id);
                        model.remove(&id);
                    }
                    Step::Advance(ticks, budget) => {
                        now += ticks;
                        due.clear();
                        wheel.expire(now, budget, &mut due);
                        prop_assert!(due.len() <= budget);
                        for id in &due {
                            let deadline = model.remove(id);
                            prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert!(wheel.next_deadline() >= model.values().min().copied());
            }
            // Whatever is overdue comes within two more ticks, given the budget.
            now += 2;
            due.clear();
            wheel.expire(now, 1000, &mut due);
            wheel.expire(now, 1000, &mut due);
            for id in due {
                prop_assert!(model.remove(&id).is_some());
            }
            prop_assert!(model.values().all(|deadline| *deadline >= now - 1), "{model:?} at {now}");
        }
    }

    #[test]
    fn a_timer_is_never_early_and_at_most_one_tick_late() {
        let mut wheel = Wheel::new(8);
        let mut due = Vec::new();
        wheel.set(3, 10_000);
        for now in 0..10_000 {
            wheel.expire(now, 100, &mut due);
            assert_eq!(due, [], "at {now}");
        }
        wheel.expire(10_000, 100, &mut due);
        assert_eq!(due, [3]);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn a_deadline_in_the_past_comes_with_the_next_tick() {
        let mut wheel = Wheel::new(8);
        let mut due = Vec::new();
        wheel.expire(500, 100, &mut due);
        wheel.set(1, 20);
        wheel.expire(501, 100, &mut due);
        assert_eq!(due, [1]);
    }

    #[test]
    fn a_pause_longer_than_a_round_loses_nothing() {
        let mut wheel = Wheel::new(8);
        let mut due = Vec::new();
        for id in 0..8 {
            wheel.set(id, u64::from(id) * 3000);
        }
        wheel.expire(1_000_000_000, 100, &mut due);
        due.sort_unstable();
        assert_eq!(due, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
