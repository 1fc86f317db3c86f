//! The simulated network keeps its promises: order, faults from the seed, bounds, no leaks.

use std::num::NonZeroU64;
use std::time::Duration;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A frame to the port with MAC index `to`, numbered.
fn send(device: &mut SimDevice, now: Instant, to: u8, number: u32) -> usize {
    let mut frame = device.alloc(60).unwrap();
    let bytes = frame.bytes_mut();
    bytes.fill(0);
    bytes[..6].copy_from_slice(&SimPort::new(to).mac.0);
    bytes[20..24].copy_from_slice(&number.to_be_bytes());
    let mut burst = Burst::new();
    burst.push(frame);
    device.tx_burst(now, &mut burst);
    burst.len()
}

/// The numbers of all frames that have arrived.
fn received(device: &mut SimDevice, now: Instant) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut burst = Burst::new();
    loop {
        device.rx_burst(now, &mut burst);
        if burst.is_empty() {
            return numbers;
        }
        let number =
            |frame: &SimFrame| u32::from_be_bytes(*frame.bytes()[20..].first_chunk().unwrap());
        numbers.extend(burst.drain(..).map(|frame| number(&frame)));
    }
}

/// A cable between one-queue ports 1 and 2.
fn cable(change: impl FnOnce(&mut SimPort)) -> (SimNet, SimDevice, SimDevice) {
    let mut port = SimPort::new(1);
    change(&mut port);
    let mut other = SimPort::new(2);
    other.vouches = port.vouches;
    let (net, mut devices) = SimNet::new(7, &[port, other]);
    let (b, a) = (devices.pop().unwrap().pop().unwrap(), devices.pop().unwrap().pop().unwrap());
    (net, a, b)
}

#[test]
fn a_plain_cable_delivers_everything_in_order_at_once() {
    let (net, mut a, mut b) = cable(|_| ());
    let now = Instant::now();
    for number in 0..100 {
        assert_eq!(send(&mut a, now, 2, number), 0);
    }
    assert_eq!(a.frames_in_use(), 100);
    assert_eq!(received(&mut b, now), (0..100).collect::<Vec<_>>());
    assert_eq!((a.frames_in_use(), b.frames_in_use()), (0, 0));
    assert_eq!(net.stats(0), SimStats { sent: 100, ..SimStats::default() });
}

#[test]
fn a_frame_arrives_when_its_time_has_come() {
    let (net, mut a, mut b) = cable(|port| port.faults.delay = 5 * MS);
    let now = Instant::now();
    send(&mut a, now, 2, 1);
    assert_eq!(net.poll_timeout(), Some(now + 5 * MS));
    let arrivals = [0, 1].map(|port| net.next_arrival(port, 0));
    assert!(arrivals.contains(&Some(now + 5 * MS)) && arrivals.contains(&None));
    assert_eq!(received(&mut b, now + 4 * MS), []);
    assert_eq!(received(&mut b, now + 5 * MS), [1]);
    assert_eq!(net.poll_timeout(), None);
}

#[test]
fn the_wire_takes_its_time_for_every_byte() {
    let rate = NonZeroU64::new(8 * 84 * 1000).unwrap(); // a 60-byte frame a millisecond
    let (net, mut a, mut b) = cable(|port| {
        port.faults.bits_per_s = Some(rate);
        port.faults.queue_bytes = 3 * 84;
    });
    let now = Instant::now();
    for number in 0..5 {
        send(&mut a, now, 2, number);
    }
    assert_eq!(net.stats(0).overflowed, 2, "three waited, the others found no room");
    assert_eq!(received(&mut b, now + MS), [0]);
    assert_eq!(received(&mut b, now + 3 * MS), [1, 2]);
    send(&mut a, now + 10 * MS, 2, 9);
    assert_eq!(received(&mut b, now + 11 * MS), [9], "an idle wire owes nothing");
}

#[test]
fn the_same_seed_makes_the_same_faults() {
    let run = |seed| {
        let mut port = SimPort::new(1);
        port.faults = Faults {
            jitter: MS,
            loss_ppm: 100_000,
            duplicate_ppm: 100_000,
            corrupt_ppm: 100_000,
            ..Faults::default()
        };
        let (net, mut devices) = SimNet::new(seed, &[port, SimPort::new(2)]);
        let now = Instant::now();
        for number in 0..1000 {
            send(&mut devices[0][0], now + number * MS / 10, 2, number);
        }
        let arrived = received(&mut devices[1][0], now + 1000 * MS);
        assert_eq!(devices[0][0].frames_in_use(), 0);
        (arrived, net.stats(0))
    };
    let (arrived, stats) = run(1);
    for count in [stats.lost, stats.duplicated, stats.corrupted] {
        assert!((50..150).contains(&count), "about a tenth: {stats:?}");
    }
    assert_eq!(arrived.len() as u64, stats.sent + stats.duplicated - stats.lost);
    assert!(!arrived.is_sorted(), "jitter lets frames overtake");
    assert_eq!(run(1), (arrived.clone(), stats));
    assert_ne!(run(2).0, arrived);
}

#[test]
fn a_full_ring_drops_or_holds_back() {
    for (when_full, left, lost) in [(WhenFull::Drop, 0, 3), (WhenFull::Wait, 3, 0)] {
        let other = SimPort { ring_frames: 4, when_full, ..SimPort::new(2) };
        let (net, mut devices) = SimNet::new(0, &[SimPort::new(1), other]);
        let now = Instant::now();
        let mut burst = Burst::new();
        for _ in 0..7 {
            burst.push(devices[0][0].alloc(60).unwrap());
        }
        devices[0][0].tx_burst(now, &mut burst);
        assert_eq!((burst.len(), net.stats(0).overflowed), (left, lost));
        assert_eq!(received(&mut devices[1][0], now).len(), 4);
        devices[0][0].tx_burst(now, &mut burst);
        assert_eq!(received(&mut devices[1][0], now).len(), left);
    }
}

#[test]
fn a_switch_sends_each_frame_where_it_belongs() {
    let ports = [1, 2, 3].map(SimPort::new);
    let (net, mut devices) = SimNet::new(0, &ports);
    let now = Instant::now();
    send(&mut devices[0][0], now, 3, 30);
    send(&mut devices[0][0], now, 9, 90); // nobody's address
    assert_eq!(received(&mut devices[0][0], now), []);
    assert_eq!(received(&mut devices[1][0], now), [90]);
    assert_eq!(received(&mut devices[2][0], now), [30, 90]);
    net.set_blocked(0, 1, true);
    send(&mut devices[0][0], now, 9, 91);
    assert_eq!(received(&mut devices[1][0], now), []);
    assert_eq!(received(&mut devices[2][0], now), [91]);
    assert_eq!(devices[0][0].frames_in_use(), 0);
}

#[test]
fn a_pulled_cable_loses_what_is_on_its_way() {
    let (net, mut a, mut b) = cable(|port| port.faults.delay = MS);
    let now = Instant::now();
    send(&mut a, now, 2, 1);
    net.set_link(1, false);
    assert!(a.link_is_up() && !b.link_is_up());
    send(&mut a, now, 2, 2);
    net.set_link(1, true);
    send(&mut a, now, 2, 3);
    assert_eq!(received(&mut b, now + MS), [3]);
    assert_eq!(net.stats(0), SimStats { sent: 3, lost: 2, ..SimStats::default() });
    net.set_faults(0, Faults::default());
    send(&mut a, now + MS, 2, 4);
    assert_eq!(received(&mut b, now + MS), [4]);
}

#[test]
fn every_spread_uses_the_queues_as_it_says() {
    let arrivals = |spread| {
        let other = SimPort { queues: 3, spread, ..SimPort::new(2) };
        let sender = SimPort { queues: 2, ..SimPort::new(1) };
        let (_, mut devices) = SimNet::new(0, &[sender, other]);
        let now = Instant::now();
        for number in 0..6 {
            send(&mut devices[0][1], now, 2, number);
        }
        let queues = devices[1].iter_mut();
        let counts: Vec<_> = queues.map(|queue| received(queue, now).len()).collect();
        (counts, devices[1][2].info().rss.is_some())
    };
    assert_eq!(arrivals(Spread::SameIndex), (vec![0, 6, 0], false));
    assert_eq!(arrivals(Spread::RoundRobin), (vec![2, 2, 2], false));
    assert_eq!(arrivals(Spread::Moving { every: 3 }), (vec![3, 3, 0], false));
    assert_eq!(arrivals(Spread::FlowHash { announced: false }), (vec![6, 0, 0], false));
    assert_eq!(arrivals(Spread::FlowHash { announced: true }), (vec![6, 0, 0], true));
}

#[test]
fn the_pool_is_bounded_and_used_again() {
    let (_, mut a, _b) = cable(|port| port.pool_frames = 2);
    let first = a.alloc(1518).unwrap();
    let address = first.bytes().as_ptr();
    let second = a.alloc(14).unwrap();
    assert!(a.alloc(60).is_none(), "two were all");
    drop(first);
    let again = a.alloc(60).unwrap();
    assert_eq!((again.bytes().as_ptr(), again.bytes().len()), (address, 60));
    drop((second, again));
    assert!(a.alloc(1519).is_none(), "longer than MTU and header");
    assert_eq!(a.frames_in_use(), 0);
}

#[test]
fn only_an_intact_frame_is_vouched_for() {
    let (net, mut a, mut b) = cable(|port| port.vouches = true);
    assert!(a.info().lossless_memory);
    let now = Instant::now();
    let mut burst = Burst::new();
    send(&mut a, now, 2, 1);
    net.set_faults(0, Faults { corrupt_ppm: 1_000_000, ..Faults::default() });
    send(&mut a, now, 2, 1);
    b.rx_burst(now, &mut burst);
    assert_eq!(burst[0].checksum(), ChecksumState::Good);
    assert_eq!(burst[1].checksum(), ChecksumState::Unknown);
    let pairs = burst[0].bytes().iter().zip(burst[1].bytes());
    assert_eq!(pairs.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(), 1, "one bit");
}

#[test]
fn two_threads_exchange_frames_without_losing_any() {
    const FRAMES: u32 = 5_000;
    let end = Instant::now() + Duration::from_secs(60);
    let ports = [1, 2].map(|index| SimPort { when_full: WhenFull::Wait, ..SimPort::new(index) });
    let (_, mut devices) = SimNet::new(0, &ports);
    let (mut b, mut a) = (devices.pop().unwrap().remove(0), devices.pop().unwrap().remove(0));
    let echo = std::thread::spawn(move || {
        let mut burst = Burst::new();
        let mut left = FRAMES as usize;
        while left > 0 {
            let now = Instant::now();
            assert!(now < end, "hangs");
            b.rx_burst(now, &mut burst);
            let before = burst.len();
            b.tx_burst(now, &mut burst);
            left -= before - burst.len();
            std::thread::yield_now();
        }
        b
    });
    let (mut sent, mut back) = (0, Vec::new());
    while back.len() < FRAMES as usize {
        let now = Instant::now();
        assert!(now < end, "hangs");
        if sent < FRAMES && sent - (back.len() as u32) < 1000 {
            assert_eq!(send(&mut a, now, 2, sent), 0);
            sent += 1;
        }
        back.extend(received(&mut a, now));
    }
    let b = echo.join().unwrap();
    assert_eq!(back, (0..FRAMES).collect::<Vec<_>>());
    assert_eq!((a.frames_in_use(), b.frames_in_use()), (0, 0));
}
