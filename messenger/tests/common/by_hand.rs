//! Two hosts as in [`super::sim`] without threads: whoever has them turns them, so that all their
//! work can be counted.

use super::{End, sim};
use bytes::Bytes;
use messenger::{
    AddrType, Clock, Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority,
    DriveOptions, Driven, EntityAddr, EntityName, EntityType, Message, Messenger, Policy,
};
use netstack::device::sim::{SimDevice, SimNet, SimPort};
use netstack::native::{IdlePolicy, NativeConfig, NativeStack};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A server that sends everything back, and a client that sends each answer as the next question.
pub struct Pair {
    hosts: [Host; 2],
    clock: Clock,
    player: Arc<Player>,
    connections: Vec<Connection>,
    /// Of each host.
    workers: u16,
}

struct Host {
    driven: Driven,
    messenger: Messenger,
}

/// Sends back what it gets, and counts it.
#[derive(Default)]
struct Player {
    messages: AtomicU64,
}

impl Dispatcher for Player {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }
    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let Message { header, front, .. } = message;
        let back = Message::new(header.kind).with_tid(header.tid).with_front(front);
        connection.send_message(back).expect("there is room for what there was room for");
    }
}

impl Pair {
    /// Joined by a cable without length, with so many workers on each host and sessions between
    /// them: a lossless one, or several lossy ones, as one client can have.
    pub fn new(workers: u16, sessions: usize) -> Self {
        let policies = match sessions {
            1 => [Policy::lossless_peer(), Policy::lossless_peer()],
            _ => [Policy::stateless_server(), Policy::lossy_client()],
        };
        let ports = sim::ports(workers).map(|port| SimPort { vouches: true, ..port });
        let (_, devices) = SimNet::new(1, &ports);
        let [server, client]: [Vec<SimDevice>; 2] = devices.try_into().expect("two ports");
        let player = Arc::new(Player::default());
        let clock = Clock::virtual_from(Instant::now());
        let [serving, calling] = policies;
        let server = Host::new(End::Server, server, serving, &clock);
        let client = Host::new(End::Client, client, calling, &clock);
        server.messenger.add_dispatcher_tail(Arc::new(Player::default()), PRIORITY).unwrap();
        client.messenger.add_dispatcher_tail(player.clone(), PRIORITY).unwrap();
        let socket = Some(SocketAddr::new(sim::ip(End::Server), 6800));
        let addr = EntityAddr { kind: AddrType::Msgr2, nonce: 0, socket };
        server.messenger.bindv(&addr.into(), None).unwrap();
        server.messenger.start().unwrap();
        client.messenger.start().unwrap();
        let addrs = server.messenger.addrs();
        let options = ConnectOptions { anonymous: true, ..ConnectOptions::default() };
        let connect = |_| client.messenger.connect_to(EntityType::Osd, &addrs, options).unwrap();
        let connections = (0..sessions).map(connect).collect();
        Self { hosts: [server, client], clock, player, connections, workers }
    }

    /// Puts one more message of this payload under way in each session.
    pub fn serve(&self, front: &Bytes) {
        for connection in &self.connections {
            connection.send_message(Message::new(42).with_front(front.clone())).unwrap();
        }
    }

    /// Turns both until the client got so many more messages.
    pub fn play(&self, messages: u64) {
        let goal = self.player.messages.load(Ordering::Relaxed) + messages;
        while self.player.messages.load(Ordering::Relaxed) < goal {
            self.clock.advance_to(self.clock.now() + TURN);
            for host in &self.hosts {
                (0..self.workers).for_each(|worker| host.driven.turn(worker.into()).unwrap());
            }
        }
    }
}

const PRIORITY: DispatcherPriority = DispatcherPriority::DEFAULT;
/// How long a turn of both takes, for them.
const TURN: Duration = Duration::from_micros(1);

impl Host {
    fn new(end: End, devices: Vec<SimDevice>, policy: Policy, clock: &Clock) -> Self {
        let config = NativeConfig { idle: IdlePolicy::Spin, ..sim::native_config(end) };
        let options = DriveOptions {
            clock: clock.clone(),
            seed: end as u64,
            inbox_items: const { NonZeroUsize::new(1024).unwrap() },
        };
        let driven = Driven::new(NativeStack::new(devices, config), &options).unwrap();
        let kind = [EntityType::Osd, EntityType::Client][end as usize];
        let name = EntityName::new(kind, 0);
        let messenger = Messenger::with_workers(name, Config::default(), driven.workers()).unwrap();
        messenger.set_default_policy(policy).unwrap();
        Self { driven, messenger }
    }
}
