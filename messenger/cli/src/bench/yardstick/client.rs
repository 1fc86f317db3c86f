//! The loading end: one thread that sends, receives and keeps time.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use messenger::MessengerCounters;
use mio::{Events, Interest, Poll, Token};

use super::Waiting;
use super::frame::{self, Header, Wrapping};
use super::link::Link;
use super::server::SPIN_DIRECTLY;
use crate::bench::client::{ANSWER_PATIENCE, Client as BenchClient};
use crate::bench::generator::Generator;
use crate::bench::lanes::Lanes;
use crate::bench::load::{Kind, Load};
use crate::bench::server::{Answer, Question, msg_kind, msg_type};
use crate::ping::pattern;

/// The longest the thread sleeps.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// epoll counts in milliseconds: what is due sooner is spun for.
const SPIN_BELOW: Duration = Duration::from_millis(1);
/// Events taken from epoll at a time.
const EVENTS: usize = 256;

/// See the [module](self).
pub(crate) struct Client {
    lanes: Arc<Lanes>,
    connected: usize,
    /// Open, and nothing more.
    _idle: Vec<TcpStream>,
    /// A connection of its own for questions.
    control: TcpStream,
    loading: Option<Loading>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// # Errors
    /// If the server cannot be reached.
    pub(crate) fn connect(
        load: &Load,
        waiting: Waiting,
        target: SocketAddr,
        lanes: Arc<Lanes>,
    ) -> Result<Self> {
        let dial = || TcpStream::connect(target).with_context(|| format!("cannot reach {target}"));
        let poll = Poll::new()?;
        let mut links = Vec::with_capacity(load.connections);
        for index in 0..load.connections {
            let socket = dial()?;
            socket.set_nonblocking(true)?;
            let mut socket = mio::net::TcpStream::from_std(socket);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut socket, Token(index), interest)?;
            links.push(Link::new(socket)?);
        }
        let idle = (0..load.idle_connections).map(|_| dial()).collect::<Result<_>>()?;
        let control = dial()?;
        control.set_read_timeout(Some(ANSWER_PATIENCE))?;
        let loading = Loading {
            kind: load.kind,
            waiting,
            payload: pattern(load.sizes.largest()),
            dirty: Vec::with_capacity(links.len()),
            is_dirty: vec![false; links.len()],
            leaving: links.iter().map(|_| VecDeque::new()).collect(),
            poll,
            links,
            lanes: Arc::clone(&lanes),
        };
        let connected = load.all_connections();
        Ok(Self { lanes, connected, _idle: idle, control, loading: Some(loading), thread: None })
    }
}

impl BenchClient for Client {
    fn connected(&self) -> usize {
        self.connected
    }

    fn begin(&mut self) -> Result<()> {
        let loading = self.loading.take().context("it has begun")?;
        let thread = std::thread::Builder::new().name("yardstick".into());
        self.thread = Some(thread.spawn(move || loading.run())?);
        Ok(())
    }

    fn ask(&mut self, question: Question) -> Result<Answer> {
        let payload = question.to_bytes();
        let wrapping = Wrapping::new(Header { tid: 0, kind: msg_type::CONTROL }, &payload);
        self.control.write_all(&[&wrapping.head, &payload[..], wrapping.tail()].concat())?;
        let (mut bytes, mut space) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(frame) = frame::parse(&bytes).map_err(io::Error::other)? {
                return Answer::from_bytes(frame.payload);
            }
            match self.control.read(&mut space).context("the server does not answer")? {
                0 => bail!("the server does not answer: it ended the connection"),
                len => bytes.extend_from_slice(&space[..len]),
            }
        }
    }

    fn counters(&self) -> Option<MessengerCounters> {
        None
    }

    fn end(mut self: Box<Self>) -> Result<()> {
        self.lanes.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        Ok(())
    }
}

/// What the thread has.
struct Loading {
    kind: Kind,
    waiting: Waiting,
    payload: Vec<u8>,
    poll: Poll,
    links: Vec<Link>,
    /// Connections written to in this turn, each once.
    dirty: Vec<usize>,
    is_dirty: Vec<bool>,
    /// In a stream what each connection gathered, until the kernel has it all.
    leaving: Vec<VecDeque<(u64, usize)>>,
    lanes: Arc<Lanes>,
}

/// The only lane there is.
const LANE: usize = 0;

impl Loading {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        if let Err(error) = self.turns(&mut events) {
            self.lanes.fail(format!("the server ended a connection: {error}"));
        }
    }

    fn turns(&mut self, events: &mut Events) -> io::Result<()> {
        let directly = self.waiting == Waiting::Spin && self.links.len() <= SPIN_DIRECTLY;
        while !self.lanes.has_ended() {
            if directly {
                for index in 0..self.links.len() {
                    self.receive(index, false)?;
                }
            } else {
                match self.poll.poll(events, self.timeout()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    outcome => outcome?,
                }
                for event in &*events {
                    self.receive(event.token().0, true)?;
                }
            }
            self.send()?;
        }
        Ok(())
    }

    /// How long epoll may sleep.
    fn timeout(&self) -> Option<Duration> {
        if self.waiting == Waiting::Spin {
            return Some(Duration::ZERO);
        }
        let next = self.lanes.lock(LANE).poll_timeout();
        let wait = next.map_or(LOOK_EVERY, |next| next.saturating_duration_since(Instant::now()));
        Some(if wait < SPIN_BELOW { Duration::ZERO } else { wait.min(LOOK_EVERY) })
    }

    fn receive(&mut self, index: usize, to_the_end: bool) -> io::Result<()> {
        let Self { links, lanes, .. } = self;
        let link = &mut links[index];
        if !link.is_flushed() {
            link.flush()?;
        }
        while link.read()? {
            let mut generator = lanes.lock(LANE);
            let now = Instant::now();
            link.take_frames(|header, payload, _| {
                let taken = generator.handle_reply(now, header.tid, payload.len());
                taken.map_err(io::Error::other)
            })?;
            if !to_the_end {
                break;
            }
        }
        Ok(())
    }

    /// Sends what has to leave now.
    fn send(&mut self) -> io::Result<()> {
        let lanes = Arc::clone(&self.lanes);
        let mut generator = lanes.lock(LANE);
        let now = Instant::now();
        while let Some(departure) = generator.poll_departure(now) {
            let index = departure.connection;
            let header = Header { tid: departure.tid, kind: msg_kind(self.kind) };
            self.links[index].pen().write(header, &self.payload[..departure.size])?;
            if self.kind == Kind::Stream {
                self.leaving[index].push_back((departure.tid, departure.size));
            }
            if !std::mem::replace(&mut self.is_dirty[index], true) {
                self.dirty.push(index);
            }
        }
        drop(generator);
        for index in self.dirty.drain(..) {
            self.is_dirty[index] = false;
            self.links[index].flush()?;
        }
        if self.kind == Kind::Stream {
            self.release(&mut lanes.lock(LANE));
        }
        Ok(())
    }

    /// Tells a stream's generator what the kernel has taken.
    fn release(&mut self, generator: &mut Generator) {
        let now = Instant::now();
        for (link, leaving) in self.links.iter().zip(&mut self.leaving) {
            while link.is_flushed()
                && let Some((tid, size)) = leaving.pop_front()
            {
                if let Err(why) = generator.handle_reply(now, tid, size) {
                    self.lanes.fail(why);
                }
            }
        }
    }
}
