//! What the worker tells of its connections: losses, windows, round trips.

use std::time::Duration;

use super::lab::{Lab, patterned, v4};
use crate::device::sim::Faults;
use crate::native::Congestion;
use crate::stack::{ConnectedSocket, Worker};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Counters of a host by their names.
fn counters<const N: usize>(lab: &Lab, host: usize, names: [&str; N]) -> [u64; N] {
    names.map(|name| lab.counter(host, name))
}

const LOSSES: [&str; 4] =
    ["segments_resent", "retransmission_timeouts", "fast_retransmits", "duplicate_acks_received"];

/// Sends one segment after another so that none of them shares a turn with the next.
fn dribble(lab: &mut Lab, socket: &ConnectedSocket, segments: usize) {
    for _ in 0..segments {
        assert_eq!(lab.send(0, socket, &[7; 100]), 100);
        lab.turn();
    }
}

#[test]
fn a_segment_that_is_lost_alone_is_resent_by_the_timer() {
    let mut lab = Lab::pair();
    let (client, _accepted) = lab.connected(v4(1));
    lab.run(ms(10));
    assert_eq!(counters(&lab, 0, LOSSES), [0; 4]);

    lab.net.set_blocked(0, 1, true);
    lab.send(0, &client, &[1; 100]);
    lab.run(ms(10));
    let info = lab.hosts[0].tcp_info(&client).unwrap();
    assert_eq!((info.unacked_bytes, info.send_queue_bytes, info.segments_resent), (100, 100, 0));

    lab.net.set_blocked(0, 1, false);
    lab.until(|lab| lab.hosts[0].tcp_info(&client).unwrap().unacked_bytes == 0);
    assert_eq!(counters(&lab, 0, LOSSES), [1, 1, 0, 0]);
    let info = lab.hosts[0].tcp_info(&client).unwrap();
    assert_eq!((info.send_queue_bytes, info.segments_resent), (0, 1));
}

#[test]
fn a_segment_that_others_follow_is_resent_when_they_have_arrived() {
    let mut lab = Lab::with(|_, config| config.congestion = Congestion::None);
    let (client, accepted) = lab.connected(v4(1));
    lab.run(ms(10));
    lab.net.set_blocked(0, 1, true);
    dribble(&mut lab, &client, 1);
    lab.net.set_blocked(0, 1, false);
    dribble(&mut lab, &client, 3);
    lab.run(ms(10));

    // The first of them might have overtaken it, the next one came later than that.
    assert_eq!(counters(&lab, 0, LOSSES), [1, 0, 1, 2]);
    let gap = ["out_of_order_segments", "out_of_order_bytes", "repeated_segments_received"];
    assert_eq!(counters(&lab, 1, gap), [2, 200, 0]);
    assert_eq!(lab.hosts[1].tcp_info(&accepted).unwrap().recv_queue_bytes, 400);
}

#[test]
fn data_that_was_acknowledged_already_is_seen_as_repeated() {
    let mut lab = Lab::pair();
    let (client, _accepted) = lab.connected(v4(1));
    lab.run(ms(10));
    lab.net.set_blocked(1, 0, true); // the acknowledgement is lost
    lab.send(0, &client, &[1; 100]);
    lab.run(ms(10));
    lab.net.set_blocked(1, 0, false);
    lab.until(|lab| lab.hosts[0].tcp_info(&client).unwrap().unacked_bytes == 0);
    assert_eq!(counters(&lab, 0, LOSSES), [1, 1, 0, 0]);
    let seen = ["out_of_order_segments", "repeated_segments_received"];
    assert_eq!(counters(&lab, 1, seen), [0, 1]);
}

#[test]
fn every_kind_of_loss_shows_over_a_bad_link() {
    let mut lab = Lab::with(|_, config| config.clock_multiplier = 100);
    let (client, accepted) = lab.connected(v4(1));
    let faults = Faults { delay: Duration::from_micros(50), loss_ppm: 30_000, ..Faults::default() };
    lab.net.set_faults(0, faults);
    lab.net.set_faults(1, faults);
    lab.transfer((0, &client), (1, &accepted), 1_000_000);
    let [resent, timeouts, fast, duplicates] = counters(&lab, 0, LOSSES);
    assert!(fast > 0 && duplicates > 0, "{fast} {duplicates}");
    assert!(resent >= timeouts + fast, "{resent} {timeouts} {fast}");
    assert!(lab.counter(1, "out_of_order_bytes") >= lab.counter(1, "out_of_order_segments"));
    assert!(lab.counter(1, "out_of_order_segments") > 0);
    assert!(u64::from(lab.hosts[0].tcp_info(&client).unwrap().segments_resent) <= resent);
}

#[test]
fn the_round_trip_is_that_of_the_link() {
    let mut lab = Lab::pair();
    let slow = Faults { delay: ms(3), ..Faults::default() };
    lab.introduce();
    lab.net.set_faults(0, slow);
    lab.net.set_faults(1, slow);
    let (client, accepted) = lab.connected(v4(1));
    lab.transfer((0, &client), (1, &accepted), 100_000);
    lab.run(ms(20));
    let round_trip = lab.hosts[0].tcp_info(&client).unwrap().round_trip.unwrap();
    assert!((ms(6)..ms(8)).contains(&round_trip), "{round_trip:?}");
    let info = lab.hosts[1].tcp_info(&accepted).unwrap();
    assert!(info.round_trip.is_some(), "measured with the handshake");
    let window = lab.hosts[0].tcp_info(&client).unwrap().congestion_window_bytes.unwrap();
    assert!(window > 14_600, "it has grown: {window}");
}

#[test]
fn a_closed_window_is_counted_and_timed_until_it_opens() {
    let mut lab = Lab::with(|_, config| {
        config.rx_buffer_bytes = 16_384;
        config.tx_buffer_bytes = 16_384;
    });
    let (client, accepted) = lab.connected(v4(1));
    let data = patterned(0, 32_768);
    let mut sent = 0;
    lab.until(|lab| {
        sent += lab.send(0, &client, &data[sent..]);
        lab.counter(0, "zero_windows_in_use") == 1
    });
    assert_eq!(counters(&lab, 0, ["zero_windows_received", "zero_windows_sent"]), [1, 0]);
    assert_eq!(counters(&lab, 1, ["zero_windows_received", "zero_windows_sent"]), [0, 1]);

    let before = lab.counter(0, "zero_window_ms");
    lab.run(ms(5_000));
    let closed = lab.counter(0, "zero_window_ms") - before;
    assert!((4_990..=5_010).contains(&closed), "{closed}");
    assert_eq!(counters(&lab, 0, LOSSES), [0; 4], "probes are neither losses nor duplicates");

    let mut received = Vec::new();
    lab.until(|lab| {
        sent += lab.send(0, &client, &data[sent..]);
        lab.read(1, &accepted, &mut received).unwrap();
        received.len() == data.len()
    });
    lab.run(ms(100));
    assert_eq!(lab.counter(0, "zero_windows_in_use"), 0);
    let closed = lab.counter(0, "zero_window_ms");
    lab.run(ms(100));
    assert_eq!(lab.counter(0, "zero_window_ms"), closed);
}

#[test]
fn a_connection_that_ends_with_its_window_closed_is_not_waited_for() {
    let mut lab = Lab::with(|_, config| {
        config.rx_buffer_bytes = 16_384;
        config.tx_buffer_bytes = 16_384;
    });
    let (client, accepted) = lab.connected(v4(1));
    lab.until(|lab| {
        lab.send(0, &client, &[0; 1000]);
        lab.counter(0, "zero_windows_in_use") == 1
    });
    lab.hosts[1].close(lab.now, accepted, true);
    lab.run(ms(50));
    assert_eq!(lab.counter(0, "zero_windows_in_use"), 0);
    lab.hosts[0].close(lab.now, client, false);
}

#[test]
fn keep_alives_are_no_losses() {
    let mut lab = Lab::with(|_, config| config.keepalive = Some(ms(200)));
    let (_client, _accepted) = lab.connected(v4(1));
    lab.run(ms(2_000));
    assert!(lab.counter(0, "keepalives_sent") >= 5, "{}", lab.counter(0, "keepalives_sent"));
    assert_eq!(counters(&lab, 0, LOSSES), [0; 4]);
    assert_eq!(lab.counter(1, "out_of_order_segments"), 0);
}

#[test]
fn turns_without_work_and_the_size_of_bursts_are_told() {
    let mut lab = Lab::pair();
    let (client, accepted) = lab.connected(v4(1));
    lab.transfer((0, &client), (1, &accepted), 1_000_000);
    assert!(lab.counter(1, "dpdk_receive_last_bunch") > 0);
    assert!(lab.counter(0, "dpdk_send_last_bunch") > 0);
    lab.run(ms(100));
    let busy = |lab: &Lab| lab.counter(0, "turns") - lab.counter(0, "idle_turns");
    let before = busy(&lab);
    lab.run(ms(100));
    assert_eq!(busy(&lab), before, "nothing happens");
    assert_eq!(counters(&lab, 0, ["dpdk_send_queue_length", "frame_alloc_failures"]), [0, 0]);
}

#[test]
fn checksums_found_wrong_are_one_number_too() {
    let mut lab = Lab::with(|_, config| config.clock_multiplier = 100);
    let (client, accepted) = lab.connected(v4(1));
    lab.net.set_faults(0, Faults { corrupt_ppm: 100_000, ..Faults::default() });
    lab.transfer((0, &client), (1, &accepted), 100_000);
    let parts = counters(
        &lab,
        1,
        ["drop_ip_checksum", "drop_tcp_checksum", "drop_icmp_checksum", "drop_device_checksum"],
    );
    let all = lab.counter(1, "dpdk_receive_bad_checksum_errors");
    assert!(all > 0);
    assert_eq!(all, parts.iter().sum::<u64>());
}
