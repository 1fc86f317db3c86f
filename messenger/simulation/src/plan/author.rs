//! Writes down what happens in a plan.

use super::Action;
use super::draw::Draw;
use crate::HostId;
use crate::cast::Cast;
use netstack::device::sim::Faults;
use std::time::Duration;

/// Longest time one fault lasts.
const FAULT_MAX: Duration = Duration::from_millis(700);
const SENDS_MAX: u64 = 120;
const FAULTS_MAX: u64 = 16;
/// Most TCP connections broken in a row.
const STORM_MAX: u64 = 40;

/// What happens, in no order.
pub(super) fn write(mut draw: Draw, cast: &Cast) -> Vec<(Duration, Action)> {
    let (pairs, keeps_sessions) = (cast.pairs(), draw.one_in(2));
    let mut author = Author { draw, pairs, keeps_sessions, cast, actions: Vec::new() };
    author.write();
    author.actions
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
