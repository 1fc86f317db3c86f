//! One process for each test, because a process has one EAL in its life: a test starts its program
//! again for itself alone, and judges how that ended.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "in tests, also in their helpers")]

use std::env;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use dpdk_glue::{
    Burst, Eal, EalOptions, Mempool, PoolConfig, Port, PortConfig, PortSource, QueuePair,
};

/// Set, to the test's name or its echo role, in the processes that a test starts.
const ROLE: &str = "DPDK_GLUE_TEST_ROLE";
/// The device of a process in the echo role.
const DEVICE: &str = "DPDK_GLUE_TEST_DEVICE";
/// No test takes longer.
const TEST_TIME_MAX: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(1);
pub(crate) const FRAME_LEN: usize = 64;

/// Runs `body` in a process of its own, which must succeed and leave nothing behind.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce()) {
    match env::var(ROLE) {
        Ok(role) if role == test => return body(),
        Ok(role) if role == echo_role(test) => return echo(),
        _ => {}
    }
    let mut child = start(test, test, "");
    let pid = child.id();
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > TEST_TIME_MAX {
            child.kill().unwrap();
        }
        thread::sleep(POLL_EVERY);
    };
    assert!(status.success(), "the test's process failed, see above: {status}");
    assert!(!left_files(pid), "process {pid} left files behind");
}

/// Whether EAL's files of a process are still there.
pub(crate) fn left_files(pid: u32) -> bool {
    let user = env::var("XDG_RUNTIME_DIR").unwrap_or_default();
    let parents = ["/var/run", "/tmp", user.as_str()].map(Path::new);
    parents.iter().any(|parent| parent.join(format!("dpdk/dpdk-glue-{pid}")).exists())
}

/// A process that sends every frame of a device back, until it is dropped: then it is killed, with
/// no chance to say goodbye.
pub(crate) struct EchoProcess(Child);

impl EchoProcess {
    pub(crate) fn start(test: &str, device: &str) -> Self {
        Self(start(test, &echo_role(test), device))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for EchoProcess {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn echo_role(test: &str) -> String {
    format!("{test}/echo")
}

fn start(test: &str, role: &str, device: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, role)
        .env(DEVICE, device)
        .spawn()
        .unwrap()
}

fn echo() {
    let parent = parent_id();
    let eal = eal();
    eal.register_thread().unwrap();
    let pool = small_pool(&eal);
    let (_port, mut queues) = open(&eal, &pool, &env::var(DEVICE).unwrap(), 1);
    let begin = Instant::now();
    let mut burst = Burst::new();
    while parent_id() == parent && begin.elapsed() < TEST_TIME_MAX {
        queues[0].rx.recv(&mut burst);
        queues[0].tx.send(&mut burst);
        thread::yield_now();
    }
}

/// Waits until something happens, which it should.
pub(crate) fn until(what: &str, happened: impl FnMut() -> bool) {
    assert!(waited_for(happened), "{what}: did not happen");
}

/// Whether something happens before a test has taken too long.
pub(crate) fn waited_for(mut happened: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !happened() {
        if begin.elapsed() > TEST_TIME_MAX / 3 {
            return false;
        }
        thread::sleep(POLL_EVERY);
    }
    true
}

pub(crate) fn eal() -> Eal {
    Eal::start(&EalOptions { memory_mb: 64, ..EalOptions::default() }).unwrap()
}

pub(crate) fn small_pool(eal: &Eal) -> Mempool {
    Mempool::new(eal, PoolConfig { mbufs: 4095, cache: 64, ..PoolConfig::default() }).unwrap()
}

pub(crate) fn vdev(text: &str) -> PortSource {
    PortSource::Vdev(text.parse().unwrap())
}

pub(crate) fn open(eal: &Eal, pool: &Mempool, device: &str, queues: u16) -> (Port, Vec<QueuePair>) {
    let config = PortConfig { queues, ..PortConfig::default() };
    Port::open(eal, &vdev(device), pool, &config).unwrap()
}

/// Sends one frame that begins with this text.
pub(crate) fn send(queues: &mut QueuePair, text: &[u8]) -> bool {
    let Some(mut mbuf) = queues.tx.alloc(FRAME_LEN) else {
        return false;
    };
    mbuf.bytes_mut().fill(0);
    mbuf.bytes_mut()[..text.len()].copy_from_slice(text);
    let mut burst = Burst::new();
    burst.push(mbuf);
    queues.tx.send(&mut burst) == 1
}
