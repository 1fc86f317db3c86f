//! SYN cookies: a handshake of which nothing is kept.
//!
//! A flood of SYNs from made-up addresses fills a listener's backlog with handshakes that nobody
//! will complete. Then what there is to know of a further one goes into the sequence number of the
//! answer, and comes back with the acknowledgement of who has really got it:
//!
//! ```text
//!   31                    8  7 6   5 . . 2    1      0
//!   [ code of the rest, the flow, the peer's number ][MSS][ shift ][SACK][period]
//! ```
//!
//! With that a connection is made as if the SYN had only just arrived. Lost are: the MSS between
//! the steps of [`Offer::mss`], the time the handshake took, a second answer if the first one does
//! not arrive, and the peer's acknowledgement, should nothing follow it. A guess is right once in
//! 2^24 times, for as long as the flood lasts.

use super::Secret;
use crate::flow::FlowKey;

/// A cookie is good in the period it was made in and in the next one.
pub(crate) const COOKIE_PERIOD_TICKS: u64 = 15_000;
/// No shift: the peer does not scale windows (RFC 7323 allows up to 14).
const NO_SHIFT: u8 = 15;
/// The steps of an MSS: the least hosts have to take, that of the smallest MTU of IPv6, and that of
/// Ethernet. The fourth is our own.
const MSS_STEPS: [u16; 3] = [536, 1220, 1440];

/// What a peer has said in its SYN that counts for the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The largest segment to send: 536, 1220, 1440, or `None` for what our own MTU allows.
    pub(crate) mss: Option<u16>,
    pub(crate) window_shift: Option<u8>,
    pub(crate) is_sack_permitted: bool,
}

impl Offer {
    /// What of a SYN's options fits into a cookie, with segments of at most `own_mss`; `None` if
    /// that would be segments larger than the peer takes.
    pub(crate) fn new(
        mss: u16,
        window_shift: Option<u8>,
        is_sack_permitted: bool,
        own_mss: u16,
    ) -> Option<Self> {
        let mss = match mss {
            mss if mss >= own_mss => None,
            mss => Some(*MSS_STEPS.iter().rev().find(|step| **step <= mss)?),
        };
        Some(Self { mss, window_shift, is_sack_permitted })
    }

    fn pack(self) -> u8 {
        let step = MSS_STEPS.iter().position(|step| Some(*step) == self.mss);
        let step = step.unwrap_or(MSS_STEPS.len()) as u8;
        let shift = self.window_shift.unwrap_or(NO_SHIFT).min(NO_SHIFT);
        step << 6 | shift << 2 | u8::from(self.is_sack_permitted) << 1
    }

    fn unpack(bits: u8) -> Self {
        let shift = bits >> 2 & 0xf;
        Self {
            mss: MSS_STEPS.get(usize::from(bits >> 6)).copied(),
            window_shift: (shift != NO_SHIFT).then_some(shift),
            is_sack_permitted: bits & 2 != 0,
        }
    }
}

impl Secret {
    /// The initial sequence number that keeps an offer, for a SYN with the number `syn`.
    pub(crate) fn cookie(&self, flow: &FlowKey, syn: u32, offer: Offer, tick: u64) -> u32 {
        let period = tick / COOKIE_PERIOD_TICKS;
        let bits = u32::from(offer.pack()) | (period & 1) as u32;
        self.cookie_code(flow, syn, bits, period) | bits
    }

    /// The offer in a cookie of ours; `None` if it is none, or too old.
    pub(crate) fn offer(&self, flow: &FlowKey, syn: u32, cookie: u32, tick: u64) -> Option<Offer> {
        let period = tick / COOKIE_PERIOD_TICKS;
        let bits = cookie & 0xff;
        let is_past = u64::from(bits & 1) != period & 1;
        let period = period.checked_sub(u64::from(is_past))?;
        let code = self.cookie_code(flow, syn, bits, period);
        (cookie & !0xff == code).then(|| Offer::unpack(bits as u8))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn flow(port: u16) -> FlowKey {
        let local = SocketAddr::from(([10, 0, 0, 1], 6800));
        FlowKey::new(local, SocketAddr::from(([10, 0, 0, 2], port)))
    }

    #[test]
    fn an_offer_survives_but_for_the_steps_of_the_mss() {
        let secret = Secret::from_seed(1);
        for own_mss in [1460, 8960] {
            for mss in [536, 537, 1219, 1220, 1439, 1440, 1459, 1460, 8959, 8960, 9000, u16::MAX] {
                for shift in (0..=14).map(Some).chain([None]) {
                    for sack in [false, true] {
                        let offer = Offer::new(mss, shift, sack, own_mss).unwrap();
                        assert!(offer.mss.unwrap_or(own_mss) <= mss);
                        assert_eq!((offer.window_shift, offer.is_sack_permitted), (shift, sack));
                        let cookie = secret.cookie(&flow(1), 7, offer, 99);
                        assert_eq!(secret.offer(&flow(1), 7, cookie, 99), Some(offer));
                    }
                }
            }
        }
        assert_eq!(Offer::new(1459, None, true, 1460).unwrap().mss, Some(1440));
        assert_eq!(Offer::new(535, None, true, 1460), None);
    }

    #[test]
    fn a_cookie_is_good_for_its_own_handshake_and_not_for_long() {
        let secret = Secret::from_seed(1);
        let offer = Offer::new(1460, Some(7), true, 1460).unwrap();
        let tick = 3 * COOKIE_PERIOD_TICKS + 5;
        let cookie = secret.cookie(&flow(1), 7, offer, tick);
        let is_good = |secret: Secret, port, syn, cookie, tick| {
            secret.offer(&flow(port), syn, cookie, tick).is_some()
        };
        assert!(is_good(secret, 1, 7, cookie, tick + COOKIE_PERIOD_TICKS));
        for late in [2, 3, 4, 5] {
            assert!(!is_good(secret, 1, 7, cookie, tick + late * COOKIE_PERIOD_TICKS));
        }
        assert!(!is_good(secret, 1, 7, cookie, 0));
        assert!(!is_good(secret, 2, 7, cookie, tick));
        assert!(!is_good(secret, 1, 8, cookie, tick));
        assert!(!is_good(Secret::from_seed(2), 1, 7, cookie, tick));
        for bit in 0..32 {
            assert!(!is_good(secret, 1, 7, cookie ^ 1 << bit, tick), "bit {bit}");
        }
    }

    #[test]
    fn guesses_are_as_good_as_chance() {
        let secret = Secret::from_seed(1);
        let guesses = (0u32..1 << 20).map(|index| index.wrapping_mul(0x9e37_79b9));
        let good = guesses.filter(|cookie| secret.offer(&flow(1), 7, *cookie, 99).is_some());
        // Expected: a sixteenth of one.
        assert!(good.count() <= 2);
    }
}
