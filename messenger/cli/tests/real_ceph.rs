//! `msgr ceph` against a real Ceph: its monitor, its OSDs, and its own `rados` to compare with; over
//! kernel TCP, and over DPDK on a tap. Needs root and the packages ceph-mon and ceph-osd.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod cluster;
mod lab;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use cluster::member::{self, Member};
use cluster::{Cluster, Over, POOL};
use messenger::{EntityName, EntityType};
use messenger_ceph::OsdDump;
use serde_json::{Value, json};

/// Objects of one byte, of one page, and of many frames and segments.
const SIZES: [usize; 3] = [1, 4 << 10, LARGE];
const LARGE: usize = (3 << 20) + 1;

/// How long a monitor's tickets are good where a test waits for their end.
const TTL_SECONDS: &str = "2";

/// Bytes of which no two stretches are alike.
fn content(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn status_tells_fsid_and_health(cluster: &Cluster, over: Over) {
    let status = cluster.says(over, &["status"]);
    assert!(status.contains(&cluster.fsid) && status.contains("health: HEALTH_"), "{status}");
    let status = json(&cluster.says(over, &["--json", "status"]));
    assert_eq!(status["fsid"], cluster.fsid.as_str());
    assert!(status["health"]["status"].as_str().unwrap().starts_with("HEALTH_"), "{status}");
    assert_eq!(cluster.says(over, &["command", "fsid"]).trim(), cluster.fsid);
}

fn objects_are_the_same_to_rados_and_to_us(cluster: &Cluster, over: Over, sizes: &[usize]) {
    let (here, there) = (cluster.file("here"), cluster.file("there"));
    let (here_path, there_path) = (here.to_str().unwrap(), there.to_str().unwrap());
    for (seed, &size) in (7..).zip(sizes) {
        let (ours, theirs) = (format!("ours-{size}"), format!("theirs-{size}"));
        let bytes = content(size, seed);
        std::fs::write(&here, &bytes).unwrap();
        let done = json(&cluster.says(over, &["--json", "put", POOL, &ours, here_path]));
        assert_eq!(done["bytes"], size, "{done}");
        cluster.rados(&["get", &ours, there_path]);
        assert!(std::fs::read(&there).unwrap() == bytes, "rados got other bytes of {ours}");

        cluster.rados(&["put", &theirs, here_path]);
        let said = cluster.says(over, &["get", POOL, &theirs, there_path]);
        assert!(said.contains(&format!("{size} bytes")), "{said}");
        assert!(std::fs::read(&there).unwrap() == bytes, "we got other bytes of {theirs}");
    }
}

fn no_ping_is_lost(cluster: &Cluster, over: Over, count: u64) {
    let count_text = count.to_string();
    let report = json(&cluster.says(
        over,
        &["--json", "ping-osd", "0", "--interval", "0", "--depth", "8", "--count", &count_text],
    ));
    eprintln!("{over:?}: {report}");
    assert_eq!(report["sent"], count, "{report}");
    assert_eq!(report["messages"], count, "{report}");
    assert_eq!((&report["lost"], &report["sessions"]), (&0.into(), &1.into()), "{report}");
}

fn fails_with(out: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

fn failures_name_the_cause_and_the_way_out(cluster: &Cluster, over: Over) {
    let file = cluster.file("nothing");
    let path = file.to_str().unwrap();
    fails_with(
        &cluster.msgr(over, &["get", POOL, "nobody-put-it", path]),
        &["there is no object \"nobody-put-it\" in pool \"wire\"", "put wire nobody-put-it"],
    );
    assert!(!file.exists(), "a file without an object");
    fails_with(
        &cluster.msgr(over, &["get", "no-pool", "x", path]),
        &["there is no pool \"no-pool\"", "osd pool create"],
    );
    fails_with(&cluster.msgr(over, &["ping-osd", "7"]), &["there is no osd.7", "osd tree"]);
    fails_with(
        &cluster.msgr(over, &["command", "no such words"]),
        &["refused `no such words`", "get_command_descriptions"],
    );
}

fn nobody_else_is_let_in(cluster: &Cluster) {
    let denied = |id: &str, keyring: &Path, words: &[&str]| {
        cluster.configure(id, keyring, "secure");
        fails_with(&cluster.msgr(Over::KernelTcp, &["status"]), words);
    };
    let key = cluster.make_key("client.admin");
    denied("admin", &key, &["does not let client.admin in", "ceph auth get client.admin"]);
    let key = cluster.make_key("client.nobody");
    denied("nobody", &key, &["does not let client.nobody in"]);
    denied("nobody", &cluster.keyring(), &["it has no [client.nobody]", "set auth_id"]);
    let nowhere = cluster.file("no-keyring");
    denied("admin", &nowhere, &["no-keyring", "No such file"]);
    cluster.configure("admin", &cluster.keyring(), "secure");
}

/// From now on its monitor gives tickets that soon end.
fn shorten_tickets(cluster: &Cluster) {
    let name = "auth_service_ticket_ttl";
    let set = json!({ "prefix": "config set", "who": "mon", "name": name, "value": TTL_SECONDS });
    cluster.command(set);
}

/// A client of ours outlives the tickets it logged in with; a service of ours has its secrets from the
/// monitor, and opens the client's tickets, old and new, with them.
fn tickets_and_secrets_of_its_monitor_stay_good(cluster: &Cluster) {
    let (id, all) = (EntityName::new(EntityType::Osd, 7), ["mon", "allow *", "osd", "allow *"]);
    let keyring = json!({ "prefix": "auth get-or-create", "entity": id.to_string(), "caps": all });
    let service_key = cluster.file("service-keyring");
    std::fs::write(&service_key, cluster.command(keyring)).unwrap();
    shorten_tickets(cluster);
    let dump = cluster.command(json!({ "prefix": "osd dump", "format": "json" }));
    let theirs = OsdDump::parse(dump.as_bytes()).unwrap().osds[0].public_addrs.clone();
    let admin_key = cluster.keyring();
    cluster.inside(|| {
        let service = Member::log_in(id, &service_key);
        assert!(service.rotating().due_at() > Some(member::now()), "three secrets, one current");
        let ours = service.messenger.addrs();
        let unnumbered = EntityName::new(EntityType::Client, EntityName::UNNUMBERED);
        let mut client = Member::log_in(unnumbered, &admin_key);
        let ends_at = |client: &Member| client.tickets().get(EntityType::Osd).unwrap().expires();
        let (first_end, number) = (ends_at(&client), client.tickets().global_id());
        assert!(first_end <= member::now() + Duration::from_secs(TTL_SECONDS.parse().unwrap()));
        for _ in 0..2 {
            let connection = client.open(EntityType::Osd, &ours);
            client.ping(&connection);
            client.open(EntityType::Osd, &theirs).mark_down();
            client.keep_until(first_end + Duration::from_millis(100));
        }
        assert!(client.asked >= 1 && ends_at(&client) > first_end);
        assert_eq!(client.tickets().global_id(), number);
        client.end();
        service.end();
    });
}

#[test]
fn a_real_cluster_is_asked_over_kernel_tcp() {
    let mut cluster = Cluster::start(2);
    status_tells_fsid_and_health(&cluster, Over::KernelTcp);
    objects_are_the_same_to_rados_and_to_us(&cluster, Over::KernelTcp, &SIZES);
    no_ping_is_lost(&cluster, Over::KernelTcp, 10_000);
    failures_name_the_cause_and_the_way_out(&cluster, Over::KernelTcp);
    all_the_same_over_msgr1(cluster.over_msgr1(), Over::KernelTcp, 10_000);
}

fn all_the_same_over_msgr1(cluster: &Cluster, over: Over, pings: u64) {
    status_tells_fsid_and_health(cluster, over);
    objects_are_the_same_to_rados_and_to_us(cluster, over, &SIZES);
    no_ping_is_lost(cluster, over, pings);
}

#[test]
fn a_real_cluster_is_asked_over_dpdk() {
    let mut cluster = Cluster::start(1);
    status_tells_fsid_and_health(&cluster, Over::Dpdk);
    objects_are_the_same_to_rados_and_to_us(&cluster, Over::Dpdk, &SIZES);
    no_ping_is_lost(&cluster, Over::Dpdk, 10_000);
    all_the_same_over_msgr1(cluster.over_msgr1(), Over::Dpdk, 10_000);
}

#[test]
fn a_real_cluster_with_cephx_is_asked_in_both_modes() {
    let mut cluster = Cluster::start_with_cephx(1);
    for (mode, sizes) in [("secure", SIZES.as_slice()), ("crc", &[LARGE])] {
        cluster.configure("admin", &cluster.keyring(), mode);
        for over in [Over::KernelTcp, Over::Dpdk] {
            status_tells_fsid_and_health(&cluster, over);
            objects_are_the_same_to_rados_and_to_us(&cluster, over, sizes);
            no_ping_is_lost(&cluster, over, 1_000);
        }
    }
    nobody_else_is_let_in(&cluster);
    tickets_and_secrets_of_its_monitor_stay_good(&cluster);
    // Over msgr1 messages are signed, not sealed, and who insists on more is not talked to.
    let cluster = cluster.over_msgr1();
    fails_with(
        &cluster.msgr(Over::KernelTcp, &["status"]),
        &["msgr1 encrypts nothing", "ms_mon_client_mode"],
    );
    cluster.configure("admin", &cluster.keyring(), "crc");
    for over in [Over::KernelTcp, Over::Dpdk] {
        all_the_same_over_msgr1(cluster, over, 1_000);
    }
}

#[test]
fn an_osd_may_restart_under_a_request_and_crash_under_pings() {
    let mut cluster = Cluster::start_with_cephx(1);
    shorten_tickets(&cluster); // those of the first session have ended before the second one begins
    let (here, there) = (cluster.file("here"), cluster.file("there"));
    let bytes = content(4 << 10, 3);
    std::fs::write(&here, &bytes).unwrap();
    cluster.says(Over::KernelTcp, &["put", POOL, "x", here.to_str().unwrap()]);

    cluster.stop_osd(0, false);
    let get = cluster.spawn(Over::KernelTcp, &["get", POOL, "x", there.to_str().unwrap()]);
    cluster.start_osd(0);
    let out = get.wait_with_output().unwrap();
    assert!(out.status.success(), "the request waits for the OSD: {out:?}");
    assert!(std::fs::read(&there).unwrap() == bytes);

    for (over, msgr1) in [(Over::KernelTcp, false), (Over::Dpdk, false), (Over::Dpdk, true)] {
        if msgr1 {
            let cluster = cluster.over_msgr1();
            cluster.configure("admin", &cluster.keyring(), "crc");
        }
        let log = ["--log", "msgr=info", "--json"];
        let args = ["ping-osd", "0", "--interval", "5", "--count", "500"];
        let mut pings = cluster.spawn(over, &[log.as_slice(), args.as_slice()].concat());
        // Kept until the end, for more is said.
        let mut log = BufReader::new(pings.stderr.take().unwrap()).lines();
        let stands = log.any(|line| line.unwrap().contains("session stands"));
        assert!(stands, "{over:?}: {:?}", pings.wait_with_output());
        std::thread::sleep(Duration::from_secs(1));
        cluster.stop_osd(0, true);
        cluster.start_osd(0);
        let out = pings.wait_with_output().unwrap();
        assert!(out.status.success(), "{over:?}: {out:?}");
        let report = json(&String::from_utf8(out.stdout).unwrap());
        eprintln!("{over:?}, msgr1 {msgr1}, killed in the middle: {report}");
        assert!(report["sessions"].as_u64() >= Some(2), "one session before, one after: {report}");
        let (answered, lost) = (report["messages"].as_u64().unwrap(), report["lost"].as_u64());
        assert!(lost <= Some(1), "at most the one under way: {report}");
        assert_eq!(answered + lost.unwrap(), 500, "{report}");
    }
}
