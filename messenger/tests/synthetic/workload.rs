//! Does to the messengers of a shape what the shape says.

use super::ledger::{Ledger, Totals};
use super::party::{Party, Payload, UNTRACKED, Who};
use super::{Mix, Shape};
use crate::common::{End, Listens, Net};
use bytes::Bytes;
use messenger::{
    Config, ConnectOptions, Connection, DispatcherPriority, EntityName, EntityType, Message,
    Messenger, SendError, Throttle, msg_type,
};
use netstack::device::sim::Random;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How many different pieces of data there are.
const PIECES: u64 = 100;
const DATA_MIN: usize = 32;
/// What overtakes pings in every queue.
const COMMAND_PRIORITY: u16 = 200;
const COMMAND_PERCENT: u64 = 5;
/// Shortest and longest sleep between two operations.
const SLEEP: [Duration; 2] = [Duration::from_micros(500), Duration::from_micros(1500)];
/// How soon a full queue is tried again.
const RETRY: Duration = Duration::from_micros(200);
/// Budgets of each server for all its clients, an OSD's in Ceph.
const SERVER_MESSAGES: u64 = 256;
const SERVER_BYTES: u64 = 500 << 20;

/// A usable connection: whose it is, and whom it leads to.
struct Line {
    connection: Connection,
    owner: usize,
    peer: usize,
}

/// Messengers under load; ended by [`Workload::finish`].
pub struct Workload {
    shape: Shape,
    random: Random,
    data: Vec<Bytes>,
    ledger: Arc<Ledger>,
    throttles: Vec<Arc<Throttle>>,
    /// Servers, then clients.
    messengers: Vec<Messenger>,
    lines: Vec<Line>,
}

impl Workload {
    /// Starts all messengers.
    ///
    /// # Errors
    /// What the messenger said.
    pub fn start(net: &dyn Net, shape: Shape, seed: u64) -> Result<Self, messenger::Error> {
        let ledger = Arc::<Ledger>::default();
        let (mut messengers, mut throttles) = (Vec::new(), Vec::new());
        for index in 0..shape.servers + shape.clients {
            let is_server = index < shape.servers;
            let (end, kind, config, policy) = match is_server {
                true => (End::Server, EntityType::Osd, &shape.server_config, &shape.server_policy),
                false => {
                    (End::Client, shape.client_type, &shape.client_config, &shape.client_policy)
                }
            };
            let name = EntityName::new(kind, index as i64);
            // A dispatcher on a worker cannot wait for room.
            let send_queue_bytes = shape.outstanding_max * shape.data_max;
            let config = Config { send_queue_bytes, ..config.clone() };
            let messenger = net.messenger(end, name, config);
            messenger.set_default_policy(policy.clone())?;
            if is_server {
                let bytes = Throttle::new("bytes", SERVER_BYTES);
                let messages = Throttle::new("messages", SERVER_MESSAGES);
                throttles.extend([bytes.clone(), messages.clone()]);
                messenger.set_policy_throttlers(shape.client_type, Some(bytes), Some(messages))?;
            }
            let random = Mutex::new(Random::new(seed ^ index as u64));
            let party = Party { ledger: ledger.clone(), dispatching: shape.dispatching, random };
            messenger.add_dispatcher_tail(Arc::new(party), DispatcherPriority::DEFAULT)?;
            if is_server || shape.is_between_peers() {
                Listens::One.bind(net, end, &messenger);
            }
            messenger.start()?;
            messengers.push(messenger);
        }
        let mut random = Random::new(seed);
        let data = pieces(&mut random, shape.data_max);
        Ok(Self { shape, random, data, ledger, throttles, messengers, lines: Vec::new() })
    }

    /// Seeds connections and carries out all operations. `stop` is asked between them.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn run(&mut self, stop: impl Fn() -> bool) -> Result<(), String> {
        for _ in 0..self.shape.seed_connections {
            self.connect()?;
        }
        for _ in 0..self.shape.operations {
            if stop() {
                break;
            }
            let Mix { connect, drop, sleep } = self.shape.mix;
            match self.random.below(100) {
                roll if roll < connect => self.connect()?,
                roll if roll < connect + drop => self.drop_connection()?,
                roll if roll < connect + drop + sleep => self.sleep(),
                _ => self.send()?,
            }
        }
        Ok(())
    }

    /// How many sessions lost their transport so far, on both hosts.
    pub fn faults(&self) -> u64 {
        let [first, .., last] = &self.messengers[..] else {
            return 0;
        };
        first.counters().total("msgr_faults").max(last.counters().total("msgr_faults"))
    }

    /// Drains, checks that nothing is left, and ends all messengers.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn finish(self) -> Result<Totals, String> {
        let drain = self.shape.drain;
        self.ledger.drain(drain)?;
        if self.shape.is_lossless() {
            self.idle(drain)?;
        }
        let within = Instant::now() + drain;
        for messenger in &self.messengers {
            messenger.shutdown();
            messenger.wait().map_err(|error| format!(".8: {messenger:?}: {error}"))?;
            if messenger.dispatch_queue_len() != 0 || messenger.counters().connections != 0 {
                return Err(format!(".8: {messenger:?} ended with something left"));
            }
        }
        if let Some(line) = self.lines.iter().find(|line| !line.connection.is_down()) {
            return Err(format!(".8: {} outlived its messenger", line.connection));
        }
        for throttle in &self.throttles {
            wait(within, &format!("{} is free", throttle.name()), || throttle.current() == 0)?;
        }
        self.ledger.close()
    }

    /// Nothing is queued, held or unacknowledged any more.
    fn idle(&self, patience: Duration) -> Result<(), String> {
        let until = Instant::now() + patience;
        for messenger in &self.messengers {
            wait(until, ".8: empty dispatch queues", || messenger.dispatch_queue_len() == 0)?;
            let name = messenger.name();
            wait(until, &format!("{name} holds no bytes"), || {
                messenger.counters().dispatch_throttle_bytes == 0
            })?;
            if messenger.counters().callback_panics > 0 {
                return Err(format!("a callback of {name} panicked"));
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<(), String> {
        let server = self.random.below(self.shape.servers as u64) as usize;
        let client = self.shape.servers + self.random.below(self.shape.clients as u64) as usize;
        let swapped = self.shape.is_between_peers() && self.random.below(2) == 0;
        let (owner, peer) = if swapped { (server, client) } else { (client, server) };
        let connection = self.connection(owner, peer)?;
        self.ledger.count(|totals| totals.connects += 1);
        if self.lines.iter().all(|line| line.connection != connection) {
            self.lines.push(Line { connection, owner, peer });
        }
        Ok(())
    }

    fn connection(&self, owner: usize, peer: usize) -> Result<Connection, String> {
        let (from, to) = (&self.messengers[owner], &self.messengers[peer]);
        let connect = || from.connect_to(to.name().kind, &to.addrs(), ConnectOptions::default());
        connect().map_err(|error| format!("{from:?} to {to:?}: {error}"))
    }

    /// .6: between peers both ends are marked down, or the one left would bring the other back.
    fn drop_connection(&mut self) -> Result<(), String> {
        let Some(at) = self.any_line() else {
            return Ok(());
        };
        let Line { connection, owner, peer } = self.lines.swap_remove(at);
        connection.mark_down();
        self.ledger.clear(&connection);
        self.ledger.count(|totals| totals.drops += 1);
        if self.shape.is_between_peers() && self.shape.is_lossless() {
            let other = self.connection(peer, owner)?;
            other.mark_down();
            self.ledger.clear(&other);
            self.lines.retain(|line| line.connection != other);
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), String> {
        let Some(at) = self.any_line() else {
            return Ok(());
        };
        let connection = self.lines[at].connection.clone();
        let piece = self.random.below(self.data.len() as u64) as usize;
        let data = self.data[piece].clone();
        if self.random.below(100) < COMMAND_PERCENT {
            let command = Message::new(msg_type::MON_COMMAND);
            let command = command.with_priority(COMMAND_PRIORITY).with_data(data);
            return self.post(&connection, command).map(|_| ());
        }
        if !self.shape.is_lossless() {
            let ping = Payload { who: Who::Ping, index: UNTRACKED };
            let taken = self.post(&connection, ping.message(data))?;
            if !taken {
                self.lines.swap_remove(at);
            }
            return Ok(());
        }
        let (max, patience) = (self.shape.outstanding_max, self.shape.drain);
        let index = self.ledger.issue(&connection, data.clone(), max, patience)?; // .3
        let ping = Payload { who: Who::Ping, index };
        if !self.post(&connection, ping.message(data))? {
            // Its peer started over or left it: a newcomer took its place.
            self.ledger.clear(&connection);
            self.lines.swap_remove(at);
        }
        Ok(())
    }

    /// Sends as soon as there is room; false: the connection has ended.
    fn post(&self, connection: &Connection, message: Message) -> Result<bool, String> {
        let until = Instant::now() + self.shape.drain;
        let mut message = message;
        loop {
            match connection.send_message(message) {
                Ok(()) => return Ok(true),
                Err(SendError::Closed(_)) => return Ok(false),
                Err(error @ SendError::Full(_)) => message = error.into_message(),
                Err(error) => return Err(format!("{connection}: {error}")),
            }
            if Instant::now() > until {
                return Err(format!("the queue of {connection:?} stays full"));
            }
            std::thread::sleep(RETRY);
        }
    }

    fn sleep(&mut self) {
        let [shortest, longest] = SLEEP;
        let more = self.random.below((longest - shortest).as_micros() as u64);
        std::thread::sleep(shortest + Duration::from_micros(more));
    }

    fn any_line(&mut self) -> Option<usize> {
        let count = self.lines.len() as u64;
        (count > 0).then(|| self.random.below(count) as usize)
    }
}

/// .5: pieces of one random buffer.
fn pieces(random: &mut Random, data_max: usize) -> Vec<Bytes> {
    let words = data_max.div_ceil(8) as u64;
    let buffer: Vec<u8> = (0..words).flat_map(|_| random.next_u64().to_le_bytes()).collect();
    let buffer = Bytes::from(buffer);
    let piece = |_| {
        let len = DATA_MIN + random.below((data_max - DATA_MIN) as u64 + 1) as usize;
        let start = random.below((data_max - len) as u64 + 1) as usize;
        buffer.slice(start..start + len)
    };
    (0..PIECES).map(piece).collect()
}

fn wait(until: Instant, what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
    while !holds() {
        if Instant::now() > until {
            return Err(format!("gave up waiting until {what}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
