//! All workers of a lab, driven by one thread.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use netstack::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, Readiness, Ready, Received,
    ServerSocket, SocketError, SocketId, Worker,
};

/// A few round trips on any link that loses nothing.
const SETTLE_TURNS_MIN: u64 = 30;

/// One transport, set up so that servers and clients reach each other.
pub trait Lab {
    /// The workers under test.
    type Worker: Worker;

    /// Makes the workers; called once.
    fn open(&mut self) -> Ends<Self::Worker>;

    /// The time of the next turn. A virtual clock moves on; a real one may sleep if the last turn
    /// was `idle`.
    fn tick(&mut self, idle: bool) -> Instant;

    /// An address of the servers.
    fn server_ip(&self) -> IpAddr;

    /// An address of the clients.
    fn client_ip(&self) -> IpAddr;

    /// Nobody answers there.
    fn nowhere(&self) -> SocketAddr;

    /// Most time one case may take, by [`Lab::tick`].
    fn limit(&self) -> Duration;

    /// Time enough for what is under way to arrive.
    fn settle(&self) -> Duration;

    /// Frames a device may keep in its rings while nothing is under way.
    fn idle_frames(&self) -> u64 {
        0
    }

    /// Divides the amount of work where a link is slow.
    fn ease(&self) -> usize {
        1
    }
}

/// The workers of a lab.
pub struct Ends<W> {
    pub servers: Vec<W>,
    /// Empty: the servers are the clients, too.
    pub clients: Vec<W>,
}

/// A connection and the worker that owns it.
#[derive(Debug)]
pub struct Conn {
    pub worker: usize,
    pub socket: ConnectedSocket,
}

/// One address, listened on by every server.
#[derive(Debug)]
pub struct Port {
    pub addr: SocketAddr,
    pub listeners: Vec<(usize, ServerSocket)>,
}

pub struct World<L: Lab> {
    /// Before the lab: they end while it still stands.
    pub workers: Vec<L::Worker>,
    pub lab: L,
    servers: Range<usize>,
    clients: Range<usize>,
    /// What each worker reported and the case did not take.
    news: Vec<Vec<Ready>>,
    pub now: Instant,
    started: Instant,
    turns: u64,
    idle: bool,
}

impl<L: Lab> World<L> {
    /// Opens the lab, tells the story, and waits until nothing is left of it.
    pub fn run(mut lab: L, case: impl FnOnce(&mut Self)) {
        let ends = lab.open();
        let servers = 0..ends.servers.len();
        let clients = match ends.clients.len() {
            0 => servers.clone(),
            count => servers.end..servers.end + count,
        };
        let mut workers: Vec<_> = ends.servers.into_iter().chain(ends.clients).collect();
        for worker in &mut workers {
            worker.start().unwrap();
        }
        let news = vec![Vec::new(); workers.len()];
        let now = lab.tick(false);
        let (started, turns, idle) = (now, 0, false);
        let mut world = Self { lab, workers, servers, clients, news, now, started, turns, idle };
        case(&mut world);
        world.until("all gauges are zero", |world| world.in_use().is_empty().then_some(()));
    }

    /// One turn of every worker.
    pub fn turn(&mut self) {
        self.now = self.lab.tick(self.idle);
        self.turns += 1;
        self.idle = true;
        for (worker, news) in self.workers.iter_mut().zip(&mut self.news) {
            let before = news.len();
            worker.flush(self.now).unwrap();
            worker.wait(self.now, Some(self.now), news).unwrap();
            self.idle &= news.len() == before;
        }
    }

    /// Lets what is under way arrive, also on a machine that lets us wait.
    pub fn settle(&mut self) {
        let (end, last_turn) = (self.now + self.lab.settle(), self.turns + SETTLE_TURNS_MIN);
        while self.now < end || self.turns < last_turn {
            self.turn();
        }
    }

    /// Turns until `done` finds what it looks for; fails when the lab's limit is over.
    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            let elapsed = self.now - self.started;
            assert!(
                elapsed < self.lab.limit(),
                "still waiting until {what}, after {elapsed:?} and {} turns\n{}",
                self.turns,
                self.state()
            );
            self.turn();
        }
    }

    /// The gauges that are not zero.
    fn in_use(&self) -> Vec<(usize, &'static str, u64)> {
        let idle = |name| match name {
            "frames_in_use" => self.lab.idle_frames(),
            _ => 0,
        };
        self.counters()
            .filter(|&(_, name, count)| name.ends_with("_in_use") && count > idle(name))
            .collect()
    }

    fn counters(&self) -> impl Iterator<Item = (usize, &'static str, u64)> {
        self.workers.iter().enumerate().flat_map(|(worker, this)| {
            this.counters().into_iter().map(move |(name, count)| (worker, name, count))
        })
    }

    fn state(&self) -> String {
        let counted = self.counters().filter(|&(_, _, count)| count > 0);
        let lines =
            counted.map(|(worker, name, count)| format!("  worker {worker}: {name} {count}\n"));
        lines.chain([format!("  not taken: {:?}", self.news)]).collect()
    }

    /// Listens with every server on one free port of `ip`.
    pub fn listen_on(&mut self, ip: IpAddr) -> Port {
        let options = ListenOptions::default();
        let mut addr = SocketAddr::new(ip, 0);
        let mut listeners = Vec::new();
        for worker in self.servers.clone() {
            let this = &mut self.workers[worker];
            let socket = this.listen(self.now, addr, &options).unwrap();
            addr = this.listen_addr(&socket);
            assert_ne!(addr.port(), 0, "a port was chosen");
            listeners.push((worker, socket));
        }
        Port { addr, listeners }
    }

    pub fn listen(&mut self) -> Port {
        self.listen_on(self.lab.server_ip())
    }

    pub fn close_port(&mut self, port: Port) {
        for (worker, socket) in port.listeners {
            self.workers[worker].close_listener(self.now, socket);
        }
    }

    /// Starts to connect from the client of this index, modulo their number.
    pub fn try_connect(
        &mut self,
        client: usize,
        peer: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<Conn, SocketError> {
        let worker = self.clients.start + client % self.clients.len();
        let socket = self.workers[worker].connect(self.now, peer, options)?;
        Ok(Conn { worker, socket })
    }

    pub fn connect(&mut self, client: usize, peer: SocketAddr) -> Conn {
        self.try_connect(client, peer, &ConnectOptions::default()).unwrap()
    }

    pub fn is_connected(&mut self, conn: &Conn) -> Result<bool, SocketError> {
        self.workers[conn.worker].is_connected(&conn.socket)
    }

    /// Waits for the outcome of a connect.
    pub fn outcome(&mut self, conn: &Conn) -> Result<(), SocketError> {
        self.until("the connect has an outcome", |world| match world.is_connected(conn) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// The oldest waiting connection of any server.
    pub fn try_accept(&mut self, port: &Port) -> Option<(Conn, SocketAddr)> {
        port.listeners.iter().find_map(|&(worker, ref socket)| {
            let (socket, peer) = self.workers[worker].accept(self.now, socket).unwrap()?;
            Some((Conn { worker, socket }, peer))
        })
    }

    pub fn accept(&mut self, port: &Port) -> (Conn, SocketAddr) {
        self.until("a connection is accepted", |world| world.try_accept(port))
    }

    /// An open connection: the client's end and the server's.
    pub fn open(&mut self, port: &Port, client: usize) -> (Conn, Conn) {
        let near = self.connect(client, port.addr);
        self.outcome(&near).unwrap();
        let (far, _) = self.accept(port);
        (near, far)
    }

    pub fn local_addr(&self, conn: &Conn) -> SocketAddr {
        self.workers[conn.worker].local_addr(&conn.socket).unwrap()
    }

    pub fn send(&mut self, conn: &Conn, bytes: &[u8]) -> Result<usize, SocketError> {
        self.send_gather(conn, &[IoSlice::new(bytes)], false)
    }

    pub fn send_gather(
        &mut self,
        conn: &Conn,
        gather: &[IoSlice<'_>],
        more: bool,
    ) -> Result<usize, SocketError> {
        self.workers[conn.worker].send(self.now, &conn.socket, gather, more)
    }

    pub fn recv(&mut self, conn: &Conn, buffer: &mut [u8]) -> Result<Received, SocketError> {
        self.workers[conn.worker].recv(self.now, &conn.socket, buffer)
    }

    pub fn shutdown(&mut self, conn: &Conn) {
        self.workers[conn.worker].shutdown(self.now, &conn.socket).unwrap();
    }

    pub fn close(&mut self, conn: Conn) {
        self.workers[conn.worker].close(self.now, conn.socket, false);
    }

    pub fn abort(&mut self, conn: Conn) {
        self.workers[conn.worker].close(self.now, conn.socket, true);
    }

    pub fn send_all(&mut self, conn: &Conn, bytes: &[u8]) {
        let mut sent = 0;
        self.until("all bytes are taken", |world| {
            sent += world.send(conn, &bytes[sent..]).unwrap();
            (sent == bytes.len()).then_some(())
        });
    }

    pub fn recv_exactly(&mut self, conn: &Conn, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut have = 0;
        self.until("all bytes have come", |world| {
            match world.recv(conn, &mut bytes[have..]).unwrap() {
                Received::Bytes(count) => have += count,
                Received::WouldBlock => {}
                Received::EndOfStream => panic!("the stream ended after {have} of {len} bytes"),
            }
            (have == len).then_some(())
        });
        bytes
    }

    /// Waits for what comes instead of bytes.
    pub fn recv_end(&mut self, conn: &Conn) -> Result<(), SocketError> {
        let mut buffer = [0; 64];
        self.until("the stream ends", |world| match world.recv(conn, &mut buffer) {
            Ok(Received::EndOfStream) => Some(Ok(())),
            Ok(Received::WouldBlock) => None,
            Ok(Received::Bytes(count)) => panic!("{count} bytes come before the end"),
            Err(error) => Some(Err(error)),
        })
    }

    /// Waits for the end of a connection whose peer is gone.
    ///
    /// A lost reset is not repeated, but it is provoked again by whatever we send.
    pub fn until_over(&mut self, conn: &Conn) -> Result<(), SocketError> {
        let mut next = self.now + self.lab.settle();
        self.until("the connection is over", |world| match world.recv(conn, &mut [0; 64]) {
            Ok(Received::EndOfStream) => Some(Ok(())),
            Ok(_) if world.now < next => None,
            Ok(_) => {
                next = world.now + world.lab.settle();
                world.send(conn, b"?").err().map(Err)
            }
            Err(error) => Some(Err(error)),
        })
    }

    /// Takes what was reported of a socket, oldest first.
    pub fn take(&mut self, worker: usize, socket: SocketId) -> Vec<Readiness> {
        let news = &mut self.news[worker];
        let taken = news
            .iter()
            .filter(|ready| ready.socket == socket)
            .map(|ready| ready.readiness)
            .collect();
        news.retain(|ready| ready.socket != socket);
        taken
    }

    pub fn take_of(&mut self, conn: &Conn) -> Vec<Readiness> {
        self.take(conn.worker, conn.socket.id())
    }

    /// Turns until the socket is reported for `what`.
    pub fn until_ready(&mut self, worker: usize, socket: SocketId, what: Readiness) {
        self.until(&format!("{socket:?} is {what:?}"), |world| {
            world
                .take(worker, socket)
                .iter()
                .any(|readiness| readiness.contains(what))
                .then_some(())
        });
    }

    pub fn until_readable(&mut self, conn: &Conn) {
        self.until_ready(conn.worker, conn.socket.id(), Readiness::READABLE);
    }

    pub fn until_writable(&mut self, conn: &Conn) {
        self.until_ready(conn.worker, conn.socket.id(), Readiness::WRITABLE);
    }
}
