//! What all sessions of one messenger share: who we are, how we behave, what we allow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::addr::{AddrType, EntityAddr, EntityAddrVec};
use crate::auth::{Auth, AuthName};
use crate::entity::EntityName;
use crate::policy::PolicySet;
use crate::throttle::Throttle;
use crate::v2::{Banner, CompressionOptions, Revision};

/// Shared by the sessions of a messenger behind an `Arc`; replaced by a new one when the address
/// changes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Our type and number.
    pub name: EntityName,
    /// Our addresses. A client that listens nowhere has one `EntityAddr::unbound(nonce)`; blank IP
    /// addresses are filled per session with what the peer sees.
    pub addrs: EntityAddrVec,
    /// Where we listen, nonces left out: the type of the address tells what is spoken with whom comes
    /// there, either protocol where there are two. Where none is, it is msgr2.
    pub listening: Vec<EntityAddr>,
    /// Session rules by type of peer.
    pub policies: PolicySet,
    /// What a peer may announce or make us keep.
    pub limits: Limits,
    /// Timers and switches.
    pub options: SessionOptions,
    /// How we and our peers authenticate.
    pub auth: Arc<Auth>,
    /// Ties `Instant`s to Unix time.
    pub anchor: UnixAnchor,
    /// The messenger's counter of connection attempts.
    pub global_seq: Arc<GlobalSeq>,
    /// The messenger's budget for received bytes that were not dispatched yet (contract T-1).
    pub dispatch_throttle: Option<Arc<Throttle>>,
}

impl Identity {
    /// Which protocols are spoken with whom comes to `local`; by its banner it chooses among them.
    pub(crate) fn spoken_at(&self, local: SocketAddr) -> Spoken {
        let speaks = |kind: AddrType| {
            self.listening.iter().filter(|addr| addr.kind == kind).any(|addr| {
                let listener = addr.with_ip_if_blank(local.ip()).socket;
                listener == Some(local)
            })
        };
        match (speaks(AddrType::Legacy), speaks(AddrType::Msgr2)) {
            (true, true) => Spoken::Either,
            (true, false) => Spoken::V1,
            (false, _) => Spoken::V2,
        }
    }

    /// Every budget that received messages have to pass, each once.
    pub fn throttles(&self) -> Vec<&Arc<Throttle>> {
        let mut throttles = self.policies.throttles();
        throttles.extend(&self.dispatch_throttle);
        throttles
    }
}

/// What is spoken on a transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    V1,
    V2,
    Either,
}

/// Upper bounds, each checked before anything is allocated for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message's first section.
    pub front_len: u32,
    /// Bytes of a message's second section.
    pub middle_len: u32,
    /// Bytes of a message's third section.
    pub data_len: u32,
    /// Bytes of a control frame's payload; before a session is ready, of any frame's.
    pub control_len: u32,
    /// Bytes that a peer which has not authenticated may have us hold: a quarter each for what is
    /// read ahead, the frame being read, what was said so far, and our answers. So the quarter is
    /// what it may say altogether.
    pub unauthenticated_bytes: usize,
    /// Bytes of a banner's payload.
    pub banner_len: u16,
    /// Payload bytes a session queues for sending, sent but unacknowledged ones included. One
    /// message is always taken by an empty queue.
    pub queue_bytes: usize,
    /// Messages a session queues for sending, sent but unacknowledged ones included.
    pub queue_messages: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            front_len: 16 << 20,
            middle_len: 16 << 20,
            data_len: 128 << 20,
            control_len: 64 << 10,
            unauthenticated_bytes: 64 << 10,
            banner_len: 4 << 10,
            queue_bytes: 100 << 20,
            queue_messages: 10_000,
        }
    }
}

/// Timers and switches of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// Send and check segment checksums. Off, segments beyond the first are sent with zeros and
    /// nothing but preambles is checked; both sides must agree.
    pub crc_data: bool,
    /// The newest frame format we offer.
    pub revision: Revision,
    /// Which frames we offer to compress.
    pub compression: CompressionOptions,
    /// Wait before the second dial; doubles with each failure (contract L-10).
    pub initial_backoff: Duration,
    /// Longest wait between dials, and the wait after a WAIT (contract L-8).
    pub max_backoff: Duration,
    /// Time from dialling or accepting until the session must be ready (contract K-4).
    pub ready_timeout: Duration,
    /// Time without progress after which a ready session faults (contract K-5).
    pub idle_timeout: Duration,
    /// Bytes read ahead of what is needed; a buffer of this size exists only while data arrives.
    pub read_ahead_len: usize,
    /// Name under which we authenticate, without the type: `admin` for `client.admin`. Empty
    /// stands for our number.
    pub auth_id: String,
}

impl SessionOptions {
    /// The name under which an entity authenticates: its number if it has one and no other id is
    /// set; a client without either is `client.admin`.
    pub fn auth_name(&self, name: EntityName) -> AuthName {
        let id = match self.auth_id.as_str() {
            "" if name.number < 0 => "admin".to_owned(),
            "" => name.number.to_string(),
            id => id.to_owned(),
        };
        AuthName::new(name.kind, id)
    }

    /// The banner we begin every transport with.
    pub(crate) fn banner(&self) -> Banner {
        Banner::offering(self.revision, self.compression.is_offered())
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            crc_data: true,
            revision: Revision::Rev1,
            compression: CompressionOptions::default(),
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(15),
            ready_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(900),
            read_ahead_len: 16 << 10,
            auth_id: String::new(),
        }
    }
}

/// One moment on both clocks, so that wire stamps can be made from `Instant`s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixAnchor {
    /// The moment on the monotonic clock.
    pub instant: Instant,
    /// The same moment since the Unix epoch.
    pub unix: Duration,
}

impl UnixAnchor {
    /// Time since the Unix epoch at `now`.
    pub fn unix_at(&self, now: Instant) -> Duration {
        match now.checked_duration_since(self.instant) {
            Some(later) => self.unix.saturating_add(later),
            None => self.unix.saturating_sub(self.instant.duration_since(now)),
        }
    }
}

/// The messenger-wide number of a connection attempt (msgr2: `global_seq`). Peers refuse attempts
/// older than the newest they saw.
#[derive(Debug, Default)]
pub struct GlobalSeq(AtomicU64);

impl GlobalSeq {
    /// A counter whose first number is 1.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.next_above(0)
    }

    /// The next number above `floor`, which a peer has seen already.
    pub fn next_above(&self, floor: u64) -> u64 {
        let step = |own: u64| Some(own.max(floor).saturating_add(1));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        before.unwrap_or_else(|own| own).max(floor).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_seq_rises_above_what_a_peer_has_seen() {
        let seq = GlobalSeq::new();
        assert_eq!((seq.next(), seq.next()), (1, 2));
        assert_eq!(seq.next_above(40), 41);
        assert_eq!(seq.next_above(7), 42);
    }

    #[test]
    fn an_anchor_counts_both_ways() {
        let instant = Instant::now() + Duration::from_secs(100);
        let anchor = UnixAnchor { instant, unix: Duration::from_secs(1_000) };
        let later = instant + Duration::from_secs(5);
        assert_eq!(anchor.unix_at(later), Duration::from_secs(1_005));
        assert_eq!(anchor.unix_at(instant - Duration::from_secs(5)), Duration::from_secs(995));
    }
}
