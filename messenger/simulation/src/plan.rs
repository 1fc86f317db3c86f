//! What a seed stands for: who plays, with which settings, and what happens when.

use crate::HostId;
use crate::application::Parcel;
use crate::cast::{Cast, Member};
use crate::host::{INBOX_ITEMS, Tuning};
use crate::label::Lane;
use messenger::EntityType::{self, Client, Mds, Osd};
use netstack::device::sim::{Faults, Random, Spread};
use std::num::NonZeroUsize;
use std::time::Duration;

/// How long everything goes wrong.
const MISCHIEF: Duration = Duration::from_millis(1500);
/// Longest time one fault lasts.
const FAULT_MAX: Duration = Duration::from_millis(700);
/// Most moments at which much happens, and how long they last.
const HOT_MAX: u64 = 4;
const HOT_TIME: Duration = Duration::from_millis(20);
const SENDS_MAX: u64 = 120;
const FAULTS_MAX: u64 = 16;
/// Most TCP connections broken in a row.
const STORM_MAX: u64 = 40;

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

/// One thing done to a world. Numbers of workers and picks are taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A host sends some equal messages to another.
    Send {
        /// Who.
        from: HostId,
        /// To whom.
        to: HostId,
        /// How many.
        count: u32,
        /// What.
        parcel: Parcel,
    },
    /// What a host's port does to frames changes.
    Faults {
        /// Whose.
        host: HostId,
        /// From now on.
        faults: Faults,
    },
    /// A cable is pulled or plugged.
    Link {
        /// Whose.
        host: HostId,
        /// Plugged.
        up: bool,
    },
    /// One direction between two hosts is cut or joined.
    Blocked {
        /// Who is not heard.
        from: HostId,
        /// By whom.
        to: HostId,
        /// Cut.
        blocked: bool,
    },
    /// One TCP connection breaks.
    Break {
        /// Where it is noticed.
        host: HostId,
        /// On which worker.
        worker: usize,
        /// Which one.
        pick: u64,
    },
    /// A worker gets no CPU for a time.
    Freeze {
        /// Whose.
        host: HostId,
        /// Which.
        worker: usize,
        /// How long.
        time: Duration,
    },
    /// The dispatch threads get no CPU, or get it back.
    Stall {
        /// Whose.
        host: HostId,
        /// They get none.
        stalled: bool,
    },
    /// An application keeps the messages it takes, or lets them go.
    Hoard {
        /// Whose.
        host: HostId,
        /// It keeps them.
        hoards: bool,
    },
    /// A sign of life is asked for.
    Keepalive {
        /// By whom.
        host: HostId,
        /// On which connection.
        pick: u64,
    },
    /// A connection is given up.
    MarkDown {
        /// By whom.
        host: HostId,
        /// Which one.
        pick: u64,
        /// By its address, with a reset for the application; else silently.
        with_reset: bool,
    },
    /// A process ends.
    Stop {
        /// Whose.
        host: HostId,
    },
    /// A process starts, with a new nonce.
    Start {
        /// Where.
        host: HostId,
    },
    /// A host learns of another's present address.
    Tell {
        /// Who learns.
        host: HostId,
        /// Whose address.
        of: HostId,
    },
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// Who plays.
    pub cast: Cast,
    /// With which settings.
    pub tuning: Tuning,
    /// What happens, in order of time.
    pub actions: Vec<(Duration, Action)>,
}

impl Plan {
    /// The plan that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let cast = draw.cast();
        let tuning = draw.tuning();
        let (pairs, keeps_sessions) = (cast.pairs(), draw.one_in(2));
        let mut author = Author { draw, pairs, keeps_sessions, cast: &cast, actions: Vec::new() };
        author.write();
        let mut actions = author.actions;
        actions.sort_by_key(|(at, _)| *at);
        Self { seed, cast, tuning, actions }
    }
}

struct Draw {
    random: Random,
    /// When much happens at once: most races last no longer than a round trip.
    hot: Vec<Duration>,
}

impl Draw {
    fn new(seed: u64) -> Self {
        let mut draw = Self { random: Random::new(seed), hot: Vec::new() };
        let moments = (0..1 + draw.below(HOT_MAX)).map(|_| draw.anywhen()).collect();
        draw.hot = moments;
        draw
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.below(choice.len() as u64) as usize]
    }

    /// Up to `limit`, short times as likely as long ones of ten times the length.
    fn time(&mut self, limit: Duration) -> Duration {
        let scale = 10_u32.pow(self.below(4) as u32); // below 4
        limit.mul_f64(self.below(1_000_000) as f64 / 1e6) / scale
    }

    fn moment(&mut self) -> Duration {
        if self.one_in(3) {
            return self.anywhen();
        }
        let hot = self.below(self.hot.len() as u64) as usize;
        self.hot[hot] + self.time(HOT_TIME)
    }

    fn anywhen(&mut self) -> Duration {
        Duration::from_micros(self.below(MISCHIEF.as_micros() as u64))
    }

    fn cast(&mut self) -> Cast {
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

    fn tuning(&mut self) -> Tuning {
        let mut tuning = Tuning {
            throttle_bytes: self.of(&[0, 0, 1, 3000, 40_000]),
            throttle_messages: self.of(&[0, 0, 1, 4]),
            turn_time_max: Duration::from_micros(self.of(&[0, 0, 30, 500])),
            keeps_nonce: self.one_in(4),
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

    fn parcel(&mut self) -> Parcel {
        let lane = Lane { priority: self.of(&PRIORITIES), fast: self.one_in(3) };
        let most = self.of(&[1, 200, 200, 200, 4000, 4000, 70_000]);
        Parcel { lane, len: self.below(most) as u32, wants_reply: self.one_in(3) }
    }

    fn faults(&mut self) -> Faults {
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

struct Author<'a> {
    draw: Draw,
    pairs: Vec<(HostId, HostId)>,
    /// Nobody forgets anything: only the network is bad.
    keeps_sessions: bool,
    cast: &'a Cast,
    actions: Vec<(Duration, Action)>,
}

impl Author<'_> {
    fn write(&mut self) {
        for host in 0..self.cast.members.len() {
            let faults = if self.draw.one_in(2) { self.draw.faults() } else { Faults::default() };
            let delay = Duration::from_micros(10 + self.draw.below(500));
            self.at(Duration::ZERO, Action::Faults { host, faults: Faults { delay, ..faults } });
        }
        for _ in 0..20 + self.draw.below(SENDS_MAX - 20) {
            let at = self.draw.moment();
            let (from, to) = self.draw.of(&self.pairs);
            let (count, parcel) = (1 + self.draw.below(4) as u32, self.draw.parcel());
            self.at(at, Action::Send { from, to, count, parcel });
        }
        for _ in 0..self.draw.below(FAULTS_MAX) {
            self.fault();
        }
    }

    fn fault(&mut self) {
        let at = self.draw.moment();
        let end = at + self.draw.time(FAULT_MAX);
        let host = self.draw.below(self.cast.members.len() as u64) as usize;
        let (from, to) = self.draw.of(&self.pairs);
        let (worker, pick) = (self.draw.below(2) as usize, self.draw.below(1000));
        let kinds = if self.keeps_sessions { 17 } else { 22 };
        match self.draw.below(kinds) {
            0..2 => {
                let faults = self.draw.faults();
                self.at(at, Action::Faults { host, faults });
                self.at(end, Action::Faults { host, faults: Faults::default() });
            }
            2..4 => self.spell(at, end, |bad| Action::Link { host, up: !bad }),
            4..6 => {
                self.spell(at, end, |blocked| Action::Blocked { from, to, blocked });
                if self.draw.one_in(2) {
                    self.spell(at, end, |blocked| Action::Blocked { from: to, to: from, blocked });
                }
            }
            6..9 => self.at(at, Action::Break { host, worker, pick }),
            9..11 => self.storm(at, end),
            11..13 => self.at(at, Action::Freeze { host, worker, time: end - at }),
            13 => self.spell(at, end, |stalled| Action::Stall { host, stalled }),
            14 => self.spell(at, end, |hoards| Action::Hoard { host, hoards }),
            15..17 => self.at(at, Action::Keepalive { host, pick }),
            17 | 18 => {
                let with_reset = self.draw.one_in(2);
                self.at(at, Action::MarkDown { host, pick, with_reset });
            }
            _ => self.restart(at, end, host),
        }
    }

    /// TCP connections break one after the other, many before they carry a message.
    fn storm(&mut self, begin: Duration, end: Duration) {
        let count = 2 + self.draw.below(STORM_MAX);
        for _ in 0..count {
            let at = begin + (end - begin).mul_f64(self.draw.below(1000) as f64 / 1e3);
            let host = self.draw.below(self.cast.members.len() as u64) as usize;
            let (worker, pick) = (self.draw.below(2) as usize, self.draw.below(1000));
            self.at(at, Action::Break { host, worker, pick });
        }
    }

    /// A process ends, in good order or with its power, and another starts.
    fn restart(&mut self, at: Duration, back: Duration, host: HostId) {
        let is_cut = self.draw.one_in(2);
        if is_cut {
            self.at(at, Action::Link { host, up: false });
        }
        self.at(at, Action::Stop { host });
        self.at(back, Action::Link { host, up: true });
        self.at(back, Action::Start { host });
        for other in 0..self.cast.members.len() {
            let told = back + self.draw.time(FAULT_MAX);
            self.at(told, Action::Tell { host: other, of: host });
            // It has forgotten where they are.
            self.at(back, Action::Tell { host, of: other });
        }
    }

    fn spell(&mut self, at: Duration, end: Duration, action: impl Fn(bool) -> Action) {
        self.at(at, action(true));
        self.at(end, action(false));
    }

    fn at(&mut self, at: Duration, action: Action) {
        self.actions.push((at, action));
    }
}

const fn non_zero(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("not zero")
}
