//! Two hosts with our own TCP over DPDK: a `net_vhost` port and a `net_virtio_user` port, joined by
//! a socket file, both in this process and without hugepages, hardware or privileges.
//!
//! DPDK starts once in a process, so the ports and their workers are started by the first test and
//! shared by all, one after the other. What a test leaves behind is what the next one finds.

use super::{End, Net, sim};
use messenger::{Config, EntityName, Messenger, Workers, WorkersOptions};
use netstack::device::dpdk::{DpdkConfig, DpdkDevice, PortSource, open};
use netstack::native::NativeStack;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Queue pairs of each port, and so workers of each host.
const QUEUES: u16 = 2;
/// Longest time frames may take to move between the two ports for the first time.
const PROOF_TIME: Duration = Duration::from_secs(5);

/// Held by the test that runs.
static TURN: Mutex<()> = Mutex::new(());
/// Never dropped, so DPDK stays up.
static WORKERS: OnceLock<[Arc<Workers>; 2]> = OnceLock::new();

/// The only DPDK net of this process, for one test.
pub struct Dpdk {
    _turn: MutexGuard<'static, ()>,
}

impl Dpdk {
    /// Blocks while another test has it.
    ///
    /// # Panics
    /// If DPDK or a port does not come up, or no frame gets through.
    pub fn borrow() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        WORKERS.get_or_init(start);
        Self { _turn: turn }
    }
}

impl Net for Dpdk {
    fn messenger(&self, end: End, name: EntityName, config: Config) -> Messenger {
        let workers = WORKERS.get().expect("started when it was borrowed");
        Messenger::with_workers(name, config, Arc::clone(&workers[end as usize])).unwrap()
    }
    fn ip(&self, end: End) -> IpAddr {
        sim::ip(end)
    }
}

fn start() -> [Arc<Workers>; 2] {
    let file = format!("messenger-cases-{}.sock", std::process::id());
    let socket = std::env::temp_dir().join(file);
    let path = socket.display();
    let servers = port(&format!("net_vhost0,iface={path},queues={QUEUES}"));
    let mut clients = port(&format!("net_virtio_user0,path={path},queues={QUEUES}"));
    // Both ends have opened it; nobody else has to.
    let _ = std::fs::remove_file(&socket);
    let servers = workers(End::Server, servers);
    // They poll now, and a started port with its link up proves nothing.
    let proof = clients[0].prove(PROOF_TIME);
    proof.unwrap_or_else(|error| panic!("no frame gets through: {error}"));
    [servers, workers(End::Client, clients)]
}

fn workers(end: End, devices: Vec<DpdkDevice>) -> Arc<Workers> {
    let name = format!("dpdk-{end:?}").to_lowercase();
    let options = WorkersOptions { name, ..WorkersOptions::default() };
    let stack = NativeStack::new(devices, sim::native_config(end));
    Workers::start(stack, &options).expect("the ports are open")
}

fn port(vdev: &str) -> Vec<DpdkDevice> {
    let mut config = DpdkConfig::new(PortSource::Vdev(vdev.parse().expect("a device string")));
    config.port.queues = QUEUES;
    open(&config).unwrap_or_else(|error| panic!("{vdev} does not come up: {error}"))
}
