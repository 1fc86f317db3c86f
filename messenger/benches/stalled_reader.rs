//! A peer whose messages nobody takes, beside eight that are served, all on one worker: what it
//! costs the eight, and how much memory it takes.
//!
//! ```text
//!   cargo bench -p messenger --bench stalled_reader -- [--stack posix|sim] [--rounds N]
//!                                                      [--seconds N] [--json]
//! ```
//!
//! The eight send a ping of 4 KiB, wait for the pong and send the next one. The ninth sends messages
//! of 6.8 MB as fast as its queue takes them; the server keeps what it gets of it, until its
//! throttle is full and the connection is not read any more. Rounds without the ninth and rounds
//! with it take turns, and each pair gives a ratio. What the queue and the throttle allow is asserted
//! at every look, and so is the memory that comes of it; times are only printed.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something fails")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{End, Net};
use messenger::{
    Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityName, EntityType,
    Message, Messenger, Policy, Throttle, msg_type,
};

const BUSY: i64 = 8;
const PING_LEN: usize = 4 << 10;
const PILE_LEN: usize = 6_800_000;
/// Bytes of the ninth that the server takes in before it stops reading.
const THROTTLE: u64 = 64 << 20;
/// What the ninth may have outgoing.
const QUEUE: usize = 64 << 20;
/// Beside queue and throttle: the message being read, the one that is made, rings, and what an
/// allocator keeps.
const SLACK: u64 = 64 << 20;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

fn main() {
    let options = Options::from_args();
    let net: Box<dyn Net> = match options.stack.as_str() {
        "posix" => Box::new(common::Posix::new("127.0.0.1", 1)),
        "sim" => Box::new(common::sim::Sim::new(1)),
        other => panic!("unknown stack {other:?}: choose --stack posix or sim"),
    };
    let scene = Scene::open(&*net);
    scene.round(options.time / 4); // warms up
    let base = rss();
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let alone = scene.round(options.time);
        let beside = scene.with_the_ninth(|| scene.round(options.time));
        let bound = base + THROTTLE + QUEUE as u64 + SLACK;
        assert!(beside.rss <= bound, "{} bytes of memory, at most {bound}", beside.rss);
        assert!(beside.held > THROTTLE / 2, "only {} bytes piled up", beside.held);
        rounds.push([alone, beside]);
    }
    report(&options, base, &rounds);
    scene.close();
}

struct Options {
    stack: String,
    rounds: usize,
    time: Duration,
    json: bool,
}

impl Options {
    fn from_args() -> Self {
        let (mut stack, mut rounds, mut seconds) = (String::from("posix"), 5, 10.0);
        let (mut json, mut bench) = (false, false);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().expect("the option has a value");
            match arg.as_str() {
                "--stack" => stack = value(),
                "--rounds" => rounds = value().parse().expect("a number"),
                "--seconds" => seconds = value().parse().expect("a number"),
                "--json" => json = true,
                "--bench" => bench = true,
                other => panic!("unknown option {other}"),
            }
        }
        if !bench {
            // Run by `cargo test`: only show that it works.
            (rounds, seconds) = (1, 1.0);
        }
        Self { stack, rounds, time: Duration::from_secs_f64(seconds), json }
    }
}

/// A server, eight clients that are busy all the time, and one that can be.
struct Scene {
    server: Messenger,
    keeper: Arc<Keeper>,
    busy: Vec<(Messenger, Arc<Pinger>)>,
    ninth: Messenger,
    to_server: Connection,
}

impl Scene {
    fn open(net: &dyn Net) -> Self {
        let keeper = Arc::new(Keeper::default());
        let server = net.messenger(End::Server, name(EntityType::Mon, 0), Config::default());
        server.set_default_policy(Policy::stateless_server()).unwrap();
        let throttle = Throttle::new("stalled", THROTTLE);
        server.set_policy_throttlers(EntityType::Osd, Some(throttle), None).unwrap();
        server.bind((net.ip(End::Server), 0).into()).unwrap();
        start(&server, keeper.clone());
        let client = |name, pinger: Arc<Pinger>| {
            let config = Config { send_queue_bytes: QUEUE, ..Config::default() };
            let client = net.messenger(End::Client, name, config);
            client.set_default_policy(Policy::lossy_client()).unwrap();
            start(&client, pinger);
            let options = ConnectOptions::default();
            let to_server = client.connect_to(EntityType::Mon, &server.addrs(), options).unwrap();
            (client, to_server)
        };
        let busy = (0..BUSY).map(|number| {
            let pinger = Arc::new(Pinger::default());
            let (client, to_server) =
                client(name(EntityType::Client, 4100 + number), pinger.clone());
            pinger.ping(&to_server);
            (client, pinger)
        });
        let busy = busy.collect();
        let (ninth, to_server) = client(name(EntityType::Osd, 9), Arc::default());
        Self { server, keeper, busy, ninth, to_server }
    }

    /// What the eight saw in this time, and the most that was in use.
    fn round(&self, time: Duration) -> Round {
        let until = Instant::now() + time;
        self.busy.iter().for_each(|(_, pinger)| drop(pinger.take()));
        let mut round = Round::default();
        while Instant::now() < until {
            std::thread::sleep(LOOK);
            let (queued, held) = (self.to_server.outgoing().0, self.keeper.held_len());
            assert!(queued <= QUEUE, "{queued} bytes queued, at most {QUEUE}");
            assert!(held <= THROTTLE, "{held} bytes taken in, at most {THROTTLE}");
            round.rss = round.rss.max(rss());
            round.held = round.held.max(held);
        }
        let mut times = Vec::new();
        for (client, pinger) in &self.busy {
            let of = pinger.take();
            assert!(!of.is_empty(), "{} got no pong", client.name());
            times.extend(of);
        }
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        Round { pongs: times.len(), median: at(0.5), p99: at(0.99), ..round }
    }

    /// Does this while the ninth sends and is not served; then it is, to the last message.
    fn with_the_ninth<T>(&self, work: impl FnOnce() -> T) -> T {
        self.keeper.holds.store(true, Ordering::Relaxed);
        let (stop, seen) = (AtomicBool::new(false), self.keeper.seen());
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let data = Bytes::from(vec![0x5a; PILE_LEN]);
                    let message = Message::new(msg_type::OSD_OP).with_data(data);
                    let mut message = Some(message);
                    while let Some(again) = message.take()
                        && !stop.load(Ordering::Relaxed)
                    {
                        match self.to_server.send_message(again) {
                            Ok(()) => sent += 1,
                            Err(error) => {
                                message = Some(error.into_message());
                                std::thread::sleep(Duration::from_millis(1));
                            }
                        }
                    }
                }
                sent
            });
            let result = work();
            stop.store(true, Ordering::Relaxed);
            let sent: usize = sender.join().unwrap();
            self.keeper.let_go();
            common::eventually("the pile is served", || self.keeper.seen() == seen + sent);
            result
        })
    }

    fn close(self) {
        let clients = self.busy.into_iter().map(|(client, _)| client);
        for messenger in clients.chain([self.ninth, self.server]) {
            messenger.shutdown();
            messenger.wait().unwrap();
        }
    }
}

fn start(messenger: &Messenger, dispatcher: Arc<dyn Dispatcher>) {
    messenger.add_dispatcher_tail(dispatcher, DispatcherPriority::DEFAULT).unwrap();
    messenger.start().unwrap();
}

fn name(kind: EntityType, number: i64) -> EntityName {
    EntityName::new(kind, number)
}

/// Sends the next ping when a pong comes, and notes how long it took.
#[derive(Default)]
struct Pinger {
    sent: Mutex<Option<Instant>>,
    times: Mutex<Vec<Duration>>,
}

impl Pinger {
    fn ping(&self, to: &Connection) {
        *self.sent.lock().unwrap() = Some(Instant::now());
        let data = Bytes::from_static(&[7; PING_LEN]);
        // At the end of the benchmark there is nobody to send to.
        let _ = to.send_message(Message::new(msg_type::PING).with_data(data));
    }

    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.times.lock().unwrap())
    }
}

impl Dispatcher for Pinger {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }
    fn fast_dispatch(&self, from: &Connection, _: Message) {
        let sent = self.sent.lock().unwrap().take();
        self.times.lock().unwrap().extend(sent.map(|sent| sent.elapsed()));
        self.ping(from);
    }
}

/// Answers pings, and keeps other messages while it is told to.
#[derive(Default)]
struct Keeper {
    holds: AtomicBool,
    seen: AtomicUsize,
    held: Mutex<Vec<Message>>,
}

impl Keeper {
    fn held_len(&self) -> u64 {
        self.held.lock().unwrap().iter().map(|message| message.data.len() as u64).sum()
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    fn let_go(&self) {
        self.holds.store(false, Ordering::Relaxed);
        self.held.lock().unwrap().clear();
    }
}

impl Dispatcher for Keeper {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }
    fn fast_dispatch(&self, from: &Connection, message: Message) {
        if message.header.kind == msg_type::PING {
            let pong = Message::new(msg_type::PING).with_data(message.data);
            let _ = from.send_message(pong); // it may be gone
            return;
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        let mut held = self.held.lock().unwrap();
        if self.holds.load(Ordering::Relaxed) {
            held.push(message);
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Round {
    pongs: usize,
    median: Duration,
    p99: Duration,
    /// Bytes of the ninth the server took in.
    held: u64,
    /// Most memory in use, in bytes.
    rss: u64,
}

/// Memory in use, in bytes.
fn rss() -> u64 {
    common::memory::rss_kb().unwrap() << 10
}

fn report(options: &Options, base: u64, rounds: &[[Round; 2]]) {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let ratio = |[alone, beside]: &[Round; 2]| micros(beside.median) / micros(alone.median);
    let mut ratios: Vec<_> = rounds.iter().map(ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (least, median, most) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
    let peak = rounds.iter().map(|[_, beside]| beside.rss).max().unwrap_or(base);
    let stack = &options.stack;
    if options.json {
        println!(
            "{{\"stack\":\"{stack}\",\"rounds\":{},\"ratio\":[{least:.3},{median:.3},{most:.3}],\
             \"base_mb\":{:.1},\"peak_mb\":{:.1}}}",
            rounds.len(),
            mb(base),
            mb(peak),
        );
        return;
    }
    println!("{BUSY} busy connections on {stack}, alone and beside one that nobody serves");
    println!("        alone                         beside                                  ");
    println!(
        " round    pongs  p50 us   p99 us       pongs  p50 us   p99 us  held MB  RSS MB  p50 ratio"
    );
    for (index, pair) in rounds.iter().enumerate() {
        let [alone, beside] = pair;
        println!(
            "{:6} {:8} {:7.1} {:8.1}    {:8} {:7.1} {:8.1} {:8.1} {:7.1} {:10.3}",
            index + 1,
            alone.pongs,
            micros(alone.median),
            micros(alone.p99),
            beside.pongs,
            micros(beside.median),
            micros(beside.p99),
            mb(beside.held),
            mb(beside.rss),
            ratio(pair),
        );
    }
    println!(
        "median of the ratios {median:.3} ({least:.3} to {most:.3}); memory {:.1} MB before, at \
         most {:.1} MB",
        mb(base),
        mb(peak),
    );
}
