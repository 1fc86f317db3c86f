//! Hosts, their network, and the clock that jumps from one thing that is due to the next.

use crate::application::Parcel;
use crate::cast::Cast;
use crate::history::{Event, History, Tally};
use crate::host::{Host, Setting, Tuning, lock};
use crate::label::Label;
use crate::{HostId, Life};
use messenger::{Clock, ConnectOptions, EntityAddrVec};
use netstack::device::sim::{Faults, Random, SimNet, SimPort};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

mod ending;
mod mischief;

pub use ending::DRAINED_WITHIN;

/// Least time between two steps of the clock.
const STEP_MIN: Duration = Duration::from_micros(1);
/// Steps after which a run is taken for one that goes round in circles.
const STEPS_MAX: u64 = 3_000_000;
/// Frames a queue can have outstanding.
const POOL_FRAMES: usize = 512;
/// How long a frame takes where nothing else is said.
const DELAY: Duration = Duration::from_micros(50);

/// A number of hosts. See the [crate](crate).
#[derive(Debug)]
pub struct World {
    setting: Setting,
    hosts: Vec<Host>,
    /// Where each host believes each other to be.
    beliefs: Vec<Vec<Option<EntityAddrVec>>>,
    random: Random,
    start: Instant,
    lives: Life,
    steps: u64,
}

impl World {
    /// A world whose hosts all run and know each other.
    pub fn new(seed: u64, cast: Cast, tuning: Tuning) -> Self {
        let ports = cast.members.iter().zip(1..).map(|(member, index)| SimPort {
            queues: member.queues,
            spread: member.spread,
            pool_frames: POOL_FRAMES,
            faults: Faults { delay: DELAY, ..Faults::default() },
            ..SimPort::new(index)
        });
        let (net, _) = SimNet::new(seed, &ports.collect::<Vec<_>>());
        let start = Instant::now();
        let clock = Clock::virtual_from(start);
        let history = Arc::new(Mutex::new(History::new(clock.clone())));
        let count = cast.members.len();
        let hosts = cast.members.iter().enumerate();
        let hosts = hosts.map(|(index, member)| Host::new(index, member.queues)).collect();
        let cast = Arc::new(cast);
        let mut world = Self {
            setting: Setting { clock, net, cast, tuning, history },
            hosts,
            beliefs: vec![vec![None; count]; count],
            random: Random::new(seed ^ u64::MAX),
            start,
            lives: 0,
            steps: 0,
        };
        (0..count).for_each(|host| world.start(host));
        (0..count).for_each(|host| world.tell_all(host));
        world
    }

    /// Who plays.
    pub fn cast(&self) -> &Cast {
        &self.setting.cast
    }

    /// The network.
    pub fn net(&self) -> &SimNet {
        &self.setting.net
    }

    /// One of the hosts.
    pub fn host(&self, host: HostId) -> &Host {
        &self.hosts[host]
    }

    /// What happened so far.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.setting.history)
    }

    /// The history's sums.
    pub fn tally(&self) -> Tally {
        self.history().tally()
    }

    /// The virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now() - self.start
    }

    /// Steps of the clock so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The sum of a counter over the workers of all processes that run.
    pub fn counter(&self, name: &str) -> u64 {
        let processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        processes.map(|process| process.messenger.counters().total(name)).sum()
    }

    /// Sends from one host to another, as far as there is a way; `None` if it was not taken.
    pub fn send(&mut self, from: HostId, to: HostId, parcel: Parcel) -> Option<Label> {
        let process = self.hosts[from].process.as_ref()?;
        let cast = &self.setting.cast;
        let connection = if cast.policy_between(from, to).server {
            process.app.connection_to(to)?
        } else {
            let addrs = self.beliefs[from][to].as_ref()?;
            let kind = cast.members[to].kind;
            process.messenger.connect_to(kind, addrs, ConnectOptions::default()).ok()?
        };
        process.app.send(&connection, to, parcel)
    }

    /// Lets a time pass.
    ///
    /// # Errors
    /// The first thing that happened in it and was not allowed.
    pub fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now() + time;
        while self.step(end)? {}
        Ok(())
    }

    /// Lets time pass until something holds, at most so long.
    ///
    /// # Errors
    /// As [`World::run`], and if it does not hold by then.
    pub fn until(
        &mut self,
        within: Duration,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.now() + within;
        while !holds(self) {
            if !self.step(end)? {
                return if holds(self) { Ok(()) } else { Err(format!("not within {within:?}")) };
            }
        }
        Ok(())
    }

    /// Moves the clock to what is due next and lets it happen; `false`: nothing is before `end`,
    /// which it is now.
    fn step(&mut self, end: Instant) -> Result<bool, String> {
        let now = self.now();
        let workers = self.hosts.iter().enumerate();
        let workers = workers.flat_map(|(host, it)| (0..it.frozen.len()).map(move |w| (host, w)));
        let due = |(host, worker): (HostId, usize)| {
            let due = self.hosts[host].next_turn(worker, &self.setting.net, now)?;
            Some((due, host, worker))
        };
        let due: Vec<_> = workers.filter_map(due).collect();
        let next = due.iter().map(|(due, ..)| *due).min().unwrap_or(end);
        let next = next.max(now + STEP_MIN);
        if next > end {
            self.setting.clock.advance_to(end);
            return Ok(false);
        }
        self.setting.clock.advance_to(next);
        let first = self.random.below(due.len() as u64) as usize;
        for (due, host, worker) in due[first..].iter().chain(&due[..first]) {
            if *due <= next {
                let most = self.setting.tuning.turn_time_max.as_nanos() as u64; // short
                let end = next + Duration::from_nanos(self.random.below(most));
                self.hosts[*host].turn(*worker, end);
            }
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(format!("no end after {STEPS_MAX} steps"));
        }
        match self.history().violation() {
            Some(violation) => Err(violation.to_owned()),
            None => Ok(true),
        }
    }

    pub(crate) fn note(&self, event: Event) {
        self.history().note(event);
    }

    fn now(&self) -> Instant {
        self.setting.clock.now()
    }

    fn start(&mut self, host: HostId) {
        self.lives += 1;
        let seed = self.random.next_u64();
        self.hosts[host].start(self.lives, seed, &self.setting);
    }
}
