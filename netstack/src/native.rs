//! The native worker: TCP over a packet device, by polling.
//!
//! ```text
//!   wait:   rx_burst -> front -> flow table -> connection -> smoltcp -> Ready
//!   calls:              recv, send, connect, accept, close: touch connections
//!   flush:  touched connections -> smoltcp -> front -> tx_burst
//! ```
//!
//! This file is the path of a packet and can be read from top to bottom. Beside it, `calls` is
//! what the application asks for, `life` how connections come and go, `upkeep` what time brings.
//!
//! A turn is one [`EventDriver::wait`], the calls it gives rise to and one
//! [`Worker::flush`](crate::stack::Worker::flush). Received segments are not acknowledged before
//! that flush, so an answer and the acknowledgement of the question travel together, and a burst
//! is acknowledged once.
//!
//! A burst goes through the tables in passes (parse all, look all up, touch all connections,
//! process all): the cache misses of different connections then overlap, which with many
//! connections is most of the time a segment takes.

use std::collections::{BTreeSet, VecDeque};
use std::hint::black_box;
use std::io;
use std::time::Instant;

use smoltcp::socket::tcp::State;
use smoltcp::wire::TCP_HEADER_LEN;

use crate::clock::Moment;
use crate::conn::{Conn, ConnTable, Fault, Phase, SocketOptions, conn_slot};
use crate::device::{BURST_MAX, Burst, Frame, PacketDevice};
use crate::flow::{FlowKey, FlowTable, Target};
use crate::front::{Front, Inbound, TcpFlags, TcpView};
use crate::guard::{Challenges, Secret};
use crate::listen::{LISTENERS_MAX, ListenTable};
use crate::phy::{Egress, Wire};
use crate::ports::Ports;
use crate::stack::{EventDriver, NetworkStack, Readiness, Ready, SocketId, Waker};
use crate::steer::{Parcel, Steer, WORKERS_MAX};
use crate::time_wait::{TimeWaitTable, Verdict};
use crate::wheel::{NEVER, Wheel};

mod calls;
mod config;
mod counters;
mod gate;
mod idle;
mod life;
mod observer;
mod repair;
#[cfg(test)]
mod tests;
mod upkeep;

use config::Limits;
pub use config::{Congestion, FLOWS_MAX, MTU_MIN, NativeConfig};
use counters::Counts;
pub use idle::IdlePolicy;
use idle::Rest;

/// Most bursts received in a turn.
const BURSTS_PER_TURN: usize = 2;
/// Most parcels of siblings, and most frames to ourselves, taken in a turn.
const PARCELS_PER_TURN: usize = 2 * BURST_MAX;
/// Most timers looked at in a tick.
const TIMERS_PER_TICK: usize = 1024;
/// Ticks between two looks at the link.
const LINK_CHECK_TICKS: u64 = 100;
/// Ticks a reset may wait for the device before the connection is dropped without.
const LAST_WORD_TICKS: u64 = 100;

/// A TCP stack of our own over the queues of one port.
#[derive(Debug)]
pub struct NativeStack<D> {
    devices: Vec<D>,
    config: NativeConfig,
}

impl<D: PacketDevice> NativeStack<D> {
    /// A stack with one worker for each queue in `devices`, in queue order.
    pub fn new(devices: Vec<D>, config: NativeConfig) -> Self {
        Self { devices, config }
    }
}

impl<D: PacketDevice + 'static> NetworkStack for NativeStack<D> {
    type Worker = NativeWorker<D>;

    fn into_workers(self) -> io::Result<Vec<NativeWorker<D>>> {
        let Self { devices, config } = self;
        config.check()?;
        if devices.len() > WORKERS_MAX {
            let text = format!("{} queues, at most {WORKERS_MAX} are possible", devices.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let seed = match config.seed {
            Some(seed) => seed,
            None => getrandom::u64().map_err(io::Error::other)?,
        };
        let secret = match config.seed {
            Some(seed) => Secret::from_seed(seed),
            None => Secret::random()?,
        };
        let flows_max = config.max_connections + config.max_time_wait;
        let mut shares = match devices.len() {
            0 | 1 => Vec::new(),
            workers => Steer::shares(workers, flows_max, seed),
        }
        .into_iter();
        let workers = devices.into_iter().enumerate().map(|(index, device)| {
            // An odd multiplier keeps the workers' seeds apart.
            let seed = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            NativeWorker::new(device, &config, (seed, secret), shares.next())
        });
        workers.collect()
    }
}

/// One queue's TCP, for one thread. It never sleeps in `wait` but as [`IdlePolicy`] says.
#[derive(Debug)]
pub struct NativeWorker<D: PacketDevice> {
    wire: Wire<D>,
    /// `None` if there are no siblings.
    steer: Option<Steer<D::Frame>>,
    flows: FlowTable,
    conns: ConnTable,
    listeners: ListenTable,
    time_wait: TimeWaitTable,
    wheel: Wheel,
    /// For losses; in fine ticks.
    repairs: Wheel,
    ports: Ports,
    secret: Secret,
    challenges: Challenges,
    /// The tick from which on no cookie is good any more.
    cookies_end: u64,
    sockets: SocketOptions,
    limits: Limits,
    idle: Rest,

    /// Connections the application waits for.
    opening: BTreeSet<u32>,
    /// Connections that may have something to send; each is in here once.
    touched: VecDeque<u32>,
    /// Sockets with something to tell; some may be gone by now.
    news: Vec<SocketId>,

    /// The tick of the last turn.
    tick: u64,
    fine_tick: u64,
    link_is_up: bool,
    next_link_check: u64,
    counts: Counts,

    // Lent to a turn, empty between turns.
    burst: Burst<D::Frame>,
    segments: Vec<Segment<D::Frame>>,
    due: Vec<u32>,
}

/// A segment on its way through the passes.
#[derive(Debug)]
struct Segment<F> {
    frame: F,
    view: TcpView,
    hash: u64,
    /// A sibling brought it.
    is_handed: bool,
}

impl<F: Frame> Segment<F> {
    fn packet(&self) -> &[u8] {
        &self.frame.bytes()[self.view.ip_start..][..self.view.ip_len]
    }

    /// The options of its TCP header.
    fn options(&self) -> &[u8] {
        &self.frame.bytes()[self.view.tcp_start + TCP_HEADER_LEN..self.view.payload_start]
    }

    /// Whether it has bytes from sequence number `expected` on.
    fn is_beyond(&self, expected: u32) -> bool {
        let end = self.view.seq.wrapping_add(self.view.payload_len as u32);
        self.view.payload_len > 0 && (end.wrapping_sub(expected) as i32) > 0
    }
}

/// A connection's state before something happened to it.
#[derive(Clone, Copy)]
struct Before {
    state: State,
    received: usize,
}

impl Before {
    fn of(conn: &Conn) -> Self {
        let socket = conn.socket();
        Self { state: socket.state(), received: socket.recv_queue() }
    }
}

impl<D: PacketDevice> EventDriver for NativeWorker<D> {
    fn name(&self) -> &'static str {
        "native"
    }

    fn wait(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        let at = self.wire.clock.at(now);
        self.counts.turns += 1;
        // Nothing unless the last flush was blocked, or left out.
        let mut is_active = self.send_touched(at);
        is_active |= self.take_parcels(at);
        is_active |= self.take_own(at);
        is_active |= self.receive(at);
        if self.fine_tick != at.fine_tick {
            self.fine_tick = at.fine_tick;
            self.on_fine_tick(at);
        }
        if self.tick != at.tick {
            let last_tick = std::mem::replace(&mut self.tick, at.tick);
            self.count_zero_windows(last_tick, at.tick);
            self.on_tick(at);
        }
        self.wire.flush(now);
        is_active |= self.report(ready);
        if is_active {
            self.idle.disturb();
        } else {
            self.counts.idle_turns += 1;
            if self.idle.after_quiet_turn(now) {
                let own = self.next_turn(now);
                self.idle.sleep(now, deadline.into_iter().chain(own).min());
            }
        }
        Ok(())
    }

    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.next_turn(now)
    }

    fn waker(&self) -> Waker {
        self.idle.waker()
    }
}

impl<D: PacketDevice> NativeWorker<D> {
    fn new(
        device: D,
        config: &NativeConfig,
        (seed, secret): (u64, Secret),
        steer: Option<Steer<D::Frame>>,
    ) -> io::Result<Self> {
        let front = Front::new(&config.front(device.info())?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let ports = Ports::new(&config.ephemeral_ports, secret, device.info());
        // Frames that come by way of siblings ring at no file.
        let arrivals = if steer.is_none() { device.arrivals() } else { None };
        let mtu = device.info().mtu;
        let flows_max = config.max_connections + config.max_time_wait.max(1);
        Ok(Self {
            wire: Wire::new(device, front, config.clock_multiplier),
            steer,
            flows: FlowTable::new(flows_max, seed),
            conns: ConnTable::new(config.max_connections),
            listeners: ListenTable::default(),
            time_wait: TimeWaitTable::new(config.max_time_wait),
            wheel: Wheel::new(config.max_connections),
            repairs: Wheel::new(config.max_connections),
            ports,
            secret,
            challenges: Challenges::new(secret),
            cookies_end: 0,
            sockets: config.sockets(mtu),
            limits: config.limits(),
            idle: Rest::new(config.idle, arrivals)?,
            opening: BTreeSet::new(),
            touched: VecDeque::new(),
            news: Vec::new(),
            tick: NEVER,
            fine_tick: NEVER,
            link_is_up: false,
            next_link_check: 0,
            counts: Counts::default(),
            burst: Burst::new(),
            segments: Vec::with_capacity(BURST_MAX),
            due: Vec::new(),
        })
    }

    // Frames come in.

    fn receive(&mut self, at: Moment) -> bool {
        let mut is_active = false;
        for _ in 0..BURSTS_PER_TURN {
            self.wire.device_mut().rx_burst(at.wall, &mut self.burst);
            let frames = self.burst.len();
            if frames == 0 {
                break;
            }
            is_active = true;
            self.counts.rx_last_burst = frames as u64;
            self.stage(at);
            self.warm();
            self.process(at);
            if frames < BURST_MAX {
                break;
            }
        }
        is_active
    }

    /// Pass 1: the front's checks, and the hash of what is TCP for us.
    fn stage(&mut self, at: Moment) {
        self.burst.reverse();
        while let Some(frame) = self.burst.pop() {
            self.counts.rx_frames += 1;
            self.counts.rx_bytes += frame.bytes().len() as u64;
            let inbound = self.wire.receive(at, frame);
            self.on_inbound(inbound);
        }
    }

    fn on_inbound(&mut self, inbound: Inbound<D::Frame>) {
        match inbound {
            Inbound::Tcp { frame, segment: view } => self.push_segment(frame, view, false),
            Inbound::Learned(heard) => {
                if let Some(steer) = &self.steer {
                    steer.tell(heard);
                }
            }
            Inbound::IcmpError(error) => self.on_icmp_error(error, false),
            Inbound::Consumed | Inbound::Dropped(_) => {}
        }
    }

    fn push_segment(&mut self, frame: D::Frame, view: TcpView, is_handed: bool) {
        let hash = self.flows.hash(&view.key);
        self.segments.push(Segment { frame, view, hash, is_handed });
    }

    /// Passes 2 and 3: reads from the places of the flow table and then from the connections that
    /// this burst will need. No read depends on the one before, so they are under way together.
    fn warm(&self) {
        let mut slots = [0; BURST_MAX];
        let mut len = 0;
        for segment in self.segments.iter().take(BURST_MAX) {
            if let Some(Target::Conn(slot)) = self.flows.peek(segment.hash) {
                slots[len] = slot;
                len += 1;
            }
        }
        let conns = slots[..len].iter().filter_map(|slot| self.conns.get(*slot));
        black_box(conns.fold(0, |sum, conn| sum ^ conn.warm()));
    }

    /// Pass 4: each segment to its connection, in the order they came.
    fn process(&mut self, at: Moment) {
        let mut segments = std::mem::take(&mut self.segments);
        for segment in segments.drain(..) {
            self.on_segment(at, segment);
        }
        self.segments = segments;
    }

    fn on_segment(&mut self, at: Moment, mut segment: Segment<D::Frame>) {
        match self.find(segment.hash, &segment.view.key) {
            Some(Target::Conn(slot)) => self.on_conn_segment(at, slot, &mut segment),
            Some(Target::TimeWait(slot)) => self.on_time_wait_segment(at, slot, segment),
            None => self.on_stranger(at, segment),
        }
    }

    fn find(&self, hash: u64, key: &FlowKey) -> Option<Target> {
        self.flows.find(hash, |target| match target {
            Target::Conn(slot) => self.conns.get(slot).is_some_and(|conn| conn.key == *key),
            Target::TimeWait(slot) => self.time_wait.key(slot) == *key,
        })
    }

    fn on_conn_segment(&mut self, at: Moment, slot: u32, segment: &mut Segment<D::Frame>) {
        let conn = self.conns.at(slot);
        let Some(last) = conn.last else {
            self.counts.early_segment_drops += 1;
            return;
        };
        let expected = last.rcv_nxt;
        // Nearly all are, and that is seen by what recovery has at hand.
        if !conn.recovery.is_ordinary(&segment.view) && !self.admit(at, slot, segment) {
            return;
        }
        self.observe(slot, &segment.view);
        if segment.is_beyond(expected.wrapping_add(last.unsaid))
            && self.conns.at(slot).has_peer_closed()
        {
            // Behind the peer's FIN nothing is its stream's (RFC 9293 section 3.10.7.4), but
            // smoltcp would take it.
            return self.wire.acknowledge(at, &segment.view.key, last);
        }
        let unsent = self.conns.at(slot).unsent();
        if !self.recover(at, slot, segment) {
            return;
        }
        let conn = self.conns.at(slot);
        let before = Before::of(conn);
        let (sockets, last, _) = conn.parts();
        self.wire.ingress(at, sockets, last, segment.packet());
        if segment.view.payload_len > 0 || segment.view.flags.contains(TcpFlags::FIN) {
            self.note_arrival(slot, &segment.view, expected, before);
        }
        self.keep_in_step(at, slot, unsent);
        self.touch(slot);
        self.settle(slot, before, Fault::Reset);
    }

    fn on_time_wait_segment(&mut self, at: Moment, slot: u32, segment: Segment<D::Frame>) {
        let expires = at.tick + self.limits.time_wait;
        match self.time_wait.judge(slot, &segment.view, expires) {
            Verdict::Ignore => {}
            Verdict::Answer(last) => self.wire.acknowledge(at, &segment.view.key, last),
            Verdict::Reopen { old_end } => self.reopen(at, slot, old_end, segment),
        }
    }

    // A connection moves on.

    /// Draws the consequences of what happened to a connection. If it has ended, `fault` says why
    /// unless that is known better.
    fn settle(&mut self, slot: u32, before: Before, fault: Fault) {
        let conn = self.conns.at(slot);
        if conn.socket().state() != before.state {
            self.on_state(slot, before.state, fault);
        }
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        if conn.socket().recv_queue() > before.received {
            if conn.phase == Phase::Orphan {
                conn.discard();
            } else {
                self.tell(slot, Readiness::READABLE);
            }
        }
        let conn = self.conns.at(slot);
        if conn.wants_room && conn.has_room() {
            conn.wants_room = false;
            self.tell(slot, Readiness::WRITABLE);
        }
    }

    /// Notes what the application has to be told in the next report. That there is something to
    /// read is told once until it has read everything.
    fn tell(&mut self, slot: u32, mut readiness: Readiness) {
        let id = self.conns.id(slot);
        let conn = self.conns.at(slot);
        if !conn.is_applications() {
            return;
        }
        if conn.is_readable {
            readiness = readiness.without(Readiness::READABLE);
        }
        conn.is_readable |= readiness.is_readable();
        if conn.news.is_empty() && !readiness.is_empty() {
            self.news.push(id);
        }
        conn.news |= readiness;
    }

    fn report(&mut self, ready: &mut Vec<Ready>) -> bool {
        let is_active = !self.news.is_empty();
        for socket in self.news.drain(..) {
            let readiness = if (socket.slot as usize) < LISTENERS_MAX {
                let listener = self.listeners.get_mut(socket.slot);
                let listener = listener.filter(|listener| listener.id == socket);
                listener.map(|listener| {
                    listener.has_news = false;
                    Readiness::READABLE
                })
            } else {
                let conn = self.conns.get_mut(conn_slot(socket));
                let conn = conn
                    .filter(|conn| conn.generation == socket.generation && conn.is_applications());
                conn.map(|conn| std::mem::take(&mut conn.news))
            };
            ready.extend(readiness.map(|readiness| Ready { socket, readiness }));
        }
        is_active
    }

    // Frames go out.

    fn touch(&mut self, slot: u32) {
        let conn = self.conns.at(slot);
        if !conn.touched {
            conn.touched = true;
            self.touched.push_back(slot);
        }
    }

    /// Lets every touched connection send its share, until the device takes no more.
    fn send_touched(&mut self, at: Moment) -> bool {
        let touched = self.touched.len();
        for _ in 0..touched {
            let Some(slot) = self.touched.pop_front() else {
                break;
            };
            if !self.send_one(at, slot) {
                break;
            }
        }
        touched > 0
    }

    /// Lets a connection send; false: the device takes no more.
    fn send_one(&mut self, at: Moment, slot: u32) -> bool {
        let Some(conn) = self.conns.get_mut(slot) else {
            return true;
        };
        conn.touched = false;
        if conn.detached {
            return true;
        }
        let before = Before::of(conn);
        if !self.resend(at, slot) {
            self.touch(slot);
            return false;
        }
        let resent = self.wire.segments_resent();
        let conn = self.conns.at(slot);
        let is_short = conn.recovery.is_short_of_window(conn.socket().send_queue());
        conn.socket_mut().set_nagle_enabled(is_short);
        let (sockets, last, recovery) = conn.parts();
        let outcome = self.wire.egress(at, sockets, last, recovery);
        self.observe_sent(slot, resent);
        let conn = self.conns.at(slot);
        if conn.socket().state() != before.state {
            // Sending changes the state only when a time is over.
            self.settle(slot, before, Fault::TimedOut);
        }
        match outcome {
            Egress::Until(tick) => self.on_sent(at, slot, tick),
            Egress::More | Egress::Blocked if self.conns.get(slot).is_some() => self.touch(slot),
            Egress::More | Egress::Blocked => {}
        }
        self.arm_repair(slot);
        outcome != Egress::Blocked
    }

    /// A connection has nothing more to send before `tick`.
    fn on_sent(&mut self, at: Moment, slot: u32, tick: u64) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        match (conn.phase, conn.socket().state()) {
            (_, State::TimeWait) => self.begin_time_wait(at, slot),
            (Phase::Orphan, State::Closed) => self.remove(slot),
            _ => {
                conn.due = tick.min(conn.deadline);
                self.arm(slot);
            }
        }
    }

    /// Sees to it that the connection is looked at when it is due.
    ///
    /// Mostly that moves to later times, with every segment. The timer is left where it is then:
    /// it comes too early, finds nothing due and is set again, once in a timeout and not once in
    /// a segment.
    fn arm(&mut self, slot: u32) {
        let conn = self.conns.at(slot);
        if conn.due < conn.armed {
            conn.armed = conn.due;
            self.wheel.set(slot, conn.due);
        }
    }

    /// Gives the connection until tick `deadline` to get out of its present phase.
    fn limit(&mut self, slot: u32, deadline: u64) {
        let conn = self.conns.at(slot);
        conn.deadline = deadline;
        conn.due = conn.due.min(deadline);
        self.arm(slot);
    }

    // Siblings of a port with several queues.

    /// Takes what siblings have for us, and what arrived here of theirs.
    fn take_parcels(&mut self, at: Moment) -> bool {
        if self.steer.is_none() {
            return false;
        }
        let mut parcels = 0;
        while parcels < PARCELS_PER_TURN
            && let Some(parcel) = self.steer.as_ref().and_then(Steer::take)
        {
            parcels += 1;
            match parcel {
                Parcel::Segment(frame, view) => {
                    self.counts.frames_taken_over += 1;
                    self.push_segment(frame, view, true);
                }
                Parcel::Heard(heard) => {
                    let (front, mut queue) = self.wire.front_and_output(at.wall);
                    front.learn(at.wall, heard, &mut queue);
                }
                Parcel::IcmpError(error) => self.on_icmp_error(error, true),
            }
        }
        self.warm();
        self.process(at);
        parcels > 0
    }

    /// Takes frames from one of our addresses to another.
    fn take_own(&mut self, at: Moment) -> bool {
        // Answers to these are for the next turn.
        let frames = self.wire.own_len().min(PARCELS_PER_TURN);
        if frames == 0 {
            return false;
        }
        for _ in 0..frames {
            if let Some(inbound) = self.wire.receive_own() {
                self.on_inbound(inbound);
            }
        }
        self.process(at);
        true
    }
}
