//! Frames of one shape that follow each other, whose preambles are not made and checked anew.

use bytes::{Bytes, BytesMut};
use messenger_proto::ProtocolError;
use messenger_proto::v2::preamble::PREAMBLE_LEN;

use crate::link::{Form, count, segments};

/// Lengths that repeat, change in one segment only, and come back.
const REPEATING: [[usize; 4]; 7] = [
    [41, 64, 0, 0],
    [41, 64, 0, 0],
    [41, 65, 0, 0],
    [41, 65, 0, 7],
    [41, 64, 0, 0],
    [41, 64, 0, 0],
    [40, 64, 0, 0],
];

#[test]
fn a_frame_looks_the_same_whatever_came_before_it() {
    for form in Form::all(None).into_iter().filter(|form| !form.secure) {
        let mut link = form.link();
        for lens in REPEATING {
            let bytes = link.write(&segments(lens));
            assert_eq!(bytes, form.link().write(&segments(lens)), "{form:?} {lens:?}");
            let (preamble, frame) = link.read(bytes).unwrap();
            assert_eq!(preamble.lens(), &lens.map(|len| len as u32)[..count(&lens)]);
            assert_eq!(frame.segments, segments(lens));
        }
    }
}

#[test]
fn a_preamble_that_is_almost_the_last_one_is_not_trusted() {
    for form in Form::all(None).into_iter().filter(|form| !form.secure) {
        let mut link = form.link();
        let good = link.write(&segments([41, 64, 0, 0]));
        for bit in 0..PREAMBLE_LEN * 8 {
            assert!(link.read(good.clone()).is_ok());
            let mut bad = BytesMut::from(&good[..]);
            bad[bit / 8] ^= 1 << (bit % 8);
            let refused = link.read(bad.freeze());
            assert!(matches!(refused, Err(ProtocolError::PreambleCrc { .. })), "bit {bit}");
        }
        let zeros = Bytes::from_static(&[0; PREAMBLE_LEN]);
        let refused = form.link().read(zeros).unwrap_err();
        assert_eq!(refused, ProtocolError::SegmentCount { tag: 0, count: 0 });
    }
}
