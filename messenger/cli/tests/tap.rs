//! `msgr serve` on net_tap, as the kernel sees it. Needs root.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lab::{KERNEL_V4, PORT, STACK_V4, STACK_V6, TapServer, total};

/// Bytes every msgr2 server sends first: magic, payload length, features.
const BANNER_LEN: usize = 8 + 2 + 16;
const SECOND: Duration = Duration::from_secs(1);

fn serving() -> SocketAddr {
    SocketAddr::new(STACK_V4.parse().unwrap(), PORT)
}

/// Connects and reads the banner, which only a served connection sends.
fn greet(timeout: Duration) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&serving(), timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let mut banner = [0; BANNER_LEN];
    stream.read_exact(&mut banner)?;
    assert_eq!(&banner[..8], b"ceph v2\n");
    Ok(stream)
}

#[test]
fn pings_are_answered_from_the_first_packet_on() {
    let tap = TapServer::start(1);
    for (family, address) in [("-4", STACK_V4), ("-6", STACK_V6)] {
        let out = tap.run("ping", &[family, "-c", "5", "-i", "0.2", "-W", "1", address]);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("5 packets transmitted, 5 received"), "ping {family}: {text}");
    }
    let large = tap.run("ping", &["-c", "1", "-W", "1", "-s", "1400", STACK_V4]);
    assert!(large.status.success(), "{large:?}");
}

#[test]
fn a_closed_port_refuses_at_once() {
    let tap = TapServer::start(1);
    for address in [STACK_V4, STACK_V6] {
        let out = tap.run("nc", &["-z", "-w", "2", address, "7"]);
        assert!(!out.status.success());
        let closed = SocketAddr::new(address.parse().unwrap(), 7);
        let refused = tap.inside(|| TcpStream::connect_timeout(&closed, SECOND)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
}

#[test]
fn a_thousand_connects_in_a_row_and_two_hundred_at_once_all_succeed() {
    let mut tap = TapServer::start(1);
    tap.inside(|| {
        for i in 0..1000 {
            greet(5 * SECOND).unwrap_or_else(|error| panic!("connect {i}: {error}"));
        }
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..200).map(|_| scope.spawn(|| greet(10 * SECOND))).collect();
            // All are held open until the last has been greeted.
            let open: Vec<_> = all.into_iter().map(|t| t.join().unwrap().unwrap()).collect();
            assert_eq!(open.len(), 200);
        });
    });
    tap.server.wait_for_rest();
    assert!(total(&tap.server.counters(), "connections_accepted") >= 1200);
}

#[test]
fn bytes_that_are_no_messenger_end_only_their_own_connection() {
    let mut tap = TapServer::start(1);
    tap.inside(|| {
        let mut bystander = greet(5 * SECOND).unwrap();
        let banner = *b"ceph v2\n\x10\x00\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let oversize = {
            let mut frame = [0_u8; 32];
            frame[0] = 1;
            frame[1] = 1;
            frame[2..6].copy_from_slice(&u32::MAX.to_le_bytes());
            [banner.as_slice(), frame.as_slice()].concat()
        };
        let stimuli: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\nHost: storage\r\n\r\n",
            b"ceph v027 and the address that an old client sends behind it",
            &[0xff; 4096],
            &[banner.as_slice(), &[0x77; 64]].concat(),
            &oversize,
        ];
        for bytes in stimuli {
            let mut stream = greet(5 * SECOND).unwrap();
            stream.write_all(bytes).unwrap();
            let mut rest = Vec::new();
            // The server says no more than its hello and closes; a reset is as good.
            if let Err(error) = stream.read_to_end(&mut rest) {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not closed on {bytes:?}");
            }
        }
        // Still served, still able to speak.
        bystander.write_all(&banner).unwrap();
        let mut hello = [0; 32];
        bystander.read_exact(&mut hello).unwrap();
        assert_eq!(hello[0], 1, "a HELLO frame follows the banner");
    });
    assert!(total(&tap.server.counters(), "msgr_protocol_errors") >= 5);
    tap.server.wait_for_rest();
}

#[test]
fn a_kernel_client_and_the_stack_exchange_messages_over_ip_v4() {
    let mut tap = TapServer::start(1);
    let target = format!("{STACK_V4}:{PORT}");
    let out = tap.run(
        lab::MSGR,
        &["ping", "--json", "--count", "2000", "--size", "4096", "--depth", "8", &target],
    );
    assert!(out.status.success(), "from {KERNEL_V4}: {out:?}");
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["messages"], 2000);
    tap.server.wait_for_rest();
}
