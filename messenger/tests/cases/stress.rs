//! #17 to #23: the synthetic workload in seven shapes.

use super::ceph_config;
use crate::common::{Net, PATIENCE};
use crate::synthetic::{Mix, Shape, Workload};
use messenger::{Config, Policy};
use std::time::Duration;

/// What a test does of what Ceph does, so that the suite takes less than a minute on two cores: half
/// of the operations (a tenth of #23's), a fiftieth of the delays, data up to 64 KiB. The soak
/// program leaves nothing out.
const SCALE: Scale = Scale { operations: 2, delays: 50, data_max: 64 << 10 };

struct Scale {
    operations: usize,
    delays: u32,
    data_max: usize,
}

/// Printed with a failure; another number, another sequence of operations.
const SEED: u64 = 17;

/// Most rounds of a case until the first fault.
const ROUNDS_MAX: usize = 20;

fn run(net: &impl Net, shape: Shape, number: u64) {
    let operations = shape.operations / SCALE.operations;
    let shape = Shape { operations, drain: PATIENCE, ..shape };
    let (seed, breaks) = (SEED + number, shape.server_config.ms_inject_socket_failures > 0);
    let mut workload = Workload::start(net, shape, seed).unwrap();
    // A rare fault may not come in one round; a case without any shows nothing.
    let mut outcome = workload.run(|| false);
    for _ in 1..ROUNDS_MAX {
        if outcome.is_err() || !breaks || workload.faults() > 0 {
            break;
        }
        outcome = workload.run(|| false);
    }
    let outcome = outcome.and_then(|()| {
        assert!(!breaks || workload.faults() > 0, "#{number}: nothing broke");
        workload.finish()
    });
    let totals = outcome.unwrap_or_else(|rule| panic!("#{number}, seed {seed}: {rule}"));
    assert_eq!(totals.pongs + totals.forgotten, totals.pings, "#{number}: {totals:?}");
}

fn stress(config: Config) -> Shape {
    Shape { data_max: SCALE.data_max, ..Shape::stress(config) }
}

fn stress_1(config: Config) -> Shape {
    Shape { data_max: SCALE.data_max, ..Shape::stress_1(config) }
}

/// Sockets that fail, and moments of rest where races lurk.
fn breaking(one_in: u64) -> Config {
    Config {
        ms_inject_socket_failures: one_in,
        ms_inject_internal_delays: Duration::from_millis(100) / SCALE.delays,
        ms_initial_backoff: Duration::from_millis(2),
        ms_max_backoff: Duration::from_millis(20),
        ..ceph_config()
    }
}

fn quick() -> Config {
    Config { ms_max_backoff: Duration::from_millis(100), ..ceph_config() }
}

/// SyntheticStressTest.
pub fn case_17_synthetic_stress(net: &impl Net) {
    run(net, stress(quick()), 17);
}

/// SyntheticStressTest1.
pub fn case_18_synthetic_stress_1(net: &impl Net) {
    run(net, stress_1(quick()), 18);
}

/// SyntheticInjectTest.
pub fn case_19_synthetic_inject(net: &impl Net) {
    let config = Config { ms_dispatch_throttle_bytes: 16 << 20, ..breaking(30) };
    run(net, Shape { operations: 1000, ..stress(config) }, 19);
}

/// SyntheticInjectTest2.
pub fn case_20_synthetic_inject_2(net: &impl Net) {
    let shape = stress(breaking(30)).between(Policy::lossless_peer_reuse());
    run(net, Shape { clients: 16, operations: 1000, ..shape }, 20);
}

/// SyntheticInjectTest3: nothing is promised but that it ends well.
pub fn case_21_synthetic_inject_3(net: &impl Net) {
    let shape = Shape {
        clients: 16,
        operations: 1000,
        server_policy: Policy::stateless_server(),
        client_policy: Policy::lossy_client(),
        ..stress(breaking(600))
    };
    run(net, shape, 21);
}

/// SyntheticInjectTest4: order is kept though everything is late.
pub fn case_22_synthetic_inject_4(net: &impl Net) {
    let config = Config {
        ms_inject_delay_type: String::from("client osd"),
        ms_inject_delay_probability: 1.0,
        ms_inject_delay_max: Duration::from_secs(5) / SCALE.delays,
        ..breaking(30)
    };
    let shape = Shape {
        servers: 16,
        operations: 1000,
        mix: Mix { connect: 4, drop: 0, sleep: 11 },
        ..stress(config).between(Policy::lossless_peer())
    };
    run(net, shape, 22);
}

/// SyntheticInjectTest5: messages of 6.8 MB that pile up because only one write in a hundred is
/// carried out, from the first message to the last: a running messenger's configuration stays as
/// it is.
pub fn case_23_synthetic_inject_5(net: &impl Net) {
    let config = Config { ms_inject_network_congestion: 100, ..quick() };
    let shape = Shape {
        servers: 1,
        clients: 8,
        seed_connections: 2,
        operations: 5000 / 20,
        mix: Mix { connect: 0, drop: 0, sleep: 0 },
        data_max: 6_800_000,
        ..Shape::stress(config)
    };
    run(net, shape, 23);
}
