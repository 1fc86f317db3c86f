//! Hugepages in three steps: read what the kernel has, plan what to change, carry it out and look.
//!
//! ```text
//!   inventory, holders, host      plan, check            apply             report, table
//!   sysfs and procfs         ->   pure decisions    ->   write, mount  ->  tables and JSON
//!   under one root directory      with reasons           and read back     for people, programs
//! ```
//!
//! Only [`apply`] changes anything, and only through one function that its caller passes in, so the
//! tests stand a pretending kernel in its place. Everything is read below a [`root::Root`], which
//! is `/` in earnest and a made-up directory in tests. Nothing here knows DPDK, and nothing else in
//! the workspace knows this crate.

#![forbid(unsafe_code)]

pub mod error;
pub mod size;

pub mod root;

pub mod holders;
pub mod host;
pub mod inventory;
pub mod mounts;
pub mod names;

pub mod check;
pub mod plan;

pub mod apply;

pub mod report;
pub mod table;
