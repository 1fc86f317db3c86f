//! The guard: which segments get to a connection's socket, against those who can only guess.
//!
//! Who is not on the path of a connection knows neither its sequence numbers nor what it has
//! acknowledged. smoltcp would let him end it by any reset within the window, and go on with data
//! whose acknowledgement is old. RFC 5961 asks for more, and for what it costs an honest peer:
//!
//! ```text
//!   segment -> in order? ---------------------------> recovery, smoltcp
//!                 |no
//!                 |-- reset, exactly where expected -> ends the connection
//!                 |-- reset in the window  ----.
//!                 |-- SYN                      |---> challenge: our acknowledgement. A peer that
//!                 |-- strange acknowledgement -'     knows nothing of us resets us exactly now
//!                 `-- other resets ------------> nothing
//! ```
//!
//! Challenges are rationed, for a connection and for a worker. A worker's ration is random: if it
//! were not, a stranger could use it up on a connection of his own and see by what is left
//! whether a guess about another one was good (CVE-2016-5696).
//!
//! `secret` has the numbers a stranger would have to guess, `seed` brings smoltcp to use them, and
//! `cookie` makes them memory for when there must be no other.

mod cookie;
mod secret;
mod seed;

pub(crate) use cookie::{COOKIE_PERIOD_TICKS, Offer};
pub(crate) use secret::Secret;
pub(crate) use seed::seed_for;

use crate::front::{TcpFlags, TcpView};

/// Most challenges of a connection in [`CONN_PERIOD_TICKS`] (RFC 5961 section 7).
pub(crate) const CHALLENGES_PER_CONN: u32 = 10;
/// Five seconds.
pub(crate) const CONN_PERIOD_TICKS: u64 = 5000;
/// Least challenges of a worker in [`WORKER_PERIOD_TICKS`]; the most is twice that, less one.
pub(crate) const CHALLENGES_PER_WORKER: u32 = 500;
/// A second.
pub(crate) const WORKER_PERIOD_TICKS: u64 = 1000;

/// What a connection knows when a segment comes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) stage: Stage,
    /// The oldest number of ours that is not acknowledged, and the next one.
    pub(crate) una: u32,
    pub(crate) nxt: u32,
    /// The largest window the peer has offered, in bytes.
    pub(crate) window_max: u32,
    /// The peer's next number, and how much from there we have offered to take.
    pub(crate) expected: u32,
    pub(crate) offered: u32,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// SYN-SENT: the peer's numbers are not known.
    Calling,
    /// SYN-RECEIVED: the peer has still to show that it knows ours.
    Answering,
    /// All later states.
    Open,
    /// CLOSED: smoltcp answers with a reset.
    Closed,
}

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The socket gets it.
    Pass,
    /// Nobody gets it.
    Drop(Suspect),
    /// Nobody gets it, and the peer is asked what it knows.
    Challenge(Suspect),
    /// It is answered with a reset at the number it acknowledges (RFC 9293 section 3.10.7.4).
    Refuse,
}

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// A reset, not exactly where the next segment is expected.
    Reset,
    /// A SYN to a connection that has had one.
    Syn,
    /// An acknowledgement of what was never sent or long ago, or none.
    Ack,
}

/// Whether what a segment acknowledges is what a peer of an open connection can know:
/// `SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT` (RFC 5961 section 5), and the byte beyond with
/// which a closed window is probed.
pub(crate) fn is_plausible(ack: u32, una: u32, nxt: u32, window_max: u32) -> bool {
    let least = una.wrapping_sub(window_max);
    ack.wrapping_sub(least) <= nxt.wrapping_sub(least).saturating_add(1)
}

/// Judges a segment that is not an ordinary one of an open connection.
pub(crate) fn judge(segment: &TcpView, known: &Known) -> Verdict {
    let TcpView { seq, ack, flags, .. } = *segment;
    let has_ack = flags.contains(TcpFlags::ACK);
    let is_reset = flags.contains(TcpFlags::RST);
    let is_syn = flags.contains(TcpFlags::SYN);
    match known.stage {
        Stage::Closed => Verdict::Pass,
        // RFC 9293 section 3.10.7.3: all that says something about the peer is its SYN, or that
        // it answers exactly ours.
        Stage::Calling if is_reset && has_ack && ack == known.nxt => Verdict::Pass,
        Stage::Calling if is_reset => Verdict::Drop(Suspect::Reset),
        Stage::Calling if is_syn => Verdict::Pass,
        Stage::Calling if has_ack && ack != known.nxt => Verdict::Refuse,
        Stage::Calling => Verdict::Drop(Suspect::Ack),
        Stage::Answering | Stage::Open if is_reset => {
            let ahead = seq.wrapping_sub(known.expected);
            match ahead {
                0 => Verdict::Pass,
                _ if ahead < known.offered => Verdict::Challenge(Suspect::Reset),
                _ => Verdict::Drop(Suspect::Reset),
            }
        }
        Stage::Answering | Stage::Open if is_syn => Verdict::Challenge(Suspect::Syn),
        Stage::Answering | Stage::Open if !has_ack => Verdict::Drop(Suspect::Ack),
        Stage::Answering if ack == known.nxt => Verdict::Pass,
        Stage::Answering => Verdict::Refuse,
        Stage::Open if is_plausible(ack, known.una, known.nxt, known.window_max) => Verdict::Pass,
        Stage::Open => Verdict::Challenge(Suspect::Ack),
    }
}

/// How many challenges have been sent in the present period.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ration {
    period: u64,
    spent: u32,
}

impl Ration {
    /// Takes one of `most` for the period.
    pub(crate) fn take(&mut self, period: u64, most: u32) -> bool {
        if self.period != period {
            *self = Self { period, spent: 0 };
        }
        let is_left = self.spent < most;
        self.spent += u32::from(is_left);
        is_left
    }
}

/// A worker's challenges: whether one more may be sent.
#[derive(Debug)]
pub(crate) struct Challenges {
    secret: Secret,
    ration: Ration,
}

impl Challenges {
    pub(crate) fn new(secret: Secret) -> Self {
        Self { secret, ration: Ration::default() }
    }

    /// Takes a challenge from a connection's ration and from the worker's, at a tick.
    pub(crate) fn allows(&mut self, tick: u64, conn: &mut Ration) -> bool {
        let period = tick / WORKER_PERIOD_TICKS;
        let random = self.secret.ration(period) % u64::from(CHALLENGES_PER_WORKER);
        conn.take(tick / CONN_PERIOD_TICKS, CHALLENGES_PER_CONN)
            && self.ration.take(period, CHALLENGES_PER_WORKER + random as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::flow::FlowKey;

    const OPEN: Known = Known {
        stage: Stage::Open,
        una: u32::MAX - 9,
        nxt: 10,
        window_max: 100,
        expected: u32::MAX,
        offered: 50,
    };

    fn verdict(known: Known, flags: TcpFlags, seq: u32, ack: u32) -> Verdict {
        let addr = SocketAddr::from(([10, 0, 0, 1], 1));
        let segment = TcpView {
            key: FlowKey::new(addr, addr),
            ip_start: 14,
            ip_len: 40,
            tcp_start: 34,
            payload_start: 54,
            payload_len: 0,
            seq,
            ack,
            flags,
            window: 0,
        };
        judge(&segment, &known)
    }

    /// What is passed of all numbers near, far and opposite, with all numbers wrapping.
    fn passed(known: Known, flags: TcpFlags, seq: u32) -> Vec<i32> {
        let near = (-300..300).chain([i32::MIN, i32::MIN + 1, i32::MAX]);
        near.filter(|ack| verdict(known, flags, seq, *ack as u32) == Verdict::Pass).collect()
    }

    #[test]
    fn an_acknowledgement_is_of_what_was_sent_and_not_older_than_a_window() {
        let acks = passed(OPEN, TcpFlags::ACK, OPEN.expected);
        assert_eq!(acks, (-110..=11).collect::<Vec<_>>());
        let ack = verdict(OPEN, TcpFlags::ACK, OPEN.expected, 12);
        assert_eq!(ack, Verdict::Challenge(Suspect::Ack));
        let none = verdict(OPEN, TcpFlags::PSH, OPEN.expected, 0);
        assert_eq!(none, Verdict::Drop(Suspect::Ack));
        // The largest window there is leaves most numbers out.
        let largest = Known { window_max: u32::from(u16::MAX) << 14, ..OPEN };
        assert_eq!(passed(largest, TcpFlags::ACK, 0).last(), Some(&11));
    }

    #[test]
    fn a_reset_counts_where_the_next_segment_is_expected() {
        let reset = |seq| verdict(OPEN, TcpFlags::RST, seq, 0);
        assert_eq!(reset(u32::MAX), Verdict::Pass);
        for seq in [0, 1, 48] {
            assert_eq!(reset(seq), Verdict::Challenge(Suspect::Reset), "{seq}");
        }
        for seq in [49, 50, 1 << 31, u32::MAX - 1, u32::MAX - 60] {
            assert_eq!(reset(seq), Verdict::Drop(Suspect::Reset), "{seq}");
        }
        // The same while the peer has still to acknowledge our SYN, and with a closed window.
        let answering = Known { stage: Stage::Answering, ..OPEN };
        assert_eq!(verdict(answering, TcpFlags::RST, 0, 0), Verdict::Challenge(Suspect::Reset));
        let closed = Known { offered: 0, ..OPEN };
        assert_eq!(verdict(closed, TcpFlags::RST, u32::MAX, 0), Verdict::Pass);
        assert_eq!(verdict(closed, TcpFlags::RST, 0, 0), Verdict::Drop(Suspect::Reset));
    }

    #[test]
    fn a_syn_is_challenged_wherever_it_is() {
        for seq in [0, 1, OPEN.expected, 1 << 31] {
            for flags in [TcpFlags::SYN, TcpFlags::SYN | TcpFlags::ACK] {
                let syn = verdict(OPEN, flags, seq, OPEN.nxt);
                assert_eq!(syn, Verdict::Challenge(Suspect::Syn));
            }
        }
    }

    #[test]
    fn who_is_called_resets_by_acknowledging_the_call() {
        let calling = Known { stage: Stage::Calling, una: 7, nxt: 7, expected: 0, ..OPEN };
        let both = TcpFlags::RST | TcpFlags::ACK;
        assert_eq!(passed(calling, both, 99), [7]);
        assert_eq!(passed(calling, TcpFlags::RST, 99), []);
        assert_eq!(verdict(calling, TcpFlags::ACK, 99, 8), Verdict::Refuse);
        assert_eq!(verdict(calling, TcpFlags::ACK, 99, 7), Verdict::Drop(Suspect::Ack));
        assert_eq!(verdict(calling, TcpFlags::SYN, 99, 0), Verdict::Pass);
    }

    #[test]
    fn a_handshake_is_completed_with_our_number_only() {
        let answering = Known { stage: Stage::Answering, una: 7, nxt: 7, ..OPEN };
        assert_eq!(passed(answering, TcpFlags::ACK, OPEN.expected), [7]);
        assert_eq!(verdict(answering, TcpFlags::ACK, OPEN.expected, 6), Verdict::Refuse);
    }

    #[test]
    fn challenges_are_rationed_and_a_workers_ration_is_not_foreseeable() {
        let limits = |seed| {
            let mut challenges = Challenges::new(Secret::from_seed(seed));
            let mut limit_of = |second: u64| {
                let mut count = 0;
                while challenges.allows(second * WORKER_PERIOD_TICKS, &mut Ration::default()) {
                    count += 1;
                }
                count
            };
            (0..100).map(&mut limit_of).collect::<Vec<u32>>()
        };
        let range = CHALLENGES_PER_WORKER..2 * CHALLENGES_PER_WORKER;
        assert!(limits(1).iter().all(|limit| range.contains(limit)));
        assert!(limits(1).iter().min() < limits(1).iter().max());
        assert_ne!(limits(1), limits(2));

        let mut challenges = Challenges::new(Secret::from_seed(1));
        let mut conn = Ration::default();
        let allowed = (0..4 * CONN_PERIOD_TICKS).filter(|tick| challenges.allows(*tick, &mut conn));
        assert_eq!(allowed.count(), 4 * CHALLENGES_PER_CONN as usize);
    }
}
