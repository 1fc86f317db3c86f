//! Ceph's messenger cases over our own TCP and a simulated cable.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod cases;
mod common;
mod synthetic;

cases!(one_worker, crate::common::sim::Sim::new(1));
cases!(over_msgr1, crate::common::OverV1(crate::common::sim::Sim::new(1)));
cases!(three_workers, crate::common::sim::Sim::new(3));
