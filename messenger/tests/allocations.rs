//! Small messages cost no memory of their own: counted over whole messengers, both ends, with our
//! TCP below them.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod common;

use allocation_counter::measure;
use bytes::Bytes;
use common::by_hand::Pair;

/// Echoes that fill queues, buffers and tables.
const WARM_UP: u64 = 5_000;
const ECHOES: u64 = 20_000;

/// Heap allocations for an echo, two messages.
fn allocations(depth: usize, len: usize) -> f64 {
    let pair = Pair::new(1, 1);
    let front = Bytes::from(vec![7; len]);
    (0..depth).for_each(|_| pair.serve(&front));
    pair.play(WARM_UP);
    let counted = measure(|| pair.play(ECHOES));
    counted.count_total as f64 / ECHOES as f64
}

#[test]
fn a_small_message_costs_no_allocation() {
    for (depth, len) in [(1, 0), (1, 64), (32, 64)] {
        assert_eq!(allocations(depth, len), 0.0, "{depth} under way, {len} bytes");
    }
}

/// What is under way keeps more than two of the buffers it came in.
#[test]
fn many_at_a_time_share_theirs() {
    let each = allocations(32, 512);
    assert!(each < 0.1, "{each}");
}
