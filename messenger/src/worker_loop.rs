//! The one shell: ready sockets, sessions and dispatchers joined in turns, on one thread.
//!
//! ```text
//!   turn:  collect                       sockets, timers, commands from the inbox
//!          each socket  -> peer          bytes -> session -> events -> dispatch   (peer.rs)
//!          each listener -> processor    accept, a bounded number                 (processor.rs)
//!          each command -> session       send, mark down, dial, ...
//!          commands our own callbacks sent
//!          each touched peer: transmit, timer, settle
//!          flush                         what the turn produced goes on the wire
//! ```
//!
//! Every session gets a change, then its events are drained, then its output and its timer: for
//! what came in at once, for what goes out at the end of the turn, so that a burst of small
//! messages leaves in one gather list. A peer may
//! use a bounded number of bytes per turn in each direction; one that has more stays on the ready
//! list, at its back.
//!
//! The only generic parameter is the [`Worker`]: kernel TCP, our own TCP, or a simulated one.

use crate::clock::Clock;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::event_center::{EXTERNALS_PER_TURN, Event, EventCenter, Progress};
use crate::metrics::{Counters, WorkerCounters};
use crate::seeds::Seeds;
use crate::workers::{Gate, own_lane};
use away::Away;
use messenger_proto::Message;
use netstack::stack::{Readiness, Worker};
use peer::Peer;
use processor::Processor;
use slab::Slab;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

pub(crate) use command::{Ask, Command, Dial, Listen, ListenerOwner};
pub(crate) use peer::facts_to_dial;
pub(crate) use processor::{FIRST_PAUSE, LONGEST_PAUSE};

mod adoption;
mod away;
mod batch;
mod command;
mod peer;
mod processor;
mod stopwatch;

use stopwatch::Stopwatch;

/// Most bytes read from one peer in a turn.
const READ_BYTES_PER_TURN: usize = 256 << 10;
/// How many of its messages that should be. What they give rise to leaves at the end of the turn,
/// and then the peer works on that while we work on its next ones; so a few, though a turn has its
/// price.
const READ_MESSAGES_PER_TURN: usize = 12;
/// Most bytes written to one peer in a turn, not counting the end of the last gather list.
const SEND_BYTES_PER_TURN: usize = 256 << 10;
/// Most connections one listener accepts in a turn.
const ACCEPTS_PER_TURN: usize = 32;
/// How long a stopped worker goes on, for its peers to take what was sent.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What a socket or a timer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Peer(usize),
    Processor(usize),
}

/// What peers and processors do their work with.
pub(crate) struct Tools<W> {
    pub(crate) worker: W,
    pub(crate) center: EventCenter<Target, Command>,
    pub(crate) counters: Counters,
    pub(crate) gate: Arc<Gate>,
    /// Random numbers nobody outside can predict, for cookies.
    pub(crate) seeds: Seeds,
}

/// One worker thread's whole state.
pub(crate) struct WorkerLoop<W> {
    tools: Tools<W>,
    peers: Slab<Peer>,
    processors: Slab<Processor>,
    away: Away,
    /// Peers touched in this turn, each once.
    touched: Vec<usize>,
    watch: Stopwatch,
    /// Who asked for the counters in this turn; they are whole at its end only.
    counting: Vec<Sender<WorkerCounters>>,
    stopping: bool,
}

impl<W: Worker> WorkerLoop<W> {
    /// A loop for `worker`, whose commands come through `gate`. `secret` is for random numbers.
    pub(crate) fn new(worker: W, gate: Arc<Gate>, clock: Clock, secret: u64) -> Self {
        let tools = Tools {
            worker,
            center: EventCenter::new(Arc::clone(gate.inbox())),
            counters: Counters::default(),
            gate,
            seeds: Seeds::new(secret),
        };
        Self {
            tools,
            watch: Stopwatch::start(clock),
            peers: Slab::new(),
            processors: Slab::new(),
            away: Away::default(),
            touched: Vec::new(),
            counting: Vec::new(),
            stopping: false,
        }
    }

    /// Turns until told to stop, then ends what is left.
    ///
    /// # Errors
    /// If the worker or its driver fails; all sessions are ended with a reset before.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let outcome = self.run_until_stopped();
        self.watch.lap();
        let now = self.watch.last();
        self.end_all(now, outcome.is_err());
        self.watch.lap();
        let until = now + STOP_GRACE;
        while outcome.is_ok() && self.lingers() && self.watch.now() < until {
            self.turn(Some(until))?;
        }
        outcome
    }

    fn run_until_stopped(&mut self) -> io::Result<()> {
        while !self.stopping {
            self.turn(None)?;
        }
        Ok(())
    }

    /// One turn, see the [module](self). It sleeps no longer than to `limit`.
    fn turn(&mut self, limit: Option<Instant>) -> io::Result<()> {
        let Tools { worker, center, counters, .. } = &mut self.tools;
        let progress = center.collect(self.watch.last(), limit, worker)?;
        counters.wait_time += self.watch.lap();
        let now = self.watch.last();
        let has_work = self.handle_events(now) | (progress == Progress::Busy);
        let is_sending = !self.touched.is_empty();
        if is_sending {
            self.watch.lap();
        }
        self.finish_touched(self.watch.last());
        self.tools.worker.flush(self.watch.last())?;
        let counters = &mut self.tools.counters;
        counters.turns += 1;
        if has_work || is_sending {
            let sending = self.watch.lap();
            if is_sending {
                counters.send_time += sending;
            }
            counters.running_time += self.watch.last().saturating_duration_since(now);
        } else {
            counters.idle_turns += 1; // and a part of the waiting
        }
        self.answer_counts();
        Ok(())
    }

    /// What `collect` found, sockets first; whether there was anything.
    fn handle_events(&mut self, now: Instant) -> bool {
        own_lane::open(&self.tools.gate);
        let (mut has_work, mut is_receiving) = (false, false);
        let dispatching = self.tools.counters.fast_dispatch_time;
        while let Some(event) = self.tools.center.next_event(now) {
            has_work = true;
            let is_file = matches!(event, Event::File { .. });
            if is_receiving && !is_file {
                self.end_receiving(dispatching);
            }
            is_receiving = is_file;
            match event {
                Event::File { key, readiness, .. } => self.on_ready(now, key, readiness),
                Event::Time { key, .. } => self.on_timer(now, key),
                Event::External(command) => {
                    self.take_own(now);
                    self.on_command(now, command);
                }
            }
            if self.tools.gate.inbox().is_crowded() {
                self.take_commands(now);
            }
        }
        if is_receiving {
            self.end_receiving(dispatching);
        }
        if has_work {
            self.take_commands(now);
        }
        own_lane::close();
        has_work
    }

    /// All ready sockets were seen to. What dispatchers took of that time, which was
    /// `dispatching` when it began, is not receiving.
    fn end_receiving(&mut self, dispatching: Duration) {
        let counters = &mut self.tools.counters;
        let dispatched = counters.fast_dispatch_time.saturating_sub(dispatching);
        counters.recv_time += self.watch.lap().saturating_sub(dispatched);
    }

    /// One turn for whoever turns it by hand: time may have passed since the last one.
    pub(crate) fn turn_by_hand(&mut self) -> io::Result<()> {
        self.watch.lap();
        self.turn(None)
    }

    /// When the next turn is due, apart from what arrives: for whoever turns it by hand.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        let now = self.watch.now();
        let Tools { worker, center, .. } = &self.tools;
        center.poll_timeout(now).into_iter().chain(worker.poll_timeout(now)).min()
    }

    /// Breaks the transport of one session, the `pick`-th modulo their number: for tests.
    pub(crate) fn break_transport(&mut self, pick: u64) -> bool {
        let now = self.watch.now();
        let having = self.peers.iter().filter(|(_, peer)| peer.has_transport());
        let keys: Vec<_> = having.map(|(key, _)| key).collect();
        let Some(index) = pick.checked_rem(keys.len() as u64) else {
            return false;
        };
        self.with_peer(keys[index as usize], |peer, tools| peer.break_transport(now, tools));
        true
    }

    fn on_ready(&mut self, now: Instant, target: Target, readiness: Readiness) {
        match target {
            Target::Peer(key) => {
                self.with_peer(key, |peer, tools| peer.on_ready(now, readiness, tools));
            }
            Target::Processor(key) => self.accept(now, key),
        }
    }

    fn on_timer(&mut self, now: Instant, target: Target) {
        match target {
            Target::Peer(key) => self.with_peer(key, |peer, tools| peer.on_timer(now, tools)),
            Target::Processor(key) => self.accept(now, key),
        }
    }

    fn accept(&mut self, now: Instant, key: usize) {
        let Some(processor) = self.processors.get_mut(key) else {
            return;
        };
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(accepted) = processor.accept(now, key, &mut self.tools) else {
                return;
            };
            let slot = self.peers.vacant_entry();
            let key = slot.key();
            if let Some(peer) = Peer::accept(now, key, accepted, &mut self.tools) {
                slot.insert(peer);
                self.touched.push(key);
            }
        }
        processor.stop_early(&mut self.tools);
    }

    /// Commands beyond this turn's share: those that our own callbacks have sent in it.
    fn take_commands(&mut self, now: Instant) {
        self.take_own(now);
        for _ in 0..EXTERNALS_PER_TURN {
            let Some(command) = self.tools.center.take_external() else {
                return;
            };
            self.on_command(now, command);
        }
    }

    fn on_command(&mut self, now: Instant, command: Command) {
        self.tools.counters.commands += 1;
        match command {
            Command::Dial(dial) => self.dial(now, *dial),
            Command::Session(connection, ask) => self.route(now, connection, ask),
            Command::Adopt(peer, newcomer) => self.arrive(now, *peer, &newcomer),
            Command::Whereabouts(connection, at) => {
                let held = self.away.settle(&self.tools.gate, &connection, at);
                self.catch_up(now, &connection, held);
            }
            Command::Listen(listen) => self.listen(now, *listen),
            Command::Serve(owner, endpoint) => self.serve(owner, &endpoint),
            Command::Unlisten(owner, addr, done) => {
                self.unlisten(now, owner, addr);
                // Whoever asked may have given up waiting.
                let _ = done.send(());
            }
            Command::Count(reply) => self.counting.push(reply),
            Command::Stop => self.stopping = true,
        }
    }

    fn dial(&mut self, now: Instant, dial: Dial) {
        let slot = self.peers.vacant_entry();
        let key = slot.key();
        slot.insert(Peer::dial(now, key, dial, &mut self.tools));
        // Its first event is the wish for a TCP connection, or the news that it ended already.
        self.with_peer(key, |_, _| ());
    }

    /// Does what is asked of a session, or passes it on to where the session is.
    fn route(&mut self, now: Instant, connection: Connection, ask: Ask) {
        if self.away.has(&connection) {
            self.away.pass_on(&connection, ask);
        } else {
            self.on_ask(now, connection, ask);
        }
    }

    /// Does what is asked of a session that is here, or is over.
    fn on_ask(&mut self, now: Instant, connection: Connection, ask: Ask) {
        match (ask, connection.slot()) {
            (Ask::Judge(newcomer), _) => self.judge(now, &connection, newcomer),
            (Ask::Send(message), slot) => self.send(now, slot, &connection, message),
            (ask, Some(key)) => self.with_peer(key, |peer, tools| peer.on_ask(now, ask, tools)),
            (_, None) => {}
        }
    }

    /// Queues a message in the session at `slot`; if it has ended, that is as if the message had
    /// been lost on the way.
    fn send(
        &mut self,
        now: Instant,
        slot: Option<usize>,
        connection: &Connection,
        message: Message,
    ) {
        match slot {
            Some(key) => self.with_peer(key, |peer, tools| peer.send(now, message, tools)),
            None => {
                self.tools.counters.send_dropped += 1;
                connection.release(1, message.payload_len());
            }
        }
    }

    /// Messages that our own callbacks have sent in this turn. They come before all commands.
    fn take_own(&mut self, now: Instant) {
        while let Some((connection, message)) = own_lane::take() {
            self.tools.counters.commands += 1;
            if self.away.has(&connection) {
                self.away.pass_on(&connection, Ask::Send(message));
            } else {
                self.send(now, connection.slot(), &connection, message);
            }
        }
    }

    /// Makes one change to a peer and remembers to see to its output at the end of the turn.
    fn with_peer(&mut self, key: usize, change: impl FnOnce(&mut Peer, &mut Tools<W>)) {
        if let Some(peer) = self.peers.get_mut(key) {
            change(peer, &mut self.tools);
            if peer.touch() {
                self.touched.push(key);
            }
        }
    }

    /// Transmits, sets the timer and settles for each peer of this turn; drops those that ended.
    fn finish_touched(&mut self, now: Instant) {
        while let Some(key) = self.touched.pop() {
            if let Some(peer) = self.peers.get_mut(key)
                && peer.finish(now, &mut self.tools) == Fate::Ended
            {
                self.peers.remove(key).leave(now, &mut self.tools);
            }
        }
    }

    fn listen(&mut self, now: Instant, listen: Listen) {
        let slot = self.processors.vacant_entry();
        let Listen { owner, addr, options, reply } = listen;
        let outcome = Processor::listen(now, slot.key(), owner, addr, &options, &mut self.tools);
        let answer = outcome.map(|(processor, addr)| {
            slot.insert(processor);
            addr
        });
        let _ = reply.send(answer);
    }

    fn serve(&mut self, owner: ListenerOwner, endpoint: &Arc<Endpoint>) {
        for (key, processor) in &mut self.processors {
            if processor.owner() == owner {
                processor.serve(key, Arc::clone(endpoint), &mut self.tools);
            }
        }
    }

    fn unlisten(&mut self, now: Instant, owner: ListenerOwner, addr: Option<SocketAddr>) {
        let meant = |p: &Processor| p.owner() == owner && addr.is_none_or(|a| a == p.addr());
        let keys: Vec<_> =
            self.processors.iter().filter(|(_, p)| meant(p)).map(|(k, _)| k).collect();
        for key in keys {
            self.processors.remove(key).close(now, &mut self.tools);
        }
    }

    fn answer_counts(&mut self) {
        for reply in std::mem::take(&mut self.counting) {
            // Whoever asked may have given up waiting.
            let _ = reply.send(self.count());
        }
    }

    fn count(&self) -> WorkerCounters {
        let mut counters = self.tools.counters;
        counters.active_connections = self.peers.len() as u64;
        WorkerCounters {
            worker: self.tools.gate.index(),
            messenger: counters.named(),
            transport: self.tools.worker.counters(),
        }
    }

    /// Ends every session and listener, and answers every command that is left.
    fn end_all(&mut self, now: Instant, with_reset: bool) {
        self.tools.gate.shut();
        for (_, processor) in std::mem::take(&mut self.processors) {
            processor.close(now, &mut self.tools);
        }
        while let Some(command) = self.tools.center.take_external() {
            self.on_command(now, command);
        }
        self.answer_counts();
        for (_, mut peer) in std::mem::take(&mut self.peers) {
            let end = if with_reset { Ask::Close } else { Ask::MarkDown };
            peer.on_ask(now, end, &mut self.tools);
            peer.deliver(now, &mut self.tools);
            peer.leave(now, &mut self.tools);
        }
        self.touched.clear();
    }

    /// Whether closed connections still have bytes on their way.
    fn lingers(&self) -> bool {
        let counters = self.tools.worker.counters();
        counters.iter().any(|(name, value)| *name == "connections_in_use" && *value > 0)
    }
}

/// Whether a peer lives on after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    Ended,
}
