//! What secure mode costs against crc mode: processor time of both ends for a message of 64 KiB.
//!
//! ```text
//!   cargo bench -p messenger --no-default-features --bench secure_cost -- [--rounds N]
//!                                                     [--messages N] [--buffers N] [--json]
//! ```
//!
//! Twice the same: a client that logged in by cephx sends messages over loopback, a few under way,
//! and the server answers each with an empty one. One pair talks in crc mode, the other in secure
//! mode; their rounds take turns, and each two give a ratio. A round is short, so that both of one
//! ratio meet the same machine, and who comes first alternates. Messages take turns with several
//! buffers, for nobody sends the same bytes, warm in a cache, all the time. What is counted is the
//! processor time of the whole process, the kernel's part included.
//!
//! Where the ends live makes a difference, so there is a line for each case: a worker for both ends,
//! which never sleeps while there is work, and a worker an end, as on two hosts. The last line is
//! frames that are written and read again, without messengers and kernel.

#![expect(clippy::unwrap_used, reason = "a benchmark ends when something fails")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../proto/benches/pass/mod.rs"]
mod pass;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use common::{End, Net, Posix};
use messenger::auth::cephx::{LoginServer, Services, TicketLifetimes};
use messenger::auth::keyring::Principal;
use messenger::auth::{Auth, AuthMethod, AuthRules, ConnectionMode, Key, Keyring, Secrets};
use messenger::{
    Connection, Dispatcher, DispatcherPriority, EntityName, EntityType, Message, Messenger, Policy,
    msg_type,
};
use messenger_proto::v2::{ConnectionSecret, Decoder, Encoder, Revision, Role, Wire};
use pass::pass;

const LEN: usize = 64 << 10;
/// Messages under way.
const DEPTH: usize = 8;
const HEADER_LEN: usize = 41;

fn main() {
    let options = Options::from_args();
    let modes = [ConnectionMode::Crc, ConnectionMode::Secure];
    let buffers = content(options.buffers);
    let over_messengers = |place| {
        let scenes = modes.map(|mode| Scene::open(mode, place, &buffers));
        let times = measure(&options, |mode| scenes[mode].send(options.messages));
        scenes.into_iter().for_each(Scene::close);
        times
    };
    let shared = over_messengers(Place::SharedWorker);
    let apart = over_messengers(Place::WorkerAnEnd);
    let write_and_read = |mode: usize| write_and_read(modes[mode], &buffers, options.messages);
    let frames = measure(&options, write_and_read);
    let parts = [("shared worker", shared), ("a worker an end", apart), ("frames", frames)];
    report(&options, &parts);
}

struct Options {
    rounds: usize,
    buffers: usize,
    messages: usize,
    json: bool,
}

impl Options {
    fn from_args() -> Self {
        let (mut rounds, mut messages, mut buffers) = (101, 1000, 64);
        let (mut json, mut bench) = (false, false);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().and_then(|word| word.parse().ok()).expect("a number");
            match arg.as_str() {
                "--rounds" => rounds = value(),
                "--messages" => messages = value(),
                "--buffers" => buffers = value(),
                "--json" => json = true,
                "--bench" => bench = true,
                other => panic!("unknown option {other}"),
            }
        }
        if !bench {
            // Run by `cargo test`: only show that it works.
            (rounds, messages) = (1, 100);
        }
        Self { rounds, buffers, messages, json }
    }
}

/// Microseconds a message in each round, in crc mode and in secure mode.
fn measure(options: &Options, work: impl Fn(usize)) -> Vec<[f64; 2]> {
    let time = |mode| {
        let begin = cpu_time();
        work(mode);
        (cpu_time() - begin) / options.messages as f64 * 1e6
    };
    let _warm_up = [0, 1].map(time);
    let round = |index| {
        let mut times = [0.0; 2];
        let order = if index % 2 == 0 { [0, 1] } else { [1, 0] };
        order.into_iter().for_each(|mode| times[mode] = time(mode));
        times
    };
    (0..options.rounds).map(round).collect()
}

/// Which workers the two ends of a session have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    SharedWorker,
    WorkerAnEnd,
}

/// A server and a client with a session in one mode.
struct Scene {
    server: Messenger,
    client: Messenger,
    sender: Arc<Sender>,
    to_server: Connection,
}

impl Scene {
    fn open(mode: ConnectionMode, place: Place, buffers: &[Bytes]) -> Self {
        let net = Posix::new("127.0.0.1", 1);
        let other = (place == Place::WorkerAnEnd).then(|| Posix::new("127.0.0.1", 1));
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let key = Key::generate(now, &mut random);
        let mut keyring = Keyring::default();
        let principal = Principal { key: key.clone(), caps: Default::default() };
        keyring.insert("client.admin".parse().unwrap(), principal);
        let monitor = LoginServer::new(keyring, TicketLifetimes::default(), now, &mut random);
        let rules = || AuthRules::uniform(&[AuthMethod::Cephx], &[mode]);

        let name = EntityName::new(EntityType::Mon, 0);
        let server = net.messenger(End::Server, name, common::config());
        let secrets = Secrets::new(random).with_monitor(monitor);
        server.set_auth(Auth::with_secrets(rules(), secrets)).unwrap();
        server.set_default_policy(Policy::stateless_server()).unwrap();
        server.bind((net.ip(End::Server), 0).into()).unwrap();
        start(&server, Arc::new(Answerer));

        let name = EntityName::new(EntityType::Client, EntityName::UNNUMBERED);
        let client = other.as_ref().unwrap_or(&net).messenger(End::Client, name, common::config());
        let secrets = Secrets::new(random).with_key(key, Services::NONE);
        client.set_auth(Auth::with_secrets(rules(), secrets)).unwrap();
        client.set_default_policy(Policy::lossy_client()).unwrap();
        let sender = Arc::new(Sender { data: buffers.to_vec(), ..Sender::default() });
        start(&client, sender.clone());
        let options = messenger::ConnectOptions::default();
        let to_server = client.connect_to(EntityType::Mon, &server.addrs(), options).unwrap();
        let scene = Self { server, client, sender, to_server };
        scene.send(1);
        let sealed = scene.client.counters().total("msgr_send_encrypted_bytes");
        assert_eq!(sealed > LEN as u64, mode == ConnectionMode::Secure, "{sealed} bytes sealed");
        scene
    }

    /// Sends so many messages and waits for their answers.
    fn send(&self, messages: usize) {
        let Sender { left, answered, .. } = &*self.sender;
        answered.store(0, Ordering::Relaxed);
        let first = messages.min(DEPTH);
        left.store(messages - first, Ordering::Relaxed);
        for _ in 0..first {
            self.sender.send(&self.to_server);
        }
        common::eventually("all are answered", || answered.load(Ordering::Relaxed) == messages);
    }

    fn close(self) {
        for messenger in [self.client, self.server] {
            messenger.shutdown();
            messenger.wait().unwrap();
        }
    }
}

fn start(messenger: &Messenger, dispatcher: Arc<dyn Dispatcher>) {
    messenger.add_dispatcher_tail(dispatcher, DispatcherPriority::DEFAULT).unwrap();
    messenger.start().unwrap();
}

/// Sends one message for each answer, until none is left.
#[derive(Default)]
struct Sender {
    data: Vec<Bytes>,
    sent: AtomicUsize,
    left: AtomicUsize,
    answered: AtomicUsize,
}

impl Sender {
    fn send(&self, to: &Connection) {
        let data = &self.data[self.sent.fetch_add(1, Ordering::Relaxed) % self.data.len()];
        to.send_message(Message::new(msg_type::OSD_OP).with_data(data.clone())).unwrap();
    }
}

impl Dispatcher for Sender {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }
    fn fast_dispatch(&self, from: &Connection, _: Message) {
        let left = self.left.load(Ordering::Relaxed); // only this thread takes from it
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            self.send(from);
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers each message with an empty one.
struct Answerer;

impl Dispatcher for Answerer {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }
    fn can_fast_dispatch(&self, _: &Message) -> bool {
        true
    }
    fn fast_dispatch(&self, from: &Connection, message: Message) {
        assert_eq!(message.data.len(), LEN);
        from.send_message(Message::new(msg_type::PING)).unwrap();
    }
}

/// Frames with a header and the data, written and read as transports do.
fn write_and_read(mode: ConnectionMode, buffers: &[Bytes], messages: usize) {
    let wire = Wire { revision: Revision::Rev1, crc_data: true };
    let (mut encoder, mut decoder) = (Encoder::new(wire), Decoder::new(wire));
    if mode == ConnectionMode::Secure {
        let mut secret = [0; 64];
        random(&mut secret);
        let secret = ConnectionSecret::new(&secret).unwrap();
        encoder.secure(secret.keys(Role::Client, wire.revision).unwrap().0);
        decoder.secure(secret.keys(Role::Server, wire.revision).unwrap().1);
    }
    let (header, none) = (buffers[0].slice(..HEADER_LEN), Bytes::new());
    let mut out = BytesMut::new();
    for data in buffers.iter().cycle().take(messages) {
        pass(&mut encoder, &mut decoder, &header, [&none, &none, data], &mut out).unwrap();
    }
}

fn content(buffers: usize) -> Vec<Bytes> {
    let buffer = |seed| (0..LEN).map(|at| (at * at / (7 + seed) % 251) as u8).collect();
    (0..buffers).map(buffer).collect()
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

/// Seconds of processor time this process has had, in the kernel and outside.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The middle of some values, and between which two the middle half of them lies.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

fn report(options: &Options, parts: &[(&str, Vec<[f64; 2]>)]) {
    if !options.json {
        println!(
            "{LEN} B, {} messages a round, {} rounds; microseconds of processor time a message, \
             median (quartiles)",
            options.messages, options.rounds
        );
    }
    for (part, rounds) in parts {
        let [crc, secure] = [0, 1].map(|mode| quartiles(rounds.iter().map(|r| r[mode]).collect()));
        let ratio = quartiles(rounds.iter().map(|[crc, secure]| secure / crc).collect());
        if options.json {
            println!(
                "{{\"part\":\"{part}\",\"rounds\":{},\"crc_us\":{crc:.2?},\
                 \"secure_us\":{secure:.2?},\"ratio\":{ratio:.3?}}}",
                options.rounds,
            );
            continue;
        }
        let show =
            |[lower, median, upper]: [f64; 3]| format!("{median:.2} ({lower:.2} .. {upper:.2})");
        println!("{part:>15}: crc {}, secure {}, ratio {}", show(crc), show(secure), show(ratio));
    }
}
