//! Lossless sessions with a real OSD whose transports break: what is said then, frame by frame, and
//! that every message arrives once. We are an OSD of the cluster's to it, for that is with whom it
//! keeps such sessions. Over kernel TCP, and over DPDK on a tap. Needs root and the package ceph-osd.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod cluster;
mod lab;
mod relay;

use cluster::{Cluster, Over};
use lab::inside;
use relay::scene::Stage;
use relay::scenes::SCENES;

#[test]
fn a_real_osd_goes_on_with_our_sessions() {
    let cluster = Cluster::start(1);
    let stages = [Over::KernelTcp, Over::Dpdk].map(|over| Stage::of(&cluster, over));
    let namespace = &cluster.namespace;
    inside(namespace, || {
        for stage in stages {
            let _keeper = stage.keep(namespace);
            stage.play(&SCENES);
        }
    });
}
