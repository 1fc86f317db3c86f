//! The dispatcher of every messenger of a workload.

use super::Dispatching;
use super::ledger::Ledger;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use messenger::{Connection, Dispatcher, Message, SendError, msg_type};
use netstack::device::sim::Random;
use std::sync::{Arc, Mutex, PoisonError};

/// The index of all pings of which no answer is promised.
pub(super) const UNTRACKED: u64 = 0;

/// What the front of a message says: who speaks, and about which ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) who: Who,
    pub(super) index: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Ping,
    Pong,
}

impl Payload {
    const LEN: usize = 1 + 8;

    pub(super) fn message(self, data: Bytes) -> Message {
        let mut front = BytesMut::with_capacity(Self::LEN);
        front.put_u8(u8::from(self.who == Who::Pong));
        front.put_u64_le(self.index);
        Message::new(msg_type::PING).with_front(front.freeze()).with_data(data)
    }

    fn read(mut front: &[u8]) -> Option<Self> {
        if front.len() != Self::LEN {
            return None;
        }
        let who = match front.get_u8() {
            0 => Who::Ping,
            1 => Who::Pong,
            _ => return None,
        };
        Some(Self { who, index: front.get_u64_le() })
    }
}

/// Answers pings and shows pongs to the ledger.
pub(super) struct Party {
    pub(super) ledger: Arc<Ledger>,
    pub(super) dispatching: Dispatching,
    pub(super) random: Mutex<Random>,
}

impl Party {
    fn receive(&self, connection: &Connection, message: &Message) {
        match Payload::read(&message.front) {
            Some(Payload { who: Who::Ping, index }) => {
                let pong = Payload { who: Who::Pong, index }.message(message.data.clone());
                match connection.send_message(pong) {
                    // Whoever asked has gone.
                    Ok(()) | Err(SendError::Closed(_)) => {}
                    Err(error) => self.ledger.break_rule(format!("pong {index}: {error}")),
                }
            }
            Some(Payload { who: Who::Pong, index: UNTRACKED }) => {
                self.ledger.count(|totals| totals.untracked_pongs += 1);
            }
            Some(Payload { who: Who::Pong, index }) => {
                self.ledger.settle(connection, index, &message.data);
            }
            None => self.ledger.break_rule(String::from(".1: a payload of nobody's")),
        }
    }
}

impl Dispatcher for Party {
    fn can_fast_dispatch_any(&self) -> bool {
        matches!(self.dispatching, Dispatching::Fast)
    }

    fn can_fast_dispatch(&self, message: &Message) -> bool {
        self.can_fast_dispatch_any() && message.header.kind == msg_type::PING
    }

    fn fast_dispatch(&self, connection: &Connection, message: Message) {
        self.receive(connection, &message);
    }

    fn dispatch(&self, connection: &Connection, message: Message) -> Result<(), Message> {
        if let Dispatching::Queued { percent, sleep } = self.dispatching {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            let is_slow = random.below(100) < percent;
            drop(random);
            if is_slow {
                std::thread::sleep(sleep); // what the row of the matrix is about
            }
        }
        match message.header.kind {
            msg_type::PING => self.receive(connection, &message),
            _ => self.ledger.count(|totals| totals.commands += 1),
        }
        Ok(())
    }

    fn handle_reset(&self, connection: &Connection) -> bool {
        self.ledger.reset(connection);
        true
    }

    fn handle_remote_reset(&self, connection: &Connection) {
        self.ledger.remote_reset(connection);
    }
}
