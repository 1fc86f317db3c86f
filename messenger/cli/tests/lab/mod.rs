//! What the whole-program tests share: servers, clients, and the kernel's side of a tap.

#![allow(dead_code, reason = "each test program uses its own part")]

#[path = "../../src/sandbox.rs"]
pub(crate) mod sandbox;

use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use sandbox::{Namespace, Process};

/// The program under test.
pub(crate) const MSGR: &str = env!("CARGO_BIN_EXE_msgr");
/// The stack's end of a tap.
pub(crate) const STACK_V4: &str = "10.99.0.2";
pub(crate) const STACK_V6: &str = "fd00:99::2";
/// The kernel's end.
pub(crate) const KERNEL_V4: &str = "10.99.0.1";
pub(crate) const KERNEL_V6: &str = "fd00:99::1";
pub(crate) const PORT: u16 = 6800;
/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the test with the way out when it lacks root.
pub(crate) fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes a network namespace and a tap device and needs root; run: sudo make test"
    );
}

/// `msgr serve` on a tap in a namespace, with v4 and v6 addresses on both sides.
pub(crate) struct TapServer {
    pub(crate) server: Server,
    pub(crate) namespace: Namespace,
}

impl TapServer {
    pub(crate) fn start(workers: usize) -> Self {
        Self::start_with(workers, &[])
    }

    /// The same, with further arguments.
    pub(crate) fn start_with(workers: usize, more: &[&str]) -> Self {
        need_root();
        let namespace = Namespace::create().expect("namespace");
        let mut command = namespace.command(Path::new(MSGR));
        command
            .args(["--exit-with-parent", "serve", "--json", "--stats", "0.1", "--stack", "dpdk"])
            .args(["--workers", &workers.to_string(), "--vdev", "net_tap0,iface=dt0"])
            .args(["--addr", &format!("{STACK_V4}/24"), "--addr", &format!("{STACK_V6}/64")])
            .args(["--bind", &format!("{STACK_V4}:{PORT}")])
            .args(more);
        let server = Server::start(command);
        for (address, prefix) in [(KERNEL_V4, 24), (KERNEL_V6, 64)] {
            let address: IpAddr = address.parse().expect("an address");
            namespace.add_address("dt0", address, prefix).expect("kernel's address");
        }
        Self { server, namespace }
    }

    /// Runs a program of the kernel's side to its end.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        self.namespace.command(Path::new(program)).args(args).output().expect(program)
    }

    /// Runs `body` in a thread that lives inside the namespace.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace, body)
    }
}

/// Runs `body` in a thread that lives inside `namespace`, as do the threads that it starts.
pub(crate) fn inside<T: Send>(namespace: &Namespace, body: impl FnOnce() -> T + Send) -> T {
    let path = namespace.path();
    let enter = move || {
        let namespace = File::open(path).expect("the namespace's file");
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
            .expect("enter the namespace");
        body()
    };
    let ended = std::thread::scope(|scope| scope.spawn(enter).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A running `msgr serve --json --stats`.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) first: Value,
}

impl Server {
    pub(crate) fn start(command: Command) -> Self {
        let mut process = Process::spawn("server", command).expect("spawn the server");
        let ready = process.wait_ready().expect("the server is ready");
        assert_eq!(ready["event"], "ready", "{ready}");
        assert!(ready["addrs"][0].is_string(), "{ready}");
        let first = process.next_json(PATIENCE).expect("first counters");
        Self { process, first }
    }

    /// Counters as they are now, or very soon.
    pub(crate) fn counters(&mut self) -> Value {
        // The lines queue up while nobody reads: take the newest, and one made after this call.
        while self.process.try_next_json().is_some() {}
        self.process.next_json(PATIENCE).expect("counters; is the server alive?")
    }

    /// Waits until the counters satisfy `good`, failing with the last ones seen.
    pub(crate) fn wait_for(&mut self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.counters();
            if good(&counters) {
                return counters;
            }
            assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}: {counters:#}");
        }
    }

    /// Waits until every gauge is back where it was before the first peer came.
    pub(crate) fn wait_for_rest(&mut self) {
        let start = gauges(&self.first);
        self.wait_for("return of the gauges to their start", |now| gauges(now) == start);
    }
}

/// The gauges of all workers together: what must return to its start when all peers are gone.
pub(crate) fn gauges(counters: &Value) -> Vec<(String, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    for worker in counters["workers"].as_array().expect("workers") {
        for (name, value) in worker.as_object().expect("counters") {
            if name.ends_with("_in_use") {
                *sums.entry(name.clone()).or_insert(0) += value.as_u64().expect("a number");
            }
        }
    }
    assert!(!sums.is_empty(), "no gauges in {counters}");
    sums.into_iter().collect()
}

/// One counter of each worker.
pub(crate) fn per_worker(counters: &Value, name: &str) -> Vec<u64> {
    counters["workers"]
        .as_array()
        .expect("workers")
        .iter()
        .map(|worker| worker[name].as_u64().unwrap_or_else(|| panic!("no {name} in {worker}")))
        .collect()
}

/// One counter of all workers together.
pub(crate) fn total(counters: &Value, name: &str) -> u64 {
    per_worker(counters, name).iter().sum()
}

/// A command line of `msgr` itself.
pub(crate) fn msgr(args: &[&str]) -> Command {
    let mut command = Command::new(MSGR);
    command.args(args);
    command
}
