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

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{
    HardwareAddress, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpAddress, IpProtocol, IpRepr, Ipv4Packet,
    Ipv6Packet, TCP_HEADER_LEN, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use crate::clock::{Clock, Moment};
use crate::conn::Conn;
use crate::device::{Burst, Frame, PacketDevice};
use crate::flow::FlowKey;
use crate::front::{Front, Inbound, Output, Sent, TcpView};
use crate::guard::{Offer, seed_for};
use crate::recovery::{Outgoing, Piece, Recovery};
use crate::time_wait::LastAck;
use crate::wheel::NEVER;

/// Most packets one connection sends in a row; then others have their turn.
const EGRESS_MAX: usize = 64;
/// Most frames to ourselves that wait; further ones are dropped, and TCP repeats them.
const OWN_MAX: usize = 256;
/// Bytes of the options of a SYN that is replayed: MSS, window scale, SACK permitted, and filling.
const SYN_OPTIONS_MAX: usize = 12;
/// Hop limit of packets that no socket sends.
const HOP_LIMIT: u8 = 64;

/// What the wire counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WireCounts {
    pub(crate) tx_frames: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_full: u64,
    pub(crate) link_down_drops: u64,
    pub(crate) no_frame_drops: u64,
    pub(crate) own_drops: u64,
    pub(crate) resets_sent: u64,
    pub(crate) segments_resent: u64,
    pub(crate) keepalives_sent: u64,
    pub(crate) zero_windows_sent: u64,
    /// Sockets over which smoltcp panicked.
    pub(crate) panics: u64,
    /// Frames the device took in the last flush that had any.
    pub(crate) tx_last_burst: u64,
    /// Frames the device could not give for want of memory.
    pub(crate) alloc_failures: u64,
}

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

/// The device and what stands in front of it.
struct Port<D: PacketDevice> {
    device: D,
    front: Front<D::Frame>,
    /// Frames the device has not taken yet.
    queue: Burst<D::Frame>,
    /// The link is known to be down: what the device does not take is dropped, as if sent over a
    /// cable that is pulled out. Else it would be kept, and senders held back, for as long.
    is_cut: bool,
    /// Frames from one of our addresses to another.
    own: VecDeque<D::Frame>,
    caps: DeviceCapabilities,
    /// Where a packet goes when there is no frame for it.
    scratch: Vec<u8>,
    counts: WireCounts,
}

impl<D: PacketDevice> Wire<D> {
    /// A wire over `device`.
    pub(crate) fn new(device: D, front: Front<D::Frame>, speed: u32) -> Self {
        let mut caps = DeviceCapabilities::default();
        let info = device.info();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = info.mtu;
        // The front has verified what comes in.
        let checksum = if info.lossless_memory { Checksum::None } else { Checksum::Tx };
        caps.checksum.ipv4 = checksum;
        caps.checksum.tcp = checksum;
        let scratch = vec![0; info.mtu];
        let mut port = Port {
            device,
            front,
            queue: Burst::new(),
            is_cut: false,
            own: VecDeque::new(),
            caps,
            scratch,
            counts: WireCounts::default(),
        };
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
        let recovery = Some(recovery);
        let mut loan = Loan { recovery, last: *last, ..Loan::new(&mut self.port, Some(at)) };
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

    /// Sends an acknowledgement without a socket.
    pub(crate) fn acknowledge(&mut self, at: Moment, key: &FlowKey, last: LastAck) {
        let tcp = header(key, last);
        self.port.send_segment(at, key, &tcp, (&[], &[]));
    }

    /// The largest segment our MTU allows on a flow.
    pub(crate) fn mss(&self, key: &FlowKey) -> u16 {
        let headers = ip_len(&key.remote().ip().into()) + TCP_HEADER_LEN;
        (self.port.caps.max_transmission_unit - headers).try_into().unwrap_or(u16::MAX)
    }

    /// Answers a SYN with the initial sequence number `isn`, as a socket with a receive buffer of
    /// `rx_bytes` would.
    pub(crate) fn answer_syn(
        &mut self,
        at: Moment,
        syn: &TcpView,
        offer: Offer,
        isn: u32,
        rx_bytes: usize,
    ) {
        let window = rx_bytes.try_into().unwrap_or(u16::MAX);
        let rcv_nxt = syn.seq.wrapping_add(1);
        let said = LastAck { snd_nxt: isn, rcv_nxt, window, ..LastAck::default() };
        let shift = rx_bytes.checked_ilog2().map_or(0, |log| (log + 1).saturating_sub(16)) as u8;
        let tcp = TcpRepr {
            control: TcpControl::Syn,
            max_seg_size: Some(self.mss(&syn.key)),
            window_scale: offer.window_shift.map(|_| shift),
            sack_permitted: offer.is_sack_permitted,
            ..header(&syn.key, said)
        };
        self.port.send_segment(at, &syn.key, &tcp, (&[], &[]));
    }

    /// Brings a socket that listens to where it would be, had it got the SYN with the number `syn`
    /// and answered it; see [`Self::set_next_isn`]. Nothing is sent.
    pub(crate) fn replay_syn(
        &mut self,
        at: Moment,
        conn: &mut Conn,
        (syn, window): (u32, u16),
        offer: Offer,
    ) {
        let key = conn.key;
        let offer = Offer { mss: offer.mss.or_else(|| Some(self.mss(&key))), ..offer };
        let (sockets, last, recovery) = conn.parts();
        let tcp = TcpRepr {
            src_port: key.remote_port,
            dst_port: key.local_port,
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(syn as i32),
            ack_number: None,
            window_len: window,
            max_seg_size: offer.mss,
            window_scale: offer.window_shift,
            sack_permitted: offer.is_sack_permitted,
            ..header(&key, LastAck::default())
        };
        let mut packet = [0; IPV6_HEADER_LEN + TCP_HEADER_LEN + SYN_OPTIONS_MAX];
        let (local, remote) = (key.local().ip().into(), key.remote().ip().into());
        let packet = &mut packet[..ip_len(&remote) + tcp.header_len()];
        emit(packet, (remote, local), &tcp, &self.port.caps.checksum);
        self.ingress(at, sockets, last, packet);
        recovery.revive(at.micros, offer, window);
        let recovery = Some(recovery);
        let mut loan =
            Loan { recovery, is_mute: true, last: *last, ..Loan::new(&mut self.port, Some(at)) };
        let step = || self.iface.poll_egress(at.tcp, &mut loan, sockets);
        match catch_unwind(AssertUnwindSafe(step)) {
            Ok(_) => *last = loan.last,
            Err(_) => self.contain(sockets),
        }
    }

    /// Sends again what `recovery` wants to be sent again, up to a fair share. Returns the number
    /// of segments, and whether the device takes no more.
    pub(crate) fn resend(
        &mut self,
        at: Moment,
        key: &FlowKey,
        last: &LastAck,
        recovery: &mut Recovery,
    ) -> (u64, bool) {
        let mut sent = 0;
        while sent < EGRESS_MAX as u64
            && let Some(piece) = recovery.next_piece()
        {
            let Piece { seq, is_fin, .. } = piece;
            let control = if is_fin { TcpControl::Fin } else { TcpControl::Psh };
            let seq_number = TcpSeqNumber(seq as i32);
            let tcp = TcpRepr { control, seq_number, ..header(key, *last) };
            if !self.port.send_segment(at, key, &tcp, recovery.bytes(piece)) {
                return (sent, true);
            }
            recovery.on_resent(at.micros);
            self.port.counts.segments_resent += 1;
            sent += 1;
        }
        (sent, false)
    }

    /// Gives the socket an acknowledgement that nobody sent, with this sequence number,
    /// acknowledgement number and window field.
    pub(crate) fn feed_ack(
        &mut self,
        at: Moment,
        key: &FlowKey,
        sockets: &mut SocketSet<'static>,
        last: &mut Option<LastAck>,
        (seq, ack, window): (u32, u32, u16),
    ) {
        let tcp = TcpRepr {
            src_port: key.remote_port,
            dst_port: key.local_port,
            seq_number: TcpSeqNumber(seq as i32),
            ack_number: Some(TcpSeqNumber(ack as i32)),
            window_len: window,
            ..header(key, LastAck::default())
        };
        let mut packet = [0; IPV6_HEADER_LEN + TCP_HEADER_LEN];
        let (local, remote) = (key.local().ip().into(), key.remote().ip().into());
        let packet = &mut packet[..ip_len(&remote) + TCP_HEADER_LEN];
        emit(packet, (remote, local), &tcp, &self.port.caps.checksum);
        self.ingress(at, sockets, last, packet);
    }

    /// Sends a byte the peer has long had, which it can only answer with what it expects and how
    /// much it takes.
    pub(crate) fn ask_window(&mut self, at: Moment, key: &FlowKey, last: LastAck) {
        let seq_number = TcpSeqNumber(last.snd_nxt.wrapping_sub(1) as i32);
        let tcp = TcpRepr { seq_number, ..header(key, last) };
        self.port.send_segment(at, key, &tcp, (&[0], &[]));
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

impl<D: PacketDevice> Port<D> {
    /// Sends a segment with a payload in two parts; false: there is no room or no frame for it.
    fn send_segment(
        &mut self,
        at: Moment,
        key: &FlowKey,
        tcp: &TcpRepr<'_>,
        (head, tail): (&[u8], &[u8]),
    ) -> bool {
        let (source, destination) = (key.local().ip().into(), key.remote().ip().into());
        let start = self.front.link_header_len();
        let payload_at = start + ip_len(&source) + tcp.header_len();
        let len = payload_at + head.len() + tail.len();
        let (_, mut queue) = self.split(at.wall);
        let frame = if queue.has_room() { queue.alloc(len) } else { None };
        let Some(mut frame) = frame else {
            return false;
        };
        let payload = &mut frame.bytes_mut()[payload_at..];
        payload[..head.len()].copy_from_slice(head);
        payload[head.len()..].copy_from_slice(tail);
        emit(&mut frame.bytes_mut()[start..], (source, destination), tcp, &self.caps.checksum);
        self.send(at.wall, frame);
        true
    }

    fn split(&mut self, now: Instant) -> (&mut Front<D::Frame>, Queue<'_, D>) {
        let Self { device, front, queue, is_cut, counts, .. } = self;
        (front, Queue { now, device, queue, is_cut: *is_cut, counts })
    }

    /// Lets the front address a frame and queues it.
    fn send(&mut self, now: Instant, frame: D::Frame) {
        let (front, mut queue) = self.split(now);
        if let Sent::Own(frame) = front.send(now, frame, &mut queue) {
            if self.own.len() < OWN_MAX {
                self.own.push_back(frame);
            } else {
                self.counts.own_drops += 1;
            }
        }
    }
}

/// The device's send queue, as the front sees it.
pub(crate) struct Queue<'a, D: PacketDevice> {
    now: Instant,
    device: &'a mut D,
    queue: &'a mut Burst<D::Frame>,
    is_cut: bool,
    counts: &'a mut WireCounts,
}

impl<D: PacketDevice> Queue<'_, D> {
    fn has_room(&mut self) -> bool {
        if self.queue.is_full() {
            self.device.tx_burst(self.now, self.queue);
            self.drop_if_cut();
        }
        !self.queue.is_full()
    }

    fn flush(&mut self) {
        let waiting = self.queue.len();
        let mut before = usize::MAX;
        while !self.queue.is_empty() && self.queue.len() < before {
            before = self.queue.len();
            self.device.tx_burst(self.now, self.queue);
        }
        if self.queue.len() < waiting {
            self.counts.tx_last_burst = (waiting - self.queue.len()) as u64;
        }
        self.drop_if_cut();
    }

    fn drop_if_cut(&mut self) {
        if self.is_cut {
            self.counts.link_down_drops += self.queue.len() as u64;
            self.queue.clear();
        }
    }
}

impl<D: PacketDevice> Output<D::Frame> for Queue<'_, D> {
    fn alloc(&mut self, len: usize) -> Option<D::Frame> {
        let frame = self.device.alloc(len);
        self.counts.alloc_failures += u64::from(frame.is_none());
        frame
    }

    fn push(&mut self, frame: D::Frame) -> Result<(), D::Frame> {
        if !self.has_room() {
            self.counts.tx_full += 1;
            return Err(frame);
        }
        self.counts.tx_frames += 1;
        self.counts.tx_bytes += frame.bytes().len() as u64;
        self.queue.push(frame);
        Ok(())
    }
}

/// The device smoltcp sees for the length of one call.
struct Loan<'a, D: PacketDevice> {
    /// The packet to be received.
    rx: Option<&'a [u8]>,
    port: &'a mut Port<D>,
    /// `None` only while the interface is made, when nothing is sent.
    at: Option<Moment>,
    /// What the connection's last packet said.
    last: Option<LastAck>,
    /// Who repairs losses; `None` where nothing is sent that could be lost.
    recovery: Option<&'a mut Recovery>,
    /// Something was to be sent and could not.
    blocked: bool,
    /// What is sent is only noted.
    is_mute: bool,
}

impl<'a, D: PacketDevice> Loan<'a, D> {
    fn new(port: &'a mut Port<D>, at: Option<Moment>) -> Self {
        Self { rx: None, port, at, last: None, recovery: None, blocked: false, is_mute: false }
    }
}

impl<'a, D: PacketDevice> Device for Loan<'a, D> {
    type RxToken<'t>
        = Packet<'a>
    where
        Self: 't;
    type TxToken<'t>
        = Blank<'t, 'a, D>
    where
        Self: 't;

    /// The packet, and a token for its answer. That one has no frame yet: most packets are not
    /// answered at once, and an answer lost for want of memory is like one lost on the way.
    fn receive(&mut self, _: TcpInstant) -> Option<(Packet<'a>, Blank<'_, 'a, D>)> {
        let packet = Packet(self.rx.take()?);
        Some((packet, Blank { frame: None, loan: self }))
    }

    /// A token with a frame, or back-pressure.
    fn transmit(&mut self, _: TcpInstant) -> Option<Blank<'_, 'a, D>> {
        if self.is_mute {
            return Some(Blank { frame: None, loan: self });
        }
        let len = self.port.front.link_header_len() + self.port.caps.max_transmission_unit;
        let (_, mut queue) = self.port.split(self.at?.wall);
        let frame = if queue.has_room() { queue.alloc(len) } else { None };
        self.blocked = frame.is_none();
        Some(Blank { frame: Some(frame?), loan: self })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.port.caps.clone()
    }
}

/// A packet to be received.
struct Packet<'a>(&'a [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A packet to be written.
struct Blank<'t, 'a, D: PacketDevice> {
    frame: Option<D::Frame>,
    loan: &'t mut Loan<'a, D>,
}

impl<D: PacketDevice> TxToken for Blank<'_, '_, D> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { frame, loan } = self;
        if loan.is_mute {
            let mut packet = std::mem::take(&mut loan.port.scratch);
            packet.resize(len.max(packet.len()), 0);
            let result = f(&mut packet[..len]);
            loan.note(&mut packet[..len]);
            loan.port.scratch = packet;
            return result;
        }
        let start = loan.port.front.link_header_len();
        let frame = frame.or_else(|| loan.port.device.alloc(start + len));
        let Some(mut frame) = frame else {
            loan.port.counts.no_frame_drops += 1;
            loan.port.counts.alloc_failures += 1;
            loan.port.scratch.resize(len.max(loan.port.scratch.len()), 0);
            return f(&mut loan.port.scratch[..len]);
        };
        frame.truncate(start + len);
        let packet = &mut frame.bytes_mut()[start..];
        let result = f(packet);
        let len = loan.note(packet);
        if let Some(at) = loan.at
            && len > 0
        {
            frame.truncate(start + len);
            loan.port.send(at.wall, frame);
        }
        result
    }
}

impl<D: PacketDevice> Loan<'_, D> {
    /// Keeps what the connection says in a packet that smoltcp has just written: its bytes until
    /// they are acknowledged, its numbers for the time when its socket is gone. Returns how much
    /// of the packet is to be sent. Of a repeated segment that is at most the acknowledgement.
    fn note(&mut self, packet: &mut [u8]) -> usize {
        let tcp_at = ip_header_len(packet);
        let tcp = TcpPacket::new_unchecked(&packet[tcp_at..]);
        if tcp.rst() {
            self.port.counts.resets_sent += 1;
            if self.recovery.is_some()
                && let Some(last) = self.last
            {
                // A peer that keeps to RFC 5961 takes it nowhere else.
                self.acknowledge_from(packet, packet.len(), last.snd_nxt);
            }
            return packet.len();
        }
        let mut packet_len = packet.len();
        let payload_len = packet.len() - tcp_at - usize::from(tcp.header_len());
        let len = payload_len + usize::from(tcp.syn()) + usize::from(tcp.fin());
        let seq = tcp.seq_number();
        let mut said = LastAck {
            snd_nxt: (seq + len).0 as u32,
            rcv_nxt: tcp.ack_number().0 as u32,
            window: tcp.window_len(),
            ..LastAck::default()
        };
        let before = self.last;
        let mut is_repeated = false;
        if let Some(recovery) = &mut self.recovery
            && let Some(at) = self.at
        {
            let is_probe = before.is_some_and(|last| last.is_peer_full) && payload_len == 1;
            let options = &packet[tcp_at + TCP_HEADER_LEN..packet.len() - payload_len];
            let payload = &packet[packet.len() - payload_len..];
            if tcp.syn() {
                recovery.on_syn_sent(at.micros, seq.0 as u32, options);
            } else if !is_probe {
                let seq = seq.0 as u32;
                is_repeated =
                    recovery.on_sent(at.micros, seq, payload, tcp.fin()) == Outgoing::Repeated;
            }
        }
        let is_syn = tcp.syn();
        if let Some(last) = before {
            let is_probe = last.is_peer_full && payload_len == 1;
            let is_behind = |seq| seq < TcpSeqNumber(last.snd_nxt as i32);
            if is_probe || is_behind(seq + len) {
                said.snd_nxt = last.snd_nxt;
            }
            said.is_peer_full = last.is_peer_full;
            if is_repeated || is_behind(seq) && len == 0 {
                packet_len -= payload_len;
                self.acknowledge_from(packet, packet_len, said.snd_nxt);
            } else if is_behind(seq) && is_syn {
                self.port.counts.segments_resent += 1;
            } else if is_behind(seq) && payload_len == 1 {
                self.port.counts.keepalives_sent += 1;
            }
            if is_repeated && (last.rcv_nxt, last.window) == (said.rcv_nxt, said.window) {
                packet_len = 0;
            }
        }
        let was_open = self.last.is_some_and(|last| last.window > 0);
        self.port.counts.zero_windows_sent += u64::from(was_open && said.window == 0);
        self.last = Some(said);
        packet_len
    }

    /// Makes a packet of `len` bytes a pure acknowledgement, or a reset, with the sequence number
    /// it must have: the next one never sent (RFC 9293 section 3.10.7.4).
    ///
    /// After a retransmission timeout smoltcp takes back its own idea of that, and acknowledges
    /// with numbers the peer has long received. The peer must ignore such a segment, with the
    /// acknowledgement in it. If both ends do so to each other, neither ever learns that
    /// everything has arrived.
    fn acknowledge_from(&self, packet: &mut [u8], len: usize, snd_nxt: u32) {
        let packet = &mut packet[..len];
        let tcp_at = ip_header_len(packet);
        let (source, destination) = if tcp_at == IPV4_HEADER_LEN {
            let mut ip = Ipv4Packet::new_unchecked(&mut *packet);
            ip.set_total_len(len as u16);
            if self.port.caps.checksum.ipv4.tx() {
                ip.fill_checksum();
            }
            (ip.src_addr().into(), ip.dst_addr().into())
        } else {
            let mut ip = Ipv6Packet::new_unchecked(&mut *packet);
            ip.set_payload_len((len - IPV6_HEADER_LEN) as u16);
            (ip.src_addr().into(), ip.dst_addr().into())
        };
        let mut tcp = TcpPacket::new_unchecked(&mut packet[tcp_at..]);
        tcp.set_seq_number(TcpSeqNumber(snd_nxt as i32));
        tcp.set_fin(false);
        tcp.set_psh(false);
        if self.port.caps.checksum.tcp.tx() {
            tcp.fill_checksum(&source, &destination);
        }
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

/// The header of a segment that no socket writes: an acknowledgement of what `last` says.
fn header<'a>(key: &FlowKey, last: LastAck) -> TcpRepr<'a> {
    TcpRepr {
        src_port: key.local_port,
        dst_port: key.remote_port,
        control: TcpControl::None,
        seq_number: TcpSeqNumber(last.snd_nxt as i32),
        ack_number: Some(TcpSeqNumber(last.rcv_nxt as i32)),
        window_len: last.window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

/// Writes the headers of a packet whose payload is in its place already.
fn emit(
    packet: &mut [u8],
    (source, destination): (IpAddress, IpAddress),
    tcp: &TcpRepr<'_>,
    checksums: &ChecksumCapabilities,
) {
    let ip_len = ip_len(&source);
    let tcp_len = packet.len() - ip_len;
    let ip = IpRepr::new(source, destination, IpProtocol::Tcp, tcp_len, HOP_LIMIT);
    ip.emit(&mut *packet, checksums);
    let segment = &mut TcpPacket::new_unchecked(&mut packet[ip_len..]);
    tcp.emit(segment, &source, &destination, checksums);
}

/// Bytes of an IP header without options or extensions.
fn ip_len(addr: &IpAddress) -> usize {
    match addr {
        IpAddress::Ipv4(_) => IPV4_HEADER_LEN,
        IpAddress::Ipv6(_) => IPV6_HEADER_LEN,
    }
}

/// Bytes of the IP header of a packet of ours, which has neither options nor extensions.
fn ip_header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
}
