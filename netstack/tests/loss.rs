//! What is left of the speed of a flow when frames are lost, late or doubled. Time is simulated,
//! so the figures are the same on every machine; `cargo bench --bench loss` prints more of them.

#![expect(clippy::unwrap_used, reason = "helpers are in a module of their own")]

use std::time::Duration;

use flows::{Flow, Link, Run};
use netstack::native::Congestion;

mod flows;

/// Long enough for a window to grow to its full size between losses.
const TIME: Duration = Duration::from_millis(40);
/// Two of the shortest retransmission timeouts.
const STALL_MAX: Duration = Duration::from_millis(10);

fn one_flow(congestion: Congestion, link: Link, time: Duration) -> Flow {
    Run::new(congestion, link).flows(1, time).remove(0)
}

#[test]
fn a_flow_keeps_its_speed_when_frames_are_lost() {
    let whole = one_flow(Congestion::Cubic, Link::default(), TIME);
    assert!(whole.mbit_per_s > 9000.0, "{whole:?}");
    assert_eq!(whole.resent, 0);
    for (loss_ppm, share) in [(100, 0.85), (1000, 0.8), (10_000, 0.6), (50_000, 0.4)] {
        let flow = one_flow(Congestion::Cubic, Link { loss_ppm, ..Link::default() }, TIME);
        assert!(flow.mbit_per_s >= share * whole.mbit_per_s, "{loss_ppm} ppm: {flow:?}");
        assert!(flow.stall <= STALL_MAX, "{loss_ppm} ppm: {flow:?}");
        assert!(flow.resent > 0);
    }
}

/// With the timeout that kernels have as peers a single one would be a long stall.
#[test]
fn losses_are_found_without_a_timeout() {
    for seed in 0..8 {
        for (loss_ppm, congestion) in [(10_000, Congestion::Cubic), (50_000, Congestion::Reno)] {
            let link = Link { seed, loss_ppm, clock_multiplier: 5, ..Link::default() };
            let flow = one_flow(congestion, link, TIME);
            assert!(flow.stall <= STALL_MAX, "seed {seed}, {loss_ppm} ppm: {flow:?}");
        }
    }
}

#[test]
fn a_flow_keeps_its_speed_when_frames_are_late_or_doubled() {
    for congestion in [Congestion::Cubic, Congestion::Reno] {
        let whole = one_flow(congestion, Link::default(), TIME / 4);
        for (what, link) in Link::default().disturbed() {
            let flow = one_flow(congestion, link, TIME / 4);
            assert!(flow.mbit_per_s >= 0.8 * whole.mbit_per_s, "{what}: {flow:?}");
            assert!(flow.stall <= STALL_MAX, "{what}: {flow:?}");
        }
    }
}

#[test]
fn two_flows_share_a_link() {
    for congestion in [Congestion::Cubic, Congestion::Reno] {
        for loss_ppm in [0, 1000] {
            let link = Link { bits_per_s: 1_000_000_000, loss_ppm, ..Link::default() };
            let flows = Run::new(congestion, link).flows(2, Duration::from_millis(400));
            let rates: Vec<_> = flows.iter().map(|flow| flow.mbit_per_s).collect();
            assert!(flows::jain(&rates) >= 0.9, "{congestion:?}, {loss_ppm} ppm: {rates:?}");
        }
    }
}

#[test]
fn a_link_that_loses_a_third_of_all_frames_is_slow_and_no_more() {
    for congestion in [Congestion::Cubic, Congestion::Reno, Congestion::None] {
        let link = Link { loss_ppm: 330_000, ..Link::default() };
        let flow = Run::new(congestion, link).flows(1, Duration::from_secs(2)).remove(0);
        assert!(flow.mbit_per_s > 0.2, "{congestion:?}: {flow:?}");
    }
}
