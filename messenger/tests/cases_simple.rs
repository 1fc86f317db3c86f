//! Ceph's messenger cases over kernel TCP with two threads for each connection.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod cases;
mod common;
mod synthetic;

cases!(simple, crate::common::Simple::between(["127.0.0.1", "127.0.0.2"]));
