//! How many bytes a frame has on the wire.

use messenger_proto::v2::Revision;
use messenger_proto::v2::preamble::PREAMBLE_LEN;

use crate::link::{Form, segments, wire_len};

#[test]
fn case_40_lengths_on_the_wire_are_the_format_s() {
    let len = |revision, secure, lens| {
        let form = Form { revision, secure, compression: None };
        form.link().write(&segments(lens)).len()
    };
    use Revision::{Rev0, Rev1};
    assert_eq!(PREAMBLE_LEN, 32);
    let one = |first| [first, 0, 0, 0];

    assert_eq!(len(Rev1, false, one(0)), 32);
    assert_eq!(len(Rev1, false, one(41)), 32 + 41 + 4);
    assert_eq!(len(Rev1, false, [41, 5, 0, 6]), 32 + 41 + 4 + 11 + 13);
    assert_eq!(len(Rev1, false, [0, 5, 0, 0]), 32 + 5 + 13);
    assert_eq!(len(Rev0, false, one(0)), 32 + 17);
    assert_eq!(len(Rev0, false, [41, 5, 0, 6]), 32 + 41 + 11 + 17);

    for inline in [0, 1, 41, 48] {
        assert_eq!(len(Rev1, true, one(inline)), 96);
    }
    assert_eq!(len(Rev1, true, one(49)), 96 + 32);
    assert_eq!(len(Rev1, true, one(64)), 96 + 32);
    assert_eq!(len(Rev1, true, one(65)), 96 + 48);
    assert_eq!(len(Rev1, true, [41, 5, 0, 6]), 96 + 16 + 16 + 32);
    assert_eq!(len(Rev1, true, [49, 0, 0, 17]), 96 + 32 + 32 + 32);
    assert_eq!(len(Rev0, true, one(0)), 32 + 32);
    assert_eq!(len(Rev0, true, one(49)), 32 + 64 + 32);
    assert_eq!(len(Rev0, true, [41, 5, 0, 6]), 32 + 48 + 16 + 16 + 32);
}

/// The sizes of Ceph's performance test; `cargo bench --bench frames` takes their time.
#[test]
fn case_41_lengths_hold_for_the_sizes_that_are_timed() {
    for form in Form::all(None) {
        let mut link = form.link();
        for data in [0, 512, 4 << 10, 32 << 10, 128 << 10, 4 << 20] {
            let lens = [41, 250, 0, data];
            let sent = segments(lens);
            let bytes = link.write(&sent);
            assert_eq!(bytes.len(), wire_len(form, &lens), "{form:?} {data}");
            assert_eq!(link.read(bytes).unwrap().1.segments, sent);
        }
    }
}
