//! Decides what leaves when, and records what comes back: the load generator without its I/O.
//!
//! ```text
//!   begin(now) -> poll_departure(now) -> the transport sends -> handle_reply(now, tid)
//!                      ^                                             |
//!                      +------ closed loop: room for the next -------+
//! ```
//!
//! Time is an argument. Nothing is allocated after [`Generator::new`], apart from what a refused
//! reply says. A message counts if it was due between the warm-up and the end of the run, whenever
//! its reply comes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::bench::load::{Arrivals, Kind, Load, Pace, SizeMix, UNDER_WAY_MAX};
use crate::bench::random::Random;
use crate::report::Latencies;

/// A send that leaves so much later than intended was late.
pub(crate) const LATE_AFTER: Duration = Duration::from_micros(100);
/// Messages an open loop may have under way in one generator.
const OPEN_UNDER_WAY: usize = 1 << 16;
const _: () = assert!(OPEN_UNDER_WAY <= UNDER_WAY_MAX);
/// Bits of a tid that name a slot; those above count how often the slot was used.
const SLOT_BITS: u32 = 24;
const _: () = assert!(UNDER_WAY_MAX <= 1 << SLOT_BITS);
/// Bits of a tid that a generator uses; those above are its owner's.
pub(crate) const TID_BITS: u32 = 56;
const _: () = assert!(TID_BITS - SLOT_BITS == u32::BITS);

/// One message to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Comes back with the reply.
    pub(crate) tid: u64,
    /// Which connection carries it.
    pub(crate) connection: usize,
    /// Bytes of its payload.
    pub(crate) size: usize,
}

/// Counts and times of one second, or of the whole run.
#[derive(Debug)]
pub(crate) struct Record {
    /// From the intended time to the reply; in a closed loop that is the time of sending.
    pub(crate) latencies: Latencies,
    /// From sending to the reply; open loop only.
    pub(crate) service: Latencies,
    /// Payload bytes of the messages that were answered or, in a stream, sent.
    pub(crate) bytes: u64,
    /// Messages sent.
    pub(crate) sent: u64,
    /// Of these, later than [`LATE_AFTER`].
    pub(crate) late: u64,
    /// The last reply that counts.
    pub(crate) last_reply: Option<Instant>,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self {
            latencies: Latencies::new(),
            service: Latencies::new(),
            bytes: 0,
            sent: 0,
            late: 0,
            last_reply: None,
        }
    }

    /// Adds what `other` has.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.service.add(&other.service);
        self.bytes += other.bytes;
        self.sent += other.sent;
        self.late += other.late;
        self.last_reply = self.last_reply.max(other.last_reply);
    }

    pub(crate) fn clear(&mut self) {
        self.latencies.clear();
        self.service.clear();
        (self.bytes, self.sent, self.late, self.last_reply) = (0, 0, 0, None);
    }
}

/// When the run begins to count and when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Instant,
}

/// One message under way, or room for one.
#[derive(Clone, Copy, Debug)]
struct Slot {
    turn: u32,
    under_way: bool,
    connection: usize,
    size: usize,
    intended: Instant,
    sent: Instant,
}

/// The slots' queue and clockwork.
#[derive(Debug)]
enum Clockwork {
    /// Slots with the time from which they may be used, in order.
    Closed { waiting: VecDeque<(Instant, u32)>, think_time: Duration },
    /// Slots that are free; the next send.
    Open { free: Vec<u32>, schedule: Schedule, next_connection: usize },
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Generator {
    kind: Kind,
    sizes: SizeMix,
    random: Random,
    connections: usize,
    clockwork: Clockwork,
    slots: Vec<Slot>,
    /// Offered before, and not taken by the transport.
    refused: Option<u32>,
    window: Window,
    under_way: usize,
    replies: u64,
    record: Record,
}

impl Generator {
    /// For `connections` of the load's connections and `share` of its rate; nothing leaves before
    /// [`Generator::begin`].
    pub(crate) fn new(
        load: &Load,
        connections: usize,
        share: f64,
        seed: u64,
        now: Instant,
    ) -> Self {
        let slots = match load.pace {
            Pace::Closed { depth, .. } => depth * connections,
            Pace::Open { .. } => OPEN_UNDER_WAY,
        };
        let slot = |index: usize| Slot {
            turn: 0,
            under_way: false,
            connection: index % connections,
            size: 0,
            intended: now,
            sent: now,
        };
        let all = 0..u32::try_from(slots).expect("slots have a maximum");
        let clockwork = match load.pace {
            Pace::Closed { think_time_s, .. } => Clockwork::Closed {
                waiting: all.map(|slot| (now, slot)).collect(),
                think_time: Duration::from_secs_f64(think_time_s),
            },
            Pace::Open { rate_per_s, arrivals } => Clockwork::Open {
                free: all.rev().collect(),
                schedule: Schedule::new(now, rate_per_s * share, arrivals, seed),
                next_connection: 0,
            },
        };
        Self {
            kind: load.kind,
            sizes: load.sizes.clone(),
            random: Random::new(!seed),
            connections,
            clockwork,
            slots: (0..slots).map(slot).collect(),
            refused: None,
            window: Window { from: now, until: now },
            under_way: 0,
            replies: 0,
            record: Record::new(),
        }
    }

    /// From now messages leave, until the end of `window`.
    pub(crate) fn begin(&mut self, now: Instant, window: Window) {
        self.window = window;
        match &mut self.clockwork {
            Clockwork::Closed { waiting, .. } => waiting.iter_mut().for_each(|(due, _)| *due = now),
            Clockwork::Open { schedule, .. } => schedule.start(now),
        }
    }

    /// The message that has to leave now, if there is one; ask again until there is none.
    pub(crate) fn poll_departure(&mut self, now: Instant) -> Option<Departure> {
        if let Some(index) = self.refused.take() {
            return Some(self.depart(now, index));
        }
        let until = self.window.until;
        let (index, intended) = match &mut self.clockwork {
            Clockwork::Closed { waiting, .. } => {
                waiting.front().filter(|(due, _)| *due <= now && now < until)?;
                let (_, index) = waiting.pop_front()?;
                (index, now)
            }
            Clockwork::Open { free, schedule, next_connection } => {
                let intended = Some(schedule.next).filter(|next| *next <= now && *next < until)?;
                let index = free.pop()?;
                schedule.advance();
                self.slots[index as usize].connection = *next_connection;
                *next_connection = (*next_connection + 1) % self.connections;
                (index, intended)
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.intended = intended;
        slot.size = self.sizes.pick(&mut self.random);
        Some(self.depart(now, index))
    }

    fn depart(&mut self, now: Instant, index: u32) -> Departure {
        let slot = &mut self.slots[index as usize];
        slot.turn = slot.turn.wrapping_add(1);
        slot.under_way = true;
        slot.sent = now;
        self.under_way += 1;
        if slot.intended >= self.window.from {
            self.record.sent += 1;
            self.record.late += u64::from(now > slot.intended + LATE_AFTER);
        }
        let tid = u64::from(slot.turn) << SLOT_BITS | u64::from(index);
        Departure { tid, connection: slot.connection, size: slot.size }
    }

    /// The transport has no room for it: it is offered again first.
    pub(crate) fn refuse(&mut self, departure: Departure) {
        let index = (departure.tid & ((1 << SLOT_BITS) - 1)) as u32;
        let slot = &mut self.slots[index as usize];
        slot.under_way = false;
        self.under_way -= 1;
        if slot.intended >= self.window.from {
            self.record.sent -= 1;
            self.record.late -= u64::from(slot.sent > slot.intended + LATE_AFTER);
        }
        self.refused = Some(index);
    }

    /// A reply came, with so many bytes of payload; in a stream: the message has left us.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn handle_reply(
        &mut self,
        now: Instant,
        tid: u64,
        len: usize,
    ) -> Result<(), String> {
        let index = (tid & ((1 << SLOT_BITS) - 1)) as u32;
        let turn = (tid >> SLOT_BITS) as u32;
        let awaited = |slot: &&mut Slot| slot.under_way && slot.turn == turn;
        let slot = self.slots.get_mut(index as usize).filter(awaited);
        let slot = slot.ok_or_else(|| format!("a reply to no message of ours, tid {tid:#x}"))?;
        let wanted = if self.kind == Kind::Ping { 0 } else { slot.size };
        if len != wanted {
            return Err(format!("a reply of {len} bytes in place of {wanted}"));
        }
        slot.under_way = false;
        self.under_way -= 1;
        self.replies += 1;
        if slot.intended >= self.window.from {
            self.record.latencies.record(now - slot.intended);
            self.record.bytes += slot.size as u64;
            self.record.last_reply = Some(now);
            if matches!(self.clockwork, Clockwork::Open { .. }) {
                self.record.service.record(now - slot.sent);
            }
        }
        match &mut self.clockwork {
            Clockwork::Closed { waiting, think_time } => {
                waiting.push_back((now + *think_time, index));
            }
            Clockwork::Open { free, .. } => free.push(index),
        }
        Ok(())
    }

    /// When to ask for departures again, apart from replies.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next = match &self.clockwork {
            Clockwork::Closed { waiting, .. } => waiting.front().map(|(due, _)| *due),
            Clockwork::Open { free, schedule, .. } => (!free.is_empty()).then_some(schedule.next),
        };
        next.filter(|next| *next < self.window.until)
    }

    /// Whether sends of an open loop are due that the generator has not come to.
    pub(crate) fn is_behind(&self, now: Instant) -> bool {
        let Clockwork::Open { schedule, .. } = &self.clockwork else {
            return false;
        };
        self.refused.is_some() || schedule.next < now.min(self.window.until)
    }

    /// Of an open loop: how many sends that count were due by now, and will not be made any more.
    pub(crate) fn count_overdue(&mut self, now: Instant) -> u64 {
        let Clockwork::Open { schedule, .. } = &mut self.clockwork else {
            return 0;
        };
        let mut overdue = u64::from(self.refused.is_some());
        while schedule.next < now.min(self.window.until) {
            overdue += u64::from(schedule.next >= self.window.from);
            schedule.advance();
        }
        overdue
    }

    /// Whether the transport has refused a message that is still to be sent.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Messages without their reply.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Replies so far, those of the warm-up included: a server that is gone shows in it.
    pub(crate) fn replies(&self) -> u64 {
        self.replies
    }

    /// Takes what was recorded since the last time, in exchange for an empty record.
    pub(crate) fn exchange(&mut self, record: &mut Record) {
        std::mem::swap(&mut self.record, record);
    }
}

/// The intended times of an open loop.
#[derive(Debug)]
struct Schedule {
    start: Instant,
    /// Since the start; a sum of rounded times would drift.
    offset_ns: f64,
    mean_ns: f64,
    arrivals: Arrivals,
    random: Random,
    next: Instant,
}

impl Schedule {
    fn new(start: Instant, rate_per_s: f64, arrivals: Arrivals, seed: u64) -> Self {
        let random = Random::new(seed);
        Self { start, offset_ns: 0.0, mean_ns: 1e9 / rate_per_s, arrivals, random, next: start }
    }

    fn start(&mut self, now: Instant) {
        (self.start, self.next, self.offset_ns) = (now, now, 0.0);
    }

    fn advance(&mut self) {
        self.offset_ns += match self.arrivals {
            Arrivals::Constant => self.mean_ns,
            Arrivals::Poisson => self.mean_ns * self.random.exponential(),
        };
        // A run has an end long before 2^53 ns.
        self.next = self.start + Duration::from_nanos(self.offset_ns as u64);
    }
}

#[cfg(test)]
mod tests;
