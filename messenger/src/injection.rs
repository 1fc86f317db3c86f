//! Faults made on purpose, for tests: broken sockets, late messages, slow moments, black holes
//! (semantics 1.12).
//!
//! What is injected is in the configuration, `ms_inject_*` and `ms_blackhole_*`. Each connection
//! draws from a sequence of its own, so with `ms_inject_seed` the same connection meets the same
//! faults at the same of its operations, whatever the others do. Nobody sleeps on a worker: a delay
//! keeps one connection waiting and no other.

use crate::config::Config;
use messenger_proto::{EntityType, Message};
use netstack::device::sim::Random;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// What may be injected into the connections of one messenger.
#[derive(Debug)]
pub(crate) struct Injection {
    seed: u64,
    socket_failures: u64,
    congestion: u64,
    internal_delay: Duration,
    delay_types: String,
    delay_probability: f64,
    delay_max: Duration,
    /// Wire numbers of the types whose messages vanish, both ways; each is a bit of its own.
    blackholes: AtomicU8,
    active: bool,
}

impl Injection {
    /// What `config` asks for; `secret` takes the place of a seed that is not set.
    pub(crate) fn new(config: &Config, secret: u64) -> Self {
        let seed = match config.ms_inject_seed {
            0 => secret,
            seed => seed,
        };
        let holes = [
            (config.ms_blackhole_mon, EntityType::Mon),
            (config.ms_blackhole_osd, EntityType::Osd),
            (config.ms_blackhole_mds, EntityType::Mds),
            (config.ms_blackhole_mgr, EntityType::Mgr),
            (config.ms_blackhole_client, EntityType::Client),
        ];
        let holes = holes.iter().filter(|(on, _)| *on).map(|(_, kind)| kind.to_wire());
        let socket_failures = config.ms_inject_socket_failures;
        let congestion = config.ms_inject_network_congestion;
        let internal_delay = config.ms_inject_internal_delays;
        let delay_types = config.ms_inject_delay_type.clone();
        let active = socket_failures > 0
            || congestion > 0
            || !internal_delay.is_zero()
            || !delay_types.is_empty();
        Self {
            seed,
            socket_failures,
            congestion,
            internal_delay,
            delay_types,
            delay_probability: config.ms_inject_delay_probability,
            delay_max: config.ms_inject_delay_max,
            blackholes: AtomicU8::new(holes.fold(0, |all, hole| all | hole)),
            active,
        }
    }

    /// For one connection.
    pub(crate) fn injector(self: &Arc<Self>, connection: u64) -> Injector {
        Injector(self.active.then(|| {
            let state = self.seed ^ connection.wrapping_mul(0xd134_2543_de82_ef95);
            Box::new(Faults {
                injection: Arc::clone(self),
                random: Random::new(state),
                late: VecDeque::new(),
                paused_until: None,
            })
        }))
    }

    /// Whether messages from and to such peers vanish (contract C-14).
    /// The type is asked for only if there is a black hole.
    pub(crate) fn swallows(&self, kind: impl FnOnce() -> Option<EntityType>) -> bool {
        let holes = self.blackholes.load(Ordering::Relaxed);
        holes != 0 && kind().is_some_and(|kind| holes & kind.to_wire() != 0)
    }

    /// Opens or closes the black hole for such peers.
    pub(crate) fn set_blackhole(&self, kind: EntityType, open: bool) {
        match open {
            true => self.blackholes.fetch_or(kind.to_wire(), Ordering::Relaxed),
            false => self.blackholes.fetch_and(!kind.to_wire(), Ordering::Relaxed),
        };
    }

    /// How long to wait before a queued callback is delivered (contract Q-12); `draw` is random.
    pub(crate) fn callback_delay(&self, draw: u64) -> Duration {
        match chance(&mut Random::new(draw), self.delay_probability) {
            true => self.internal_delay,
            false => Duration::ZERO,
        }
    }
}

/// What is injected into one connection, and what it holds back. Where nothing is to be injected it
/// is empty, and each of its calls a test of that.
#[derive(Debug, Default)]
pub(crate) struct Injector(Option<Box<Faults>>);

#[derive(Debug)]
struct Faults {
    injection: Arc<Injection>,
    random: Random,
    /// Messages delivered late, in their order, each with its time.
    late: VecDeque<(Instant, Message)>,
    /// Until when the connection's transport is left alone.
    paused_until: Option<Instant>,
}

impl Injector {
    /// Whether anything may be injected.
    pub(crate) fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the socket breaks before this read or write.
    pub(crate) fn breaks_socket(&mut self) -> bool {
        let faults = self.0.as_mut();
        faults.is_some_and(|f| one_in(&mut f.random, f.injection.socket_failures))
    }

    /// Whether this write is put off.
    pub(crate) fn congests(&mut self) -> bool {
        self.0.as_mut().is_some_and(|faults| {
            let one = faults.injection.congestion;
            one > 1 && !one_in(&mut faults.random, one)
        })
    }

    /// A race point was reached: the connection rests for a while (`ms_inject_internal_delays`).
    pub(crate) fn pause(&mut self, now: Instant) {
        if let Some(faults) = &mut self.0
            && !faults.injection.internal_delay.is_zero()
        {
            faults.paused_until = Some(now + faults.injection.internal_delay);
        }
    }

    /// Whether the connection rests.
    pub(crate) fn is_paused(&self, now: Instant) -> bool {
        let until = self.0.as_ref().and_then(|faults| faults.paused_until);
        until.is_some_and(|until| now < until)
    }

    /// The rest is over; true once for each.
    pub(crate) fn ends_pause(&mut self, now: Instant) -> bool {
        let faults = self.0.as_mut();
        faults.is_some_and(|f| f.paused_until.take_if(|until| *until <= now).is_some())
    }

    /// Holds a message back, or gives it back to be delivered now.
    pub(crate) fn hold_back(
        &mut self,
        now: Instant,
        from: Option<EntityType>,
        message: Message,
    ) -> Option<Message> {
        match &mut self.0 {
            None => Some(message),
            Some(faults) => faults.hold_back(now, from, message),
        }
    }

    /// The next message whose time has come by `now`; without a time, the next whatever its own.
    pub(crate) fn take_late(&mut self, now: Option<Instant>) -> Option<Message> {
        let late = &mut self.0.as_mut()?.late;
        let (due, _) = late.front()?;
        if now.is_some_and(|now| now < *due) {
            return None;
        }
        late.pop_front().map(|(_, message)| message)
    }

    /// Drops what is held back: the session was reset or ended.
    pub(crate) fn discard(&mut self) {
        if let Some(faults) = &mut self.0 {
            faults.late.clear();
        }
    }

    /// When to look again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let faults = self.0.as_ref()?;
        let late = faults.late.front().map(|(due, _)| *due);
        late.into_iter().chain(faults.paused_until).min()
    }
}

impl Faults {
    fn hold_back(
        &mut self,
        now: Instant,
        from: Option<EntityType>,
        message: Message,
    ) -> Option<Message> {
        let injection = &self.injection;
        let affected = from.is_some_and(|kind| injection.delay_types.contains(kind.as_str()));
        let due = match affected && chance(&mut self.random, injection.delay_probability) {
            true => now + injection.delay_max.mul_f64(fraction(&mut self.random)),
            false => now,
        };
        // No message overtakes another.
        let due = self.late.back().map_or(due, |(last, _)| due.max(*last));
        if due <= now && self.late.is_empty() {
            return Some(message);
        }
        self.late.push_back((due, message));
        None
    }
}

/// True once in so many, never for 0. Draws nothing for 0.
fn one_in(random: &mut Random, count: u64) -> bool {
    count > 0 && random.below(count) == 0
}

/// From 0 up to, not including, 1.
fn fraction(random: &mut Random) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

fn chance(random: &mut Random, probability: f64) -> bool {
    probability > 0.0 && fraction(random) < probability
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection(config: Config) -> Arc<Injection> {
        Arc::new(Injection::new(&config, 1))
    }

    #[test]
    fn nothing_asked_for_costs_nothing() {
        let injection = injection(Config::default());
        assert!(!injection.injector(1).is_active());
        assert!(!injection.swallows(|| Some(EntityType::Osd)));
    }

    #[test]
    fn a_connection_meets_the_same_faults_again() {
        let config =
            Config { ms_inject_seed: 7, ms_inject_socket_failures: 5, ..Config::default() };
        let faults = |connection| {
            let injection = injection(config.clone());
            let mut injector = injection.injector(connection);
            (0..64).map(|_| injector.breaks_socket()).collect::<Vec<_>>()
        };
        assert_eq!(faults(1), faults(1));
        assert_ne!(faults(1), faults(2));
        assert!(faults(1).contains(&true) && faults(1).contains(&false));
    }

    #[test]
    fn late_messages_keep_their_order() {
        let injection = injection(Config {
            ms_inject_delay_type: String::from("osd client"),
            ms_inject_delay_probability: 0.5,
            ms_inject_delay_max: Duration::from_secs(1),
            ..Config::default()
        });
        let mut injector = injection.injector(1);
        let start = Instant::now();
        let mut arrived = Vec::new();
        for tid in 0..200 {
            let now = start + Duration::from_millis(10) * tid;
            let message = Message::new(1).with_tid(tid.into());
            let kind = Some(EntityType::Osd);
            while let Some(late) = injector.take_late(Some(now)) {
                arrived.push(late.header.tid);
            }
            let now = injector.hold_back(now, kind, message);
            arrived.extend(now.map(|message| message.header.tid));
        }
        assert!(injector.poll_timeout().is_some());
        arrived.extend(std::iter::from_fn(|| injector.take_late(None)).map(|m| m.header.tid));
        assert!(arrived.iter().copied().eq(0..200));

        let mon = injector.hold_back(start, Some(EntityType::Mon), Message::new(1));
        assert!(mon.is_some(), "monitors are not in the list");
    }

    #[test]
    fn each_type_has_a_black_hole_of_its_own() {
        let injection = injection(Config { ms_blackhole_mgr: true, ..Config::default() });
        assert!(injection.swallows(|| Some(EntityType::Mgr)));
        assert!(!injection.swallows(|| Some(EntityType::Osd)) && !injection.swallows(|| None));
        injection.set_blackhole(EntityType::Osd, true);
        injection.set_blackhole(EntityType::Mgr, false);
        assert!(injection.swallows(|| Some(EntityType::Osd)));
        assert!(!injection.swallows(|| Some(EntityType::Mgr)));
    }
}
