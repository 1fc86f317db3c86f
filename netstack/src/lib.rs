//! TCP for poll-mode workers, and the kernel's TCP behind the same traits.
//!
//! ```text
//!   stack    the seam: workers, sockets, readiness     knows no packets
//!     posix    the kernel's sockets                    knows no packets
//!     native   our own TCP, one worker per queue       knows no device
//!       conn, listen, time_wait, flow, wheel, ports    a worker's tables
//!       guard    strangers: what they may not do, and not guess
//!       recovery losses, and how much is on its way    sends nothing itself
//!       clock    time as smoltcp and the wheel see it
//!       steer    frames that arrived at a sibling      the only thing workers share
//!       phy      smoltcp's interface                   the only TCP state machine
//!   front    Ethernet, ARP, ND, ICMP, checks           knows no connections
//!   device   bursts of frames: DPDK, simulated, pcap   knows no protocol
//! ```
//!
//! Nothing here knows what the bytes of a connection mean.
#![forbid(unsafe_code)]

pub mod device;
pub mod front;
pub mod native;
pub mod posix;
pub mod stack;

mod clock;
mod conn;
mod flow;
mod guard;
mod icmp;
mod l2;
mod listen;
mod neighbor;
mod phy;
mod ports;
mod recovery;
mod steer;
mod time_wait;
mod wheel;

/// An address of ours with the length of its network's prefix.
pub use smoltcp::wire::IpCidr;
