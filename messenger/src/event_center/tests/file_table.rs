//! Ceph's cases of the user-space file table (test_userspace_event.cc), #35 to #37, and #27.
//!
//! Ceph fakes integer descriptors for sockets that the kernel does not know: listen, notify, poll,
//! close. Here the centre's table does that work for every transport: `watch` listens, what the
//! driver reports (or `again`) notifies, a turn polls, `unwatch` closes.

use super::*;

const READABLE: Readiness = Readiness::READABLE;
const WRITABLE: Readiness = Readiness::WRITABLE;

#[test]
fn case_27_file_event_expansion() {
    let mut bench = Bench::new();
    for slot in 0..300 {
        bench.center.watch(socket(slot, 0), Readiness::ALL, slot);
    }
    assert_eq!(bench.center.watched(), 300);
    for slot in 0..300 {
        bench.center.unwatch(socket(slot, 0));
        check(&bench.center);
    }
    assert_eq!(bench.center.watched(), 0);
}

#[test]
fn case_35_basic() {
    let mut bench = Bench::new();
    let first = socket(0, 0); // 1: names are the stack's, and it begins with the first slot
    bench.center.watch(first, READABLE, 1);
    bench.stage(first, READABLE);
    assert_eq!(bench.turn(), [file(1, first, READABLE)], "2: listened and notified");
    assert_eq!(bench.turn(), [], "2: once");
    bench.stage(first, WRITABLE);
    assert_eq!(bench.turn(), [], "3: only readable is listened for");
    bench.center.watch(first, Readiness::NONE, 1);
    bench.stage(first, READABLE);
    assert_eq!(bench.turn(), [], "4: nothing is listened for");
    bench.center.unwatch(first);
    let second = socket(0, 1);
    bench.center.watch(second, Readiness::ALL, 2);
    assert_eq!(bench.turn(), [], "5: the slot again, and nothing of before");
}

#[test]
fn case_36_fail() {
    let mut bench = Bench::new();
    let (stale, known, unknown) = (socket(1, 4), socket(1, 5), socket(900, 0));
    bench.center.watch(known, READABLE, 1);
    bench.center.watch(stale, Readiness::ALL, 2); // a listener that is gone takes nothing over
    for stranger in [stale, unknown] {
        bench.center.again(stranger, Readiness::ALL);
        bench.stage(stranger, Readiness::ALL);
        bench.center.unwatch(stranger);
    }
    assert_eq!(bench.turn(), []);
    assert_eq!(bench.center.watched(), 1);
    bench.stage(known, READABLE);
    assert_eq!(bench.turn(), [file(1, known, READABLE)]);
}

#[test]
fn a_slots_next_user_is_known_by_its_generation_also_when_the_count_wraps() {
    let mut bench = Bench::new();
    bench.center.watch(socket(0, u32::MAX), READABLE, 1);
    bench.center.watch(socket(0, 0), READABLE, 2);
    bench.center.watch(socket(0, u32::MAX), READABLE, 3);
    bench.stage(socket(0, 0), READABLE);
    assert_eq!(bench.turn(), [file(2, socket(0, 0), READABLE)]);
}

/// One socket of the model.
#[derive(Clone, Copy, Default)]
struct Entry {
    generation: u32,
    open: bool,
    listened: Readiness,
    active: Readiness,
}

#[test]
fn case_37_stress() {
    const SOCKETS: usize = 1000;
    const OPS: usize = 10_000;
    const SEED: u64 = 0x2545_f491_4f6c_dd1d;
    let mut bench = Bench::new();
    let mut dice = Dice(SEED);
    let mut model = [Entry::default(); SOCKETS];
    for step in 0..OPS {
        let slot = dice.below(SOCKETS);
        let bits = [READABLE, WRITABLE, Readiness::ALL][dice.below(3)];
        let entry = &mut model[slot];
        let name = socket(slot as u32, entry.generation);
        match dice.below(105) {
            ..45 => {
                bench.center.again(name, bits);
                if entry.open {
                    entry.active |= bits;
                }
            }
            45..55 if entry.open => {
                entry.listened |= bits;
                bench.center.watch(name, entry.listened, slot as u32);
            }
            55..65 if entry.open => {
                entry.listened = entry.listened.without(bits);
                bench.center.watch(name, entry.listened, slot as u32);
            }
            65..80 => {
                let due = take_due(&mut model);
                assert_eq!(poll_in_threes(&mut bench), due, "seed {SEED:#x}, step {step}");
            }
            80..95 if !entry.open => {
                entry.open = true;
                bench.center.watch(name, Readiness::NONE, slot as u32);
            }
            95.. if entry.open => {
                *entry = Entry { generation: entry.generation + 1, ..Entry::default() };
                bench.center.unwatch(name);
            }
            _ => {}
        }
        check(&bench.center);
        let open = model.iter().filter(|entry| entry.open).count();
        assert_eq!(bench.center.watched(), open, "seed {SEED:#x}, step {step}");
    }
}

/// What a poll has to deliver, by slot, and does not deliver again.
fn take_due(model: &mut [Entry]) -> Vec<(SocketId, Readiness)> {
    let mut due = Vec::new();
    for (slot, entry) in model.iter_mut().enumerate() {
        let readiness = entry.listened.intersection(entry.active);
        if !readiness.is_empty() {
            due.push((socket(slot as u32, entry.generation), readiness));
            entry.active = entry.active.without(readiness);
        }
    }
    due
}

/// Turns that take three events at most, until there are none.
fn poll_in_threes(bench: &mut Bench) -> Vec<(SocketId, Readiness)> {
    let mut delivered = Vec::new();
    loop {
        bench.collect();
        let before = delivered.len();
        for _ in 0..3 {
            match bench.next() {
                Some(Event::File { key, socket, readiness }) => {
                    assert_eq!(key, socket.slot);
                    delivered.push((socket, readiness));
                }
                Some(other) => panic!("only files here: {other:?}"),
                None => break,
            }
        }
        if delivered.len() == before {
            delivered.sort_by_key(|(socket, _)| *socket);
            return delivered;
        }
    }
}

/// What always holds: a file is on the ready list exactly once if it says so, and it says so if
/// something it is watched for is pending.
fn check(center: &EventCenter<u32, u32>) {
    let mut listings = vec![0; center.files.len()];
    for socket in &center.ready {
        if let Some(Some(file)) = center.files.get(socket.slot as usize)
            && file.generation == socket.generation
        {
            listings[socket.slot as usize] += 1;
        }
    }
    for (file, listings) in center.files.iter().zip(listings) {
        if let Some(file) = file {
            assert_eq!(listings, usize::from(file.listed));
            assert!(file.listed || file.pending.intersection(file.interest).is_empty());
        }
    }
}

/// A seeded sequence of numbers (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}
