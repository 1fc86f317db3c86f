//! What is written is read again, and what is not ours is an error, never a panic.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use bytes::{Bytes, BytesMut};
use messenger_ceph::{
    EVersion, Error, Fsid, JsonCommand, MAuth, MAuthReply, MCommand, MCommandReply, MConfig,
    MGenericMessage, MMonCommand, MMonCommandAck, MMonGetMap, MMonGetVersion, MMonGetVersionReply,
    MMonMap, MMonSubscribe, MMonSubscribeAck, MOSDOp, MOSDOpReply, MOSDPing, MPing, MonInfo,
    MonMap, ObjectPlacement, OpResult, OsdDump, OsdFind, OsdOp, Payload, PgId, PingOp, Span,
    Subscription, Utime, limits,
};
use messenger_proto::denc::{DecodeError, Writer};
use messenger_proto::{EntityAddr, EntityAddrVec, EntityName, EntityType, Message};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::fmt::Debug;

/// Reads what was written, and the same with bytes of a newer sender behind it. Each shorter form
/// is an error or another value, but no panic.
fn returns<T: Payload + PartialEq + Debug>(payload: &T) {
    let message = payload.to_message();
    assert_eq!(message.header.kind, T::KIND);
    assert_eq!(&T::from_message(&message).unwrap(), payload);
    for len in 0..message.front.len() {
        let cut = with_front::<T>(message.front.slice(..len), message.data.clone());
        assert!(T::from_message(&cut).is_err() || T::NAME == "MPing", "{} cut to {len}", T::NAME);
    }
    let mut longer = BytesMut::from(&message.front[..]);
    longer.extend_from_slice(&[0; 9]);
    let longer = with_front::<T>(longer.freeze(), message.data);
    if T::NAME != "MPing" {
        assert_eq!(&T::from_message(&longer).unwrap(), payload);
    }
}

fn with_front<T: Payload>(front: Bytes, data: Bytes) -> Message {
    let message = Message::new(T::KIND).with_version(T::VERSION, T::COMPAT);
    message.with_front(front).with_data(data)
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    "[a-z\u{e4}\u{1f980}.{}\"]{0,12}"
}

fn words() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn fsid() -> impl Strategy<Value = Fsid> {
    any::<[u8; 16]>().prop_map(Fsid)
}

fn utime() -> impl Strategy<Value = Utime> {
    any::<(u32, u32)>().prop_map(|(seconds, nanoseconds)| Utime { seconds, nanoseconds })
}

fn span() -> impl Strategy<Value = Span> {
    any::<i64>().prop_map(Span::from_nanos)
}

fn pg() -> impl Strategy<Value = PgId> {
    any::<(i64, u32)>().prop_map(|(pool, seed)| PgId { pool, seed })
}

fn addrs() -> impl Strategy<Value = EntityAddrVec> {
    let addr =
        any::<(std::net::SocketAddr, u32)>().prop_map(|(at, nonce)| EntityAddr::v2(at, nonce));
    vec(addr, 0..4).prop_map(EntityAddrVec)
}

fn mon_map() -> impl Strategy<Value = MonMap> {
    let info = (addrs(), any::<u16>(), any::<u16>(), btree_map(text(), text(), 0..3));
    let monitors = btree_map(text(), info, 0..4);
    let head = (fsid(), any::<u32>(), utime(), utime(), any::<u64>(), any::<u64>());
    (head, monitors, words()).prop_map(|(head, monitors, ranks)| {
        let (fsid, epoch, changed, created, persistent_features, optional_features) = head;
        let info = |(name, (addrs, priority, weight, location))| MonInfo {
            name,
            addrs,
            priority,
            weight,
            location,
        };
        let monitors = monitors.into_iter().map(info).collect();
        let min_release = None;
        MonMap {
            fsid,
            epoch,
            changed,
            created,
            persistent_features,
            optional_features,
            monitors,
            ranks,
            min_release,
        }
    })
}

fn heartbeat() -> impl Strategy<Value = MOSDPing> {
    let op = prop_oneof![Just(PingOp::Ping), Just(PingOp::PingReply), Just(PingOp::YouDied)];
    let spans = (span(), span(), proptest::option::of(span()));
    (fsid(), any::<(u32, u32)>(), op, utime(), spans, 0..600_u16).prop_map(
        |(fsid, (epoch, up_from), op, stamp, (ping_stamp, send_stamp, bound), padding_len)| {
            let delta_upper_bound = bound;
            MOSDPing {
                fsid,
                epoch,
                op,
                stamp,
                up_from,
                ping_stamp,
                send_stamp,
                delta_upper_bound,
                padding_len,
            }
        },
    )
}

fn osd_op() -> impl Strategy<Value = MOSDOp> {
    let read = any::<(u64, u64)>().prop_map(|(offset, length)| OsdOp::Read { offset, length });
    let op = prop_oneof![bytes(64).prop_map(OsdOp::WriteFull), read];
    (pg(), any::<(u32, i64, u64, i32, u64)>(), utime(), text(), op).prop_map(
        |(pg, (epoch, number, tid, retries, features), mtime, object, op)| {
            let client = EntityName::new(EntityType::Client, number);
            MOSDOp { pg, epoch, client, tid, mtime, object, op, retries, features }
        },
    )
}

fn version() -> impl Strategy<Value = EVersion> {
    any::<(u64, u32)>().prop_map(|(version, epoch)| EVersion { version, epoch })
}

fn osd_op_reply() -> impl Strategy<Value = MOSDOpReply> {
    let op = any::<(u16, u64, u64, u32, i32)>().prop_map(
        |(code, offset, length, output_len, result)| OpResult {
            code,
            offset,
            length,
            output_len,
            result,
        },
    );
    let numbers = any::<(u64, i32, u32, i32, u64)>();
    let versions = (version(), version());
    (text(), pg(), numbers, versions, vec(op, 0..4), bytes(64)).prop_map(
        |(object, pg, numbers, (old_version, version), ops, data)| {
            let (flags, result, epoch, retries, user_version) = numbers;
            MOSDOpReply {
                object,
                pg,
                flags,
                result,
                old_version,
                epoch,
                ops,
                retries,
                version,
                user_version,
                data,
            }
        },
    )
}

proptest! {
    #[test]
    fn maps_and_subscriptions(
        map in mon_map(),
        what in btree_map(text(), any::<(u64, bool)>(), 0..4),
        host in text(),
        options in btree_map(text(), text(), 0..4),
        fsid in fsid(),
        numbers in any::<(u32, u64, u64, u64)>(),
    ) {
        returns(&MMonMap { map });
        returns(&MMonGetMap);
        let subscription = |(what, (start, once))| (what, Subscription { start, once });
        let what = what.into_iter().map(subscription).collect();
        returns(&MMonSubscribe { what, host: host.clone() });
        returns(&MConfig { options });
        let (interval_seconds, handle, newest, oldest) = numbers;
        returns(&MMonSubscribeAck { interval_seconds, fsid });
        returns(&MMonGetVersion { handle, what: host });
        returns(&MMonGetVersionReply { handle, newest, oldest });
    }

    #[test]
    fn commands_and_logins(
        fsid in fsid(),
        command in words(),
        status in text(),
        payload in bytes(64),
        numbers in any::<(u64, i32, u32, u64, u32)>(),
    ) {
        let (seen_version, result, method, global_id, mon_map_epoch) = numbers;
        let input = payload.clone();
        returns(&MMonCommand { seen_version, fsid, command: command.clone(), input });
        let (output, input) = (payload.clone(), payload.clone());
        returns(&MCommand { fsid, command: command.clone(), input });
        let (output, status) = (output, status);
        returns(&MCommandReply { result, status: status.clone(), output: output.clone() });
        returns(&MMonCommandAck { seen_version, result, status: status.clone(), command, output });
        returns(&MAuth { seen_version, method, payload: payload.clone(), mon_map_epoch });
        returns(&MAuthReply { method, result, global_id, payload, message: status.clone() });
        returns(&MPing { report: Some(status) });
        returns(&MPing { report: None });
        returns(&MGenericMessage);
    }

    #[test]
    fn objects_and_heartbeats(op in osd_op(), reply in osd_op_reply(), ping in heartbeat()) {
        returns(&op);
        returns(&reply);
        returns(&ping);
    }

    #[test]
    fn arbitrary_bytes_never_panic(front in bytes(400), data in bytes(16)) {
        fn read<T: Payload + PartialEq + Debug>(front: &Bytes, data: &Bytes) {
            if let Ok(payload) = T::from_message(&with_front::<T>(front.clone(), data.clone())) {
                let _ = payload.to_message();
            }
        }
        macro_rules! read_as {
            ($($kind:ty),*) => { $(read::<$kind>(&front, &data);)* };
        }
        read_as!(
            MPing, MGenericMessage, MMonMap, MMonGetMap, MMonSubscribe, MMonSubscribeAck, MAuth,
            MAuthReply, MMonGetVersion, MMonGetVersionReply, MMonCommand, MMonCommandAck, MConfig,
            MOSDPing, MCommand, MCommandReply, MOSDOp, MOSDOpReply
        );
        let _ = ObjectPlacement::parse(&front);
        let _ = OsdDump::parse(&front);
        let _ = OsdFind::parse(&front);
    }

    #[test]
    fn flipped_bytes_never_panic(
        map in mon_map(),
        op in osd_op(),
        reply in osd_op_reply(),
        ping in heartbeat(),
        at in any::<proptest::sample::Index>(),
        with in any::<u8>(),
    ) {
        fn read<T: Payload>(payload: &T, at: &proptest::sample::Index, with: u8) {
            let message = payload.to_message();
            let mut front = message.front.to_vec();
            let at = at.index(front.len());
            front[at] = with;
            let _ = T::from_message(&with_front::<T>(front.into(), message.data));
        }
        read(&MMonMap { map }, &at, with);
        read(&op, &at, with);
        read(&reply, &at, with);
        read(&ping, &at, with);
    }

    #[test]
    fn arbitrary_texts_are_no_commands_or_survive(text in "\\PC{0,40}") {
        if let Ok(command) = text.parse::<JsonCommand>() {
            prop_assert_eq!(command.to_string().parse::<JsonCommand>().unwrap(), command);
        }
    }
}

#[test]
fn another_type_is_refused_by_name() {
    let error = MMonMap::from_message(&Message::new(5)).unwrap_err();
    assert_eq!(error, Error::Kind { name: "MMonMap", wanted: 4, got: 5 });
}

#[test]
fn versions_that_we_do_not_read_are_refused() {
    let newer = MMonGetMap.to_message().with_version(7, 2);
    let refused = Error::TooNew { name: "MMonGetMap", compat: 2, known: 1 };
    assert_eq!(MMonGetMap::from_message(&newer), Err(refused));
    let compatible = MMonGetMap.to_message().with_version(7, 1);
    assert_eq!(MMonGetMap::from_message(&compatible), Ok(MMonGetMap));
    let unknown = MPing::default().to_message().with_version(1, 0);
    assert_eq!(MPing::from_message(&unknown), Ok(MPing::default()));
    let older = MMonSubscribe::default().to_message().with_version(0, 0);
    let refused = Error::TooOld { name: "MMonSubscribe", version: 0, oldest: 3 };
    assert_eq!(MMonSubscribe::from_message(&older), Err(refused));
}

#[test]
fn structures_that_we_do_not_read_are_refused() {
    let wrapped = |version, compat| {
        let mut map = BytesMut::new();
        Writer::new(&mut map).envelope(version, compat, |body| body.bytes(&[0; 128]));
        let mut front = BytesMut::new();
        Writer::new(&mut front).blob(&map);
        MMonMap::from_message(&with_front::<MMonMap>(front.freeze(), Bytes::new()))
    };
    let broken = |error| Err(Error::Payload { name: "MMonMap", error });
    assert_eq!(wrapped(10, 10), broken(DecodeError::TooNew { compat: 10, known: 9 }));
    let field = "version of a map of monitors";
    assert_eq!(wrapped(5, 3), broken(DecodeError::Invalid { field, value: 5 }));
}

#[test]
fn announced_counts_and_lengths_are_bounded() {
    let huge = Bytes::from_static(&[0xff; 64]);
    let refused = |error: Error, max: usize| {
        let Error::Payload { error: DecodeError::TooMany { max: limit, .. }, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(limit, max);
    };
    fn error<T: Payload + Debug>(front: &Bytes) -> Error {
        T::from_message(&with_front::<T>(front.clone(), Bytes::new())).unwrap_err()
    }
    refused(error::<MMonMap>(&huge), limits::MON_MAP_LEN_MAX);
    refused(error::<MMonSubscribe>(&huge), limits::SUBSCRIPTIONS_MAX);
    refused(error::<MConfig>(&huge), limits::CONFIG_OPTIONS_MAX);
    refused(error::<MAuth>(&huge), limits::AUTH_LEN_MAX);
    refused(error::<MMonCommand>(&huge), limits::COMMAND_WORDS_MAX);
    refused(error::<MCommand>(&huge), limits::COMMAND_WORDS_MAX);
    refused(error::<MCommandReply>(&huge), limits::TEXT_LEN_MAX);
    refused(error::<MMonGetVersion>(&huge), limits::NAME_LEN_MAX);
    refused(error::<MPing>(&huge), limits::TEXT_LEN_MAX);
}
