//! Random work on many sockets, and a model that knows what a wait has to report.

use super::*;

const SOCKETS: usize = 100;
const STEPS: usize = 10_000;
/// Most datagrams in a socket; the kernel takes a few more.
const WAITING_MAX: usize = 5;

/// One slot: a pair of datagram sockets while it is open.
#[derive(Default)]
struct Slot {
    generation: u32,
    open: Option<Open>,
}

struct Open {
    near: UnixDatagram,
    far: UnixDatagram,
    watched: bool,
    waiting: usize,
    /// Reported, and since then neither armed nor watched anew.
    told: bool,
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

pub(super) fn run(mut bench: Bench, seed: u64) {
    let mut dice = Dice(seed);
    let mut slots: Vec<Slot> = (0..SOCKETS).map(|_| Slot::default()).collect();
    for step in 0..STEPS {
        let index = dice.below(SOCKETS);
        let name = id(index as u32, slots[index].generation);
        let slot = &mut slots[index];
        match (dice.below(100), &mut slot.open) {
            (..15, _) => check(&mut bench, &mut slots, &format!("seed {seed}, step {step}")),
            (15..60, Some(open)) if open.waiting < WAITING_MAX => {
                open.far.send(b"1").unwrap();
                open.waiting += 1;
            }
            (60..70, Some(open)) => {
                bench.selector.modify(name, Readiness::READABLE).unwrap();
                (open.watched, open.told) = (true, false);
            }
            (70..75, Some(open)) => {
                bench.selector.modify(name, Readiness::NONE).unwrap();
                open.watched = false;
            }
            (75..85, Some(open)) => {
                while open.near.recv(&mut [0; 8]).is_ok() {
                    open.waiting -= 1;
                }
                bench.selector.arm(name, Readiness::READABLE);
                open.told = false;
            }
            (85..90, Some(_)) => {
                bench.selector.del(name);
                *slot = Slot { generation: slot.generation + 1, open: None };
            }
            (85.., None) => slot.open = Some(open(&mut bench, name)),
            _ => {}
        }
    }
}

fn open(bench: &mut Bench, name: SocketId) -> Open {
    let (near, far) = UnixDatagram::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    bench.add(near.try_clone().unwrap(), name, Readiness::READABLE);
    Open { near, far, watched: true, waiting: 0, told: false }
}

/// A wait reports everything that is ready, watched and not told before; an event queue may repeat
/// itself, but nobody reports what is not ready, not watched or not there.
fn check(bench: &mut Bench, slots: &mut [Slot], place: &str) {
    let now = Instant::now();
    let mut fired = Vec::new();
    bench.selector.wait(now, Some(now), &mut fired).unwrap();
    let names: BTreeSet<_> = fired.iter().map(|event| event.id).collect();
    assert_eq!(names.len(), fired.len(), "{place}: reported twice");
    let repeats = bench.selector.driver() == Driver::NATIVE;
    for event in fired {
        let slot = &slots[event.id.slot as usize];
        let open = slot.open.as_ref().filter(|_| slot.generation == event.id.generation);
        let open = open.unwrap_or_else(|| panic!("{place}: {event:?} is not there"));
        assert!(open.watched && open.waiting > 0, "{place}: {event:?} is not asked for");
        assert!(repeats || !open.told, "{place}: {event:?} was told");
        assert_eq!(event.readiness, Readiness::READABLE, "{place}");
    }
    for (index, slot) in slots.iter_mut().enumerate() {
        let name = id(index as u32, slot.generation);
        if let Some(open) = &mut slot.open {
            let due = open.watched && open.waiting > 0 && !open.told;
            assert!(!due || names.contains(&name), "{place}: {name:?} is missing");
            open.told |= due;
        }
    }
}
