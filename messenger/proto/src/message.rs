//! The unit the application sends and receives: a header and three byte sections.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;

use crate::entity::EntityName;
use crate::throttle::Permit;

/// Priority of background work, and the lowest one of the strict band (contract MSG-8).
pub const PRIORITY_LOW: u16 = 64;
/// Priority of a message that names none.
pub const PRIORITY_DEFAULT: u16 = 127;
/// Priority of what should overtake ordinary work.
pub const PRIORITY_HIGH: u16 = 196;
/// Priority of what must overtake everything.
pub const PRIORITY_HIGHEST: u16 = 255;

/// Numbers of message types this repository names; all others pass through as numbers.
pub mod msg_type {
    /// `MPing`: an empty message, answered with another.
    pub const PING: u16 = 2;
    /// `MMonMap`.
    pub const MON_MAP: u16 = 4;
    /// `MMonGetMap`.
    pub const MON_GET_MAP: u16 = 5;
    /// `MMonSubscribe`.
    pub const MON_SUBSCRIBE: u16 = 15;
    /// `MOSDOp`.
    pub const OSD_OP: u16 = 42;
    /// `MOSDOpReply`.
    pub const OSD_OP_REPLY: u16 = 43;
    /// `MMonCommand`.
    pub const MON_COMMAND: u16 = 50;
    /// `MMonCommandAck`.
    pub const MON_COMMAND_ACK: u16 = 51;
}

/// What travels in a message's header, apart from lengths (contract MSG-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageHeader {
    /// Position in the session, from 1; assigned when the message is written.
    pub seq: u64,
    /// Number by which the application matches replies to requests.
    pub tid: u64,
    /// Message type, see [`msg_type`].
    pub kind: u16,
    /// Priority; 0 stands for [`PRIORITY_DEFAULT`] when sending.
    pub priority: u16,
    /// Version of the payload's encoding.
    pub version: u16,
    /// Oldest decoder version that understands the payload; 0 is unknown.
    pub compat_version: u16,
    /// Where in a page the data started at the sender; a hint only.
    pub data_off: u16,
}

/// When a received message passed the stations of its way in (contract MSG-5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiveStamps {
    /// Its preamble was complete.
    pub recv: Option<Instant>,
    /// All throttles had been passed; minus `recv` it is the time spent blocked.
    pub throttle: Option<Instant>,
    /// Its last byte was there.
    pub recv_complete: Option<Instant>,
    /// It was handed to a dispatcher; set by the dispatching side.
    pub dispatch: Option<Instant>,
}

impl ReceiveStamps {
    /// Those of a message whose preamble came when nothing made it wait.
    pub(crate) fn admitted(now: Instant) -> Self {
        Self { recv: Some(now), throttle: Some(now), ..Self::default() }
    }
}

/// The shares of the three receive budgets that a message holds (contracts T-1, T-4).
#[derive(Debug, Default)]
pub struct MessagePermits {
    /// One unit of the policy's message budget.
    pub messages: Option<Permit>,
    /// Payload bytes of the policy's byte budget.
    pub bytes: Option<Permit>,
    /// Payload bytes of the messenger's dispatch budget.
    pub dispatch: Option<Permit>,
}

impl MessagePermits {
    /// All of them, in the order in which they are taken.
    pub(crate) fn slots(&mut self) -> [&mut Option<Permit>; 3] {
        [&mut self.messages, &mut self.bytes, &mut self.dispatch]
    }

    /// The payload turned out to be longer by so many bytes.
    pub(crate) fn grow(&mut self, by: u64) {
        if by > 0 {
            [&mut self.bytes, &mut self.dispatch]
                .into_iter()
                .flatten()
                .for_each(|held| held.grow(by));
        }
    }
}

/// A message. Sections are reference-counted: moving and queueing one copies no payload, and
/// dropping it returns its permits.
pub struct Message {
    /// Header fields.
    pub header: MessageHeader,
    /// First section: the encoded request.
    pub front: Bytes,
    /// Second section, rarely used.
    pub middle: Bytes,
    /// Third section: bulk data.
    pub data: Bytes,
    /// Who sent it; set on receipt.
    pub source: Option<EntityName>,
    /// Receive times; empty for a message that was not received.
    pub stamps: ReceiveStamps,
    /// Shares of the receive budgets; none for a message that was not received.
    pub permits: MessagePermits,
}

impl Message {
    /// An empty message of the given type, version 1, default priority.
    pub fn new(kind: u16) -> Self {
        let header = MessageHeader {
            seq: 0,
            tid: 0,
            kind,
            priority: PRIORITY_DEFAULT,
            version: 1,
            compat_version: 1,
            data_off: 0,
        };
        Self::received(header, [Bytes::new(), Bytes::new(), Bytes::new()])
    }

    /// A message made of a header and its sections front, middle, data.
    pub fn received(header: MessageHeader, [front, middle, data]: [Bytes; 3]) -> Self {
        let (stamps, permits) = (ReceiveStamps::default(), MessagePermits::default());
        Self { header, front, middle, data, source: None, stamps, permits }
    }

    /// Sets the tid.
    #[must_use]
    pub fn with_tid(mut self, tid: u64) -> Self {
        self.header.tid = tid;
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn with_priority(mut self, priority: u16) -> Self {
        self.header.priority = priority;
        self
    }

    /// Sets the payload's version and the oldest decoder version that understands it.
    #[must_use]
    pub fn with_version(mut self, version: u16, compat_version: u16) -> Self {
        self.header.version = version;
        self.header.compat_version = compat_version;
        self
    }

    /// Sets the first section.
    #[must_use]
    pub fn with_front(mut self, front: impl Into<Bytes>) -> Self {
        self.front = front.into();
        self
    }

    /// Sets the second section.
    #[must_use]
    pub fn with_middle(mut self, middle: impl Into<Bytes>) -> Self {
        self.middle = middle.into();
        self
    }

    /// Sets the third section.
    #[must_use]
    pub fn with_data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    /// Bytes of the three sections: what the byte budgets count.
    pub fn payload_len(&self) -> usize {
        self.front.len() + self.middle.len() + self.data.len()
    }

    /// Cost in the dispatch queue: the data section's length (contract MSG-7).
    pub fn cost(&self) -> usize {
        self.data.len()
    }

    /// Takes the data section out; its share of the byte budget goes back at once (contract
    /// MSG-6).
    pub fn take_data(&mut self) -> Bytes {
        let data = std::mem::take(&mut self.data);
        self.release_bytes(data.len());
        data
    }

    /// Takes front and middle out; their share of the byte budget goes back at once.
    pub fn take_payload(&mut self) -> (Bytes, Bytes) {
        let payload = (std::mem::take(&mut self.front), std::mem::take(&mut self.middle));
        self.release_bytes(payload.0.len() + payload.1.len());
        payload
    }

    fn release_bytes(&mut self, len: usize) {
        if let Some(permit) = &mut self.permits.bytes {
            permit.shrink(len as u64);
        }
    }

    /// Gives back the dispatch budget's share: dispatching is over (contract T-4).
    pub fn release_dispatch(&mut self) {
        self.permits.dispatch = None;
    }
}

impl fmt::Debug for Message {
    /// Header and lengths; payloads may be megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("header", &self.header)
            .field("front_len", &self.front.len())
            .field("middle_len", &self.middle.len())
            .field("data_len", &self.data.len())
            .finish_non_exhaustive()
    }
}
