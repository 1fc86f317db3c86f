//! Cases 28 to 32: idents.

use crate::bytes::In;
use crate::host::HERE;
use crate::probe::{ADDR2, ClientIdent, FEATURES, Probe, ServerIdent, at_a_server};
use crate::wire::tag;

/// Says an ident that is wrong in one thing.
fn ident(probe: &mut Probe, change: impl FnOnce(&mut ClientIdent)) {
    let mut ident = ClientIdent::of(probe);
    change(&mut ident);
    probe.send(tag::CLIENT_IDENT, &ident.write());
}

#[test]
fn c28_a_client_without_a_required_feature_is_told_and_may_try_again() {
    at_a_server(|probe| {
        ident(probe.sign(), |ident| ident.supported &= !ADDR2);
        let missing = probe.expect(tag::IDENT_MISSING_FEATURES);
        assert_eq!(In(&missing).u64(), 0x0800_0000_0000_0000);
        probe.stays_open();
        ident(probe, |_| ());
        probe.expect(tag::SERVER_IDENT);
        probe.is_answered();
    });
}

/// As of a monitor that has pools.
#[test]
fn c28_it_is_told_all_that_is_required_and_not_offered() {
    let required = 0x0c01_0200_4204_0000;
    at_a_server(|probe| {
        probe.host().require(required);
        let mut probe = Probe::connect(&probe.host.clone(), probe.manner);
        ident(probe.sign(), |ident| ident.supported = ADDR2);
        let missing = probe.expect(tag::IDENT_MISSING_FEATURES);
        assert_eq!(In(&missing).u64(), 0x0401_0200_4204_0000);
        probe.stays_open();
    });
}

#[test]
fn c29_what_a_client_requires_is_its_own_business() {
    at_a_server(|probe| {
        ident(probe.sign(), |ident| ident.required = ADDR2 | 1 << 63);
        probe.expect(tag::SERVER_IDENT);
        probe.is_answered();
    });
}

#[test]
fn c30_a_client_that_looks_for_another_one_is_closed() {
    let changes: [fn(&mut ClientIdent); 4] = [
        |ident| ident.target.nonce += 12345,
        |ident| ident.target.port += 1,
        |ident| ident.target.ip = [10, 0, 0, 7],
        |ident| ident.target.kind = 1,
    ];
    for change in changes {
        at_a_server(|probe| {
            ident(probe.sign(), change);
            probe.is_closed_for("wrong_target");
        });
    }
}

#[test]
fn c31_a_client_without_an_address_is_closed() {
    at_a_server(|probe| {
        ident(probe.sign(), |ident| ident.addrs.clear());
        probe.is_closed_for("blank_addrs");
    });
    at_a_server(|probe| {
        ident(probe.sign(), |ident| ident.addrs[0].ip = [0; 4]);
        probe.is_closed_for("blank_addrs");
    });
}

#[test]
fn c32_a_server_of_lossy_sessions_says_so_whatever_the_client_asks_for() {
    at_a_server(|probe| {
        ident(probe.sign(), |ident| {
            ident.flags = 0;
            ident.cookie = 0x1122_3344_5566_7788;
        });
        let answer = ServerIdent::read(&probe.expect(tag::SERVER_IDENT));
        assert_eq!((answer.flags, answer.cookie), (1, 0));
        assert_eq!((answer.addrs, answer.number), (vec![HERE], 1));
        assert_eq!((answer.supported, answer.required), (FEATURES, ADDR2));
        assert_eq!(probe.slot().session.peer().name.unwrap().to_string(), "client.4242");
    });
}
