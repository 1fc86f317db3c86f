//! Ceph's messenger cases over kernel TCP.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod cases;
mod common;
mod synthetic;

cases!(one_worker, crate::common::Posix::between(["127.0.0.1", "127.0.0.2"], 1));
cases!(
    over_msgr1,
    crate::common::OverV1(crate::common::Posix::between(["127.0.0.1", "127.0.0.2"], 1))
);
cases!(four_workers, crate::common::Posix::between(["127.0.0.1", "127.0.0.2"], 4));
