//! Which of the queued messages comes next: a pure rule, without threads or clocks.
//!
//! ```text
//!   strict band    64 and up    the highest priority first, always
//!   weighted band   63 ...  0   shares in proportion to the priority, so the lowest still progress
//!                 |
//!                 +-- inside one priority: classes (connections) take turns, one item each;
//!                     inside a class: first in, first out
//! ```
//!
//! Contracts Q-2 to Q-5. Per class and priority the order is kept; across priorities there is none.

use std::collections::{BTreeMap, HashMap, VecDeque};

/// Priorities from here up are strict: `CEPH_MSG_PRIO_LOW` (contract MSG-8).
pub(crate) const STRICT_FROM: u16 = 64;
/// The class of control items and local messages; connections count from 1.
pub(crate) const CONTROL_CLASS: u64 = 0;

/// Bounds of the weighted band's accounting, in cost units (bytes of data).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    /// No item costs less, `ms_pq_min_cost`.
    pub(crate) min_cost: u64,
    /// No item costs more and no priority saves up more, `ms_pq_max_tokens_per_priority`.
    pub(crate) max_tokens: u64,
}

impl Default for Weights {
    fn default() -> Self {
        Self { min_cost: 64 << 10, max_tokens: 16 << 20 }
    }
}

/// The classes of one priority, each with its own FIFO.
#[derive(Debug)]
struct Turns<T> {
    /// Classes that have items, next turn in front; each once.
    order: VecDeque<u64>,
    fifos: HashMap<u64, VecDeque<(u64, T)>>,
}

impl<T> Turns<T> {
    fn push(&mut self, class: u64, cost: u64, item: T) {
        let fifo = self.fifos.entry(class).or_default();
        if fifo.is_empty() {
            self.order.push_back(class);
        }
        fifo.push_back((cost, item));
    }

    fn front_cost(&self) -> Option<u64> {
        let fifo = self.fifos.get(self.order.front()?)?;
        fifo.front().map(|(cost, _)| *cost)
    }

    fn pop(&mut self) -> Option<(u64, T)> {
        let class = self.order.pop_front()?;
        let fifo = self.fifos.get_mut(&class)?;
        let item = fifo.pop_front();
        if fifo.is_empty() {
            self.fifos.remove(&class);
        } else {
            self.order.push_back(class);
        }
        item
    }

    fn discard(&mut self, class: u64, out: &mut Vec<T>) {
        if let Some(fifo) = self.fifos.remove(&class) {
            self.order.retain(|other| *other != class);
            out.extend(fifo.into_iter().map(|(_, item)| item));
        }
    }

    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn fronts(&self) -> impl Iterator<Item = &T> {
        let fronts = self.fifos.values().filter_map(VecDeque::front);
        fronts.map(|(_, item)| item)
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), fifos: HashMap::new() }
    }
}

/// One priority of the weighted band.
#[derive(Debug)]
struct Bucket<T> {
    turns: Turns<T>,
    tokens: u64,
}

impl<T> Default for Bucket<T> {
    fn default() -> Self {
        Self { turns: Turns::default(), tokens: 0 }
    }
}

/// The queue. See the [module](self) for its order.
#[derive(Debug)]
pub(crate) struct PriorityQueue<T> {
    strict: BTreeMap<u16, Turns<T>>,
    weighted: BTreeMap<u16, Bucket<T>>,
    weights: Weights,
}

impl<T> PriorityQueue<T> {
    pub(crate) fn new(weights: Weights) -> Self {
        Self { strict: BTreeMap::new(), weighted: BTreeMap::new(), weights }
    }

    /// Appends behind the items of the same class and priority. `cost` counts in the weighted band.
    pub(crate) fn push(&mut self, priority: u16, class: u64, cost: u64, item: T) {
        let Weights { min_cost, max_tokens } = self.weights;
        let cost = cost.max(min_cost).min(max_tokens);
        let turns = if priority >= STRICT_FROM {
            self.strict.entry(priority).or_default()
        } else {
            &mut self.weighted.entry(priority).or_default().turns
        };
        turns.push(class, cost, item);
    }

    /// Takes the next item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_strict().or_else(|| self.pop_weighted())
    }

    /// Takes out everything of one class.
    pub(crate) fn discard(&mut self, class: u64) -> Vec<T> {
        let mut out = Vec::new();
        self.strict.retain(|_, turns| {
            turns.discard(class, &mut out);
            !turns.is_empty()
        });
        self.weighted.retain(|_, bucket| {
            bucket.turns.discard(class, &mut out);
            !bucket.turns.is_empty()
        });
        out
    }

    /// The oldest item of every class and priority, in no order.
    pub(crate) fn fronts(&self) -> impl Iterator<Item = &T> {
        let weighted = self.weighted.values().map(|bucket| &bucket.turns);
        let turns = self.strict.values().chain(weighted);
        turns.flat_map(Turns::fronts)
    }

    fn pop_strict(&mut self) -> Option<T> {
        let mut highest = self.strict.last_entry()?;
        let (_, item) = highest.get_mut().pop()?;
        if highest.get().is_empty() {
            highest.remove();
        }
        Some(item)
    }

    /// The lowest priority that saved up enough for its front, else the highest.
    fn pop_weighted(&mut self) -> Option<T> {
        let affordable = self.weighted.iter().find(|(_, bucket)| {
            let cost = bucket.turns.front_cost();
            cost.is_some_and(|cost| cost < bucket.tokens)
        });
        let priority = match affordable {
            Some((priority, _)) => *priority,
            None => *self.weighted.last_key_value()?.0,
        };
        let bucket = self.weighted.get_mut(&priority)?;
        let (cost, item) = bucket.turns.pop()?;
        bucket.tokens = bucket.tokens.saturating_sub(cost);
        if bucket.turns.is_empty() {
            self.weighted.remove(&priority);
        }
        self.pay_out(cost);
        Some(item)
    }

    /// Gives every priority its share of what was just served.
    fn pay_out(&mut self, cost: u64) {
        let total = self.weighted.keys().map(|p| u64::from(*p)).sum::<u64>();
        for (priority, bucket) in &mut self.weighted {
            let share = (cost * u64::from(*priority)).checked_div(total);
            let tokens = bucket.tokens + share.unwrap_or(0) + 1;
            bucket.tokens = tokens.min(self.weights.max_tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn queue() -> PriorityQueue<u32> {
        PriorityQueue::new(Weights::default())
    }

    fn drain(queue: &mut PriorityQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn strict_priorities_come_first_and_highest_first() {
        let mut queue = queue();
        queue.push(63, 1, 0, 1);
        queue.push(64, 1, 0, 2);
        queue.push(255, 1, 0, 3);
        queue.push(127, 1, 0, 4);
        assert_eq!(drain(&mut queue), [3, 4, 2, 1]);
    }

    #[test]
    fn connections_take_turns_inside_a_priority() {
        let mut queue = queue();
        for item in 0..3 {
            queue.push(127, 1, 0, 10 + item);
        }
        queue.push(127, 2, 0, 20);
        queue.push(127, 3, 0, 30);
        queue.push(127, 2, 0, 21);
        assert_eq!(drain(&mut queue), [10, 20, 30, 11, 21, 12]);
    }

    #[test]
    fn control_items_precede_lower_priorities_and_take_turns_with_their_own() {
        let mut queue = queue();
        queue.push(196, 7, 0, 1);
        queue.push(255, 7, 0, 2);
        queue.push(255, CONTROL_CLASS, 0, 3);
        queue.push(255, CONTROL_CLASS, 0, 4);
        assert_eq!(drain(&mut queue), [2, 3, 4, 1]);
    }

    #[test]
    fn discard_takes_one_connection_out_of_every_priority() {
        let mut queue = queue();
        for (priority, class, item) in [(255, 0, 1), (127, 5, 2), (10, 5, 3), (10, 6, 4)] {
            queue.push(priority, class, 0, item);
        }
        assert_eq!(queue.discard(5), [2, 3]);
        assert_eq!(drain(&mut queue), [1, 4]);
        assert!(queue.discard(5).is_empty());
    }

    #[test]
    fn weighted_priorities_share_in_proportion() {
        let mut queue = queue();
        for item in 0..3000 {
            queue.push(10, 1, 1 << 20, 10_000 + item);
            queue.push(30, 2, 1 << 20, 30_000 + item);
        }
        let low = (0..2000).filter_map(|_| queue.pop()).filter(|item| *item < 30_000).count();
        assert!((400..=600).contains(&low), "a quarter expected, got {low}");
    }

    #[test]
    fn priority_zero_progresses_although_its_weight_is_nothing() {
        let mut queue = PriorityQueue::new(Weights { min_cost: 1, max_tokens: 100 });
        queue.push(0, 1, 1, 0);
        for item in 1..200 {
            queue.push(50, 2, 1, item);
        }
        let order = drain(&mut queue);
        let at = order.iter().position(|item| *item == 0).unwrap();
        assert!(at < 10, "served at {at}");
    }

    #[test]
    fn costs_are_clamped_so_no_sum_overflows() {
        let mut queue = queue();
        queue.push(63, 1, u64::MAX, 1);
        queue.push(1, 2, u64::MAX, 2);
        assert_eq!(drain(&mut queue).len(), 2);
    }

    #[test]
    fn fronts_show_the_oldest_of_every_class() {
        let mut queue = queue();
        queue.push(127, 1, 0, 3);
        queue.push(127, 1, 0, 4);
        queue.push(10, 2, 0, 1);
        assert_eq!(queue.fronts().min(), Some(&1));
        assert_eq!(queue.fronts().count(), 2);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push { priority: u16, class: u64, cost: u64 },
        Pop,
        Discard { class: u64 },
    }

    fn op() -> impl Strategy<Value = Op> {
        let push = (0..300_u16, 0..4_u64, 0..(1_u64 << 26));
        prop_oneof![
            6 => push.prop_map(|(priority, class, cost)| Op::Push { priority, class, cost }),
            5 => Just(Op::Pop),
            1 => (1..4_u64).prop_map(|class| Op::Discard { class }),
        ]
    }

    proptest! {
        /// Nothing is lost or doubled, each class and priority is a FIFO, and a strict item is
        /// only ever followed by what was lower or came later.
        #[test]
        fn any_sequence_keeps_the_rules(ops in proptest::collection::vec(op(), 0..400)) {
            let mut queue = PriorityQueue::new(Weights::default());
            let mut model: Vec<(u16, u64, u32)> = Vec::new();
            for (serial, op) in (0..).zip(ops) {
                match op {
                    Op::Push { priority, class, cost } => {
                        queue.push(priority, class, cost, (priority, class, serial));
                        model.push((priority, class, serial));
                    }
                    Op::Pop => match queue.pop() {
                        None => prop_assert!(model.is_empty()),
                        Some(got) => {
                            let (priority, class, _) = got;
                            let oldest = model.iter().find(|m| (m.0, m.1) == (priority, class));
                            prop_assert_eq!(oldest, Some(&got));
                            let highest = model.iter().map(|m| m.0).max().unwrap_or(0);
                            if highest >= STRICT_FROM {
                                prop_assert_eq!(priority, highest);
                            }
                            model.retain(|m| *m != got);
                        }
                    },
                    Op::Discard { class } => {
                        let gone = queue.discard(class).len();
                        let before = model.len();
                        model.retain(|m| m.1 != class);
                        prop_assert_eq!(gone, before - model.len());
                    }
                }
            }
            prop_assert_eq!(std::iter::from_fn(|| queue.pop()).count(), model.len());
        }

        /// Inside a strict priority no class waits for more than one item of each other class.
        #[test]
        fn turns_are_fair(counts in proptest::collection::vec(1..20_u32, 1..6)) {
            let mut queue = PriorityQueue::new(Weights::default());
            for (class, count) in (1_u64..).zip(&counts) {
                for _ in 0..*count {
                    queue.push(127, class, 0, class);
                }
            }
            let mut left = counts.clone();
            while left.iter().any(|count| *count > 0) {
                let waiting = left.iter().filter(|count| **count > 0).count();
                let mut round: Vec<_> = (0..waiting).filter_map(|_| queue.pop()).collect();
                round.iter().for_each(|class| left[*class as usize - 1] -= 1);
                round.sort_unstable();
                round.dedup();
                prop_assert_eq!(round.len(), waiting);
            }
            prop_assert_eq!(queue.pop(), None);
        }
    }
}
