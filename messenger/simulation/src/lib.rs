//! Whole messengers over a simulated network: one thread, one virtual clock, one seed.
//!
//! ```text
//!   seed -> Plan: cast, tuning, what happens when
//!             |
//!             v
//!   World:  Host                Host                Host       each a process with its NIC
//!             Application         Application         Application
//!             Messenger           Messenger           Messenger      the real ones,
//!             WorkerLoop x 1..2   WorkerLoop x 1..2   ...            turned by hand
//!             NativeWorker        NativeWorker
//!             SimDevice --------- SimNet ------------ SimDevice      delay, loss, cuts, ...
//!             |                     |
//!             v                     v
//!   History: every send, delivery and reset, checked as it happens
//! ```
//!
//! A run has two phases. First everything goes wrong that the plan says; nothing may be delivered
//! twice, out of order, damaged, or after its connection's reset. Then everything heals, and what
//! was not excused by a reset has to arrive within [`DRAINED_WITHIN`]; at the end no connection,
//! buffer, timer or budget may be left in use.
//!
//! The clock jumps from one thing that is due to the next. The same seed gives the same run, to
//! the last event: [`Report::hash`] is over all of them.
#![forbid(unsafe_code)]

mod application;
mod cast;
mod history;
mod host;
mod label;
mod plan;
mod run;
mod sweep;
mod world;

pub use application::{Application, Parcel};
pub use cast::{Cast, Member};
pub use history::{Event, History, Tally, Wish};
pub use host::{Host, Process, Tuning};
pub use label::{Label, Lane, StreamId};
pub use plan::{Action, Plan};
pub use run::{Failure, Report, run, run_plan};
pub use sweep::{Sweep, sweep};
pub use world::{DRAINED_WITHIN, World};

pub use netstack::device::sim::{Faults, Spread};

/// Which host of a world.
pub type HostId = usize;
/// Which run of a host's process, unique in its world.
pub type Life = u32;
