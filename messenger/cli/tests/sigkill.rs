//! Either end killed outright, at any moment: the other says so, frees everything, goes on.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::sandbox::ScratchDir;
use lab::{MSGR, Server, msgr};

const ROUNDS: u64 = 6;
const SERVER: &str = "10.98.0.1";
const CLIENT: &str = "10.98.0.2";

/// A peer that vanished without a word is found by our own TCP as fast as a test wants it.
const IMPATIENT: &str = "[native]\nkeepalive_ms = 500\nuser_timeout_ms = 2000\n";

/// Both ends of one transport, as command lines.
struct Transport {
    serve: Vec<String>,
    ping: Vec<String>,
    target: String,
    _scratch: ScratchDir,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Transport {
    fn vhost() -> Self {
        let scratch = ScratchDir::create().unwrap();
        let config = scratch.join("lab.toml");
        std::fs::write(&config, IMPATIENT).unwrap();
        let config = config.display();
        let socket = scratch.join("vhost.sock");
        let socket = socket.display();
        Self {
            serve: words(&format!(
                "--config {config} --stack dpdk --vdev net_vhost0,iface={socket},queues=1 --addr {SERVER}/24 \
                 --bind {SERVER}:6800"
            )),
            ping: words(&format!(
                "--config {config} --stack dpdk --vdev net_virtio_user0,path={socket},queues=1 --addr {CLIENT}/24"
            )),
            target: format!("{SERVER}:6800"),
            _scratch: scratch,
        }
    }

    fn posix() -> Self {
        Self {
            serve: words("--stack posix --bind 127.0.0.1:6799"),
            ping: words("--stack posix"),
            target: "127.0.0.1:6799".to_owned(),
            _scratch: ScratchDir::create().unwrap(),
        }
    }

    fn serve(&self) -> Server {
        let mut command = msgr(&["--exit-with-parent", "serve", "--json", "--stats", "0.1"]);
        command.args(&self.serve);
        Server::start(command)
    }

    fn ping(&self, count: &str) -> Command {
        let mut command = msgr(&["--exit-with-parent", "ping", "--json", "--count", count]);
        command.args(&self.ping).arg(&self.target);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

fn kill_clients_at_any_moment(transport: &Transport) {
    let mut server = transport.serve();
    for round in 0..ROUNDS {
        let mut client = transport.ping("100000000").spawn().expect(MSGR);
        // From the middle of the start-up to the middle of the traffic.
        std::thread::sleep(Duration::from_millis(100 + round * 300));
        client.kill().unwrap();
        client.wait().unwrap();
        server.wait_for_rest();
    }
    let ended = server.counters();
    assert_eq!(ended["accepted"], ended["ended"], "every accepted connection was reported ended");
    let out = transport.ping("1000").output().unwrap();
    assert!(out.status.success(), "the next peer is served: {out:?}");
    server.process.stop().unwrap();
}

fn kill_the_server_under_a_client(transport: &Transport) {
    let mut server = transport.serve();
    let client = transport.ping("100000000").spawn().expect(MSGR);
    server.wait_for("traffic", |c| c["answered"].as_u64() > Some(1000));
    server.process.kill();
    let killed = Instant::now();
    let out = client.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(
        words.contains("the peer ended the connection") || words.contains("no reply"),
        "{words}"
    );
    assert!(killed.elapsed() < lab::PATIENCE, "told after {:?}", killed.elapsed());
}

#[test]
fn a_server_on_vhost_outlives_killed_clients() {
    kill_clients_at_any_moment(&Transport::vhost());
}

#[test]
fn a_server_on_kernel_tcp_outlives_killed_clients() {
    kill_clients_at_any_moment(&Transport::posix());
}

#[test]
fn a_client_on_virtio_user_reports_a_killed_server() {
    let transport = Transport::vhost();
    kill_the_server_under_a_client(&transport);
    // The dead server's socket file is in the way of the next one; it must be dealt with.
    let server = transport.serve();
    let out = transport.ping("1000").output().unwrap();
    assert!(out.status.success(), "{out:?}");
    drop(server);
}

#[test]
fn a_client_on_kernel_tcp_reports_a_killed_server() {
    kill_the_server_under_a_client(&Transport::posix());
}
