//! Two hosts, one virtual clock, byte pipes between them: the shell of a session in two hundred
//! lines, without sockets or threads.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use messenger_proto::{
    Action, AddrType, Decision, EntityAddr, EntityName, EntityType, GlobalSeq, IdentRequest,
    Identity, Interceptor, Limits, Message, Policy, PolicySet, Session, SessionEvent,
    SessionOptions, Step, TransportNews, UnixAnchor, Verdict,
};

/// Index of a host.
pub(crate) const ALICE: usize = 0;
/// Index of the other host.
pub(crate) const BOB: usize = 1;

/// The end of a TCP connection that opened it.
pub(crate) const DIALLER: usize = 0;
/// The other end.
pub(crate) const ACCEPTOR: usize = 1;

/// Turns without progress in time after which a run counts as livelocked.
const TURNS_MAX: usize = 1_000_000;

pub(crate) fn identity(name: &str, addr: &str, policy: Policy) -> Identity {
    let anchor = UnixAnchor { instant: Instant::now(), unix: Duration::from_secs(1_000_000) };
    let addr: EntityAddr = addr.parse().unwrap();
    Identity {
        name: name.parse().unwrap(),
        addrs: addr.into(),
        listening: vec![addr],
        policies: PolicySet::new(policy),
        limits: Limits::default(),
        options: SessionOptions::default(),
        auth: Arc::default(),
        anchor,
        global_seq: GlobalSeq::new(),
        dispatch_throttle: None,
    }
}

pub(crate) fn message(tid: u64) -> Message {
    Message::new(42).with_tid(tid).with_front(format!("front {tid}")).with_data(vec![tid as u8; 77])
}

/// A session and the host's notes about it.
pub(crate) struct Slot {
    pub(crate) session: Session,
    /// Events in order, one word each, messages left out.
    pub(crate) log: Vec<&'static str>,
    /// Messages in order of arrival.
    pub(crate) received: Vec<Message>,
    pub(crate) unblocked: Arc<AtomicBool>,
    /// Index of the pipe, and which end of it.
    pipe: Option<(usize, usize)>,
}

/// Decides about the steps of a host's sessions, which it tells apart by their slots.
pub(crate) type Script = Arc<Mutex<dyn FnMut(usize, Step) -> Action + Send>>;

pub(crate) struct Host {
    pub(crate) identity: Arc<Identity>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) listening: bool,
    /// Overrides the verdict about every peer.
    pub(crate) verdict: Option<Verdict>,
    /// Keeps messages' permits until told otherwise.
    pub(crate) hoards: bool,
    /// Asked at each step of the sessions made from now.
    pub(crate) script: Option<Script>,
    /// Tids of what it sends as soon as it has a session for the first time.
    pub(crate) greetings: Vec<u64>,
    /// What its peers asked for, in order.
    pub(crate) asked: Vec<IdentRequest>,
}

/// Where a TCP connection breaks: when so many bytes of one direction have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Which connection, counted from the first one dialled.
    pub(crate) pipe: usize,
    /// Whose bytes: [`DIALLER`] or [`ACCEPTOR`].
    pub(crate) from: usize,
    /// How many of them arrive.
    pub(crate) after: usize,
}

/// One TCP connection: per direction, bytes under way and bytes that arrived; per end, whether it
/// is open.
struct Pipe {
    bytes: [VecDeque<u8>; 2],
    arrived: [usize; 2],
    open: [bool; 2],
    broken: bool,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    /// Most bytes that move at a time.
    pub(crate) chunk: usize,
    /// Bytes a pipe holds per direction.
    pub(crate) window: usize,
    /// When it reaches zero, the pipe that carries that byte breaks.
    pub(crate) cut_after: Option<usize>,
    /// Where single connections break.
    pub(crate) cuts: Vec<Cut>,
    /// Where a bit of single bytes changes on the way: the byte behind so many.
    pub(crate) flips: Vec<Cut>,
    /// Nothing arrives any more.
    pub(crate) silent: bool,
    pipes: Vec<Pipe>,
    seeds: u64,
}

impl Pair {
    /// Alice is `client.?` without an address, Bob is `osd.1`.
    pub(crate) fn new(alice: Policy, bob: Policy) -> Self {
        let alice = identity("client.?", "any:-/11", alice);
        Self::of([alice, identity("osd.1", "v2:10.0.0.2:6800/22", bob)])
    }

    /// Both are OSDs with addresses; Alice's is the lower one.
    pub(crate) fn of_peers(policy: Policy) -> Self {
        let alice = identity("osd.0", "v2:10.0.0.1:6800/11", policy.clone());
        Self::of([alice, identity("osd.1", "v2:10.0.0.2:6800/22", policy)])
    }

    pub(crate) fn of(identities: [Identity; 2]) -> Self {
        let hosts = identities.map(|identity| Host {
            identity: Arc::new(identity),
            slots: Vec::new(),
            listening: true,
            verdict: None,
            hoards: false,
            script: None,
            greetings: Vec::new(),
            asked: Vec::new(),
        });
        let now = hosts[0].identity.anchor.instant;
        Self {
            now,
            hosts,
            chunk: usize::MAX,
            window: usize::MAX,
            cut_after: None,
            cuts: Vec::new(),
            flips: Vec::new(),
            silent: false,
            pipes: Vec::new(),
            seeds: 1,
        }
    }

    /// A connected pair; each side has one session, in slot 0.
    pub(crate) fn connected(alice: Policy, bob: Policy) -> Self {
        Self::new(alice, bob).connect()
    }

    /// The same pair, connected by Alice.
    pub(crate) fn connect(mut self) -> Self {
        self.dial(ALICE);
        self.run();
        assert!(self.session(ALICE).is_ready() && self.session(BOB).is_ready());
        self
    }

    /// The same hosts at msgr1 addresses.
    pub(crate) fn over_v1(mut self) -> Self {
        for host in [ALICE, BOB] {
            self.edit(host, |identity| {
                for addr in identity.addrs.0.iter_mut().filter(|addr| addr.socket.is_some()) {
                    addr.kind = AddrType::Legacy;
                }
                identity.listening = identity.addrs.0.clone();
            });
        }
        self
    }

    /// Changes what the sessions of `host` made from now on have in common.
    pub(crate) fn edit(&mut self, host: usize, edit: impl FnOnce(&mut Identity)) {
        edit(Arc::make_mut(&mut self.hosts[host].identity));
    }

    pub(crate) fn slot(&mut self, host: usize) -> &mut Slot {
        &mut self.hosts[host].slots[0]
    }

    pub(crate) fn session(&mut self, host: usize) -> &mut Session {
        &mut self.slot(host).session
    }

    /// `host` begins a session with the other host; returns its slot.
    pub(crate) fn dial(&mut self, host: usize) -> usize {
        let to = &self.hosts[1 - host].identity;
        let (kind, target) = (to.name.kind, *to.addrs.first().unwrap());
        self.dial_to(host, kind, target)
    }

    pub(crate) fn dial_to(&mut self, host: usize, kind: EntityType, target: EntityAddr) -> usize {
        let (identity, seed) = (Arc::clone(&self.hosts[host].identity), self.seed());
        self.add(host, Session::dial(self.now, identity, kind, target, seed), None)
    }

    pub(crate) fn send(&mut self, host: usize, message: Message) {
        let now = self.now;
        self.session(host).send(now, message).unwrap();
    }

    pub(crate) fn received_tids(&mut self, host: usize) -> Vec<u64> {
        self.slot(host).received.iter().map(|message| message.header.tid).collect()
    }

    pub(crate) fn received_seqs(&mut self, host: usize) -> Vec<u64> {
        self.slot(host).received.iter().map(|message| message.header.seq).collect()
    }

    /// Bytes of each direction that arrived over the given TCP connection; none if there was none.
    pub(crate) fn arrived(&self, pipe: usize) -> Option<[usize; 2]> {
        self.pipes.get(pipe).map(|pipe| pipe.arrived)
    }

    /// Whether the given TCP connection broke.
    pub(crate) fn is_broken(&self, pipe: usize) -> bool {
        self.pipes.get(pipe).is_some_and(|pipe| pipe.broken)
    }

    /// Whether a session is on a TCP connection that it opened itself; none if it is on no one.
    pub(crate) fn dialled(&self, host: usize, slot: usize) -> Option<bool> {
        self.hosts[host].slots[slot].pipe.map(|(_, end)| end == DIALLER)
    }

    /// Breaks every TCP connection there is.
    pub(crate) fn cut(&mut self) {
        for pipe in &mut self.pipes {
            pipe.broken = true;
        }
    }

    /// Moves bytes until nothing more happens without time passing.
    pub(crate) fn run(&mut self) {
        let rests = (0..TURNS_MAX).any(|_| !self.step());
        assert!(rests, "the pair never comes to rest");
    }

    /// Lets every session take one turn; returns whether any had something to do.
    pub(crate) fn step(&mut self) -> bool {
        let mut busy = false;
        for host in [ALICE, BOB] {
            for slot in 0..self.hosts[host].slots.len() {
                busy |= self.turn(host, slot);
            }
        }
        busy
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.run();
            let deadlines = self.hosts.iter().flat_map(|host| &host.slots);
            let next = deadlines.filter_map(|slot| slot.session.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                break;
            };
            self.now = self.now.max(next);
            let now = self.now;
            for slot in self.hosts.iter_mut().flat_map(|host| &mut host.slots) {
                slot.session.handle_timeout(now);
            }
        }
        self.now = until;
    }

    fn seed(&mut self) -> u64 {
        self.seeds += 1;
        self.seeds * 1_000_003
    }

    fn add(&mut self, host: usize, mut session: Session, pipe: Option<(usize, usize)>) -> usize {
        let unblocked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&unblocked);
        session.set_unblock(Arc::new(move || flag.store(true, Ordering::SeqCst)));
        let Host { slots, script, .. } = &mut self.hosts[host];
        if let Some(script) = script.clone() {
            let slot = slots.len();
            let decide = move |step| (script.lock().unwrap())(slot, step);
            session.set_interceptor(Interceptor::new(decide));
        }
        slots.push(Slot { session, log: Vec::new(), received: Vec::new(), unblocked, pipe });
        slots.len() - 1
    }

    /// One turn of a shell for one session: bytes out, bytes in, and the events of either.
    fn turn(&mut self, host: usize, slot: usize) -> bool {
        let told = self.drain_events(host, slot);
        let moved = self.move_bytes(host, slot);
        self.drain_events(host, slot) | told | moved
    }

    fn drain_events(&mut self, host: usize, slot: usize) -> bool {
        let mut busy = false;
        while let Some(event) = self.hosts[host].slots[slot].session.poll_event() {
            self.on_event(host, slot, event);
            busy = true;
        }
        busy
    }

    fn move_bytes(&mut self, host: usize, slot: usize) -> bool {
        let mut busy = false;
        let at = &mut self.hosts[host].slots[slot];
        if at.unblocked.swap(false, Ordering::SeqCst) {
            at.session.handle_unblocked(self.now).ok();
            busy = true;
        }
        let Some((index, end)) = at.pipe else {
            return busy;
        };
        let (pipe, session) = (&mut self.pipes[index], &mut at.session);
        let cuts = self.cuts.iter().filter(|cut| cut.pipe == index);
        pipe.broken |= cuts.clone().any(|cut| pipe.arrived[cut.from] == cut.after);
        if pipe.broken {
            pipe.open[end] = false;
            at.pipe = None;
            session.handle_transport(self.now, TransportNews::Reset);
            return true;
        }
        while let Some(gather) = session.poll_transmit(self.now) {
            let out = &mut pipe.bytes[end];
            let room = self.chunk.min(self.window - out.len().min(self.window));
            let before = out.len();
            out.extend(gather.slices().iter().flat_map(|slice| slice.iter()).take(room));
            let taken = out.len() - before;
            if taken == 0 {
                break;
            }
            busy = true;
            session.transmitted(taken);
        }
        if self.silent {
            return busy;
        }
        let (arriving, peer_open) = (&mut pipe.bytes[1 - end], pipe.open[1 - end]);
        if arriving.is_empty() && !peer_open {
            at.pipe = None;
            session.handle_transport(self.now, TransportNews::Closed);
            return true;
        }
        if arriving.is_empty() {
            return busy;
        }
        let space = session.rx_space();
        let mut len = arriving.len().min(space.len()).min(self.chunk);
        for cut in cuts.filter(|cut| cut.from == 1 - end) {
            len = len.min(cut.after - pipe.arrived[cut.from]);
        }
        if let Some(left) = &mut self.cut_after {
            len = len.min(*left);
            *left -= len;
            if *left == 0 {
                self.cut_after = None;
                pipe.broken = true;
            }
        }
        for (to, from) in space.iter_mut().zip(arriving.drain(..len)) {
            *to = from;
        }
        for flip in self.flips.iter().filter(|flip| flip.pipe == index && flip.from == 1 - end) {
            let at = flip.after.checked_sub(pipe.arrived[flip.from]);
            if let Some(byte) = at.and_then(|at| space[..len].get_mut(at)) {
                *byte ^= 0x10;
            }
        }
        pipe.arrived[1 - end] += len;
        if len > 0 {
            session.handle_received(self.now, len).ok();
        }
        busy || len > 0 || pipe.broken
    }

    fn on_event(&mut self, host: usize, slot: usize, event: SessionEvent) {
        let hoards = self.hosts[host].hoards;
        let at = &mut self.hosts[host].slots[slot];
        match event {
            SessionEvent::Dial { to } => {
                at.log.push("dial");
                self.on_dial(host, slot, to);
            }
            SessionEvent::Hangup => {
                at.log.push("hangup");
                if let Some((pipe, end)) = at.pipe.take() {
                    self.pipes[pipe].open[end] = false;
                }
            }
            SessionEvent::Ident(ident) => {
                at.log.push("ident");
                self.hosts[host].asked.push(ident.request);
                // The latest one registered, even if it is closed.
                let existing = self.hosts[host]
                    .slots
                    .iter()
                    .rposition(|other| other.session.peer().addrs == ident.addrs);
                let session = existing.map(|index| &self.hosts[host].slots[index].session);
                let decision = match self.hosts[host].verdict {
                    Some(verdict) => Decision::Answer(verdict),
                    None => Decision::about(&ident, session),
                };
                self.decide(host, slot, existing, decision);
            }
            SessionEvent::Message(mut message) => {
                if !hoards {
                    message.release_dispatch();
                    message.permits = Default::default();
                }
                at.received.push(message);
            }
            SessionEvent::Ready { reconnected, .. } => {
                at.log.push(if reconnected { "resumed" } else { "ready" });
                for tid in std::mem::take(&mut self.hosts[host].greetings) {
                    let session = &mut self.hosts[host].slots[slot].session;
                    session.send(self.now, message(tid)).unwrap();
                }
            }
            SessionEvent::LearnedAddr(_) => at.log.push("learned"),
            SessionEvent::TurnedAway(_) => at.log.push("turned away"),
            SessionEvent::Refused => at.log.push("refused"),
            SessionEvent::RemoteReset => at.log.push("remote reset"),
            SessionEvent::Standby => at.log.push("standby"),
            SessionEvent::Reset(_) => at.log.push("reset"),
            other => panic!("unknown event {other:?}"),
        }
    }

    fn on_dial(&mut self, host: usize, slot: usize, to: SocketAddr) {
        let now = self.now;
        let peer = &self.hosts[1 - host];
        let found = peer.identity.addrs.iter().any(|addr| addr.socket == Some(to));
        if !peer.listening || !found {
            return self.hosts[host].slots[slot]
                .session
                .handle_transport(now, TransportNews::Refused);
        }
        let local =
            SocketAddr::from(([10, 0, 0, host as u8 + 1], 50_000 + self.pipes.len() as u16));
        let (identity, seed) = (Arc::clone(&peer.identity), self.seed());
        self.pipes.push(Pipe {
            bytes: Default::default(),
            arrived: [0; 2],
            open: [true; 2],
            broken: false,
        });
        let pipe = self.pipes.len() - 1;
        self.add(1 - host, Session::accept(now, identity, local, to, seed), Some((pipe, 1)));
        let at = &mut self.hosts[host].slots[slot];
        at.pipe = Some((pipe, 0));
        at.session.handle_transport(now, TransportNews::Opened { local });
    }

    fn decide(&mut self, host: usize, slot: usize, existing: Option<usize>, decision: Decision) {
        let now = self.now;
        let slots = &mut self.hosts[host].slots;
        match (decision, existing) {
            (Decision::Adopt, Some(existing)) => {
                if let Some((pipe, end)) = slots[existing].pipe.take() {
                    self.pipes[pipe].open[end] = false;
                }
                slots[existing].pipe = slots[slot].pipe.take();
                let dummy = Session::dial(
                    now,
                    Arc::clone(&self.hosts[host].identity),
                    EntityType::Mon,
                    EntityAddr::NONE,
                    0,
                );
                let slots = &mut self.hosts[host].slots;
                let accepted = std::mem::replace(&mut slots[slot].session, dummy);
                slots[existing].session.adopt(now, accepted).ok();
            }
            (Decision::Replace, Some(existing)) => {
                slots[existing].session.close();
                slots[slot].session.resolve(now, Verdict::Accept).ok();
            }
            (Decision::WaitForOurs, Some(existing)) => {
                slots[slot].session.resolve(now, Verdict::Wait).ok();
                slots[existing].session.send_keepalive(now);
            }
            (Decision::Answer(verdict), _) => {
                slots[slot].session.resolve(now, verdict).ok();
            }
            (decision, None) => panic!("{decision:?} without an existing session"),
        }
    }
}

/// The name of `client.N`, as a peer sees it.
pub(crate) fn is_client(name: Option<EntityName>) -> bool {
    name.is_some_and(|name| name.kind == EntityType::Client && name.number > 0)
}
