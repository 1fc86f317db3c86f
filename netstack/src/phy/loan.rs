//! The device as smoltcp sees it, and what is made of the packets smoltcp writes.
//!
//! ```text
//!   rx --receive--> Packet --> smoltcp --> Blank --note--> Port
//!                   transmit (a frame) ------^      |
//!                                                   `---> Recovery, LastAck
//! ```

use smoltcp::phy::{Device, DeviceCapabilities, RxToken, TxToken};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4Packet, Ipv6Packet, TCP_HEADER_LEN, TcpPacket,
    TcpSeqNumber,
};

use super::port::Port;
use crate::clock::Moment;
use crate::device::{Frame, PacketDevice};
use crate::recovery::{Outgoing, Recovery};
use crate::time_wait::LastAck;

/// The device smoltcp sees for the length of one call.
pub(super) struct Loan<'a, D: PacketDevice> {
    /// The packet to be received.
    pub(super) rx: Option<&'a [u8]>,
    pub(super) port: &'a mut Port<D>,
    /// `None` only while the interface is made, when nothing is sent.
    pub(super) at: Option<Moment>,
    /// What the connection's last packet said.
    pub(super) last: Option<LastAck>,
    /// Who repairs losses; `None` where nothing is sent that could be lost.
    pub(super) recovery: Option<&'a mut Recovery>,
    /// Something was to be sent and could not.
    pub(super) blocked: bool,
    /// What is sent is only noted.
    pub(super) is_mute: bool,
}

impl<'a, D: PacketDevice> Loan<'a, D> {
    /// A device with nothing to receive.
    pub(super) fn new(port: &'a mut Port<D>, at: Option<Moment>) -> Self {
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
        let frame = self.port.frame(self.at?.wall, len);
        self.blocked = frame.is_none();
        Some(Blank { frame: Some(frame?), loan: self })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.port.caps.clone()
    }
}

/// A packet to be received.
pub(super) struct Packet<'a>(&'a [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// A packet to be written.
pub(super) struct Blank<'t, 'a, D: PacketDevice> {
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

/// Bytes of the IP header of a packet of ours, which has neither options nor extensions.
fn ip_header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN }
}
