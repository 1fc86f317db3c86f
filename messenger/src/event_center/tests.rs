//! One test per contract, E-1 to E-15, over a fake driver; then two centres on two threads. The
//! parts: Ceph's cases of the file table, and centres over the kernel's drivers.

use super::*;
use netstack::stack::Waker;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

mod drivers;
mod file_table;

/// Reports what the test staged and remembers how it was asked to sleep.
#[derive(Default)]
struct Fake {
    staged: Vec<Ready>,
    asked: Vec<Option<Instant>>,
}

impl EventDriver for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn wait(
        &mut self,
        _: Instant,
        deadline: Option<Instant>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        self.asked.push(deadline);
        ready.append(&mut self.staged);
        Ok(())
    }
    fn waker(&self) -> Waker {
        Waker::noop()
    }
}

/// A centre, its driver and a clock that only moves by hand.
struct Bench {
    center: EventCenter<u32, u32>,
    driver: Fake,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let driver = Fake::default();
        let inbox = Arc::new(Inbox::new(4096, driver.waker()));
        Self { center: EventCenter::new(inbox), driver, now: Instant::now() }
    }

    fn stage(&mut self, socket: SocketId, readiness: Readiness) {
        self.driver.staged.push(Ready { socket, readiness });
    }

    fn collect(&mut self) {
        let collected = self.center.collect(self.now, None, &mut self.driver);
        collected.unwrap();
    }

    fn next(&mut self) -> Option<Event<u32, u32>> {
        self.center.next_event(self.now)
    }

    fn turn(&mut self) -> Vec<Event<u32, u32>> {
        self.collect();
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn socket(slot: u32, generation: u32) -> SocketId {
    SocketId { slot, generation }
}

fn file(key: u32, socket: SocketId, readiness: Readiness) -> Event<u32, u32> {
    Event::File { key, socket, readiness }
}

#[test]
fn e3_watching_again_always_replaces_interest_and_key() {
    let mut bench = Bench::new();
    let s = socket(3, 0);
    bench.center.watch(s, Readiness::READABLE, 1);
    bench.center.watch(s, Readiness::READABLE, 2); // same interest, another key
    bench.stage(s, Readiness::READABLE);
    assert_eq!(bench.turn(), [file(2, s, Readiness::READABLE)]);
    assert_eq!(bench.center.watched(), 1);
}

#[test]
fn e3_the_table_grows_and_empties() {
    let mut bench = Bench::new();
    for slot in 0..300 {
        let s = socket(slot, 7);
        bench.center.watch(s, Readiness::ALL, slot);
        bench.stage(s, Readiness::READABLE);
    }
    assert_eq!(bench.center.watched(), 300);
    let mut seen = bench.turn().len();
    assert_eq!(seen, FILES_PER_TURN);
    seen += bench.turn().len();
    assert_eq!(seen, 300);
    for slot in 0..300 {
        bench.center.unwatch(socket(slot, 7));
    }
    assert_eq!(bench.center.watched(), 0);
}

#[test]
fn e4_unwatching_an_unknown_socket_does_nothing() {
    let mut bench = Bench::new();
    bench.center.unwatch(socket(9, 0));
    bench.center.watch(socket(1, 1), Readiness::ALL, 1);
    bench.center.unwatch(socket(1, 0)); // the slot's earlier user
    assert_eq!(bench.center.watched(), 1);
}

#[test]
fn e5_interest_is_checked_when_the_event_is_handed_out() {
    let mut bench = Bench::new();
    let (a, b, c) = (socket(1, 0), socket(2, 0), socket(3, 0));
    for (key, s) in [(1, a), (2, b), (3, c)] {
        bench.center.watch(s, Readiness::ALL, key);
        bench.stage(s, Readiness::ALL);
    }
    bench.collect();
    assert_eq!(bench.next(), Some(file(1, a, Readiness::ALL)));
    // What the handler of the first event does to the others counts at once.
    bench.center.unwatch(b);
    bench.center.watch(c, Readiness::WRITABLE, 3);
    assert_eq!(bench.next(), Some(file(3, c, Readiness::WRITABLE)));
    assert_eq!(bench.next(), None);
}

#[test]
fn e5_news_of_a_slots_former_user_is_not_given_to_the_next() {
    let mut bench = Bench::new();
    let (old, new) = (socket(1, 4), socket(1, 5));
    bench.center.watch(old, Readiness::ALL, 1);
    bench.stage(old, Readiness::READABLE);
    bench.collect();
    bench.center.unwatch(old);
    bench.center.watch(new, Readiness::ALL, 2);
    assert_eq!(bench.next(), None);
    bench.stage(old, Readiness::READABLE);
    assert_eq!(bench.turn(), []);
}

#[test]
fn bits_that_nobody_asked_for_arrive_once_somebody_does() {
    let mut bench = Bench::new();
    let s = socket(1, 0);
    bench.center.watch(s, Readiness::WRITABLE, 1);
    bench.stage(s, Readiness::READABLE);
    assert_eq!(bench.turn(), []);
    bench.center.watch(s, Readiness::ALL, 1);
    assert_eq!(bench.turn(), [file(1, s, Readiness::READABLE)]);
    assert_eq!(bench.turn(), []);
}

#[test]
fn two_reports_of_one_socket_are_one_event() {
    let mut bench = Bench::new();
    let s = socket(1, 0);
    bench.center.watch(s, Readiness::ALL, 1);
    bench.stage(s, Readiness::READABLE);
    bench.stage(s, Readiness::WRITABLE);
    assert_eq!(bench.turn(), [file(1, s, Readiness::ALL)]);
}

#[test]
fn a_socket_that_stopped_early_comes_up_again_behind_the_others() {
    let mut bench = Bench::new();
    let (a, b) = (socket(1, 0), socket(2, 0));
    bench.center.watch(a, Readiness::ALL, 1);
    bench.center.watch(b, Readiness::ALL, 2);
    bench.stage(a, Readiness::READABLE);
    bench.stage(b, Readiness::READABLE);
    bench.collect();
    assert_eq!(bench.next(), Some(file(1, a, Readiness::READABLE)));
    bench.center.again(a, Readiness::READABLE);
    assert_eq!(bench.next(), Some(file(2, b, Readiness::READABLE)));
    assert_eq!(bench.next(), None); // not twice in one turn
    assert_eq!(bench.turn(), [file(1, a, Readiness::READABLE)]);
    assert_eq!(bench.driver.asked.last(), Some(&Some(bench.now))); // and no sleep before it
}

#[test]
fn e6_timers_fire_once_in_order_with_ids_from_one() {
    let mut bench = Bench::new();
    let at = |micros| bench.now + Duration::from_micros(micros);
    let (late, early) = (at(2), at(1));
    let second = bench.center.add_timer(late, 20);
    let first = bench.center.add_timer(early, 10);
    assert_eq!((second.id(), first.id()), (1, 2));
    assert_eq!(bench.turn(), []);
    bench.now += Duration::from_micros(1);
    assert_eq!(bench.turn(), [Event::Time { id: first, key: 10 }]);
    bench.now += Duration::from_micros(1);
    let fired = Event::Time { id: second, key: 20 };
    assert_eq!(bench.turn(), [fired]);
    assert_eq!(bench.turn(), []);
}

#[test]
fn e6_a_timer_can_be_cancelled_in_the_turn_it_is_due() {
    let mut bench = Bench::new();
    bench.center.add_timer(bench.now, 1);
    let second = bench.center.add_timer(bench.now, 2);
    bench.collect();
    assert!(matches!(bench.next(), Some(Event::Time { key: 1, .. })));
    assert!(bench.center.cancel_timer(second));
    assert!(!bench.center.cancel_timer(second));
    assert_eq!(bench.next(), None);
}

#[test]
fn e6_a_timer_set_in_a_turn_fires_in_a_later_one() {
    let mut bench = Bench::new();
    bench.center.add_timer(bench.now, 1);
    bench.collect();
    assert!(matches!(bench.next(), Some(Event::Time { key: 1, .. })));
    bench.center.add_timer(bench.now, 2);
    assert_eq!(bench.next(), None);
    assert!(matches!(bench.turn()[..], [Event::Time { key: 2, .. }]));
}

#[test]
fn e6_cancelled_timers_leave_nothing_behind() {
    let mut bench = Bench::new();
    for _ in 0..10_000 {
        let id = bench.center.add_timer(bench.now + Duration::from_secs(900), 0);
        bench.center.cancel_timer(id);
    }
    assert_eq!(bench.center.timers.len(), 0);
}

#[test]
fn e7_an_idle_centre_sleeps_to_its_nearest_timer() {
    let mut bench = Bench::new();
    bench.turn();
    assert_eq!(bench.driver.asked, [None]);
    let deadline = bench.now + Duration::from_millis(5);
    bench.center.add_timer(deadline + Duration::from_millis(1), 0);
    bench.center.add_timer(deadline, 0);
    bench.turn();
    assert_eq!(bench.driver.asked.last(), Some(&Some(deadline)));
    let sooner = deadline - Duration::from_millis(1);
    let collected = bench.center.collect(bench.now, Some(sooner), &mut bench.driver);
    collected.unwrap();
    assert_eq!(bench.driver.asked.last(), Some(&Some(sooner)));
}

#[test]
fn e7_it_does_not_sleep_with_external_events_waiting() {
    let mut bench = Bench::new();
    bench.center.inbox().send(5).unwrap();
    assert_eq!(bench.turn(), [Event::External(5)]);
    assert_eq!(bench.driver.asked, [Some(bench.now)]);
    bench.turn();
    assert_eq!(bench.driver.asked.last(), Some(&None));
}

#[test]
fn e8_no_class_starves_another() {
    let mut bench = Bench::new();
    let polled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&polled);
    let poller: Poller = Box::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Progress::Idle
    });
    assert!(bench.center.add_poller(poller).is_ok());
    let s = socket(1, 0);
    bench.center.watch(s, Readiness::ALL, 1);
    // Far more than a share of timers and of external events, and a socket that never blocks.
    for _ in 0..3 * TIMERS_PER_TURN {
        bench.center.add_timer(bench.now, 0);
    }
    for item in 0..3 * EXTERNALS_PER_TURN as u32 {
        bench.center.inbox().send(item).unwrap();
    }
    for turn in 1..=3 {
        bench.stage(s, Readiness::READABLE);
        let events = bench.turn();
        let files = events.iter().filter(|e| matches!(e, Event::File { .. }));
        let times = events.iter().filter(|e| matches!(e, Event::Time { .. }));
        assert_eq!(files.count(), 1);
        assert_eq!(times.count(), TIMERS_PER_TURN);
        assert_eq!(events.len(), 1 + TIMERS_PER_TURN + EXTERNALS_PER_TURN);
        assert_eq!(polled.load(Ordering::Relaxed), turn);
        assert_eq!(bench.driver.asked.len() as u64, turn);
    }
}

#[test]
fn e12_pollers_run_every_turn_keep_the_driver_awake_and_are_bounded() {
    let mut bench = Bench::new();
    let ids: Vec<_> = (0..POLLERS_MAX)
        .map(|_| bench.center.add_poller(Box::new(|_| Progress::Busy)))
        .map(|added| added.ok().unwrap())
        .collect();
    assert!(bench.center.add_poller(Box::new(|_| Progress::Idle)).is_err());
    let progress = bench.center.collect(bench.now, None, &mut bench.driver).unwrap();
    assert_eq!(progress, Progress::Busy);
    assert_eq!(bench.driver.asked, [Some(bench.now)]);
    for id in ids {
        assert!(bench.center.remove_poller(id));
        assert!(!bench.center.remove_poller(id));
    }
    bench.turn();
    assert_eq!(bench.driver.asked.last(), Some(&None));
}

/// A driver that can sleep: its waker sets a flag under a lock, as an event descriptor would.
#[derive(Clone, Default)]
struct Sleeper(Arc<(Mutex<bool>, Condvar)>);

impl EventDriver for Sleeper {
    fn name(&self) -> &'static str {
        "sleeper"
    }
    fn wait(
        &mut self,
        now: Instant,
        deadline: Option<Instant>,
        _: &mut Vec<Ready>,
    ) -> io::Result<()> {
        let (woken, bell) = &*self.0;
        let mut woken = woken.lock().unwrap();
        if deadline.is_none_or(|deadline| deadline > now) {
            while !*woken {
                woken = bell.wait(woken).unwrap();
            }
        }
        *woken = false;
        Ok(())
    }
    fn waker(&self) -> Waker {
        let shared = Arc::clone(&self.0);
        Waker::new(move || {
            *shared.0.lock().unwrap() = true;
            shared.1.notify_one();
        })
    }
}

/// Ceph's DispatchTest: two centres on two threads toss a counter to and fro. A lost wake-up hangs
/// it, an event run twice breaks the count.
#[test]
fn e9_no_wake_up_is_lost_between_two_threads() {
    const ROUNDS: u32 = 10_000;
    let drivers = [Sleeper::default(), Sleeper::default()];
    let inboxes = drivers.each_ref().map(|driver| Arc::new(Inbox::new(16, driver.waker())));
    let threads: Vec<_> = drivers
        .into_iter()
        .enumerate()
        .map(|(me, mut driver)| {
            let mut center = EventCenter::<(), u32>::new(Arc::clone(&inboxes[me]));
            let other = Arc::clone(&inboxes[1 - me]);
            std::thread::spawn(move || {
                let mut got = Vec::new();
                while got.len() < ROUNDS as usize {
                    center.collect(Instant::now(), None, &mut driver).unwrap();
                    while let Some(event) = center.next_event(Instant::now()) {
                        let Event::External(count) = event else {
                            unreachable!("only external events here");
                        };
                        got.push(count);
                        if count + 1 < 2 * ROUNDS {
                            other.send(count + 1).unwrap();
                        }
                    }
                }
                got
            })
        })
        .collect();
    inboxes[0].send(0).unwrap();
    for (me, thread) in threads.into_iter().enumerate() {
        let expected: Vec<_> = (0..2 * ROUNDS).filter(|n| *n as usize % 2 == me).collect();
        assert_eq!(thread.join().unwrap(), expected);
    }
}
