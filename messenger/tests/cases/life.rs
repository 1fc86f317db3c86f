//! #7 to #10, #15, #16: the lives of two messengers that talk.

use super::{answering, assert_one, ceph_config, client, counting, end, round_trip, server};
use crate::common::{Host, Listens, Net, Plan, Recorder, Saw, eventually, ping, send, tally};
use messenger::{EntityType, Message, Policy, SendError, Step, msg_type};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// SimpleTest.
pub fn case_07_simple(net: &impl Net) {
    simple(net, Listens::One);
}

/// SimpleMsgr2Test: S has an address of each protocol.
pub fn case_08_simple_msgr2(net: &impl Net) {
    simple(net, Listens::Both);
}

fn simple(net: &impl Net, listens: Listens) {
    let plan = Plan::server(answering(), Policy::stateless_server());
    let s = Plan { listens, config: ceph_config(), ..plan }.start(net);
    assert_eq!(s.addrs.iter().count(), if listens == Listens::Both { 2 } else { 1 });
    let (c, _) = client(net, counting(), Policy::lossy_client());
    let first = c.connect(&s);
    round_trip(&c, &first, 1);
    assert_one(&first, "#7.1");
    assert_eq!(first.peer_type(), Some(EntityType::Osd), "#7.1");
    assert_eq!(first.peer_addrs(), s.addrs, "#8.1");

    let ports = |host: &Host| -> Vec<u16> {
        let addrs = host.messenger.addrs();
        addrs.iter().map(|addr| addr.socket.unwrap().port()).collect()
    };
    let old = ports(&s);
    let avoid: Vec<u16> = old.iter().flat_map(|port| *port..port + 10).collect();
    let addrs = s.messenger.rebind(&avoid).unwrap();
    let s = Host { addrs, ..s };
    assert!(ports(&s).iter().all(|port| !avoid.contains(port)), "#7.2: {:?}", ports(&s));
    let second = c.connect(&s);
    assert_ne!(second, first);
    round_trip(&c, &second, 2);
    assert_one(&second, "#7.2");

    second.mark_down();
    assert!(!second.is_connected(), "#7.3");

    s.end();
    // Ceph's send returns 0 and drops it; here it comes back.
    let back = second.send_message(ping(3)).unwrap_err();
    assert!(matches!(back, SendError::Closed(_)), "#7.4: {back}");
    assert!(!second.is_connected(), "#7.4");

    let loopback = c.messenger.loopback_connection().unwrap();
    send(&loopback, ping(4));
    c.recorder.wait_for_on(&loopback, &Saw::Fast(4), 1);
    assert_one(&loopback, "#7.5");
    assert_eq!(loopback.peer_name(), Some(c.messenger.name()), "#7.5");
    c.end();
}

/// FeatureTest. That C never connects is seen from its third attempt.
pub fn case_09_feature(net: &impl Net) {
    const MISSING: u64 = 1 << 13;
    let common = Policy::default().features_required | 0x3ff;
    let both = common | MISSING;
    let features = |supported, required, policy| Policy {
        features_supported: supported,
        features_required: required,
        ..policy
    };
    let (s, _) = server(net, answering(), features(both, both, Policy::stateless_server()));
    let (c, c_steps) = client(net, counting(), features(common, common, Policy::lossy_client()));
    let refused = c.connect(&s);
    send(&refused, ping(1));
    c_steps.wait_for(&refused, Step::ClientIdent, 3);
    assert!(!refused.is_connected(), "#9.1");
    assert_eq!(s.recorder.accepted(), [], "#9.1");

    c.end();
    c.messenger.set_default_policy(features(both, common, Policy::lossy_client())).unwrap();
    c.messenger.start().unwrap();
    let welcome = c.connect(&s);
    round_trip(&c, &welcome, 2);
    assert_one(&welcome, "#9.2");
    assert!(welcome.has_features(MISSING), "#9.2");
    end(&c, &s);
}

/// TimeoutTest, with a tenth of Ceph's second.
pub fn case_10_timeout(net: &impl Net) {
    let idle = Duration::from_millis(100);
    let (s, _) = server(net, answering(), Policy::stateless_server());
    let plan = Plan::client(counting(), Policy::lossy_client());
    let config = messenger::Config { ms_connection_idle_timeout: idle, ..ceph_config() };
    let c = Plan { config, ..plan }.start(net);
    let to_s = c.connect(&s);
    round_trip(&c, &to_s, 1);
    assert_eq!(tally(&to_s), 1, "#10.1");
    eventually("silence is a fault", || !to_s.is_connected()); // #10.2
    c.recorder.wait_for_on(&to_s, &Saw::Reset, 1);
    end(&c, &s);
}

/// AuthTest, as far as there is authentication: Ceph requires cephx and then none. Method none is
/// all there is here before cephx comes, so the application refuses, and then admits.
pub fn case_15_auth(net: &impl Net) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let recorder = answering().on_authentication(move |_| gate.load(Ordering::Relaxed));
    let (s, _) = server(net, recorder, Policy::stateless_server());
    let (c, _) = client(net, counting(), Policy::lossy_client());
    let first = c.connect(&s);
    send(&first, ping(1));
    s.recorder.wait_until("three attempts", |saw| {
        saw.iter().filter(|(_, saw)| *saw == Saw::Authentication).count() >= 3
    });
    assert!(!first.is_connected());
    assert_eq!(s.recorder.accepted(), [], "nobody was let in");

    open.store(true, Ordering::Relaxed);
    c.recorder.wait_for_on(&first, &Saw::Fast(1), 1);
    assert_one(&first, "#15.1");

    first.mark_down();
    let second = c.connect(&s);
    round_trip(&c, &second, 2);
    assert_one(&second, "#15.2");
    end(&c, &s);
}

/// MessageTest.
pub fn case_16_message(net: &impl Net) {
    const STRINGS: usize = 30_720;
    const STRING: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    // What came back is what was sent, section by section.
    let echo = Recorder::fast().on_message(|connection, message| {
        let answer = Message::new(message.header.kind)
            .with_tid(message.header.tid)
            .with_front(message.front.clone())
            .with_data(message.data.clone());
        send(connection, answer);
    });
    let (s, _) = server(net, echo, Policy::stateful_server());
    let (c, _) = client(net, counting().keeping_messages(), Policy::lossless_peer());
    let to_s = c.connect(&s);
    let big = STRING.repeat(STRINGS);
    send(&to_s, Message::new(msg_type::MON_COMMAND).with_tid(1).with_front(big.clone()));
    c.recorder.wait_for_on(&to_s, &Saw::Fast(1), 1);
    send(&to_s, ping(2).with_data(big.clone()));
    c.recorder.wait_for_on(&to_s, &Saw::Fast(2), 1);
    let answers = c.recorder.take_messages();
    assert!(answers[0].front == big, "#16.1: the front is answered whole");
    assert!(answers[1].data == big, "#16.2: the data is answered whole");
    end(&c, &s);
}
