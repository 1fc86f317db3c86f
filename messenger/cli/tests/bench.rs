//! `msgr bench` as a lab runs it, with loads far too short to mean anything: what is asked for is
//! done, told completely, and kept when the server dies.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::path::Path;
use std::process::Output;

use lab::{msgr, sandbox::Process};
use serde_json::Value;

/// Long enough for something to be measured on a busy machine.
const SHORT: [&str; 4] = ["--warmup", "0.02", "--duration", "0.15"];

fn bench(args: &[&str]) -> Output {
    let mut command = msgr(&["--exit-with-parent", "bench"]);
    command.args(args).output().unwrap()
}

fn record_of(out: &Output) -> Value {
    assert!(!out.stdout.is_empty(), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"))
}

/// The record of a short run that must have gone well.
fn run(args: &[&str]) -> Value {
    let patient = ["run", "--json", "--silence", "20"]; // other tests may have the machine
    let out = bench(&[&patient[..], &SHORT, args].concat());
    assert!(out.status.success(), "{args:?}: {out:?}");
    let record = record_of(&out);
    assert_eq!(record["valid"], true, "{record}");
    assert!(record["messages"].as_u64().unwrap() > 0, "{record}");
    record
}

/// That both ends have told their halves of a run.
fn both_halves(record: &Value) {
    for end in ["client", "server"] {
        let half = &record[end];
        assert!(half["messages"].as_u64().unwrap() > 0, "{end}: {record}");
        assert!(half["cpu_us_per_message"].as_f64().unwrap() > 0.0, "{end}: {record}");
    }
}

fn workers_counted(record: &Value) {
    for end in ["client", "server"] {
        let counters = &record[end]["workers"][0]["counters"];
        for name in ["worker_turns", "msgr_recv_messages", "msgr_recv_bytes"] {
            assert!(counters[name].as_u64().unwrap() > 0, "{name} of {end}: {record}");
        }
    }
}

#[test]
fn a_closed_loop_over_kernel_tcp_is_recorded_whole() {
    let record = run(&["posix", "--depth", "4", "--connections", "3", "--size", "64:9,4096:1"]);
    assert_eq!(
        (record["schema"].as_u64(), record["latency_kind"].as_str()),
        (Some(1), Some("rtt"))
    );
    assert_eq!(record["transport"], "async+posix");
    assert_eq!(record["load"]["pace"]["depth"], 4);
    assert_eq!(record["load"]["sizes"], "64:9,4096:1");
    both_halves(&record);
    workers_counted(&record);
    let us = &record["latency_us"];
    let all =
        ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"].map(|p| us[p].as_f64().unwrap());
    assert!(all.is_sorted() && all[0] > 0.0, "{us}");
    assert!(record["payload_bytes_per_s"].as_f64() > record["messages_per_s"].as_f64());
    let environment = &record["environment"];
    for field in ["kernel", "cpu_flags", "commit", "config", "allowed_cpus"] {
        assert_ne!(environment[field].as_str().unwrap_or(""), "", "{field}: {environment}");
    }
    assert!(environment["config"].as_str().unwrap().contains("async+posix"));
}

#[test]
fn every_kind_of_message_goes_over_the_messenger_and_the_yardstick() {
    for pair in ["posix", "kernel-epoll", "kernel-spin"] {
        for kind in ["ping", "echo", "stream"] {
            // Long enough to be sent without gathering; several, so that spinning asks epoll too.
            let record = run(&[
                pair,
                "--kind",
                kind,
                "--depth",
                "8",
                "--connections",
                "6",
                "--idle-connections",
                "3",
                "--size",
                "0:1,20000:1",
            ]);
            both_halves(&record);
            let expected = if kind == "stream" { "sent" } else { "rtt" };
            assert_eq!(record["latency_kind"], expected);
        }
    }
}

#[test]
fn think_time_and_the_blocking_twin_are_there() {
    let record = run(&["simple", "--think-time", "0.01", "--connections", "2"]);
    // Two messages each 10 ms at the very most, for 150 ms.
    assert!(record["messages"].as_u64().unwrap() <= 32, "{record}");
    both_halves(&record);
}

#[test]
fn a_stall_shows_in_an_open_loops_percentiles_and_in_the_alarm() {
    let args = ["run", "posix", "--json", "--rate", "2000", "--arrivals", "poisson"];
    let out = bench(&[&args[..], &SHORT, &["--inject-stall", "0.1"]].concat());
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let record = record_of(&out);
    assert_eq!(record["valid"], false);
    assert!(record["latency_us"]["max"].as_f64().unwrap() > 90_000.0, "{record}");
    assert!(record["latency_us"]["p90"].as_f64().unwrap() > 10_000.0, "a third was late: {record}");
    assert!(record["open"]["late_percent"].as_f64().unwrap() > 10.0, "{record}");
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(words.contains("invalid") && words.contains("late for"), "{words}");
}

/// Kills a server in the middle of a run, and looks at what the client makes of it.
fn lose_the_server(serve: &[&str], run: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("partial.json");
    let mut command = msgr(&["--exit-with-parent", "bench", "serve", "--json"]);
    command.args(serve);
    let mut server = Process::spawn("server", command).unwrap();
    let ready = server.wait_ready().unwrap();
    let target = ready["addrs"][0].as_str().unwrap();
    let mut command = msgr(&["--exit-with-parent", "bench", "run", target, "--warmup", "0"]);
    command.args(["--duration", "600", "--save"]).arg(&saved).args(run);
    let client = std::thread::spawn(move || command.output().unwrap());
    // What it has told is on a pipe that `output` reads: let it work for a while.
    std::thread::sleep(std::time::Duration::from_millis(800));
    server.kill();
    let out = client.join().unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(words.contains("invalid"), "{words}");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("INVALID") && text.contains("p99.99"), "{text}");
    let record: Value = serde_json::from_slice(&std::fs::read(saved).unwrap()).unwrap();
    assert!(record["messages"].as_u64().unwrap() > 0, "{record}");
    assert!(record["ended_early"].is_string(), "{record}");
}

#[test]
fn a_server_that_dies_ends_the_run_and_the_figures_so_far_are_kept() {
    lose_the_server(&["--bind", "127.0.0.1:0"], &[]);
    let yardstick = ["--yardstick", "epoll"];
    lose_the_server(&[&yardstick[..], &["--bind", "127.0.0.1:0"]].concat(), &yardstick);
}

#[cfg(feature = "dpdk")]
#[test]
fn a_server_on_a_device_that_dies_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("vhost.sock");
    let socket = socket.display();
    let device = format!("net_vhost0,iface={socket},queues=1");
    let serve = ["--stack", "dpdk", "--vdev", &device, "--addr", "10.99.0.2/24"];
    let device = format!("net_virtio_user0,path={socket},queues=1");
    let run = ["--stack", "dpdk", "--vdev", &device, "--addr", "10.99.0.1/24"];
    lose_the_server(&[&serve[..], &["--bind", "10.99.0.2:6800"]].concat(), &run);
}

#[cfg(feature = "dpdk")]
#[test]
fn both_ends_on_memif_count_their_packets() {
    let record = run(&["dpdk-memif", "--depth", "8"]);
    assert_eq!(record["transport"], "async+dpdk");
    both_halves(&record);
    workers_counted(&record);
    for end in ["client", "server"] {
        let counters = &record[end]["workers"][0]["counters"];
        assert!(counters["dpdk_receive_packets"].as_u64().unwrap() > 0, "{end}: {record}");
    }
    assert!(record["environment"]["dpdk"].as_str().unwrap().contains("DPDK"));
}

#[cfg(feature = "dpdk")]
#[test]
fn a_tap_needs_root_and_carries_loads() {
    lab::need_root();
    both_halves(&run(&["dpdk-tap"]));
}

#[test]
fn two_pairs_take_turns_and_the_answer_is_an_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let saved = ["ab.html", "ab.csv", "ab.md"].map(file);
    let mut args = vec!["ab", "kernel-epoll", "posix", "--json", "--rounds", "5"];
    args.extend(["--warmup", "0", "--duration", "0.05"]);
    saved.iter().for_each(|file| args.extend(["--save", file]));
    let out = bench(&args);
    let record = record_of(&out);
    for (side, transport) in [("a", "kernel-epoll"), ("b", "async+posix")] {
        let runs = record[side]["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 5);
        assert!(runs.iter().all(|run| run["transport"] == transport), "{record}");
    }
    let rate = &record["figures"][0];
    assert_eq!(rate["by"], "rate");
    let code = if rate["verdict"] == "b_ahead" { 3 } else { 0 };
    assert_eq!(out.status.code(), Some(code), "{rate}");
    let [html, csv, md] = saved.map(|file| std::fs::read_to_string(file).unwrap());
    assert!(html.contains("<svg") && !html.contains("http"), "{html}");
    assert_eq!(csv.lines().count(), 11, "{csv}");
    assert!(md.contains("| msg/s |"), "{md}");
}

#[test]
fn records_are_compared_and_a_loss_has_an_exit_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let first = dir.path().join("0.json");
    let mut args = vec!["posix", "--save", first.to_str().unwrap()];
    let hlog = dir.path().join("run.hlog");
    args.extend(["--save", hlog.to_str().unwrap()]);
    let mut record = run(&args);
    assert!(std::fs::read_to_string(hlog).unwrap().lines().count() >= 3);
    // What the file says is what was printed, and the same run is no better than itself.
    let saved: Value = serde_json::from_slice(&std::fs::read(&first).unwrap()).unwrap();
    assert_eq!(saved, record);
    let write = |name: &str, record: &Value| -> String {
        let file = dir.path().join(name);
        std::fs::write(&file, record.to_string()).unwrap();
        file.display().to_string()
    };
    let rate = record["messages_per_s"].as_f64().unwrap();
    let mut sides = [Vec::new(), Vec::new()];
    for round in 0..5 {
        for (side, factor) in sides.iter_mut().zip([1.0, 1.2]) {
            record["messages_per_s"] = (rate * factor * (1.0 + 0.01 * f64::from(round))).into();
            side.push(write(&format!("{factor}-{round}.json"), &record));
        }
    }
    let [slow, fast] = sides.map(|files| files.join(","));
    let answer = |a: &str, b: &str, code: i32, words: &str| {
        let out = bench(&["compare", a, b]);
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        let line = text.lines().find(|line| line.starts_with("msg/s")).unwrap();
        assert!(line.contains(words), "{text}");
    };
    answer(&slow, &fast, 3, "B is ahead");
    answer(&fast, &slow, 0, "A is ahead");
    answer(&slow, &slow, 0, "no difference");
    answer(first.to_str().unwrap(), &fast, 0, "too few runs");

    record["valid"] = false.into();
    record["problems"] = serde_json::json!(["late"]);
    let invalid = write("invalid.json", &record);
    let out = bench(&["compare", &slow, &invalid]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("invalid run: late"), "{out:?}");
}

#[test]
fn a_sweep_raises_depth_and_finds_a_rate() {
    let deep = bench(&[&["sweep", "kernel-epoll", "--json", "--to", "2"], &SHORT[..]].concat());
    let record = record_of(&deep);
    let names: Vec<_> = record["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["depth 1", "depth 2"]);
    assert!(record["best_messages_per_s"].as_f64().unwrap() > 0.0);

    // No machine answers within a nanosecond: every rate is too high, and the search goes down.
    let args = ["sweep", "kernel-epoll", "--json", "--rate", "4000", "--steps", "2"];
    let out = bench(&[&args[..], &["--p99-below", "0.001"], &SHORT].concat());
    assert!(out.status.success(), "{out:?}");
    let record = record_of(&out);
    assert_eq!(record["best_messages_per_s"], Value::Null);
    assert_eq!(record["steps"][1]["name"], "2000 msg/s");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let refused = |args: &[&str], code: i32, words: &str| {
        let out = bench(args);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(words), "{args:?}: {text}");
    };
    refused(&["run", "nowhere"], 2, "kernel-spin");
    refused(&["run", "posix", "--depth", "2", "--rate", "5"], 2, "--rate");
    refused(&["run", "posix", "--size", "none"], 2, "mix of sizes");
    refused(&["run", "posix", "--save", "x.txt"], 1, ".hlog");
    refused(&["ab", "posix", "kernel-epoll@x.toml"], 2, "no messenger");
    refused(&["run", "posix@/no/such.toml"], 1, "/no/such.toml");
    refused(&["run", "127.0.0.1:1", "--patience", "0.2"], 1, "bench serve");
    refused(&["run", "127.0.0.1:1", "--yardstick", "epoll"], 1, "127.0.0.1:1");
    assert!(!Path::new("x.txt").exists());
}

#[test]
fn another_kind_of_server_is_told_from_ours() {
    let mut serve = Process::spawn("server", {
        let mut serve = msgr(&["--exit-with-parent", "serve", "--json"]);
        serve.args(["--bind", "127.0.0.1:0"]);
        serve
    })
    .unwrap();
    let ready = serve.wait_ready().unwrap();
    let out = bench(&["run", ready["addrs"][0].as_str().unwrap()]);
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(words.contains("is that what runs there?"), "{words}");
    assert_eq!(out.status.code(), Some(1));
}
