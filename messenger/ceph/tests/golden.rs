//! Bytes and texts of running daemons (Ceph 16.2.15), byte for byte.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use bytes::Bytes;
use messenger_ceph::placement::{osd_dump, osd_find, osd_map};
use messenger_ceph::{
    EVersion, Fsid, MConfig, MMonGetMap, MMonMap, MMonSubscribe, MOSDOp, MOSDOpReply, MOSDPing,
    ObjectPlacement, OpResult, OsdDump, OsdFind, OsdOp, Payload, PgId, PingOp, PlacementError,
    Span, Subscription, Utime,
};
use messenger_proto::{EntityName, EntityType, Message};

const FSID: &str = "3f04cebd-60a0-46cf-a196-ccb5f627f974";

/// Hexadecimal digits, spaces ignored.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn received<T: Payload>(front: &str, data: &[u8]) -> T {
    let message = Message::new(T::KIND)
        .with_version(T::VERSION, T::COMPAT)
        .with_front(hex(front))
        .with_data(data.to_vec());
    T::from_message(&message).unwrap()
}

fn fsid() -> Fsid {
    FSID.parse().unwrap()
}

#[test]
fn a_request_for_the_map_is_a_header_only() {
    let message = MMonGetMap.to_message();
    assert_eq!(message.payload_len(), 0);
    let header = message.header;
    assert_eq!(
        (header.kind, header.priority, header.version, header.compat_version),
        (5, 0x7f, 1, 1)
    );
}

#[test]
fn a_map_of_monitors_is_read_and_its_tail_skipped() {
    let message: MMonMap = received(
        "c9000000 0906c3000000 3f04cebd60a046cfa196ccb5f627f974 01000000 af59096bdc8ef10b
         af59096bdc8ef10b 010108000000ff00000000000000 0101080000000000000000000000 01000000
         0100000061 050158000000 0100000061 0202000000
         01 01011c000000 02000000 00000000 10000000 020033f47f0000010000000000000000
         01 01011c000000 01000000 00000000 10000000 020033f57f0000010000000000000000
         0000 0000 00000000 01000000 0100000061 10 00000000 01 00000000 00 00000000 00000000",
        b"",
    );
    let map = message.map;
    assert_eq!((map.fsid, map.epoch), (fsid(), 1));
    assert_eq!((map.persistent_features, map.optional_features), (0xff, 0));
    assert_eq!(map.min_release, Some(16));
    assert_eq!(map.ranks, ["a"]);
    let first = map.ranked(0).unwrap();
    assert_eq!(first.addrs.to_string(), "[v2:127.0.0.1:13300/0,v1:127.0.0.1:13301/0]");
    assert_eq!((first.priority, first.weight, first.location.len()), (0, 0, 0));
    assert_eq!(map.ranked(1), None);
}

#[test]
fn a_subscription_is_written_as_the_monitor_reads_it() {
    let what = [("config".to_owned(), Subscription::default())].into();
    let subscribe = MMonSubscribe { what, host: "vm".to_owned() };
    let message = subscribe.to_message();
    assert_eq!(
        message.front,
        hex("01000000 06000000636f6e666967 0000000000000000 00 02000000766d")
    );
    assert_eq!((message.header.version, message.header.compat_version), (3, 1));
}

#[test]
fn a_configuration_may_be_empty() {
    assert!(received::<MConfig>("00000000", b"").options.is_empty());
}

#[test]
fn a_heartbeat_and_its_answer_are_the_captured_ones() {
    // The monotonic clock of the capture: 16342 s and 0x81c2a2 ns.
    let mono = Span::from_nanos(16_342_000_000_000 + 0x0081_c2a2);
    let ping = MOSDPing {
        fsid: fsid(),
        stamp: Utime { seconds: 0x6b09_59d3, nanoseconds: 0x3900_b000 },
        ping_stamp: mono,
        send_stamp: mono,
        ..MOSDPing::default()
    };
    assert_eq!(
        ping.to_message().front,
        hex("3f04cebd60a046cfa196ccb5f627f974 00000000 04 d359096b00b00039 00000000 00000000
             d63f0000a2c28100 d63f0000a2c28100 00")
    );

    let head = "3f04cebd60a046cfa196ccb5f627f974 0c000000 05 d359096b00b00039 b3070000 05000000
                d63f0000a2c28100 22000000391edd2e 01 0000000000000000";
    let reply: MOSDPing = received(&(head.to_owned() + &"00".repeat(1971)), b"");
    assert_eq!((reply.op, reply.epoch, reply.up_from), (PingOp::PingReply, 12, 5));
    assert_eq!((reply.stamp, reply.ping_stamp), (ping.stamp, ping.ping_stamp));
    assert_eq!(reply.send_stamp.nanos(), 34_786_243_129);
    assert_eq!(reply.delta_upper_bound, Some(Span::default()));
    assert_eq!(ping.padded_for(2000).padding_len, reply.padding_len);
    assert_eq!(reply.to_message().front.len(), 2033);
}

const WRITE_FRONT: &str = "
    010112000000 01 0100000000000000 00000000 ffffffff ff ffdef86c 0c000000 24000000
    020215000000 08 0000000000000000 0700000000000000 00000000
    000000000000000000000000000000000000000000000000 00000000 cf59096b006f4c36
    06031c000000 0100000000000000 ffffffff 00000000 00000000 ffffffffffffffff
    04000000 6f626a31 0100
    0222 00000000 0000000000000000 4000000000000000 0000000000000000 00000000 40000000
    feffffffffffffff 0000000000000000 00000000 00000000 fffffdffbdcf013f";

#[test]
fn a_write_is_the_one_that_an_osd_took() {
    let client = EntityName::new(EntityType::Client, 0);
    let write = OsdOp::WriteFull(Bytes::from(vec![7; 64]));
    let op = MOSDOp::new(PgId { pool: 1, seed: 0 }, 12, client, 7, "obj1", write)
        .with_mtime(Utime { seconds: 0x6b09_59cf, nanoseconds: 0x364c_6f00 });
    let message = op.to_message();
    assert_eq!(message.front, hex(WRITE_FRONT));
    assert_eq!((message.header.version, message.header.compat_version), (8, 3));
    assert_eq!(received::<MOSDOp>(WRITE_FRONT, &[7; 64]), op);
}

#[test]
fn the_answers_to_a_write_and_a_read_are_read() {
    let done = EVersion { version: 2, epoch: 12 };
    let written = "04000000 6f626a31 01 0100000000000000 00000000 ffffffff 2500000000000000
        00000000 0200000000000000 0c000000 0c000000 01000000
        0222 00000000 0000000000000000 4000000000000000 0000000000000000 00000000 00000000
        00000000 00000000 0200000000000000 0c000000 0200000000000000 00
        000000000000000000000000000000000000000000000000";
    let reply: MOSDOpReply = received(written, b"");
    let result = OpResult { code: 0x2202, length: 64, ..OpResult::default() };
    assert_eq!((reply.result, reply.epoch, reply.user_version), (0, 12, 2));
    assert_eq!((reply.version, reply.old_version), (done, done));
    assert_eq!(reply.ops, [result]);
    assert_eq!(reply.to_message().front, hex(written));

    let read: MOSDOpReply = received(
        "04000000 6f626a31 01 0100000000000000 00000000 ffffffff 1500000000000000
         00000000 0000000000000000 00000000 0c000000 01000000
         0112 00000000 0000000000000000 4000000000000000 0000000000000000 00000000 40000000
         00000000 00000000 0000000000000000 00000000 0200000000000000 00
         000000000000000000000000000000000000000000000000",
        &[7; 64],
    );
    assert_eq!((read.ops[0].output_len, read.data.len()), (64, 64));
}

const OSD_MAP: &str = r#"{"epoch":12,"pool":"wire","pool_id":1,"objname":"obj1",
    "raw_pgid":"1.6cf8deff","pgid":"1.0","up":[1],"up_primary":1,"acting":[1],"acting_primary":1}"#;

const OSD_MAP_HOMELESS: &str = r#"{"epoch":16,"pool":"wire","pool_id":1,"objname":"obj1",
    "raw_pgid":"1.6cf8deff","pgid":"1.0","up":[],"up_primary":-1,"acting":[],"acting_primary":-1}"#;

/// With some of the fields that are skipped left out.
const OSD_DUMP: &str = r#"{"epoch":12,"fsid":"3f04cebd-60a0-46cf-a196-ccb5f627f974",
    "created":"2026-11-27T10:21:35.626844+0000","full_ratio":0.94999998807907104,
    "pools":[{"pool":1,"pool_name":"wire","size":1,"pg_num":1,"options":{}}],
    "osds":[
    {"osd":1,"uuid":"19b41e98-1f8a-4a03-b308-b095a090b41b","up":1,"in":1,"weight":1,"up_from":8,
     "public_addrs":{"addrvec":[{"type":"v2","addr":"127.0.0.1:13318","nonce":7777},
        {"type":"v1","addr":"127.0.0.1:13319","nonce":7777}]},
     "cluster_addrs":{"addrvec":[{"type":"v2","addr":"127.0.0.1:13320","nonce":7777}]},
     "heartbeat_back_addrs":{"addrvec":[{"type":"v2","addr":"127.0.0.1:13324","nonce":7777}]},
     "heartbeat_front_addrs":{"addrvec":[{"type":"v2","addr":"[::1]:13322","nonce":7777}]},
     "public_addr":"127.0.0.1:13319/7777","state":["exists","up"]},
    {"osd":2,"uuid":"e15a8594-7707-4b51-8814-8a3f8a0686f0","up":0,"in":1,"up_from":0,
     "public_addrs":{"addrvec":[]},"cluster_addrs":{"addrvec":[]},
     "heartbeat_back_addrs":{"addrvec":[]},"heartbeat_front_addrs":{"addrvec":[]},
     "public_addr":"(unrecognized address family 0)/0","state":["exists","new"]}]}"#;

const OSD_FIND: &str = r#"{"osd":1,"addrs":{"addrvec":[{"type":"v2","addr":"127.0.0.1:13318",
    "nonce":7777}]},"osd_fsid":"19b41e98-1f8a-4a03-b308-b095a090b41b","host":"vm",
    "crush_location":{"host":"vm","root":"default"}}"#;

const OSD_FIND_NEW: &str = r#"{"osd":2,"addrs":{"addrvec":[]},
    "osd_fsid":"e15a8594-7707-4b51-8814-8a3f8a0686f0","crush_location":{}}"#;

#[test]
fn questions_about_places_are_the_ones_that_monitors_answer() {
    let map = osd_map("wire", "obj1").to_string();
    assert_eq!(map, r#"{"format":"json","object":"obj1","pool":"wire","prefix":"osd map"}"#);
    assert_eq!(osd_dump().to_string(), r#"{"format":"json","prefix":"osd dump"}"#);
    assert_eq!(osd_find(1).to_string(), r#"{"format":"json","id":1,"prefix":"osd find"}"#);
}

#[test]
fn an_object_is_found_at_its_primary() {
    let place = ObjectPlacement::parse(OSD_MAP.as_bytes()).unwrap();
    assert_eq!(place.raw_pg.seed, messenger_ceph::hash::rjenkins(b"obj1"));
    let dump = OsdDump::parse(OSD_DUMP.as_bytes()).unwrap();
    assert_eq!((dump.fsid, dump.pool("wire").unwrap().id), (fsid(), place.pool_id));
    let target = place.target(&dump).unwrap();
    assert_eq!((target.epoch, target.osd, target.pg), (12, 1, PgId { pool: 1, seed: 0 }));
    assert_eq!(target.addrs.preferred().to_string(), "v2:127.0.0.1:13318/7777");
    let heartbeat = &dump.up(1).unwrap().heartbeat_front;
    assert_eq!(heartbeat.preferred().to_string(), "v2:[::1]:13322/7777");
    let found = OsdFind::parse(OSD_FIND.as_bytes()).unwrap();
    assert_eq!(
        (found.addrs.preferred(), found.host.as_deref()),
        (target.addrs.preferred(), Some("vm"))
    );
}

#[test]
fn an_object_without_a_home_is_an_error_of_its_own() {
    let dump = OsdDump::parse(OSD_DUMP.as_bytes()).unwrap();
    let mut place = ObjectPlacement::parse(OSD_MAP_HOMELESS.as_bytes()).unwrap();
    assert!(matches!(place.target(&dump), Err(PlacementError::NoPrimary { .. })));
    for osd in [2, 77] {
        place.acting_primary = Some(osd);
        assert!(matches!(place.target(&dump), Err(PlacementError::NotUp { epoch: 12, .. })));
    }
    assert!(OsdFind::parse(OSD_FIND_NEW.as_bytes()).unwrap().addrs.is_empty());
    assert!(matches!(OsdDump::parse(OSD_MAP.as_bytes()), Err(PlacementError::Json(_))));
}
