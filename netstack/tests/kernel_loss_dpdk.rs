//! Bulk transfers to and from the kernel's TCP over a tap that loses frames: all bytes arrive, and
//! what is lost is found by acknowledgements, not by timeouts. How fast that is, `cargo bench
//! --bench kernel_loss` tells.

#![cfg(feature = "dpdk")]
#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::time::Duration;

use kernel::{Amount, Flow, Lab, Link, Sender};
use namespace::Namespace;

mod kernel;
mod namespace;

const BYTES: u64 = 4 << 20;
/// What is lost at the end of a transfer, when nothing follows, can cost a timeout.
const TIMEOUTS_MAX: u64 = 2;

/// DPDK starts once in a process: so this is one test.
#[test]
fn nothing_is_missing_that_was_lost_between_us_and_the_kernel() {
    let namespace = Namespace::new("kernel-loss-test");
    namespace.inside(|| {
        let mut lab = Lab::new(&namespace);
        for loss_ppm in [0, 10_000, 50_000] {
            let link = Link { seed: 7, loss_ppm, delay: Duration::ZERO };
            let flow = transfer(&mut lab, Sender::Ours, link);
            let Flow { lost: [_, lost], resent, fast_retransmits, timeouts, .. } = flow;
            if loss_ppm == 0 {
                assert_eq!((lost, fast_retransmits, timeouts), (0, 0, 0), "{flow:?}");
            } else {
                assert!(lost >= BYTES / 1500 * u64::from(loss_ppm) / 2_000_000, "{flow:?}");
                assert!(fast_retransmits > 0 && resent >= lost, "{flow:?}");
                assert!(timeouts <= TIMEOUTS_MAX, "{flow:?}");
            }
        }
        // The kernel takes its time at 5 %.
        for (loss_ppm, share) in [(0, 1), (10_000, 1), (50_000, 8)] {
            let link = Link { seed: 7, loss_ppm, delay: Duration::ZERO };
            let flow = lab.run(Sender::Kernel, Amount::Bytes(BYTES / share), link);
            assert_eq!(flow.bytes, BYTES / share, "{flow:?}");
            assert!(loss_ppm == 0 || flow.lost[0] > 0, "{flow:?}");
        }
    });
}

fn transfer(lab: &mut Lab, sender: Sender, link: Link) -> Flow {
    let flow = lab.run(sender, Amount::Bytes(BYTES), link);
    assert_eq!(flow.bytes, BYTES, "{flow:?}");
    flow
}
