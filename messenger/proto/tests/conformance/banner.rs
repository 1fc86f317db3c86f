//! Cases 1 to 4: the banner.

use crate::bytes::Out;
use crate::host::HERE;
use crate::probe::{Manner, Probe, Role, banner, before_authentication};
use crate::wire::{Rev, tag};

const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// A banner that another one than ours should not survive.
fn refused(bytes: &[u8], kind: &str) {
    for role in ROLES {
        let mut probe = Probe::new(role, Manner::PLAIN);
        probe.say(bytes).hear_banner().is_closed_for(kind);
    }
}

#[test]
fn c01_garbage_gets_our_banner_and_a_close() {
    refused(b"GET / HTTP/1.1\r\n\r\n", "bad_banner");
    refused(&[0; 64], "bad_banner");
}

#[test]
fn c01_a_banner_of_msgr1_gets_our_banner_and_a_close() {
    refused(&Out::new().raw(b"ceph v027").zeros(20).0, "bad_banner");
}

#[test]
fn c02_a_banner_that_requires_an_unknown_feature_is_refused() {
    refused(&banner(16, 1 << 40 | 1, 1 << 40), "banner_features");
    // Bit 1 is compression, which was not turned on here.
    refused(&banner(16, 3, 2), "banner_features");
}

#[test]
fn c03_a_banner_with_too_short_a_payload_is_refused() {
    refused(&Out::new().raw(b"ceph v2\n").u16(8).u64(1).0, "banner_len");
    refused(&Out::new().raw(b"ceph v2\n").u16(0).0, "banner_len");
}

#[test]
fn c04_a_longer_banner_is_taken_and_what_is_new_in_it_ignored() {
    before_authentication(|probe| {
        let supported = u64::from(probe.manner.rev == Rev::One);
        let mut long = Out(banner(40, supported, 0)).zeros(24).0;
        long[30] = 0xaa;
        probe.say(&long).hear_banner();
        probe.expect(tag::HELLO);
        let kind = if probe.role == Role::Server { 8 } else { 4 };
        let hello = Out::new().u8(kind).addr(HERE).0;
        probe.send(tag::HELLO, &hello);
        assert!(probe.is_open());
    });
}

/// Ceph allocates what a banner announces, up to 64 KiB; ours stops at 4 KiB.
#[test]
fn c04_a_banner_beyond_our_limit_is_refused_before_its_payload() {
    refused(&Out::new().raw(b"ceph v2\n").u16(4097).0, "banner_len");
}
