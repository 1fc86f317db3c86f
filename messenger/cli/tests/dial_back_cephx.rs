//! Lossless sessions with a real OSD whose transports break, under cephx: each side proves anew who it
//! is on each transport. In crc mode frame by frame through a relay, as without cephx; in secure mode,
//! where no relay can read, by what our session and our application see. Over kernel TCP, and over
//! DPDK on a tap. Needs root and the package ceph-osd.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod cluster;
mod lab;
mod relay;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cluster::member::Member;
use cluster::{Cluster, Over};
use lab::inside;
use messenger::{Action, Step};
use relay::scene::{News, OURS, PORTS, Stage, Us};
use relay::scenes::SCENES;
use serde_json::json;

/// Commands that the OSD answers.
const COMMANDS: u64 = 5;
/// Which of the answers gets lost.
const LOST: usize = 3;

/// A key of ours in a file, which opens everything.
fn our_key(cluster: &Cluster) -> PathBuf {
    let caps = ["mon", "allow *", "osd", "allow *"];
    let entity = OURS.to_string();
    let get = json!({ "prefix": "auth get-or-create", "entity": entity, "caps": caps });
    let file = cluster.file("our-keyring");
    std::fs::write(&file, cluster.command(get)).unwrap();
    file
}

/// The transport breaks with an answer that has arrived and does not count yet. Our own dials break
/// before they ask to go on, so it is the OSD that mends the session, in secure mode too.
fn the_osd_dials_back_in_secure_mode(stage: &Stage) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&steps);
    let us = stage.directly(PORTS - 1, move |_, step| {
        let mut taken = taken.lock().unwrap();
        taken.push(step);
        let answers = taken.iter().filter(|taken| **taken == Step::MessageDecoded).count();
        match step {
            Step::Reconnect => Action::Fail,
            Step::MessageDecoded if answers == LOST => Action::Fail,
            _ => Action::Continue,
        }
    });
    let before = received(&us);
    (1..=COMMANDS).for_each(|tid| us.ask(tid));
    (1..=COMMANDS).for_each(|tid| us.hears(News::Answer(tid)));
    us.hears_no_more();
    let steps = steps.lock().unwrap();
    let count = |step| steps.iter().filter(|taken| **taken == step).count();
    assert_eq!(count(Step::MessageDecoded) as u64, COMMANDS + 1, "one came again: {steps:?}");
    assert_eq!((count(Step::ReconnectOk), count(Step::ClientIdent)), (1, 1), "{steps:?}");
    let [all, sealed] = [0, 1].map(|count| received(&us)[count] - before[count]);
    assert!(sealed > all / 2, "{sealed} of {all} bytes came sealed");
}

/// Bytes that our workers received, and how many of them sealed.
fn received(us: &Us) -> [u64; 2] {
    let counters = us.messenger.counters();
    ["msgr_recv_bytes", "msgr_recv_encrypted_bytes"].map(|name| counters.total(name))
}

#[test]
fn a_real_osd_goes_on_with_our_sessions_under_cephx() {
    let cluster = Cluster::start_with_cephx(1);
    let key = our_key(&cluster);
    let namespace = &cluster.namespace;
    let stages = [Over::KernelTcp, Over::Dpdk].map(|over| Stage::of(&cluster, over));
    inside(namespace, || {
        let secure = "ms_cluster_mode = \"secure\"\n";
        let [in_crc, in_secure] = ["", secure].map(|more| Member::log_in_with(OURS, &key, more));
        for stage in stages {
            let _keeper = stage.keep(namespace);
            let stage = stage.with_auth(in_crc.messenger.auth());
            stage.play(&SCENES);
            the_osd_dials_back_in_secure_mode(&stage.with_auth(in_secure.messenger.auth()));
        }
        in_crc.end();
        in_secure.end();
    });
}
