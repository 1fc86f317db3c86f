//! The neighbour table: who has which Ethernet address, and the frames that wait to know.
//!
//! ```text
//!    send, unknown          answered               3/4 of the lifetime
//!   ---------------> Unresolved ------> Reachable ---------------------> Aging
//!      ask all, retry,   |   ^              ^                              |
//!      frames wait       |   |              |  answered, or its traffic    | in use: ask it,
//!                        v   |              +------------------------------+ else just wait
//!                    forgotten                                             v
//!                 (told as unreachable)                               forgotten
//! ```
//!
//! ARP ([`arp`]) and neighbour discovery ([`nd`]) translate packets into three facts: a host spoke
//! to us ([`Neighbors::heard`] with an entry made for it), a host answered or announced itself
//! (`heard`, believed only if there is an entry), a known host's traffic arrived
//! ([`Neighbors::confirm`], which never changes an address).
//!
//! What strangers can do is bounded. Entries made because somebody spoke to us replace each other,
//! never one that is in use; at most [`UNRESOLVED_MAX`] hosts are asked for at a time; frames wait
//! in one queue of [`WAITING_MAX`]. All memory is reserved at the start.

use std::collections::VecDeque;
use std::time::Instant;

use smoltcp::wire::EthernetAddress;

use crate::front::address::mapped;
use crate::front::count::{Counts, Event};
use crate::front::{
    DropReason, Heard, NEIGHBORS_MAX, NeighborTimers, UNRESOLVED_MAX, WAITING_MAX,
    WAITING_PER_NEIGHBOR_MAX,
};

pub(crate) mod arp;
pub(crate) mod nd;
#[cfg(test)]
mod tests;

/// Slots of the table that remembers where an address was found last.
const HINTS: usize = 256;

const _: () = assert!(UNRESOLVED_MAX < NEIGHBORS_MAX, "so a full table has one to evict");
const _: () = assert!(NEIGHBORS_MAX <= u16::MAX as usize, "so an index fits a hint");
const _: () = assert!(WAITING_PER_NEIGHBOR_MAX <= WAITING_MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Everybody was asked so many times.
    Unresolved { asked: u8 },
    /// Confirmed within three quarters of the lifetime.
    Reachable,
    /// Still used, but to be confirmed; it was asked so many times.
    Aging { asked: u8 },
}

#[derive(Clone, Debug)]
struct Entry {
    ip: u128,
    mac: EthernetAddress,
    state: State,
    /// When the state ends by itself.
    deadline: Instant,
    /// When we last sent to it or, if we never did, when we last heard of it.
    touched: Instant,
    /// Whether we ever sent to it.
    wanted: bool,
    /// Its frames in the waiting queue.
    waiting: usize,
}

impl Entry {
    fn is_resolved(&self) -> bool {
        !matches!(self.state, State::Unresolved { .. })
    }

    fn in_use(&self, now: Instant, timers: &NeighborTimers) -> bool {
        self.wanted && now.saturating_duration_since(self.touched) < timers.lifetime
    }

    fn confirm(&mut self, now: Instant, timers: &NeighborTimers) {
        self.state = State::Reachable;
        self.deadline = now + timers.lifetime * 3 / 4;
    }
}

/// Whom to ask for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) ip: u128,
    /// The address it had, to ask it alone; `None`: ask everybody.
    pub(crate) mac: Option<EthernetAddress>,
}

/// The neighbours of one worker, and the frames that wait for them.
#[derive(Debug)]
pub(crate) struct Neighbors<F> {
    timers: NeighborTimers,
    /// Sorted by address.
    entries: Vec<Entry>,
    /// Where an address was found last; may be out of date, so it is compared before use.
    hints: [u16; HINTS],
    /// The frames of all unresolved neighbours, oldest first.
    waiting: VecDeque<(u128, F)>,
    /// Requests to be sent.
    asks: VecDeque<Ask>,
    /// Neighbours that did not answer and were not told yet.
    unreachable: VecDeque<u128>,
    /// Not after the earliest deadline.
    next: Option<Instant>,
    aging: usize,
}

impl<F> Neighbors<F> {
    pub(crate) fn new(timers: NeighborTimers) -> Self {
        Self {
            timers,
            entries: Vec::with_capacity(NEIGHBORS_MAX),
            hints: [0; HINTS],
            waiting: VecDeque::with_capacity(WAITING_MAX),
            asks: VecDeque::with_capacity(NEIGHBORS_MAX),
            unreachable: VecDeque::with_capacity(UNRESOLVED_MAX),
            next: None,
            aging: 0,
        }
    }

    /// The Ethernet address of `ip`, about to be sent to.
    pub(crate) fn resolve(&mut self, now: Instant, ip: u128) -> Option<EthernetAddress> {
        let index = self.find(ip)?;
        let entry = &mut self.entries[index];
        entry.touched = now;
        entry.wanted = true;
        entry.is_resolved().then_some(entry.mac)
    }

    /// Keeps `frame` until `ip` is resolved. Only the first one asks for `ip`, retries come from
    /// [`Neighbors::handle_timeout`].
    pub(crate) fn wait(&mut self, now: Instant, ip: u128, frame: F, counts: &mut Counts) {
        let index = match self.find(ip) {
            Some(index) => index,
            None => self.insert_wanted(now, ip, counts),
        };
        if self.entries[index].waiting == WAITING_PER_NEIGHBOR_MAX {
            self.drop_oldest(Some(ip), counts);
        } else if self.waiting.len() == WAITING_MAX {
            self.drop_oldest(None, counts);
        }
        self.entries[index].waiting += 1;
        self.waiting.push_back((ip, frame));
    }

    /// Takes one frame that waits for `ip`, the oldest first.
    pub(crate) fn take_waiting(&mut self, ip: u128) -> Option<F> {
        let index = self.find(ip)?;
        if self.entries[index].waiting == 0 {
            return None;
        }
        self.entries[index].waiting -= 1;
        let at = self.waiting.iter().position(|(to, _)| *to == ip)?;
        self.waiting.remove(at).map(|(_, frame)| frame)
    }

    /// A neighbour told its Ethernet address. An unknown one gets an entry only if it is worth
    /// one and there is room. Returns whether its address is known now.
    pub(crate) fn heard(&mut self, now: Instant, heard: &Heard, counts: &mut Counts) -> bool {
        let ip = mapped(heard.ip);
        let index = match self.find(ip) {
            Some(index) => index,
            None if !heard.worth_an_entry => {
                counts.event(Event::NeighborUnasked);
                return false;
            }
            None => match self.insert_heard(now, ip, heard.mac, counts) {
                Some(index) => index,
                None => return false,
            },
        };
        let entry = &mut self.entries[index];
        if entry.is_resolved() && entry.mac != heard.mac {
            if !heard.overrides {
                return true;
            }
            counts.event(Event::NeighborMoved);
        }
        if matches!(entry.state, State::Aging { .. }) {
            self.aging -= 1;
        }
        if !entry.wanted {
            entry.touched = now;
        }
        entry.mac = heard.mac;
        entry.confirm(now, &self.timers);
        let deadline = entry.deadline;
        self.wake_at(deadline);
        true
    }

    /// Whether traffic is worth [`Neighbors::confirm`].
    pub(crate) fn has_aging(&self) -> bool {
        self.aging > 0
    }

    /// Valid traffic of `ip` arrived from `mac`. If that is what we believed, it stays.
    pub(crate) fn confirm(&mut self, now: Instant, ip: u128, mac: EthernetAddress) {
        let Some(index) = self.find(ip) else { return };
        let entry = &mut self.entries[index];
        if matches!(entry.state, State::Aging { .. }) && entry.mac == mac {
            entry.confirm(now, &self.timers);
            self.aging -= 1;
        }
    }

    /// The next request to be sent. To be drained after every call that may make one.
    pub(crate) fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Retries and forgets what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, counts: &mut Counts) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let Self { timers, entries, waiting, asks, unreachable, next, aging, .. } = self;
        *next = None;
        entries.retain_mut(|entry| {
            let is_aging = matches!(entry.state, State::Aging { .. });
            let keep = entry.deadline > now || step(entry, now, timers, asks);
            *aging -= usize::from(is_aging);
            if keep {
                *aging += usize::from(matches!(entry.state, State::Aging { .. }));
                *next = Some(next.map_or(entry.deadline, |next| next.min(entry.deadline)));
            } else if !entry.is_resolved() {
                counts.event(Event::NeighborUnreachable);
                forget_waiting(waiting, entry, counts);
                if unreachable.len() == UNRESOLVED_MAX {
                    unreachable.pop_front();
                }
                unreachable.push_back(entry.ip);
            }
            keep
        });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// The next neighbour that did not answer.
    pub(crate) fn unreachable(&mut self) -> Option<u128> {
        self.unreachable.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// Entries, frames and requests there is room for without another allocation.
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> [usize; 4] {
        let Self { entries, waiting, asks, unreachable, .. } = self;
        [entries.capacity(), waiting.capacity(), asks.capacity(), unreachable.capacity()]
    }

    fn find(&mut self, ip: u128) -> Option<usize> {
        let hint = &mut self.hints[ip as usize % HINTS];
        if self.entries.get(usize::from(*hint)).is_some_and(|entry| entry.ip == ip) {
            return Some(usize::from(*hint));
        }
        let index = self.entries.binary_search_by_key(&ip, |entry| entry.ip).ok()?;
        *hint = index as u16; // less than NEIGHBORS_MAX
        Some(index)
    }

    /// Makes an entry for a neighbour we want to send to; there is always a way.
    fn insert_wanted(&mut self, now: Instant, ip: u128, counts: &mut Counts) -> usize {
        let unresolved = self.entries.iter().filter(|entry| !entry.is_resolved()).count();
        if unresolved == UNRESOLVED_MAX {
            self.evict(counts, |entry| (!entry.is_resolved()).then_some((false, entry.touched)));
        } else if self.entries.len() == NEIGHBORS_MAX {
            let timers = self.timers;
            self.evict(counts, |entry| {
                entry.is_resolved().then_some((entry.in_use(now, &timers), entry.touched))
            });
        }
        self.asks.push_back(Ask { ip, mac: None });
        self.insert(Entry {
            ip,
            mac: EthernetAddress::default(),
            state: State::Unresolved { asked: 1 },
            deadline: now + self.timers.retry,
            touched: now,
            wanted: true,
            waiting: 0,
        })
    }

    /// Makes an entry for a neighbour that spoke to us, unless all others are more important.
    fn insert_heard(
        &mut self,
        now: Instant,
        ip: u128,
        mac: EthernetAddress,
        counts: &mut Counts,
    ) -> Option<usize> {
        if self.entries.len() == NEIGHBORS_MAX {
            let timers = self.timers;
            let evicted = self.evict(counts, |entry| {
                let spare = entry.is_resolved() && !entry.in_use(now, &timers);
                spare.then_some((false, entry.touched))
            });
            if !evicted {
                counts.event(Event::NeighborRefused);
                return None;
            }
        }
        Some(self.insert(Entry {
            ip,
            mac,
            state: State::Reachable,
            deadline: now,
            touched: now,
            wanted: false,
            waiting: 0,
        }))
    }

    fn insert(&mut self, entry: Entry) -> usize {
        self.wake_at(entry.deadline);
        let index = self.entries.partition_point(|other| other.ip < entry.ip);
        self.entries.insert(index, entry);
        index
    }

    /// Removes the entry with the smallest rank, if any has one.
    fn evict(
        &mut self,
        counts: &mut Counts,
        rank: impl Fn(&Entry) -> Option<(bool, Instant)>,
    ) -> bool {
        let ranked = self.entries.iter().enumerate();
        let victim = ranked.filter_map(|(index, entry)| Some((rank(entry)?, index))).min();
        let Some((_, index)) = victim else {
            return false;
        };
        let entry = self.entries.remove(index);
        self.aging -= usize::from(matches!(entry.state, State::Aging { .. }));
        forget_waiting(&mut self.waiting, &entry, counts);
        counts.event(Event::NeighborEvicted);
        true
    }

    /// Drops the oldest frame that waits, for `ip` or for anybody.
    fn drop_oldest(&mut self, ip: Option<u128>, counts: &mut Counts) {
        let oldest = match ip.or_else(|| self.waiting.front().map(|(to, _)| *to)) {
            Some(ip) => self.take_waiting(ip),
            None => None,
        };
        debug_assert!(oldest.is_some(), "a full queue has an oldest frame");
        counts.drop(DropReason::WaitOverflow);
    }

    fn wake_at(&mut self, deadline: Instant) {
        self.next = Some(self.next.map_or(deadline, |next| next.min(deadline)));
    }
}

/// What an entry does at its deadline; false: it is forgotten.
fn step(
    entry: &mut Entry,
    now: Instant,
    timers: &NeighborTimers,
    asks: &mut VecDeque<Ask>,
) -> bool {
    entry.state = match entry.state {
        State::Unresolved { asked } if asked < timers.attempts => {
            asks.push_back(Ask { ip: entry.ip, mac: None });
            State::Unresolved { asked: asked + 1 }
        }
        State::Reachable if entry.in_use(now, timers) => State::Aging { asked: 0 },
        State::Reachable => {
            entry.deadline = now + timers.lifetime / 4;
            entry.state = State::Aging { asked: timers.attempts };
            return true;
        }
        State::Aging { asked } if asked < timers.attempts => {
            asks.push_back(Ask { ip: entry.ip, mac: Some(entry.mac) });
            State::Aging { asked: asked + 1 }
        }
        State::Unresolved { .. } | State::Aging { .. } => return false,
    };
    entry.deadline = now + timers.retry;
    true
}

/// Drops the frames that wait for `entry`.
fn forget_waiting<F>(waiting: &mut VecDeque<(u128, F)>, entry: &Entry, counts: &mut Counts) {
    if entry.waiting > 0 {
        waiting.retain(|(to, _)| *to != entry.ip);
        for _ in 0..entry.waiting {
            counts.drop(DropReason::WaitUnreachable);
        }
    }
}
