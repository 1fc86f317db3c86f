//! Sessions over msgr1: the same rules, without cookies and without frames. `every_byte` has what
//! happens when their transports break; `races`, `lossless` and a part of `stories` run over both
//! protocols.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use messenger_proto::auth::{AuthMethod, AuthRules, ConnectionMode};
use messenger_proto::v2::Revision;
use messenger_proto::{
    AddrType, EntityAddr, EntityName, EntityType, Fault, IdentRequest, Message, Policy, RxBuffers,
    Session, TransportNews, features, v1,
};

use crate::pair::{ACCEPTOR, ALICE, BOB, Cut, Pair, identity, message};
use crate::realm::Realm;
use crate::secure::secured;

use ConnectionMode::{Crc, Secure};

fn lossy() -> Pair {
    Pair::new(Policy::lossy_client(), Policy::stateless_server()).over_v1()
}

fn peers(policy: Policy) -> Pair {
    Pair::of_peers(policy).over_v1()
}

fn error_kind(pair: &mut Pair, host: usize) -> &'static str {
    pair.session(host).last_fault().map_or("none", Fault::kind)
}

#[test]
fn two_sessions_meet_and_know_each_other() {
    let mut pair = lossy().connect();
    assert_eq!(pair.slot(ALICE).log, ["dial", "learned", "ready"]);
    assert_eq!(pair.slot(BOB).log, ["ident", "ready"]);
    let bob = pair.session(ALICE).peer().clone();
    assert_eq!(bob.addrs.to_string(), "[v1:10.0.0.2:6800/22]");
    assert_eq!(bob.features, features::SUPPORTED);
    let alice = pair.session(BOB).peer().clone();
    assert_eq!(alice.kind, Some(EntityType::Client));
    assert_eq!(alice.addrs.to_string(), "[v1:10.0.0.1:0/11]", "as Bob sees it");
    assert!(pair.session(ALICE).policy().lossy && pair.session(BOB).policy().lossy);
}

#[test]
fn messages_arrive_whole_and_name_their_source() {
    for chunk in [1, 100, usize::MAX] {
        let mut pair = peers(Policy::lossless_peer());
        pair.chunk = chunk;
        let mut pair = pair.connect();
        let sent =
            || message(7).with_middle("middle").with_data(vec![9; 20_000]).with_version(9, 3);
        for host in [ALICE, BOB] {
            pair.send(host, Message::new(3));
            pair.send(host, sent());
        }
        pair.run();
        for (host, source) in [(ALICE, "osd.1"), (BOB, "osd.0")] {
            let [empty, got] = &pair.slot(host).received[..] else {
                panic!("two messages");
            };
            assert_eq!(empty.payload_len(), 0);
            let sent = sent();
            assert_eq!(
                [&got.front, &got.middle, &got.data],
                [&sent.front, &sent.middle, &sent.data]
            );
            assert_eq!((got.header.tid, got.header.seq, got.header.kind), (7, 2, 42));
            assert_eq!((got.header.version, got.header.compat_version), (9, 3));
            assert_eq!(got.source, source.parse::<EntityName>().ok());
            assert!(got.stamps.recv.is_some() && got.stamps.recv_complete.is_some());
        }
        assert_eq!(pair.session(ALICE).queued(), (0, 0), "acknowledged");
        assert_eq!(pair.session(BOB).queued(), (0, 0), "acknowledged");
    }
}

#[test]
fn acknowledgements_come_even_if_there_is_always_something_to_send() {
    let mut pair = peers(Policy::lossless_peer()).connect();
    pair.window = 3000;
    for tid in 0..100 {
        pair.send(ALICE, message(tid));
        pair.send(BOB, message(tid).with_data(vec![1; 10_000]));
    }
    for _ in 0..200 {
        pair.step();
    }
    assert!(pair.session(BOB).queued().1 > 0, "still sending");
    assert!(pair.session(ALICE).stats().messages_acked > 0);
}

#[test]
fn a_session_goes_on_under_rising_numbers() {
    let mut pair =
        Pair::new(Policy::lossless_client(), Policy::stateful_server()).over_v1().connect();
    for tid in 1..=3 {
        pair.silent = true;
        pair.send(ALICE, message(tid));
        pair.run();
        pair.cut();
        pair.silent = false;
        pair.advance(Duration::from_secs(1));
    }
    assert_eq!(pair.received_tids(BOB), [1, 2, 3]);
    assert_eq!(pair.received_seqs(BOB), [1, 2, 3]);
    let asked: Vec<u64> = pair.hosts[BOB]
        .asked
        .iter()
        .map(|request| match request {
            IdentRequest::Connect { connect_seq, .. } => *connect_seq,
            other => panic!("{other:?}"),
        })
        .collect();
    // Bob's session is open or parked under the same number, so each first try has one too few.
    assert_eq!(asked, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(pair.hosts[BOB].slots.iter().filter(|slot| !slot.session.is_closed()).count(), 1);
}

#[test]
fn a_server_that_forgot_the_session_resets_it() {
    let mut pair =
        Pair::new(Policy::lossless_client(), Policy::stateful_server()).over_v1().connect();
    pair.session(BOB).mark_down();
    pair.send(ALICE, message(1));
    pair.advance(Duration::from_secs(1));
    assert!(pair.slot(ALICE).log.contains(&"remote reset"));
    assert!(pair.session(ALICE).is_ready());
    pair.send(ALICE, message(2));
    pair.run();
    let tids = |slot: usize| pair.hosts[BOB].slots[slot].received.iter().map(|m| m.header.tid);
    let last = pair.hosts[BOB].slots.len() - 1;
    assert_eq!(tids(last).collect::<Vec<_>>(), [2], "what was queued is gone, what follows is not");
}

#[test]
fn a_peer_that_restarted_resets_the_old_session() {
    for resetcheck in [false, true] {
        let policy =
            if resetcheck { Policy::lossless_peer_reuse() } else { Policy::lossless_peer() };
        let mut pair = peers(policy).connect();
        pair.cut();
        pair.run();
        pair.hosts[ALICE].listening = false;
        pair.send(BOB, message(1));
        pair.advance(Duration::from_millis(100));
        pair.session(ALICE).mark_down();
        let again = pair.dial(ALICE);
        pair.run();
        assert_eq!(pair.slot(BOB).log.contains(&"remote reset"), resetcheck);
        let received = pair.hosts[ALICE].slots[again].received.len();
        assert_eq!(received, usize::from(!resetcheck), "what was queued for the old one");
    }
}

#[test]
fn an_anonymous_client_s_number_means_nothing_to_a_server_that_keeps_nobody() {
    let mut pair = peers(Policy::lossless_peer());
    pair.edit(BOB, |identity| {
        identity.policies = messenger_proto::PolicySet::new(Policy::stateless_server());
    });
    let mut pair = pair.connect();
    assert!(pair.session(ALICE).policy().lossy, "the server's word");
    pair.cut();
    pair.run();
    assert!(pair.session(ALICE).is_closed() && pair.session(BOB).is_closed());
}

#[test]
fn one_listener_serves_both_protocols() {
    for kind in [AddrType::Legacy, AddrType::Msgr2] {
        let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
        pair.edit(BOB, |identity| {
            let v2 = *identity.addrs.first().unwrap();
            let v1 = EntityAddr { kind: AddrType::Legacy, ..v2 };
            identity.addrs.0.push(v1);
            identity.listening = vec![v2, v1];
        });
        for chunk in [1, 7, 100] {
            pair.chunk = chunk;
            let target = pair.hosts[BOB].identity.addrs.of(kind);
            let slot = pair.dial_to(ALICE, "osd".parse().unwrap(), target);
            pair.run();
            assert!(pair.hosts[ALICE].slots[slot].session.is_ready(), "{kind:?}, {chunk}");
            pair.hosts[ALICE].slots[slot].session.mark_down();
            pair.run();
        }
    }
}

#[test]
fn the_other_protocol_is_refused_where_it_is_not_spoken() {
    for (spoken, dialled) in [("v1", "v2"), ("v2", "v1")] {
        let bob = identity("osd.1", &format!("{spoken}:10.0.0.2:6800/22"), Policy::default());
        let mut pair = Pair::of([identity("client.?", "any:-/11", Policy::lossy_client()), bob]);
        let target = format!("{dialled}:10.0.0.2:6800/22").parse().unwrap();
        pair.dial_to(ALICE, "osd".parse().unwrap(), target);
        pair.run();
        let kinds = [ALICE, BOB].map(|host| error_kind(&mut pair, host));
        let refused = kinds.iter().any(|kind| kind.ends_with("bad_banner"));
        assert!(refused, "{dialled} at a {spoken} address: {kinds:?}");
        assert!(!pair.session(ALICE).is_ready());
    }
}

#[test]
fn a_daemon_on_a_recycled_port_is_not_the_one_dialled() {
    let mut pair = lossy();
    pair.dial_to(ALICE, "osd".parse().unwrap(), "v1:10.0.0.2:6800/23".parse().unwrap());
    pair.run();
    assert_eq!(error_kind(&mut pair, ALICE), "v1_not_the_dialled");
}

#[test]
fn features_that_are_missing_are_named() {
    let mut pair = lossy();
    pair.edit(BOB, |identity| {
        let mut policy = Policy::stateless_server();
        policy.features_required |= 1 << 57;
        policy.features_supported |= 1 << 57;
        identity.policies = messenger_proto::PolicySet::new(policy);
    });
    pair.edit(ALICE, |identity| {
        let mut policy = Policy::lossy_client();
        policy.features_supported &= !(1 << 57);
        identity.policies = messenger_proto::PolicySet::new(policy);
    });
    pair.dial(ALICE);
    pair.run();
    assert_eq!(error_kind(&mut pair, ALICE), "v1_refused");
    let text = pair.session(ALICE).last_fault().unwrap().to_string();
    assert!(text.contains("0x200000000000000"), "{text}");
}

#[test]
fn members_of_a_realm_sign_their_messages() {
    let realm = Realm::new(&[Crc]);
    let run = |flips: &[Cut]| {
        let mut pair = secured(peers(Policy::lossless_peer()), &realm, Revision::Rev1);
        pair.flips = flips.to_vec();
        pair.hosts[BOB].greetings = vec![11, 12];
        pair.dial(ALICE);
        pair.send(ALICE, message(1));
        pair.advance(Duration::from_secs(30));
        pair
    };
    let mut pair = run(&[]);
    assert_eq!(pair.session(BOB).peer().global_id, 4000);
    let name = pair.session(BOB).peer().auth.as_ref().map(|auth| auth.name.to_string());
    assert_eq!(name.as_deref(), Some("osd.0"));
    assert_eq!((pair.received_tids(ALICE), pair.received_tids(BOB)), (vec![11, 12], vec![1]));
    // The last 21 bytes of a message are its footer: three checksums, the signature, flags.
    let arrived = pair.arrived(0).unwrap();
    let kinds: Vec<&str> = (0..arrived[ACCEPTOR])
        .rev()
        .take(200)
        .map(|after| {
            let mut pair = run(&[Cut { pipe: 0, from: ACCEPTOR, after }]);
            assert_eq!(pair.received_tids(ALICE), [11, 12], "byte {after}");
            error_kind(&mut pair, ALICE)
        })
        .collect();
    assert!(kinds.contains(&"v1_signature") && kinds.contains(&"v1_section_crc"), "{kinds:?}");
    assert!(kinds.contains(&"v1_header_crc"), "{kinds:?}");
}

#[test]
fn who_has_no_ticket_or_no_method_stays_outside() {
    let realm = Realm::new(&[Crc]);
    let mut pair = secured(lossy(), &realm, Revision::Rev1);
    pair.edit(ALICE, |identity| identity.auth = realm.stranger("client.admin"));
    pair.dial(ALICE);
    pair.run();
    assert_eq!(error_kind(&mut pair, ALICE), "cephx", "not logged in");

    let mut pair = secured(lossy(), &realm, Revision::Rev1);
    pair.edit(ALICE, |identity| identity.auth = Arc::default());
    pair.dial(ALICE);
    pair.run();
    assert_eq!(error_kind(&mut pair, ALICE), "v1_refused", "method none");
    assert!(!pair.slot(BOB).log.contains(&"ident"), "nobody asked the shell");
}

#[test]
fn what_has_to_be_encrypted_does_not_go_over_msgr1() {
    let (safe, careless) = (Realm::new(&[Secure]), Realm::new(&[Crc, Secure]));
    for (alice, bob, host, kind) in
        [(&safe, &careless, ALICE, "no_auth_method"), (&careless, &safe, ALICE, "v1_refused")]
    {
        let mut pair = lossy();
        pair.edit(ALICE, |identity| identity.auth = alice.member("client.admin", 5));
        pair.edit(BOB, |identity| identity.auth = bob.member("osd.1", 1));
        pair.dial(ALICE);
        pair.run();
        assert_eq!(error_kind(&mut pair, host), kind);
        assert!(!pair.session(BOB).is_ready());
    }
    // Nor does method none where only secure mode is allowed, and a monitor is no exception.
    let rules = AuthRules::uniform(&[AuthMethod::None], &[Secure]);
    for mut pair in [lossy(), lossy()] {
        pair.edit(BOB, |identity| {
            identity.name = "mon.0".parse().unwrap();
            identity.auth = messenger_proto::auth::Auth::new(rules.clone());
        });
        pair.dial(ALICE);
        pair.run();
        assert_eq!(error_kind(&mut pair, ALICE), "v1_refused");
    }
}

#[test]
fn a_reply_s_data_lands_in_the_buffer_posted_for_it() {
    for (len, cut) in [(1, 30), (77, 100), (40_000, 5000), (40_000, 40_130)] {
        let mut pair = Pair::new(Policy::lossless_client(), Policy::stateful_server()).over_v1();
        pair.dial(ALICE);
        pair.run();
        let buffers = Arc::new(RxBuffers::default());
        pair.session(ALICE).set_rx_buffers(Arc::clone(&buffers));
        let buffer = BytesMut::with_capacity(len);
        let address = buffer.as_ptr();
        buffers.post(5, buffer).unwrap();
        pair.cut_after = Some(cut);
        for tid in [4, 5] {
            pair.send(BOB, Message::new(42).with_tid(tid).with_data(vec![tid as u8; len]));
        }
        pair.advance(Duration::from_secs(1));
        let received = &pair.slot(ALICE).received;
        assert!(received.iter().all(|m| m.data == vec![m.header.tid as u8; len]));
        let in_place = |at: usize| received[at].data.as_ptr() == address;
        assert_eq!([0, 1].map(in_place), [false, true], "cut {cut}, len {len}");
        assert_eq!(buffers.count(), 0);
    }
}

/// A server of one's own making: what it says to a client, from its banner to the opened session.
fn server_says(session: &mut Session, now: Instant, connect_seq: u32, acked: u64) {
    let local = "10.0.0.9:5000".parse().unwrap();
    session.handle_transport(now, TransportNews::Opened { local });
    let mut out = BytesMut::new();
    v1::banner::write_server(&"v1:10.0.0.2:6800/22".parse().unwrap(), &EntityAddr::NONE, &mut out);
    let reply = v1::ConnectReply {
        tag: v1::ReplyTag::Seq,
        features: features::SUPPORTED,
        global_seq: 1,
        connect_seq,
        protocol: 10,
        authorizer_len: 0,
        lossy: false,
    };
    reply.write(&mut out);
    out.extend_from_slice(&acked.to_le_bytes());
    session.rx_space()[..out.len()].copy_from_slice(&out);
    session.handle_received(now, out.len()).unwrap();
    assert!(session.is_ready());
}

#[test]
fn a_server_that_claims_to_have_everything_leaves_room_to_count() {
    let (now, target) = (Instant::now(), "v1:10.0.0.2:6800/22".parse().unwrap());
    let identity = Arc::new(identity("osd.0", "v1:10.0.0.1:6800/11", Policy::lossless_peer()));
    let mut session = Session::dial(now, identity, EntityType::Osd, target, 1);
    server_says(&mut session, now, 1, 0);
    for (connect_seq, tid) in (2..).zip(1..=3) {
        session.handle_transport(now, TransportNews::Reset);
        session.send(now, message(tid)).unwrap();
        server_says(&mut session, now, connect_seq, u64::MAX);
        let len = session.poll_transmit(now).unwrap().len();
        session.transmitted(len);
    }
    assert_eq!(session.queued().1, 3, "nothing is taken for received that was not sent");
}
