//! The conformance suite over the native stack on DPDK devices: a `net_vhost` port for the
//! servers, a `net_virtio_user` port for the clients, both in this process and without hugepages,
//! hardware or privileges.
//!
//! DPDK starts once in a process, so all cases share it, and the ports with it: a case borrows
//! them from the case before, as a program that was restarted finds them. So the cases run one
//! after the other. Where DPDK does not come up they fail: they are never left out.

#![cfg(feature = "dpdk")]
#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dpdk_glue::{Mbuf, PortConfig, PortSource};
use netstack::device::dpdk::{DpdkConfig, DpdkDevice, open};
use netstack::device::{Burst, DeviceInfo, PacketDevice};
use netstack::native::{NativeConfig, NativeStack, NativeWorker};
use netstack::stack::NetworkStack;
use suite::{Ends, Family, Lab, conformance};

mod suite;

/// Held by the case that runs.
static TURN: Mutex<()> = Mutex::new(());
/// The queue pairs nobody has borrowed. They are never dropped, so DPDK stays up.
static SHELF: Mutex<Vec<DpdkDevice>> = Mutex::new(Vec::new());

/// Longest time frames may take to move between the two ports for the first time.
const PROOF_TIME: Duration = Duration::from_secs(5);
/// What the last case sent has arrived after this time.
const QUIET_TIME: Duration = Duration::from_millis(2);
/// EtherType for local experiments (IEEE 802): no stack answers a probe.
const PROBE_ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Length of a probe in bytes: the shortest frame of Ethernet.
const PROBE_LEN: usize = 60;

const SERVER: u8 = 1;
const CLIENT: u8 = 2;
const NOBODY: u8 = 99;

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A queue pair that goes back to the shelf when its worker ends.
#[derive(Debug)]
struct Borrowed(Option<DpdkDevice>);

impl Borrowed {
    fn device(&mut self) -> &mut DpdkDevice {
        self.0.as_mut().unwrap()
    }

    /// Throws away what arrives until nothing does.
    fn drain(&mut self) {
        let mut last = Instant::now();
        while last.elapsed() < QUIET_TIME {
            let mut burst = Burst::new();
            self.rx_burst(last, &mut burst);
            if !burst.is_empty() {
                last = Instant::now();
            }
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        lock(&SHELF).extend(self.0.take());
    }
}

impl PacketDevice for Borrowed {
    type Frame = Mbuf;

    fn info(&self) -> &DeviceInfo {
        self.0.as_ref().unwrap().info()
    }

    fn start(&mut self) -> std::io::Result<()> {
        self.device().start()
    }

    fn rx_burst(&mut self, now: Instant, burst: &mut Burst<Mbuf>) {
        self.device().rx_burst(now, burst);
    }

    fn alloc(&mut self, len: usize) -> Option<Mbuf> {
        self.device().alloc(len)
    }

    fn tx_burst(&mut self, now: Instant, burst: &mut Burst<Mbuf>) {
        self.device().tx_burst(now, burst);
    }

    fn link_is_up(&mut self) -> bool {
        self.device().link_is_up()
    }

    fn frames_in_use(&self) -> u64 {
        self.0.as_ref().unwrap().frames_in_use()
    }
}

/// Takes a port's queue pairs from the shelf, or opens it.
fn borrow(vdev: &str, queues: u16) -> Vec<Borrowed> {
    let name = vdev.split(',').next().unwrap();
    let mut shelf = lock(&SHELF);
    let mut ours: Vec<_> = shelf.extract_if(.., |device| device.info().name == name).collect();
    drop(shelf);
    if ours.is_empty() {
        let mut config = DpdkConfig::new(PortSource::Vdev(vdev.parse().unwrap()));
        config.port.queues = queues;
        // So both kinds of links are seen: with checksums of TCP and without.
        config.lossless_memory = queues > 1;
        ours = open(&config).unwrap_or_else(|error| panic!("{vdev} does not come up: {error}"));
    }
    ours.sort_by_key(|device| device.info().queue);
    assert_eq!(ours.len(), usize::from(queues));
    ours.into_iter().map(|device| Borrowed(Some(device))).collect()
}

/// Fails unless frames move from one end to the other: a started port with its link up proves
/// nothing.
fn prove(from: &mut Borrowed, to: &mut Borrowed) {
    let end = Instant::now() + PROOF_TIME;
    let mut burst = Burst::new();
    loop {
        let now = Instant::now();
        assert!(now < end, "no frame gets from {:?} to {:?}", from.info(), to.info());
        if let Some(mut probe) = from.alloc(PROBE_LEN) {
            probe.bytes_mut().fill(0);
            probe.bytes_mut()[12..14].copy_from_slice(&PROBE_ETHERTYPE);
            burst.push(probe);
        }
        from.tx_burst(now, &mut burst);
        burst.clear();
        to.rx_burst(now, &mut burst);
        if !burst.is_empty() {
            return;
        }
    }
}

/// Two native stacks on both ends of a vhost-user link, in real time.
struct Dpdk {
    family: Family,
    /// Queue pairs, and so workers, of each end.
    queues: u16,
    _turn: MutexGuard<'static, ()>,
}

impl Dpdk {
    fn new(family: Family, queues: u16) -> Self {
        Self { family, queues, _turn: lock(&TURN) }
    }

    fn workers(end: u8, devices: Vec<Borrowed>) -> Vec<NativeWorker<Borrowed>> {
        let config = NativeConfig {
            addrs: vec![suite::cidr(Family::V4, end), suite::cidr(Family::V6, end)],
            time_wait: Duration::from_millis(100), // every case waits for its end
            ..NativeConfig::default()
        };
        NativeStack::new(devices, config).into_workers().unwrap()
    }
}

impl Lab for Dpdk {
    type Worker = NativeWorker<Borrowed>;

    fn open(&mut self) -> Ends<Self::Worker> {
        // One link for each number of queues.
        let queues = self.queues;
        let file = format!("netstack-conformance-{}-{queues}.sock", std::process::id());
        let socket = std::env::temp_dir().join(file);
        let path = socket.display();
        let mut servers =
            borrow(&format!("net_vhost{queues},iface={path},queues={queues}"), queues);
        let mut clients =
            borrow(&format!("net_virtio_user{queues},path={path},queues={queues}"), queues);
        prove(&mut clients[0], &mut servers[0]);
        prove(&mut servers[0], &mut clients[0]);
        // Both ends have opened it; nobody else has to.
        let _ = std::fs::remove_file(&socket);
        servers.iter_mut().chain(&mut clients).for_each(Borrowed::drain);
        Ends { servers: Self::workers(SERVER, servers), clients: Self::workers(CLIENT, clients) }
    }

    fn tick(&mut self, _idle: bool) -> Instant {
        Instant::now()
    }

    fn server_ip(&self) -> IpAddr {
        suite::ip(self.family, SERVER)
    }

    fn client_ip(&self) -> IpAddr {
        suite::ip(self.family, CLIENT)
    }

    fn nowhere(&self) -> SocketAddr {
        SocketAddr::new(suite::ip(self.family, NOBODY), 4001)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn settle(&self) -> Duration {
        Duration::from_millis(3)
    }

    fn idle_frames(&self) -> u64 {
        let port = PortConfig::default();
        u64::from(self.queues) * u64::from(port.rx_descriptors + port.tx_descriptors)
    }
}

conformance!(dpdk_v4, Dpdk::new(Family::V4, 1));
conformance!(dpdk_v6, Dpdk::new(Family::V6, 1));
conformance!(dpdk_v4_two_workers, Dpdk::new(Family::V4, 2));
conformance!(dpdk_v6_two_workers, Dpdk::new(Family::V6, 2));
