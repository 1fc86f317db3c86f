//! Sessions of peers that prove who they are, in crc and in secure mode, in both frame revisions;
//! and what becomes of them when somebody in between changes a single byte.

use std::time::Duration;

use bytes::BytesMut;
use messenger_proto::auth::{
    Accepting, Answer, Auth, AuthMethod, AuthRules, ConnectionMode, RefusalKind, ServerAuth,
};
use messenger_proto::v2::control::{
    AuthDone, AuthReplyMore, AuthRequest, AuthRequestMore, AuthSignature, Control, Hello,
    SIGNATURE_LEN,
};
use messenger_proto::v2::{Banner, Revision, Wire};
use messenger_proto::{
    EntityAddr, EntityType, Fault, Message, Policy, ProtocolError, RxBuffers, Session,
    TransportNews,
};

use crate::pair::{ACCEPTOR, ALICE, BOB, Cut, DIALLER, Pair, identity, message};
use crate::probe::frames_in;
use crate::realm::{NOW, Realm};

use ConnectionMode::{Crc, Secure};

const REVISIONS: [Revision; 2] = [Revision::Rev0, Revision::Rev1];

/// A client at an OSD, or two OSDs, with secrets of `realm`.
pub(crate) fn secured(mut pair: Pair, realm: &Realm, revision: Revision) -> Pair {
    for host in [ALICE, BOB] {
        let name = match pair.hosts[host].identity.name.kind {
            EntityType::Client => "client.admin".to_owned(),
            _ => pair.hosts[host].identity.name.to_string(),
        };
        let auth = realm.member(&name, 4000 + host as u64);
        pair.edit(host, |identity| {
            identity.auth = auth;
            identity.options.revision = revision;
        });
    }
    pair
}

fn large(tid: u64) -> Message {
    let data: Vec<u8> = (0..300_000_u32).map(|at| (at * 7 + at / 251) as u8).collect();
    message(tid).with_middle(vec![3; 3000]).with_data(data)
}

fn error_kind(session: &Session) -> &'static str {
    session.last_fault().map_or("none", Fault::kind)
}

#[test]
fn a_client_logs_in_at_a_monitor_and_then_visits_a_service() {
    for (revision, mode) in
        REVISIONS.iter().flat_map(|revision| [(revision, Crc), (revision, Secure)])
    {
        let realm = Realm::new(&[mode]);
        let client = realm.stranger("client.admin");
        let mon = identity("mon.0", "v2:10.0.0.2:3300/0", Policy::stateless_registered_server());
        let alice = identity("client.?", "any:-/11", Policy::lossy_client());
        let mut pair = Pair::of([alice.clone(), mon]);
        pair.edit(ALICE, |identity| identity.auth = client.clone());
        pair.edit(BOB, |identity| {
            identity.auth = realm.monitor();
            identity.options.revision = *revision;
        });
        pair.dial(ALICE);
        pair.send(ALICE, large(1));
        pair.run();
        assert_eq!(pair.received_tids(BOB), [1], "{revision:?} {mode}");
        let known = pair.session(BOB).peer().auth.clone().unwrap();
        assert_eq!(
            (known.name.to_string(), &*known.caps.text),
            ("client.admin".into(), "allow mon")
        );
        let number = pair.session(ALICE).peer().global_id;
        assert!(number > 0);
        assert_eq!(client.secrets.as_ref().unwrap().tickets().global_id(), number);

        let osd = identity("osd.1", "v2:10.0.0.3:6800/22", Policy::stateless_server());
        let mut pair = Pair::of([alice, osd]);
        pair.edit(ALICE, |identity| identity.auth = client.clone());
        pair.edit(BOB, |identity| {
            identity.auth = realm.member("osd.1", 1);
            identity.options.revision = *revision;
        });
        pair.dial(ALICE);
        pair.send(ALICE, large(1));
        pair.send(ALICE, message(2));
        pair.run();
        pair.send(BOB, large(3));
        pair.run();
        assert_eq!(pair.received_tids(BOB), [1, 2], "{revision:?} {mode}");
        assert_eq!(pair.received_tids(ALICE), [3], "{revision:?} {mode}");
        assert_eq!(pair.slot(ALICE).received[0].data, large(3).data);
        let peer = pair.session(BOB).peer();
        assert_eq!(peer.auth.as_ref().unwrap().caps.text, "allow osd");
        assert_eq!(peer.global_id, number);
    }
}

#[test]
fn long_sealed_messages_share_a_gather_list_as_long_as_plain_ones_would() {
    const LEN: usize = 64 << 10;
    const STAGED: usize = 256 << 10;
    let realm = Realm::new(&[Secure]);
    for revision in REVISIONS {
        let pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
        let mut pair = secured(pair, &realm, revision).connect();
        for tid in 0..8 {
            pair.send(ALICE, Message::new(42).with_tid(tid).with_data(vec![tid as u8; LEN]));
        }
        let now = pair.now;
        let gather = pair.session(ALICE).poll_transmit(now).unwrap();
        let bodies = gather.slices().iter().filter(|slice| slice.len() > LEN).count();
        assert_eq!(bodies, STAGED / LEN, "{revision:?}");
        assert!(gather.len() < STAGED + LEN, "{} bytes are written ahead", gather.len());
        pair.run();
        assert_eq!(pair.received_tids(BOB), (0..8).collect::<Vec<_>>());
        let whole = |message: &Message| message.data[..] == vec![message.header.tid as u8; LEN];
        assert!(pair.slot(BOB).received.iter().all(whole), "{revision:?}");
    }
}

/// Somebody of another name dials Bob from Alice's address: his session is none of theirs. Their slot.
fn thief_stays_outside(pair: &mut Pair, realm: &Realm) -> usize {
    pair.edit(ALICE, |identity| {
        identity.auth = realm.member("client.admin", 4000);
        identity.options.auth_id = "admin".into();
        identity.name = "client.0".parse().unwrap();
    });
    let thief = pair.dial(ALICE);
    pair.run();
    assert!(!pair.hosts[ALICE].slots[thief].session.is_ready());
    assert!(pair.session(BOB).is_ready());
    thief
}

#[test]
fn nobody_else_gets_a_session_by_its_addresses() {
    let realm = Realm::new(&[Secure]);
    let mut pair = secured(Pair::of_peers(Policy::lossless_peer()), &realm, Revision::Rev1);
    pair.dial(ALICE);
    pair.run();
    let osd = pair.hosts[ALICE].identity.clone();
    let thief = thief_stays_outside(&mut pair, &realm);
    let name = pair.session(BOB).peer().auth.as_ref().map(|auth| auth.name.to_string());
    assert_eq!(name.as_deref(), Some("osd.0"));
    pair.hosts[ALICE].slots[thief].session.mark_down();
    // The same one, started again, does.
    pair.hosts[ALICE].identity = osd;
    let again = pair.dial(ALICE);
    pair.run();
    assert!(pair.hosts[ALICE].slots[again].session.is_ready());
}

#[test]
fn a_session_that_we_dialled_again_keeps_the_name_of_its_peer() {
    let realm = Realm::new(&[Secure]);
    let mut pair = secured(Pair::of_peers(Policy::lossless_peer()), &realm, Revision::Rev1);
    pair.dial(ALICE);
    pair.run();
    pair.cut();
    pair.run();
    pair.send(BOB, message(1));
    pair.run();
    assert_eq!(pair.dialled(BOB, 0), Some(true));
    assert_eq!(pair.received_tids(ALICE), [1]);
    let name = |pair: &mut Pair, host| {
        pair.session(host).peer().auth.as_ref().map(|auth| auth.name.to_string())
    };
    assert_eq!(name(&mut pair, BOB).as_deref(), Some("osd.0"));
    assert_eq!(name(&mut pair, ALICE).as_deref(), Some("osd.1"));
    // So who has another name does not get the session, however it was last dialled.
    thief_stays_outside(&mut pair, &realm);
}

#[test]
fn who_has_another_key_or_no_ticket_stays_outside() {
    let realm = Realm::new(&[Secure]);
    let mon = identity("mon.0", "v2:10.0.0.2:3300/0", Policy::stateless_registered_server());
    let alice = identity("client.?", "any:-/11", Policy::lossy_client());
    let mut pair = Pair::of([alice.clone(), mon]);
    pair.edit(ALICE, |identity| identity.auth = realm.impostor());
    pair.edit(BOB, |identity| identity.auth = realm.monitor());
    pair.dial(ALICE);
    pair.run();
    assert_eq!(error_kind(pair.session(ALICE)), "auth_refused");
    assert!(pair.session(ALICE).stats().protocol_errors == 1 && !pair.session(BOB).is_ready());
    assert_eq!(pair.session(ALICE).stats().auth_denied, 1);
    assert_eq!(pair.session(BOB).stats().auth_refused.get(RefusalKind::WrongKey), 1);
    assert!(pair.slot(BOB).log.contains(&"turned away"));

    let osd = identity("osd.1", "v2:10.0.0.3:6800/22", Policy::stateless_server());
    let mut pair = Pair::of([alice, osd]);
    pair.edit(ALICE, |identity| identity.auth = realm.stranger("client.admin"));
    pair.edit(BOB, |identity| identity.auth = realm.member("osd.1", 1));
    pair.dial(ALICE);
    pair.run();
    assert_eq!(error_kind(pair.session(ALICE)), "cephx", "not logged in");
    // Once it is, the same session gets through.
    let auth = pair.hosts[ALICE].identity.auth.clone();
    let tickets = realm.member("client.admin", 5).secrets.as_ref().unwrap().tickets();
    auth.secrets.as_ref().unwrap().set_tickets(tickets);
    pair.advance(Duration::from_secs(1));
    assert!(pair.session(ALICE).is_ready());
}

#[test]
fn the_next_method_is_tried_on_the_same_transport() {
    let realm = Realm::new(&[Crc]);
    let mut pair = Pair::new(Policy::lossy_client(), Policy::stateless_server());
    let secrets = realm.member("client.admin", 5);
    let tickets = secrets.secrets.as_ref().unwrap().tickets();
    let mut auth = realm.stranger("client.admin");
    auth.secrets.as_ref().unwrap().set_tickets(tickets);
    let rules = AuthRules::uniform(&[AuthMethod::Cephx, AuthMethod::None], &[Secure, Crc]);
    std::sync::Arc::get_mut(&mut auth).unwrap().rules = rules;
    pair.edit(ALICE, |identity| identity.auth = auth);
    pair.dial(ALICE);
    pair.run();
    assert!(pair.session(ALICE).is_ready() && pair.session(BOB).is_ready());
    let stats = pair.session(ALICE).stats();
    assert_eq!((stats.dials, stats.auth_denied), (1, 0));
    assert_eq!(pair.session(BOB).stats().auth_refused.get(RefusalKind::Method), 1);
}

#[test]
fn a_sealed_reply_ends_in_the_buffer_posted_for_it() {
    for revision in REVISIONS {
        let realm = Realm::new(&[Secure]);
        let mut pair = secured(Pair::of_peers(Policy::lossless_peer()), &realm, revision);
        pair.dial(ALICE);
        pair.run();
        let buffers = std::sync::Arc::new(RxBuffers::default());
        pair.session(ALICE).set_rx_buffers(buffers.clone());
        let buffer = BytesMut::with_capacity(300_000);
        let place = buffer.as_ptr();
        buffers.post(7, buffer).unwrap();
        buffers.post(8, BytesMut::with_capacity(10)).unwrap();
        pair.send(BOB, large(7));
        pair.send(BOB, large(8));
        pair.run();
        let received = &pair.slot(ALICE).received;
        assert_eq!(received[0].data.as_ptr(), place);
        assert!(received.iter().all(|message| message.data == large(7).data));
        assert_eq!(buffers.count(), 1, "too small a one stays");
    }
}

/// Two peers say something of every kind to each other; bits change on the way.
fn exchange(mode: ConnectionMode, revision: Revision, flips: &[Cut]) -> Pair {
    let realm = Realm::new(&[mode]);
    let mut pair = secured(Pair::of_peers(Policy::lossless_peer()), &realm, revision);
    pair.flips = flips.to_vec();
    pair.hosts[BOB].greetings = vec![11, 12];
    pair.dial(ALICE);
    pair.send(ALICE, message(1));
    pair.send(ALICE, message(2));
    let now = pair.now;
    pair.session(ALICE).send_keepalive(now);
    pair.advance(Duration::from_secs(30));
    pair
}

#[test]
fn a_byte_that_changes_anywhere_ends_the_transport_and_loses_nothing() {
    for (mode, revision) in
        [(Secure, Revision::Rev0), (Secure, Revision::Rev1), (Crc, Revision::Rev1)]
    {
        let arrived = exchange(mode, revision, &[]).arrived(0).unwrap();
        let banner_len = 26; // a longer one is waited for
        for from in [DIALLER, ACCEPTOR] {
            for after in banner_len..arrived[from] {
                let context = format!("{mode} {revision:?} byte {after} from {from}");
                let pair = exchange(mode, revision, &[Cut { pipe: 0, from, after }]);
                let slots = || pair.hosts.iter().flat_map(|host| &host.slots);
                let errors: u64 = slots().map(|slot| slot.session.stats().protocol_errors).sum();
                let harmless = mode == Crc && errors == 0; // a status nibble that means nothing
                assert!(errors == 1 || harmless, "{context}: {errors} errors");
                assert_eq!(pair.arrived(1).is_none(), harmless, "{context}");
                for (host, expected) in [(ALICE, [11, 12]), (BOB, [1, 2])] {
                    let received = pair.hosts[host].slots.iter().flat_map(|slot| &slot.received);
                    let tids: Vec<u64> = received.map(|message| message.header.tid).collect();
                    assert_eq!(tids, expected, "{context}");
                }
            }
        }
    }
}

/// A dialling session that believes it talks to an OSD, and the frames it says.
struct Victim {
    session: Session,
    heard: Vec<u8>,
    read: usize,
}

impl Victim {
    fn new(auth: std::sync::Arc<Auth>) -> Self {
        let mut identity = identity("client.?", "any:-/11", Policy::lossy_client());
        identity.auth = auth;
        let now = identity.anchor.instant;
        let target: EntityAddr = "v2:10.0.0.2:6800/22".parse().unwrap();
        let mut session =
            Session::dial(now, std::sync::Arc::new(identity), EntityType::Osd, target, 7);
        let local = "10.0.0.1:5000".parse().unwrap();
        session.handle_transport(now, TransportNews::Opened { local });
        let mut victim = Self { session, heard: Vec::new(), read: 26 };
        victim.say(&Banner::OURS.encode()).unwrap();
        let peer_addr = "v2:10.0.0.1:5000/0".parse().unwrap();
        victim.control(&Hello { kind: EntityType::Osd, peer_addr }).unwrap();
        victim
    }

    fn say(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        let now = std::time::Instant::now();
        while !bytes.is_empty() {
            let space = self.session.rx_space();
            let len = space.len().min(bytes.len());
            space[..len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            self.session.handle_received(now, len)?;
        }
        while let Some(gather) = self.session.poll_transmit(now) {
            gather.slices().iter().for_each(|slice| self.heard.extend_from_slice(slice));
            let len = gather.len();
            self.session.transmitted(len);
        }
        Ok(())
    }

    fn control<C: Control>(&mut self, payload: &C) -> Result<(), ProtocolError> {
        let mut out = BytesMut::new();
        Wire { revision: Revision::Rev1, crc_data: true }.control(payload, &mut out);
        self.say(&out)
    }

    /// The payload of the last frame it said.
    fn last<C: Control>(&mut self) -> C {
        let wire = Wire { revision: Revision::Rev1, crc_data: true };
        let frames = frames_in(wire, self.heard[self.read..].to_vec().into());
        self.read = self.heard.len();
        let (tag, payload) = frames.last().unwrap();
        assert_eq!(*tag, C::TAG);
        C::parse(payload).unwrap()
    }
}

#[test]
fn a_client_is_not_talked_into_what_it_did_not_offer() {
    let realm = Realm::new(&[Secure]);
    // The server takes a mode for granted that was not offered, or a method that ended too soon.
    let mut victim = Victim::new(realm.member("client.admin", 5));
    let done = AuthDone { global_id: 5, mode: 1, payload: vec![] };
    assert_eq!(victim.control(&done).unwrap_err().kind(), "auth_mode");
    let mut victim = Victim::new(realm.member("client.admin", 5));
    let done = AuthDone { global_id: 5, mode: 2, payload: vec![] };
    assert_eq!(victim.control(&done).unwrap_err().kind(), "cephx");
    let mut victim = Victim::new(Auth::new(AuthRules::default()));
    let done = AuthDone { global_id: 5, mode: 2, payload: vec![] };
    assert_eq!(victim.control(&done).unwrap_err().kind(), "auth_mode");
}

#[test]
fn a_server_that_signs_nothing_or_something_else_is_left() {
    let realm = Realm::new(&[Crc]);
    for signs in [false, true] {
        let mut victim = Victim::new(realm.member("client.admin", 5));
        let (own, peer) = (EntityType::Osd, EntityType::Client);
        let context = Accepting { own, peer, fresh_global_id: 1, now: NOW };
        let mut server = ServerAuth::new(realm.member("osd.1", 1), context);
        let request: AuthRequest = victim.last();
        let Answer::More(challenge) = server.on_request(&request) else {
            panic!("a challenge comes first");
        };
        victim.control(&AuthReplyMore(challenge)).unwrap();
        let more: AuthRequestMore = victim.last();
        let Answer::Done(done, grant) = server.on_more(&more.0) else {
            panic!("the authorizer is good");
        };
        victim.control(&done).unwrap();
        let signature = match signs {
            false => [0; SIGNATURE_LEN],
            true => grant.signature(b"ceph v2"),
        };
        let error = victim.control(&AuthSignature(signature)).unwrap_err();
        assert_eq!(error, ProtocolError::Signature);
    }
}
