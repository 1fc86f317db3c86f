//! What `--capture` records over DPDK on a tap, as Wireshark's `tshark` and `msgr decode` read it:
//! both find the same bytes in the same TCP streams, and nothing wrong. Needs root and the package
//! tshark.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use lab::{MSGR, PORT, STACK_V4, TapServer};
use serde_json::Value;
use tempfile::TempDir;

const MESSAGES: u64 = 20;
/// A message has several TCP segments, and some segments two messages.
const LEN: u64 = 3000;
/// What both sides say first, in hexadecimal: its frames are of revision 1.
const BANNER: &str = "636570682076320a100001000000000000000000000000000000";
/// What tshark tells of a recording that is not whole, or not of what was on the wire. A segment that
/// was sent again is neither.
const WRONG: &str = "tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment || \
                     ip.checksum.status == 0 || tcp.checksum.status == 0 || _ws.malformed";

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

    /// The bytes of each TCP stream, as tshark puts them in order.
    fn streams(&self) -> Streams {
        let fields = ["-T", "fields", "-e", "tcp.stream", "-Y", "tcp.flags.syn == 1"];
        let numbers = self.tshark(&fields);
        let last: usize = numbers.lines().last().unwrap().parse().unwrap();
        let mut streams = Streams::new();
        for number in 0..=last {
            let text = self.tshark(&["-q", "-z", &format!("follow,tcp,raw,{number}")]);
            let node = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().to_owned()
            };
            let nodes = [node("Node 0: "), node("Node 1: ")];
            let said = text.lines().skip_while(|line| !line.starts_with("Node 1")).skip(1);
            for line in said.take_while(|line| !line.starts_with('=')) {
                let from = usize::from(line.starts_with('\t'));
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
