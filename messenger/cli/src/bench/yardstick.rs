//! The yardstick: the same load as bare frames over kernel TCP, without a messenger.
//!
//! Frames have the shape of msgr2's in crc mode, and each checksum is computed by the sender and
//! checked by the receiver; there are no sessions, acknowledgements, throttles or dispatchers. One
//! thread an end, which sleeps in epoll or spins.

mod client;
mod frame;
mod link;
mod server;

pub(crate) use client::Client;
pub(crate) use server::Server;

use clap::ValueEnum;

/// What an end does while nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Waiting {
    /// Sleep until the kernel wakes it
    Epoll,
    /// Look again at once
    Spin,
}

impl Waiting {
    /// The transport's name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Epoll => "kernel-epoll",
            Self::Spin => "kernel-spin",
        }
    }
}
