//! The commands that the monitor knows.

use messenger_ceph::{JsonCommand, MMonCommand, MMonCommandAck, MonMap};
use serde_json::{Map, Value, json};
use std::fmt::Write;

const EPERM: i32 = -1; // Linux's numbers are the protocol's
const EINVAL: i32 = -22;

/// Asks for the signatures of all others: `ceph` checks what a person typed against them.
const DESCRIPTIONS: &str = "get_command_descriptions";

/// One command: its words, what it is for, and its output as text and as JSON.
struct Command {
    words: &'static str,
    help: &'static str,
    text: fn(&MonMap) -> String,
    json: fn(&MonMap) -> Value,
}

const COMMANDS: [Command; 4] = [
    Command {
        words: "fsid",
        help: "show the cluster's id",
        text: |map| map.fsid.to_string(),
        json: |map| json!({ "fsid": map.fsid.to_string() }),
    },
    Command {
        words: "status",
        help: "show how the cluster is",
        text: status,
        json: |map| {
            json!({
                "fsid": map.fsid.to_string(),
                "health": { "status": "HEALTH_OK", "checks": {}, "mutes": [] },
                "quorum": [0],
                "quorum_names": map.ranks,
                "monmap": { "epoch": map.epoch, "num_mons": map.monitors.len() },
            })
        },
    },
    Command {
        words: "version",
        help: "show the monitor's version",
        text: |_| version(),
        json: |_| json!({ "version": version() }),
    },
    Command { words: "mon dump", help: "show the map of monitors", text: dump, json: dump_json },
];

/// Runs a command.
pub(crate) fn run(map: &MonMap, ask: &MMonCommand) -> MMonCommandAck {
    if ask.fsid != map.fsid {
        return MMonCommandAck::failure(ask, EPERM, format!("this cluster is {}", map.fsid));
    }
    let parsed = ask.command.first().map(|text| text.parse::<JsonCommand>());
    let Some(Ok(command)) = parsed else {
        return MMonCommandAck::failure(ask, EINVAL, "the command is not one JSON object");
    };
    if command.prefix() == DESCRIPTIONS {
        return MMonCommandAck::success(ask, descriptions().to_string());
    }
    match COMMANDS.iter().find(|known| known.words == command.prefix()) {
        Some(known) if command.wants_json() => {
            MMonCommandAck::success(ask, format!("\n{}", (known.json)(map)))
        }
        Some(known) => MMonCommandAck::success(ask, format!("{}\n", (known.text)(map))),
        None => {
            let status = format!("mini_mon knows no command {:?}", command.prefix());
            MMonCommandAck::failure(ask, EINVAL, status)
        }
    }
}

fn descriptions() -> Value {
    let describe = |(index, command): (usize, &Command)| {
        let words: Vec<&str> = command.words.split(' ').collect();
        let value = json!({
            "sig": words, "help": command.help, "module": "mon", "perm": "r", "flags": 0,
        });
        (format!("cmd{index:03}"), value)
    };
    Value::Object(COMMANDS.iter().enumerate().map(describe).collect::<Map<_, _>>())
}

fn version() -> String {
    format!("mini_mon of dpdk-messenger {}", env!("CARGO_PKG_VERSION"))
}

fn status(map: &MonMap) -> String {
    let quorum = map.ranks.join(",");
    format!(
        "  cluster:\n    id:     {}\n    health: HEALTH_OK\n\n  services:\n    mon: {} daemons, \
         quorum {quorum}",
        map.fsid,
        map.monitors.len()
    )
}

fn dump(map: &MonMap) -> String {
    let mut text = format!("epoch {}\nfsid {}", map.epoch, map.fsid);
    for (rank, name) in map.ranks.iter().enumerate() {
        if let Some(monitor) = map.ranked(rank) {
            let _ = write!(text, "\n{rank}: {} mon.{name}", monitor.addrs); // texts take all
        }
    }
    text
}

fn dump_json(map: &MonMap) -> Value {
    let ranked = map.ranks.iter().enumerate().filter_map(|(rank, name)| {
        let addrs = map.ranked(rank)?.addrs.iter().map(ToString::to_string);
        Some(json!({ "rank": rank, "name": name, "addrs": addrs.collect::<Vec<_>>() }))
    });
    let mons: Vec<Value> = ranked.collect();
    json!({ "epoch": map.epoch, "fsid": map.fsid.to_string(), "mons": mons })
}
