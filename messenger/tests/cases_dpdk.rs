//! Ceph's messenger cases over our own TCP and DPDK's software devices. The cases share the ports
//! and take turns.

#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod cases;
mod common;
mod synthetic;

cases!(over_msgr1, crate::common::OverV1(crate::common::dpdk::Dpdk::borrow()));
cases!(two_workers, crate::common::dpdk::Dpdk::borrow());
