//! Places where a test can stop a session: twenty numbered steps of its life (semantics 1.12).
//!
//! An [`Interceptor`] is asked at each step before anything of it is on the wire, and decides how
//! to go on. *Hold* freezes the transport: what had been written before the step still leaves,
//! nothing behind it does, and nothing is read, until [`Session::resume`](super::Session::resume)
//! says how it goes on. Time goes on meanwhile, so the watchdogs see a held session as a silent
//! one. A session without an interceptor pays one test of an option a step.

use std::fmt;

use crate::session::{CloseReason, Fault, Session, State};

/// A numbered step; the numbers are those of Ceph's unit tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// A dialled transport opened; our banner comes next.
    ClientBanner = 1,
    /// A transport was accepted; our banner comes next.
    ServerBanner = 2,
    /// The dialler's banner was written.
    ClientBannerSent = 3,
    /// The acceptor's banner was written.
    ServerBannerSent = 4,
    /// The dialler saw the start of the peer's banner.
    ClientBannerSeen = 5,
    /// The acceptor saw the start of the peer's banner.
    ServerBannerSeen = 6,
    /// The dialler saw the peer's whole banner.
    ClientBannerDone = 7,
    /// The acceptor saw the peer's whole banner.
    ServerBannerDone = 8,
    /// AUTH_REQUEST comes next.
    AuthRequest = 9,
    /// AUTH_REQUEST arrived.
    AuthRequestSeen = 10,
    /// CLIENT_IDENT comes next.
    ClientIdent = 11,
    /// SERVER_IDENT comes next.
    ServerIdent = 12,
    /// SESSION_RECONNECT comes next.
    Reconnect = 13,
    /// SESSION_RECONNECT_OK comes next.
    ReconnectOk = 14,
    /// The session is about to be ready.
    Ready = 15,
    /// A message's preamble arrived.
    MessageSeen = 16,
    /// A message arrived whole; it counts as received only behind this step.
    MessageDecoded = 17,
    /// SESSION_RETRY comes next.
    SessionRetry = 18,
    /// COMPRESSION_REQUEST comes next, if both banners offer compression.
    CompressionRequest = 19,
    /// COMPRESSION_REQUEST arrived.
    CompressionRequestSeen = 20,
}

/// How a session goes on at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// As if nobody had asked.
    Continue,
    /// The transport breaks here.
    Fail,
    /// The session ends here, with a reset.
    Stop,
    /// Nothing moves until [`Session::resume`](super::Session::resume).
    Hold,
}

/// Decides about the steps of one session, on the session's thread.
pub struct Interceptor(Box<dyn FnMut(Step) -> Action + Send>);

impl Interceptor {
    /// One that asks `decide`.
    pub fn new(decide: impl FnMut(Step) -> Action + Send + 'static) -> Self {
        Self(Box::new(decide))
    }
}

impl fmt::Debug for Interceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interceptor")
    }
}

impl Session {
    /// Installs what decides about the steps. An accepted session has taken its first two by then:
    /// they are asked about at once, while nothing has left.
    pub fn set_interceptor(&mut self, interceptor: Interceptor) {
        self.interceptor = Some(interceptor);
        if let State::Open { transport, .. } = &self.state {
            let banner = transport.outbox.len();
            let _ = self.passes_behind(Step::ServerBanner, 0)
                && self.passes_behind(Step::ServerBannerSent, banner);
        }
    }

    /// Goes on after a hold: [`Action::Fail`] breaks the transport, [`Action::Stop`] ends the
    /// session, anything else lets it continue. Does nothing to a session that is not held.
    /// Whether it was.
    pub fn resume(&mut self, now: std::time::Instant, action: Action) -> bool {
        self.now = now;
        let Some(transport) = self.transport() else {
            return false;
        };
        if transport.frozen_at.take().is_none() {
            return false;
        }
        let becomes_ready = transport.ready_when_resumed.take();
        if self.obey(action) {
            if let Some(reconnected) = becomes_ready {
                self.enter_ready(now, reconnected);
            }
            // What it was reading goes on; an error is dealt with as ever.
            let _ = self.advance(now);
        }
        true
    }

    /// Asks about a step that comes behind everything written so far. False: the transport is
    /// gone.
    pub(super) fn passes(&mut self, step: Step) -> bool {
        if self.interceptor.is_none() {
            return true;
        }
        let written = self.transport().map_or(0, |transport| transport.outbox.len());
        self.passes_behind(step, written)
    }

    /// The same for a step that comes behind the first `written` bytes.
    fn passes_behind(&mut self, step: Step, written: usize) -> bool {
        let action = match &mut self.interceptor {
            Some(interceptor) => (interceptor.0)(step),
            None => Action::Continue,
        };
        if action == Action::Hold
            && let Some(transport) = self.transport()
        {
            transport.frozen_at.get_or_insert(written);
        }
        self.obey(action)
    }

    fn obey(&mut self, action: Action) -> bool {
        match action {
            Action::Continue | Action::Hold => return true,
            Action::Fail => self.fault(self.now, Fault::Injected),
            Action::Stop => {
                self.hang_up();
                self.die(CloseReason::Fault(Fault::Injected));
            }
        }
        false
    }
}
