//! Two workers serve one two-queue tap: flows spread over both and stay where they began.
//!
//! That a flow survives being moved to the other queue is shown below the messenger, where a test
//! can choose the queue: `netstack/tests/steering_dpdk.rs`.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lab::{PORT, STACK_V4, TapServer, per_worker, total};

const FLOWS: usize = 64;

/// The kernel forgets which queue of a tap a flow used after 3 s without traffic, and then picks
/// anew.
const KERNEL_FORGETS_AFTER: Duration = Duration::from_secs(5);

#[test]
fn both_workers_get_flows_and_keep_them() {
    let mut tap = TapServer::start(2);
    let addr = SocketAddr::new(STACK_V4.parse().unwrap(), PORT);
    let mut flows: Vec<TcpStream> = tap.inside(|| {
        (0..FLOWS)
            .map(|_| {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut banner = [0; 26];
                stream.read_exact(&mut banner).unwrap();
                stream
            })
            .collect()
    });
    let opened =
        tap.server.wait_for("accepted flows", |c| total(c, "connections_in_use") == FLOWS as u64);
    let owners = per_worker(&opened, "connections_in_use");
    assert!(owners.iter().all(|&n| n > 0), "one worker got all flows: {owners:?}");

    std::thread::sleep(KERNEL_FORGETS_AFTER);
    for stream in &mut flows {
        stream.write_all(b"ceph v2\n\x10\x00\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
        let mut hello = [0; 32];
        stream.read_exact(&mut hello).expect("a flow is neither reset nor lost");
        assert_eq!(hello[0], 1);
    }
    let after = tap.server.counters();
    assert_eq!(per_worker(&after, "connections_in_use"), owners, "a flow changed its worker");
    assert_eq!(total(&after, "handover_full_drops"), 0);
    assert_eq!(total(&after, "frames_handed_over"), total(&after, "frames_taken_over"));
    drop(flows);
    tap.server.wait_for_rest();
}
