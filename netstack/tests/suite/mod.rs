//! One conformance suite for every transport: what `netstack::stack` promises, tried from outside.
//!
//! A [`Lab`] builds the workers of one transport; the [`World`] drives them all from one thread,
//! turn by turn; a case is a function over the world. `conformance!` makes a test of every case
//! for one lab. Cases `case_29` to `case_37` port the network stack and file descriptor cases of Ceph's
//! messenger tests, by their numbers in that checklist; the others are named after the promise.
//!
//! Every case ends with all gauges at zero, and no case runs longer than the lab's limit.

#![expect(unreachable_pub, reason = "shared by test binaries, which export nothing")]
#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::IpCidr;

pub mod closing;
pub mod connecting;
pub mod readiness;
pub mod streaming;
pub mod stress;
mod world;

pub use world::{Ends, Lab, World};

/// One test per case and lab: `conformance!(name, lab expression)`.
macro_rules! conformance {
    ($module:ident, $lab:expr) => {
        mod $module {
            use super::*;
            conformance! { @cases $lab;
                connecting: case_29_simple case_30_connect_failed_refused case_30_connect_failed_unreachable case_31_listen
                    case_32_accept_and_close listeners_on_two_ports connect_from_a_bound_address
                    addresses_agree_on_both_ends a_foreign_address_cannot_be_listened_on
                    closing_before_the_connection_opened many_wait_in_the_backlog;
                streaming: case_33_complex gathers_arrive_in_order bytes_with_more_leave_at_the_flush
                    backpressure_ends_with_a_writable_edge both_directions_at_once
                    one_byte_at_a_time;
                closing: half_close_leaves_the_other_half sending_after_shutdown
                    the_end_comes_after_all_data an_abort_is_seen_as_a_reset
                    a_close_delivers_what_was_sent a_close_with_unread_input_delivers_too
                    both_ends_close_at_once waiting_connections_are_reset_with_their_listener;
                readiness: case_35_one_event_per_edge case_35_readiness_before_accept_is_kept
                    case_35_close_forgets case_35_slots_are_used_again case_36_stale_names_stay_silent
                    case_37_no_wake_up_is_lost;
                stress: case_34_stress;
            }
        }
    };
    (@cases $lab:expr; $($file:ident: $($case:ident)+;)+) => {
        $($(
            #[test]
            fn $case() {
                suite::World::run($lab, suite::$file::$case);
            }
        )+)+
    };
}
pub(crate) use conformance;

/// The version of IP a lab runs on.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    V4,
    V6,
}

/// The address of host `host` on the link of a lab of two stacks.
pub fn ip(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 99, 0, host).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

/// The same with the length of the link's prefix.
pub fn cidr(family: Family, host: u8) -> IpCidr {
    let prefix_len = match family {
        Family::V4 => 24,
        Family::V6 => 64,
    };
    IpCidr::new(ip(family, host).into(), prefix_len)
}

/// A seeded sequence of numbers (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

/// Bytes `start..start + len` of the endless stream named `stream`.
pub fn pattern(stream: usize, start: usize, len: usize) -> Vec<u8> {
    let byte = |at: usize| (at + (at >> 8) * 7 + (at >> 16) * 13 + stream * 31) as u8;
    (start..start + len).map(byte).collect()
}
