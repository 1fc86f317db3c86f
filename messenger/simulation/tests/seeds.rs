//! Many seeds, a fresh one, and the ones that once found something.

use messenger_simulation::{run, sweep};
use std::time::Instant;

/// Seeds of a run if `SIM_SEEDS` does not say otherwise.
const SEEDS: u64 = 2000;
/// Seeds from the fresh start.
const FRESH_SEEDS: u64 = 100;

/// Seeds that failed once, and what they had found.
const KEPT: &[(u64, &str)] = &[];

fn env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

#[track_caller]
fn assert_good(first: u64, count: u64) {
    match sweep(first..first + count) {
        Err(failure) => panic!("{failure}"),
        Ok(sweep) => {
            println!("{sweep}");
            let tally = sweep.tally;
            let seen = [tally.delivered, tally.resets, tally.remote_resets, tally.marked_down];
            assert!(count < 100 || seen.iter().all(|count| *count > 0), "the plans are too tame");
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_left_over_whatever_goes_wrong() {
    assert_good(env("SIM_FIRST", 0), env("SIM_SEEDS", SEEDS));
}

#[test]
fn seeds_nobody_has_tried_find_nothing_either() {
    let first = getrandom::u32().expect("a random number").into();
    println!("from seed {first}");
    assert_good(first, FRESH_SEEDS);
}

#[test]
fn seeds_that_found_something_stay_found() {
    for (seed, what) in KEPT {
        if let Err(failure) = run(*seed) {
            panic!("{failure}\nonce it was: {what}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let start = Instant::now();
    for seed in 0..30 {
        let [one, other] =
            [(), ()].map(|()| run(seed).unwrap_or_else(|failure| panic!("{failure}")));
        assert_eq!(one, other);
    }
    println!("{:?}", start.elapsed());
}
