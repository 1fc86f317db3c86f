//! What is outstanding on which connection, and whether what comes back may come back.

use bytes::Bytes;
use messenger::Connection;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::AddAssign;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a workload did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub connects: u64,
    pub drops: u64,
    pub pings: u64,
    pub pongs: u64,
    /// Pings whose connection was dropped or lost its session before their pong came.
    pub forgotten: u64,
    /// Answers that nobody was promised.
    pub untracked_pongs: u64,
    pub commands: u64,
    pub bytes: u64,
    pub resets: u64,
    pub remote_resets: u64,
}

/// Shared by the parties of one workload and the thread that drives it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last_index: u64,
    data: HashMap<u64, Bytes>,
    outstanding: HashMap<Connection, VecDeque<u64>>,
    forgotten: HashSet<u64>,
    /// A pong was ahead of its turn: its connection must be told that its session was lost. That
    /// news is queued, so it may come later than the pong.
    owed_resets: HashSet<Connection>,
    /// The first rule that was broken.
    broken: Option<String>,
    totals: Totals,
}

impl Ledger {
    /// Blocks while `max` pings are outstanding, then notes one more.
    pub(super) fn issue(
        &self,
        connection: &Connection,
        data: Bytes,
        max: usize,
        patience: Duration,
    ) -> Result<u64, String> {
        let what = "fewer pings are outstanding";
        let mut state = self.wait(patience, what, |state| state.data.len() < max)?;
        state.last_index += 1;
        state.totals.pings += 1;
        state.totals.bytes += data.len() as u64;
        let index = state.last_index;
        state.data.insert(index, data);
        state.outstanding.entry(connection.clone()).or_default().push_back(index);
        Ok(index)
    }

    /// A pong came: .1 and .2.
    pub(super) fn settle(&self, connection: &Connection, index: u64, data: &Bytes) {
        let mut state = self.lock();
        let queue = state.outstanding.get_mut(connection);
        let place = queue.and_then(|queue| {
            let place = queue.iter().position(|waiting| *waiting == index)?;
            Some((place, queue.drain(..=place).collect::<Vec<_>>()))
        });
        match place {
            Some((place, settled)) => {
                if place > 0 {
                    state.owed_resets.insert(connection.clone());
                }
                settled[..place].iter().for_each(|skipped| state.forget(*skipped));
                let sent = state.data.remove(&index);
                if sent.as_ref() != Some(data) {
                    state.break_rule(format!(".2: the data of ping {index} changed"));
                }
                state.totals.pongs += 1;
            }
            None if state.forgotten.contains(&index) => {}
            None => state.break_rule(format!(".1: pong {index} is no answer on {connection}")),
        }
        self.bell.notify_all();
    }

    /// The connection was dropped, or its session was lost.
    pub(super) fn clear(&self, connection: &Connection) {
        self.lock().clear(connection);
        self.bell.notify_all();
    }

    pub(super) fn reset(&self, connection: &Connection) {
        self.lock().totals.resets += 1;
        self.clear(connection);
    }

    pub(super) fn remote_reset(&self, connection: &Connection) {
        self.lock().totals.remote_resets += 1;
        self.clear(connection);
    }

    pub(super) fn break_rule(&self, rule: String) {
        self.lock().break_rule(rule);
        self.bell.notify_all();
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Totals)) {
        count(&mut self.lock().totals);
    }

    /// Blocks until nothing is outstanding: .7.
    pub(super) fn drain(&self, patience: Duration) -> Result<(), String> {
        self.wait(patience, ".7: everything drains", |state| state.data.is_empty()).map(|_| ())
    }

    /// The last word, after every callback was delivered.
    pub(super) fn close(&self) -> Result<Totals, String> {
        let state = self.lock();
        if let Some(rule) = &state.broken {
            return Err(rule.clone());
        }
        match state.owed_resets.iter().next() {
            Some(connection) => Err(format!(".1: pings were skipped on {connection}")),
            None => Ok(state.totals),
        }
    }

    fn wait(
        &self,
        patience: Duration,
        what: &str,
        enough: impl Fn(&State) -> bool,
    ) -> Result<MutexGuard<'_, State>, String> {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        while state.broken.is_none() && !enough(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("gave up waiting until {what}: {}", state.describe()));
            }
            let woken = self.bell.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        match &state.broken {
            Some(rule) => Err(rule.clone()),
            None => Ok(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&mut self, connection: &Connection) {
        self.owed_resets.remove(connection);
        let lost = self.outstanding.remove(connection);
        lost.into_iter().flatten().for_each(|index| self.forget(index));
    }

    fn forget(&mut self, index: u64) {
        self.data.remove(&index);
        self.forgotten.insert(index);
        self.totals.forgotten += 1;
    }

    fn break_rule(&mut self, rule: String) {
        self.broken.get_or_insert(rule);
    }

    fn describe(&self) -> String {
        let waiting = self.outstanding.iter().filter(|(_, queue)| !queue.is_empty());
        let waiting = waiting.map(|(connection, queue)| {
            let (first, count) = (queue[0], queue.len());
            format!("{count} from {first} on {connection:?} {:?}", connection.outgoing())
        });
        waiting.collect::<Vec<_>>().join(", ")
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.connects += other.connects;
        self.drops += other.drops;
        self.pings += other.pings;
        self.pongs += other.pongs;
        self.forgotten += other.forgotten;
        self.untracked_pongs += other.untracked_pongs;
        self.commands += other.commands;
        self.bytes += other.bytes;
        self.resets += other.resets;
        self.remote_resets += other.remote_resets;
    }
}
