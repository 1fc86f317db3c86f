//! From bytes to frames, and from frames to what they mean in the present phase.
//!
//! Checks are made in Ceph's order with our limits first, and all of them before anything is
//! allocated for what a peer announced.

use std::time::Instant;

use crate::error::ProtocolError;
use crate::identity::Limits;
use crate::message::{MessagePermits, ReceiveStamps};
use crate::session::admission::Admission;
use crate::session::transport::{Body, HANDSHAKE_FRAMES_MAX, Phase, Reading, Received, Side};
use crate::session::{Fault, Session, State, Step};
use crate::v1;
use crate::v2::banner::PREFIX_LEN;
use crate::v2::control::SessionRetry;
use crate::v2::preamble::SEGMENTS_MAX;
use crate::v2::{Banner, Control, Preamble, Tag, Wire};

/// Bytes that tell msgr2 from msgr1.
const EITHER_LEN: usize = 8;

/// Most bytes of each segment of a message.
fn message_limits(limits: &Limits) -> [u32; SEGMENTS_MAX] {
    [limits.control_len, limits.front_len, limits.middle_len, limits.data_len]
}

/// Whether to go on with the bytes at hand.
type Progress = Result<bool, ProtocolError>;

impl Session {
    /// Uses up the bytes at hand. An error has become a fault when this returns.
    pub(super) fn advance(&mut self, now: Instant) -> Result<(), ProtocolError> {
        self.advance_behind(now, Ok(()))
    }

    /// The same behind what was `done` already; if that failed, the error is a fault, too.
    pub(super) fn advance_behind(
        &mut self,
        now: Instant,
        done: Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let mut progress = done.map(|()| true);
        loop {
            match progress {
                Ok(true) => progress = self.step(now),
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.fault(now, Fault::Protocol(error.clone()));
                    return Err(error);
                }
            }
        }
    }

    fn step(&mut self, now: Instant) -> Progress {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(false);
        };
        if matches!(transport.phase, Phase::Judging(_)) || transport.is_frozen() {
            return Ok(false);
        }
        match &mut transport.reading {
            Reading::EitherBanner => {
                let Some(start) = transport.inbox.peek(EITHER_LEN) else {
                    return Ok(false);
                };
                if v1::banner::MAGIC.starts_with(start) {
                    self.begin_v1();
                } else {
                    self.begin_v2();
                }
                Ok(true)
            }
            Reading::V1 => self.step_v1(now),
            Reading::BannerPrefix => {
                let Some(prefix) = transport.take(PREFIX_LEN)? else {
                    return Ok(false);
                };
                let prefix = prefix[..].try_into().expect("as long as asked for");
                let len = Banner::decode_prefix(prefix, self.identity.limits.banner_len)?;
                transport.reading = Reading::BannerPayload(len);
                let step = match transport.side {
                    Side::Dialler => Step::ClientBannerSeen,
                    Side::Acceptor => Step::ServerBannerSeen,
                };
                Ok(self.passes(step))
            }
            Reading::BannerPayload(len) => {
                let len = *len;
                let Some(payload) = transport.take(len)? else {
                    return Ok(false);
                };
                let theirs = Banner::decode_payload(&payload)?;
                let options = &self.identity.options;
                let ours = options.banner();
                let revision = ours.negotiate(&theirs)?;
                transport.negotiates_compression = ours.negotiates_compression(&theirs);
                let crc_data = options.crc_data;
                transport.set_wire(Wire { revision, crc_data });
                transport.reading = Reading::Preamble;
                let step = match transport.side {
                    Side::Dialler => Step::ClientBannerDone,
                    Side::Acceptor => Step::ServerBannerDone,
                };
                if self.passes(step) {
                    self.greet();
                }
                Ok(true)
            }
            Reading::Preamble => {
                let Some(preamble) = transport.read_preamble()? else {
                    return Ok(false);
                };
                self.on_preamble(now, preamble)?;
                Ok(true)
            }
            Reading::Admission(admission) => {
                if !admission.advance(now, &self.unblock) {
                    return Ok(false);
                }
                let body = Body {
                    limits: message_limits(&self.identity.limits),
                    wire_len: admission.wire_len,
                    stamps: admission.stamps,
                    permits: std::mem::take(&mut admission.permits),
                };
                transport.read_admitted(body);
                Ok(true)
            }
            Reading::Body(_) => {
                let Some(received) = transport.read_body(&self.rx_buffers)? else {
                    return Ok(false);
                };
                self.on_frame(now, received)?;
                Ok(true)
            }
        }
    }

    fn on_preamble(&mut self, now: Instant, preamble: Preamble) -> Result<(), ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        let (tag, limits) = (preamble.tag, self.identity.limits);
        if tag != Tag::Message.to_wire() {
            let mut control_len = limits.control_len;
            if let Some(transcript) = &transport.transcript {
                control_len = control_len.min(u32::try_from(transcript.room()).unwrap_or(u32::MAX));
            }
            let limits = [control_len; SEGMENTS_MAX];
            preamble.check_lens(&limits)?;
            transport.reading = Reading::Body(Body {
                limits,
                wire_len: 0,
                stamps: ReceiveStamps::default(),
                permits: MessagePermits::default(),
            });
            return Ok(());
        }
        if !transport.is_ready() {
            return Err(ProtocolError::UnexpectedTag { tag, state: transport.phase.name() });
        }
        if !self.passes(Step::MessageSeen) {
            return Ok(());
        }
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        let limits = message_limits(&limits);
        preamble.check_lens(&limits)?;
        let dispatch = self.identity.dispatch_throttle.as_ref();
        let wire_len = preamble.payload_len();
        match Admission::request(now, wire_len, &self.policy, dispatch, &self.unblock) {
            Ok(permits) => match transport.read_whole(&self.rx_buffers)? {
                Some(whole) => self.on_whole(now, permits, whole),
                None => {
                    let stamps = ReceiveStamps::admitted(now);
                    transport.reading = Reading::Body(Body { limits, wire_len, stamps, permits });
                }
            },
            Err(admission) => {
                self.stats.throttle_waits += 1;
                transport.reading = Reading::Admission(admission);
            }
        }
        Ok(())
    }

    /// What a frame means depends on who dialled and how far the handshake has come.
    fn on_frame(&mut self, now: Instant, received: Received) -> Result<(), ProtocolError> {
        let State::Open { transport, .. } = &mut self.state else {
            return Ok(());
        };
        if !transport.is_ready() {
            transport.handshake_frames += 1;
            let frames = transport.handshake_frames;
            if frames > HANDSHAKE_FRAMES_MAX {
                return Err(ProtocolError::HandshakeTooLong { frames });
            }
        }
        if received.frame.aborted {
            self.stats.aborted_frames += 1;
            return Ok(());
        }
        let tag = received.frame.tag;
        let Some(known) = Tag::from_wire(tag) else {
            return Err(ProtocolError::UnknownTag { tag });
        };
        let payload = &received.frame.segments[0];
        match (transport.side, &transport.phase, known) {
            (_, Phase::Hello, Tag::Hello) => self.on_hello(&Control::parse(payload)?),

            (Side::Acceptor, Phase::Auth, Tag::AuthRequest) => {
                self.on_auth_request(&Control::parse(payload)?)
            }
            (Side::Acceptor, Phase::AuthMore, Tag::AuthRequestMore) => {
                self.on_auth_request_more(&Control::parse(payload)?)
            }
            (Side::Dialler, Phase::Auth | Phase::AuthMore, Tag::AuthDone) => {
                self.on_auth_done(&Control::parse(payload)?)
            }
            (Side::Dialler, Phase::Auth | Phase::AuthMore, Tag::AuthBadMethod) => {
                self.on_auth_bad_method(&Control::parse(payload)?)
            }
            (Side::Dialler, Phase::Auth | Phase::AuthMore, Tag::AuthReplyMore) => {
                self.on_auth_reply_more(&Control::parse(payload)?)
            }
            (_, Phase::Signature(expected), Tag::AuthSignature) => {
                let expected = *expected;
                self.on_signature(&Control::parse(payload)?, &expected)
            }

            (Side::Acceptor, Phase::Compression, Tag::CompressionRequest) => {
                self.on_compression_request(&Control::parse(payload)?);
                Ok(())
            }
            (Side::Dialler, Phase::Compression, Tag::CompressionDone) => {
                self.on_compression_done(Control::parse(payload)?)
            }

            (Side::Acceptor, Phase::Accepting, Tag::ClientIdent) => {
                self.on_client_ident(Control::parse(payload)?)
            }
            (Side::Acceptor, Phase::Accepting, Tag::SessionReconnect) => {
                self.on_session_reconnect(Control::parse(payload)?)
            }
            (Side::Dialler, Phase::Connecting, Tag::ServerIdent) => {
                self.on_server_ident(now, Control::parse(payload)?)
            }
            (Side::Dialler, Phase::Connecting, Tag::IdentMissingFeatures) => {
                self.on_missing_features(Control::parse(payload)?)
            }
            (Side::Dialler, Phase::Connecting | Phase::Resuming, Tag::Wait) => {
                self.fault(now, Fault::Wait);
                Ok(())
            }
            (Side::Dialler, Phase::Resuming, Tag::SessionReconnectOk) => {
                self.on_reconnect_ok(now, Control::parse(payload)?);
                Ok(())
            }
            (Side::Dialler, Phase::Resuming, Tag::SessionRetry) => {
                let SessionRetry(theirs) = Control::parse(payload)?;
                self.retry(now, theirs.saturating_add(1));
                Ok(())
            }
            (Side::Dialler, Phase::Resuming, Tag::SessionRetryGlobal) => {
                self.on_retry_global(Control::parse(payload)?);
                Ok(())
            }
            (Side::Dialler, Phase::Resuming, Tag::SessionReset) => {
                self.on_session_reset(Control::parse(payload)?);
                Ok(())
            }

            (_, Phase::Ready, Tag::Message) => self.on_message_frame(now, received),
            (_, Phase::Ready, Tag::Ack) => {
                self.on_ack(&Control::parse(payload)?);
                Ok(())
            }
            (_, Phase::Ready, Tag::Keepalive2) => {
                self.on_keepalive(now, Control::parse(payload)?);
                Ok(())
            }
            (_, Phase::Ready, Tag::Keepalive2Ack) => {
                self.on_keepalive_ack(Control::parse(payload)?);
                Ok(())
            }
            (_, phase, _) => Err(ProtocolError::UnexpectedTag { tag, state: phase.name() }),
        }
    }
}
