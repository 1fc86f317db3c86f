//! Conformance cases 33 and 36 (docs/conformance.md): what our example of a monitor, `mini_mon`, makes
//! of messages, right and wrong. They are written by hand, as Ceph's clients write them.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use common::{End, Host, Net, Plan, Posix, Recorder, Saw, config, send};
use messenger::{
    ConnectOptions, Connection, DispatcherPriority, EntityName, EntityType, Message, Messenger,
    Policy,
};
use messenger_ceph::{Fsid, MonInfo, MonMap};
use monitor::Monitor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[path = "../examples/mini_mon/commands.rs"]
mod commands;
mod common;
#[path = "../examples/mini_mon/monitor.rs"]
mod monitor;

const PING: u16 = 2;
const MON_MAP: u16 = 4;
const MON_GET_MAP: u16 = 5;
const MON_SUBSCRIBE: u16 = 15;
const AUTH: u16 = 17;
const AUTH_REPLY: u16 = 18;
const MON_GET_VERSION: u16 = 19;
const MON_GET_VERSION_REPLY: u16 = 20;
const MON_COMMAND: u16 = 50;
const MON_COMMAND_ACK: u16 = 51;
const CONFIG: u16 = 62;

const FSID: &str = "3f04cebd-60a0-46cf-a196-ccb5f627f974";

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// What every message about monitors' maps begins with: no version, no session.
fn paxos() -> Vec<u8> {
    [&[0; 8][..], &[0xff; 2], &[0; 8]].concat()
}

fn fsid() -> Fsid {
    FSID.parse().unwrap()
}

/// A client of a running monitor.
struct Client {
    monitor: Messenger,
    host: Host,
    connection: Connection,
}

impl Client {
    fn new() -> Self {
        let net = Posix::new("127.0.0.1", 1);
        let name = EntityName::new(EntityType::Mon, 0);
        let monitor = net.messenger(End::Server, name, config());
        monitor.set_default_policy(Policy::stateless_server()).unwrap();
        let addrs = monitor.bind(SocketAddr::new(net.ip(End::Server), 0)).unwrap();
        let info = MonInfo { name: "a".into(), addrs: addrs.clone(), ..MonInfo::default() };
        let map = MonMap::new(fsid(), Duration::from_secs(1), vec![info]);
        let dispatcher = Arc::new(Monitor::new(map, monitor.auth()));
        monitor.add_dispatcher_tail(dispatcher, DispatcherPriority::DEFAULT).unwrap();
        monitor.start().unwrap();
        let recorder = Recorder::queued().keeping_messages();
        let host = Plan::client(recorder, Policy::lossy_client()).start(&net);
        let options = ConnectOptions::default();
        let connection = host.messenger.connect_to(EntityType::Mon, &addrs, options).unwrap();
        Self { monitor, host, connection }
    }

    /// What the monitor answers.
    fn ask(&self, message: Message, answers: usize) -> Vec<Message> {
        let recorder = &self.host.recorder;
        let known = recorder.saw().iter().filter(|saw| matches!(saw, Saw::Queued(_))).count();
        send(&self.connection, message);
        recorder.wait_for_messages(known + answers);
        recorder.take_messages()
    }

    /// The only answer, of this type, with the tid of what was asked.
    fn ask_once(&self, message: Message, kind: u16) -> Message {
        let tid = message.header.tid;
        let answer = self.ask(message, 1).pop().unwrap();
        assert_eq!((answer.header.kind, answer.header.tid), (kind, tid));
        answer
    }

    /// The monitor closes the connection for this.
    fn ends_with(self, message: Message) {
        send(&self.connection, message);
        self.host.recorder.wait_for(&Saw::Reset);
        assert!(self.host.recorder.take_messages().is_empty());
        self.end();
    }

    fn end(self) {
        self.host.end();
        self.monitor.shutdown();
        self.monitor.wait().unwrap();
    }
}

/// Of everything, in the order of its types.
fn subscriptions(what: &[&str]) -> Vec<u8> {
    let count = (what.len() as u32).to_le_bytes().to_vec();
    let each = what.iter().flat_map(|what| [text(what), vec![0; 9]].concat());
    [count, each.collect(), text("host")].concat()
}

#[test]
fn c36_a_monitor_answers_what_clients_ask() {
    let client = Client::new();
    let pong = client.ask_once(Message::new(PING).with_version(1, 0), PING);
    assert!(pong.front.ends_with(b"}"), "{:?}", pong.front);

    let map = client.ask_once(Message::new(MON_GET_MAP), MON_MAP);
    let id: Vec<u8> = FSID.replace('-', "").into_bytes();
    let id = id.chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
    let id: Vec<u8> = id.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
    assert_eq!(map.front[10..26], id);

    let front = subscriptions(&["config", "monmap"]);
    let subscribe = Message::new(MON_SUBSCRIBE).with_version(3, 1).with_front(front);
    let kinds = client.ask(subscribe, 2).into_iter().map(|answer| answer.header.kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [CONFIG, MON_MAP]);

    let front = [&7_u64.to_le_bytes()[..], &text("monmap")].concat();
    let version = Message::new(MON_GET_VERSION).with_tid(9).with_front(front);
    let version = client.ask_once(version, MON_GET_VERSION_REPLY);
    assert_eq!(version.front[..8], 7_u64.to_le_bytes());
    assert_eq!(version.front[8..16], 1_u64.to_le_bytes());

    let command = text(r#"{"prefix": "fsid"}"#);
    let front = [paxos(), id, 1_u32.to_le_bytes().to_vec(), command].concat();
    let command = Message::new(MON_COMMAND).with_tid(10).with_front(front);
    let done = client.ask_once(command, MON_COMMAND_ACK);
    assert_eq!(done.front[18..22], [0; 4]);
    assert_eq!(done.data, format!("{FSID}\n"));
    client.end();
}

#[test]
fn a_monitor_without_keys_has_no_tickets() {
    let client = Client::new();
    let ask = [&paxos()[..], &2_u32.to_le_bytes(), &2_u32.to_le_bytes(), &[0, 2], &[0; 4]].concat();
    let refused =
        client.ask_once(Message::new(AUTH).with_version(1, 1).with_front(ask), AUTH_REPLY);
    let result = i32::from_le_bytes(refused.front[4..8].try_into().unwrap());
    assert_eq!(result, -13);
    client.end();
}

#[test]
fn c33_what_a_monitor_cannot_decode_closes() {
    let cut = Message::new(MON_SUBSCRIBE).with_version(3, 1).with_front(vec![0xff; 4]);
    Client::new().ends_with(cut);
    let front = subscriptions(&["monmap"]);
    let newer = Message::new(MON_SUBSCRIBE).with_version(200, 200).with_front(front);
    Client::new().ends_with(newer);
}

/// Ceph's daemons close. Our messenger knows no types: whom no dispatcher wants is dropped.
#[test]
fn c33_a_message_of_an_unknown_type_is_dropped() {
    let client = Client::new();
    send(&client.connection, Message::new(0x7777).with_front("whatever"));
    client.ask_once(Message::new(MON_GET_MAP), MON_MAP);
    assert_eq!(client.host.recorder.count(&Saw::Reset), 0);
    client.end();
}
