//! Segments that no socket writes.
//!
//! ```text
//!   acknowledge, answer_syn, resend, ask_window --> Port       sent in a connection's name
//!   replay_syn, feed_ack ----------------> ingress --> socket  as if a peer had sent them
//! ```

use smoltcp::iface::SocketSet;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpAddress, IpProtocol, IpRepr, TCP_HEADER_LEN, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::port::Port;
use super::{EGRESS_MAX, Wire};
use crate::clock::Moment;
use crate::conn::Conn;
use crate::device::{Frame, PacketDevice};
use crate::flow::FlowKey;
use crate::front::TcpView;
use crate::guard::Offer;
use crate::recovery::{Piece, Recovery};
use crate::time_wait::LastAck;

/// Bytes of the options of a SYN that is replayed: MSS, window scale, SACK permitted, and filling.
const SYN_OPTIONS_MAX: usize = 12;
/// Hop limit of packets that no socket sends.
const HOP_LIMIT: u8 = 64;

impl<D: PacketDevice> Wire<D> {
    /// Sends an acknowledgement without a socket.
    pub(crate) fn acknowledge(&mut self, at: Moment, key: &FlowKey, last: LastAck) {
        let tcp = header(key, last);
        self.port.send_segment(at, key, &tcp, (&[], &[]));
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

    /// Sends a byte the peer has long had, which it can only answer with what it expects and how
    /// much it takes.
    pub(crate) fn ask_window(&mut self, at: Moment, key: &FlowKey, last: LastAck) {
        let seq_number = TcpSeqNumber(last.snd_nxt.wrapping_sub(1) as i32);
        let tcp = TcpRepr { seq_number, ..header(key, last) };
        self.port.send_segment(at, key, &tcp, (&[0], &[]));
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
        let said = LastAck { snd_nxt: syn, window, ..LastAck::default() };
        let tcp = TcpRepr {
            control: TcpControl::Syn,
            ack_number: None,
            max_seg_size: offer.mss,
            window_scale: offer.window_shift,
            sack_permitted: offer.is_sack_permitted,
            ..header(&key.reversed(), said)
        };
        self.feed(at, &key, sockets, last, &tcp);
        recovery.revive(at.micros, offer, window);
        self.write(at, sockets, last, recovery, true);
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
        let said = LastAck { snd_nxt: seq, rcv_nxt: ack, window, ..LastAck::default() };
        self.feed(at, key, sockets, last, &header(&key.reversed(), said));
    }

    /// Gives the socket a segment without a payload as if its peer had sent it.
    fn feed(
        &mut self,
        at: Moment,
        key: &FlowKey,
        sockets: &mut SocketSet<'static>,
        last: &mut Option<LastAck>,
        tcp: &TcpRepr<'_>,
    ) {
        let mut packet = [0; IPV6_HEADER_LEN + TCP_HEADER_LEN + SYN_OPTIONS_MAX];
        let (local, remote) = (key.local().ip().into(), key.remote().ip().into());
        let packet = &mut packet[..ip_len(&remote) + tcp.header_len()];
        emit(packet, (remote, local), tcp, &self.port.caps.checksum);
        self.ingress(at, sockets, last, packet);
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
        let Some(mut frame) = self.frame(at.wall, len) else {
            return false;
        };
        let payload = &mut frame.bytes_mut()[payload_at..];
        payload[..head.len()].copy_from_slice(head);
        payload[head.len()..].copy_from_slice(tail);
        emit(&mut frame.bytes_mut()[start..], (source, destination), tcp, &self.caps.checksum);
        self.send(at.wall, frame);
        true
    }
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
pub(super) fn ip_len(addr: &IpAddress) -> usize {
    match addr {
        IpAddress::Ipv4(_) => IPV4_HEADER_LEN,
        IpAddress::Ipv6(_) => IPV6_HEADER_LEN,
    }
}
