//! #24: connections marked down from callbacks, under a lock of the application's.

use super::ceph_config;
use crate::common::{Host, Net, Plan, Recorder, eventually, ping};
use messenger::{Connection, Dispatcher, DispatcherPriority, Message, Policy};
use netstack::device::sim::Random;
use std::sync::{Arc, Mutex, MutexGuard};

const ROUNDS: usize = 1000;
/// Rounds in a row without a message at any server.
const STALLED_MAX: usize = 3;
/// Most turns a callback leaves to others while it holds the lock.
const YIELDS_MAX: u64 = 8;
const SEED: u64 = 24;

/// Marks some other connection down with each message, all under its lock.
struct Markdown(Mutex<State>);

struct State {
    connections: Vec<Connection>,
    began: bool,
    messages: usize,
    random: Random,
}

impl Markdown {
    fn new() -> Arc<Self> {
        let (connections, random) = (Vec::new(), Random::new(SEED));
        Arc::new(Self(Mutex::new(State { connections, began: false, messages: 0, random })))
    }

    fn messages(&self) -> usize {
        self.state().messages
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn add(&mut self, connection: &Connection) {
        if !self.connections.contains(connection) {
            self.connections.push(connection.clone());
        }
    }

    /// Others that want the lock come to wait for it.
    fn dawdle(&mut self) {
        (0..self.random.below(YIELDS_MAX)).for_each(|_| std::thread::yield_now());
    }
}

impl Dispatcher for Markdown {
    fn dispatch(&self, connection: &Connection, _: Message) -> Result<(), Message> {
        let mut state = self.state();
        state.messages += 1;
        state.add(connection);
        if state.connections.len() < 2 && !state.began {
            return Ok(());
        }
        state.began = true;
        state.dawdle();
        if let Some(other) = state.connections.iter().position(|other| other != connection) {
            state.connections.remove(other).mark_down();
        }
        Ok(())
    }

    fn handle_fast_connect(&self, connection: &Connection) {
        self.state().add(connection);
    }

    fn handle_fast_accept(&self, connection: &Connection) {
        self.state().add(connection);
    }

    fn handle_reset(&self, connection: &Connection) -> bool {
        let mut state = self.state();
        state.connections.retain(|other| other != connection);
        state.dawdle();
        true
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        self.handle_reset(connection);
    }
}

/// MarkdownTest: no deadlock between `mark_down` and the callbacks it brings about.
pub fn case_24_markdown(net: &impl Net) {
    let (at_servers, at_client) = (Markdown::new(), Markdown::new());
    let host = |plan: Plan<'_>, dispatcher: &Arc<Markdown>| {
        let messenger = net.messenger(plan.end, plan.name, ceph_config());
        messenger.set_default_policy(plan.policy).unwrap();
        messenger.add_dispatcher_tail(dispatcher.clone(), DispatcherPriority::DEFAULT).unwrap();
        plan.listens.bind(net, plan.end, &messenger);
        messenger.start().unwrap();
        let addrs = messenger.addrs();
        Host { messenger: Arc::new(messenger), recorder: Arc::default(), addrs }
    };
    let server = || Plan::server(Recorder::queued(), Policy::stateless_server());
    let servers = [(); 2].map(|()| host(server(), &at_servers));
    let client = host(Plan::client(Recorder::queued(), Policy::lossy_client()), &at_client);

    let mut stalled = 0;
    for round in 0..ROUNDS {
        let before = at_servers.messages();
        let connections = servers.each_ref().map(|server| client.connect(server));
        for connection in &connections {
            // It may be on its way down.
            let _ = connection.send_message(ping(round as u64));
        }
        eventually("a message arrives or its connection ends", || {
            at_servers.messages() > before || connections.iter().all(Connection::is_down)
        });
        let progress = at_servers.messages() > before;
        stalled = if progress { 0 } else { stalled + 1 };
        assert!(stalled <= STALLED_MAX, "#24: round {round} is stalled");
    }
    client.end();
    servers.iter().for_each(Host::end);
}
