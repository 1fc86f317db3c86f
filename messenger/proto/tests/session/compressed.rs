//! Sessions that agree on compression, or on none, and what a compressed message may cost.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use messenger_proto::auth::ConnectionMode;
use messenger_proto::v2::Banner;
use messenger_proto::v2::control::{CompressionDone, CompressionRequest, Control};
use messenger_proto::v2::{
    Compression, CompressionMode, CompressionOptions, Encoder, Method, Revision, Tag, banner,
    header,
};
use messenger_proto::{Action, Message, Policy, Step, Throttle};

use crate::pair::{ALICE, BOB, Pair, identity, message};
use crate::probe::Probe;
use crate::realm::Realm;
use crate::secure::secured;

/// Bytes of the data section of [`text`].
const TEXT_LEN: usize = 100_000;

fn options(method: Method) -> CompressionOptions {
    CompressionOptions {
        osd_mode: CompressionMode::Force,
        osd_methods: method.as_str().parse().unwrap(),
        secure: true,
        ..CompressionOptions::default()
    }
}

fn compressing(mut pair: Pair, options: &CompressionOptions) -> Pair {
    for host in [ALICE, BOB] {
        pair.edit(host, |identity| identity.options.compression = options.clone());
    }
    pair
}

/// A message that packs well, but not as well as a bomb.
fn text(tid: u64) -> Message {
    let data: Vec<u8> =
        (0..TEXT_LEN).map(|at| b"the quick brown fox "[at % 20] ^ (at / 97) as u8).collect();
    message(tid).with_data(data)
}

/// Both say something long and something short; how many bytes arrived at Bob.
fn talk(pair: &mut Pair, context: &str) -> usize {
    pair.dial(ALICE);
    for tid in [1, 2] {
        pair.send(ALICE, if tid == 1 { text(tid) } else { message(tid) });
    }
    pair.run();
    pair.send(BOB, text(3));
    pair.run();
    assert_eq!(pair.received_tids(BOB), [1, 2], "{context}");
    assert_eq!(pair.slot(BOB).received[0].data, text(1).data, "{context}");
    assert_eq!(pair.slot(ALICE).received[0].data, text(3).data, "{context}");
    pair.arrived(0).unwrap()[0]
}

#[test]
fn osds_compress_what_they_say_in_every_mode() {
    for revision in [Revision::Rev0, Revision::Rev1] {
        for mode in ConnectionMode::ALL {
            for method in Method::ALL {
                let realm = Realm::new(&[mode]);
                let pair = secured(Pair::of_peers(Policy::lossless_peer()), &realm, revision);
                let context = format!("{revision:?} {mode} {method}");
                let arrived = talk(&mut compressing(pair, &options(method)), &context);
                assert!(arrived < TEXT_LEN / 2, "{context}: {arrived} bytes");
            }
        }
    }
}

#[test]
fn nobody_compresses_unless_both_are_to_and_both_are_osds() {
    let force = options(Method::Snappy);
    let plain = |mut pair: Pair, context| {
        assert!(talk(&mut pair, context) > TEXT_LEN, "{context}");
    };
    let mut pair = Pair::of_peers(Policy::lossless_peer());
    pair.edit(ALICE, |identity| identity.options.compression = force.clone());
    plain(pair, "one side only");
    let pair = Pair::new(Policy::lossless_client(), Policy::stateful_server());
    plain(compressing(pair, &force), "a client");
    let mut pair = compressing(Pair::of_peers(Policy::lossless_peer()), &force);
    pair.edit(ALICE, |identity| identity.options.compression = options(Method::Zlib));
    plain(pair, "no method in common");
    let realm = Realm::new(&[ConnectionMode::Secure]);
    let pair = secured(Pair::of_peers(Policy::lossless_peer()), &realm, Revision::Rev1);
    plain(compressing(pair, &CompressionOptions { secure: false, ..force }), "secure mode");
}

#[test]
fn the_negotiation_has_its_steps_on_both_sides() {
    let mut pair = compressing(Pair::of_peers(Policy::lossless_peer()), &options(Method::Snappy));
    let passed: Arc<Mutex<Vec<(usize, Step)>>> = Arc::default();
    for host in [ALICE, BOB] {
        let notes = Arc::clone(&passed);
        pair.hosts[host].script = Some(Arc::new(Mutex::new(move |_, step| {
            notes.lock().unwrap().push((host, step));
            Action::Continue
        })));
    }
    talk(&mut pair, "steps");
    let passed = passed.lock().unwrap();
    assert!(passed.contains(&(ALICE, Step::CompressionRequest)));
    assert!(passed.contains(&(BOB, Step::CompressionRequestSeen)));
}

#[test]
fn budgets_count_what_a_message_is_when_it_is_plain() {
    let mut pair = compressing(Pair::of_peers(Policy::lossless_peer()), &options(Method::Zstd));
    let throttle = Throttle::new("dispatch", 1 << 20);
    pair.edit(BOB, |identity| identity.dispatch_throttle = Some(Arc::clone(&throttle)));
    pair.hosts[BOB].hoards = true;
    pair.dial(ALICE);
    pair.send(ALICE, text(1));
    pair.run();
    assert!(pair.arrived(0).unwrap()[0] < TEXT_LEN / 2);
    assert_eq!(throttle.current(), text(1).payload_len() as u64);
    pair.slot(BOB).received.clear();
    assert_eq!(throttle.current(), 0);
}

/// A probe that takes itself for an OSD and negotiates.
fn negotiating() -> Probe {
    let mut identity = identity("osd.1", "v2:10.0.0.2:6800/22", Policy::stateless_server());
    identity.options.compression = options(Method::Zlib);
    identity.limits.front_len = 50_000;
    let mut probe = Probe::dial(identity, Revision::Rev1);
    let supported = banner::FEATURE_REVISION_1 | banner::FEATURE_COMPRESSION;
    probe.say(&Banner { supported, required: 0 }.encode());
    probe.kind = messenger_proto::EntityType::Osd;
    probe.hello().control(&Probe::auth_request()).sign();
    probe.frames();
    probe
}

#[test]
fn a_request_is_due_before_the_ident_and_once() {
    let request = CompressionRequest { wanted: false, methods: vec![1, 2] };
    let mut probe = negotiating();
    let ident = probe.ident();
    assert_eq!(probe.control(&ident).verdict(), "unexpected_tag");
    let mut probe = negotiating();
    let frames = probe.control(&request).frames();
    let done = CompressionDone::parse(&frames[0].1).unwrap();
    assert_eq!(done, CompressionDone { on: false, method: 0 });
    assert_eq!(probe.control(&request).verdict(), "unexpected_tag");
}

#[test]
fn a_bomb_ends_the_transport_before_it_takes_room() {
    let request = CompressionRequest { wanted: true, methods: vec![2] };
    for (front_len, verdict) in [(50_000, "open"), (50_001, "decompression")] {
        let mut probe = negotiating();
        let ident = probe.ident();
        probe.control(&request).control(&ident);
        assert!(probe.session.is_ready());
        let mut encoder = Encoder::new(probe.wire);
        encoder.compress(Some(Compression { method: Method::Zlib, min_size: 1 }));
        let mut message = Message::new(2);
        message.header.seq = 1;
        let head = header::encode(&message.header, 0);
        let front: Bytes = text(1).data.slice(..front_len);
        let mut out = bytes::BytesMut::new();
        let none = Bytes::new();
        let first = |writer: &mut messenger_proto::denc::Writer<'_>| writer.bytes(&head);
        let tail = encoder.begin(Tag::Message, first, [&front, &none, &none], &mut out).unwrap();
        tail.copy_to(&mut out);
        assert!(out.len() < front_len / 2);
        assert_eq!(probe.say(&out).verdict(), verdict);
    }
}
