//! Cases 33 to 35: messages. What they mean is not known here: that of 33 and 36 which depends on it
//! is in `messenger/tests` and in `messenger/cli/tests`.

use crate::probe::{everywhere, head};
use crate::wire::{Frame, tag};

#[test]
fn c33_a_header_that_is_too_short_closes() {
    for len in [0, 1, 40] {
        everywhere(|probe| {
            let segments: [&[u8]; 2] = [&vec![0; len], b"front"];
            probe.ready().frame(&Frame::new(tag::MESSAGE, &segments)).is_closed_for("payload");
        });
    }
    everywhere(|probe| {
        probe.ready().send(tag::MESSAGE, &[0; 40]).is_closed_for("payload");
    });
}

/// As Ceph does; what is new in it is not ours to know.
#[test]
fn c33_a_header_may_be_longer() {
    everywhere(|probe| {
        let head = [&head(1, 2)[..], &[0xaa; 20]].concat();
        probe.ready().frame(&Frame::new(tag::MESSAGE, &[&head, b"front"]));
        assert_eq!(probe.arrived(), [1]);
    });
}

#[test]
fn c34_a_number_may_jump_ahead() {
    everywhere(|probe| {
        probe.ready().message(41, 2, &[b"x"]);
        assert_eq!(probe.arrived(), [41]);
        assert_eq!(probe.slot().session.stats().skipped, 1);
        probe.is_answered();
    });
}

/// Ceph stops reading then.
#[test]
fn c35_a_number_that_was_there_is_dropped_and_we_read_on() {
    everywhere(|probe| {
        probe.ready();
        for seq in [1, 1, 0, 2, 1, 3] {
            probe.message(seq, 2, &[b"x"]);
        }
        assert_eq!(probe.arrived(), [1, 2, 3]);
        assert_eq!(probe.slot().session.stats().duplicates, 3);
        probe.is_answered();
    });
}
