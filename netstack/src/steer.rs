//! Workers of one port bring each other the frames that arrived on the wrong queue.
//!
//! ```text
//!   queue 0 -> worker 0: not my flow --directory says: worker 1--> ring 1 -> worker 1
//!   queue 1 -> worker 1: ARP answer  ----------------------------> ring 0 -> worker 0
//! ```
//!
//! On a software device the sender picks the queue, and on hardware RSS may not work, so frames
//! of a flow can turn up anywhere. The worker whose queue got the SYN (or that dialled) owns the
//! flow until it ends and says so in the directory all workers share. The directory is looked at
//! only when a worker does not know the flow itself, so a well-behaved device never pays for it.
//!
//! Rings and directory are of fixed size, and nothing here locks or allocates. What was handed
//! over once is never handed on: if the owner does not know the flow either (it has just ended,
//! or two flows share a tag), the frame is answered like any stranger.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;
use foldhash::quality::FixedState;

use crate::flow::FlowKey;
use crate::front::{Heard, IcmpError, TcpView};

/// Most parcels that wait for one worker; further ones are dropped and counted.
pub(crate) const INBOX_MAX: usize = 1024;
/// Most workers that can share a port.
pub(crate) const WORKERS_MAX: usize = 64;

/// Slots in a bucket: one cache line.
const BUCKET_SLOTS: usize = 8;
/// The part of a slot that tells flows apart; the rest is the worker's number plus one.
const TAG: u64 = !0xff;
/// A slot without a flow.
const FREE: u64 = 0;

const _: () = assert!(WORKERS_MAX < !TAG as usize);

#[repr(align(64))]
struct Bucket([AtomicU64; BUCKET_SLOTS]);

/// Which worker owns which flow, for all workers of a port.
///
/// A flow may stand in one of two buckets. Two flows with the same 56-bit tag in the same bucket
/// would be taken for one; the worst that does is to refuse the second.
pub(crate) struct FlowDirectory {
    buckets: Box<[Bucket]>,
    state: FixedState,
}

/// What [`FlowDirectory::claim`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The flow is the asker's now, or was so before.
    Granted,
    /// The flow is this worker's.
    Owned(usize),
    /// Both of the flow's buckets are full.
    Full,
}

impl FlowDirectory {
    /// A directory for `flows_max` flows; a quarter full when it has them all.
    pub(crate) fn new(flows_max: usize, seed: u64) -> Self {
        let buckets = (flows_max * 4).div_ceil(BUCKET_SLOTS).next_power_of_two().max(2);
        let buckets = std::iter::repeat_with(|| Bucket(Default::default())).take(buckets);
        Self { buckets: buckets.collect(), state: FixedState::with_seed(seed) }
    }

    /// The worker that owns the flow.
    pub(crate) fn owner(&self, key: &FlowKey) -> Option<usize> {
        self.owner_by_hash(self.state.hash_one(key))
    }

    /// Makes the flow `worker`'s unless another has it.
    ///
    /// Two workers that claim a flow at the same time look for each other after having written;
    /// who sees the other gives way, so at most one is granted it.
    pub(crate) fn claim(&self, key: &FlowKey, worker: usize) -> Claim {
        let hash = self.state.hash_one(key);
        match self.owner_by_hash(hash) {
            Some(owner) if owner == worker => return Claim::Granted,
            Some(owner) => return Claim::Owned(owner),
            None => {}
        }
        let mine = slot_value(hash, worker);
        let Some(slot) = self.slots(hash).find(|slot| {
            slot.compare_exchange(FREE, mine, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        }) else {
            return Claim::Full;
        };
        let other = self
            .slots(hash)
            .map(|slot| slot.load(Ordering::SeqCst))
            .find(|value| *value & TAG == hash & TAG && *value != mine && *value != FREE);
        match other {
            None => Claim::Granted,
            Some(other) => {
                slot.store(FREE, Ordering::SeqCst);
                Claim::Owned(owner_of(other))
            }
        }
    }

    /// Ends `worker`'s ownership of the flow.
    pub(crate) fn release(&self, key: &FlowKey, worker: usize) {
        let hash = self.state.hash_one(key);
        let mine = slot_value(hash, worker);
        if let Some(slot) = self.slots(hash).find(|slot| slot.load(Ordering::Relaxed) == mine) {
            slot.store(FREE, Ordering::SeqCst);
        }
    }

    fn owner_by_hash(&self, hash: u64) -> Option<usize> {
        self.slots(hash)
            .map(|slot| slot.load(Ordering::SeqCst))
            .find(|value| *value != FREE && *value & TAG == hash & TAG)
            .map(owner_of)
    }

    /// The slots the flow may stand in, in the order they are filled.
    fn slots(&self, hash: u64) -> impl Iterator<Item = &AtomicU64> {
        let mask = self.buckets.len() - 1;
        let first = hash as usize & mask;
        let second = match hash.rotate_left(32) as usize & mask {
            same if same == first => first ^ 1,
            second => second,
        };
        [first, second].into_iter().flat_map(|bucket| &self.buckets[bucket].0)
    }
}

/// Never [`FREE`], because the worker's part is not 0.
fn slot_value(hash: u64, worker: usize) -> u64 {
    hash & TAG | (worker as u64 + 1)
}

fn owner_of(value: u64) -> usize {
    (value & !TAG) as usize - 1
}

impl fmt::Debug for FlowDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowDirectory")
            .field("buckets", &self.buckets.len())
            .finish_non_exhaustive()
    }
}

/// What one worker has for another.
#[derive(Debug)]
pub(crate) enum Parcel<F> {
    /// A segment of a flow the other owns.
    Segment(F, TcpView),
    /// A neighbour's address.
    Heard(Heard),
    /// An ICMP error about a flow the other owns.
    IcmpError(IcmpError),
}

/// One worker's share of the rings and the directory.
#[derive(Debug)]
pub(crate) struct Steer<F> {
    worker: usize,
    directory: Arc<FlowDirectory>,
    /// Ring `i` is emptied by worker `i` and filled by all others.
    rings: Arc<[ArrayQueue<Parcel<F>>]>,
}

impl<F> Steer<F> {
    /// The shares of `workers` workers with `flows_max` flows each.
    pub(crate) fn shares(workers: usize, flows_max: usize, seed: u64) -> Vec<Self> {
        let directory = Arc::new(FlowDirectory::new(flows_max * workers, seed));
        let rings: Arc<[_]> = (0..workers).map(|_| ArrayQueue::new(INBOX_MAX)).collect();
        let share = |worker| Self { worker, directory: directory.clone(), rings: rings.clone() };
        (0..workers).map(share).collect()
    }

    /// Another worker that owns the flow.
    pub(crate) fn other_owner(&self, key: &FlowKey) -> Option<usize> {
        self.directory.owner(key).filter(|owner| *owner != self.worker)
    }

    /// Makes the flow ours, see [`FlowDirectory::claim`].
    pub(crate) fn claim(&self, key: &FlowKey) -> Claim {
        self.directory.claim(key, self.worker)
    }

    /// Gives the flow up.
    pub(crate) fn release(&self, key: &FlowKey) {
        self.directory.release(key, self.worker);
    }

    /// Puts a parcel into `worker`'s ring.
    ///
    /// # Errors
    /// Gives it back if the ring is full.
    pub(crate) fn hand_over(&self, worker: usize, parcel: Parcel<F>) -> Result<(), Parcel<F>> {
        self.rings[worker].push(parcel)
    }

    /// Tells all siblings what was heard. A full ring is passed over: the sibling asks itself.
    pub(crate) fn tell(&self, heard: Heard) {
        for (worker, ring) in self.rings.iter().enumerate() {
            if worker != self.worker {
                let _ = ring.push(Parcel::Heard(heard));
            }
        }
    }

    /// Whether siblings have nothing for us.
    pub(crate) fn is_empty(&self) -> bool {
        self.rings[self.worker].is_empty()
    }

    /// The next parcel for us.
    pub(crate) fn take(&self) -> Option<Parcel<F>> {
        self.rings[self.worker].pop()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::front::IcmpErrorKind;

    fn key(number: u16) -> FlowKey {
        let local = SocketAddr::from(([10, 0, 0, 1], 6800));
        FlowKey::new(local, SocketAddr::from(([10, 0, 0, 2], number)))
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_map(
            steps in proptest::collection::vec((any::<bool>(), 0..64_u16, 0..3_usize), 1..500),
        ) {
            let directory = FlowDirectory::new(64, 9);
            let mut model = BTreeMap::new();
            for (claim, number, worker) in steps {
                if claim {
                    let expected = match model.get(&number) {
                        Some(owner) if *owner != worker => Claim::Owned(*owner),
                        _ => Claim::Granted,
                    };
                    prop_assert_eq!(directory.claim(&key(number), worker), expected);
                    model.entry(number).or_insert(worker);
                } else {
                    directory.release(&key(number), worker);
                    if model.get(&number) == Some(&worker) {
                        model.remove(&number);
                    }
                }
            }
            for number in 0..64 {
                prop_assert_eq!(directory.owner(&key(number)), model.get(&number).copied());
            }
        }
    }

    #[test]
    fn a_full_directory_refuses_and_recovers() {
        let directory = FlowDirectory::new(1, 9);
        let places = (directory.buckets.len() * BUCKET_SLOTS) as u16;
        let granted: Vec<_> =
            (0..1000).filter(|n| directory.claim(&key(*n), 0) == Claim::Granted).collect();
        assert_eq!(granted.len(), usize::from(places));
        for number in granted {
            directory.release(&key(number), 0);
        }
        assert_eq!(directory.claim(&key(1000), 1), Claim::Granted);
    }

    #[test]
    fn two_workers_that_race_for_flows_never_both_win() {
        const ROUNDS: u16 = 20_000;
        let directory = FlowDirectory::new(usize::from(ROUNDS), 9);
        let race = |worker| {
            let directory = &directory;
            move || {
                (0..ROUNDS)
                    .filter(|number| directory.claim(&key(*number), worker) == Claim::Granted)
                    .collect::<Vec<_>>()
            }
        };
        let (ours, theirs) = std::thread::scope(|scope| {
            let other = scope.spawn(race(1));
            (race(0)(), other.join().unwrap())
        });
        for number in &ours {
            assert_eq!(directory.owner(&key(*number)), Some(0));
        }
        for number in &theirs {
            assert_eq!(directory.owner(&key(*number)), Some(1));
        }
        assert!(ours.len() + theirs.len() <= usize::from(ROUNDS));
        assert!(ours.len() + theirs.len() > usize::from(ROUNDS) / 2);
    }

    #[test]
    fn a_full_ring_gives_the_parcel_back() {
        let shares = Steer::<()>::shares(2, 8, 1);
        let error = |seq| {
            let kind = IcmpErrorKind::PortUnreachable;
            Parcel::IcmpError(IcmpError { key: key(1), seq, kind })
        };
        for seq in 0..INBOX_MAX as u32 {
            shares[0].hand_over(1, error(seq)).unwrap();
        }
        assert!(shares[0].hand_over(1, error(0)).is_err());
        assert!(matches!(shares[1].take(), Some(Parcel::IcmpError(error)) if error.seq == 0));
        assert!(shares[0].hand_over(1, error(0)).is_ok());
        assert!(shares[0].take().is_none());
    }
}
