//! What can happen.

use crate::label::Label;
use crate::plan::Action;
use crate::{HostId, Life};
use std::ops::AddAssign;

/// One line of a history. Connections are the numbers the process knows them by.
#[derive(Clone, Copy, Debug, PartialEq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Event {
    Started { host: HostId, life: Life, nonce: u32 },
    Stopped { host: HostId, life: Life },
    Sent(Label),
    NotTaken(Label),
    Delivered { life: Life, connection: u64, label: Label },
    Usable { life: Life, connection: u64 },
    Reset { life: Life, connection: u64 },
    RemoteReset { life: Life, connection: u64 },
    Refused { life: Life, connection: u64 },
    MarkedDown { life: Life, connection: u64 },
    Fault(Action),
    Healed,
    Drained,
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tally {
    pub sent: u64,
    pub delivered: u64,
    pub usable: u64,
    pub resets: u64,
    pub remote_resets: u64,
    pub marked_down: u64,
    pub starts: u64,
    pub faults: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => self.starts += 1,
            Event::Sent(_) => self.sent += 1,
            Event::NotTaken(_) => self.sent -= 1,
            Event::Delivered { .. } => self.delivered += 1,
            Event::Usable { .. } => self.usable += 1,
            Event::Reset { .. } => self.resets += 1,
            Event::RemoteReset { .. } => self.remote_resets += 1,
            Event::MarkedDown { .. } => self.marked_down += 1,
            Event::Fault(_) => self.faults += 1,
            Event::Stopped { .. } | Event::Refused { .. } | Event::Healed | Event::Drained => {}
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.usable += other.usable;
        self.resets += other.resets;
        self.remote_resets += other.remote_resets;
        self.marked_down += other.marked_down;
        self.starts += other.starts;
        self.faults += other.faults;
    }
}
