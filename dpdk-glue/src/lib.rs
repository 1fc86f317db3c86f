//! DPDK as owned values: whoever holds a queue may burst on it, and dropping things in any order
//! takes the port down in the right one.
//!
//! ```text
//!   Eal  <--- Mempool <--- Port <--- RxQueue, TxQueue        ("A <--- B": B keeps A alive)
//!    ^           ^                       |   ^
//!    |           +------ Mbuf ---------- recv, send          one thread each, no locks
//!    +--- registered threads
//! ```
//!
//! * [`Eal`] is the proof that DPDK runs in this process: once, ever. Its last owner cleans up.
//! * [`Mempool`] lends [`Mbuf`]s, each one packet in one buffer, returned by dropping it anywhere.
//! * [`Port`] is a started device. It is found by name or plugged in from a [`Vdev`], asks the
//!   driver only for what the driver offers, and comes back by itself when the other end of a
//!   software link dies and returns.
//! * [`RxQueue`] and [`TxQueue`] are `Send` but not `Sync`: bursts of at most [`BURST_MAX`].
//!
//! All `unsafe` of the workspace is in this crate and `dpdk-sys` below it. No raw pointer crosses
//! the public interface; every type states the invariant its blocks lean on. What DPDK logs goes
//! to `tracing` under the target `dpdk`, and its last complaints are quoted in our errors.
//!
//! What is absent on purpose: secondary processes, interrupts, flow rules, hardware time stamps,
//! send offloads (full checksums are on every wire), frames that span buffers.

mod device;
mod eal;
mod error;
mod gate;
mod log;
mod mbuf;
mod mempool;
mod port;
mod proof;
mod queue;
mod signals;
mod vdev;
mod watch;

pub use eal::{Eal, EalOptions, LogLevel, MemoryMode};
pub use error::{Cause, Error};
pub use mbuf::{BURST_MAX, Burst, Checksum, Mbuf, free_burst};
pub use mempool::{Mempool, PoolConfig};
pub use port::{Port, PortConfig, PortInfo, PortSource, PortStats, Rss};
pub use proof::Proof;
pub use queue::{Chains, QueuePair, RxQueue, TxQueue};
pub use vdev::Vdev;
