//! Draws the parts of a plan.

use crate::application::Parcel;
use crate::cast::{Cast, Member};
use crate::host::{INBOX_ITEMS, Tuning};
use crate::label::Lane;
use messenger::AddrType;
use messenger::EntityType::{self, Client, Mds, Osd};
use netstack::device::sim::{Faults, Random, Spread};
use std::num::NonZeroUsize;
use std::time::Duration;

/// How long everything goes wrong.
const MISCHIEF: Duration = Duration::from_millis(1500);
/// Most moments at which much happens, and how long they last.
const HOT_MAX: u64 = 4;
const HOT_TIME: Duration = Duration::from_millis(20);

const CASTS: [&[EntityType]; 9] = [
    &[Osd, Osd],
    &[Osd, Osd],
    &[Mds, Client],
    &[Osd, Client],
    &[Osd, Osd, Client],
    &[Mds, Mds, Client],
    &[Osd, Mds, Client],
    &[Mds, Client, Client],
    &[Osd, Osd, Osd],
];
const PRIORITIES: [u16; 6] = [10, 63, 127, 127, 196, 255];

/// Random choices, all from one seed.
#[derive(Debug)]
pub(super) struct Draw {
    random: Random,
    /// When much happens at once: most races last no longer than a round trip.
    hot: Vec<Duration>,
}

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        let mut draw = Self { random: Random::new(seed), hot: Vec::new() };
        let moments = (0..1 + draw.below(HOT_MAX)).map(|_| draw.anywhen()).collect();
        draw.hot = moments;
        draw
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(super) fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize]
    }

    /// Up to `limit`, short times as likely as long ones of ten times the length.
    pub(super) fn time(&mut self, limit: Duration) -> Duration {
        let scale = 10_u32.pow(self.below(4) as u32); // below 4
        limit.mul_f64(self.below(1_000_000) as f64 / 1e6) / scale
    }

    pub(super) fn moment(&mut self) -> Duration {
        if self.one_in(3) {
            return self.anywhen();
        }
        let hot = self.below(self.hot.len() as u64) as usize;
        self.hot[hot] + self.time(HOT_TIME)
    }

    fn anywhen(&mut self) -> Duration {
        Duration::from_micros(self.below(MISCHIEF.as_micros() as u64))
    }

    pub(super) fn cast(&mut self) -> Cast {
        let kinds = self.of(&CASTS);
        let spreads = [
            Spread::SameIndex,
            Spread::FlowHash { announced: true },
            Spread::FlowHash { announced: false },
            Spread::Moving { every: 40 },
        ];
        let members = kinds.iter().map(|kind| Member {
            kind: *kind,
            queues: 1 + self.below(2) as u16, // below 2
            spread: self.of(&spreads),
        });
        let members = members.collect();
        Cast { members, reuse: self.one_in(2), registered: self.one_in(2) }
    }

    pub(super) fn tuning(&mut self, cast: &Cast) -> Tuning {
        let mut tuning = Tuning {
            throttle_bytes: self.of(&[0, 0, 1, 3000, 40_000]),
            throttle_messages: self.of(&[0, 0, 1, 4]),
            turn_time_max: Duration::from_micros(self.of(&[0, 0, 30, 500])),
            keeps_nonce: self.one_in(4),
            protocol: if !cast.reuse && self.one_in(2) {
                AddrType::Legacy
            } else {
                AddrType::Msgr2
            },
            ..Tuning::default()
        };
        tuning.config.ms_dispatch_throttle_bytes = self.of(&[0, 1, 5000, 100 << 20]);
        tuning.config.worker_inbox_items = self.of(&[INBOX_ITEMS, non_zero(4), non_zero(1024)]);
        tuning.config.send_queue_messages = self.of(&[non_zero(3), non_zero(1000)]);
        tuning.config.send_queue_bytes = self.of(&[2000, 100 << 20]);
        tuning.native.rx_buffer_bytes = self.of(&[2 << 10, 8 << 10, 32 << 10]);
        tuning.native.tx_buffer_bytes = self.of(&[2 << 10, 8 << 10, 32 << 10]);
        tuning
    }

    pub(super) fn parcel(&mut self) -> Parcel {
        let lane = Lane { priority: self.of(&PRIORITIES), fast: self.one_in(3) };
        let most = self.of(&[1, 200, 200, 200, 4000, 4000, 70_000]);
        Parcel { lane, len: self.below(most) as u32, wants_reply: self.one_in(3) }
    }

    pub(super) fn faults(&mut self) -> Faults {
        let us = Duration::from_micros;
        let mut ppm = |most| if self.one_in(2) { 0 } else { self.below(most) as u32 };
        Faults {
            loss_ppm: ppm(100_000),
            duplicate_ppm: ppm(50_000),
            corrupt_ppm: ppm(50_000),
            jitter_ppm: ppm(300_000),
            delay: us(self.below(3000)),
            jitter: us(self.below(5000)),
            ..Faults::default()
        }
    }
}

const fn non_zero(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}
