//! Everything that happened, and whether it was allowed to.
//!
//! Applications report each send, delivery and turn of a connection's life as it happens. Per
//! stream (one process, one connection) and lane (one priority, one way of dispatch) holds:
//!
//! * what arrives was sent, arrives whole, and at the process it was sent to;
//! * nothing arrives twice, nothing overtakes;
//! * nothing is left out: a message arrives after all that went before it in its lane, but for
//!   those that a reset, a mark-down or the end of a process *excuses*. Of a lossy stream a prefix
//!   arrives, of a lossless one everything;
//! * a lossless session is lost only if one of the two forgot it: by a mark-down, or by its end.
//!   Nothing the network does resets it;
//! * a connection's first message comes after the news that it is usable, and after its reset or
//!   mark-down none is dispatched.

use crate::host::host_of;
use crate::label::{Label, Lane, StreamId};
use crate::{HostId, Life};
use messenger::{Clock, Connection, Message};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

pub use event::{Event, Tally};
pub use stream::Wish;
use stream::{LaneLog, Stream};

mod event;
mod stream;

/// Events shown of a run that failed.
const SHOWN_EVENTS: usize = 1500;

/// What a process was told of one of its connections.
#[derive(Debug, Default)]
struct Told {
    usable: bool,
    over: bool,
}

/// The record of one run.
#[derive(Debug)]
pub struct History {
    clock: Clock,
    start: Instant,
    streams: BTreeMap<StreamId, Stream>,
    connections: BTreeMap<StreamId, Told>,
    /// Hosts of which one forgot a session with the other.
    forgetful: BTreeSet<(HostId, HostId)>,
    /// The present process of each host, and its nonce.
    lives: BTreeMap<HostId, (Life, u32)>,
    events: Vec<(Duration, Event)>,
    hash: DefaultHasher,
    violation: Option<String>,
    tally: Tally,
}

impl History {
    /// An empty one.
    pub fn new(clock: Clock) -> Self {
        Self {
            start: clock.now(),
            clock,
            streams: BTreeMap::new(),
            connections: BTreeMap::new(),
            forgetful: BTreeSet::new(),
            lives: BTreeMap::new(),
            events: Vec::new(),
            hash: DefaultHasher::new(),
            violation: None,
            tally: Tally::default(),
        }
    }

    /// Writes an event down.
    pub fn note(&mut self, event: Event) {
        let at = self.clock.now() - self.start;
        (at, &event).hash(&mut self.hash);
        self.tally.count(&event);
        self.events.push((at, event));
    }

    /// A process starts.
    pub fn begin_life(&mut self, host: HostId, life: Life, nonce: u32) {
        self.note(Event::Started { host, life, nonce });
        self.lives.insert(host, (life, nonce));
    }

    /// A process ends: what it had to send and what it had to receive is excused.
    pub fn end_life(&mut self, host: HostId, life: Life) {
        self.note(Event::Stopped { host, life });
        self.lives.remove(&host);
        let hosts = self.streams.values().flat_map(|s| [s.wish.from, s.wish.to]);
        self.forgetful.extend(hosts.map(|other| pair(host, other)));
        for (id, stream) in &mut self.streams {
            if id.life == life || stream.wish.to == host {
                stream.excuse();
                stream.forget();
            }
        }
    }

    /// A message is about to be sent.
    pub fn send(&mut self, stream: StreamId, wish: Wish, lane: Lane, wants_reply: bool) -> Label {
        let entry = self.streams.entry(stream).or_insert_with(|| Stream::new(wish));
        let index = entry.send(lane);
        let label = Label { stream, lane, index, wants_reply };
        self.note(Event::Sent(label));
        label
    }

    /// It was not taken after all.
    pub fn retract(&mut self, label: Label) {
        self.note(Event::NotTaken(label));
        if let Some(log) = self.lane(&label) {
            log.take_back();
        }
    }

    /// A message was dispatched.
    pub fn deliver(
        &mut self,
        life: Life,
        host: HostId,
        connection: &Connection,
        message: &Message,
    ) {
        let Some(label) = Label::of(message) else {
            return self.violate(format!("{connection} of life {life}: damaged {message:?}"));
        };
        self.note(Event::Delivered { life, connection: connection.id(), label });
        let told = self.connections.entry(own(life, connection)).or_default();
        let (usable, over) = (told.usable, told.over);
        if !usable {
            return self.violate(format!("{label:?} before its connection was usable"));
        }
        // The fast path may race a reset, see contract D-14.
        if over && !label.lane.fast {
            return self.violate(format!("{label:?} after its connection's reset"));
        }
        let Some(&(_, nonce)) = self.lives.get(&host).filter(|(present, _)| *present == life)
        else {
            return self.violate(format!("{label:?} at a process that has ended"));
        };
        let Some(stream) = self.streams.get_mut(&label.stream) else {
            return self.violate(format!("{label:?} which nobody sent"));
        };
        if (stream.wish.to, stream.wish.to_nonce) != (host, nonce) {
            let wish = stream.wish;
            return self.violate(format!("{label:?} of {wish:?} at host {host}, nonce {nonce}"));
        }
        // The news that excuses what is left out may still be queued; if it does not come, the
        // messages are missed in the end.
        let hosts = pair(stream.wish.from, stream.wish.to);
        let may_skip = stream.wish.lossless && self.forgetful.contains(&hosts);
        if let Err(what) = stream.deliver(&label, may_skip) {
            self.violate(format!("{label:?} {what}"));
        }
    }

    /// A connection became usable.
    pub fn usable(&mut self, life: Life, connection: &Connection) {
        self.note(Event::Usable { life, connection: connection.id() });
        self.connections.entry(own(life, connection)).or_default().usable = true;
    }

    /// A process gives a connection up; it may be told of the reset much later.
    pub fn forget(&mut self, life: Life, host: HostId, connection: &Connection) {
        if let Some(peer) = self.peer_of(life, connection) {
            self.forgetful.insert(pair(host, peer));
            let to_us = self.streams.values_mut().filter(|stream| stream.is_between(peer, host));
            to_us.for_each(Stream::forget);
        }
    }

    /// A process was told, or has decided itself, that a connection is over.
    pub fn over(&mut self, life: Life, host: HostId, connection: &Connection, event: Event) {
        self.note(event);
        match event {
            Event::Reset { .. } => self.check_cause(life, host, connection),
            _ => self.forget(life, host, connection),
        }
        let told = self.connections.entry(own(life, connection)).or_default();
        let was_usable = told.usable;
        if std::mem::replace(&mut told.over, true) && matches!(event, Event::Reset { .. }) {
            return self.violate(format!("{connection} of life {life}: a second reset"));
        }
        self.excuse(life, host, connection, was_usable);
    }

    /// A process was told that the peer lost the session.
    pub fn peer_lost_session(&mut self, life: Life, host: HostId, connection: &Connection) {
        self.note(Event::RemoteReset { life, connection: connection.id() });
        self.check_cause(life, host, connection);
        self.excuse(life, host, connection, true);
    }

    /// A lossless session is not lost without a cause.
    fn check_cause(&mut self, life: Life, host: HostId, connection: &Connection) {
        let own = own(life, connection);
        let was_usable = self.connections.get(&own).is_some_and(|told| told.usable);
        let Some(peer) = self.peer_of(life, connection) else {
            return;
        };
        // What was never usable and had nothing to send had no session to lose.
        let is_its = |(id, stream): &(&StreamId, &Stream)| {
            **id == own || was_usable && stream.is_between(peer, host)
        };
        let is_lossless = self.streams.iter().filter(is_its).any(|(_, s)| s.wish.lossless);
        if is_lossless && !self.forgetful.contains(&pair(host, peer)) {
            self.violate(format!("{connection} of life {life} lost its session without a cause"));
        }
    }

    /// The host at the other end, as far as it is known.
    fn peer_of(&self, life: Life, connection: &Connection) -> Option<HostId> {
        let own = own(life, connection);
        host_of(connection).or_else(|| self.streams.get(&own).map(|stream| stream.wish.to))
    }

    fn excuse(&mut self, life: Life, host: HostId, connection: &Connection, was_usable: bool) {
        let own = own(life, connection);
        let peer = host_of(connection).filter(|_| was_usable);
        for (id, stream) in &mut self.streams {
            if *id == own {
                stream.excuse();
            } else if peer.is_some_and(|peer| stream.is_between(peer, host)) {
                stream.excuse();
                stream.forget();
            }
        }
    }

    /// Whether a message was delivered.
    pub fn has_arrived(&self, label: &Label) -> bool {
        let log = self.streams.get(&label.stream).and_then(|stream| stream.lanes.get(&label.lane));
        log.is_some_and(|log| log.has_arrived(label.index))
    }

    /// Messages of lossless streams that have still to arrive.
    pub fn pending(&self) -> usize {
        let lossless = self.streams.values().filter(|stream| stream.wish.lossless);
        lossless.map(Stream::pending).sum()
    }

    /// The first thing that was not allowed.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Sums over the run.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// A hash over everything that happened.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// All events, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().map(|(_, event)| event)
    }

    /// The last events and what is still to come, for a person.
    pub fn tail(&self) -> String {
        let mut text = String::new();
        let skipped = self.events.len().saturating_sub(SHOWN_EVENTS);
        let lines = self.events.iter().skip(skipped);
        let lines = lines.map(|(at, event)| format!("{:>11.6} {event:?}\n", at.as_secs_f64()));
        text.extend(lines);
        for (id, stream) in &self.streams {
            for (lane, log) in stream.lanes.iter().filter(|(_, log)| log.pending() > 0) {
                let first = log.first_pending();
                let (wish, pending) = (stream.wish, log.pending());
                // A string takes everything.
                let _ = writeln!(text, "{id:?} {wish:?} {lane:?}: {pending} pending from {first}");
            }
        }
        text
    }

    fn lane(&mut self, label: &Label) -> Option<&mut LaneLog> {
        self.streams.get_mut(&label.stream)?.lanes.get_mut(&label.lane)
    }
}

/// The stream a process sends on a connection.
fn own(life: Life, connection: &Connection) -> StreamId {
    StreamId { life, connection: connection.id() }
}

fn pair(one: HostId, other: HostId) -> (HostId, HostId) {
    (one.min(other), one.max(other))
}
