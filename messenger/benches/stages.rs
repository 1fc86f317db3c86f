//! What an echo costs: two whole messengers with our TCP below them and a simulated cable between,
//! all on one thread.
//!
//!   cargo bench -p messenger --no-default-features --bench stages [-- ECHOES [LEN [DEPTH]]]
//!
//! prints nanoseconds for an echo, two messages; first of one session, then of many that one or
//! two workers of each host share, in rounds that take turns. For instructions, run the binary with
//! few echoes of one length under `valgrind --tool=callgrind` and see what the functions of each
//! stage include.

#![allow(clippy::unwrap_used, reason = "a bench ends where something is missing")]

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use common::by_hand::Pair;
use std::time::Instant;

const ECHOES: u64 = 100_000;
const ROUNDS: usize = 11;
const LOADS: [(usize, usize); 4] = [(64, 1), (64, 32), (4 << 10, 32), (64 << 10, 32)];
/// Sessions that workers share, with one message under way in each.
const SESSIONS: usize = 64;

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse::<usize>().ok());
    let (echoes, len) = (numbers.next().map_or(ECHOES, |echoes| echoes as u64), numbers.next());
    let depth = numbers.next().unwrap_or(32);
    println!("{:>6} {:>6} {:>9}", "bytes", "depth", "ns/echo");
    for (len, depth) in len.map_or_else(|| LOADS.to_vec(), |len| vec![(len, depth)]) {
        let pair = begin(1, 1, depth, len, echoes);
        let rounds = (0..ROUNDS).map(|_| time(&pair, echoes)).collect();
        println!("{len:>6} {depth:>6} {:>9}", median(rounds));
    }
    if len.is_none() {
        let pairs = [1, 2].map(|workers| begin(workers, SESSIONS, 1, 64, echoes));
        let rounds: Vec<_> =
            (0..ROUNDS).map(|_| pairs.each_ref().map(|pair| time(pair, echoes))).collect();
        let [one, two] = [0, 1].map(|which| median(rounds.iter().map(|r| r[which]).collect()));
        let ratios = rounds.iter().map(|[one, two]| 200 * one / two).collect();
        println!("{SESSIONS} sessions: one worker {one} ns/echo, two {two} ns/echo");
        println!("two workers on two cores: {:.2} times one", median(ratios) as f64 / 100.0);
    }
}

/// A pair that has warmed up.
fn begin(workers: u16, sessions: usize, depth: usize, len: usize, echoes: u64) -> Pair {
    let pair = Pair::new(workers, sessions);
    let front = Bytes::from(vec![7; len]);
    (0..depth).for_each(|_| pair.serve(&front));
    pair.play(echoes / 10);
    pair
}

/// Nanoseconds for an echo.
fn time(pair: &Pair, echoes: u64) -> u64 {
    let begin = Instant::now();
    pair.play(echoes);
    begin.elapsed().as_nanos() as u64 / echoes.max(1)
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}
