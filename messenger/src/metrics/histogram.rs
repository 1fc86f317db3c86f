//! How long things took, in buckets that double.
//!
//! ```text
//!   [0, 1) [1, 2) [2, 4) [4, 8) ... [2^22, 2^23) [2^23, ...)   microseconds; about 8 s and more
//! ```
//!
//! One relaxed addition to a bucket, one to the sum. The number of entries is that of all buckets
//! together, so the two cannot disagree.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many buckets there are.
const BUCKETS: usize = 25;

/// Times, counted by size.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // The position of the highest bit: 0 has none, 1 is in [1, 2).
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Name and value: count and sum, then the buckets in order.
    pub(crate) fn named(&self) -> Vec<(&'static str, u64)> {
        let buckets: [u64; BUCKETS] = std::array::from_fn(|at| self.buckets[at].load(Relaxed));
        let totals =
            [("wait_count", buckets.iter().sum()), ("wait_sum_us", self.sum_us.load(Relaxed))];
        totals.into_iter().chain(NAMES.into_iter().zip(buckets)).collect()
    }
}

const NAMES: [&str; BUCKETS] = [
    "wait_0_to_1_us",
    "wait_1_to_2_us",
    "wait_2_to_4_us",
    "wait_4_to_8_us",
    "wait_8_to_16_us",
    "wait_16_to_32_us",
    "wait_32_to_64_us",
    "wait_64_to_128_us",
    "wait_128_to_256_us",
    "wait_256_to_512_us",
    "wait_512_to_1024_us",
    "wait_1024_to_2048_us",
    "wait_2048_to_4096_us",
    "wait_4096_to_8192_us",
    "wait_8192_to_16384_us",
    "wait_16384_to_32768_us",
    "wait_32768_to_65536_us",
    "wait_65536_to_131072_us",
    "wait_131072_to_262144_us",
    "wait_262144_to_524288_us",
    "wait_524288_to_1048576_us",
    "wait_1048576_to_2097152_us",
    "wait_2097152_to_4194304_us",
    "wait_4194304_to_8388608_us",
    "wait_from_8388608_us",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_falls_into_the_bucket_that_is_named_after_it() {
        let histogram = Histogram::default();
        let times = [0, 1, 2, 3, 4, 1023, 1024, 8_388_607, 8_388_608, u64::MAX >> 12];
        times.iter().for_each(|us| histogram.record(Duration::from_micros(*us)));
        let named = histogram.named();
        let get = |wanted: &str| named.iter().find(|(name, _)| *name == wanted).unwrap().1;
        for (name, count) in [
            ("wait_0_to_1_us", 1),
            ("wait_1_to_2_us", 1),
            ("wait_2_to_4_us", 2),
            ("wait_4_to_8_us", 1),
            ("wait_512_to_1024_us", 1),
            ("wait_1024_to_2048_us", 1),
            ("wait_4194304_to_8388608_us", 1),
            ("wait_from_8388608_us", 2),
            ("wait_count", 10),
        ] {
            assert_eq!(get(name), count, "{name}");
        }
        assert_eq!(get("wait_sum_us"), times.iter().sum::<u64>());
    }

    #[test]
    fn the_names_are_the_bounds() {
        for (at, name) in NAMES.iter().enumerate().take(BUCKETS - 1) {
            let bounds = [(1_u64 << at) >> 1, 1 << at];
            assert_eq!(*name, format!("wait_{}_to_{}_us", bounds[0], bounds[1]));
        }
        assert_eq!(NAMES[BUCKETS - 1], format!("wait_from_{}_us", 1 << (BUCKETS - 2)));
    }
}
