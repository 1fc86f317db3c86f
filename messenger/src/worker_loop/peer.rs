//! One session on its worker: bytes between socket and session, events to the application.

use super::batch::Batch;
use super::command::{Ask, Command, Newcomer};
use super::processor::Accepted;
use super::{
    Dial, Fate, READ_BYTES_PER_TURN, READ_MESSAGES_PER_TURN, SEND_BYTES_PER_TURN, Target, Tools,
};
use crate::accounts::Accounts;
use crate::connection::{Connection, Flag};
use crate::dispatch_queue::News;
use crate::endpoint::{Delivered, Endpoint, Refused};
use crate::event_center::TimerId;
use crate::injection::Injector;
use crate::registry::RegistryClosed;
use messenger_proto::{
    EntityAddrVec, GATHER_MAX, Message, PeerFacts, PeerIdent, ProtocolError, Session, SessionEvent,
    TransportNews, Verdict,
};
use netstack::stack::{ConnectOptions, ConnectedSocket, Readiness, Received, SocketError, Worker};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// A session and what its worker keeps with it.
#[derive(Debug)]
pub(crate) struct Peer {
    key: usize,
    session: Session,
    connection: Connection,
    endpoint: Arc<Endpoint>,
    transport: Option<Transport>,
    timer: Option<TimerId>,
    /// Its output is to be seen to at the end of this turn.
    touched: bool,
    /// It takes one of the places for sessions that were accepted and are not ready.
    accepting: bool,
    /// The application let its peer in.
    admitted: bool,
    /// An older session of its peer decides about it.
    judged: bool,
    accounts: Accounts,
    injector: Injector,
    /// Bytes read in a turn at the most: about as many as [`READ_MESSAGES_PER_TURN`] had lately.
    read_share: usize,
}

/// What a newcomer leaves to the session that adopts it.
#[derive(Debug)]
pub(super) struct Donation {
    session: Session,
    socket: ConnectedSocket,
}

/// The TCP connection under a session.
#[derive(Debug)]
struct Transport {
    socket: ConnectedSocket,
    open: bool,
    /// The socket took less than it was offered; a writable event will follow.
    blocked: bool,
}

impl Peer {
    /// A session that dials; it asks for its TCP connection with its first event.
    pub(crate) fn dial<W: Worker>(
        now: Instant,
        key: usize,
        dial: Dial,
        tools: &mut Tools<W>,
    ) -> Self {
        let Dial { connection, endpoint, peer_type, target } = dial;
        let seed = tools.seeds.draw();
        let session = Session::dial(now, endpoint.identity(), peer_type, target, seed);
        let mut peer = Self::new(key, session, connection, endpoint, tools);
        // The control lane is faster: what was asked since the handle was made found no session.
        if peer.connection.has(Flag::Disposable) {
            peer.session.mark_disposable();
        }
        if peer.connection.has(Flag::KeepaliveAsked) {
            peer.send_keepalive(now);
        }
        if peer.connection.has(Flag::Down) {
            peer.session.mark_down();
        } else if peer.connection.has(Flag::Closing) {
            peer.session.close();
        }
        peer
    }

    /// A session for a connection that a listener accepted; `None`, and the socket is reset, if
    /// the messenger takes no more.
    pub(crate) fn accept<W: Worker>(
        now: Instant,
        key: usize,
        accepted: Accepted,
        tools: &mut Tools<W>,
    ) -> Option<Self> {
        let Accepted { socket, from, endpoint } = accepted;
        let local = tools.worker.local_addr(&socket);
        if let Err(why) = endpoint.begin_accepting() {
            return refuse(now, socket, from, why, tools);
        }
        let Ok(local) = local else {
            endpoint.end_accepting();
            return refuse(now, socket, from, Refused::Connections, tools);
        };
        let seed = tools.seeds.draw();
        let session = Session::accept(now, endpoint.identity(), from, local, seed);
        let facts = session.peer().clone();
        let gate = Arc::clone(&tools.gate);
        let connection = Connection::new(&endpoint, gate, facts, false);
        if endpoint.registry.insert(connection.clone()).is_err() {
            endpoint.end_accepting();
            return refuse(now, socket, from, Refused::Connections, tools);
        }
        tools.gate.add_reference();
        let mut peer = Self::new(key, session, connection, endpoint, tools);
        peer.accepting = true;
        peer.touched = true;
        peer.injector.pause(now);
        peer.attach(socket, true, tools);
        // What came with the last packet of the handshake may be known to the stack only.
        peer.read_again(tools);
        Some(peer)
    }

    fn new<W: Worker>(
        key: usize,
        mut session: Session,
        connection: Connection,
        endpoint: Arc<Endpoint>,
        tools: &mut Tools<W>,
    ) -> Self {
        connection.set_slot(Some(key));
        let to_unblock = connection.clone();
        session.set_unblock(Arc::new(move || to_unblock.unblock()));
        endpoint.furnish(&mut session, &connection);
        let injector = endpoint.options.injection.injector(connection.id());
        tools.counters.created_connections += 1;
        Self {
            key,
            session,
            connection,
            endpoint,
            transport: None,
            timer: None,
            touched: false,
            accepting: false,
            admitted: false,
            judged: false,
            accounts: Accounts::default(),
            injector,
            read_share: READ_BYTES_PER_TURN,
        }
    }

    /// For whoever decides by its state.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Does what a handle or another worker asked for.
    pub(super) fn on_ask<W: Worker>(&mut self, now: Instant, ask: Ask, tools: &mut Tools<W>) {
        match ask {
            Ask::Keepalive => self.send_keepalive(now),
            Ask::MarkDown => self.session.mark_down(),
            Ask::Close => self.session.close(),
            Ask::MarkDisposable => self.session.mark_disposable(),
            Ask::Unblock => self.on_unblocked(now, tools),
            Ask::Resolve(verdict) => {
                self.judged = false;
                let outcome = self.session.resolve(now, verdict);
                self.log_fault(outcome);
                self.read_again(tools);
            }
            Ask::Introduce(ident) => {
                self.introduce(now, ident);
                self.read_again(tools);
            }
            Ask::Resume(action) => {
                self.session.resume(now, action);
                if self.session.is_ready() {
                    self.connection.raise(Flag::Ready); // it was not while it was held
                }
                self.read_again(tools);
            }
            Ask::Judge(_) | Ask::Send(_) => unreachable!("the loop sees to it"),
        }
    }

    /// Remembers that its output has to be seen to; whether that is new.
    pub(crate) fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.touched, true)
    }

    /// Queues a message in the session.
    pub(super) fn send<W>(&mut self, now: Instant, message: Message, tools: &mut Tools<W>) {
        let len = message.payload_len();
        match self.session.send(now, message) {
            Ok(()) => {
                self.accounts.enter(len);
            }
            // It ended after the sender had looked: as if the message had been lost on the way.
            Err(error) => {
                tracing::debug!(connection = %self.connection, %error, "message dropped");
                tools.counters.send_dropped += 1;
                self.connection.release(1, len);
            }
        }
    }

    /// Asks the peer for a sign of life; the handle may be asked for the next.
    pub(crate) fn send_keepalive(&mut self, now: Instant) {
        self.connection.lower(Flag::KeepaliveAsked);
        self.session.send_keepalive(now);
    }

    /// Its socket became ready.
    pub(crate) fn on_ready<W: Worker>(
        &mut self,
        now: Instant,
        readiness: Readiness,
        tools: &mut Tools<W>,
    ) {
        if readiness.is_writable()
            && let Some(transport) = &mut self.transport
        {
            transport.blocked = false;
        }
        if self.injector.is_paused(now) {
            return; // its timer has it look again
        }
        if self.is_open(now, tools) && readiness.is_readable() {
            self.receive(now, tools);
        }
    }

    /// Its timer fired, maybe early: a deadline that moves on does not move the timer.
    pub(crate) fn on_timer<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        self.timer = None;
        if self.injector.ends_pause(now) {
            self.look_again(tools);
        }
        if self.session.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.session.handle_timeout(now);
            self.deliver(now, tools);
        }
    }

    /// A throttle granted what it waited for.
    fn on_unblocked<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        self.connection.lower(Flag::UnblockAsked);
        let outcome = self.session.handle_unblocked(now);
        self.log_fault(outcome);
        self.deliver(now, tools);
        // Nobody read while it waited, so no readable event is due.
        self.read_again(tools);
    }

    /// The end of its turn: events, output, timer, accounts.
    pub(crate) fn finish<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) -> Fate {
        self.touched = false;
        self.deliver_late(Some(now), tools);
        self.deliver(now, tools);
        self.transmit(now, tools);
        self.deliver(now, tools);
        self.settle(tools);
        if self.session.is_closed() {
            return Fate::Ended;
        }
        self.arm(tools);
        Fate::Lives
    }

    /// Gives everything back that it held.
    pub(crate) fn leave<W: Worker>(mut self, now: Instant, tools: &mut Tools<W>) {
        self.hang_up(now, false, tools);
        self.settle(tools);
        self.accounts.close(&self.connection);
        if let Some(timer) = self.timer.take() {
            tools.center.cancel_timer(timer);
        }
        self.depart(tools);
    }

    /// Is no connection of its endpoint any more.
    fn depart<W>(&mut self, tools: &Tools<W>) {
        self.end_accepting();
        self.connection.set_slot(None);
        self.connection.raise(Flag::Closed);
        tools.gate.drop_reference();
        self.endpoint.registry.forget(&self.connection);
        if !self.connection.is_home(&tools.gate) {
            let gone = Command::Whereabouts(self.connection.clone(), None);
            self.connection.home().post(gone);
        }
    }

    /// Hands out everything the session has to say.
    pub(crate) fn deliver<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        let mut batch = None;
        while let Some(event) = self.session.poll_event() {
            match event {
                SessionEvent::Message(message) => {
                    batch.get_or_insert_with(|| Batch::begin(tools));
                    self.on_message(now, message, tools);
                }
                SessionEvent::Dial { to } => self.connect(now, to, tools),
                SessionEvent::Hangup => {
                    self.hang_up(now, false, tools);
                    self.deliver_late(None, tools);
                }
                SessionEvent::TurnedAway(refusal) => {
                    Endpoint::log_refusal(&self.connection, &refusal);
                }
                SessionEvent::Ident(ident) => self.introduce(now, ident),
                SessionEvent::Ready { accepted, .. } => self.on_session_ready(accepted),
                SessionEvent::LearnedAddr(seen) => self.endpoint.learn(seen),
                SessionEvent::Refused => self.endpoint.tell(&self.connection, News::Refused),
                SessionEvent::RemoteReset => {
                    self.injector.discard();
                    self.endpoint.queue.discard(&self.connection);
                    self.endpoint.tell(&self.connection, News::RemoteReset);
                }
                SessionEvent::Reset(reason) => {
                    tracing::debug!(connection = %self.connection, %reason, "session ended");
                    self.injector.discard();
                    self.endpoint.end(&self.connection);
                }
                // Parked; `is_ready` below says so.
                SessionEvent::Standby => {}
                other => tracing::warn!(event = ?other, "unknown session event"),
            }
        }
        if let Some(batch) = batch {
            batch.end(tools);
        }
        if !self.session.is_ready() {
            self.connection.lower(Flag::Ready);
        }
    }

    /// A message arrived; injected delays may keep it from the application for a while.
    fn on_message<W>(&mut self, now: Instant, message: Message, tools: &mut Tools<W>) {
        let kind = self.session.peer().kind;
        if self.endpoint.options.injection.swallows(|| kind) {
            return;
        }
        if !self.injector.is_active() {
            self.deliver_message(message, tools);
        } else if let Some(message) = self.injector.hold_back(now, kind, message) {
            self.deliver_message(message, tools);
        }
    }

    /// Delivers what was held back until `now`, or all of it.
    fn deliver_late<W>(&mut self, now: Option<Instant>, tools: &mut Tools<W>) {
        while let Some(message) = self.injector.take_late(now) {
            self.deliver_message(message, tools);
        }
    }

    fn deliver_message<W>(&mut self, message: Message, tools: &mut Tools<W>) {
        if self.connection.is_down() {
            return;
        }
        match self.endpoint.deliver(&self.connection, message) {
            Delivered::Fast => tools.counters.fast_dispatched += 1,
            Delivered::Queued => tools.counters.queued += 1,
        }
    }

    fn on_session_ready(&mut self, accepted: bool) {
        self.end_accepting();
        self.connection.set_facts(self.session.peer());
        if !self.connection.is_down() {
            self.connection.raise(Flag::Ready);
            self.endpoint.tell_ready(&self.connection, accepted);
        }
    }

    /// The peer introduced itself: it is accepted, or the session that has its addresses decides.
    fn introduce(&mut self, now: Instant, ident: Box<PeerIdent>) {
        self.judged = false;
        self.connection.set_facts(self.session.peer());
        if !std::mem::replace(&mut self.admitted, true)
            && !self.endpoint.dispatchers.admit(&self.connection)
        {
            let outcome = self.session.resolve(now, Verdict::Refuse);
            return self.log_fault(outcome);
        }
        let policy = self.session.policy();
        let unregistered = policy.lossy && policy.server && !policy.register_lossy_clients;
        let verdict = match unregistered {
            // Without a session here this refuses a reconnect, as it should.
            true => Verdict::Accept,
            false => match self.endpoint.registry.claim(&self.connection, &ident) {
                Ok(None) => Verdict::Accept,
                Ok(Some(existing)) => {
                    self.judged = true;
                    let connection = self.connection.clone();
                    return existing.tell_home(Ask::Judge(Newcomer { connection, ident }));
                }
                Err(RegistryClosed) => Verdict::Refuse,
            },
        };
        let outcome = self.session.resolve(now, verdict);
        // Others find it by its addresses from now, though over msgr1 it is not ready yet.
        self.connection.set_facts(self.session.peer());
        self.log_fault(outcome);
    }

    /// Leaves this worker without its transport, with everything else.
    pub(super) fn move_out<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        self.settle(tools);
        self.hang_up(now, false, tools);
        if let Some(timer) = self.timer.take() {
            tools.center.cancel_timer(timer);
        }
        self.connection.set_slot(None);
        self.connection.lower(Flag::Ready);
        self.touched = false;
        tools.gate.drop_reference();
    }

    /// Arrives at a worker.
    pub(super) fn settle_in<W>(&mut self, key: usize, tools: &Tools<W>) {
        self.key = key;
        self.connection.set_slot(Some(key));
        tools.gate.add_reference();
    }

    /// Whether it has a transport for an older session of its peer.
    pub(super) fn can_donate(&self) -> bool {
        self.judged && self.transport.is_some() && !self.session.is_closed()
    }

    /// Ends as a connection of its own; its session and transport go to an older one. Nobody was
    /// told of it, so nobody is told of its end.
    pub(super) fn donate<W: Worker>(mut self, tools: &mut Tools<W>) -> Option<Donation> {
        self.settle(tools);
        if let Some(timer) = self.timer.take() {
            tools.center.cancel_timer(timer);
        }
        self.depart(tools);
        let (session, socket) = (self.session, self.transport?.socket);
        Some(Donation { session, socket })
    }

    /// Takes over another session's transport; its own is given up first.
    pub(super) fn adopt<W: Worker>(
        &mut self,
        now: Instant,
        donation: Donation,
        tools: &mut Tools<W>,
    ) {
        self.hang_up(now, false, tools);
        let Donation { session, socket } = donation;
        self.accounts.take_over(&session.stats());
        let outcome = self.session.adopt(now, session);
        self.log_fault(outcome);
        self.injector.pause(now);
        self.attach(socket, true, tools);
        self.read_again(tools);
    }

    /// The transport it was to take over is gone, and so is its own.
    pub(super) fn lose_transport<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        self.hang_up(now, false, tools);
        self.session.handle_transport(now, TransportNews::Closed);
    }

    fn connect<W: Worker>(&mut self, now: Instant, to: SocketAddr, tools: &mut Tools<W>) {
        self.hang_up(now, false, tools);
        self.injector.pause(now);
        let ours = &self.endpoint.options;
        let options = ConnectOptions { bind: ours.connect_from, priority: ours.socket_priority };
        match tools.worker.connect(now, to, &options) {
            Ok(socket) => self.attach(socket, false, tools),
            Err(error) => self.on_trouble(now, &error, tools),
        }
    }

    fn attach<W: Worker>(&mut self, socket: ConnectedSocket, open: bool, tools: &mut Tools<W>) {
        let target = Target::Peer(self.key);
        tools.center.watch(socket.id(), Readiness::ALL, target);
        self.transport = Some(Transport { socket, open, blocked: false });
    }

    /// Whether the TCP connection is open; tells the session when it has just opened or failed.
    fn is_open<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) -> bool {
        let Some(transport) = &mut self.transport else {
            return false;
        };
        if transport.open {
            return true;
        }
        let opened = match tools.worker.is_connected(&transport.socket) {
            Ok(false) => return false,
            Ok(true) => tools.worker.local_addr(&transport.socket),
            Err(error) => Err(error),
        };
        match opened {
            Ok(local) => {
                transport.open = true;
                let news = TransportNews::Opened { local };
                self.session.handle_transport(now, news);
                self.deliver(now, tools);
                true
            }
            Err(error) => {
                self.on_trouble(now, &error, tools);
                self.deliver(now, tools);
                false
            }
        }
    }

    /// Reads until the socket would block, the session wants no more, or its share is used up.
    fn receive<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        let (mut left, before) = (self.read_share, self.session.stats().messages_received);
        while left > 0 && self.receive_once(now, &mut left, tools) {
            self.deliver(now, tools);
        }
        if left == 0 {
            self.read_again(tools);
        }
        let bytes = self.read_share - left;
        if bytes > 0 {
            let messages = self.session.stats().messages_received.saturating_sub(before);
            // If nothing whole came, what does is long.
            let each = bytes.checked_div(messages as usize);
            let share = each.map_or(READ_BYTES_PER_TURN, |each| each * READ_MESSAGES_PER_TURN);
            self.read_share = share.clamp(1, READ_BYTES_PER_TURN);
        }
    }

    /// Reads once; whether there is something to deliver, and maybe more to read.
    fn receive_once<W: Worker>(
        &mut self,
        now: Instant,
        left: &mut usize,
        tools: &mut Tools<W>,
    ) -> bool {
        if self.transport.is_some() && self.injector.breaks_socket() {
            self.on_trouble(now, &SocketError::Reset, tools);
            return true;
        }
        let Some(transport) = &self.transport else {
            return false;
        };
        let space = self.session.rx_space();
        if space.is_empty() {
            return false;
        }
        let room = space.len().min(*left);
        match tools.worker.recv(now, &transport.socket, &mut space[..room]) {
            Ok(Received::Bytes(len)) => {
                *left -= len;
                let outcome = self.session.handle_received(now, len);
                self.log_fault(outcome);
            }
            Ok(Received::WouldBlock) => return false,
            Ok(Received::EndOfStream) => {
                self.hang_up(now, false, tools);
                self.session.handle_transport(now, TransportNews::Closed);
            }
            Err(error) => self.on_trouble(now, &error, tools),
        }
        true
    }

    /// As if its socket had become ready for everything.
    fn look_again<W>(&self, tools: &mut Tools<W>) {
        if let Some(transport) = &self.transport {
            tools.center.again(transport.socket.id(), Readiness::ALL);
        }
    }

    fn read_again<W>(&self, tools: &mut Tools<W>) {
        if let Some(transport) = &self.transport {
            tools.center.again(transport.socket.id(), Readiness::READABLE);
        }
    }

    /// Writes until the socket takes no more, there is nothing left, or its share is used up.
    fn transmit<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        if self.injector.is_paused(now) {
            return;
        }
        let mut taken = 0;
        let trouble = loop {
            if self.injector.is_active() && self.session.poll_transmit(now).is_some() {
                if self.injector.breaks_socket() {
                    break SocketError::Reset;
                }
                if self.injector.congests() {
                    return self.look_again(tools);
                }
            }
            let Some(transport) = self.transport.as_mut().filter(|t| t.open && !t.blocked) else {
                return;
            };
            let Some(gather) = self.session.poll_transmit(now) else {
                return;
            };
            let (offered, sent) = {
                let slices = gather.slices();
                let more = slices.len() == GATHER_MAX;
                (gather.len(), tools.worker.send(now, &transport.socket, &slices, more))
            };
            let sent = match sent {
                Ok(sent) => sent,
                Err(error) => break error,
            };
            self.session.transmitted(sent);
            if sent < offered {
                transport.blocked = true;
                return;
            }
            taken += sent;
            if taken >= SEND_BYTES_PER_TURN {
                tools.center.again(transport.socket.id(), Readiness::WRITABLE);
                return;
            }
        };
        self.on_trouble(now, &trouble, tools);
    }

    fn on_trouble<W: Worker>(&mut self, now: Instant, error: &SocketError, tools: &mut Tools<W>) {
        tracing::debug!(connection = %self.connection, %error, "transport failed");
        if !self.session.is_ready() {
            tools.counters.dial_failures += 1;
        }
        self.hang_up(now, true, tools);
        let news = match error {
            SocketError::Refused => TransportNews::Refused,
            _ => TransportNews::Reset,
        };
        self.session.handle_transport(now, news);
    }

    pub(super) fn has_transport(&self) -> bool {
        self.transport.is_some()
    }

    /// As if its TCP connection had been reset.
    pub(super) fn break_transport<W: Worker>(&mut self, now: Instant, tools: &mut Tools<W>) {
        self.on_trouble(now, &SocketError::Reset, tools);
    }

    fn hang_up<W: Worker>(&mut self, now: Instant, abort: bool, tools: &mut Tools<W>) {
        if let Some(Transport { socket, .. }) = self.transport.take() {
            tools.center.unwatch(socket.id());
            tools.worker.close(now, socket, abort);
        }
    }

    /// Keeps one timer at or before the session's deadline (contract K-6).
    fn arm<W>(&mut self, tools: &mut Tools<W>) {
        let injected = self.injector.poll_timeout();
        let Some(deadline) = self.session.poll_timeout().into_iter().chain(injected).min() else {
            return;
        };
        if self.timer.is_some_and(|timer| timer.deadline() <= deadline) {
            return;
        }
        if let Some(late) = self.timer.take() {
            tools.center.cancel_timer(late);
        }
        let target = Target::Peer(self.key);
        self.timer = Some(tools.center.add_timer(deadline, target));
    }

    /// Brings the handle and the counters up to date.
    fn settle<W>(&mut self, tools: &mut Tools<W>) {
        let die_on = self.endpoint.options.die_on;
        self.accounts.settle(&self.session, &self.connection, die_on, &mut tools.counters);
    }

    fn end_accepting(&mut self) {
        if std::mem::take(&mut self.accepting) {
            self.endpoint.end_accepting();
        }
    }

    fn log_fault(&self, outcome: Result<(), ProtocolError>) {
        if let Err(error) = outcome {
            self.endpoint.options.die_on.judge_fault(&self.connection, &error);
            tracing::debug!(connection = %self.connection, %error, "peer broke the protocol");
        }
    }
}

fn refuse<W: Worker>(
    now: Instant,
    socket: ConnectedSocket,
    from: SocketAddr,
    why: Refused,
    tools: &mut Tools<W>,
) -> Option<Peer> {
    tracing::debug!(%from, ?why, "connection refused: no more are taken");
    why.count(&mut tools.counters);
    tools.worker.close(now, socket, true);
    None
}

/// What is known of a peer that is about to be dialled.
pub(crate) fn facts_to_dial(
    kind: messenger_proto::EntityType,
    addrs: EntityAddrVec,
    socket: Option<SocketAddr>,
) -> PeerFacts {
    PeerFacts {
        kind: Some(kind),
        name: None,
        addrs,
        socket,
        features: 0,
        global_id: 0,
        auth: None,
        last_keepalive: None,
        last_keepalive_ack: None,
    }
}
