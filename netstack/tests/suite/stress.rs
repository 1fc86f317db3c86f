//! Many clients at once, coming and going.

use std::collections::VecDeque;
use std::io::IoSlice;

use netstack::stack::{ConnectOptions, Received};

use super::world::{Conn, Port};
use super::{Dice, Lab, World, pattern};

const CLIENTS: usize = 16;
const DEPTH: usize = 16;
const MESSAGE_MAX: usize = 1024;

/// One client socket after the other: each sends 100 to 1000 messages and reads them back.
struct Client {
    conn: Option<Conn>,
    /// Bytes of messages sent and not yet echoed, by message.
    outstanding: VecDeque<usize>,
    /// Messages this socket still has to send.
    left: usize,
    stream: usize,
    /// Bytes made, taken by the socket, and echoed.
    made: usize,
    sent: usize,
    echoed: usize,
}

/// Sends back what it receives.
struct Echo {
    conn: Conn,
    pending: Vec<u8>,
}

/// Ten thousand echoes over sixteen clients, each byte in its order, nothing left behind.
pub fn case_34_stress<L: Lab>(world: &mut World<L>) {
    let port = world.listen();
    let mut dice = Dice::new(34);
    let mut todo = 10_000 / world.lab.ease();
    let mut done = 0;
    let total = todo;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::idle()).collect();
    let mut echoes: Vec<Echo> = Vec::new();
    world.until("all messages are echoed", |world| {
        for (index, client) in clients.iter_mut().enumerate() {
            if client.conn.is_none() && todo > 0 {
                client.begin(world, &port, index, (100 + dice.below(901)).min(todo));
                todo -= client.left;
            }
            done += client.step(world, &mut dice);
        }
        while let Some((conn, _)) = world.try_accept(&port) {
            echoes.push(Echo { conn, pending: Vec::new() });
        }
        echoes = echoes.drain(..).filter_map(|echo| echo.step(world)).collect();
        let nobody = echoes.is_empty() && clients.iter().all(|client| client.conn.is_none());
        (done == total && nobody).then_some(())
    });
    world.close_port(port);
}

impl Client {
    fn idle() -> Self {
        let outstanding = VecDeque::new();
        Self { conn: None, outstanding, left: 0, stream: 0, made: 0, sent: 0, echoed: 0 }
    }

    fn begin<L: Lab>(&mut self, world: &mut World<L>, port: &Port, index: usize, left: usize) {
        let conn = world.try_connect(index, port.addr, &ConnectOptions::default()).unwrap();
        *self = Self { conn: Some(conn), left, stream: self.stream + index + 1, ..Self::idle() };
    }

    /// Sends and receives what it can; how many messages came back whole.
    fn step<L: Lab>(&mut self, world: &mut World<L>, dice: &mut Dice) -> usize {
        let Some(conn) = &self.conn else { return 0 };
        if !world.is_connected(conn).unwrap() {
            return 0;
        }
        while self.outstanding.len() < DEPTH && self.left > 0 {
            let len = 1 + dice.below(MESSAGE_MAX);
            self.outstanding.push_back(len);
            self.made += len;
            self.left -= 1;
        }
        let bytes = pattern(self.stream, self.sent, self.made - self.sent);
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        let gather = [IoSlice::new(head), IoSlice::new(tail)];
        self.sent += world.send_gather(conn, &gather, false).unwrap();
        let mut buffer = [0; 4096];
        let mut echoed = 0;
        while let Received::Bytes(len) = world.recv(conn, &mut buffer).unwrap() {
            assert_eq!(buffer[..len], pattern(self.stream, self.echoed + echoed, len));
            echoed += len;
        }
        self.echoed += echoed;
        assert!(self.echoed <= self.sent, "more came back than was sent");
        self.retire(world, echoed)
    }

    fn retire<L: Lab>(&mut self, world: &mut World<L>, mut echoed: usize) -> usize {
        let before = self.outstanding.len();
        while let Some(rest) = self.outstanding.front_mut() {
            let part = echoed.min(*rest);
            *rest -= part;
            echoed -= part;
            if *rest > 0 {
                break;
            }
            self.outstanding.pop_front();
        }
        assert_eq!(echoed, 0, "data came when nothing was outstanding");
        let retired = before - self.outstanding.len();
        if self.left == 0 && self.outstanding.is_empty() {
            world.close(self.conn.take().unwrap());
        }
        retired
    }
}

impl Echo {
    /// `None`: the client is gone and so are we.
    fn step<L: Lab>(mut self, world: &mut World<L>) -> Option<Self> {
        let mut buffer = [0; 4096];
        let ended = loop {
            match world.recv(&self.conn, &mut buffer).unwrap() {
                Received::Bytes(len) => self.pending.extend_from_slice(&buffer[..len]),
                Received::WouldBlock => break false,
                Received::EndOfStream => break true,
            }
        };
        let taken = world.send(&self.conn, &self.pending).unwrap();
        self.pending.drain(..taken);
        if ended {
            assert!(self.pending.is_empty(), "the client left only after the last echo");
            world.close(self.conn);
            return None;
        }
        Some(self)
    }
}
