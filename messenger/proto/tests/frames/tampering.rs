//! A secure frame that is not exactly what was sealed is refused, whatever was done to it.

use bytes::{Bytes, BytesMut};
use messenger_proto::ProtocolError;
use messenger_proto::v2::control::{
    Ack, AuthSignature, CompressionDone, CompressionRequest, Keepalive2, Keepalive2Ack,
    SIGNATURE_LEN, SessionReconnectOk, SessionReset, SessionRetry, SessionRetryGlobal, Wait,
};
use messenger_proto::v2::{Compression, Control, Encoder, Method, Revision};

use crate::link::{Form, segments};

const SNAPPY: Compression = Compression { method: Method::Snappy, min_size: 1024 };

fn secure(compression: Option<Compression>) -> impl Iterator<Item = Form> {
    Form::all(compression).into_iter().filter(|form| form.secure)
}

/// Writes one frame.
type Write = Box<dyn Fn(&mut Encoder) -> Bytes>;

fn control<C: Control + 'static>(payload: C) -> Write {
    Box::new(move |encoder| {
        let mut out = BytesMut::new();
        encoder.control(&payload, &mut out).unwrap();
        out.freeze()
    })
}

/// Refused by its tag, or by its preamble's checksum, which revision 0 has to look at first.
fn assert_refused(form: Form, bytes: Bytes, context: &str) {
    let error = form.link().read(bytes).map(drop).unwrap_err();
    let expected = match error {
        ProtocolError::NotAuthentic { .. } => true,
        ProtocolError::PreambleCrc { .. } => form.revision == Revision::Rev0,
        _ => false,
    };
    assert!(expected, "{context}: {error}");
}

#[test]
fn every_byte_of_every_kind_of_sealed_frame_counts() {
    let kinds: Vec<(&str, Write)> = vec![
        ("signature", control(AuthSignature([7; SIGNATURE_LEN]))),
        ("compression request", control(CompressionRequest { wanted: true, methods: vec![1] })),
        ("compression done", control(CompressionDone { on: true, method: 1 })),
        ("keepalive", control(Keepalive2(Default::default()))),
        ("keepalive ack", control(Keepalive2Ack(Default::default()))),
        ("ack", control(Ack(9))),
        ("reset", control(SessionReset { full: true })),
        ("retry", control(SessionRetry(1))),
        ("retry global", control(SessionRetryGlobal(1))),
        ("reconnect ok", control(SessionReconnectOk(1))),
        ("wait", control(Wait)),
        ("long control", control(CompressionRequest { wanted: true, methods: vec![1; 60] })),
    ];
    for form in secure(None) {
        for (name, write) in &kinds {
            let good = write(&mut form.link().encoder);
            form.link().read(good.clone()).unwrap();
            tamper(form, &good, name);
        }
    }
    for compression in [None, Some(SNAPPY)] {
        for form in secure(compression) {
            for lens in [[41, 0, 0, 0], [41, 5, 0, 6], [49, 0, 7, 0], [41, 900, 0, 3000]] {
                let good = form.link().write(&segments(lens));
                form.link().read(good.clone()).unwrap();
                tamper(form, &good, &format!("message {lens:?}"));
            }
        }
    }
}

fn tamper(form: Form, good: &Bytes, name: &str) {
    for at in 0..good.len() {
        for flip in [0x01, 0x80] {
            let mut bad = BytesMut::from(&good[..]);
            bad[at] ^= flip;
            assert_refused(form, bad.freeze(), &format!("{form:?} {name}, byte {at}"));
        }
    }
}

#[test]
fn replayed_reordered_and_reflected_frames_are_refused() {
    for form in secure(None) {
        let mut link = form.link();
        let [first, second] =
            [[41, 5, 0, 6], [41, 5, 0, 6]].map(|lens| link.write(&segments(lens)));
        let mut replayed = form.link();
        replayed.read(first.clone()).unwrap();
        assert!(replayed.read(first.clone()).is_err());
        assert!(form.link().read(second).is_err(), "the first one is missing");

        let plain = Form { secure: false, ..form }.link().write(&segments([60, 0, 0, 0]));
        let head = plain.slice(..form.link().decoder.head_len().min(plain.len()));
        assert!(form.link().decoder.begin(head).is_err(), "plain after secure");
    }
}

#[test]
fn a_compressed_frame_nobody_agreed_on_is_refused() {
    for form in Form::all(Some(SNAPPY)) {
        let bytes = form.link().write(&segments([41, 900, 0, 3000]));
        let mut plain = Form { compression: None, ..form }.link();
        assert_eq!(plain.read(bytes).map(drop), Err(ProtocolError::Compressed { tag: 17 }));
    }
}

#[test]
fn a_segment_that_unpacks_beyond_its_limit_is_refused() {
    for method in Method::ALL {
        let form =
            Form { compression: Some(Compression { method, min_size: 0 }), ..Form::all(None)[2] };
        let mut link = form.link();
        let bytes = link.write(&segments([41, 900, 0, 3000]));
        let mut unpack = |data_limit| {
            let head_len = link.decoder.head_len();
            let mut rest = bytes.clone();
            link.decoder.begin(rest.split_to(head_len)).unwrap();
            while let Some(len) = link.decoder.wants() {
                link.decoder.push(rest.split_to(len)).unwrap();
            }
            link.decoder.finish(&[64, 900, 0, data_limit]).map(drop)
        };
        assert_eq!(unpack(3000), Ok(()));
        let (segment, limit) = (3, 2999);
        let method = method.as_str();
        let refused = ProtocolError::Decompression { tag: 17, segment, method, limit };
        assert_eq!(unpack(2999), Err(refused));
    }
}
