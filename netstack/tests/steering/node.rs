//! A worker with its connections, and several of them driven by one thread.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netstack::native::{NativeConfig, NativeStack, NativeWorker};
use netstack::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, NetworkStack, Ready, Received,
    ServerSocket, SocketId, Worker,
};

use super::hopper::Hopper;

/// No wait takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of a connection on their way: a few segments, and less than any buffer.
pub(crate) const CHUNK: usize = 3000;

/// `len` bytes of the stream number `number`, from its byte `from` on.
pub(crate) fn pattern(number: usize, from: usize, len: usize) -> Vec<u8> {
    let byte = |index: usize| ((index + number * 7919).wrapping_mul(0x9e37_79b9) >> 13) as u8;
    (from..from + len).map(byte).collect()
}

/// A connection we opened says its `goal` of bytes and wants them back. After that, and if the
/// peer opened it, it sends back what comes.
struct Talk {
    socket: ConnectedSocket,
    number: usize,
    goal: usize,
    sent: usize,
    received: usize,
}

/// A worker that listens, and its connections.
pub(crate) struct Node {
    worker: NativeWorker<Hopper>,
    listener: ServerSocket,
    talks: BTreeMap<SocketId, Talk>,
    ready: Vec<Ready>,
    /// All gauges before the first connection.
    start: Vec<(&'static str, u64)>,
}

impl Node {
    fn new(mut worker: NativeWorker<Hopper>, addr: SocketAddr) -> Self {
        worker.start().unwrap();
        let listener = worker.listen(Instant::now(), addr, &ListenOptions::default()).unwrap();
        let start = gauges(&worker);
        Self { worker, listener, talks: BTreeMap::new(), ready: Vec::new(), start }
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.worker.counters();
        counters.iter().find(|(other, _)| *other == name).expect("a counter of that name").1
    }

    pub(crate) fn dial(&mut self, peer: SocketAddr, goal: usize) {
        let socket = self.worker.connect(Instant::now(), peer, &ConnectOptions::default()).unwrap();
        let number = usize::from(self.worker.local_addr(&socket).unwrap().port());
        self.talks.insert(socket.id(), Talk { socket, number, goal, sent: 0, received: 0 });
    }

    /// Whether every connection we opened has had its say.
    pub(crate) fn has_said_all(&self) -> bool {
        self.talks.values().all(|talk| talk.received >= talk.goal)
    }

    /// Closes what we opened; the other ends follow.
    pub(crate) fn hang_up(&mut self) {
        let dialled = self.talks.extract_if(.., |_, talk| talk.goal > 0);
        for (_, talk) in dialled {
            self.worker.close(Instant::now(), talk.socket, false);
        }
    }

    /// Gauges that are not where they were, but for up to `slack` frames that the device keeps.
    pub(crate) fn unrest(&self, slack: u64) -> Vec<(&'static str, u64)> {
        let is_unrest = |((name, now), (_, start)): &((&str, u64), &(&str, u64))| {
            let slack = if *name == "frames_in_use" { slack } else { 0 };
            *now > start + slack
        };
        let gauges = gauges(&self.worker).into_iter().zip(&self.start);
        gauges.filter(is_unrest).map(|(gauge, _)| gauge).collect()
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let mut ready = std::mem::take(&mut self.ready);
        self.worker.wait(now, Some(now), &mut ready).unwrap();
        while let Some((socket, peer)) = self.worker.accept(now, &self.listener).unwrap() {
            let number = usize::from(peer.port());
            let talk = Talk { socket, number, goal: 0, sent: 0, received: 0 };
            self.talks.insert(talk.socket.id(), talk);
        }
        for ready in ready.drain(..) {
            let Some(talk) = self.talks.get_mut(&ready.socket) else {
                continue;
            };
            if !move_on(&mut self.worker, now, talk)
                && let Some(talk) = self.talks.remove(&ready.socket)
            {
                self.worker.close(now, talk.socket, false);
            }
        }
        self.ready = ready;
        self.worker.flush(now).unwrap();
    }
}

/// Reads everything there is and says what comes next; false: the peer has closed.
fn move_on(worker: &mut NativeWorker<Hopper>, now: Instant, talk: &mut Talk) -> bool {
    let mut buffer = [0; CHUNK];
    if !worker.is_connected(&talk.socket).unwrap() {
        return true;
    }
    loop {
        if talk.sent == talk.received && talk.sent < talk.goal {
            let chunk = pattern(talk.number, talk.sent, CHUNK.min(talk.goal - talk.sent));
            talk.sent += say(worker, now, talk, &chunk);
        }
        match worker.recv(now, &talk.socket, &mut buffer).unwrap() {
            Received::Bytes(len) if talk.received < talk.goal => {
                let expected = pattern(talk.number, talk.received, len);
                assert!(buffer[..len] == expected, "other bytes came back");
                talk.received += len;
            }
            Received::Bytes(len) => {
                say(worker, now, talk, &buffer[..len]);
            }
            Received::WouldBlock => return true,
            Received::EndOfStream => return false,
        }
    }
}

fn say(worker: &mut NativeWorker<Hopper>, now: Instant, talk: &Talk, bytes: &[u8]) -> usize {
    let sent = worker.send(now, &talk.socket, &[IoSlice::new(bytes)], false).unwrap();
    assert_eq!(sent, bytes.len(), "less is under way than a buffer holds");
    sent
}

fn gauges(worker: &NativeWorker<Hopper>) -> Vec<(&'static str, u64)> {
    worker.counters().into_iter().filter(|(name, _)| name.ends_with("_in_use")).collect()
}

/// The workers of all ends.
pub(crate) struct Lab(pub(crate) Vec<Node>);

impl Lab {
    /// Adds a host, with a worker for each device.
    pub(crate) fn add(&mut self, devices: Vec<Hopper>, addr: SocketAddr) {
        let config = NativeConfig {
            addrs: vec![smoltcp::wire::IpCidr::new(addr.ip().into(), 24)],
            time_wait: Duration::from_millis(100), // the test waits for its end
            user_timeout: None,                    // silence is silence: no probes
            ..NativeConfig::default()
        };
        let workers = NativeStack::new(devices, config).into_workers().unwrap();
        self.0.extend(workers.into_iter().map(|worker| Node::new(worker, addr)));
    }

    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&[Node]) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(&self.0) {
            let counters = || self.0.iter().map(|node| node.worker.counters()).collect::<Vec<_>>();
            assert!(Instant::now() < end, "no {what} within {PATIENCE:?}: {:#?}", counters());
            self.turn();
        }
    }

    /// One turn of every worker.
    pub(crate) fn turn(&mut self) {
        self.0.iter_mut().for_each(Node::turn);
    }

    /// Waits until nobody has a connection and all gauges are back, and looks for anything lost.
    /// `slack`: see [`Node::unrest`], for each worker.
    #[track_caller]
    pub(crate) fn assert_rest(&mut self, slack: &[u64]) {
        let is_at_rest =
            |(node, slack): (&Node, &u64)| node.talks.is_empty() && node.unrest(*slack).is_empty();
        self.until("return of all gauges", |nodes| nodes.iter().zip(slack).all(is_at_rest));
        for (index, node) in self.0.iter().enumerate() {
            for name in [
                "connections_refused",
                "connections_reset",
                "connections_timed_out",
                "connections_unreachable",
                "strangers_refused",
                "resets_sent",
                "linger_resets",
                "half_open_reaped",
                "handover_full_drops",
                "neighbors_unreachable",
            ] {
                assert_eq!(node.counter(name), 0, "{name} of worker {index}");
            }
        }
        let sum = |name| self.0.iter().map(|node| node.counter(name)).sum::<u64>();
        assert_eq!(sum("frames_handed_over"), sum("frames_taken_over"));
    }
}
