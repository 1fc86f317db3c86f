use super::*;

fn load(pace: Pace, sizes: &str, connections: usize) -> Load {
    let sizes = sizes.parse().unwrap();
    Load {
        kind: Kind::Echo,
        sizes,
        connections,
        idle_connections: 0,
        pace,
        warmup_s: 1.0,
        duration_s: 5.0,
        seed: 1,
    }
}

fn closed(depth: usize, think_time_s: f64) -> Pace {
    Pace::Closed { depth, think_time_s }
}

fn open(rate_per_s: f64, arrivals: Arrivals) -> Pace {
    Pace::Open { rate_per_s, arrivals }
}

/// A generator with a network that answers after a fixed time, on a virtual clock.
struct World {
    generator: Generator,
    start: Instant,
    now: Instant,
    latency: Duration,
    on_the_way: VecDeque<(Instant, Departure)>,
    departures: Vec<(Duration, usize, usize)>,
}

impl World {
    fn new(load: &Load, latency: Duration) -> Self {
        let start = Instant::now();
        let mut generator = Generator::new(load, load.connections, 1.0, load.seed, start);
        assert_eq!(generator.poll_departure(start), None, "nothing leaves before the beginning");
        let from = start + load.warmup();
        generator.begin(start, Window { from, until: from + load.duration() });
        let (on_the_way, departures) = (VecDeque::new(), Vec::new());
        Self { generator, start, now: start, latency, on_the_way, departures }
    }

    fn answer(&mut self) {
        while self.on_the_way.front().is_some_and(|(due, _)| *due <= self.now) {
            let (_, departure) = self.on_the_way.pop_front().unwrap();
            self.generator.handle_reply(self.now, departure.tid, departure.size).unwrap();
        }
    }

    fn send(&mut self) {
        while let Some(departure) = self.generator.poll_departure(self.now) {
            self.on_the_way.push_back((self.now + self.latency, departure));
            let Departure { connection, size, .. } = departure;
            self.departures.push((self.now - self.start, connection, size));
        }
    }

    /// The next event, however far away; false: none is left.
    fn step(&mut self) -> bool {
        let reply = self.on_the_way.front().map(|(due, _)| *due);
        let Some(next) = self.generator.poll_timeout().into_iter().chain(reply).min() else {
            return false;
        };
        self.now = self.now.max(next);
        self.answer();
        self.send();
        true
    }

    fn run(&mut self) -> Record {
        while self.step() {}
        assert_eq!(self.generator.under_way(), 0);
        let mut record = Record::new();
        self.generator.exchange(&mut record);
        record
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_closed_loop_keeps_its_depth_on_each_connection() {
    let mut world = World::new(&load(closed(3, 0.0), "64", 2), MS);
    world.send();
    assert_eq!(world.generator.under_way(), 6);
    let of = |connection| world.departures.iter().filter(|d| d.1 == connection).count();
    assert_eq!((of(0), of(1)), (3, 3));
    let record = world.run();
    // 6 messages every millisecond for 5 s; those of the warm-up do not count.
    assert_eq!((record.latencies.count(), record.sent, record.late), (30_000, 30_000, 0));
    assert_eq!(record.bytes, 30_000 * 64);
    assert!((record.latencies.microseconds().p50 - 1000.0).abs() < 1.0);
}

#[test]
fn think_time_is_added_to_each_round() {
    let record = World::new(&load(closed(1, 0.004), "64", 1), MS).run();
    assert_eq!(record.latencies.count(), 1000);
}

#[test]
fn an_open_loop_does_not_wait_for_replies() {
    let mut world = World::new(&load(open(1000.0, Arrivals::Constant), "64:1,128:1", 4), 50 * MS);
    let record = world.run();
    assert_eq!((record.latencies.count(), record.late), (5000, 0));
    assert_eq!(world.departures.len(), 6000, "warm-up included");
    let connections: Vec<_> = world.departures[..5].iter().map(|d| d.1).collect();
    assert_eq!(connections, [0, 1, 2, 3, 0]);
    assert!(world.departures.iter().any(|d| d.2 == 128));
    let gaps = world.departures.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.into_iter().all(|gap| gap.abs_diff(MS) <= Duration::from_nanos(1)));
}

#[test]
fn poisson_arrivals_keep_the_rate_and_bunch() {
    let mut world = World::new(&load(open(10_000.0, Arrivals::Poisson), "64", 1), MS);
    let record = world.run();
    assert!((49_000..51_000).contains(&record.sent), "{}", record.sent);
    let gaps: Vec<_> = world.departures.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    // Of exponential gaps 1 - 1/e are shorter than the mean.
    let short = gaps.iter().filter(|gap| **gap < MS / 10).count() as f64 / gaps.len() as f64;
    assert!((short - 0.632).abs() < 0.02, "{short}");
}

#[test]
fn a_stall_of_the_generator_shows_in_percentiles_and_alarm() {
    let mut world = World::new(&load(open(1000.0, Arrivals::Constant), "64", 1), MS);
    while world.now < world.start + 3000 * MS {
        assert!(world.step());
    }
    world.now += 100 * MS; // the generator's thread does not run
    let record = world.run();
    assert_eq!(record.latencies.count(), 5000, "what was missed is made up for");
    assert!((99..=101).contains(&record.late), "{}", record.late);
    let (intended, service) = (record.latencies.microseconds(), record.service.microseconds());
    assert!((100_000.0..103_000.0).contains(&intended.max), "{intended:?}");
    assert!(intended.p99 > 40_000.0 && intended.p50 < 1100.0, "{intended:?}");
    // The other figure hides all but the replies that the stall itself kept waiting.
    assert!(service.p99 < 1100.0, "{service:?}");
}

#[test]
fn an_open_loop_has_a_bound_and_says_that_it_met_it() {
    let load = load(open(100_000.0, Arrivals::Constant), "0", 1);
    let mut world = World::new(&load, Duration::from_secs(3600));
    while world.generator.poll_timeout().is_some() {
        world.step();
    }
    assert_eq!(world.generator.under_way(), OPEN_UNDER_WAY);
    let end = world.start + load.warmup() + load.duration();
    let due = 500_000 - (OPEN_UNDER_WAY as u64).saturating_sub(100_000);
    assert_eq!(world.generator.count_overdue(end), due, "those that never left");
    assert_eq!(world.generator.count_overdue(end), 0, "are counted once");
}

#[test]
fn what_the_transport_refuses_is_offered_again_first_and_counts_once() {
    let mut world = World::new(&load(open(1000.0, Arrivals::Constant), "64", 2), MS);
    world.now += 2000 * MS;
    let first = world.generator.poll_departure(world.now).unwrap();
    world.generator.refuse(first);
    assert!(world.generator.has_refused());
    world.now += MS;
    let again = world.generator.poll_departure(world.now).unwrap();
    assert_eq!((again.connection, again.size), (first.connection, first.size));
    assert_ne!(again.tid, first.tid);
    let error = world.generator.handle_reply(world.now, first.tid, 64).unwrap_err();
    assert!(error.contains("no message of ours"), "{error}");
    world.generator.handle_reply(world.now, again.tid, 64).unwrap();
    assert_eq!(world.generator.under_way(), 0);
}

#[test]
fn replies_that_answer_nothing_or_differ_are_refused() {
    let mut world = World::new(&load(closed(1, 0.0), "64", 1), MS);
    let sent = world.generator.poll_departure(world.now).unwrap();
    for tid in [sent.tid + 1, 0, u64::MAX] {
        assert!(world.generator.handle_reply(world.now, tid, 64).is_err(), "{tid:#x}");
    }
    assert!(world.generator.handle_reply(world.now, sent.tid, 63).unwrap_err().contains("63"));
    world.generator.handle_reply(world.now, sent.tid, 64).unwrap();
    assert!(world.generator.handle_reply(world.now, sent.tid, 64).is_err(), "twice");
}
