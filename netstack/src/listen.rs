//! Who listens where, and which connections wait for `accept`.
//!
//! ```text
//!   SYN --find--> listener --room?--> half open --ACK--> waiting --accept--> the application's
//!                    |         |                         |
//!                 none: RST    no: dropped in silence,   no: likewise
//!                              the peer tries again
//! ```
//!
//! Half-open and waiting connections count against one backlog. In a flood of SYNs, when that is
//! full of handshakes nobody completes, SYNs are answered with cookies, of which nothing is kept; who
//! comes back with one waits for `accept` at once. So there are at most twice as many connections
//! as the backlog allows.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::stack::SocketId;

/// Most listening sockets of a worker. They have the first slots of a worker's table.
pub(crate) const LISTENERS_MAX: usize = 64;

/// One listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The name of the socket.
    pub(crate) id: SocketId,
    /// Where it listens; the address may be unspecified.
    pub(crate) addr: SocketAddr,
    /// Most half-open and waiting connections.
    backlog: usize,
    /// Connections whose handshake is under way.
    pub(crate) half_open: usize,
    /// Slots of connections that wait for `accept`, oldest first.
    pub(crate) waiting: VecDeque<u32>,
    /// It is on the worker's list of sockets with something to tell.
    pub(crate) has_news: bool,
    flood: Flood,
}

/// Ticks in which a backlog has to move on: longer than most round trips, and a fraction of the
/// second after which a SYN is repeated.
const FLOOD_TICKS: u64 = 250;
/// Ticks without a look after which what was seen before means nothing.
const FLOOD_FORGET_TICKS: u64 = 2000;

/// Whether a backlog is full because many connect, or because nobody does.
#[derive(Debug, Default)]
struct Flood {
    is_on: bool,
    /// When it was last judged, and handshakes completed since.
    judged: Option<u64>,
    completed: usize,
}

impl Listener {
    /// Whether one more connection may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.half_open + self.waiting.len() < self.backlog
    }

    /// Whether one more connection may wait for `accept`.
    pub(crate) fn has_place(&self) -> bool {
        self.waiting.len() < self.backlog
    }

    /// A handshake is completed: the connection in `slot` waits for `accept`.
    pub(crate) fn completed(&mut self, slot: u32) {
        self.half_open -= 1;
        self.waiting.push_back(slot);
        self.flood.completed += 1;
    }

    /// Whether it is for a flood that there is no room at this tick: the backlog is half full of
    /// handshakes, and fewer than half as many have been completed in a while.
    pub(crate) fn is_flooded(&mut self, tick: u64) -> bool {
        let flood = &mut self.flood;
        let passed = flood.judged.map_or(u64::MAX, |judged| tick.saturating_sub(judged));
        if passed >= FLOOD_TICKS {
            flood.is_on = passed < FLOOD_FORGET_TICKS
                && self.half_open >= self.backlog.div_ceil(2)
                && flood.completed < self.half_open.div_ceil(2);
            flood.judged = Some(tick);
            flood.completed = 0;
        }
        flood.is_on
    }
}

/// The listening sockets of one worker.
#[derive(Debug, Default)]
pub(crate) struct ListenTable {
    by_addr: BTreeMap<SocketAddr, u32>,
    listeners: Vec<Option<Listener>>,
    generations: Vec<u32>,
}

impl ListenTable {
    /// Whether somebody listens exactly there.
    pub(crate) fn has(&self, addr: SocketAddr) -> bool {
        self.by_addr.contains_key(&addr)
    }

    /// Adds a listener where nobody listens yet; `None`: there are [`LISTENERS_MAX`].
    pub(crate) fn add(&mut self, addr: SocketAddr, backlog: usize) -> Option<SocketId> {
        let free = self.listeners.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.listeners.len());
        if slot == LISTENERS_MAX {
            return None;
        }
        if slot == self.listeners.len() {
            self.listeners.push(None);
            self.generations.push(0);
        }
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        let id = SocketId { slot: slot as u32, generation: self.generations[slot] };
        self.listeners[slot] = Some(Listener {
            id,
            addr,
            backlog,
            half_open: 0,
            waiting: VecDeque::new(),
            has_news: false,
            flood: Flood::default(),
        });
        self.by_addr.insert(addr, slot as u32);
        Some(id)
    }

    /// Takes a listener out.
    pub(crate) fn remove(&mut self, slot: u32) -> Listener {
        let listener = self.listeners[slot as usize].take().expect("its socket was open");
        self.by_addr.remove(&listener.addr);
        listener
    }

    /// The slot of the listener for a SYN to `local`: one on exactly that address, else one on
    /// all addresses of its family.
    pub(crate) fn find(&self, local: SocketAddr) -> Option<u32> {
        let any = match local.ip() {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let exact = self.by_addr.get(&local);
        exact.or_else(|| self.by_addr.get(&SocketAddr::new(any, local.port()))).copied()
    }

    /// The listener in a slot; `None` if it was closed.
    pub(crate) fn get(&self, slot: u32) -> Option<&Listener> {
        self.listeners.get(slot as usize)?.as_ref()
    }

    /// The listener in a slot; `None` if it was closed.
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Listener> {
        self.listeners.get_mut(slot as usize)?.as_mut()
    }

    /// Connections whose handshake is under way, at all listeners.
    pub(crate) fn half_open(&self) -> usize {
        self.listeners.iter().flatten().map(|listener| listener.half_open).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_exact_address_comes_before_all_addresses_of_the_family() {
        let mut table = ListenTable::default();
        let any4 = table.add(addr("0.0.0.0:80"), 1).unwrap();
        let any6 = table.add(addr("[::]:80"), 1).unwrap();
        let one = table.add(addr("10.0.0.1:80"), 1).unwrap();
        assert_eq!(table.find(addr("10.0.0.1:80")), Some(one.slot));
        assert_eq!(table.find(addr("10.0.0.2:80")), Some(any4.slot));
        assert_eq!(table.find(addr("[fd00::1]:80")), Some(any6.slot));
        assert_eq!(table.find(addr("10.0.0.1:81")), None);
    }

    #[test]
    fn a_slot_used_again_has_another_generation() {
        let mut table = ListenTable::default();
        let first = table.add(addr("0.0.0.0:80"), 1).unwrap();
        table.remove(first.slot);
        assert_eq!(table.find(addr("10.0.0.1:80")), None);
        let second = table.add(addr("0.0.0.0:81"), 1).unwrap();
        assert_eq!(first.slot, second.slot);
        assert_ne!(first, second);
    }

    #[test]
    fn a_flood_is_a_full_backlog_that_does_not_move_on() {
        let listener = |half_open, completes: usize| {
            let mut table = ListenTable::default();
            let id = table.add(addr("0.0.0.0:80"), 100).unwrap();
            let listener = table.get_mut(id.slot).unwrap();
            // A SYN a tick; handshakes come to an end, and as many begin.
            let seen = (0..10 * FLOOD_TICKS).filter(|tick| {
                listener.half_open = half_open;
                if tick % FLOOD_TICKS < completes as u64 {
                    listener.half_open += 1;
                    listener.completed(1);
                }
                listener.is_flooded(*tick)
            });
            let seen: Vec<_> = seen.collect();
            // Later, there was peace for long.
            assert!(!listener.is_flooded(10 * FLOOD_TICKS + FLOOD_FORGET_TICKS));
            (seen.first().copied(), seen.len() as u64)
        };
        let all_but_the_first = (Some(FLOOD_TICKS), 9 * FLOOD_TICKS);
        assert_eq!(listener(100, 0), all_but_the_first);
        assert_eq!(listener(60, 20), all_but_the_first);
        assert_eq!(listener(100, 50), (None, 0), "it moves on");
        assert_eq!(listener(49, 0), (None, 0), "it is full of connections that wait");
    }

    #[test]
    fn listeners_are_limited() {
        let mut table = ListenTable::default();
        for port in 1..=LISTENERS_MAX {
            assert!(table.add(SocketAddr::from(([0; 4], port as u16)), 1).is_some());
        }
        assert_eq!(table.add(addr("0.0.0.0:999"), 1), None);
    }
}
