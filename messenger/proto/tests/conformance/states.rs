//! Cases 17 to 21: frames out of place, and what secure mode adds.

use crate::bytes::Out;
use crate::crypt::sign;
use crate::probe::{ClientIdent, Manner, NONE, Probe, Proof, Role, at_a_server, everywhere};
use crate::probe::{head, none_payload, stamp};
use crate::wire::{Flaw, Frame, Rev, tag};

const SECURE: [Manner; 2] = [
    Manner { rev: Rev::Zero, proof: Proof::CephxSecure },
    Manner { rev: Rev::One, proof: Proof::CephxSecure },
];

/// A frame that is right and comes at the wrong time.
fn refused(probe: &mut Probe, tag: u8, payload: &[u8]) {
    while probe.hear().is_some() {}
    probe.send(tag, payload).is_closed_for("unexpected_tag");
}

/// How far a handshake came, without what there is to hear.
const PHASES: [fn(&mut Probe); 4] = [
    |probe| _ = probe.banner(),
    |probe| _ = probe.greet(),
    |probe| _ = probe.authenticate(),
    |probe| _ = probe.sign(),
];

#[test]
fn c17_a_message_before_there_is_a_session_closes_at_its_preamble() {
    for phase in PHASES {
        everywhere(|probe| {
            phase(probe);
            while probe.hear().is_some() {}
            let message = Frame::new(tag::MESSAGE, &[&head(1, 2), b"front"]);
            let bytes = probe.wire.write(&message);
            let sealed = probe.wire.sealed.is_some() && probe.manner.rev == Rev::One;
            probe.say(&bytes[..if sealed { 96 } else { 32 }]).is_closed_for("unexpected_tag");
        });
    }
}

#[test]
fn c17_housekeeping_before_there_is_a_session_closes() {
    for phase in PHASES {
        everywhere(|probe| {
            phase(probe);
            refused(probe, tag::KEEPALIVE2, &stamp());
        });
        everywhere(|probe| {
            phase(probe);
            refused(probe, tag::ACK, &Out::new().u64(0).0);
        });
    }
}

#[test]
fn c17_an_ident_before_authentication_or_before_the_signature_closes() {
    for phase in &PHASES[..3] {
        at_a_server(|probe| {
            phase(probe);
            let ident = ClientIdent::of(probe).write();
            refused(probe, tag::CLIENT_IDENT, &ident);
        });
    }
}

#[test]
fn c18_a_second_hello_closes() {
    let hello = |probe: &Probe| Out::new().u8(8).addr(probe.me).0;
    everywhere(|probe| {
        let hello = hello(probe);
        refused(probe.greet(), tag::HELLO, &hello);
    });
    everywhere(|probe| {
        let hello = hello(probe);
        refused(probe.ready(), tag::HELLO, &hello);
    });
}

#[test]
fn c18_an_auth_request_or_an_ident_in_a_session_closes() {
    at_a_server(|probe| {
        let request = Out::new().u32(NONE).list(&[1]).blob(&none_payload()).0;
        refused(probe.ready(), tag::AUTH_REQUEST, &request);
    });
    at_a_server(|probe| {
        let ident = ClientIdent { global_seq: 2, ..ClientIdent::of(probe) }.write();
        refused(probe.ready(), tag::CLIENT_IDENT, &ident);
    });
}

/// What only a server says closes at a server, before a session and in one; and the other way round.
#[test]
fn c19_what_only_the_other_side_says_closes() {
    let from_servers = [
        tag::SERVER_IDENT,
        tag::AUTH_DONE,
        tag::AUTH_BAD_METHOD,
        tag::AUTH_REPLY_MORE,
        tag::IDENT_MISSING_FEATURES,
        tag::SESSION_RETRY,
        tag::SESSION_RETRY_GLOBAL,
        tag::SESSION_RESET,
        tag::SESSION_RECONNECT_OK,
        tag::WAIT,
    ];
    let from_clients =
        [tag::AUTH_REQUEST, tag::AUTH_REQUEST_MORE, tag::CLIENT_IDENT, tag::SESSION_RECONNECT];
    let phases: [fn(&mut Probe); 3] = [PHASES[1], PHASES[3], |probe| _ = probe.ready()];
    for phase in phases {
        everywhere(|probe| {
            let tags = match probe.role {
                Role::Server => &from_servers[..],
                Role::Client => &from_clients[..],
            };
            for tag in tags {
                let mut probe = Probe::new(probe.role, probe.manner);
                phase(&mut probe);
                refused(&mut probe, *tag, &[0; 64]);
            }
        });
    }
}

#[test]
fn c20_a_signature_in_clear_where_secure_mode_began_closes() {
    for manner in SECURE {
        let mut probe = Probe::new(Role::Server, manner);
        let key = probe.authenticate().unwrap();
        let signature = sign(&key, probe.heard());
        probe.expect(tag::AUTH_SIGNATURE);
        probe.wire.sealed = None;
        probe.send(tag::AUTH_SIGNATURE, &signature);
        // Fills what the server takes for a frame's first part.
        if probe.is_open() {
            probe.send(tag::WAIT, &[0; 60]);
        }
        // Revision 0 decrypts a preamble before it can tell who wrote it.
        let kind = if manner.rev == Rev::One { "not_authentic" } else { "preamble_crc" };
        probe.is_closed_for(kind);
    }
}

#[test]
fn c20_a_wrong_tag_closes_in_every_part_of_a_frame() {
    for (role, manner) in
        [Role::Server, Role::Client].into_iter().flat_map(|role| SECURE.map(|m| (role, m)))
    {
        for flaw in [Flaw::FirstCrc, Flaw::LastCrc] {
            let mut probe = Probe::new(role, manner);
            let mut message = Frame::new(tag::MESSAGE, &[&head(1, 2), b"front"]);
            message.flaw = Some(flaw);
            probe.ready().frame(&message).is_closed_for("not_authentic");
            assert_eq!(probe.arrived(), []);
        }
    }
}

#[test]
fn c20_a_frame_that_comes_twice_is_answered_once() {
    for role in [Role::Server, Role::Client] {
        for manner in SECURE {
            let mut probe = Probe::new(role, manner);
            let frame = Frame::new(tag::KEEPALIVE2, &[&stamp()]);
            let bytes = probe.ready().wire.write(&frame);
            probe.say(&bytes).expect(tag::KEEPALIVE2_ACK);
            probe.say(&bytes);
            let kind = if manner.rev == Rev::One { "not_authentic" } else { "preamble_crc" };
            probe.is_closed_for(kind);
        }
    }
}

#[test]
fn c21_a_first_segment_longer_than_what_is_inline_is_read() {
    everywhere(|probe| {
        probe.ready();
        for extra in [0, 40, 41, 100, 5000] {
            let payload = Out(stamp()).zeros(extra).0;
            probe.send(tag::KEEPALIVE2, &payload);
            assert_eq!(probe.expect(tag::KEEPALIVE2_ACK), stamp());
        }
    });
}
