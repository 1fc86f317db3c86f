//! What several runs say together: medians, spread, and how sure a ratio is.

use serde::{Deserialize, Serialize};

use crate::bench::random::Random;

/// Fewer rounds a side say nothing.
pub(crate) const ROUNDS_MIN: usize = 5;
/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;
/// What of them lies outside the interval, half of it on either side.
const OUTSIDE: f64 = 0.05;
/// Start of the bootstrap's random numbers: the same figures give the same answer.
const SEED: u64 = 0x5eed;

/// The middle of some values; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    middle(&mut sorted)
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len.is_multiple_of(2) => f64::midpoint(values[half - 1], values[half]),
        _ => values[half],
    }
}

/// Values of one side, in short.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    /// Standard deviation in percent of the mean.
    pub(crate) variation_percent: f64,
}

impl Summary {
    pub(crate) fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let variation_percent = if mean > 0.0 { square.sqrt() / mean * 100.0 } else { 0.0 };
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        Self { median: median(values), least: least.min(most), most, variation_percent }
    }
}

/// Who is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    AAhead,
    BAhead,
    NoDifference,
    /// Too few rounds to say.
    Undecided,
}

/// `a` over `b`, with the interval that 95 % of resamples fall into.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) ratio: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Ratio {
    /// Of rounds that took turns: the median of each round's ratio, so that what drifts for both
    /// sides does not count.
    pub(crate) fn of_rounds(a: &[f64], b: &[f64]) -> Self {
        let ratios: Vec<_> = a.iter().zip(b).map(|(a, b)| a / b).collect();
        Self::resample(median(&ratios), |random, sample| {
            sample.clear();
            sample.extend((0..ratios.len()).map(|_| pick(&ratios, random)));
            middle(sample)
        })
    }

    /// Of runs that have nothing to do with each other: the ratio of medians.
    pub(crate) fn of_runs(a: &[f64], b: &[f64]) -> Self {
        Self::resample(median(a) / median(b), |random, sample| {
            let mut of = |side: &[f64]| {
                sample.clear();
                sample.extend((0..side.len()).map(|_| pick(side, random)));
                middle(sample)
            };
            of(a) / of(b)
        })
    }

    fn resample(ratio: f64, mut draw: impl FnMut(&mut Random, &mut Vec<f64>) -> f64) -> Self {
        let (mut random, mut sample) = (Random::new(SEED), Vec::new());
        let mut draws: Vec<_> = (0..RESAMPLES).map(|_| draw(&mut random, &mut sample)).collect();
        draws.sort_by(f64::total_cmp);
        let outside = (RESAMPLES as f64 * OUTSIDE / 2.0) as usize;
        Self { ratio, low: draws[outside], high: draws[RESAMPLES - 1 - outside] }
    }

    /// What it says, of so many rounds a side, about figures of which more, or less, is better.
    pub(crate) fn verdict(&self, rounds: usize, more_is_better: bool) -> Verdict {
        if rounds < ROUNDS_MIN || !self.ratio.is_finite() {
            return Verdict::Undecided;
        }
        match (self.low > 1.0, self.high < 1.0) {
            (true, _) if more_is_better => Verdict::AAhead,
            (_, true) if !more_is_better => Verdict::AAhead,
            (false, false) => Verdict::NoDifference,
            _ => Verdict::BAhead,
        }
    }
}

fn pick(values: &[f64], random: &mut Random) -> f64 {
    values[random.below(values.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_of_all_values() {
        let summary = Summary::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!((summary.median, summary.least, summary.most), (2.5, 1.0, 4.0));
        assert!((summary.variation_percent - 44.72).abs() < 0.01, "{summary:?}");
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(Summary::of(&[]).median, 0.0);
    }

    #[test]
    fn a_drift_of_both_sides_hides_no_difference_between_them() {
        let b = [100.0, 150.0, 80.0, 200.0, 120.0];
        let a = b.map(|b| b * 1.1);
        let paired = Ratio::of_rounds(&a, &b);
        assert_eq!(paired.verdict(5, true), Verdict::AAhead);
        assert_eq!(paired.verdict(5, false), Verdict::BAhead, "as a latency");
        assert_eq!(Ratio::of_runs(&a, &b).verdict(5, true), Verdict::NoDifference);
        assert_eq!(Ratio::of_rounds(&b, &a).verdict(5, true), Verdict::BAhead);
    }

    #[test]
    fn noise_is_no_difference_and_too_few_rounds_are_no_answer() {
        let (a, b) = ([100.0, 90.0, 110.0, 95.0, 105.0], [95.0, 105.0, 100.0, 110.0, 90.0]);
        let ratio = Ratio::of_rounds(&a, &b);
        assert!(ratio.low < 1.0 && ratio.high > 1.0, "{ratio:?}");
        assert_eq!(ratio.verdict(5, true), Verdict::NoDifference);
        assert_eq!(Ratio::of_rounds(&[9.0; 4], &[1.0; 4]).verdict(4, true), Verdict::Undecided);
        assert_eq!(Ratio::of_runs(&[1.0; 5], &[0.0; 5]).verdict(5, true), Verdict::Undecided);
    }
}
