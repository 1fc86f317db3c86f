//! Ceph's own command line against our monitor, the example `mini_mon`: over kernel TCP, and over
//! DPDK on a tap; with everybody let in, and with cephx. Needs the package ceph-common; DPDK needs root.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lab::sandbox::{Namespace, Process};
use lab::{KERNEL_V4, MSGR, STACK_V4, need_root};
use serde_json::Value;
use tempfile::TempDir;

const FSID: &str = "3f04cebd-60a0-46cf-a196-ccb5f627f974";
const PORT_V2: u16 = 3300;
const PORT_V1: u16 = 6789;
/// Long for a monitor that answers, short for a person who waits for a failure.
const PATIENCE_SECONDS: &str = "60";
/// What `ceph` exits with for a command that its monitor does not know.
const EINVAL: i32 = 22;
/// What it exits with if its monitor does not let it in.
const EACCES: i32 = 13;
/// The keys that the monitor knows, and somebody else's.
const KEYRING: &str = "[client.admin]\n\tkey = AQAA8VNlAAAAABAAAAECAwQFBgcICQoLDA0ODw==\n\
     \tcaps mon = \"allow *\"\n";
const OTHER_KEYRING: &str = "[client.admin]\n\tkey = AQAA8VNlAAAAABAADw4NDAsKCQgHBgUEAwIBAA==\n";

/// Builds the example with the profile of the tests and says where it is.
fn mini_mon() -> PathBuf {
    let built = Path::new(MSGR).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "messenger", "--example", "mini_mon"]);
    if built.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("run cargo").success(), "the example mini_mon does not build");
    built.join("examples/mini_mon")
}

/// Whom a monitor lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// Who has a key.
    Keys,
}

/// A running monitor, and the configuration that leads clients to it.
struct Monitor {
    _process: Process,
    namespace: Option<Namespace>,
    config: TempDir,
    /// By protocol.
    addrs: [String; 2],
    /// Which protocol clients are to speak.
    protocol: usize,
}

const MSGR2: usize = 0;
const MSGR1: usize = 1;

impl Monitor {
    fn on_kernel_tcp(door: Door) -> Self {
        let mut command = Command::new(mini_mon());
        command.args(["--bind", "127.0.0.1:0", "--bind", "v1:127.0.0.1:0"]);
        Self::start(command, None, door)
    }

    fn on_dpdk(door: Door) -> Self {
        need_root();
        let namespace = Namespace::create().expect("namespace");
        let mut command = namespace.command(&mini_mon());
        command.args(["--stack", "dpdk", "--vdev", "net_tap0,iface=dt0"]).args([
            "--addr",
            &format!("{STACK_V4}/24"),
            "--bind",
            &format!("{STACK_V4}:{PORT_V2}"),
            "--bind",
            &format!("v1:{STACK_V4}:{PORT_V1}"),
        ]);
        Self::start(command, Some(namespace), door)
    }

    fn start(mut command: Command, namespace: Option<Namespace>, door: Door) -> Self {
        let config = tempfile::tempdir().unwrap();
        if door == Door::Keys {
            let keyring = config.path().join("keyring");
            std::fs::write(&keyring, KEYRING).unwrap();
            command.arg("--keyring").arg(keyring);
        }
        command.args(["--fsid", FSID, "--json", "--exit-with-parent"]);
        let mut process = Process::spawn("monitor", command).expect("spawn the monitor");
        let ready = process.wait_ready().expect("the monitor is ready");
        let addrs = [0, 1].map(|at| ready["addrs"][at].as_str().expect("an address").to_owned());
        if let Some(namespace) = &namespace {
            let address: IpAddr = KERNEL_V4.parse().unwrap();
            namespace.add_address("dt0", address, 24).expect("kernel's address");
        }
        let method = if door == Door::Keys { "cephx" } else { "none" };
        let text = format!(
            "[global]\nfsid = {FSID}\nauth_cluster_required = {method}\n\
             auth_service_required = {method}\nauth_client_required = {method}\n\
             keyring = {}/keyring\n",
            config.path().display()
        );
        std::fs::write(config.path().join("ceph.conf"), text).unwrap();
        Self { _process: process, namespace, config, addrs, protocol: MSGR2 }
    }

    /// Runs `ceph ARGS` to its end.
    fn ceph(&self, args: &[&str]) -> Output {
        let installed = Command::new("ceph").arg("--version").output();
        assert!(installed.is_ok(), "there is no `ceph`; install ceph-common, or run .ci/bootstrap");
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(Path::new("timeout")),
            None => Command::new("timeout"),
        };
        command.args([PATIENCE_SECONDS, "ceph", "-c"]);
        command.arg(self.config.path().join("ceph.conf"));
        command.args(["-m", &self.addrs[self.protocol]]).args(args);
        command.output().expect("run timeout")
    }

    /// What `ceph ARGS` prints if it succeeds.
    fn says(&self, args: &[&str]) -> String {
        let out = self.ceph(args);
        assert!(out.status.success(), "ceph {args:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn over_msgr1(&mut self) -> &Self {
        self.protocol = MSGR1;
        self
    }

    fn lets_in_who_has_a_key(&self) {
        for mode in ["crc", "secure"] {
            let fsid = self.says(&["fsid", "--ms_mon_client_mode", mode]);
            assert_eq!(fsid.trim(), FSID, "in mode {mode}");
        }
    }

    fn answers_all_it_knows(&self) {
        assert_eq!(self.says(&["fsid"]).trim(), FSID);
        let fsid: Value = serde_json::from_str(&self.says(&["fsid", "--format", "json"])).unwrap();
        assert_eq!(fsid["fsid"], FSID);
        let status = self.says(&["status"]);
        assert!(status.contains(FSID) && status.contains("HEALTH_OK"), "{status}");
        let version = self.says(&["version"]);
        assert!(version.contains("mini_mon"), "{version}");
        let dump = self.says(&["mon", "dump"]);
        assert!(dump.contains("mon.a"), "{dump}");
        let pong = self.says(&["ping", "mon.a"]);
        assert!(pong.contains("quorum_names"), "{pong}");
    }
}

#[test]
fn the_real_command_is_served_over_kernel_tcp() {
    let mut monitor = Monitor::on_kernel_tcp(Door::Open);
    monitor.answers_all_it_knows();
    monitor.over_msgr1().answers_all_it_knows();
}

#[test]
fn the_real_command_is_served_over_dpdk() {
    let mut monitor = Monitor::on_dpdk(Door::Open);
    monitor.answers_all_it_knows();
    monitor.over_msgr1().answers_all_it_knows();
}

#[test]
fn the_real_command_logs_in_over_kernel_tcp() {
    let mut monitor = Monitor::on_kernel_tcp(Door::Keys);
    monitor.lets_in_who_has_a_key();
    monitor.over_msgr1().answers_all_it_knows();
    std::fs::write(monitor.config.path().join("keyring"), OTHER_KEYRING).unwrap();
    for protocol in [MSGR2, MSGR1] {
        monitor.protocol = protocol;
        let out = monitor.ceph(&["fsid"]);
        assert_eq!(out.status.code(), Some(EACCES), "{out:?}");
    }
}

#[test]
fn the_real_command_logs_in_over_dpdk() {
    let mut monitor = Monitor::on_dpdk(Door::Keys);
    monitor.lets_in_who_has_a_key();
    monitor.over_msgr1().answers_all_it_knows();
}

#[test]
fn a_command_that_the_monitor_does_not_know_fails_by_name() {
    let out = Monitor::on_kernel_tcp(Door::Open).ceph(&["osd", "tree"]);
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(EINVAL), "{text}");
    assert!(text.contains("invalid command"), "{text}");
}
