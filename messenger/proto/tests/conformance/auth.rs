//! Cases 22 to 27: authentication.

use crate::bytes::{In, Out};
use crate::cephx;
use crate::probe::{
    CEPHX, Manner, NONE, Probe, Proof, Role, at_a_server, everywhere, login_payload, none_payload,
};
use crate::wire::{Rev, tag};

const NOT_SUPPORTED: i32 = -95;
const NO_ACCESS: i32 = -13;

const MANNERS: [Manner; 4] = [
    Manner { rev: Rev::Zero, proof: Proof::None },
    Manner { rev: Rev::One, proof: Proof::None },
    Manner { rev: Rev::Zero, proof: Proof::CephxSecure },
    Manner { rev: Rev::One, proof: Proof::CephxSecure },
];

/// The server refuses what was asked, says what it would take, and listens.
#[track_caller]
fn is_refused(probe: &mut Probe, method: u32, result: i32) {
    let refused = probe.expect(tag::AUTH_BAD_METHOD);
    let mut read = In(&refused);
    assert_eq!((read.u32(), read.i32()), (method, result));
    assert_eq!((read.list(), read.list()), (vec![own(probe.manner)], vec![probe.manner.mode()]));
    assert!(read.0.is_empty());
    probe.stays_open();
}

/// The method that servers are configured for.
fn own(manner: Manner) -> u32 {
    if manner.proof == Proof::None { NONE } else { CEPHX }
}

/// Both kinds of servers, greeted.
fn at_servers(case: impl Fn(&mut Probe)) {
    for manner in MANNERS {
        case(Probe::new(Role::Server, manner).greet());
        case(Probe::at_monitor(manner).greet());
    }
}

/// What Ceph answers has its two modes, and ours the one that is configured.
#[test]
fn c22_an_unknown_method_is_refused_with_what_is_allowed() {
    at_servers(|probe| {
        probe.ask(77, &[1, 2], &login_payload());
        is_refused(probe, 77, NOT_SUPPORTED);
        // One that exists, and is not allowed here.
        let other = NONE + CEPHX - own(probe.manner);
        probe.ask(other, &[1, 2], &login_payload());
        is_refused(probe, other, NOT_SUPPORTED);
    });
}

#[test]
fn c23_no_mode_in_common_is_refused() {
    at_servers(|probe| {
        let method = own(probe.manner);
        for modes in [&[9][..], &[3 - probe.manner.mode()], &[]] {
            probe.ask(method, modes, &login_payload());
            is_refused(probe, method, NOT_SUPPORTED);
        }
    });
}

/// Method none has no key to seal anything with.
#[test]
fn c23_method_none_is_not_secure() {
    at_servers(|probe| {
        probe.ask(NONE, &[2], &login_payload());
        is_refused(probe, NONE, NOT_SUPPORTED);
    });
}

#[test]
fn c24_an_empty_or_senseless_payload_is_refused() {
    at_servers(|probe| {
        let (method, mode) = (own(probe.manner), probe.manner.mode());
        for payload in [&b""[..], &[10], &[255; 64], &login_payload()[..12]] {
            probe.ask(method, &[mode], payload);
            is_refused(probe, method, NO_ACCESS);
        }
    });
}

/// Asks a monitor for a challenge, and answers it with `key`.
fn log_in<'a>(probe: &'a mut Probe, key: &[u8; 16]) -> &'a mut Probe {
    let mode = probe.manner.mode();
    probe.ask(CEPHX, &[mode], &login_payload());
    let more = probe.expect(tag::AUTH_REPLY_MORE);
    let answer = cephx::login_answer(In(&more).blob(), key);
    let answer = Out::new().blob(&answer).0;
    probe.send(tag::AUTH_REQUEST_MORE, &answer)
}

#[test]
fn c24_a_wrong_key_is_refused_after_the_challenge() {
    for manner in &MANNERS[2..] {
        let mut probe = Probe::at_monitor(*manner);
        log_in(probe.greet(), &[0x55; 16]);
        is_refused(&mut probe, CEPHX, NO_ACCESS);
        // The right one is too late for this challenge.
        let answer = Out::new().blob(&[0; 40]).0;
        probe.send(tag::AUTH_REQUEST_MORE, &answer);
        is_refused(&mut probe, CEPHX, NO_ACCESS);
        // So is another request (section 5).
        probe.ask(CEPHX, &[2], &login_payload()).is_closed_for("unexpected_tag");

        let mut probe = Probe::at_monitor(*manner);
        log_in(probe.greet(), &cephx::PRINCIPAL_KEY).expect(tag::AUTH_DONE);
    }
}

#[test]
fn c24_an_answer_nobody_asked_for_closes() {
    at_servers(|probe| {
        probe.send(tag::AUTH_REQUEST_MORE, &[0; 44]).is_closed_for("unexpected_tag");
    });
}

#[test]
fn c25_a_refused_request_may_be_followed_by_a_good_one() {
    for manner in Manner::ALL {
        let mut probe = Probe::new(Role::Server, manner);
        probe.greet().ask(77, &[1, 2], &none_payload());
        is_refused(&mut probe, 77, NOT_SUPPORTED);
        probe.ready().is_answered();
    }
}

/// Ceph goes on for ever.
#[test]
fn c25_requests_without_end_close() {
    for manner in MANNERS {
        let mut probe = Probe::new(Role::Server, manner);
        probe.greet();
        for _ in 0..100 {
            if probe.is_open() {
                probe.ask(77, &[1], b"");
                while probe.hear().is_some() {}
            }
        }
        probe.is_closed_for("handshake_too_long");
    }
}

#[test]
fn c26_a_wrong_signature_closes() {
    everywhere(|probe| {
        probe.authenticate();
        while probe.hear().is_some() {}
        probe.send(tag::AUTH_SIGNATURE, &[0x55; 32]).is_closed_for("signature");
    });
}

#[test]
fn c27_in_every_manner_there_is_a_session_that_takes_messages_and_keepalives() {
    everywhere(|probe| {
        probe.ready().message(1, 5, &[]).message(2, 50, &[b"front", b"", b"data"]);
        assert_eq!(probe.arrived(), [1, 2]);
        probe.is_answered();
    });
    at_a_server(|probe| {
        probe.ready();
        let message = messenger_proto::Message::new(4).with_front("map").with_data(vec![7; 100]);
        let line = probe.line;
        probe.host().send(line, message);
        let (got, segments) = probe.hear().unwrap();
        assert_eq!((got, segments.len()), (tag::MESSAGE, 4));
        let mut head = In(&segments[0]);
        assert_eq!((head.u64(), head.u64(), head.u16()), (1, 0, 4));
        assert_eq!((&segments[1][..], &segments[3][..]), (&b"map"[..], &[7; 100][..]));
    });
}
