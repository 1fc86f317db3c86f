//! What the [`guard`](crate::guard) decides and a worker carries out.

use smoltcp::socket::tcp::State;

use super::{Before, NativeWorker, Segment};
use crate::clock::Moment;
use crate::conn::is_closed_by_peer;
use crate::device::PacketDevice;
use crate::guard::{self, Stage, Suspect, Verdict};

impl<D: PacketDevice> NativeWorker<D> {
    /// Whether a segment is for its connection to see. Nearly all are, and that is seen by what
    /// recovery has at hand.
    pub(super) fn admit(&mut self, at: Moment, slot: u32, segment: &Segment<D::Frame>) -> bool {
        self.conns.at(slot).recovery.is_ordinary(&segment.view) || self.question(at, slot, segment)
    }

    #[cold]
    fn question(&mut self, at: Moment, slot: u32, segment: &Segment<D::Frame>) -> bool {
        let conn = self.conns.at(slot);
        let (Some(last), key) = (conn.last, conn.key) else {
            return false;
        };
        let stage = match conn.socket().state() {
            State::SynSent => Stage::Calling,
            State::SynReceived => Stage::Answering,
            State::Closed | State::Listen => Stage::Closed,
            _ => Stage::Open,
        };
        let mut known = conn.recovery.known(stage, (last.rcv_nxt, last.window));
        known.expected = known.expected.wrapping_add(last.unsaid);
        known.offered = known.offered.saturating_sub(last.unsaid);
        match guard::judge(&segment.view, &known) {
            Verdict::Pass => true,
            Verdict::Drop(suspect) => {
                self.suspect(suspect);
                false
            }
            Verdict::Challenge(suspect) => {
                self.suspect(suspect);
                if self.challenges.allows(at.tick, self.conns.challenges(slot)) {
                    self.counts.challenge_acks_sent += 1;
                    self.wire.acknowledge(at, &key, last);
                } else {
                    self.counts.challenge_acks_withheld += 1;
                }
                false
            }
            Verdict::Refuse => {
                self.suspect(Suspect::Ack);
                self.wire.refuse(at, segment.packet());
                false
            }
        }
    }

    fn suspect(&mut self, suspect: Suspect) {
        match suspect {
            Suspect::Reset => self.counts.inexact_reset_drops += 1,
            Suspect::Syn => self.counts.late_syn_drops += 1,
            Suspect::Ack => self.counts.bad_ack_drops += 1,
        }
    }

    /// Notes how far a segment has brought the connection beyond the `expected` it last told the
    /// peer. If it was answered at once, that answer has told it.
    pub(super) fn note_arrival(&mut self, slot: u32, expected: u32, before: Before) {
        let conn = self.conns.at(slot);
        let socket = conn.socket();
        let bytes = socket.recv_queue().saturating_sub(before.received) as u32;
        let is_end = is_closed_by_peer(socket.state()) && !is_closed_by_peer(before.state);
        if let Some(last) = &mut conn.last
            && last.rcv_nxt == expected
        {
            last.unsaid = last.unsaid.wrapping_add(bytes + u32::from(is_end));
        }
    }
}
