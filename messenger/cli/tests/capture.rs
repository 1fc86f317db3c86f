//! What `--capture` records over DPDK on a tap, as Wireshark's `tshark` and `msgr decode` read it:
//! both find the same bytes in the same TCP streams, and nothing wrong. Needs root and the package
//! tshark.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use lab::sandbox::Namespace;
use lab::{KERNEL_V4, MSGR, PATIENCE, PORT, STACK_V4, TapServer, inside, need_root};
use messenger::{
    Config, Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityName, EntityType,
    Message, Messenger, MsType, OpThreads, Policy,
};
use messenger_ceph::{Fsid, JsonCommand, MMonCommand, MMonGetMap, MPing, Payload};
use messenger_proto::MessageHeader;
use messenger_proto::crc::crc32c;
use messenger_proto::message::PRIORITY_HIGH;
use messenger_proto::v1::{CRC_SEED, Header};
use serde_json::Value;
use tempfile::TempDir;

const SERVER: EntityName = EntityName::new(EntityType::Osd, 0);
const CLIENT: EntityName = EntityName::new(EntityType::Client, 4242);
const MESSAGES: u64 = 20;
/// A message has several TCP segments, and some segments two messages.
const LEN: u64 = 3000;
/// What both sides say first, in hexadecimal: its frames are of revision 1.
const BANNER: &str = "636570682076320a100001000000000000000000000000000000";
/// What tshark tells of a recording that is not whole, or not of what was on the wire. A segment that
/// was sent again is neither.
const WRONG: &str = "tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment || \
                     ip.checksum.status == 0 || tcp.checksum.status == 0 || _ws.malformed";

/// What tshark tells of a message of msgr1, and who said it.
const FIELDS: [&str; 12] = [
    "tcp.srcport",
    "ceph.seq",
    "ceph.tid",
    "ceph.type",
    "ceph.priority",
    "ceph.front_size",
    "ceph.middle_size",
    "ceph.data_size",
    "ceph.crc",
    "ceph.foot.front_crc",
    "ceph.foot.middle_crc",
    "ceph.foot.data_crc",
];

/// Bytes in hexadecimal, by sender and receiver.
type Streams = BTreeMap<(String, String), String>;

/// A directory with a recording.
struct Recording(TempDir);

impl Recording {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("tap.pcapng")
    }

    /// What `tshark -r FILE ARGS` prints, with all checksums looked at.
    fn tshark(&self, args: &[&str]) -> String {
        let mut command = Command::new("tshark");
        command.arg("-r").arg(self.file());
        for protocol in ["ip", "tcp"] {
            command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        let out = command.args(args).output();
        says(out.expect("there is no `tshark`; install it with: .ci/bootstrap"))
    }

    /// The bytes of the first two connections, as tshark puts them in order.
    fn streams(&self) -> Streams {
        let text = self.tshark(&["-q", "-z", "follow,tcp,raw,0", "-z", "follow,tcp,raw,1"]);
        let (mut streams, mut nodes) = (Streams::new(), [String::new(), String::new()]);
        for line in text.lines() {
            if let Some((node, addr)) = line.strip_prefix("Node ").and_then(|l| l.split_once(": "))
            {
                nodes[node.parse::<usize>().unwrap()] = addr.to_owned();
            } else if !line.is_empty() && line.trim().bytes().all(|b| b.is_ascii_hexdigit()) {
                let from = usize::from(line.starts_with('\t')); // the second node's are moved in
                let way = (nodes[from].clone(), nodes[1 - from].clone());
                streams.entry(way).or_default().push_str(line.trim());
            }
        }
        streams
    }

    /// What `msgr decode` finds, a frame a line.
    fn frames(&self) -> Vec<Value> {
        let mut command = Command::new(MSGR);
        let text =
            says(command.args(["decode", "--json", "--hex"]).arg(self.file()).output().unwrap());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn says(out: Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The frames of each way, and nothing that is none but a banner.
fn by_way(lines: &[Value]) -> BTreeMap<(String, String), Vec<&Value>> {
    let mut ways: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in lines {
        // As tshark writes addresses.
        let party = |key: &str| line[key].as_str().unwrap().replace(['[', ']'], "");
        let frames = ways.entry((party("from"), party("to"))).or_default();
        match line["note"].as_str() {
            None => frames.push(line),
            Some(note) => {
                assert!(note.starts_with("BANNER") && frames.is_empty(), "{line}");
            }
        }
    }
    ways
}

#[test]
fn a_recording_of_msgr2_is_the_same_to_tshark_and_to_us() {
    let recording = Recording::new();
    let file = recording.file();
    let mut tap = TapServer::start_with(1, &["--capture", file.to_str().unwrap()]);
    for _ in 0..2 {
        let (count, size) = (MESSAGES.to_string(), LEN.to_string());
        let target = format!("{STACK_V4}:{PORT}");
        let args = ["ping", "--warmup", "0", "--count", &count, "--size", &size, "--depth", "4"];
        says(tap.run(MSGR, &[&args[..], &[&target]].concat()));
    }
    tap.server.process.stop().unwrap();

    // Its dissector knows msgr1 alone, and takes this for it.
    assert_eq!(recording.tshark(&["--disable-protocol", "ceph", "-Y", WRONG]), "");
    let lines = recording.frames();
    let ways = by_way(&lines);
    assert_eq!(ways.len(), 4, "two connections: {:?}", ways.keys());
    let streams = recording.streams();
    assert!(streams.keys().eq(ways.keys()), "{:?} {:?}", streams.keys(), ways.keys());
    for (way, frames) in &ways {
        let hex = frames.iter().map(|frame| frame["hex"].as_str().unwrap());
        let hex: String = [BANNER].into_iter().chain(hex).collect();
        assert!(streams[way] == hex, "{way:?}: tshark and we read other bytes");

        let is_message = |frame: &&&Value| frame["tag"] == "MESSAGE";
        let messages: Vec<_> = frames.iter().filter(is_message).collect();
        for (seq, frame) in (1..).zip(&messages) {
            let message = &frame["message"];
            assert_eq!((&message["seq"], &message["type"]), (&seq.into(), &2.into()), "{frame}");
            assert_eq!(frame["segments"], serde_json::json!([41, 0, 0, LEN]));
        }
        assert_eq!(messages.len() as u64, MESSAGES);
        let server = way.0.ends_with(&format!(":{PORT}"));
        let tags = frames.iter().take(frames.len() - messages.len());
        let tags: Vec<_> = tags.map(|frame| frame["tag"].as_str().unwrap()).collect();
        let expected = match server {
            true => ["HELLO", "AUTH_DONE", "AUTH_SIGNATURE", "SERVER_IDENT"],
            false => ["HELLO", "AUTH_REQUEST", "AUTH_SIGNATURE", "CLIENT_IDENT"],
        };
        assert_eq!(tags, expected);
    }
}

/// A message as its header and footer tell.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    seq: u64,
    tid: u64,
    kind: u64,
    priority: u64,
    /// Of front, middle and data.
    lens: [u64; 3],
    header_crc: u64,
    crcs: [u64; 3],
}

impl Told {
    /// What they have to tell.
    fn of(message: &Message, seq: u64, source: EntityName) -> Self {
        let sections = [&message.front, &message.middle, &message.data];
        let lens = sections.map(|section| section.len() as u32);
        let message = MessageHeader { seq, ..message.header };
        let header_crc = Header { message, source, lens }.write(&mut BytesMut::new()).into();
        Self {
            seq,
            tid: message.tid,
            kind: message.kind.into(),
            priority: message.priority.into(),
            lens: lens.map(u64::from),
            header_crc,
            crcs: sections.map(|section| crc32c(CRC_SEED, section).into()),
        }
    }
}

/// Answers each message with itself; or keeps it.
struct Peer {
    echoes: bool,
    received: Mutex<Sender<Message>>,
}

impl Dispatcher for Peer {
    fn dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        if self.echoes {
            connection.send_message(again(&message)).unwrap();
        }
        self.received.lock().unwrap().send(message).unwrap();
        Ok(())
    }
}

/// The same message, to be sent.
fn again(message: &Message) -> Message {
    let header = &message.header;
    Message::new(header.kind)
        .with_tid(header.tid)
        .with_priority(header.priority)
        .with_version(header.version, header.compat_version)
        .with_front(message.front.clone())
        .with_data(message.data.clone())
}

/// Messages of several sizes and priorities, in the order in which they leave.
fn messages() -> [Message; 3] {
    let fsid: Fsid = "3f04cebd-60a0-46cf-a196-ccb5f627f974".parse().unwrap();
    let command = MMonCommand::new(fsid, &JsonCommand::new("fsid"));
    let ping = MPing::default().to_message().with_data(vec![0x5a; LEN as usize]);
    [
        ping.with_tid(3).with_priority(PRIORITY_HIGH),
        MMonGetMap.to_message().with_tid(1),
        command.to_message().with_tid(2),
    ]
}

/// Has a client on kernel TCP say `messages` over msgr1 to a server on DPDK, which is recorded, and
/// hear them again. For a thread beside the tap.
fn speak_msgr1(namespace: &Namespace, file: &Path, messages: &[Message]) {
    let threads = OpThreads::new(1).unwrap();
    let posix = Config { ms_async_op_threads: threads, ..Config::default() };
    let mut dpdk = Config { ms_type: MsType::Dpdk, ..posix.clone() };
    dpdk.dpdk.vdev = "net_tap0,iface=dt0".to_owned();
    dpdk.dpdk.capture = file.to_owned();
    dpdk.native.addrs = vec![format!("{STACK_V4}/24").parse().unwrap()];
    let (sender, received) = mpsc::channel();
    let messenger = |name, config, policy, echoes| {
        let messenger = Messenger::create(name, config).unwrap();
        messenger.set_default_policy(policy).unwrap();
        messenger.set_nonce(0).unwrap();
        let received = Mutex::new(sender.clone());
        let peer = Arc::new(Peer { echoes, received });
        messenger.add_dispatcher_tail(peer, DispatcherPriority::DEFAULT).unwrap();
        messenger
    };
    let server = messenger(SERVER, dpdk, Policy::stateless_server(), true);
    namespace.add_address("dt0", KERNEL_V4.parse().unwrap(), 24).unwrap();
    let addr = EntityAddr::v1(SocketAddr::new(STACK_V4.parse().unwrap(), PORT), 0);
    let addrs = server.bindv(&addr.into(), None).unwrap();
    server.start().unwrap();
    let client = messenger(CLIENT, posix, Policy::lossy_client(), false);
    client.start().unwrap();
    for message in messages {
        client.send_to(again(message), EntityType::Osd, &addrs).unwrap();
    }
    for _ in 0..2 * messages.len() {
        received.recv_timeout(PATIENCE).unwrap();
    }
}

/// A number as tshark prints it.
fn number(text: &str) -> u64 {
    let hex = text.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16));
    hex.unwrap_or_else(|| text.parse()).unwrap()
}

/// The messages that tshark's dissector finds, with the port of who said them.
fn dissected(recording: &Recording) -> Vec<(u16, Told)> {
    let fields = FIELDS.iter().flat_map(|field| ["-e", *field]);
    let args: Vec<_> = ["-Y", "ceph.seq", "-T", "fields"].into_iter().chain(fields).collect();
    let text = recording.tshark(&args);
    let mut messages = Vec::new();
    for line in text.lines() {
        let (port, columns) = line.split_once('\t').unwrap();
        // Several messages of one TCP segment stand between commas.
        let column = |column: &str| column.split(',').map(number).collect::<Vec<_>>();
        let columns: Vec<_> = columns.split('\t').map(column).collect();
        for row in 0..columns[0].len() {
            let row: Vec<_> = columns.iter().map(|column| column[row]).collect();
            let [seq, tid, kind, priority, front, middle, data, header_crc, ref crcs @ ..] =
                row[..]
            else {
                panic!("{line}");
            };
            let crcs = crcs.try_into().unwrap();
            let lens = [front, middle, data];
            let message = Told { seq, tid, kind, priority, lens, header_crc, crcs };
            messages.push((port.parse().unwrap(), message));
        }
    }
    messages
}

#[test]
fn a_recording_of_msgr1_is_what_tshark_dissects() {
    need_root();
    let (recording, messages) = (Recording::new(), messages());
    let (namespace, file) = (Namespace::create().unwrap(), recording.file());
    inside(&namespace, || speak_msgr1(&namespace, &file, &messages));

    assert_eq!(recording.tshark(&["-Y", WRONG]), "");
    let (of_server, of_client): (Vec<_>, Vec<_>) =
        dissected(&recording).into_iter().partition(|(port, _)| *port == PORT);
    for (dissected, source) in [(of_server, SERVER), (of_client, CLIENT)] {
        let dissected: Vec<_> = dissected.into_iter().map(|(_, message)| message).collect();
        let said = (1..).zip(&messages).map(|(seq, message)| Told::of(message, seq, source));
        assert_eq!(dissected, said.collect::<Vec<_>>(), "{source}");
    }
}
