//! The loading end over the messenger.
//!
//! A reply's callback, on the worker's thread, takes the time and sends what has to leave. A thread
//! of ours does the same by the clock: the first messages, those of an open loop, and those that
//! found no room.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use messenger::{
    Config, ConnectOptions, Connection, Dispatcher, DispatcherPriority, EntityAddr, EntityAddrVec,
    EntityName, EntityType, Message, Messenger, MessengerCounters, Policy, SendError,
};

use crate::bench::client::{ANSWER_PATIENCE, Client};
use crate::bench::generator::{Departure, Generator};
use crate::bench::lanes::Lanes;
use crate::bench::load::{Kind, Load};
use crate::bench::server::{Answer, Question, msg_kind, msg_type};
use crate::ping::pattern;

/// How soon a message, or a connection, that found no room is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(1);
/// The longest the clock's thread sleeps.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How exactly the kernel wakes it, in nanoseconds.
const TIMER_SLACK: NonZeroU64 = NonZeroU64::MIN;

/// A messenger with all connections of a load.
pub(crate) struct OverMessenger {
    messenger: Messenger,
    shared: Arc<Shared>,
    answers: Receiver<Bytes>,
    clock: Option<JoinHandle<()>>,
}

struct Shared {
    lanes: Arc<Lanes>,
    kind: Kind,
    payload: Bytes,
    connections: OnceLock<Vec<Connection>>,
    connected: AtomicUsize,
    answers: Mutex<Sender<Bytes>>,
    /// The thread that keeps time.
    clock: OnceLock<Thread>,
    /// In a stream what each connection was given, until it has left.
    leaving: Vec<Mutex<VecDeque<(u64, usize)>>>,
}

impl OverMessenger {
    pub(crate) fn connect(
        load: &Load,
        config: Config,
        target: EntityAddr,
        lanes: Arc<Lanes>,
    ) -> Result<Self> {
        let (sender, answers) = mpsc::channel();
        let streams = if load.kind == Kind::Stream { load.connections } else { 0 };
        let shared = Arc::new(Shared {
            lanes,
            kind: load.kind,
            payload: Bytes::from(pattern(load.sizes.largest())),
            connections: OnceLock::new(),
            connected: AtomicUsize::new(0),
            answers: Mutex::new(sender),
            clock: OnceLock::new(),
            leaving: (0..streams).map(|_| Mutex::default()).collect(),
        });
        let messenger = Messenger::create(EntityName::new(EntityType::Client, -1), config)?;
        messenger.set_default_policy(Policy::lossy_client())?;
        messenger.add_dispatcher_tail(shared.clone(), DispatcherPriority::DEFAULT)?;
        messenger.start()?;
        let (target, options) = (
            EntityAddrVec::from(target),
            ConnectOptions { anonymous: true, ..ConnectOptions::default() },
        );
        let connect = |_| loop {
            match messenger.connect_to(EntityType::Osd, &target, options) {
                Err(messenger::Error::Busy) => std::thread::sleep(RETRY_AFTER),
                done => break done,
            }
        };
        let connections =
            (0..load.all_connections()).map(connect).collect::<Result<Vec<_>, _>>()?;
        let _ = shared.connections.set(connections);
        Ok(Self { messenger, shared, answers, clock: None })
    }

    fn connections(&self) -> &[Connection] {
        self.shared.connections.get().map_or(&[], Vec::as_slice)
    }
}

impl Client for OverMessenger {
    fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Acquire)
    }

    fn begin(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let clock = std::thread::Builder::new().name("bench-clock".into());
        let clock = clock.spawn(move || shared.keep_time()).context("no thread")?;
        let _ = self.shared.clock.set(clock.thread().clone());
        self.clock = Some(clock);
        Ok(())
    }

    fn ask(&mut self, question: Question) -> Result<Answer> {
        let connection = self.connections().first().context("no connection")?;
        let message = Message::new(msg_type::CONTROL).with_data(question.to_bytes());
        connection.send_message(message).map_err(|error| anyhow::anyhow!("{error}"))?;
        let answer = self.answers.recv_timeout(ANSWER_PATIENCE);
        Answer::from_bytes(&answer.context("the server does not answer")?)
    }

    fn counters(&self) -> Option<MessengerCounters> {
        Some(self.messenger.counters())
    }

    fn end(mut self: Box<Self>) -> Result<()> {
        self.shared.lanes.end();
        if let Some(clock) = self.clock.take() {
            clock.thread().unpark();
            let _ = clock.join();
        }
        self.connections().iter().for_each(Connection::mark_down);
        self.messenger.shutdown();
        Ok(self.messenger.wait()?)
    }
}

impl Shared {
    /// Sends what is due until the run ends.
    fn keep_time(&self) {
        // Without it sleeps may be 50 us longer than asked for, which the report would show.
        let _ = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK));
        while !self.lanes.has_ended() {
            let now = Instant::now();
            let mut next = now + LOOK_EVERY;
            for lane in 0..self.lanes.count() {
                let mut generator = self.lanes.lock(lane);
                self.release(now, lane, &mut generator);
                self.depart(now, lane, &mut generator);
                let retry = generator.has_refused().then(|| now + RETRY_AFTER);
                next = retry.into_iter().chain(generator.poll_timeout()).fold(next, Instant::min);
            }
            if self.kind == Kind::Stream {
                std::thread::yield_now();
                continue;
            }
            std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Tells a stream's generator what has left.
    fn release(&self, now: Instant, lane: usize, generator: &mut Generator) {
        let Some(connections) = self.connections.get().filter(|_| self.kind == Kind::Stream) else {
            return;
        };
        for index in (lane..self.leaving.len()).step_by(self.lanes.count()) {
            let mut leaving = lock(&self.leaving[index]);
            let queued = connections[index].outgoing().0;
            while leaving.len() > queued
                && let Some((tid, size)) = leaving.pop_front()
            {
                if let Err(why) = generator.handle_reply(now, tid, size) {
                    self.lanes.fail(why);
                }
            }
        }
    }

    /// Sends what has to leave now.
    fn depart(&self, now: Instant, lane: usize, generator: &mut Generator) {
        let Some(connections) = self.connections.get() else {
            return;
        };
        while let Some(departure) = generator.poll_departure(now) {
            let connection = self.lanes.connection(lane, departure.connection);
            let message = Message::new(msg_kind(self.kind))
                .with_tid(self.lanes.tid(lane, departure.tid))
                .with_data(self.payload.slice(..departure.size));
            match connections[connection].send_message(message) {
                Ok(()) => self.note_leaving(connection, departure),
                Err(SendError::Full(_)) => return generator.refuse(departure),
                Err(error) => return self.lanes.fail(error.to_string()),
            }
        }
    }

    fn note_leaving(&self, connection: usize, departure: Departure) {
        if let Some(leaving) = self.leaving.get(connection) {
            lock(leaving).push_back((departure.tid, departure.size));
        }
    }
}

impl Dispatcher for Shared {
    fn can_fast_dispatch_any(&self) -> bool {
        true
    }

    fn can_fast_dispatch(&self, _message: &Message) -> bool {
        true
    }

    fn fast_dispatch(&self, _connection: &Connection, message: Message) {
        if message.header.kind == msg_type::CONTROL {
            // Nobody asks any more once the run is over.
            let _ = lock(&self.answers).send(message.data);
            return;
        }
        let now = Instant::now();
        let Some((lane, tid)) = self.lanes.lane_of(message.header.tid) else {
            return self.lanes.fail("a reply to no message of ours");
        };
        let mut generator = self.lanes.lock(lane);
        let had_plans = generator.poll_timeout().is_some();
        match generator.handle_reply(now, tid, message.data.len()) {
            Ok(()) => self.depart(now, lane, &mut generator),
            Err(why) => return self.lanes.fail(why),
        }
        if !had_plans
            && generator.poll_timeout().is_some()
            && let Some(clock) = self.clock.get()
        {
            clock.unpark(); // it sleeps, and does not know of the think time that has begun
        }
    }

    fn handle_fast_connect(&self, connection: &Connection) {
        // The messenger's connection to itself is announced the same way.
        if !connection.is_loopback() {
            self.connected.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn handle_reset(&self, _connection: &Connection) -> bool {
        if !self.lanes.has_ended() {
            self.lanes.fail("the server ended a connection");
        }
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
