//! Numbers that others must not be able to guess, all from one secret.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;

use crate::flow::FlowKey;

/// The ways the secret is used; a number made for one says nothing about another's.
#[derive(Clone, Copy, Debug, Hash)]
enum Use {
    SequenceNumber,
    Port,
    Ration,
    Cookie,
}

/// How far a connection begins beyond the numbers of the one before: farther than any window
/// reaches that a SYN offers, so what acknowledges old numbers is taken for old, see
/// [`is_plausible`].
///
/// [`is_plausible`]: super::is_plausible
const BEYOND: u32 = 1 << 16;

/// A key that nobody else has, the same for all workers of a stack.
///
/// SipHash was made for this: a keyed hash of short input that nobody can tell from random
/// numbers, nor foretell from those already seen.
#[derive(Clone, Copy)]
pub(crate) struct Secret([u64; 2]);

impl Secret {
    /// A key from the operating system.
    ///
    /// # Errors
    /// If the operating system has no random numbers.
    pub(crate) fn random() -> io::Result<Self> {
        let half = || getrandom::u64().map_err(io::Error::other);
        Ok(Self([half()?, half()?]))
    }

    /// A key that is no secret: for repeatable runs.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self([seed, !seed])
    }

    /// The initial sequence number of a connection of ours (RFC 6528): a clock of 4 µs, from where
    /// only we know, elsewhere for each flow. `micros` is the worker's time.
    ///
    /// So a connection with the addresses and ports of a former one begins above it, unless that
    /// was faster than the clock, and who sees the numbers of his own connections cannot tell those
    /// of others.
    pub(crate) fn sequence_number(&self, flow: &FlowKey, micros: u64) -> u32 {
        let clock = (micros / 4) as u32;
        clock.wrapping_add(self.hash(Use::SequenceNumber, flow) as u32)
    }

    /// As [`Self::sequence_number`], for a flow whose former connection would have gone on with
    /// `old_end` and may have left segments on their way (RFC 1122 section 4.2.2.13).
    pub(crate) fn sequence_number_beyond(&self, flow: &FlowKey, micros: u64, old_end: u32) -> u32 {
        let clocked = self.sequence_number(flow, micros);
        let least = old_end.wrapping_add(BEYOND);
        let is_beyond = clocked.wrapping_sub(least) as i32 >= 0;
        if is_beyond { clocked } else { least }
    }

    /// The `count`-th choice of a port.
    pub(crate) fn port(&self, count: u64) -> u64 {
        self.hash(Use::Port, count)
    }

    /// How much of something there is in the `period`-th period.
    pub(crate) fn ration(&self, period: u64) -> u64 {
        self.hash(Use::Ration, period)
    }

    /// Proves that the low 8 bits of a cookie, and what they are for, are ours; in the other 24.
    pub(super) fn cookie_code(&self, flow: &FlowKey, syn: u32, bits: u32, period: u64) -> u32 {
        self.hash(Use::Cookie, (flow, syn, bits, period)) as u32 & !0xff
    }

    fn hash(&self, what_for: Use, input: impl Hash) -> u64 {
        #[expect(deprecated, reason = "the hasher that replaces it cannot be given a key")]
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0[0], self.0[1]);
        (what_for, input).hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const SECRET: Secret = Secret([7, 8]);

    fn flow(port: u16) -> FlowKey {
        let local = SocketAddr::from(([10, 0, 0, 1], 6800));
        FlowKey::new(local, SocketAddr::from(([10, 0, 0, 2], port)))
    }

    #[test]
    fn sequence_numbers_of_a_flow_rise_with_the_clock_also_past_their_end() {
        // The clock wraps every 4.8 hours.
        let wrap = 4 * (1 << 32);
        let times = [0, 4, 1_000_000, wrap - 4, wrap, wrap + 4];
        let first = SECRET.sequence_number(&flow(1), 0);
        for micros in times {
            let number = SECRET.sequence_number(&flow(1), micros);
            assert_eq!(number.wrapping_sub(first), (micros / 4) as u32);
        }
    }

    #[test]
    fn a_number_beyond_others_is_the_clocks_unless_they_have_outrun_it() {
        let clocked = SECRET.sequence_number(&flow(1), 0);
        let number = |old_end| SECRET.sequence_number_beyond(&flow(1), 0, old_end);
        for behind in [BEYOND, BEYOND + 1, 1 << 31] {
            assert_eq!(number(clocked.wrapping_sub(behind)), clocked, "{behind}");
        }
        for ahead in [0, 1, 1_000_000, (1 << 31) - BEYOND] {
            let old_end = clocked.wrapping_add(ahead);
            assert_eq!(number(old_end), old_end.wrapping_add(BEYOND), "{ahead}");
        }
        let within = clocked.wrapping_sub(BEYOND - 1);
        assert_eq!(number(within), clocked.wrapping_add(1));
    }

    #[test]
    fn sequence_numbers_of_other_flows_and_with_other_keys_have_nothing_in_common() {
        let numbers = |secret: Secret| {
            (0..4096).map(move |port| secret.sequence_number(&flow(port), 0)).collect::<Vec<_>>()
        };
        for other in [Secret([7, 9]), Secret([6, 8])] {
            assert!(numbers(SECRET).iter().zip(numbers(other)).all(|(one, other)| *one != other));
        }
        // Each bit of the difference between neighbours is set in half of them: 2048, with a
        // standard deviation of 32.
        let numbers = numbers(SECRET);
        for bit in 0..32 {
            let ones =
                numbers.windows(2).filter(|pair| (pair[0] ^ pair[1]) >> bit & 1 == 1).count();
            assert!(ones.abs_diff(2048) < 6 * 32, "bit {bit} differs in {ones} of 4095");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{SECRET:?}"), "Secret");
    }
}
