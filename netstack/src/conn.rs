//! One TCP connection: its place in the worker's table, its socket and how far it has come.
//!
//! ```text
//!   connect() -> Opening --SYN|ACK--> Open --close()--> Orphan --all acked--> gone
//!                                      ^                                (or a TIME-WAIT record)
//!   SYN -> HalfOpen --ACK--> Waiting --accept()
//! ```
//!
//! smoltcp's own state says where TCP stands; [`Phase`] says whose the connection is. The first
//! cache line of a [`Conn`] has what every segment needs, and it leads to the socket, which has
//! a socket set of its own: smoltcp walks over all sockets of a set for each packet.

use std::net::SocketAddr;
use std::time::Duration;

use slab::Slab;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use crate::flow::FlowKey;
use crate::guard::Ration;
use crate::listen::LISTENERS_MAX;
use crate::recovery::{Recovery, RecoveryOptions};
use crate::stack::{Readiness, SocketError, SocketId};
use crate::time_wait::LastAck;
use crate::wheel::NEVER;

/// Largest receive buffer without window scaling.
const UNSCALED_MAX: usize = 65_535;
/// smoltcp's limit, less one for the form of the capacity.
const RX_CAPACITY_MAX: usize = (1 << 30) - 1;
/// Smaller buffers hold no segment of an ordinary MSS.
pub(crate) const BUFFER_MIN: usize = 2048;

/// The receive capacity for a wish of `bytes`: the largest one that is not above it and that
/// smoltcp can be trusted with, at least [`BUFFER_MIN`].
///
/// From 64 KiB on that is 2^k - 1. The window in our SYN is not scaled, but smoltcp reads it back
/// as if it were until the first ordinary ACK is out, so it believes to have offered up to
/// `65535 << shift` bytes. With another capacity that is more than the buffer holds, and a peer
/// that sends that much at once runs into an assertion.
pub(crate) fn rx_capacity(bytes: usize) -> usize {
    let bytes = bytes.clamp(BUFFER_MIN, RX_CAPACITY_MAX);
    if bytes <= UNSCALED_MAX { bytes } else { (1 << (bytes + 1).ilog2()) - 1 }
}

/// What the sockets of a worker are made with. Durations are in the time shown to smoltcp.
#[derive(Clone, Debug)]
pub(crate) struct SocketOptions {
    /// As [`rx_capacity`] makes them.
    pub(crate) rx_bytes: usize,
    pub(crate) tx_bytes: usize,
    pub(crate) keepalive: Option<Duration>,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) recovery: RecoveryOptions,
}

impl SocketOptions {
    /// A closed socket. It is new for every connection: one that is used again keeps its
    /// congestion state and duplicate ACK counts.
    pub(crate) fn socket(&self) -> Socket<'static> {
        let rx = SocketBuffer::new(vec![0; self.rx_bytes]);
        let tx = SocketBuffer::new(vec![0; self.tx_bytes]);
        let mut socket = Socket::new(rx, tx);
        // One ACK per turn comes from sending per turn, and the caller gathers small writes.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(self.keepalive.map(Into::into));
        socket.set_timeout(self.user_timeout.map(Into::into));
        socket
    }
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The application's, which waits for it to open.
    Opening,
    /// Its listener's; the handshake is under way.
    HalfOpen,
    /// Its listener's; it waits for `accept`.
    Waiting,
    /// The application's.
    Open,
    /// Nobody's: the application has closed it, the rest is for us to deliver.
    Orphan,
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Refused,
    Reset,
    TimedOut,
    Unreachable,
}

impl Fault {
    /// As the application sees it.
    pub(crate) fn to_error(self, peer: SocketAddr) -> SocketError {
        match self {
            Self::Refused => SocketError::Refused,
            Self::Reset => SocketError::Reset,
            Self::TimedOut => SocketError::TimedOut,
            Self::Unreachable => SocketError::Unreachable(peer),
        }
    }
}

/// A connection.
///
/// Two neighbouring cache lines, which processors fetch together; the order is for the first.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Conn {
    pub(crate) key: FlowKey,
    pub(crate) recovery: Box<Recovery>,
    /// The tick the timer wheel will call at; it may be too early, never too late.
    pub(crate) armed: u64,
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    /// On the worker's list of connections that may have something to send.
    pub(crate) touched: bool,
    /// What the application has not been told yet.
    pub(crate) news: Readiness,
    /// The application was told to read, and has not been told since that there is no more.
    pub(crate) is_readable: bool,

    set: SocketSet<'static>,
    /// The tick the connection has to be looked at; `armed` may be earlier.
    pub(crate) due: u64,
    /// The tick this phase ends at, whatever the socket thinks.
    pub(crate) deadline: u64,
    /// What we have said. Nothing: segments are not for the socket yet, because smoltcp does not
    /// survive a SYN that arrives before our own was sent.
    pub(crate) last: Option<LastAck>,
    /// Slot of the listener, while it is the listener's.
    pub(crate) listener: u16,
    pub(crate) fault: Option<Fault>,
    /// A send could not take everything.
    pub(crate) wants_room: bool,
    /// The application closed its sending half.
    pub(crate) shut: bool,
    /// Segments of this flow no longer lead here.
    pub(crate) detached: bool,
}

const _: () = assert!(size_of::<Option<Conn>>() == 128);
const _: () = assert!(LISTENERS_MAX <= u16::MAX as usize);

impl Conn {
    /// The connection's socket.
    pub(crate) fn socket(&self) -> &Socket<'static> {
        self.set.get(SocketHandle::default())
    }

    /// The connection's socket.
    pub(crate) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(SocketHandle::default())
    }

    /// The set the socket is alone in, what it has said, and what is done about losses.
    pub(crate) fn parts(
        &mut self,
    ) -> (&mut SocketSet<'static>, &mut Option<LastAck>, &mut Recovery) {
        (&mut self.set, &mut self.last, &mut self.recovery)
    }

    /// Bytes that the application has given and that were never sent.
    pub(crate) fn unsent(&self) -> usize {
        self.socket().send_queue().saturating_sub(self.recovery.kept())
    }

    /// Throws away what was received: nobody will read it. A peer that goes on sending when
    /// everything of ours has been delivered is told so by a reset (RFC 9293 section 3.6.1).
    pub(crate) fn discard(&mut self) {
        let socket = self.socket_mut();
        let was_unread = socket.recv_queue() > 0;
        while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|len| len > 0) {}
        if was_unread && matches!(socket.state(), State::FinWait2 | State::TimeWait) {
            socket.abort();
        }
    }

    /// What the application is told of: only its own connections.
    pub(crate) fn is_applications(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Open)
    }

    /// Whether the peer has closed its sending half.
    pub(crate) fn has_peer_closed(&self) -> bool {
        is_closed_by_peer(self.socket().state())
    }

    /// Whether there is room that is worth telling a waiting sender: a quarter of the buffer.
    pub(crate) fn has_room(&self) -> bool {
        let socket = self.socket();
        (socket.send_capacity() - socket.send_queue()) * 4 >= socket.send_capacity()
    }

    /// Reads from the lines a segment will need, here and in the socket, so that they are on their way while
    /// those of other connections are fetched too. The value means nothing; what is read is what
    /// smoltcp lets us see, and that lies in nearly all of them.
    pub(crate) fn warm(&self) -> usize {
        let socket = self.socket();
        let micros = |time: Option<smoltcp::time::Duration>| {
            time.map_or(0, |time| time.total_micros() as usize)
        };
        self.key.remote_ip as usize
            ^ self.recovery.warm()
            ^ socket.send_queue()
            ^ socket.recv_queue()
            ^ socket.send_capacity()
            ^ socket.recv_capacity()
            ^ socket.state() as usize
            ^ usize::from(socket.nagle_enabled())
            ^ usize::from(socket.timestamp_enabled())
            ^ usize::from(socket.hop_limit().is_some())
            ^ micros(socket.timeout())
            ^ micros(socket.keep_alive())
            ^ micros(socket.ack_delay())
            ^ socket.congestion_control() as usize
            ^ usize::from(socket.listen_endpoint().port)
            ^ socket.remote_endpoint().map_or(0, |end| usize::from(end.port))
    }
}

/// The connections of a worker, by slot.
#[derive(Debug)]
pub(crate) struct ConnTable {
    conns: Slab<Conn>,
    conns_max: usize,
    /// How often each slot was used.
    generations: Vec<u32>,
    /// Segments each connection has sent again. Not in the [`Conn`], for it is rarely needed.
    resent: Vec<u32>,
    /// The challenges each connection has sent of late; as rarely needed.
    challenges: Vec<Ration>,
}

impl ConnTable {
    /// A table for at most `conns_max` connections. Its memory is reserved now and used as
    /// connections come.
    pub(crate) fn new(conns_max: usize) -> Self {
        Self {
            conns: Slab::with_capacity(conns_max),
            conns_max,
            generations: Vec::new(),
            resent: Vec::new(),
            challenges: Vec::new(),
        }
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there can be no more.
    pub(crate) fn is_full(&self) -> bool {
        self.conns.len() == self.conns_max
    }

    /// Adds a connection, see [`ConnTable::is_full`].
    pub(crate) fn add(
        &mut self,
        key: FlowKey,
        phase: Phase,
        socket: Socket<'static>,
        recovery: RecoveryOptions,
    ) -> u32 {
        let entry = self.conns.vacant_entry();
        let slot = entry.key();
        if slot == self.generations.len() {
            self.generations.push(0);
            self.resent.push(0);
            self.challenges.push(Ration::default());
        }
        self.resent[slot] = 0;
        self.challenges[slot] = Ration::default();
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        set.add(socket);
        entry.insert(Conn {
            key,
            recovery: Box::new(Recovery::new(recovery)),
            armed: NEVER,
            generation: self.generations[slot],
            phase,
            touched: false,
            news: Readiness::NONE,
            is_readable: false,
            set,
            due: NEVER,
            deadline: NEVER,
            last: None,
            listener: 0,
            fault: None,
            wants_room: false,
            shut: false,
            detached: false,
        });
        slot as u32
    }

    /// Takes a connection out.
    pub(crate) fn remove(&mut self, slot: u32) -> Conn {
        self.conns.remove(slot as usize)
    }

    /// The connection in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Conn> {
        self.conns.get(slot as usize)
    }

    /// The connection in a slot.
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.conns.get_mut(slot as usize)
    }

    /// The connection that a handle, or a list that is in step with the table, names.
    pub(crate) fn at(&mut self, slot: u32) -> &mut Conn {
        self.conns.get_mut(slot as usize).expect("a named connection is in the table")
    }

    /// A connection has sent so many segments again.
    pub(crate) fn add_resent(&mut self, slot: u32, segments: u64) {
        let resent = &mut self.resent[slot as usize];
        *resent = resent.saturating_add(segments.try_into().unwrap_or(u32::MAX));
    }

    /// How many segments a connection has sent again.
    pub(crate) fn resent(&self, slot: u32) -> u32 {
        self.resent[slot as usize]
    }

    /// How many challenges a connection may send.
    pub(crate) fn challenges(&mut self, slot: u32) -> &mut Ration {
        &mut self.challenges[slot as usize]
    }

    /// All slots in use and their connections.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        self.conns.iter().map(|(slot, conn)| (slot as u32, conn))
    }

    /// The name of a connection.
    pub(crate) fn id(&self, slot: u32) -> SocketId {
        SocketId { slot: slot + LISTENERS_MAX as u32, generation: self.generations[slot as usize] }
    }
}

/// Whether the peer has closed its sending half in this state.
pub(crate) fn is_closed_by_peer(state: State) -> bool {
    matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait)
}

/// The slot of a connection in the [`ConnTable`]: those below are listeners.
pub(crate) fn conn_slot(id: SocketId) -> u32 {
    id.slot - LISTENERS_MAX as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Congestion;

    #[test]
    fn receive_capacities_are_ones_that_no_peer_can_overrun() {
        assert_eq!(rx_capacity(0), BUFFER_MIN);
        assert_eq!(rx_capacity(16_384), 16_384);
        assert_eq!(rx_capacity(65_535), 65_535);
        assert_eq!(rx_capacity(65_536), 65_535);
        assert_eq!(rx_capacity(131_070), 65_535);
        assert_eq!(rx_capacity(131_071), 131_071);
        assert_eq!(rx_capacity(200_000), 131_071);
        assert_eq!(rx_capacity(1 << 20), (1 << 20) - 1);
        assert_eq!(rx_capacity(usize::MAX), (1 << 30) - 1);
    }

    #[test]
    fn a_slot_used_again_has_another_generation() {
        let options = SocketOptions {
            rx_bytes: 4096,
            tx_bytes: 4096,
            keepalive: None,
            user_timeout: None,
            recovery: RecoveryOptions {
                congestion: Congestion::None,
                rto_min: Duration::from_millis(5),
                mss: 1460,
            },
        };
        let addr = SocketAddr::from(([10, 0, 0, 1], 1));
        let mut table = ConnTable::new(1);
        let add = |table: &mut ConnTable| {
            let key = FlowKey::new(addr, addr);
            table.add(key, Phase::Open, options.socket(), options.recovery)
        };
        let slot = add(&mut table);
        let first = table.id(slot);
        assert!(table.is_full());
        table.remove(slot);
        assert_eq!(add(&mut table), slot);
        assert_ne!(table.id(slot), first);
        assert_eq!(conn_slot(first), slot);
    }
}
