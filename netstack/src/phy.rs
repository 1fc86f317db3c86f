//! Between sockets and the wire: smoltcp's interface, the front, and the device's send queue.
//!
//! ```text
//!   segment --ingress--> Interface + one socket --reply--.
//!                                                        v
//!   touched ---egress--> Interface + one socket ------> frame -> Front -> queue -> tx_burst
//! ```
//!
//! One `Interface` serves all connections of a worker: it has no address, route or neighbour of
//! its own and takes any (all that is the front's), so all it does is to parse and to write
//! headers. As its device it gets a [`Loan`], which has at most one packet to receive and writes
//! what is sent straight into the device's frames.
//!
//! This file is the path of a packet. Beside it, `loan` is what smoltcp receives from and sends to,
//! `port` what lies behind that, and `handmade` has the segments that no socket writes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{HardwareAddress, TCP_HEADER_LEN};

use crate::clock::{Clock, Moment};
use crate::device::PacketDevice;
use crate::flow::FlowKey;
use crate::front::{Front, Inbound};
use crate::guard::seed_for;
use crate::recovery::Recovery;
use crate::time_wait::LastAck;
use crate::wheel::NEVER;
use loan::Loan;
use port::{Port, Queue, WireCounts};

mod handmade;
mod loan;
mod port;

/// Most packets one connection sends in a row; then others have their turn.
const EGRESS_MAX: usize = 64;

/// What is left to do for a connection after its egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Egress {
    /// Nothing before this tick.
    Until(u64),
    /// It had its share and has more.
    More,
    /// The device takes nothing now.
    Blocked,
}

/// Everything from a socket to the wire, for all sockets of a worker.
pub(crate) struct Wire<D: PacketDevice> {
    iface: Interface,
    /// A set without sockets: smoltcp answers what it gets with a reset.
    nobody: SocketSet<'static>,
    pub(crate) clock: Clock,
    port: Port<D>,
}

impl<D: PacketDevice> Wire<D> {
    /// A wire over `device`.
    pub(crate) fn new(device: D, front: Front<D::Frame>, speed: u32) -> Self {
        let mut port = Port::new(device, front);
        let iface = interface(&mut port, 0);
        Self { iface, nobody: SocketSet::new(Vec::new()), clock: Clock::new(speed), port }
    }

    /// The device.
    pub(crate) fn device(&self) -> &D {
        &self.port.device
    }

    /// The device.
    pub(crate) fn device_mut(&mut self) -> &mut D {
        &mut self.port.device
    }

    /// The front, for questions.
    pub(crate) fn front(&self) -> &Front<D::Frame> {
        &self.port.front
    }

    /// The front, and where it sends to.
    pub(crate) fn front_and_output(
        &mut self,
        now: Instant,
    ) -> (&mut Front<D::Frame>, Queue<'_, D>) {
        self.port.split(now)
    }

    /// What was counted.
    pub(crate) fn counts(&self) -> WireCounts {
        self.port.counts
    }

    /// Segments sent again.
    pub(crate) fn segments_resent(&self) -> u64 {
        self.port.counts.segments_resent
    }

    /// Frames the device has not taken yet.
    pub(crate) fn queue_len(&self) -> usize {
        self.port.queue.len()
    }

    /// Looks at a received frame.
    pub(crate) fn receive(&mut self, at: Moment, frame: D::Frame) -> Inbound<D::Frame> {
        let (front, mut queue) = self.port.split(at.wall);
        front.receive(at.wall, frame, &mut queue)
    }

    /// The next frame we sent to ourselves.
    pub(crate) fn receive_own(&mut self) -> Option<Inbound<D::Frame>> {
        let frame = self.port.own.pop_front()?;
        Some(self.port.front.receive_own(frame))
    }

    /// How many frames to ourselves wait.
    pub(crate) fn own_len(&self) -> usize {
        self.port.own.len()
    }

    /// Gives a packet to the one socket of `sockets`, and sends what it answers at once.
    pub(crate) fn ingress(
        &mut self,
        at: Moment,
        sockets: &mut SocketSet<'static>,
        last: &mut Option<LastAck>,
        packet: &[u8],
    ) {
        let mut loan =
            Loan { rx: Some(packet), last: *last, ..Loan::new(&mut self.port, Some(at)) };
        let step = || self.iface.poll_ingress_single(at.tcp, &mut loan, sockets);
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(_) => *last = loan.last,
            Err(_) => {
                self.contain(sockets);
                self.refuse(at, packet);
            }
        }
    }

    /// Answers a segment nobody wants with a reset, if that is the answer (RFC 9293 3.10.7.1).
    pub(crate) fn refuse(&mut self, at: Moment, packet: &[u8]) {
        let mut loan = Loan { rx: Some(packet), ..Loan::new(&mut self.port, Some(at)) };
        self.iface.poll_ingress_single(at.tcp, &mut loan, &mut self.nobody);
    }

    /// Sends what the one socket of `sockets` has to send, up to a fair share.
    pub(crate) fn egress(
        &mut self,
        at: Moment,
        sockets: &mut SocketSet<'static>,
        last: &mut Option<LastAck>,
        recovery: &mut Recovery,
    ) -> Egress {
        self.write(at, sockets, last, recovery, false)
    }

    /// As [`Self::egress`]; if it `is_mute` nothing is sent, and all is noted as if it were.
    fn write(
        &mut self,
        at: Moment,
        sockets: &mut SocketSet<'static>,
        last: &mut Option<LastAck>,
        recovery: &mut Recovery,
        is_mute: bool,
    ) -> Egress {
        let recovery = Some(recovery);
        let mut loan =
            Loan { recovery, is_mute, last: *last, ..Loan::new(&mut self.port, Some(at)) };
        let step = || {
            for _ in 0..EGRESS_MAX {
                let sent = self.iface.poll_egress(at.tcp, &mut loan, sockets);
                if loan.blocked {
                    return Egress::Blocked;
                }
                let next = self.iface.poll_at(at.tcp, sockets);
                let is_due = next.is_some_and(|next| next <= at.tcp);
                if sent == PollResult::None || !is_due {
                    return Egress::Until(next.map_or(NEVER, |next| self.clock.tick_of(next, at)));
                }
            }
            Egress::More
        };
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(outcome) => {
                *last = loan.last;
                outcome
            }
            Err(_) => {
                self.contain(sockets);
                Egress::More
            }
        }
    }

    /// smoltcp has panicked over the one socket of `sockets`, which is now a closed one. That ends
    /// its connection as if it had been reset, and no other: the interface has no state, and what
    /// it was lent (the device's queue, the front) is changed by single steps.
    #[cold]
    fn contain(&mut self, sockets: &mut SocketSet<'static>) {
        if self.port.counts.panics == 0 {
            let device = &self.port.device.info().name;
            tracing::error!(device, "a connection was ended because its TCP panicked");
        }
        self.port.counts.panics += 1;
        self.iface = interface(&mut self.port, 0);
        let buffer = || SocketBuffer::new(Vec::new());
        *sockets = SocketSet::new(Vec::with_capacity(1));
        sockets.add(Socket::new(buffer(), buffer()));
    }

    /// The connection that begins next has this initial sequence number.
    pub(crate) fn set_next_isn(&mut self, isn: u32) {
        self.iface = interface(&mut self.port, seed_for(isn));
    }

    /// Begins a connection: the socket, which is alone in its set, is told to connect.
    pub(crate) fn connect(&mut self, sockets: &mut SocketSet<'static>, key: &FlowKey) -> bool {
        let socket = sockets.get_mut::<Socket<'_>>(Default::default());
        socket.connect(self.iface.context(), key.remote(), key.local()).is_ok()
    }

    /// The largest segment our MTU allows on a flow.
    pub(crate) fn mss(&self, key: &FlowKey) -> u16 {
        let headers = handmade::ip_len(&key.remote().ip().into()) + TCP_HEADER_LEN;
        (self.port.caps.max_transmission_unit - headers).try_into().unwrap_or(u16::MAX)
    }

    /// Whether frames wait for the device.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.port.queue.is_empty()
    }

    /// Gives the device what waits for it, as far as it takes it.
    pub(crate) fn flush(&mut self, now: Instant) {
        self.port.split(now).1.flush();
    }

    /// What the worker found out about the link.
    pub(crate) fn set_link(&mut self, is_up: bool) {
        self.port.is_cut = !is_up;
    }
}

impl<D: PacketDevice> fmt::Debug for Wire<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("device", self.port.device.info())
            .field("queue", &self.port.queue.len())
            .finish_non_exhaustive()
    }
}

/// An interface that draws its random numbers from `seed`.
fn interface<D: PacketDevice>(port: &mut Port<D>, seed: u64) -> Interface {
    let mut config = Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let mut iface = Interface::new(config, &mut Loan::new(port, None), TcpInstant::ZERO);
    iface.set_any_ip(true);
    iface
}
