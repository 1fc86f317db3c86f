//! The command line itself: what it refuses, and how it says so.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use lab::{Server, msgr};

fn fails(args: &[&str], code: i32, words: &[&str]) {
    let out = msgr(args).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{args:?} does not say {word:?}: {text}");
    }
}

#[test]
fn unknown_keys_of_the_configuration_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("msgr.toml");
    std::fs::write(&file, "ms_bind_port_minimum = 7000\n").unwrap();
    let file = file.to_str().unwrap();
    fails(
        &["serve", "--config", file, "--bind", "127.0.0.1:0"],
        1,
        &["ms_bind_port_minimum", "msgr.toml"],
    );
}

#[test]
fn a_missing_configuration_is_named() {
    fails(&["serve", "--config", "/no/such.toml", "--bind", "127.0.0.1:0"], 1, &["/no/such.toml"]);
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    fails(&["serve"], 2, &["--bind"]);
    fails(&["ping", "nowhere"], 2, &["IP:PORT"]);
    fails(&["ping", "127.0.0.1:1", "--depth", "0"], 1, &["--depth"]);
}

#[test]
fn what_cannot_be_recorded_or_read_is_told() {
    fails(&["serve", "--bind", "127.0.0.1:0", "--capture", "x"], 1, &["--stack dpdk", "tcpdump"]);
    fails(&["decode", "/no/such.pcapng"], 1, &["/no/such.pcapng", "No such file"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    std::fs::write(&file, "this is no capture\n").unwrap();
    let file = file.to_str().unwrap();
    fails(&["decode", file], 1, &[file, "no pcapng file", "editcap"]);
    assert!(!std::path::Path::new("x").exists(), "a recording of nothing");
}

#[test]
fn a_target_that_nobody_serves_is_reported_in_time() {
    fails(&["ping", "127.0.0.1:1", "--patience", "1"], 1, &["no session", "msgr serve"]);
}

#[test]
fn a_cluster_without_monitors_is_reported_in_time() {
    let args = ["ceph", "--mon", "127.0.0.1:1,127.0.0.1:2", "--timeout", "1", "status"];
    fails(&args, 1, &["no session", "nobody listens", "systemctl start ceph-mon.target"]);
    fails(&["ceph", "--mon", "mon.a", "status"], 2, &["IP:PORT"]);
    fails(&["ceph", "status"], 2, &["--mon"]);
}

#[test]
fn a_client_may_have_an_address_of_its_own() {
    let mut serve = msgr(&["--exit-with-parent", "serve", "--json", "--stats", "1"]);
    serve.args(["--bind", "127.0.0.1:6798"]);
    let server = Server::start(serve);
    let mut ping = msgr(&["ping", "127.0.0.1:6798", "--bind", "127.0.0.1:0", "--count", "10"]);
    let out = ping.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    drop(server);
}

#[test]
fn one_port_serves_both_protocols() {
    let mut serve = msgr(&["--exit-with-parent", "serve", "--json", "--stats", "1"]);
    serve.args(["--bind", "127.0.0.1:6797", "--bind", "v1:127.0.0.1:6797"]);
    let server = Server::start(serve);
    for target in ["127.0.0.1:6797", "v1:127.0.0.1:6797"] {
        let out = msgr(&["ping", target, "--count", "100"]).output().unwrap();
        assert!(out.status.success(), "{target}: {out:?}");
    }
    drop(server);
}

#[test]
fn an_address_that_is_not_ours_cannot_be_served() {
    fails(&["serve", "--bind", "192.0.2.1:6800"], 1, &["192.0.2.1:6800"]);
}

#[cfg(feature = "dpdk")]
#[test]
fn a_device_that_does_not_come_up_says_why() {
    fails(
        &[
            "serve",
            "--stack",
            "dpdk",
            "--vdev",
            "net_virtio_user0,path=/no/such.sock",
            "--addr",
            "10.97.0.1/24",
            "--bind",
            "10.97.0.1:6800",
        ],
        1,
        &["net_virtio_user0"],
    );
}
