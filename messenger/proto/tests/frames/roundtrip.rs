//! What is written is read again, and nothing of one frame is left in the next.

use bytes::Bytes;
use messenger_proto::v2::{Compression, Method};

use crate::link::{Form, count, segments, shapes, wire_len};

/// Off, forced, and from 1 KiB on, as Ceph's test has it; then the other methods, forced.
fn compressions() -> Vec<Option<Compression>> {
    let forced = Method::ALL.map(|method| Some(Compression { method, min_size: 0 }));
    let threshold = Some(Compression { method: Method::Snappy, min_size: 1024 });
    [None, threshold].into_iter().chain(forced).collect()
}

/// Ceph's shapes all stay below the threshold of 1 KiB; these do not.
fn above_the_threshold() -> impl Iterator<Item = [usize; 4]> {
    shapes().map(|[first, front, middle, data]| [first, front * 20, middle * 30, data * 400])
}

/// .1 the sum, .2 the count, .3 the lengths of case 40, .4 all bytes, .5 the same frame again.
fn goes_there_and_back(form: Form, lens: [usize; 4]) {
    let sent = segments(lens);
    let mut link = form.link();
    let bytes = link.write(&sent);
    let (preamble, frame) = link.read(bytes.clone()).unwrap();
    let context = format!("{form:?} {lens:?}");

    let plain: usize = lens.iter().sum();
    let on_wire: Vec<usize> = preamble.lens().iter().map(|len| *len as usize).collect();
    assert_eq!(preamble.lens().len(), count(&lens), "{context}");
    let mut wire_lens = [0; 4];
    wire_lens[..on_wire.len()].copy_from_slice(&on_wire);
    assert_eq!(bytes.len(), wire_len(form, &wire_lens), "{context}");
    assert_eq!(frame.tag, 17);
    assert_eq!(frame.segments, sent, "{context}");
    assert!(!frame.aborted);

    match form.compression {
        Some(Compression { min_size, .. }) if preamble.compressed => {
            assert!(plain >= min_size as usize && on_wire.iter().sum::<usize>() < plain);
        }
        Some(Compression { min_size, .. }) if plain >= 2000.max(min_size as usize) => {
            panic!("{context}: not compressed");
        }
        _ => assert_eq!(on_wire.iter().sum::<usize>(), plain, "{context}"),
    }
    if form.compression.is_none() {
        assert!(!preamble.compressed);
    }
}

#[test]
fn case_38_every_form_of_every_shape_survives_a_round_trip() {
    let mut tried = 0;
    for compression in compressions() {
        for form in Form::all(compression) {
            for lens in shapes().chain(above_the_threshold()) {
                goes_there_and_back(form, lens);
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 6 * 4 * 64);
}

#[test]
fn case_39_one_encoder_and_decoder_serve_frame_after_frame() {
    for compression in compressions() {
        for form in Form::all(compression) {
            let mut link = form.link();
            let mut seen = Vec::new();
            for lens in shapes().chain(above_the_threshold()) {
                for _ in 0..3 {
                    let sent = segments(lens);
                    let bytes = link.write(&sent);
                    let (_, frame) = link.read(bytes.clone()).unwrap();
                    assert_eq!(frame.segments, sent, "{form:?} {lens:?}");
                    seen.push(bytes);
                }
            }
            // Under a nonce of its own no frame looks like another.
            let total = seen.len();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len() == total, form.secure, "{form:?}");
        }
    }
}

#[test]
fn what_would_not_shrink_or_shrinks_too_well_is_sent_plain() {
    let mut state = 1_u64;
    let noise: Bytes = (0..5000)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) as u8
        })
        .collect();
    let zeros = Bytes::from(vec![0; 1 << 20]);
    for method in Method::ALL {
        for form in Form::all(Some(Compression { method, min_size: 0 })) {
            let mut link = form.link();
            // Snappy makes at most 22 bytes of one, so its zeros are no bomb.
            for (data, shrinks) in [(&noise, false), (&zeros, method == Method::Snappy)] {
                let header = Bytes::from_static(b"header");
                let sent = [header, Bytes::new(), Bytes::new(), data.clone()];
                let bytes = link.write(&sent);
                let (preamble, frame) = link.read(bytes).unwrap();
                assert_eq!(frame.segments, sent);
                assert_eq!(preamble.compressed, shrinks, "{method}");
            }
        }
    }
}
