//! #11 to #14: who remembers a session, and who is told that it is gone.

use super::{answering, assert_one, client, counting, end, round_trip, server};
use crate::common::{Host, Net, Saw, eventually, ping, send, tally};
use messenger::{AddrType, ConnectOptions, Connection, EntityType, Policy, Step};

/// A connection of its own to S.
fn connect_anonymous(c: &Host, s: &Host) -> Connection {
    let options = ConnectOptions { anonymous: true, not_local: false };
    c.messenger.connect_to(EntityType::Osd, &s.addrs, options).unwrap()
}

/// StatefulTest.
pub fn case_11_stateful(net: &impl Net) {
    let (s, _) = server(net, answering(), Policy::stateful_server());
    let (c, _) = client(net, counting(), Policy::lossless_client());
    let first = c.connect(&s);
    round_trip(&c, &first, 1);
    assert_one(&first, "#11");
    let find_session = || {
        let options = ConnectOptions::default();
        let mut addrs = c.messenger.addrs();
        if net.protocol() == AddrType::Legacy {
            addrs.0[0].kind = AddrType::Legacy; // all there is over msgr1
        }
        s.messenger.connect_to(EntityType::Client, &addrs, options).unwrap()
    };
    let session = find_session();
    assert_eq!(session, s.recorder.accepted()[0]);

    first.mark_down();
    assert!(!first.is_connected());
    eventually("S misses its client", || !session.is_connected());
    assert_eq!(find_session(), session, "#11.1: S keeps it under C's address");
    assert_eq!(tally(&session), 1, "#11.1");

    let second = c.connect(&s);
    assert_ne!(second, first);
    round_trip(&c, &second, 2);
    assert_eq!(tally(&second), 1, "#11.2");
    s.recorder.wait_for_on(&session, &Saw::RemoteReset, 1); // #11.2
    assert_eq!(c.recorder.count(&Saw::RemoteReset), 0, "#11.3");

    let session = find_session();
    session.mark_down();
    assert!(!session.is_connected());
    c.recorder.wait_for_on(&second, &Saw::RemoteReset, 1); // #11.4
    c.recorder.wait_for_on(&second, &Saw::Connect, 2);
    assert!(second.is_connected(), "#11.4");

    round_trip(&c, &second, 3);
    assert_one(&second, "#11.5");
    let session = find_session();
    assert_one(&session, "#11.5");
    end(&c, &s);
}

/// StatelessTest.
pub fn case_12_stateless(net: &impl Net) {
    let (s, _) = server(net, answering(), Policy::stateless_server());
    let (c, c_steps) = client(net, counting(), Policy::lossy_client());
    let first = c.connect(&s);
    round_trip(&c, &first, 1);
    assert_one(&first, "#12");
    let first_session = s.recorder.wait_for_accept(&[]);
    first.mark_down();
    assert!(!first.is_connected());

    let second = c.connect(&s);
    round_trip(&c, &second, 2);
    assert_eq!(tally(&second), 1, "#12.1");
    let session = s.recorder.wait_for_accept(&[&first_session]);
    assert_one(&session, "#12.1");

    session.mark_down();
    second.send_keepalive();
    eventually("C misses its server", || !second.is_connected()); // #12.2
    let dials = c_steps.count(&second, Step::ClientBanner);

    let third = c.connect(&s);
    assert_ne!(third, second);
    round_trip(&c, &third, 3);
    assert_one(&third, "#12.3");
    assert!(!second.is_connected(), "#12.2: and it stays so");
    assert_eq!(c_steps.count(&second, Step::ClientBanner), dials, "#12.2");
    end(&c, &s);
}

/// AnonTest.
pub fn case_13_anonymous(net: &impl Net) {
    let (s, _) = server(net, answering(), Policy::stateless_server());
    let (c, _) = client(net, counting(), Policy::lossy_client());
    let one = connect_anonymous(&c, &s);
    round_trip(&c, &one, 1);
    assert_one(&one, "#13.1");
    let of_one = s.recorder.wait_for_accept(&[]);

    let two = connect_anonymous(&c, &s);
    round_trip(&c, &two, 2);
    assert_one(&two, "#13.1");
    let of_two = s.recorder.wait_for_accept(&[&of_one]);
    assert_ne!(one, two, "#13.2");
    assert_ne!(of_one, of_two, "#13.2");
    assert_one(&of_one, "#13.2");
    assert_one(&of_two, "#13.2");

    round_trip(&c, &one, 3);
    round_trip(&c, &two, 4);
    for (ours, theirs) in [(&one, &of_one), (&two, &of_two)] {
        assert_eq!((tally(ours), tally(theirs)), (2, 2), "#13.3");
    }
    for connection in [&of_one, &of_two, &one, &two] {
        connection.mark_down();
        assert!(!connection.is_connected(), "#13.4");
    }
    end(&c, &s);
}

/// ClientStandbyTest. That C stays parked is seen from a later connection: it stands and talks
/// while C, which would dial at once, has not.
pub fn case_14_client_standby(net: &impl Net) {
    let (s, _) = server(net, answering(), Policy::stateful_server());
    let (c, c_steps) = client(net, counting(), Policy::lossless_peer());
    let to_s = c.connect(&s);
    round_trip(&c, &to_s, 1);
    assert_one(&to_s, "#14");
    eventually("nothing is queued", || to_s.outgoing() == (0, 0));
    let session = s.recorder.wait_for_accept(&[]);
    session.mark_down();
    eventually("C misses its server", || !to_s.is_connected());
    let (witness, _) = client(net, counting(), Policy::lossless_peer());
    let from_witness = witness.connect(&s);
    round_trip(&witness, &from_witness, 2);
    assert!(!to_s.is_connected() && !to_s.is_down(), "#14.1: parked");
    assert_eq!(c_steps.count(&to_s, Step::ClientBanner), 1, "#14.1: it does not dial");

    send(&to_s, ping(3)); // goes down with the session that S has forgotten
    c.recorder.wait_for_on(&to_s, &Saw::RemoteReset, 1); // #14.2
    c.recorder.wait_for_on(&to_s, &Saw::Connect, 2);
    let queued = c.recorder.queued_on(&to_s);
    assert_eq!(queued, [Saw::Connect, Saw::RemoteReset, Saw::Connect], "#14.2: in this order");
    assert!(to_s.is_connected(), "#14.2");

    round_trip(&c, &to_s, 4);
    assert_one(&to_s, "#14.3");
    let accepted = s.recorder.accepted();
    assert_one(accepted.last().unwrap(), "#14.3");
    end(&witness, &c);
    s.end();
}
