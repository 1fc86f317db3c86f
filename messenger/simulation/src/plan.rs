//! What a seed stands for: who plays, with which settings, and what happens when.

use crate::HostId;
use crate::application::Parcel;
use crate::cast::Cast;
use crate::host::Tuning;
use draw::Draw;
use netstack::device::sim::Faults;
use std::time::Duration;

mod author;
mod draw;

/// One thing done to a world. Numbers of workers and picks are taken modulo what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A host sends some equal messages to another.
    Send {
        /// Who.
        from: HostId,
        /// To whom.
        to: HostId,
        /// How many.
        count: u32,
        /// What.
        parcel: Parcel,
    },
    /// What a host's port does to frames changes.
    Faults {
        /// Whose.
        host: HostId,
        /// From now on.
        faults: Faults,
    },
    /// A cable is pulled or plugged.
    Link {
        /// Whose.
        host: HostId,
        /// Plugged.
        up: bool,
    },
    /// One direction between two hosts is cut or joined.
    Blocked {
        /// Who is not heard.
        from: HostId,
        /// By whom.
        to: HostId,
        /// Cut.
        blocked: bool,
    },
    /// One TCP connection breaks.
    Break {
        /// Where it is noticed.
        host: HostId,
        /// On which worker.
        worker: usize,
        /// Which one.
        pick: u64,
    },
    /// A worker gets no CPU for a time.
    Freeze {
        /// Whose.
        host: HostId,
        /// Which.
        worker: usize,
        /// How long.
        time: Duration,
    },
    /// The dispatch threads get no CPU, or get it back.
    Stall {
        /// Whose.
        host: HostId,
        /// They get none.
        stalled: bool,
    },
    /// An application keeps the messages it takes, or lets them go.
    Hoard {
        /// Whose.
        host: HostId,
        /// It keeps them.
        hoards: bool,
    },
    /// A sign of life is asked for.
    Keepalive {
        /// By whom.
        host: HostId,
        /// On which connection.
        pick: u64,
    },
    /// A connection is given up.
    MarkDown {
        /// By whom.
        host: HostId,
        /// Which one.
        pick: u64,
        /// By its address, with a reset for the application; else silently.
        with_reset: bool,
    },
    /// A process ends.
    Stop {
        /// Whose.
        host: HostId,
    },
    /// A process starts, with a new nonce.
    Start {
        /// Where.
        host: HostId,
    },
    /// A host learns of another's present address.
    Tell {
        /// Who learns.
        host: HostId,
        /// Whose address.
        of: HostId,
    },
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// Who plays.
    pub cast: Cast,
    /// With which settings.
    pub tuning: Tuning,
    /// What happens, in order of time.
    pub actions: Vec<(Duration, Action)>,
}

impl Plan {
    /// The plan that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let cast = draw.cast();
        let tuning = draw.tuning(&cast);
        let mut actions = author::write(draw, &cast);
        actions.sort_by_key(|(at, _)| *at);
        Self { seed, cast, tuning, actions }
    }
}
