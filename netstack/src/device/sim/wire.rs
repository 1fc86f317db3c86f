//! What happens between two ports: rate, delay, loss, and the queue of frames on their way.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::{SimFrame, SimPort};
use crate::device::Frame;

/// Bytes a frame takes on the wire beside its own: preamble, check sequence, gap.
const WIRE_OVERHEAD: u64 = 8 + 4 + 12;
const MILLION: u32 = 1_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014): a counter of odd step, scrambled. Small, fast, and good
/// enough for faults; not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True `ppm` times in a million. Draws nothing for 0, so an absent fault costs nothing.
    pub fn chance(&mut self, ppm: u32) -> bool {
        ppm != 0 && self.below(MILLION.into()) < u64::from(ppm)
    }
}

/// What a port does to the frames it sends. The default does nothing: no delay, no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Faults {
    /// Time every frame takes.
    pub delay: Duration,
    /// Some frames take up to this longer, each a time of its own, and so overtake each other.
    pub jitter: Duration,
    /// How many in a million have jitter.
    pub jitter_ppm: u32,
    /// How many in a million are lost.
    pub loss_ppm: u32,
    /// How many in a million arrive twice.
    pub duplicate_ppm: u32,
    /// How many in a million arrive with one bit flipped, anywhere in the frame.
    pub corrupt_ppm: u32,
    /// Rate of the wire, bits a second; `None`: no limit.
    pub bits_per_s: Option<NonZeroU64>,
    /// Most bytes that wait for the wire, if it has a rate.
    pub queue_bytes: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            jitter_ppm: MILLION,
            loss_ppm: 0,
            duplicate_ppm: 0,
            corrupt_ppm: 0,
            bits_per_s: None,
            queue_bytes: 512 << 10,
        }
    }
}

impl Faults {
    /// The time `bytes` take at the rate.
    fn time_of(&self, bytes: u64) -> Duration {
        self.bits_per_s.map_or(Duration::ZERO, |rate| {
            let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate.get());
            Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
        })
    }
}

/// What became of the frames a port sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Taken by `tx_burst`; a frame to several ports counts once for each.
    pub sent: u64,
    /// Lost on purpose, in a link that was down, or in a blocked direction.
    pub lost: u64,
    /// Lost in a full queue.
    pub overflowed: u64,
    /// Sent on twice.
    pub duplicated: u64,
    /// Sent on with a bit flipped.
    pub corrupted: u64,
}

/// The sending side of a port.
pub(super) struct Egress {
    pub(super) faults: Faults,
    pub(super) stats: SimStats,
    /// Per destination port.
    pub(super) blocked: Vec<bool>,
    random: Random,
    /// When the wire has sent everything it was given.
    free_at: Option<Instant>,
}

impl Egress {
    pub(super) fn new(random: Random, config: &SimPort, ports: usize) -> Self {
        Self {
            faults: config.faults,
            stats: SimStats::default(),
            blocked: vec![false; ports],
            random,
            free_at: None,
        }
    }

    /// Whether as much waits for the wire as may.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        let backlog = self.free_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        backlog > Duration::ZERO && backlog >= self.faults.time_of(self.faults.queue_bytes)
    }

    /// Takes `len` bytes onto the wire; returns when they have left it.
    pub(super) fn depart(&mut self, now: Instant, len: usize) -> Instant {
        if self.faults.bits_per_s.is_none() {
            return now;
        }
        let start = self.free_at.map_or(now, |at| at.max(now));
        let end = start + self.faults.time_of(len as u64 + WIRE_OVERHEAD);
        self.free_at = Some(end);
        end
    }

    pub(super) fn loses(&mut self) -> bool {
        self.random.chance(self.faults.loss_ppm)
    }

    pub(super) fn duplicates(&mut self) -> bool {
        self.random.chance(self.faults.duplicate_ppm)
    }

    /// Flips a bit of some frames; returns whether it did.
    pub(super) fn corrupt(&mut self, frame: &mut SimFrame) -> bool {
        let bytes = frame.bytes_mut();
        if bytes.is_empty() || !self.random.chance(self.faults.corrupt_ppm) {
            return false;
        }
        let bit = self.random.below(bytes.len() as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.stats.corrupted += 1;
        true
    }

    /// When a frame that left the wire at `departed` arrives.
    pub(super) fn arrival(&mut self, departed: Instant) -> Instant {
        let mut due = departed + self.faults.delay;
        if self.faults.jitter > Duration::ZERO && self.random.chance(self.faults.jitter_ppm) {
            let most = u64::try_from(self.faults.jitter.as_nanos()).unwrap_or(u64::MAX);
            due += Duration::from_nanos(self.random.below(most));
        }
        due
    }
}

/// A frame on its way.
pub(super) struct InFlight {
    pub(super) due: Instant,
    pub(super) from: usize,
    pub(super) frame: SimFrame,
}

/// Frames on their way to one receive queue, the next one first.
#[derive(Default)]
pub(super) struct Inbox(VecDeque<InFlight>);

impl Inbox {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.front().map(|flight| flight.due)
    }

    /// Frames due at the same time arrive in the order they were sent.
    pub(super) fn push(&mut self, flight: InFlight) {
        if self.0.back().is_none_or(|last| last.due <= flight.due) {
            self.0.push_back(flight);
        } else {
            let at = self.0.partition_point(|other| other.due <= flight.due);
            self.0.insert(at, flight);
        }
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<SimFrame> {
        if self.next_due()? > now {
            return None;
        }
        self.0.pop_front().map(|flight| flight.frame)
    }

    pub(super) fn take_all(&mut self) -> VecDeque<InFlight> {
        std::mem::take(&mut self.0)
    }
}
