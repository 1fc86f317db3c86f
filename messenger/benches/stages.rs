//! What an echo costs, stage by stage: two whole messengers with our TCP below them and a simulated
//! cable between, all on one thread.
//!
//!   cargo bench -p messenger --no-default-features --bench stages [-- ECHOES [LEN [DEPTH]]]
//!
//! prints nanoseconds for an echo, two messages. For instructions, run the binary with few echoes
//! under `valgrind --tool=callgrind` and see what the functions of each stage include.

#[path = "../tests/common/mod.rs"]
mod common;

use bytes::Bytes;
use common::by_hand::Pair;
use std::time::Instant;

const ECHOES: u64 = 100_000;
const ROUNDS: usize = 5;
const LOADS: [(usize, usize); 4] = [(64, 1), (64, 32), (4 << 10, 32), (64 << 10, 32)];

fn main() {
    let mut numbers = std::env::args().filter_map(|word| word.parse::<usize>().ok());
    let (echoes, len) = (numbers.next().map_or(ECHOES, |echoes| echoes as u64), numbers.next());
    let depth = numbers.next().unwrap_or(32);
    println!("{:>6} {:>6} {:>9}", "bytes", "depth", "ns/echo");
    for (len, depth) in len.map_or_else(|| LOADS.to_vec(), |len| vec![(len, depth)]) {
        let pair = Pair::new();
        (0..depth).for_each(|_| pair.serve(Bytes::from(vec![7; len])));
        pair.play(echoes / 10);
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| time(&pair, echoes)).collect();
        rounds.sort_unstable();
        println!("{len:>6} {depth:>6} {:>9}", rounds[ROUNDS / 2]);
    }
}

/// Nanoseconds for an echo.
fn time(pair: &Pair, echoes: u64) -> u128 {
    let begin = Instant::now();
    pair.play(echoes);
    begin.elapsed().as_nanos() / u128::from(echoes.max(1))
}
