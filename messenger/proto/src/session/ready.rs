//! A ready session: messages, acknowledgements, keepalives, both ways.

use std::time::{Duration, Instant};

use crate::error::ProtocolError;
use crate::message::{Message, MessagePermits, ReceiveStamps};
use crate::session::outbox::GATHER_MAX;
use crate::session::transport::{Phase, Received, Side, Transport, Whole, bad_header};
use crate::session::{Session, SessionEvent, State, Step};
use crate::v2::control::{Ack, Keepalive2, Keepalive2Ack};
use crate::v2::{Utime, header};

/// Bytes written ahead of the transport, beyond which messages stay in the queue: there, a message
/// of higher priority can still overtake them.
const STAGED_BYTES: usize = 256 << 10;

/// Most slices a message adds to a gather list: head, front, middle, data, epilogue.
const MESSAGE_SLICES: usize = 5;

impl Session {
    pub(super) fn enter_ready(&mut self, now: Instant, reconnected: bool) {
        if let Some(transport) = self.transport()
            && transport.is_frozen()
        {
            transport.ready_when_resumed = Some(reconnected);
            return;
        }
        if !self.passes(Step::Ready) {
            return;
        }
        let Some(transport) = self.transport() else {
            return;
        };
        transport.phase = Phase::Ready;
        let accepted = transport.side == Side::Acceptor;
        self.progress = now;
        self.backoff = Duration::ZERO;
        self.established = true;
        self.events.push_back(SessionEvent::Ready { reconnected, accepted });
    }

    pub(super) fn on_message_frame(
        &mut self,
        now: Instant,
        received: Received,
    ) -> Result<(), ProtocolError> {
        let [head, sections @ ..] = received.frame.segments;
        let (fields, ack_seq) = header::decode(&head).map_err(bad_header)?;
        self.on_ack(&Ack(ack_seq));
        let mut message = Message::received(fields, sections);
        message.source = self.peer.name;
        message.stamps = received.stamps;
        message.permits = received.permits;
        self.on_message(now, message);
        Ok(())
    }

    /// A message came all at once and waited for nothing.
    #[inline]
    pub(super) fn on_whole(&mut self, now: Instant, permits: MessagePermits, whole: Whole) {
        let Whole::Message { header, ack_seq, sections: [front, middle, data] } = whole else {
            self.stats.aborted_frames += 1;
            return;
        };
        self.on_ack(&Ack(ack_seq));
        if self.counts(header.seq) {
            let stamps = ReceiveStamps { recv_complete: Some(now), ..ReceiveStamps::admitted(now) };
            let source = self.peer.name;
            self.events.push_back(SessionEvent::Message(Message {
                header,
                front,
                middle,
                data,
                source,
                stamps,
                permits,
            }));
        }
    }

    /// A message is there, with all it holds.
    pub(super) fn on_message(&mut self, now: Instant, mut message: Message) {
        if self.counts(message.header.seq) {
            message.stamps.recv_complete = Some(now);
            self.events.push_back(SessionEvent::Message(message));
        }
    }

    /// Counts a message of this number; false if it is not to be handed out.
    fn counts(&mut self, seq: u64) -> bool {
        if !self.passes(Step::MessageDecoded) {
            return false;
        }
        if seq <= self.numbers.in_seq {
            // The permits go back with what is dropped here (T-7); reading goes on.
            self.stats.duplicates += 1;
            return false;
        }
        self.stats.skipped += u64::from(seq > self.numbers.in_seq + 1);
        self.numbers.in_seq = seq;
        self.ack_due = !self.policy.lossy;
        self.stats.messages_received += 1;
        true
    }

    /// Lossy sessions keep nothing, so there is nothing to acknowledge.
    pub(super) fn on_ack(&mut self, ack: &Ack) {
        let acked = self.queue.acked(self.now, ack.0);
        self.stats.messages_acked += acked.count;
        self.stats.ack_waits += acked.count;
        self.stats.ack_time += acked.time;
    }

    pub(super) fn on_keepalive(&mut self, now: Instant, keepalive: Keepalive2) {
        self.peer.last_keepalive = Some(now);
        if self.keepalive_acks.is_full() {
            self.keepalive_acks.remove(0); // the latest stamp answers the older ones too
        }
        self.keepalive_acks.push(keepalive.0);
    }

    pub(super) fn on_keepalive_ack(&mut self, ack: Keepalive2Ack) {
        self.peer.last_keepalive_ack = Some(ack.0.into());
    }

    /// Moves what is due from the queue to the transport's outbox, in the order keepalive,
    /// keepalive acknowledgements, messages, acknowledgement (contract K-1), as long as the
    /// transport keeps up.
    pub(super) fn stage(&mut self) {
        let source = self.own_name();
        let State::Open { transport, .. } = &mut self.state else {
            return;
        };
        if !transport.is_ready() || !has_room(transport) {
            return;
        }
        if std::mem::take(&mut self.keepalive_due) {
            let stamp = self.identity.anchor.unix_at(self.now);
            transport.send_keepalive(Utime::from(stamp));
        }
        for stamp in self.keepalive_acks.drain(..) {
            transport.send_keepalive_ack(stamp);
        }
        let acks_with_messages = transport.acks_with_messages();
        while has_room(transport)
            && self.queue.write_next(self.now, !self.policy.lossy, |message, since| {
                let is_replay = message.header.seq != 0;
                if !is_replay {
                    self.stats.send_waits += 1;
                    self.stats.send_time += self.now.saturating_duration_since(since);
                }
                self.numbers.out_seq += 1;
                message.header.seq = self.numbers.out_seq;
                transport.send_message(message, self.numbers.in_seq, source);
                self.stats.messages_sent += 1;
                self.ack_due &= !acks_with_messages;
            })
        {}
        if self.ack_due && (self.queue.is_empty() || !acks_with_messages) {
            transport.send_ack(self.numbers.in_seq);
            self.stats.acks_sent += 1;
            self.ack_due = false;
        }
    }
}

fn has_room(transport: &Transport) -> bool {
    let outbox = &transport.outbox;
    let is_open = transport.failed.is_none();
    is_open && outbox.slices() + MESSAGE_SLICES <= GATHER_MAX && outbox.len() < STAGED_BYTES
}
