//! Two workers of a DPDK port with two queues, and frames that arrive on the wrong one.
//!
//! ```text
//!   Hopper, one worker --queue 0--> worker 0 ---ring--> worker 1     vhost and memif: the sender
//!    (frame by frame)  --queue 1--> worker 1 ---ring--> worker 0     picks the queue
//!   kernel, after a silence of 5 s --hash--> worker 0 or 1           tap: the kernel does
//! ```
//!
//! Connections open both ways, all bytes are compared, then everything is closed. Each connection
//! must stay with one worker, none may be reset, nothing may be left behind, also not when the other
//! end is suddenly gone. DPDK starts once in a process, so the tests run one after the other.

#![cfg(feature = "dpdk")]
#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use dpdk_glue::{Eal, EalOptions, PortConfig, PortSource};
use namespace::Namespace;
use netstack::device::dpdk::{DpdkConfig, DpdkDevice, open};
use steering::hopper::Hopper;
use steering::node::{CHUNK, Lab, Node};
use steering::tap;

mod namespace;
mod steering;

/// Held by the test that runs.
static TURN: Mutex<()> = Mutex::new(());
/// Keeps DPDK up between tests.
static EAL: OnceLock<Eal> = OnceLock::new();

const QUEUES: u16 = 2;
/// Bytes each connection says, in some twenty questions.
const GOAL: usize = 20 * CHUNK;
/// Connections the client opens to the server's two workers.
const FROM_CLIENT: usize = 32;
/// Connections each of the server's workers opens.
const FROM_EACH: usize = 20;

fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 99, 0, host], 6800))
}

fn port(vdev: &str) -> Vec<DpdkDevice> {
    EAL.get_or_init(|| Eal::start(&EalOptions::default()).unwrap());
    let mut config = DpdkConfig::new(PortSource::Vdev(vdev.parse().unwrap()));
    config.port.queues = QUEUES;
    open(&config).unwrap_or_else(|error| panic!("{vdev} does not come up: {error}"))
}

/// A host with a worker for each queue of the port.
fn add_two_workers(lab: &mut Lab, vdev: &str, addr: SocketAddr) {
    let home = Arc::default();
    let devices = port(vdev).into_iter().map(|queue| Hopper::new(vec![queue], &home));
    lab.add(devices.collect(), addr);
}

/// A server with two workers (0 and 1) and a client (2) whose frames change the queue after
/// every `every` of them. The client's device may keep `slack` frames for later.
fn hop(server: &str, client: &str, every: usize, slack: u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lab = Lab(Vec::new());
    add_two_workers(&mut lab, server, addr(1));
    let hop_every = Arc::default();
    lab.add(vec![Hopper::new(port(client), &hop_every)], addr(2));
    lab.until("link", |nodes| nodes.iter().all(|node| node.counter("link_ups") == 1));
    // What the ends announced of themselves has been heard then.
    (0..10).for_each(|_| lab.turn());

    answers_reach_the_worker_that_asked(&mut lab);
    hop_every.store(every, Ordering::Relaxed);
    frames_reach_the_worker_that_owns_the_flow(&mut lab);

    lab.0.iter_mut().for_each(Node::hang_up);
    lab.assert_rest(&[0, 0, slack]);
    for name in ["frames_handed_over", "frames_taken_over"] {
        assert!(lab.0[..2].iter().all(|worker| worker.counter(name) > 0), "{name}");
    }
}

/// The client still uses queue 0 alone, also for the ARP reply to worker 1.
fn answers_reach_the_worker_that_asked(lab: &mut Lab) {
    let unasked = lab.0[0].counter("neighbors_unasked");
    lab.0[1].dial(addr(2), GOAL);
    lab.until("answer on the wrong queue", |nodes| nodes[1].has_said_all());
    let [asked, asker, _] = &lab.0[..] else { panic!("three workers") };
    assert_eq!((asker.counter("dpdk_receive_packets"), asker.counter("neighbors")), (0, 1));
    assert_eq!(asker.counter("arp_requests_sent"), 1, "the first reply got through");
    assert_eq!(asked.counter("neighbors_unasked"), unasked + 1);
    assert_eq!(asked.counter("frames_handed_over"), asker.counter("frames_taken_over"));
}

fn frames_reach_the_worker_that_owns_the_flow(lab: &mut Lab) {
    for _ in 0..FROM_CLIENT {
        lab.0[2].dial(addr(1), GOAL);
    }
    for _ in 0..FROM_EACH {
        lab.0[..2].iter_mut().for_each(|worker| worker.dial(addr(2), GOAL));
    }
    lab.until("end of all talks", |nodes| nodes.iter().all(Node::has_said_all));
    let [first, second, client] = &lab.0[..] else { panic!("three workers") };
    let accepted = [first, second].map(|worker| worker.counter("connections_accepted"));
    assert!(accepted.iter().all(|accepted| *accepted > 0), "both queues are used: {accepted:?}");
    assert_eq!(accepted.iter().sum::<u64>(), FROM_CLIENT as u64, "each by one worker");
    assert_eq!(client.counter("connections_accepted"), 2 * FROM_EACH as u64 + 1);
}

fn socket(name: &str) -> String {
    let file = format!("netstack-steering-{name}-{}.sock", std::process::id());
    std::env::temp_dir().join(file).display().to_string()
}

#[test]
fn flows_that_change_the_queue_stay_whole_over_vhost() {
    let path = socket("vhost");
    // A sent frame stays in the ring until its place is needed.
    let slack = QUEUES * PortConfig::default().tx_descriptors;
    hop(
        &format!("net_vhost0,iface={path},queues={QUEUES}"),
        &format!("net_virtio_user0,path={path},queues={QUEUES}"),
        1,
        slack.into(),
    );
}

#[test]
fn flows_that_change_the_queue_stay_whole_over_memif() {
    let path = socket("memif");
    let ends = format!("socket-abstract=no,socket={path}");
    hop(&format!("net_memif0,role=server,{ends}"), &format!("net_memif1,role=client,{ends}"), 7, 0);
}

/// Two workers on each end (0 and 1, 2 and 3) talk, then the end `gone` vanishes.
fn part(name: &str, gone: Range<usize>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let path = socket(name);
    let mut lab = Lab(Vec::new());
    add_two_workers(&mut lab, &format!("net_vhost0,iface={path},queues={QUEUES}"), addr(1));
    let client = format!("net_virtio_user0,path={path},queues={QUEUES}");
    add_two_workers(&mut lab, &client, addr(2));
    lab.until("link", |nodes| nodes.iter().all(|node| node.counter("link_ups") == 1));
    for _ in 0..FROM_EACH {
        lab.0[..2].iter_mut().for_each(|worker| worker.dial(addr(2), GOAL));
        lab.0[2..].iter_mut().for_each(|worker| worker.dial(addr(1), GOAL));
    }
    lab.until("talk", |nodes| nodes.iter().all(|node| node.counter("dpdk_receive_packets") > 100));
    assert!(!lab.0.iter().any(Node::has_said_all));
    lab.0.drain(gone);
    // Repeated segments go on to be sent, and nobody takes them.
    lab.until("frames dropped and freed", |nodes| {
        let holds = |(name, _): &(&str, u64)| *name == "frames_in_use";
        nodes
            .iter()
            .all(|node| node.counter("tx_link_down_drops") > 0 && !node.unrest(0).iter().any(holds))
    });
    assert!(lab.0.iter().all(|node| node.counter("link_downs") == 1));
}

#[test]
fn a_vhost_port_keeps_no_frames_for_a_peer_that_is_gone() {
    part("gone-client", 2..4);
}

#[test]
fn a_virtio_user_port_keeps_no_frames_for_a_peer_that_is_gone() {
    part("gone-server", 0..2);
}

#[test]
fn flows_the_kernel_moves_to_another_queue_stay_whole_over_tap() {
    const DIALLING: usize = 16;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let namespace = Namespace::new("steering");
    namespace.inside(|| {
        let mut lab = Lab(Vec::new());
        add_two_workers(&mut lab, "net_tap0,iface=dt0", addr(1));
        namespace.ip(&["addr", "add", "10.99.0.2/24", "dev", "dt0"]);
        let listener = TcpListener::bind(addr(2)).unwrap();
        listener.set_nonblocking(true).unwrap();
        lab.until("link", |nodes| nodes.iter().all(|node| node.counter("link_ups") == 1));

        let asked = |nodes: &[Node]| -> u64 {
            nodes.iter().map(|worker| worker.counter("arp_requests_sent")).sum()
        };
        let announced = asked(&lab.0);
        let talk = move || tap::talk(&listener, addr(1), 2 * FROM_EACH, DIALLING);
        let kernel = std::thread::spawn(talk);
        for _ in 0..FROM_EACH {
            lab.0.iter_mut().for_each(|worker| worker.dial(addr(2), CHUNK));
        }
        lab.until("end of the kernel's talk", |_| kernel.is_finished());
        kernel.join().unwrap().unwrap();
        lab.assert_rest(&[0, 0]);

        let sum = |name| lab.0.iter().map(|worker| worker.counter(name)).sum::<u64>();
        assert!(sum("frames_handed_over") > 0, "the kernel has forgotten the queues of flows");
        assert_eq!(sum("connections_opened"), 2 * FROM_EACH as u64);
        assert_eq!(sum("connections_accepted"), DIALLING as u64);
        // The kernel's replies come on any queue, and nobody has had to ask twice.
        assert!(lab.0.iter().all(|worker| worker.counter("neighbors") == 1));
        assert!(asked(&lab.0) <= announced + 2);
    });
}
