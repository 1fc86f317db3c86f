//! The snapshot of a messenger: what traffic leaves in it, and that the page of counters tells all.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use common::{Posix, Recorder, Saw, client, client_with, eventually, ping, send, server_with};
use messenger::{
    Config, EntityName, EntityType, Messenger, MessengerCounters, NamedCounters, OpThreads, Policy,
    Throttle,
};
use std::time::Duration;

mod common;

#[path = "../../netstack/tests/page/mod.rs"]
mod page;

fn counters() -> MessengerCounters {
    let config = Config { ms_async_op_threads: OpThreads::new(1).unwrap(), ..Config::default() };
    let messenger = Messenger::create(EntityName::new(EntityType::Osd, 0), config).unwrap();
    let budget = Some(Throttle::new("osd_client_bytes", 500 << 20));
    messenger.set_policy_throttlers(EntityType::Client, budget, None).unwrap();
    messenger.start().unwrap();
    let counters = messenger.counters();
    messenger.shutdown();
    messenger.wait().unwrap();
    counters
}

fn names(counters: &NamedCounters) -> Vec<&'static str> {
    counters.iter().map(|(name, _)| *name).collect()
}

#[test]
fn the_page_tells_every_counter_of_a_messenger() {
    let counters = counters();
    let sets: Vec<_> = counters.sets();
    let set_names: Vec<_> = sets.iter().map(|set| set.name.as_str()).collect();
    let expected = [
        "messenger",
        "dispatch_queue",
        "throttle-osd_client_bytes",
        "throttle-msgr_dispatch_throttler",
        "AsyncMessenger::Worker-0",
        "transport-0",
    ];
    assert_eq!(set_names, expected);
    page::assert_tells("messenger", &names(&sets[0].counters));
    page::assert_tells("dispatch_queue", &names(&sets[1].counters));
    page::assert_tells("throttle-NAME", &names(&sets[2].counters));
    page::assert_tells("throttle-NAME", &names(&sets[3].counters));
    page::assert_tells("AsyncMessenger::Worker-N", &names(&sets[4].counters));
    page::assert_tells("transport-N: posix", &names(&sets[5].counters));
    assert_eq!(counters.get("throttle-osd_client_bytes", "max"), Some(500 << 20));
}

#[test]
fn the_snapshot_serializes_as_sets_of_names() {
    let counters = counters();
    let json = serde_json::to_value(&counters).unwrap();
    assert_eq!(json["throttle-osd_client_bytes"]["max"], 500 << 20);
    assert!(json["AsyncMessenger::Worker-0"]["worker_turns"].is_u64());
    assert_eq!(json.as_object().unwrap().len(), counters.sets().len());
}

#[test]
fn traffic_leaves_its_traces_in_every_set() {
    // A worker for each, so that its counters are of one side.
    let [here, there] = [(); 2].map(|()| Posix::new("127.0.0.1", 1));
    let slow = Duration::from_millis(3);
    let hold = Recorder::queued().on_message(move |connection, message| {
        std::thread::sleep(slow);
        send(connection, ping(message.header.tid));
    });
    let config = common::config();
    let server = server_with(&there, hold, config.clone(), Policy::stateful_server());
    let taking = Recorder::fast().on_message(move |_, _| std::thread::sleep(slow));
    let client = client_with(&here, taking, config, Policy::lossless_client());
    let connection = client.connect(&server);
    for tid in 1..=3 {
        send(&connection, ping(tid).with_data(vec![1; 1000]));
    }
    for tid in 1..=3 {
        client.recorder.wait_for(&Saw::Fast(tid));
    }

    let counters = server.messenger.counters();
    let queue = |name| counters.get("dispatch_queue", name);
    assert_eq!((queue("queued_messages"), queue("wait_count")), (Some(3), Some(3)));
    // The third waited for the two before it.
    assert!(queue("wait_sum_us") >= Some(3_000), "{counters}");
    let budget = |name| counters.get("throttle-msgr_dispatch_throttler", name);
    assert_eq!((budget("get"), budget("get_sum")), (Some(3), Some(3_000)));
    eventually("all shares are back", || {
        let counters = server.messenger.counters();
        counters.get("throttle-msgr_dispatch_throttler", "put") == Some(3)
    });

    eventually("acknowledgements", || {
        let counters = client.messenger.counters();
        counters.total("msgr_ack_lat_count") == 3
    });
    let counters = client.messenger.counters();
    assert_eq!(counters.total("msgr_send_messages_queue_lat_count"), 3);
    let fast = counters.total("msgr_running_fast_dispatch_time_us");
    assert!(fast >= 9_000, "three callbacks of {slow:?}: {fast}");
    let parts = ["recv", "send", "fast_dispatch"]
        .map(|part| counters.total(&format!("msgr_running_{part}_time_us")));
    assert!(parts.iter().all(|part| *part > 0), "{parts:?}");
    let total = counters.total("msgr_running_total_time_us");
    // Each of them is rounded down.
    assert!(parts.iter().sum::<u64>() <= total + 3, "{parts:?} of {total}");
    assert!(counters.total("worker_wait_time_us") > 0);
    client.end();
    server.end();
}

#[test]
fn a_worker_that_sleeps_has_few_idle_turns() {
    let net = Posix::new("127.0.0.1", 1);
    let client = client(&net, Recorder::fast());
    for _ in 0..50 {
        client.messenger.counters();
    }
    let counters = client.messenger.counters();
    let worker = &counters.workers[0];
    assert!(worker.get("worker_commands") > 50);
    assert!(worker.idle_ratio() < 0.5, "{}", worker.idle_ratio());
    client.end();
}
