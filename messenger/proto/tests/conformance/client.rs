//! Case 50 for our client: what a server may do to it. The real command against our server, and our
//! client at real servers (51), are in `messenger/cli/tests`.

use std::rc::Rc;
use std::time::Duration;

use messenger_proto::{EntityType, Policy};

use crate::bytes::{Addr, Out};
use crate::host::{Host, THERE};
use crate::probe::{ADDR2, ClientIdent, Manner, Probe, Proof, Role, ServerIdent};
use crate::wire::tag;

/// A session of ours that dials, and the server, which has to answer an ident.
fn dialling(policy: Policy, manner: Manner) -> Probe {
    let mut host = Host::new("client.?", manner, policy);
    host.dial(EntityType::Osd);
    let mut probe = Probe::dialled(&Rc::new(host.into()), manner);
    probe.sign();
    let ident = ClientIdent::read(&probe.expect(tag::CLIENT_IDENT));
    assert_eq!(ident.addrs, [Addr::any([10, 0, 0, 2], 11)], "the IP address the server sees");
    assert_eq!(ident.target, THERE);
    probe
}

fn at_a_client(case: impl Fn(&mut Probe)) {
    Manner::ALL.iter().for_each(|manner| case(&mut dialling(Policy::lossy_client(), *manner)));
}

/// The client closes, and dials again after its pause.
#[track_caller]
fn tries_again(probe: &Probe, kind: &str, pause: Duration) {
    probe.is_closed_for(kind);
    let dials = probe.host().dials.len();
    probe.wait(pause - Duration::from_millis(1));
    assert_eq!(probe.host().dials.len(), dials);
    probe.wait(Duration::from_millis(1));
    assert_eq!(probe.host().dials.len(), dials + 1);
}

const PAUSE: Duration = Duration::from_millis(200);

#[test]
fn c50_the_server_s_word_on_lossy_counts() {
    for manner in Manner::ALL {
        let mut probe = dialling(Policy::lossless_client(), manner);
        let answer = ServerIdent::of(&probe);
        assert_eq!(answer.flags, 1);
        probe.send(tag::SERVER_IDENT, &answer.write()).is_answered();
        assert!(probe.slot().session.policy().lossy);
    }
}

#[test]
fn c50_a_client_that_is_told_to_wait_tries_again_later() {
    at_a_client(|probe| {
        probe.send(tag::WAIT, b"");
        tries_again(probe, "wait", Duration::from_secs(15));
    });
}

#[test]
fn c50_a_client_that_lacks_features_or_finds_them_lacking_tries_again() {
    at_a_client(|probe| {
        probe.send(tag::IDENT_MISSING_FEATURES, &Out::new().u64(1 << 62).0);
        tries_again(probe, "missing_features", PAUSE);
    });
    // Ceph's client takes any server; ours does not know how to write addresses for this one.
    at_a_client(|probe| {
        let mut answer = ServerIdent::of(probe);
        answer.supported &= !ADDR2;
        probe.send(tag::SERVER_IDENT, &answer.write());
        tries_again(probe, "missing_features", PAUSE);
    });
}

#[test]
fn c50_a_client_that_finds_another_server_tries_again() {
    let others: [&[Addr]; 3] = [
        &[],
        &[Addr { nonce: THERE.nonce + 1, ..THERE }],
        &[Addr { kind: 1, ..THERE }, Addr { port: 6802, ..THERE }],
    ];
    for addrs in others {
        at_a_client(|probe| {
            let answer = ServerIdent { addrs: addrs.to_vec(), ..ServerIdent::of(probe) };
            probe.send(tag::SERVER_IDENT, &answer.write());
            tries_again(probe, "not_the_dialled", PAUSE);
        });
    }
}

#[test]
fn c50_a_client_that_finds_a_server_of_another_type_gives_up() {
    let mut probe = Probe::new(Role::Client, Manner::PLAIN);
    probe.banner().expect(tag::HELLO);
    let monitor = Out::new().u8(1).addr(Addr::v2([10, 0, 0, 2], 50_000, 0)).0;
    probe.send(tag::HELLO, &monitor).is_closed_for("wrong_peer_type");
    assert!(probe.slot().session.is_closed());
}

#[test]
fn c50_a_client_that_is_shown_a_wrong_signature_tries_again() {
    for manner in Manner::ALL {
        let mut probe = Probe::new(Role::Client, manner);
        probe.authenticate();
        while probe.hear().is_some() {}
        probe.send(tag::AUTH_SIGNATURE, &[0x55; 32]);
        tries_again(&probe, "signature", PAUSE);
    }
}

#[test]
fn c50_a_client_whose_methods_are_all_refused_tries_again() {
    for manner in Manner::ALL {
        let mut probe = Probe::new(Role::Client, manner);
        probe.greet().expect(tag::AUTH_REQUEST);
        let method = if manner.proof == Proof::None { 1 } else { 2 };
        let refused = Out::new().u32(method).u32(-13_i32 as u32).list(&[77]).list(&[1, 2]).0;
        probe.send(tag::AUTH_BAD_METHOD, &refused);
        tries_again(&probe, "auth_refused", PAUSE);
    }
}
