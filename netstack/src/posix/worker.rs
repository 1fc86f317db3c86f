//! A worker: the calls of [`Worker`] over the table of sockets, and the wait between them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::conn::Connection;
use super::counters::Counters;
use super::driver::{Fired, Selector};
use super::listen::{Listener, PortGroups};
use super::net_handler::{Dial, NetHandler};
use super::table::Table;
use super::{LISTENERS_MAX, PosixConfig};
use crate::stack::{
    ConnectOptions, ConnectedSocket, EventDriver, ListenOptions, Readiness, Ready, Received,
    ServerSocket, SocketError, SocketId, Waker, Worker,
};

/// One worker of a [`PosixStack`](super::PosixStack): a driver and the sockets it waits for.
#[derive(Debug)]
pub struct PosixWorker {
    /// Before the sockets: it shares them, and a listener that ends must be its last owner.
    selector: Box<dyn Selector>,
    net: NetHandler,
    groups: PortGroups,
    max_connections: u64,
    linger: Duration,
    sockets: Table<Entry>,
    listeners: Vec<SocketId>,
    /// Reused by each wait.
    fired: Vec<Fired>,
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
        Ok(Self {
            selector: config.driver.open()?,
            groups,
            max_connections: config.max_connections as u64,
            linger: config.linger,
            net: NetHandler::new(config),
            sockets: Table::new(),
            listeners: Vec::new(),
            fired: Vec::new(),
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
        while self.counters.connections + self.counters.lingering >= self.max_connections {
            let Some((_, oldest)) = self.lingering.pop_front() else {
                self.starved = true;
                return Err(SocketError::Limit("connections of a worker"));
            };
            self.end_lingering(oldest);
        }
        Ok(())
    }

    fn adopt(&mut self, connection: Connection) -> Result<SocketId, SocketError> {
        let id = self.sockets.next_id();
        self.selector.add(connection.fd(), id, Readiness::ALL)?;
        self.counters.connections += 1;
        Ok(self.sockets.insert(Entry::Connection(connection)))
    }

    /// Gives the socket back to the kernel; whether there was one of that name.
    fn forget(&mut self, id: SocketId) -> bool {
        self.selector.del(id);
        self.sockets.remove(id).is_some()
    }

    /// Forgets a closed connection; nothing happens if it is gone already.
    fn end_lingering(&mut self, id: SocketId) {
        if self.forget(id) {
            self.counters.lingering -= 1;
            self.announce_backlogs();
        }
    }

    /// Has the driver report again what the owner was just told would block.
    fn arm_spent(&mut self, id: SocketId) {
        if let Some(Entry::Connection(connection)) = self.sockets.get_mut(id) {
            let spent = connection.take_spent();
            if !spent.is_empty() {
                self.selector.arm(id, spent);
            }
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

    fn on_event(&mut self, event: Fired, ready: &mut Vec<Ready>) {
        let socket = event.id;
        let news = match self.sockets.get_mut(socket) {
            Some(Entry::Connection(connection)) if connection.is_lingering() => {
                if connection.discard() {
                    self.end_lingering(socket);
                } else {
                    self.selector.arm(socket, Readiness::READABLE);
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
        self.selector.driver().name()
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
        self.counters.waits += 1;
        let mut fired = std::mem::take(&mut self.fired);
        self.selector.wait(now, deadline, &mut fired)?;
        self.counters.events += fired.len() as u64;
        for event in fired.drain(..) {
            self.on_event(event, ready);
        }
        self.fired = fired;
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.selector.waker()
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
        let listener = Listener::open(&self.net, &self.groups, addr, options)?;
        let id = self.sockets.next_id();
        self.selector.add(&listener.fd, id, Readiness::READABLE)?;
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
        let accepted = listener.accept(&self.net);
        self.starved |= accepted.is_err();
        // After an error nothing is armed: what waits would wake us for nothing, time and again.
        let Some((fd, peer)) = accepted? else {
            self.selector.arm(socket.0, Readiness::READABLE);
            return Ok(None);
        };
        let adopted = self.adopt(Connection::accepted(fd, peer));
        self.starved |= adopted.is_err();
        let id = adopted?;
        self.counters.accepted += 1;
        Ok(Some((ConnectedSocket(id), peer)))
    }

    fn close_listener(&mut self, _now: Instant, socket: ServerSocket) {
        self.listeners.retain(|&id| id != socket.0);
        self.forget(socket.0);
        self.announced.retain(|ready| ready.socket != socket.0);
    }

    fn connect(
        &mut self,
        _now: Instant,
        peer: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<ConnectedSocket, SocketError> {
        self.make_room()?;
        let connection = match self.net.connect(peer, options)? {
            Dial::UnderWay(fd) => Connection::opening(fd, peer),
            Dial::Refused(fd) => Connection::refused(fd, peer),
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
        let outcome = connection.is_connected(counters);
        self.arm_spent(socket.0);
        outcome
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
        let received = connection.recv(buffer, counters);
        self.arm_spent(socket.0);
        received
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
        let sent = connection.send(gather, more, counters);
        if connection.is_held() && !was_held {
            self.held.push(socket.0);
        }
        self.arm_spent(socket.0);
        sent
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
            self.lingering.push_back((now + self.linger, id));
            // Only the peer's end is waited for; if that fails the time limit ends it.
            let _ = self.selector.modify(id, Readiness::READABLE);
            return;
        }
        if abort {
            connection.abort();
        }
        self.forget(id);
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
