//! What a native stack is made with.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use smoltcp::wire::{IPV4_HEADER_LEN, IpCidr, TCP_HEADER_LEN};

use super::IdlePolicy;
use crate::clock::Clock;
use crate::conn::{BUFFER_MIN, SocketOptions, rx_capacity};
use crate::device::DeviceInfo;
use crate::front::{FrontConfig, NeighborTimers};
use crate::recovery::{RTO_MIN, RecoveryOptions};
use crate::wheel::TICK;

/// Smallest MTU a device may have: what every IPv4 host takes (RFC 791 section 3.1).
pub const MTU_MIN: usize = 576;

/// Most connections, and most flows in TIME-WAIT, of a worker.
pub const FLOWS_MAX: usize = 1 << 24;

/// A keep-alive probe is sent this many times in a user timeout if nothing else is said.
const PROBES_PER_USER_TIMEOUT: u32 = 3;

/// smoltcp's shortest retransmission timeout.
const SMOLTCP_RTO_MIN: Duration = Duration::from_secs(1);

/// What a [`NativeStack`](super::NativeStack) is made with. All limits are per worker.
#[derive(Clone, Debug)]
pub struct NativeConfig {
    /// Our addresses with the prefixes of their links.
    pub addrs: Vec<IpCidr>,
    /// Where IPv4 packets for other links go.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Where IPv6 packets for other links go.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Tag every frame for this 802.1Q VLAN.
    pub vlan: Option<u16>,
    /// How neighbours are asked for and how long they are trusted.
    pub neighbor: NeighborTimers,
    /// Receive buffer of a connection, which is also the largest window it offers. From 64 KiB
    /// on it is rounded down to 2^k - 1 bytes.
    pub rx_buffer_bytes: usize,
    /// Send buffer of a connection.
    pub tx_buffer_bytes: usize,
    /// Most connections, those included that are being opened or closed; at most [`FLOWS_MAX`].
    pub max_connections: usize,
    /// Most flows in TIME-WAIT, at most [`FLOWS_MAX`]; the oldest gives way to a new one.
    pub max_time_wait: usize,
    /// An idle connection's peer is probed this often. `None` with a `user_timeout`: every third
    /// of that, since otherwise the timeout would end idle connections.
    pub keepalive: Option<Duration>,
    /// A peer that says nothing for this long, though it should, is given up. `None`: never.
    pub user_timeout: Option<Duration>,
    /// Longest time a connection takes to open.
    pub connect_timeout: Duration,
    /// Longest time a peer takes to complete a handshake it began.
    pub half_open_timeout: Duration,
    /// Longest time a closed connection goes on delivering what was sent on it; then it is reset.
    pub linger: Duration,
    /// How long a flow stays in TIME-WAIT.
    pub time_wait: Duration,
    /// How many times faster than the real clock the TCP timers run. The shortest retransmission
    /// timeout is one second divided by this, and at least 5 ms; it should not be below the
    /// longest delay of acknowledgements among our peers: 5 (200 ms) suits all, 200 (5 ms) peers
    /// with this stack, which acknowledge at once.
    pub clock_multiplier: u32,
    /// What keeps a sender from overrunning the network.
    pub congestion: Congestion,
    /// Local ports for connections we open.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// Makes all random choices repeatable. `None`: from the operating system.
    pub seed: Option<u64>,
    /// What a worker does when there is nothing to do.
    pub idle: IdlePolicy,
}

impl Default for NativeConfig {
    fn default() -> Self {
        Self {
            addrs: Vec::new(),
            gateway_v4: None,
            gateway_v6: None,
            vlan: None,
            neighbor: NeighborTimers::default(),
            rx_buffer_bytes: 65_535,
            tx_buffer_bytes: 65_536,
            max_connections: 16_384,
            max_time_wait: 16_384,
            keepalive: None,
            user_timeout: Some(Duration::from_secs(60)),
            connect_timeout: Duration::from_secs(10),
            half_open_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(30),
            time_wait: Duration::from_secs(10),
            clock_multiplier: 5,
            congestion: Congestion::default(),
            ephemeral_ports: 32_768..=60_999,
            seed: None,
            idle: IdlePolicy::Yield,
        }
    }
}

/// What keeps a sender from overrunning the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Congestion {
    /// Only the peer's window. For links that never lose a frame: what is lost is sent again, but
    /// nothing keeps a sender from overrunning a queue again and again.
    None,
    /// NewReno (RFC 5681, RFC 6582): half the window for each loss.
    Reno,
    /// CUBIC (RFC 9438), which keeps what the path holds without a queue when something is lost:
    /// for networks that lose frames without being full, too.
    #[default]
    Cubic,
}

impl NativeConfig {
    /// Finds what no worker could live with.
    pub(super) fn check(&self) -> io::Result<()> {
        let fault = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if self.max_connections > FLOWS_MAX || self.max_time_wait > FLOWS_MAX {
            return fault(format!("more than {FLOWS_MAX} connections or flows in TIME-WAIT"));
        }
        let ports = &self.ephemeral_ports;
        if ports.is_empty() || *ports.start() == 0 {
            return fault(format!("{ports:?} is no range of ephemeral ports"));
        }
        Ok(())
    }

    /// The front's part, for a device.
    pub(super) fn front(&self, info: &DeviceInfo) -> io::Result<FrontConfig> {
        if info.mtu < MTU_MIN {
            let text = format!("{}: an MTU of {} is below {MTU_MIN}", info.name, info.mtu);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(FrontConfig {
            mac: info.mac,
            addrs: self.addrs.clone(),
            gateway_v4: self.gateway_v4,
            gateway_v6: self.gateway_v6,
            mtu: info.mtu,
            vlan: self.vlan,
            verify_checksums: !info.lossless_memory,
            neighbor: self.neighbor,
        })
    }

    /// The sockets' part.
    pub(super) fn sockets(&self, mtu: usize) -> SocketOptions {
        let clock = Clock::new(self.clock_multiplier);
        let probe = self.user_timeout.map(|timeout| timeout / PROBES_PER_USER_TIMEOUT);
        SocketOptions {
            rx_bytes: rx_capacity(self.rx_buffer_bytes),
            tx_bytes: self.tx_buffer_bytes.max(BUFFER_MIN),
            keepalive: self.keepalive.or(probe).map(|time| clock.stretch(time)),
            user_timeout: self.user_timeout.map(|time| clock.stretch(time)),
            recovery: RecoveryOptions {
                congestion: self.congestion,
                rto_min: (SMOLTCP_RTO_MIN / self.clock_multiplier.max(1)).max(RTO_MIN),
                mss: (mtu - IPV4_HEADER_LEN - TCP_HEADER_LEN).try_into().unwrap_or(u16::MAX),
            },
        }
    }

    /// The worker's own time limits.
    pub(super) fn limits(&self) -> Limits {
        Limits {
            connect: ticks(self.connect_timeout),
            half_open: ticks(self.half_open_timeout),
            linger: ticks(self.linger),
            time_wait: ticks(self.time_wait),
        }
    }
}

/// Time limits in ticks of the wheel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connect: u64,
    pub(super) half_open: u64,
    pub(super) linger: u64,
    pub(super) time_wait: u64,
}

fn ticks(time: Duration) -> u64 {
    time.as_micros().div_ceil(TICK.as_micros()) as u64
}
