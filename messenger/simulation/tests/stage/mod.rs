//! A world of two for scenes that are told step by step.

use messenger::Connection;
use messenger_simulation::{Action, Cast, Label, Lane, Parcel, Process, Tuning, World};
use std::time::Duration;

/// After this much time a handshake on an empty network is over, and the first messages too.
const HANDSHAKE: Duration = Duration::from_millis(3);
/// From one moment to the next; frames take 50 µs.
const STEP: Duration = Duration::from_micros(40);
const SEED: u64 = 1;

pub(crate) struct Stage {
    pub(crate) world: World,
    /// TCP connections that host 0 tried since the last call of `settle`.
    pub(crate) dials: u64,
    dials_before: u64,
}

/// Every moment of a handshake.
pub(crate) fn moments() -> impl Iterator<Item = Duration> {
    let count = HANDSHAKE.as_micros() / STEP.as_micros();
    (0..count as u32).map(|step| STEP * step)
}

pub(crate) fn both() -> [bool; 2] {
    [false, true]
}

pub(crate) fn us(count: u64) -> Duration {
    Duration::from_micros(count)
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

impl Stage {
    pub(crate) fn new(cast: Cast) -> Self {
        Self::with(cast, Tuning::default())
    }

    pub(crate) fn with(cast: Cast, tuning: Tuning) -> Self {
        Self { world: World::new(SEED, cast, tuning), dials: 0, dials_before: 0 }
    }

    /// Sends some messages of different sizes; those that were taken.
    pub(crate) fn send(&mut self, from: usize, to: usize, count: u32) -> Vec<Label> {
        let parcel = |number: u32| Parcel {
            lane: Lane { priority: 127, fast: false },
            len: number * 100,
            wants_reply: false,
        };
        (0..count).filter_map(|number| self.world.send(from, to, parcel(number))).collect()
    }

    pub(crate) fn have_arrived(&self, labels: &[Label]) -> bool {
        !labels.is_empty() && labels.iter().all(|label| self.world.history().has_arrived(label))
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, time: Duration) {
        let outcome = self.world.run(time);
        self.expect(outcome);
    }

    /// Waits until nothing more happens.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        let outcome = self.world.drain();
        self.expect(outcome);
        let dials = self.world.counter("msgr_dials");
        self.dials = dials.saturating_sub(self.dials_before);
        self.dials_before = dials;
    }

    /// Everything arrives, everybody reaches everybody, nothing is left.
    #[track_caller]
    pub(crate) fn finish(&mut self) {
        self.world.heal();
        self.settle();
        let outcome = self.world.probe();
        self.expect(outcome);
        let outcome = self.world.close();
        self.expect(outcome);
    }

    /// Host `host` forgets its connection to `peer` silently.
    pub(crate) fn forget(&mut self, host: usize, peer: usize) {
        let connection = self.connection(host, peer);
        self.process(host).app.mark_down(&connection);
    }

    pub(crate) fn break_at(&mut self, host: usize) {
        let workers = self.world.cast().members[host].queues;
        for worker in 0..workers.into() {
            self.world.apply(Action::Break { host, worker, pick: 0 });
        }
    }

    pub(crate) fn break_all(&mut self) {
        self.break_at(0);
        self.break_at(1);
    }

    pub(crate) fn process(&self, host: usize) -> &Process {
        self.world.host(host).process.as_ref().expect("it runs")
    }

    pub(crate) fn connection(&self, host: usize, peer: usize) -> Connection {
        self.process(host).app.connection_to(peer).expect("they are connected")
    }

    #[track_caller]
    fn expect(&self, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            panic!("{}{what}", self.world.history().tail());
        }
    }
}
