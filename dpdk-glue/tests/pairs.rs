//! Ports with another end: a second process, or the kernel. What is special here is the end of the
//! other end.
#![allow(clippy::unwrap_used, reason = "in tests, also in their helpers")]

mod own_process;

use std::env;
use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use dpdk_glue::{Burst, Chains, Mbuf, Mempool, PoolConfig, Port, PortConfig, Proof, QueuePair};

use own_process::{
    EchoProcess, FRAME_LEN, eal, in_own_process, left_files, open, send, small_pool, until, vdev,
    waited_for,
};

/// A socket path that nobody else uses, gone at the end.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("dpdk-glue-{name}-{}.sock", process::id())))
    }

    fn device(&self, before: &str) -> String {
        format!("{before}={}", self.0.display())
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // A server that ends in peace has removed it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Sends `text` until it comes back.
fn ping(queues: &mut QueuePair, text: &str) {
    let mut burst = Burst::new();
    until(text, || {
        send(queues, text.as_bytes());
        queues.rx.recv(&mut burst);
        burst.drain(..).any(|mbuf| mbuf.bytes().starts_with(text.as_bytes()))
    });
}

/// Polls the receive queue, as a worker does, until the other end was found again.
fn await_reconnect(port: &Port, queues: &mut QueuePair, times: u64) {
    let mut burst = Burst::new();
    until("reconnect", || {
        queues.rx.recv(&mut burst);
        queues.tx.send(&mut burst);
        burst.clear();
        send(queues, b"while it is away");
        port.reconnects() == times
    });
}

#[test]
fn a_virtio_user_client_finds_the_next_server_after_one_was_killed() {
    const TEST: &str = "a_virtio_user_client_finds_the_next_server_after_one_was_killed";
    in_own_process(TEST, || {
        let socket = SocketPath::new("vhost");
        let server = socket.device("net_vhost0,queues=1,iface");
        let first = EchoProcess::start(TEST, &server);
        let (eal, client) = (eal(), socket.device("net_virtio_user0,queues=1,path"));
        let pool = small_pool(&eal);
        // The server may not be there yet: opening waits for it.
        let (port, mut queues) = open(&eal, &pool, &client, 1);
        let mac = port.info().mac;
        let queues = &mut queues[0];
        let proof = queues.prove(&port, &[0; FRAME_LEN], Duration::from_secs(10)).unwrap();
        assert!(matches!(proof, Proof::Received | Proof::Consumed), "{proof:?}");
        ping(queues, "first");
        drop(first);
        let second = EchoProcess::start(TEST, &server);
        await_reconnect(&port, queues, 1);
        ping(queues, "second");
        drop(second);
        let third = EchoProcess::start(TEST, &server);
        await_reconnect(&port, queues, 2);
        ping(queues, "third");
        assert_eq!(port.info().mac, mac);
        // A port can be closed while it looks for its peer.
        drop(third);
        until("link down", || !port.link_is_up());
    });
}

#[test]
fn queues_that_never_rest_survive_the_death_of_the_server() {
    const TEST: &str = "queues_that_never_rest_survive_the_death_of_the_server";
    in_own_process(TEST, || {
        let socket = SocketPath::new("busy");
        let server = socket.device("net_vhost0,queues=1,iface");
        let mut echo = EchoProcess::start(TEST, &server);
        let (eal, client) = (eal(), socket.device("net_virtio_user0,queues=1,path"));
        let pool = small_pool(&eal);
        let (port, mut queues) = open(&eal, &pool, &client, 1);
        let QueuePair { mut rx, mut tx } = queues.remove(0);
        let (echoed, done) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut burst = Burst::new();
                while !done.load(Ordering::Relaxed) {
                    let frames = rx.recv(&mut burst) as u64;
                    echoed.fetch_add(frames, Ordering::Relaxed);
                    burst.clear();
                }
                drop(rx);
            });
            scope.spawn(|| {
                let mut burst = Burst::new();
                while !done.load(Ordering::Relaxed) {
                    tx.pool().alloc_burst(FRAME_LEN, &mut burst);
                    tx.send(&mut burst);
                }
                drop(tx);
            });
            let mut happened = true;
            for times in 1..=3 {
                let before = echoed.load(Ordering::Relaxed);
                happened &= waited_for(|| echoed.load(Ordering::Relaxed) > before + 1000);
                drop(echo);
                echo = EchoProcess::start(TEST, &server);
                happened &= waited_for(|| port.reconnects() == times);
            }
            let before = echoed.load(Ordering::Relaxed);
            happened &= waited_for(|| echoed.load(Ordering::Relaxed) > before + 1000);
            done.store(true, Ordering::Relaxed);
            assert!(happened, "echoed {echoed:?}, reconnects {}", port.reconnects());
        });
        drop(port);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_vhost_server_serves_the_next_client_after_one_was_killed() {
    const TEST: &str = "a_vhost_server_serves_the_next_client_after_one_was_killed";
    in_own_process(TEST, || {
        let socket = SocketPath::new("virtio");
        let (eal, server) = (eal(), socket.device("net_vhost0,queues=1,iface"));
        let pool = small_pool(&eal);
        let (_port, mut queues) = open(&eal, &pool, &server, 1);
        let client = socket.device("net_virtio_user0,queues=1,path");
        let first = EchoProcess::start(TEST, &client);
        ping(&mut queues[0], "first");
        let killed = first.pid();
        drop(first);
        let _second = EchoProcess::start(TEST, &client);
        ping(&mut queues[0], "second");
        assert!(!left_files(killed), "the next process sweeps up after a killed one");
    });
}

#[test]
fn a_memif_client_finds_the_next_server() {
    const TEST: &str = "a_memif_client_finds_the_next_server";
    in_own_process(TEST, || {
        let socket = SocketPath::new("memif");
        let ends = "socket-abstract=no,socket";
        let server = socket.device(&format!("net_memif0,role=server,{ends}"));
        let first = EchoProcess::start(TEST, &server);
        let (eal, client) = (eal(), socket.device(&format!("net_memif0,role=client,{ends}")));
        let pool = small_pool(&eal);
        let (port, mut queues) = open(&eal, &pool, &client, 1);
        let queues = &mut queues[0];
        until("link", || port.link_is_up());
        ping(queues, "first");
        drop(first);
        // The driver unmaps its rings at any moment after the other end died, also under a burst:
        // only a queue at rest is safe.
        until("link down", || !port.link_is_up());
        let _second = EchoProcess::start(TEST, &server);
        await_reconnect(&port, queues, 1);
        ping(queues, "second");
    });
}

/// Both ends in one process, with two queues and long packets.
fn carries_long_frames_on_each_queue(server: &str, client: &str) {
    const MTU: u16 = 9000;
    let eal = eal();
    let room = vdev(server).room_for(MTU).max(vdev(client).room_for(MTU));
    let pool = Mempool::new(&eal, PoolConfig { mbufs: 2047, room, cache: 0 }).unwrap();
    let config = PortConfig { queues: 2, mtu: MTU, ..PortConfig::default() };
    let open = |device| Port::open(&eal, &vdev(device), &pool, &config).unwrap();
    let (server, mut server_queues) = open(server);
    let (client, mut client_queues) = open(client);
    until("link", || server.link_is_up() && client.link_is_up());
    let mut burst = Burst::new();
    for queue in 0..2 {
        for _ in 0..2 {
            let (from, to) = (&mut client_queues, &mut server_queues);
            let frame = vec![u8::try_from(queue + 1).unwrap(); usize::from(MTU) + 14];
            until("a long frame", || {
                if let Some(mut mbuf) = from[queue].tx.alloc(frame.len()) {
                    mbuf.bytes_mut().copy_from_slice(&frame);
                    burst.push(mbuf);
                }
                from[queue].tx.send(&mut burst);
                burst.clear();
                to[queue].rx.recv(&mut burst) > 0
            });
            assert_eq!(burst[0].bytes(), frame);
            assert_eq!(to[queue].rx.chains(), Chains::default());
            burst.clear();
            // And the other way.
            std::mem::swap(from, to);
        }
    }
    drop((client, client_queues, server, server_queues));
    assert_eq!(pool.in_use(), 0, "the devices gave back what was in their rings");
}

#[test]
fn long_frames_cross_vhost_in_one_buffer() {
    in_own_process("long_frames_cross_vhost_in_one_buffer", || {
        let socket = SocketPath::new("long");
        carries_long_frames_on_each_queue(
            &socket.device("net_vhost0,queues=2,iface"),
            &socket.device("net_virtio_user0,queues=2,path"),
        );
    });
}

#[test]
fn a_frame_too_long_for_our_buffers_is_dropped_and_counted() {
    const TEST: &str = "a_frame_too_long_for_our_buffers_is_dropped_and_counted";
    in_own_process(TEST, || {
        let socket = SocketPath::new("too-long");
        let eal = eal();
        let (small, large) = (small_pool(&eal), PoolConfig { mbufs: 511, room: 4096, cache: 0 });
        let large = Mempool::new(&eal, large).unwrap();
        let server = socket.device("net_vhost0,queues=1,iface");
        let (server, mut server_queues) = open(&eal, &large, &server, 1);
        let client = socket.device("net_virtio_user0,queues=1,path");
        let (_client, mut client_queues) = open(&eal, &small, &client, 1);
        until("link", || server.link_is_up());
        let rx = &mut client_queues[0].rx;
        for len in [4000, 100] {
            let mut burst = Burst::new();
            burst.push(large.alloc(len).unwrap());
            until("sent", || server_queues[0].tx.send(&mut burst) == 1);
        }
        let mut burst = Burst::new();
        until("the short frame", || rx.recv(&mut burst) > 0);
        assert_eq!(burst[0].len(), 100);
        assert_eq!(rx.chains(), Chains { linearised: 0, dropped: 1 });
    });
}

#[test]
fn long_frames_cross_memif_in_one_buffer() {
    in_own_process("long_frames_cross_memif_in_one_buffer", || {
        let socket = SocketPath::new("long-memif");
        let end =
            |before| socket.device(&format!("{before},bsize=10240,socket-abstract=no,socket"));
        carries_long_frames_on_each_queue(
            &end("net_memif0,role=server"),
            &end("net_memif1,role=client"),
        );
    });
}

#[test]
fn a_stalled_server_is_told_from_a_working_one() {
    const TEST: &str = "a_stalled_server_is_told_from_a_working_one";
    in_own_process(TEST, || {
        let socket = SocketPath::new("stall");
        let (eal, server) = (eal(), socket.device("net_vhost0,queues=1,iface"));
        let pool = small_pool(&eal);
        // Both ends in one process: nobody polls the server's queue.
        let _server = open(&eal, &pool, &server, 1);
        let (port, mut queues) =
            open(&eal, &pool, &socket.device("net_virtio_user0,queues=1,path"), 1);
        let error = queues[0].prove(&port, &[0; FRAME_LEN], Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("took none of 256 frames"), "{error}");
    });
}

/// Makes a network namespace for this thread and those it starts.
fn enter_new_namespace() {
    // SAFETY: changes the namespace of this thread, and touches no memory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert!(
        result == 0 && Path::new("/dev/net/tun").exists(),
        "this test makes a network namespace and a tap, which needs root and /dev/net/tun; run: \
         sudo make test"
    );
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// Turns a UDP packet over IPv4 round. Swapping fields leaves the checksums right.
fn turn_round(mbuf: &mut Mbuf) {
    let bytes = mbuf.bytes_mut();
    for (a, b, len) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        let (left, right) = bytes.split_at_mut(b);
        left[a..a + len].swap_with_slice(&mut right[..len]);
    }
}

fn is_udp(mbuf: &Mbuf) -> bool {
    let bytes = mbuf.bytes();
    bytes.len() > 42 && bytes[12..14] == [8, 0] && bytes[23] == 17
}

#[test]
fn the_kernel_talks_to_a_tap_without_signals() {
    const TEST: &str = "the_kernel_talks_to_a_tap_without_signals";
    in_own_process(TEST, || {
        enter_new_namespace();
        let eal = eal();
        let pool = small_pool(&eal);
        for _ in 0..2 {
            let tap = "net_tap0,iface=dt0,mac=02:64:74:61:70:01";
            let (port, mut queues) = open(&eal, &pool, tap, 2);
            assert_eq!(port.info().mac, [2, 0x64, 0x74, 0x61, 0x70, 1]);
            until("link", || port.link_is_up());
            ip("addr add 10.99.0.1/24 dev dt0");
            ip("neigh add 10.99.0.2 lladdr 02:64:74:61:70:01 dev dt0");
            echo_through(&mut queues).unwrap();
            let stats = port.stats().unwrap();
            assert!(stats.rx_packets > 0 && stats.tx_packets > 0, "{stats:?}");
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
            assert_eq!(caught >> libc::SIGRTMIN(), 0, "the driver took a real-time signal");
            drop((port, queues));
            // The kernel's interface went with the port, and the next round makes a new one.
            assert!(!Path::new("/sys/class/net/dt0").exists());
        }
        assert_eq!(pool.in_use(), 0);
    });
}

/// The kernel's socket sends a datagram, we turn it round, and the socket gets it back.
fn echo_through(queues: &mut [QueuePair]) -> io::Result<()> {
    let socket = UdpSocket::bind("10.99.0.1:0")?;
    socket.connect("10.99.0.2:7")?;
    socket.set_nonblocking(true)?;
    socket.send(&[42; 1400])?;
    let (mut burst, mut answer) = (Burst::new(), [0; 2048]);
    until("echo", || {
        for queues in &mut *queues {
            queues.rx.recv(&mut burst);
            burst.retain(|mbuf| is_udp(mbuf));
            burst.iter_mut().for_each(turn_round);
            queues.tx.send(&mut burst);
        }
        socket.recv(&mut answer).is_ok_and(|len| answer[..len] == [42; 1400])
    });
    Ok(())
}
