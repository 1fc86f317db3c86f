//! Ceph's synthetic workload (#17 to #23): many messengers, random operations, and what must hold
//! whatever breaks. Deterministic in its choices by a seed, not in what the threads make of them.
//!
//! ```text
//!   Shape     who there is, how they are set up, what is done to them
//!   Workload  does it: connects, drops, sends, sleeps, drains, ends
//!   Ledger    knows what is outstanding, and so what may come back: the invariants
//!   Party     the dispatcher of every messenger: answers pings, shows pongs to the ledger
//! ```
//!
//! The invariants have the numbers of the porting checklist: .1 a pong is the answer to the oldest
//! ping outstanding on its connection; .2 its data is what was sent; .3 at most so many are
//! outstanding; .4 one in 20 sends is of another type and priority; .5 sizes are random, from
//! precomputed data; .6 a dropped connection is marked down, between peers at both ends; .7 in the
//! end everything drains; .8 no messenger has anything queued when it ends.

#![allow(dead_code, unreachable_pub, reason = "shared by test targets and the soak program")]

mod ledger;
mod party;
mod shape;
mod workload;

#[allow(unused_imports, reason = "for the soak program")]
pub use ledger::Totals;
pub use shape::{Dispatching, Mix, Shape};
pub use workload::Workload;
