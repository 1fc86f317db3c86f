//! A worker: the calls of [`Worker`] over the table of sockets, and the wait between them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;

use super::alarm::Alarm;
use super::bell::Bell;
use super::conn::{Connection, connect_error};
use super::counters::Counters;
use super::listen::{Listener, PortGroups, bind_local};
use super::table::Table;
use super::{EVENTS_PER_WAIT_MAX, LISTENERS_MAX, PosixConfig};
use crate::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, Readiness, Ready, Received,
    ServerSocket, SocketError, SocketId, Waker, Worker,
};

const WAKER: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
const _: () = assert!(usize::BITS == 64, "a token carries slot and generation, 32 bits each");

/// One worker of a [`PosixStack`](super::PosixStack): an `epoll` and the sockets registered with it.
#[derive(Debug)]
pub struct PosixWorker {
    config: PosixConfig,
    groups: PortGroups,
    poll: Poll,
    events: Events,
    bell: Arc<Bell>,
    alarm: Alarm,
    sockets: Table<Entry>,
    listeners: Vec<SocketId>,
    /// Readiness known without the kernel, for the next wait.
    announced: Vec<Ready>,
    /// Connections whose last bytes may be held back until the next flush.
    held: Vec<SocketId>,
    /// Closed connections in the order their time is over. Those gone before leave stale names.
    lingering: VecDeque<(Instant, SocketId)>,
    /// A connection was left in a backlog for want of room.
    starved: bool,
    counters: Counters,
}

/// What a slot of the table holds.
#[derive(Debug)]
enum Entry {
    Listener(Listener),
    Connection(Connection),
}

impl PosixWorker {
    pub(super) fn new(config: PosixConfig, groups: PortGroups) -> io::Result<Self> {
        let poll = Poll::new()?;
        let bell = Bell::new(poll.registry(), WAKER)?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        Ok(Self {
            config,
            groups,
            poll,
            events: Events::with_capacity(EVENTS_PER_WAIT_MAX),
            bell: Arc::new(bell),
            alarm,
            sockets: Table::new(),
            listeners: Vec::new(),
            announced: Vec::new(),
            held: Vec::new(),
            lingering: VecDeque::new(),
            starved: false,
            counters: Counters::default(),
        })
    }

    fn connection(
        &mut self,
        id: SocketId,
    ) -> Result<(&mut Connection, &mut Counters), SocketError> {
        match self.sockets.get_mut(id) {
            Some(Entry::Connection(connection)) => Ok((connection, &mut self.counters)),
            _ => Err(SocketError::Io(io::ErrorKind::NotConnected.into())),
        }
    }

    fn make_room(&mut self) -> Result<(), SocketError> {
        let limit = self.config.max_connections as u64;
        while self.counters.connections + self.counters.lingering >= limit {
            let Some((_, oldest)) = self.lingering.pop_front() else {
                self.starved = true;
                return Err(SocketError::Limit("connections of a worker"));
            };
            self.end_lingering(oldest);
        }
        Ok(())
    }

    fn adopt(&mut self, mut connection: Connection) -> io::Result<SocketId> {
        let id = self.sockets.next_id();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(connection.source(), token(id), interest)?;
        self.counters.connections += 1;
        Ok(self.sockets.insert(Entry::Connection(connection)))
    }

    /// Forgets a closed connection; nothing happens if it is gone already.
    fn end_lingering(&mut self, id: SocketId) {
        if self.sockets.remove(id).is_some() {
            self.counters.lingering -= 1;
            self.announce_backlogs();
        }
    }

    fn end_overdue(&mut self, now: Instant) {
        while let Some(&(end, id)) = self.lingering.front() {
            if end > now && self.sockets.get(id).is_some() {
                break;
            }
            self.lingering.pop_front();
            self.end_lingering(id);
        }
    }

    /// A descriptor came free: what was left in a backlog can be taken now.
    fn announce_backlogs(&mut self) {
        if std::mem::take(&mut self.starved) {
            let readiness = Readiness::READABLE;
            let waiting = self.listeners.iter().map(|&socket| Ready { socket, readiness });
            self.announced.extend(waiting);
        }
    }

    fn on_socket(&mut self, event: &Event, ready: &mut Vec<Ready>) {
        let socket = id(event.token());
        let news = match self.sockets.get_mut(socket) {
            Some(Entry::Connection(connection)) if connection.is_lingering() => {
                if connection.discard() {
                    self.end_lingering(socket);
                }
                Readiness::NONE
            }
            Some(Entry::Connection(connection)) => connection.on_event(event),
            Some(Entry::Listener(listener)) if !listener.reported => {
                listener.reported = true;
                Readiness::READABLE
            }
            Some(Entry::Listener(_)) => Readiness::NONE,
            None => {
                self.counters.events_stale += 1;
                Readiness::NONE
            }
        };
        if !news.is_empty() {
            ready.push(Ready { socket, readiness: news });
        }
    }
}

impl EventDriver for PosixWorker {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn wait(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        self.end_overdue(now);
        let linger_end = self.lingering.front().map(|&(end, _)| end);
        let deadline = if self.announced.is_empty() {
            deadline.into_iter().chain(linger_end).min()
        } else {
            Some(now)
        };
        ready.append(&mut self.announced);
        let timeout = self.alarm.timeout(now, deadline)?;
        self.counters.waits += 1;
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.counters.events += 1;
            match event.token() {
                WAKER => self.bell.heard(),
                ALARM => self.alarm.went_off(),
                _ => self.on_socket(event, ready),
            }
        }
        self.events = events;
        Ok(())
    }

    fn waker(&self) -> Waker {
        let bell = Arc::clone(&self.bell);
        Waker::new(move || bell.ring())
    }
}

impl Worker for PosixWorker {
    fn listen(
        &mut self,
        _now: Instant,
        addr: SocketAddr,
        options: &ListenOptions,
    ) -> Result<ServerSocket, SocketError> {
        let ours = |id: &SocketId| match self.sockets.get(*id) {
            Some(Entry::Listener(listener)) => listener.addr == addr,
            _ => false,
        };
        if self.listeners.iter().any(ours) {
            return Err(SocketError::AddressInUse(addr));
        }
        if self.listeners.len() >= LISTENERS_MAX {
            return Err(SocketError::Limit("listeners of a worker"));
        }
        let mut listener = Listener::open(&self.config, &self.groups, addr, options.backlog)?;
        let id = self.sockets.next_id();
        let interest = Interest::READABLE;
        self.poll.registry().register(&mut listener.socket, token(id), interest)?;
        self.sockets.insert(Entry::Listener(listener));
        self.listeners.push(id);
        Ok(ServerSocket(id))
    }

    fn listen_addr(&self, socket: &ServerSocket) -> SocketAddr {
        match self.sockets.get(socket.0) {
            Some(Entry::Listener(listener)) => listener.addr,
            _ => unreachable!("a ServerSocket is used with the worker that made it"),
        }
    }

    fn accept(
        &mut self,
        _now: Instant,
        socket: &ServerSocket,
    ) -> Result<Option<(ConnectedSocket, SocketAddr)>, SocketError> {
        let room = self.make_room();
        let Some(Entry::Listener(listener)) = self.sockets.get_mut(socket.0) else {
            return Err(SocketError::Io(io::ErrorKind::NotConnected.into()));
        };
        listener.reported &= room.is_ok();
        room?;
        self.counters.accept_calls += 1;
        let accepted = listener.accept();
        self.starved |= accepted.is_err();
        let Some((stream, peer)) = accepted? else {
            return Ok(None);
        };
        let id = self.adopt(Connection::accepted(stream, peer))?;
        self.counters.accepted += 1;
        Ok(Some((ConnectedSocket(id), peer)))
    }

    fn close_listener(&mut self, _now: Instant, socket: ServerSocket) {
        self.listeners.retain(|&id| id != socket.0);
        self.sockets.remove(socket.0);
        self.announced.retain(|ready| ready.socket != socket.0);
    }

    fn connect(
        &mut self,
        _now: Instant,
        peer: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<ConnectedSocket, SocketError> {
        self.make_room()?;
        let socket = self.config.socket(peer).map_err(|error| connect_error(error, peer))?;
        if let Some(addr) = options.bind {
            bind_local(&socket, addr)?;
        }
        let outcome = socket.connect(&peer.into());
        let stream = TcpStream::from_std(socket.into());
        let connection = match outcome {
            Ok(()) => Connection::opening(stream, peer),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INPROGRESS) => Connection::opening(stream, peer),
                Some(Errno::CONNREFUSED) => Connection::refused(stream, peer),
                _ => return Err(connect_error(error, peer)),
            },
        };
        let readiness = connection.readiness();
        let id = self.adopt(connection)?;
        self.counters.started += 1;
        if !readiness.is_empty() {
            self.announced.push(Ready { socket: id, readiness });
        }
        Ok(ConnectedSocket(id))
    }

    fn is_connected(&mut self, socket: &ConnectedSocket) -> Result<bool, SocketError> {
        let (connection, counters) = self.connection(socket.0)?;
        connection.is_connected(counters)
    }

    fn local_addr(&self, socket: &ConnectedSocket) -> Result<SocketAddr, SocketError> {
        match self.sockets.get(socket.0) {
            Some(Entry::Connection(connection)) => Ok(connection.local_addr()?),
            _ => Err(SocketError::Io(io::ErrorKind::NotConnected.into())),
        }
    }

    fn recv(
        &mut self,
        _now: Instant,
        socket: &ConnectedSocket,
        buffer: &mut [u8],
    ) -> Result<Received, SocketError> {
        let (connection, counters) = self.connection(socket.0)?;
        connection.recv(buffer, counters)
    }

    fn send(
        &mut self,
        _now: Instant,
        socket: &ConnectedSocket,
        gather: &[IoSlice<'_>],
        more: bool,
    ) -> Result<usize, SocketError> {
        let (connection, counters) = self.connection(socket.0)?;
        let was_held = connection.is_held();
        let len = connection.send(gather, more, counters)?;
        if connection.is_held() && !was_held {
            self.held.push(socket.0);
        }
        Ok(len)
    }

    fn shutdown(&mut self, _now: Instant, socket: &ConnectedSocket) -> Result<(), SocketError> {
        let (connection, counters) = self.connection(socket.0)?;
        connection.shutdown(counters)
    }

    fn close(&mut self, now: Instant, socket: ConnectedSocket, abort: bool) {
        let id = socket.0;
        self.announced.retain(|ready| ready.socket != id);
        let Some(Entry::Connection(connection)) = self.sockets.get_mut(id) else {
            return;
        };
        self.counters.connections -= 1;
        if !abort && connection.close() {
            self.counters.lingering += 1;
            self.lingering.push_back((now + self.config.linger, id));
            return;
        }
        if abort {
            connection.abort();
        }
        self.sockets.remove(id);
        self.announce_backlogs();
    }

    fn flush(&mut self, _now: Instant) -> io::Result<()> {
        for id in self.held.drain(..) {
            if let Some(Entry::Connection(connection)) = self.sockets.get_mut(id)
                && connection.is_held()
            {
                self.counters.uncork_calls += 1;
                connection.release();
            }
        }
        Ok(())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.counters.snapshot(self.listeners.len())
    }
}

fn token(id: SocketId) -> Token {
    Token((id.generation as usize) << 32 | id.slot as usize)
}

fn id(token: Token) -> SocketId {
    SocketId { slot: token.0 as u32, generation: (token.0 >> 32) as u32 }
}
