//! Stops connections at the numbered steps of their lives, and counts those steps.

use super::eventually;
use messenger::{Action, Connection, Messenger, Step};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The steps of one messenger's connections. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Steps(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    breakpoints: Vec<Step>,
    held: Vec<(Step, Connection)>,
    taken: HashMap<(u64, Step), u32>,
}

impl Steps {
    /// Watches the connections of a messenger that is not started yet.
    pub fn watch(&self, messenger: &Messenger) {
        let steps = self.clone();
        messenger.set_interceptor(move |connection, step| steps.decide(connection, step)).unwrap();
    }

    /// The next connection that comes to this step is held there.
    pub fn hold_at(&self, step: Step) {
        self.state().breakpoints.push(step);
    }

    /// Blocks until a connection is held at this step: it is the caller's to
    /// [`resume`](Connection::resume).
    pub fn wait_until_held(&self, step: Step) -> Connection {
        let is_here = |(at, _): &(Step, Connection)| *at == step;
        let what = format!("a connection is held at {step:?}");
        eventually(&what, || self.state().held.iter().any(is_here));
        let mut state = self.state();
        let at = state.held.iter().position(is_here).unwrap();
        state.held.remove(at).1
    }

    /// How often a connection came to this step.
    pub fn count(&self, connection: &Connection, step: Step) -> u32 {
        self.state().taken.get(&(connection.id(), step)).copied().unwrap_or(0)
    }

    /// How often any connection came to this step.
    pub fn total(&self, step: Step) -> u32 {
        let state = self.state();
        state.taken.iter().filter(|((_, taken), _)| *taken == step).map(|(_, count)| count).sum()
    }

    /// Blocks until a connection came to this step so many times.
    pub fn wait_for(&self, connection: &Connection, step: Step, count: u32) {
        let what = format!("{connection} comes to {step:?}, time {count}");
        eventually(&what, || self.count(connection, step) >= count);
    }

    fn decide(&self, connection: &Connection, step: Step) -> Action {
        let mut state = self.state();
        *state.taken.entry((connection.id(), step)).or_default() += 1;
        let Some(at) = state.breakpoints.iter().position(|breakpoint| *breakpoint == step) else {
            return Action::Continue;
        };
        state.breakpoints.remove(at);
        state.held.push((step, connection.clone()));
        Action::Hold
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}
