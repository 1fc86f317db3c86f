//! #1 to #6: connections that meet, and connections that come back.

use super::{answering, assert_one, bound_client, client, counting, end, round_trip, server};
use crate::common::{Net, Saw, eventually, ping, send, tally};
use messenger::{Action, AddrType, EntityType, Policy, Step};

/// ConnectionRaceTest: both dial at the same time.
pub fn case_01_connection_race(net: &impl Net) {
    let (s, s_steps) = server(net, counting(), Policy::lossless_peer_reuse());
    let (c, c_steps) = bound_client(net, counting(), Policy::lossless_peer_reuse());
    assert!(s.addrs < c.addrs);
    for steps in [&s_steps, &c_steps] {
        steps.hold_at(Step::ClientIdent);
    }
    let (to_c, to_s) = (s.connect(&c), c.connect(&s));
    send(&to_c, ping(1));
    send(&to_s, ping(2));
    let held = [&s_steps, &c_steps].map(|steps| steps.wait_until_held(Step::ClientIdent));
    held.iter().for_each(|connection| connection.resume(Action::Continue));

    s.recorder.wait_for_on(&to_c, &Saw::Fast(2), 1);
    c.recorder.wait_for_on(&to_s, &Saw::Fast(1), 1);
    // #1.1, #1.2
    assert_one(&to_c, "#1");
    assert_one(&to_s, "#1");
    assert_eq!(to_c.peer_type(), Some(EntityType::Client), "#1.3");
    assert_eq!(to_s.peer_type(), Some(EntityType::Osd), "#1.3");
    end(&c, &s);
    for host in [&s, &c] {
        let messages = host.recorder.count(&Saw::Fast(1)) + host.recorder.count(&Saw::Fast(2));
        assert_eq!(messages, 1, "#1.1: exactly one");
    }
}

/// ConnectionRaceReuseBannerTest: a dial that has not seen a banner takes the other side's over.
pub fn case_02_connection_race_reuse_banner(net: &impl Net) {
    let (s, s_steps) = server(net, counting(), Policy::lossless_peer_reuse());
    let (c, c_steps) = bound_client(net, counting(), Policy::lossless_peer_reuse());
    s_steps.hold_at(Step::ClientIdent);
    let to_c = s.connect(&c);
    send(&to_c, ping(1));
    assert_eq!(s_steps.wait_until_held(Step::ClientIdent), to_c);

    s_steps.hold_at(Step::ServerBanner);
    c_steps.hold_at(Step::ClientBannerSent);
    let to_s = c.connect(&s);
    send(&to_s, ping(2));
    assert_eq!(c_steps.wait_until_held(Step::ClientBannerSent), to_s);
    let acceptor = s_steps.wait_until_held(Step::ServerBanner);
    to_s.resume(Action::Continue); // and waits for a banner that does not come

    c_steps.hold_at(Step::Ready);
    to_c.resume(Action::Continue);
    assert_eq!(c_steps.wait_until_held(Step::Ready), to_s);
    acceptor.resume(Action::Continue);
    eventually("S's acceptor is given up", || acceptor.is_down());
    to_s.resume(Action::Continue);

    s.recorder.wait_for_on(&to_c, &Saw::Fast(2), 1);
    c.recorder.wait_for_on(&to_s, &Saw::Fast(1), 1);
    assert_one(&to_c, "#2.1");
    assert_one(&to_s, "#2.1");
    assert!(!acceptor.is_connected(), "#2.2");
    assert_eq!(c_steps.count(&to_s, Step::ClientBanner), 1, "#2.3");
    assert_eq!(c_steps.count(&to_s, Step::Reconnect), 0, "#2.3");
    assert_eq!(c_steps.count(&to_s, Step::Ready), 1, "#2.3");
    end(&c, &s);
}

/// MissingServerIdenTest: the server's last word is lost; what it was given meanwhile is not.
pub fn case_03_missing_server_ident(net: &impl Net) {
    let (s, s_steps) = server(net, counting(), Policy::stateful_server());
    let (c, _) = client(net, counting(), Policy::lossy_client());
    s_steps.hold_at(Step::ServerIdent);
    let to_s = c.connect(&s);
    send(&to_s, ping(2));
    let to_c = s_steps.wait_until_held(Step::ServerIdent);
    // With a message of its own it waits for its client instead of dying.
    send(&to_c, ping(1));
    to_c.resume(Action::Fail);

    c.recorder.wait_for_on(&to_s, &Saw::Fast(1), 1); // #3.1: C tried again
    s.recorder.wait_for_on(&to_c, &Saw::Fast(2), 1); // on the same object
    // #3.1, #3.2
    assert_one(&to_s, "#3");
    assert_one(&to_c, "#3");
    assert_eq!(s.recorder.accepted(), std::slice::from_ref(&to_c), "#3.2: the same object");
    assert_eq!(to_s.peer_type(), Some(EntityType::Osd), "#3.2");
    assert_eq!(to_c.peer_type(), Some(EntityType::Client), "#3.2");
    end(&c, &s);
}

/// MissingServerIdenTest2: the same between peers; the one that has something to say dials.
pub fn case_04_missing_server_ident_2(net: &impl Net) {
    let (s, s_steps) = server(net, counting(), Policy::lossless_peer());
    let (c, c_steps) = bound_client(net, counting(), Policy::lossless_peer());
    s_steps.hold_at(Step::ServerIdent);
    let to_s = c.connect(&s);
    let to_c = s_steps.wait_until_held(Step::ServerIdent);
    send(&to_c, ping(1));
    to_c.resume(Action::Fail);

    c.recorder.wait_for_on(&to_s, &Saw::Fast(1), 1);
    assert_eq!(c_steps.count(&to_s, Step::ClientBanner), 1, "#4.1: C parks");
    assert_eq!(s_steps.count(&to_c, Step::ClientBanner), 1, "#4.1: S dials");
    assert_one(&to_s, "#4.1");
    assert_eq!(tally(&to_c), 0, "#4.2");
    assert!(to_c.is_connected() && to_s.is_connected(), "#4.3");
    end(&c, &s);
}

/// ReconnectTest: a transport breaks while an answer arrives.
pub fn case_05_reconnect(net: &impl Net) {
    let (s, s_steps) = server(net, answering(), Policy::stateful_server());
    let (c, c_steps) = client(net, counting(), Policy::lossless_peer());
    let to_s = c.connect(&s);
    round_trip(&c, &to_s, 1);
    let to_c = s.recorder.wait_for_accept(&[]);
    assert_one(&to_s, "#5");

    c_steps.hold_at(Step::MessageSeen);
    send(&to_s, ping(2));
    assert_eq!(c_steps.wait_until_held(Step::MessageSeen), to_s);
    send(&to_s, ping(3));
    to_s.resume(Action::Fail);

    s_steps.wait_for(&to_c, Step::Ready, 2); // #5.1
    c.recorder.wait_for_on(&to_s, &Saw::Fast(3), 1); // #5.4
    assert_eq!(s_steps.count(&to_c, Step::Reconnect), 0, "#5.2");
    assert_eq!(s_steps.count(&to_c, Step::ReconnectOk), 1, "#5.2");
    // Over msgr1 the number of the first try is one too low.
    let tries = if net.protocol() == AddrType::Legacy { 2 } else { 1 };
    assert_eq!(c_steps.count(&to_s, Step::Reconnect), tries, "#5.3");
    assert_eq!(c_steps.count(&to_s, Step::ReconnectOk), 0, "#5.3");
    assert_eq!(tally(&to_s), 3, "#5.4: each answer once");
    assert_eq!(tally(&to_c), 3);
    end(&c, &s);
}

/// ReconnectRaceTest: both sides come back at the same time.
pub fn case_06_reconnect_race(net: &impl Net) {
    let (s, s_steps) = server(net, answering(), Policy::lossless_peer());
    let (c, c_steps) = bound_client(net, counting(), Policy::lossless_peer());
    assert!(s.addrs < c.addrs);
    let to_s = c.connect(&s);
    round_trip(&c, &to_s, 1);
    let to_c = s.recorder.wait_for_accept(&[]);

    for steps in [&s_steps, &c_steps] {
        steps.hold_at(Step::Reconnect);
    }
    c_steps.hold_at(Step::MessageSeen);
    send(&to_s, ping(2));
    assert_eq!(c_steps.wait_until_held(Step::MessageSeen), to_s);
    send(&to_s, ping(3));
    to_s.resume(Action::Fail);
    let held = [&s_steps, &c_steps].map(|steps| steps.wait_until_held(Step::Reconnect));
    held.iter().for_each(|connection| connection.resume(Action::Continue));

    c.recorder.wait_for_on(&to_s, &Saw::Fast(3), 1); // #6.4
    assert_eq!(s.recorder.accepted(), std::slice::from_ref(&to_c), "the same objects");
    let asked_by_s = s_steps.count(&to_c, Step::Reconnect);
    assert!((1..=2).contains(&asked_by_s), "#6.1: S asked {asked_by_s} times");
    assert_eq!(s_steps.count(&to_c, Step::ReconnectOk), 0, "#6.1");
    assert_eq!(c_steps.count(&to_s, Step::Reconnect), 1, "#6.2");
    assert_eq!(c_steps.count(&to_s, Step::ReconnectOk), 1, "#6.2");
    // C's answer to the first question stands on the connection that brought it.
    assert_eq!(c_steps.total(Step::SessionRetry), asked_by_s - 1, "#6.3");
    assert_eq!(tally(&to_s), 3, "#6.4: each answer once");
    end(&c, &s);
}
