//! Who compresses, and how: Ceph's compression registry.

use messenger_proto::v2::control::{CompressionDone, CompressionRequest};
use messenger_proto::v2::{Compression, CompressionMode, CompressionOptions, Method};
use messenger_proto::{EntityType, ProtocolError};

const SNAPPY: u32 = Method::Snappy.to_wire();
const ZLIB: u32 = Method::Zlib.to_wire();
const BROTLI: u32 = 5;

/// A client with mode force and snappy.
fn forced() -> CompressionOptions {
    CompressionOptions { osd_mode: CompressionMode::Force, ..CompressionOptions::default() }
}

#[test]
fn case_42_1_monitors_get_no_methods_and_no_compression() {
    let options = forced();
    let others = EntityType::ALL.into_iter().filter(|kind| *kind != EntityType::Osd);
    for kind in others {
        assert_eq!(options.methods(kind), []);
        assert_eq!(options.mode(kind, false), CompressionMode::None);
        assert_eq!(options.pick(kind, &[SNAPPY]), None);
        let request = CompressionRequest { wanted: false, methods: vec![] };
        assert_eq!(options.request(kind, false), request);
    }
}

#[test]
fn case_42_2_osds_are_offered_snappy_and_the_peer_s_order_decides() {
    let options = forced();
    assert_eq!(options.methods(EntityType::Osd), [Method::Snappy]);
    assert_eq!(options.pick(EntityType::Osd, &[SNAPPY, ZLIB]), Some(Method::Snappy));
    assert_eq!(options.pick(EntityType::Osd, &[BROTLI, ZLIB, SNAPPY]), Some(Method::Snappy));
    assert_eq!(options.pick(EntityType::Osd, &[ZLIB]), None);
    let both = CompressionOptions { osd_methods: "snappy zlib".parse().unwrap(), ..forced() };
    assert_eq!(both.pick(EntityType::Osd, &[ZLIB, SNAPPY]), Some(Method::Zlib));
}

#[test]
fn case_42_3_secure_transports_are_not_compressed_unless_told_to() {
    let mut options = forced();
    assert_eq!(options.mode(EntityType::Osd, false), CompressionMode::Force);
    assert_eq!(options.mode(EntityType::Osd, true), CompressionMode::None);
    options.secure = true;
    assert_eq!(options.mode(EntityType::Osd, true), CompressionMode::Force);
}

#[test]
fn case_42_4_mode_none_disables() {
    let options = CompressionOptions::default();
    assert_eq!(options.mode(EntityType::Osd, false), CompressionMode::None);
    assert!(!options.request(EntityType::Osd, false).wanted);
    let (done, agreed) =
        options.answer(EntityType::Osd, false, &forced().request(EntityType::Osd, false));
    assert_eq!((done, agreed), (CompressionDone { on: false, method: 0 }, None));
}

#[test]
fn case_42_5_algorithm_none_means_no_method() {
    let options = CompressionOptions { osd_methods: "none".parse().unwrap(), ..forced() };
    assert_eq!(options.methods(EntityType::Osd), []);
    assert_eq!(options.pick(EntityType::Osd, &[SNAPPY, ZLIB]), None);
    assert!(!options.request(EntityType::Osd, false).wanted);
    assert!("snappy, gzip".parse::<messenger_proto::v2::compression::Methods>().is_err());
}

#[test]
fn case_42_6_the_least_size_is_the_configured_one() {
    let mut options = forced();
    assert_eq!(options.min_size(EntityType::Osd), 1024);
    options.osd_min_size = 4096;
    assert_eq!(options.min_size(EntityType::Osd), 4096);
    assert_eq!(options.min_size(EntityType::Mon), 0);
    let (_, agreed) =
        options.answer(EntityType::Osd, false, &options.request(EntityType::Osd, false));
    assert_eq!(agreed, Some(Compression { method: Method::Snappy, min_size: 4096 }));
}

#[test]
fn both_sides_settle_on_the_same_and_an_answer_must_have_been_offered() {
    let (osd, ours) = (EntityType::Osd, forced());
    let request = ours.request(osd, false);
    let (done, agreed) = ours.answer(osd, false, &request);
    assert_eq!(done, CompressionDone { on: true, method: SNAPPY });
    assert_eq!(ours.settle(osd, &request, done), Ok(agreed));
    let off = CompressionDone { on: false, method: BROTLI };
    assert_eq!(ours.settle(osd, &request, off), Ok(None));
    for method in [0, ZLIB, BROTLI] {
        let refused = Err(ProtocolError::CompressionMethod { method });
        assert_eq!(ours.settle(osd, &request, CompressionDone { on: true, method }), refused);
    }
    let unwanted = CompressionRequest { wanted: false, ..request };
    let refused = Err(ProtocolError::CompressionMethod { method: SNAPPY });
    assert_eq!(ours.settle(osd, &unwanted, done), refused);
    assert!(!ours.answer(osd, false, &unwanted).0.on);
}
