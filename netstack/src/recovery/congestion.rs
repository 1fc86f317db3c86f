//! How much may be on its way: NewReno, or a CUBIC that knows accidents.
//!
//! Bytes are counted, not acknowledgements: one of these can stand for a whole burst. So there is
//! also no limit on what one of them adds (RFC 3465 has one of two segments).
//!
//! **Accidents.** A sender that reduces its window for each loss needs networks that lose next to
//! nothing: at a round trip of 100 µs and 10 Gb/s, losing one segment in a hundred leaves
//! NewReno a sixth of the link. But a loss without a queue is no congestion. So CUBIC
//! here looks at the round trip in which something was lost:
//!
//! * If some of it was as short as round trips get, and fewer than one in [`LOST_SHARE`] segments
//!   are lost of late, the window stays as it is, and grows on.
//! * Else it is reduced, but not below what was got through in a round trip of late, less the
//!   share that waited in queues (the idea is TCP Westwood's).
//!
//! If a full queue is the reason, round trips are longer and windows far above that floor; they
//! are reduced as always, and flows come to equal shares. Where queues hold less than an eighth of
//! what the path does, losses up to that share go unheeded: the price of not being slowed down by
//! bad cables. [`Congestion::Reno`] does none of this.

use super::scoreboard::before;
use crate::native::Congestion;

/// CUBIC's factors (RFC 9438 section 4).
const C: f64 = 0.4;
const BETA_CUBIC: f64 = 0.7;
/// Growth per round trip that is fair to NewReno, in segments (RFC 9438 section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA_CUBIC) / (1.0 + BETA_CUBIC);
const BETA_RENO: f64 = 0.5;
/// Initial window in segments (RFC 6928).
const INITIAL: u32 = 10;
/// Beyond any window a peer can offer.
const CWND_MAX: u32 = 1 << 30;
/// Round trips of which the best counts.
const ROUNDS: usize = 10;
/// A round trip that is longer than the least by less than this part of it has met no queue.
const QUEUE_SHARE: u32 = 8;
/// Losses of more than this part of what arrives are no accident.
const LOST_SHARE: u64 = 12;

/// The congestion window of a connection, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Control {
    kind: Congestion,
    mss: u32,
    cwnd: u32,
    ssthresh: u32,
    /// NewReno: bytes acknowledged towards the next segment.
    credit: u32,
    /// CUBIC: the window at the last reduction, and the curve since.
    w_max: f64,
    w_est: f64,
    k_s: f64,
    origin: f64,
    /// When the curve began; `None`: with the next acknowledgement.
    epoch: Option<u64>,
    /// The last losses were no reason to reduce the window.
    is_accident: bool,
    /// As it was before the last reduction.
    before: Option<(u32, u32, f64)>,
    path: Path,
}

impl Control {
    pub(super) fn new(kind: Congestion, mss: u32) -> Self {
        Self {
            kind,
            mss,
            cwnd: INITIAL * mss,
            ssthresh: CWND_MAX,
            credit: 0,
            w_max: 0.0,
            w_est: 0.0,
            k_s: 0.0,
            origin: 0.0,
            epoch: None,
            is_accident: false,
            before: None,
            path: Path::default(),
        }
    }

    /// What may be on its way; the peer's own window is another matter.
    pub(super) fn window(&self) -> u32 {
        if self.kind == Congestion::None { CWND_MAX } else { self.cwnd }
    }

    pub(super) fn mss(&self) -> u32 {
        self.mss
    }

    /// Whether the window grows while losses are being repaired: after a timeout, in slow start,
    /// and where they were no sign of congestion.
    pub(super) fn grows_in_repair(&self) -> bool {
        self.cwnd < self.ssthresh || self.is_accident
    }

    /// So many bytes have been acknowledged; `is_limited`: the window was in use.
    pub(super) fn on_ack(&mut self, now: u64, acked: u32, is_limited: bool, smoothed_us: u32) {
        if !is_limited || acked == 0 {
            return;
        }
        let mut acked = acked;
        if self.cwnd < self.ssthresh {
            let step = acked.min(self.ssthresh - self.cwnd);
            self.cwnd = (self.cwnd + step).min(CWND_MAX);
            acked -= step;
        }
        if acked > 0 && self.cwnd >= self.ssthresh {
            match self.kind {
                Congestion::Reno | Congestion::None => self.grow_reno(acked),
                Congestion::Cubic => self.grow_cubic(now, acked, smoothed_us),
            }
        }
    }

    fn grow_reno(&mut self, acked: u32) {
        self.credit = self.credit.saturating_add(acked);
        if self.credit >= self.cwnd {
            self.credit -= self.cwnd;
            self.cwnd = (self.cwnd + self.mss).min(CWND_MAX);
        }
    }

    fn grow_cubic(&mut self, now: u64, acked: u32, smoothed_us: u32) {
        let (cwnd, mss) = (f64::from(self.cwnd), f64::from(self.mss));
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.origin = self.w_max.max(cwnd);
            self.k_s = ((self.origin - cwnd) / mss / C).cbrt();
            self.w_est = cwnd;
            now
        });
        let t = (now - epoch + u64::from(smoothed_us)) as f64 / 1e6 - self.k_s;
        let curve = self.origin + C * t * t * t * mss;
        let share = f64::from(acked) / cwnd;
        let alpha = if self.w_est < self.w_max { ALPHA } else { 1.0 };
        self.w_est += alpha * share * mss;
        let grown = if curve < self.w_est {
            cwnd.max(self.w_est)
        } else {
            cwnd + (curve.clamp(cwnd, 1.5 * cwnd) - cwnd) * share.min(1.0)
        };
        self.cwnd = (grown as u32).min(CWND_MAX);
    }

    /// Something was lost, for the first time in a round trip. `least_us` is the least of those.
    pub(super) fn on_loss(&mut self, least_us: u32) {
        // In slow start queues fill within a round trip, and its least says nothing.
        self.is_accident = self.kind == Congestion::Cubic
            && self.cwnd >= self.ssthresh
            && self.path.is_free(least_us);
        if !self.is_accident {
            self.before = Some((self.cwnd, self.ssthresh, self.w_max));
            self.reduce();
            self.cwnd = self.ssthresh;
        }
    }

    /// Nothing has come back for the length of a timeout.
    pub(super) fn on_timeout(&mut self) {
        self.is_accident = false;
        if self.before.is_none() {
            self.before = Some((self.cwnd, self.ssthresh, self.w_max));
        }
        self.reduce();
        self.cwnd = self.mss;
    }

    fn reduce(&mut self) {
        let cwnd = f64::from(self.cwnd);
        let reduced = if self.kind == Congestion::Cubic {
            // Fast convergence, RFC 9438 section 4.7.
            let is_less = cwnd < self.w_max;
            self.w_max = if is_less { cwnd * (1.0 + BETA_CUBIC) / 2.0 } else { cwnd };
            ((cwnd * BETA_CUBIC) as u32).max(self.path.most.min(self.cwnd))
        } else {
            (cwnd * BETA_RENO) as u32
        };
        self.ssthresh = reduced.max(2 * self.mss);
        self.epoch = None;
        self.credit = 0;
    }

    /// What was taken for lost was only late.
    pub(super) fn undo(&mut self) {
        if let Some((cwnd, ssthresh, w_max)) = self.before.take() {
            self.cwnd = self.cwnd.max(cwnd);
            self.ssthresh = self.ssthresh.max(ssthresh);
            self.w_max = w_max;
            self.epoch = None;
        }
    }

    /// All losses are repaired.
    pub(super) fn on_repaired(&mut self) {
        self.before = None;
    }

    /// Nothing was sent for the length of a timeout: what was known of the network is out of date
    /// (RFC 5681 section 4.1).
    pub(super) fn on_idle(&mut self) {
        self.ssthresh = self.ssthresh.max(self.cwnd / 4 * 3);
        self.cwnd = self.cwnd.min(INITIAL * self.mss);
        self.epoch = None;
    }

    /// What arrived and what was found lost; `nxt` is the end of what was sent.
    pub(super) fn on_progress(&mut self, progress: &Progress) {
        if self.kind == Congestion::Cubic {
            self.path.on_progress(progress);
        }
    }
}

/// What an acknowledgement told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The end of the furthest segment that has arrived.
    pub(super) furthest: u32,
    pub(super) nxt: u32,
    pub(super) delivered: u32,
    pub(super) lost: u32,
    pub(super) round_trip_us: Option<u32>,
    /// The least round trip of late.
    pub(super) least_us: u32,
    /// The congestion window was in use.
    pub(super) is_limited: bool,
}

/// What the path holds when its queues are empty, and whether they are, by whole round trips.
#[derive(Clone, Debug, Default)]
struct Path {
    /// The round trip is over when this has arrived.
    end: Option<u32>,
    /// Of this round, and of the one before.
    rounds: [Round; 2],
    /// Bytes of late rounds, the older ones with less weight.
    delivered: u64,
    lost: u64,
    /// What the path held without its queues, in late rounds.
    holds: [u32; ROUNDS],
    next: usize,
    /// The most of these.
    most: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    delivered: u32,
    lost: u32,
    /// A burst waits behind itself, but its first segment does not: only a queue that is never
    /// empty shows in the least of a round. 0: nothing was measured.
    least_us: u32,
}

impl Path {
    fn on_progress(&mut self, progress: &Progress) {
        let round = &mut self.rounds[0];
        round.delivered = round.delivered.saturating_add(progress.delivered);
        round.lost = round.lost.saturating_add(progress.lost);
        if let Some(took) = progress.round_trip_us {
            round.least_us = if round.least_us == 0 { took } else { round.least_us.min(took) };
        }
        let end = *self.end.get_or_insert(progress.nxt);
        if before(progress.furthest, end) {
            return;
        }
        let Round { delivered, lost, least_us } = *round;
        self.rounds = [Round::default(), *round];
        if least_us > 0 {
            let holds = u64::from(delivered) * u64::from(progress.least_us) / u64::from(least_us);
            let holds = holds as u32; // the least of all is not more than that of a round
            // A sender without more to send says nothing about the network.
            if progress.is_limited || holds > self.most {
                self.holds[self.next] = holds;
                self.next = (self.next + 1) % ROUNDS;
                self.most = self.holds.iter().copied().max().unwrap_or(0);
            }
        }
        self.delivered = self.delivered / 8 * 7 + u64::from(delivered);
        self.lost = self.lost / 8 * 7 + u64::from(lost);
        self.end = Some(progress.nxt);
    }

    /// Whether there was a time without a queue in this round trip, and losses are few.
    fn is_free(&self, least_us: u32) -> bool {
        let most = least_us + least_us / QUEUE_SHARE;
        let measured = self.rounds.iter().map(|round| round.least_us).find(|least| *least > 0);
        let is_empty = measured.is_some_and(|least| least <= most);
        let (delivered, lost) =
            (u64::from(self.rounds[0].delivered), u64::from(self.rounds[0].lost));
        is_empty && (self.lost + lost) * LOST_SHARE <= self.delivered + delivered
    }
}
