//! Random calls over a bad link: whatever happens, bytes arrive in order and nothing is left.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use super::lab::{Lab, patterned, server_of, v4};
use crate::device::sim::{Faults, Random, SimPort, Spread};
use crate::stack::{ConnectedSocket, Received, ServerSocket, Worker};

const STEPS: usize = 1500;
const CLIENTS_MAX: usize = 12;

/// What the clients of one run did, and what the servers saw of it.
struct Chaos {
    lab: Lab,
    random: Random,
    servers: Vec<(usize, ServerSocket)>,
    clients: Vec<ConnectedSocket>,
    /// By the client's address: bytes sent, and whether the end of the stream is to be trusted.
    sent: BTreeMap<SocketAddr, (usize, bool)>,
    accepted: Vec<Accepted>,
    complete: usize,
}

struct Accepted {
    worker: usize,
    socket: ConnectedSocket,
    peer: SocketAddr,
    received: usize,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let faults = Faults {
            delay: Duration::from_micros(20),
            jitter: Duration::from_micros(300),
            jitter_ppm: 20_000,
            loss_ppm: 10_000,
            duplicate_ppm: 10_000,
            corrupt_ppm: 5_000,
            ..Faults::default()
        };
        let spread = Spread::Moving { every: 50 };
        let client = SimPort { faults, ..SimPort::new(1) };
        let server = SimPort { faults, queues: 2, spread, ..SimPort::new(2) };
        let mut lab = Lab::over(&[client, server], |_, config| {
            config.clock_multiplier = 50;
            config.linger = Duration::from_secs(5);
            config.seed = Some(seed);
        });
        let servers = [1, 2].map(|worker| (worker, lab.listen(worker, server_of(v4(1))))).into();
        Self {
            lab,
            random: Random::new(seed),
            servers,
            clients: Vec::new(),
            sent: BTreeMap::new(),
            accepted: Vec::new(),
            complete: 0,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit as u64) as usize
    }

    fn step(&mut self) {
        let client = self.below(self.clients.len().max(1));
        match self.below(20) {
            0..=2 if self.clients.len() < CLIENTS_MAX => self.connect(),
            3..=10 if !self.clients.is_empty() => self.send(client),
            11 if !self.clients.is_empty() => self.end(client, false),
            12 if !self.clients.is_empty() && self.below(4) == 0 => self.end(client, true),
            13 if !self.accepted.is_empty() && self.below(8) == 0 => self.hang_up(),
            _ => self.serve(),
        }
        if self.below(3) == 0 {
            self.lab.turn();
        }
    }

    fn connect(&mut self) {
        let client = self.lab.connect(0, server_of(v4(1)));
        let addr = self.lab.hosts[0].local_addr(&client).unwrap();
        self.sent.insert(addr, (0, true));
        self.clients.push(client);
    }

    fn send(&mut self, index: usize) {
        let len = self.below(20_000);
        let client = &self.clients[index];
        let host = &mut self.lab.hosts[0];
        let sent = self.sent.get_mut(&host.local_addr(client).unwrap()).unwrap();
        let data = patterned(sent.0, len);
        // It may have failed; the end of the run will tell that it is cleaned up.
        sent.0 += host.send(self.lab.now, client, &[IoSlice::new(&data)], false).unwrap_or(0);
    }

    fn end(&mut self, index: usize, abort: bool) {
        let client = self.clients.swap_remove(index);
        let host = &mut self.lab.hosts[0];
        let addr = host.local_addr(&client).unwrap();
        let is_open = host.is_connected(&client).is_ok_and(|open| open);
        self.sent.get_mut(&addr).unwrap().1 &= is_open && !abort;
        host.close(self.lab.now, client, abort);
    }

    fn hang_up(&mut self) {
        let index = self.below(self.accepted.len());
        let abort = self.below(2) == 0;
        let Accepted { worker, socket, .. } = self.accepted.swap_remove(index);
        self.lab.hosts[worker].close(self.lab.now, socket, abort);
    }

    fn serve(&mut self) {
        let now = self.lab.now;
        for (worker, server) in &self.servers {
            while let Some((socket, peer)) = self.lab.hosts[*worker].accept(now, server).unwrap() {
                self.accepted.push(Accepted { worker: *worker, socket, peer, received: 0 });
            }
        }
        for index in (0..self.accepted.len()).rev() {
            let Accepted { worker, socket, peer, received } = &mut self.accepted[index];
            let mut data = Vec::new();
            let end = self.lab.read(*worker, socket, &mut data);
            assert!(data == patterned(*received, data.len()), "other bytes than were sent");
            *received += data.len();
            let (sent, is_whole) = self.sent[peer];
            assert!(*received <= sent);
            if let Ok(Received::EndOfStream) = end {
                assert!(*received == sent || !is_whole, "{received} of {sent} bytes and the end");
                self.complete += usize::from(*received == sent);
            }
            if !matches!(end, Ok(Received::WouldBlock)) {
                let Accepted { worker, socket, .. } = self.accepted.swap_remove(index);
                self.lab.hosts[worker].close(now, socket, false);
            }
        }
    }

    fn finish(mut self) -> usize {
        while !self.clients.is_empty() {
            self.end(0, false);
        }
        for _ in 0..3000 {
            self.serve();
            self.lab.turn();
        }
        for Accepted { worker, socket, .. } in self.accepted.drain(..) {
            self.lab.hosts[worker].close(self.lab.now, socket, false);
        }
        for (worker, server) in self.servers.drain(..) {
            self.lab.hosts[worker].close_listener(self.lab.now, server);
        }
        self.lab.assert_nothing_left();
        self.complete
    }
}

#[test]
fn random_calls_over_a_bad_link_mix_nothing_up_and_leave_nothing() {
    for seed in 0..8 {
        println!("seed {seed}");
        let mut chaos = Chaos::new(seed);
        for _ in 0..STEPS {
            chaos.step();
        }
        assert!(chaos.finish() > 5, "some streams came through whole");
    }
}
