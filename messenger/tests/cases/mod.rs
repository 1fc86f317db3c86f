//! Ceph's messenger cases (src/test/msgr/test_msgr.cc) against our messenger, on any [`Net`].
//!
//! A case is named after its number in the porting checklist, and its assertions by theirs. As in
//! Ceph the base is: S, an OSD that serves stateless clients; C, a lossy client; authentication
//! none; messages that were received before are deadly. Where Ceph sleeps, a condition is awaited.

#![allow(dead_code, unreachable_pub, reason = "shared by test targets")]

pub mod life;
pub mod markdown;
pub mod races;
pub mod sessions;
pub mod stress;

use crate::common::steps::Steps;
use crate::common::{Host, Listens, Net, Plan, Recorder, Saw, config, ping, send, tally};
use messenger::{Config, Connection, Policy};
use std::time::Duration;

/// The base of Ceph's cases. Who loses a race waits the longest backoff for the winner: even on a
/// busy machine it must not dial meanwhile.
pub fn ceph_config() -> Config {
    Config {
        ms_die_on_old_message: true,
        ms_die_on_bad_msg: true,
        ms_max_backoff: Duration::from_secs(10),
        ..config()
    }
}

/// Answers pings on the worker and counts them in their connections.
pub fn answering() -> Recorder {
    Recorder::fast().tallying().echoing()
}

/// Counts pings in their connections.
pub fn counting() -> Recorder {
    Recorder::fast().tallying()
}

/// S with its steps watched.
pub fn server(net: &impl Net, recorder: Recorder, policy: Policy) -> (Host, Steps) {
    let steps = Steps::default();
    let plan = Plan::server(recorder, policy);
    let nonce = Some(1);
    (Plan { steps: Some(&steps), config: ceph_config(), nonce, ..plan }.start(net), steps)
}

/// C with its steps watched; it cannot be dialled.
pub fn client(net: &impl Net, recorder: Recorder, policy: Policy) -> (Host, Steps) {
    let steps = Steps::default();
    let plan = Plan::client(recorder, policy);
    (Plan { steps: Some(&steps), config: ceph_config(), ..plan }.start(net), steps)
}

/// C with an address above S's, so that S wins races.
pub fn bound_client(net: &impl Net, recorder: Recorder, policy: Policy) -> (Host, Steps) {
    let steps = Steps::default();
    let plan = Plan::client(recorder, policy);
    let (listens, nonce) = (Listens::One, Some(2));
    let plan = Plan { steps: Some(&steps), config: ceph_config(), listens, nonce, ..plan };
    (plan.start(net), steps)
}

/// Pings, and blocks until the session's next answer is there.
pub fn round_trip(host: &Host, connection: &Connection, tid: u64) {
    send(connection, ping(tid));
    host.recorder.wait_for_on(connection, &Saw::Fast(tid), 1);
}

/// Ends both, the client first.
pub fn end(client: &Host, server: &Host) {
    client.end();
    server.end();
}

/// One message came to this connection since its session began.
#[track_caller]
pub fn assert_one(connection: &Connection, id: &str) {
    assert!(connection.is_connected(), "{id}: {connection} is connected");
    assert_eq!(tally(connection), 1, "{id}: messages of {connection}");
}

/// A module of tests: every case on the net that the expression makes.
#[macro_export]
macro_rules! cases {
    ($module:ident, $net:expr) => {
        mod $module {
            use $crate::cases::{life::*, markdown::*, races::*, sessions::*, stress::*};
            $crate::cases!(
                @ $net;
                case_01_connection_race,
                case_02_connection_race_reuse_banner,
                case_03_missing_server_ident,
                case_04_missing_server_ident_2,
                case_05_reconnect,
                case_06_reconnect_race,
                case_07_simple,
                case_08_simple_msgr2,
                case_09_feature,
                case_10_timeout,
                case_11_stateful,
                case_12_stateless,
                case_13_anonymous,
                case_14_client_standby,
                case_15_auth,
                case_16_message,
                case_17_synthetic_stress,
                case_18_synthetic_stress_1,
                case_19_synthetic_inject,
                case_20_synthetic_inject_2,
                case_21_synthetic_inject_3,
                case_22_synthetic_inject_4,
                case_23_synthetic_inject_5,
                case_24_markdown,
            );
        }
    };
    (@ $net:expr; $($case:ident),* $(,)?) => {
        mod on {
            $(#[test]
            fn $case() {
                super::$case(&$net);
            })*
        }
    };
}
