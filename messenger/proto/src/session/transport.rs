//! One TCP connection under a session: its buffers, its wire format, how far it has come.

use bytes::Bytes;

use crate::denc::{DecodeError, Writer};
use crate::entity::EntityName;
use crate::error::ProtocolError;
use crate::identity::{Limits, SessionOptions};
use crate::message::{Message, MessageHeader, MessagePermits, ReceiveStamps};
use crate::rx_buffers::RxBuffers;
use crate::session::admission::Admission;
use crate::session::authenticate::Exchange;
use crate::session::event::PeerIdent;
use crate::session::inbox::Inbox;
use crate::session::outbox::Outbox;
use crate::session::transcript::Transcript;
use crate::session::v1::V1;
use crate::v2::control::{Ack, AuthSignature, Keepalive2, Keepalive2Ack};
use crate::v2::preamble::{PREAMBLE_LEN, SEGMENTS_MAX};
use crate::v2::{
    Banner, Compression, ConnectionSecret, Control, Decoder, Encoder, Frame, Preamble, Revision,
    Role, Tag, Utime, Wire, header,
};

/// Frames a peer may send before the session is ready. An honest one needs about ten, and each
/// refused attempt costs it one; this bounds what we answer.
pub(super) const HANDSHAKE_FRAMES_MAX: u32 = 64;

/// Places where the bytes of a peer that did not authenticate may be: read ahead, in the frame being
/// read, in the transcript, and as many on their way out.
pub(super) const BUFFERS: usize = 4;

/// Index of a message's data section among the segments of its frame.
const DATA_SEGMENT: usize = 3;

/// Who opened the TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Dialler,
    Acceptor,
}

/// What is expected next.
///
/// ```text
///   both       Banner - Hello - Auth (AuthMore) - Signature (Compression)
///   dialler      - Connecting ------------------> Ready
///                \-- Resuming (old session) ----/
///   acceptor     - Accepting - Judging (verdict) -> Ready
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    Banner,
    Hello,
    Auth,
    /// The method needs more than one round.
    AuthMore,
    /// Ours was sent, this is to be the peer's.
    Signature(AuthSignature),
    /// Both banners offered it.
    Compression,
    /// CLIENT_IDENT was sent, or msgr1's handshake is under way.
    Connecting,
    /// SESSION_RECONNECT was sent, or msgr1's like of it.
    Resuming,
    /// The client's ident is due.
    Accepting,
    /// The shell looks the peer up; nothing is read.
    Judging(Box<PeerIdent>),
    Ready,
}

impl Phase {
    /// Completes the sentence "tag 17 is not legal ...".
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Banner => "before the banner",
            Self::Hello => "before HELLO",
            Self::Auth => "during authentication",
            Self::AuthMore => "during a round of authentication",
            Self::Signature(_) => "before the signature",
            Self::Compression => "while compression is negotiated",
            Self::Connecting => "while connecting",
            Self::Resuming => "while reconnecting",
            Self::Accepting => "while accepting",
            Self::Judging(_) => "before the verdict",
            Self::Ready => "in a ready session",
        }
    }
}

/// Which bytes come next.
#[derive(Debug)]
pub(super) enum Reading {
    /// The first bytes of a peer that may speak either protocol.
    EitherBanner,
    BannerPrefix,
    BannerPayload(usize),
    Preamble,
    /// A message at the throttles; its body is not read yet.
    Admission(Box<Admission>),
    Body(Body),
    /// Any piece of msgr1, which knows itself what it is.
    V1,
}

/// A frame behind its preamble, with what its message holds.
#[derive(Debug)]
pub(super) struct Body {
    /// Most bytes of each segment.
    pub(super) limits: [u32; SEGMENTS_MAX],
    /// Bytes behind the first segment, as they are on the wire.
    pub(super) wire_len: u64,
    pub(super) stamps: ReceiveStamps,
    pub(super) permits: MessagePermits,
}

/// A whole frame, with what its message holds.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) frame: Frame,
    pub(super) stamps: ReceiveStamps,
    pub(super) permits: MessagePermits,
}

/// A frame of a message that was there all at once.
#[derive(Debug)]
pub(super) enum Whole {
    Message {
        header: MessageHeader,
        ack_seq: u64,
        sections: [Bytes; SEGMENTS_MAX - 1],
    },
    /// Its sender gave it up.
    Aborted,
}

#[derive(Debug)]
pub(super) struct Transport {
    pub(super) side: Side,
    pub(super) phase: Phase,
    /// Why nothing more can be written: the transport has to be given up.
    pub(super) failed: Option<ProtocolError>,
    pub(super) encoder: Encoder,
    decoder: Decoder,
    /// What speaks msgr1 here, instead of the encoder and the decoder.
    pub(super) v1: Option<V1>,
    /// Both banners offer compression.
    pub(super) negotiates_compression: bool,
    pub(super) reading: Reading,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// The authentication under way.
    pub(super) exchange: Option<Exchange>,
    /// What was said so far; none any more once it is signed.
    pub(super) transcript: Option<Box<Transcript>>,
    /// Frames received before the session was ready.
    pub(super) handshake_frames: u32,
    /// SESSION_RETRY answers among them.
    pub(super) retries: u32,
    /// The tid of the message whose data lands in a buffer of the application.
    pub(super) lent: Option<u64>,
    /// Held by an interceptor: only this many bytes of the outbox may leave, and nothing is read.
    pub(super) frozen_at: Option<usize>,
    /// What it was held in the middle of: becoming ready, for the first time or again.
    pub(super) ready_when_resumed: Option<bool>,
}

impl Transport {
    pub(super) fn new(side: Side, options: &SessionOptions, limits: &Limits) -> Self {
        let wire = Wire { revision: Revision::Rev1, crc_data: options.crc_data };
        let unauthenticated_len = limits.unauthenticated_bytes / BUFFERS;
        Self {
            side,
            phase: Phase::Banner,
            failed: None,
            encoder: Encoder::new(wire),
            decoder: Decoder::new(wire),
            v1: None,
            negotiates_compression: false,
            reading: Reading::BannerPrefix,
            inbox: Inbox::new(options.read_ahead_len.min(unauthenticated_len)),
            outbox: Outbox::default(),
            exchange: None,
            transcript: Some(Box::new(Transcript::new(unauthenticated_len))),
            handshake_frames: 0,
            retries: 0,
            lent: None,
            frozen_at: None,
            ready_when_resumed: None,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    /// Whether more bytes can be taken.
    pub(super) fn is_reading(&self) -> bool {
        !matches!(self.phase, Phase::Judging(_))
            && !matches!(self.reading, Reading::Admission(_))
            && !self.is_frozen()
    }

    /// Whether an interceptor holds it.
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen_at.is_some()
    }

    /// Gives back what the application lent for a message that will not complete here.
    pub(super) fn return_buffer(&mut self, buffers: &RxBuffers) {
        if let Some(tid) = self.lent.take() {
            match self.inbox.displace() {
                Some(buffer) => buffers.restore(tid, buffer),
                None => buffers.spend(tid), // whole, and then its checksum was wrong
            }
        }
    }

    /// The banners agree on how frames look.
    pub(super) fn set_wire(&mut self, wire: Wire) {
        (self.encoder, self.decoder) = (Encoder::new(wire), Decoder::new(wire));
    }

    /// Every later frame is sealed, both ways.
    pub(super) fn secure(&mut self, secret: &ConnectionSecret) -> Result<(), ProtocolError> {
        let role = match self.side {
            Side::Dialler => Role::Client,
            Side::Acceptor => Role::Server,
        };
        let (sealing, opening) = secret.keys(role, self.encoder.revision())?;
        self.encoder.secure(sealing);
        self.decoder.secure(opening);
        Ok(())
    }

    /// Later frames may be compressed as agreed.
    pub(super) fn compress(&mut self, compression: Option<Compression>) {
        self.encoder.compress(compression);
        self.decoder.decompress(compression);
    }

    /// Queues a control frame behind everything written so far.
    pub(super) fn send<C: Control>(&mut self, payload: &C) {
        let (encoder, transcript) = (&mut self.encoder, &mut self.transcript);
        let written = self.outbox.write(|out| {
            let at = out.len();
            encoder.control(payload, out)?;
            if let Some(transcript) = transcript {
                transcript.send(&out[at..]);
            }
            Ok(())
        });
        if let Err(error) = written {
            self.failed = Some(error);
        }
    }

    /// Queues a sign of life.
    pub(super) fn send_keepalive(&mut self, stamp: Utime) {
        match &self.v1 {
            Some(V1::Open(link)) => self.outbox.write(|out| link.encoder.keepalive2(stamp, out)),
            _ => self.send(&Keepalive2(stamp)),
        }
    }

    /// Queues the answer to the peer's.
    pub(super) fn send_keepalive_ack(&mut self, stamp: Utime) {
        match &self.v1 {
            Some(V1::Open(link)) => {
                self.outbox.write(|out| link.encoder.keepalive2_ack(stamp, out));
            }
            _ => self.send(&Keepalive2Ack(stamp)),
        }
    }

    /// Queues that everything up to message `seq` arrived.
    pub(super) fn send_ack(&mut self, seq: u64) {
        match &self.v1 {
            Some(V1::Open(link)) => self.outbox.write(|out| link.encoder.ack(seq, out)),
            _ => self.send(&Ack(seq)),
        }
    }

    /// Whether messages acknowledge what was received before them.
    pub(super) fn acks_with_messages(&self) -> bool {
        self.v1.is_none()
    }

    /// Queues a message of ours, who are `source`; everything up to message `in_seq` arrived here.
    /// In crc mode its sections are referenced, not copied, unless they are short.
    pub(super) fn send_message(&mut self, message: &Message, in_seq: u64, source: EntityName) {
        let sections = [&message.front, &message.middle, &message.data];
        match &self.v1 {
            Some(V1::Open(link)) => {
                let write =
                    |out: &mut _| link.encoder.message(&message.header, source, sections, out);
                let tail = self.outbox.write(write);
                tail.sections.iter().for_each(|section| self.outbox.push(section));
                self.outbox.write(|out| out.extend_from_slice(tail.footer.as_bytes()));
            }
            _ => self.send_frame(&header::encode(&message.header, in_seq), sections),
        }
    }

    fn send_frame(&mut self, head: &[u8], sections: [&Bytes; SEGMENTS_MAX - 1]) {
        let first = |writer: &mut Writer<'_>| writer.bytes(head);
        // The common case, spared everything that sealing needs.
        let encoder = &mut self.encoder;
        if encoder.is_plain() {
            let [front, middle, data] = sections;
            let rest: [&[u8]; SEGMENTS_MAX - 1] = [front, middle, data];
            let epilogue =
                self.outbox.write(|out| encoder.begin_plain(Tag::Message, first, rest, out));
            sections.into_iter().for_each(|section| self.outbox.push(section));
            self.outbox.write(|out| out.extend_from_slice(epilogue.as_bytes()));
            return;
        }
        match self.outbox.write(|out| encoder.begin(Tag::Message, first, sections, out)) {
            Ok(tail) => {
                tail.sections.iter().for_each(|section| self.outbox.push(section));
                self.outbox.write(|out| out.extend_from_slice(tail.epilogue.as_bytes()));
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// Queues the banner, which comes before every frame.
    pub(super) fn send_banner(&mut self, banner: &Banner) {
        let bytes = banner.encode();
        self.outbox.write(|out| out.extend_from_slice(&bytes));
        if let Some(transcript) = &mut self.transcript {
            transcript.send(&bytes);
        }
    }

    /// The next `len` bytes, if they are all there.
    pub(super) fn take(&mut self, len: usize) -> Result<Option<Bytes>, ProtocolError> {
        let Some(piece) = self.inbox.take(len) else {
            return Ok(None);
        };
        self.note(&piece)?;
        Ok(Some(piece))
    }

    /// The peer said this; a transcript, as long as there is one, keeps it.
    #[inline]
    fn note(&mut self, piece: &[u8]) -> Result<(), ProtocolError> {
        match &mut self.transcript {
            None => Ok(()),
            Some(transcript) => transcript.receive(piece),
        }
    }

    /// The preamble of the next frame, once it is there.
    pub(super) fn read_preamble(&mut self) -> Result<Option<Preamble>, ProtocolError> {
        if self.decoder.is_secure() {
            let Some(head) = self.take(self.decoder.head_len())? else {
                return Ok(None);
            };
            return self.decoder.begin(head).map(Some);
        }
        let Some(head) = self.inbox.peek(PREAMBLE_LEN).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        if let Some(transcript) = &mut self.transcript {
            transcript.receive(head)?;
        }
        let preamble = self.decoder.begin_plain(head)?;
        self.inbox.skip(PREAMBLE_LEN);
        Ok(Some(preamble))
    }

    /// Takes the body of a message at once, if all of it is at hand and nobody else has a say in
    /// where it goes: the common case of small messages, which costs no buffers but those of the
    /// sections. Once a message was admitted; its transcript is long gone.
    pub(super) fn read_whole(
        &mut self,
        buffers: &RxBuffers,
    ) -> Result<Option<Whole>, ProtocolError> {
        if self.is_frozen() || buffers.count() > 0 {
            return Ok(None);
        }
        let Some(frame) = self.decoder.in_place() else {
            return Ok(None);
        };
        let Some(body) = self.inbox.at_hand().get(..frame.body_len()) else {
            return Ok(None);
        };
        let (whole_len, rest_at) = (body.len(), frame.rest_at());
        if frame.check(body)? {
            self.inbox.skip(whole_len);
            self.inbox.end_frame();
            return Ok(Some(Whole::Aborted));
        }
        let (head_len, lens) = frame.lens();
        let (header, ack_seq) = header::decode(&body[..head_len]).map_err(bad_header)?;
        self.inbox.skip(rest_at);
        let sections = lens.map(|len| self.inbox.cut(len));
        self.inbox.skip(whole_len - rest_at - lens.iter().sum::<usize>());
        self.inbox.end_frame();
        Ok(Some(Whole::Message { header, ack_seq, sections }))
    }

    /// The message that waited at the throttles may be read.
    pub(super) fn read_admitted(&mut self, body: Body) {
        match &mut self.v1 {
            Some(V1::Open(link)) => {
                link.admit(body.stamps, body.permits);
                self.reading = Reading::V1;
            }
            _ => self.reading = Reading::Body(body),
        }
    }

    /// The frame whose body is being read, once its last byte is there.
    pub(super) fn read_body(
        &mut self,
        buffers: &RxBuffers,
    ) -> Result<Option<Received>, ProtocolError> {
        while let Some(len) = self.decoder.wants() {
            if buffers.count() > 0
                && !self.inbox.is_placed()
                && let Some(head) = self.decoder.head_before(DATA_SEGMENT)
                && let Ok((header, _)) = header::decode(head)
                && let Some(buffer) = buffers.lend(header.tid, len)
            {
                self.lent = Some(header.tid);
                self.inbox.place(buffer);
            }
            let Some(piece) = self.inbox.take(len) else {
                return Ok(None);
            };
            self.note(&piece)?;
            self.decoder.push(piece)?;
        }
        let Reading::Body(body) = &mut self.reading else {
            return Ok(None);
        };
        let mut frame = self.decoder.finish(&body.limits)?;
        let (stamps, mut permits) = (body.stamps, std::mem::take(&mut body.permits));
        if !self.decoder.reads_in_place() {
            let len: usize = frame.segments[1..].iter().map(Bytes::len).sum();
            permits.grow((len as u64).saturating_sub(body.wire_len));
        }
        self.reading = Reading::Preamble;
        if let Some(tid) = self.lent.take() {
            buffers.spend(tid);
        } else if buffers.count() > 0 && !self.decoder.reads_in_place() {
            copy_to_posted(&mut frame, buffers);
        }
        self.inbox.end_frame();
        Ok(Some(Received { frame, stamps, permits }))
    }
}

/// A message's header that cannot be read.
pub(super) fn bad_header(error: DecodeError) -> ProtocolError {
    ProtocolError::Payload { what: Tag::Message.name(), error }
}

/// What was sealed or packed could not arrive in a buffer of the application, but ends there.
fn copy_to_posted(frame: &mut Frame, buffers: &RxBuffers) {
    let [head, .., data] = &mut frame.segments;
    if frame.tag == Tag::Message.to_wire()
        && !frame.aborted
        && !data.is_empty()
        && let Ok((header, _)) = header::decode(head)
        && let Some(mut buffer) = buffers.lend(header.tid, data.len())
    {
        buffer.copy_from_slice(data);
        *data = buffer.freeze();
        buffers.spend(header.tid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::EntityType;

    #[test]
    fn a_used_up_key_fails_the_transport_and_writes_nothing() {
        let (options, limits) = (SessionOptions::default(), Limits::default());
        let mut transport = Transport::new(Side::Dialler, &options, &limits);
        let secret = ConnectionSecret::new(&std::array::from_fn::<u8, 64, _>(|at| at as u8));
        let (mut sealing, _) = secret.unwrap().keys(Role::Client, Revision::Rev1).unwrap();
        sealing.leave(1);
        transport.encoder.secure(sealing);
        transport.send(&Ack(1));
        let len = transport.outbox.len();
        assert!(len > 0 && transport.failed.is_none());
        transport.send_message(&Message::new(1), 0, EntityName::new(EntityType::Client, 1));
        transport.send(&Ack(2));
        assert_eq!(transport.failed, Some(ProtocolError::KeyUsedUp));
        assert_eq!(transport.outbox.len(), len);
    }
}
