//! One configuration for a messenger and the transport under it.
//!
//! Keys that mean what they mean in Ceph have Ceph's names, units and defaults: times of `ms_*`
//! keys are seconds and may have fractions. Our own keys carry their unit. A key that is not known
//! is an error, so a misspelt one is not ignored; and there is no key without effect.
//!
//! ```toml
//! ms_type = "async+dpdk"
//! ms_connection_idle_timeout = 30
//!
//! [native]
//! addrs = ["10.99.0.2/24", "fd00:99::2/64"]
//!
//! [dpdk]
//! vdev = "net_tap0"
//! ```

use messenger_proto::auth::{AuthMethod, AuthRules, ConnectionMode};
use messenger_proto::v2::compression::{CompressionMode, CompressionOptions, Methods};
use messenger_proto::{Limits, SessionOptions};
use netstack::native::NativeConfig;
use netstack::posix::{Driver, PosixConfig};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Room for an honest handshake: a quarter is for all that the peer says, a ticket included.
const ACCEPTING_CONNECTION_BYTES_MIN: usize = 16 << 10;

/// Most workers of one transport (contract E-1).
pub const OP_THREADS_MAX: u8 = 24;

/// What a [`Messenger`](crate::Messenger) is made with. See the [module](self).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The transport: `"async+posix"`, `"async+dpdk"` or `"simple"`.
    pub ms_type: MsType,
    /// The transport of [`Messenger::create_client`](crate::Messenger::create_client), if not
    /// that of `ms_type`.
    pub ms_public_type: Option<MsType>,
    /// Worker threads of `async+posix`, 1 to 24; `async+dpdk` has one per queue.
    pub ms_async_op_threads: OpThreads,
    /// Lowest port tried when bound to port 0.
    pub ms_bind_port_min: u16,
    /// Highest port tried when bound to port 0.
    pub ms_bind_port_max: u16,
    /// How often an explicit port that is in use is tried again.
    pub ms_bind_retry_count: u32,
    /// Seconds between these tries.
    #[serde(with = "seconds")]
    pub ms_bind_retry_delay: Duration,
    /// Connections that wait to be accepted, per listener and worker.
    pub ms_tcp_listen_backlog: usize,
    /// Check data against its checksum. Both sides must agree.
    pub ms_crc_data: bool,
    /// Seconds before the second dial; doubles with each failure.
    #[serde(with = "seconds")]
    pub ms_initial_backoff: Duration,
    /// Seconds, the longest time between dials.
    #[serde(with = "seconds")]
    pub ms_max_backoff: Duration,
    /// Seconds a session may take until it is ready.
    #[serde(with = "seconds")]
    pub ms_connection_ready_timeout: Duration,
    /// Seconds without progress after which a session faults.
    #[serde(with = "seconds")]
    pub ms_connection_idle_timeout: Duration,
    /// Fill in our own IP address from what the first peer sees.
    pub ms_learn_addr_from_peer: bool,
    /// Bytes received and not dispatched yet, all connections together; 0 is unlimited.
    pub ms_dispatch_throttle_bytes: u64,
    /// What a priority below 64 can save up in the dispatch queue, in bytes.
    pub ms_pq_max_tokens_per_priority: u64,
    /// What a message counts at least in the dispatch queue, in bytes.
    pub ms_pq_min_cost: u64,

    /// Bind blank addresses to IPv6.
    pub ms_bind_ipv6: bool,
    /// Dial from the address given to `client_bind`.
    pub ms_bind_before_connect: bool,
    /// Abort on a message that cannot be decoded, for tests, as the other three.
    pub ms_die_on_bad_msg: bool,
    /// Abort on a message that no dispatcher takes.
    pub ms_die_on_unhandled_msg: bool,
    /// Abort on a message that was received before.
    pub ms_die_on_old_message: bool,
    /// Abort on a message whose number does not follow the last one's.
    pub ms_die_on_skipped_message: bool,

    /// For tests: each read and each write breaks its TCP connection first with a probability of
    /// one in this many; 0 never.
    pub ms_inject_socket_failures: u64,
    /// Each write is put off with a probability of all but one in this many; 0 never.
    pub ms_inject_network_congestion: u64,
    /// Seconds a connection rests at points where races lurk, and a queued callback waits.
    #[serde(with = "seconds")]
    pub ms_inject_internal_delays: Duration,
    /// Names of the types of peers whose messages are delivered late, as in `"osd mds"`.
    pub ms_inject_delay_type: String,
    /// With what probability a message of theirs, or a queued callback, is late.
    pub ms_inject_delay_probability: f64,
    /// Seconds, the most a message is late.
    #[serde(with = "seconds")]
    pub ms_inject_delay_max: Duration,
    /// Makes what is injected repeatable; 0: a new sequence each time.
    pub ms_inject_seed: u64,
    /// Messages from and to monitors vanish.
    pub ms_blackhole_mon: bool,
    /// Messages from and to object storage daemons vanish.
    pub ms_blackhole_osd: bool,
    /// Messages from and to metadata servers vanish.
    pub ms_blackhole_mds: bool,
    /// Messages from and to managers vanish.
    pub ms_blackhole_mgr: bool,
    /// Messages from and to clients vanish.
    pub ms_blackhole_client: bool,

    /// How daemons authenticate to daemons: `"cephx"`, `"none"`, or both, preferred first. Unlike
    /// Ceph's, our default is `"none"`.
    #[serde(with = "list")]
    pub auth_cluster_required: Vec<AuthMethod>,
    /// How clients have to authenticate to us, a daemon.
    #[serde(with = "list")]
    pub auth_service_required: Vec<AuthMethod>,
    /// How we, a client, authenticate.
    #[serde(with = "list")]
    pub auth_client_required: Vec<AuthMethod>,
    /// Between daemons: `"crc"`, `"secure"` (which needs cephx), or both, preferred first.
    #[serde(with = "list")]
    pub ms_cluster_mode: Vec<ConnectionMode>,
    /// What we, a daemon, allow clients.
    #[serde(with = "list")]
    pub ms_service_mode: Vec<ConnectionMode>,
    /// What we, a client, ask of daemons.
    #[serde(with = "list")]
    pub ms_client_mode: Vec<ConnectionMode>,
    /// The same between daemons and monitors or managers.
    #[serde(with = "list")]
    pub ms_mon_cluster_mode: Vec<ConnectionMode>,
    /// What we, a monitor or manager, allow others.
    #[serde(with = "list")]
    pub ms_mon_service_mode: Vec<ConnectionMode>,
    /// What we, a client, ask of monitors and managers.
    #[serde(with = "list")]
    pub ms_mon_client_mode: Vec<ConnectionMode>,
    /// The file with our key; needed for cephx unless [`Messenger::set_auth`] brings one.
    ///
    /// [`Messenger::set_auth`]: crate::Messenger::set_auth
    pub keyring: PathBuf,
    /// Under what name we authenticate, without the type: `"admin"` for `client.admin`. Empty:
    /// our number, or `admin` without one.
    pub auth_id: String,
    /// Whether frames to and from OSDs are compressed: `"none"` or `"force"`.
    #[serde(with = "text")]
    pub ms_osd_compress_mode: CompressionMode,
    /// Bytes a frame must have to be compressed.
    pub ms_osd_compress_min_size: u32,
    /// With what: `"snappy"`, `"zlib"`, `"zstd"`, `"lz4"`, several preferred first, or `"none"`.
    #[serde(with = "text")]
    pub ms_osd_compression_algorithm: Methods,
    /// Compress in secure mode too, where lengths tell about contents.
    pub ms_compress_secure: bool,

    /// CPUs to pin workers to, one each; empty: not pinned.
    pub worker_cpus: Vec<usize>,
    /// Commands a worker's inbox holds before senders get their message back.
    pub worker_inbox_items: NonZeroUsize,
    /// Most messages one connection may have outgoing, unacknowledged ones included.
    pub send_queue_messages: NonZeroUsize,
    /// Most bytes one connection may have outgoing; a single larger message still passes.
    pub send_queue_bytes: usize,
    /// Most accepted connections that did not finish their handshake.
    pub accepting_connections: usize,
    /// Most bytes that all of these may have us hold, each counted with the most it may.
    pub accepting_bytes: usize,
    /// Most bytes that one of these may have us hold before its peer has authenticated.
    pub accepting_connection_bytes: usize,

    /// Kernel TCP, for `async+posix` and `simple`.
    pub posix: PosixTable,
    /// Our own TCP, for `async+dpdk`.
    pub native: NativeTable,
    /// The device, for `async+dpdk`.
    pub dpdk: DpdkTable,
}

impl Default for Config {
    fn default() -> Self {
        let session = SessionOptions::default();
        let limits = Limits::default();
        let rules = AuthRules::default();
        let compression = CompressionOptions::default();
        let non_zero = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        Self {
            ms_type: MsType::Posix,
            ms_public_type: None,
            ms_async_op_threads: OpThreads::default(),
            ms_bind_port_min: 6800,
            ms_bind_port_max: 7568,
            ms_bind_retry_count: 3,
            ms_bind_retry_delay: Duration::from_secs(5),
            ms_tcp_listen_backlog: 512,
            ms_crc_data: session.crc_data,
            ms_initial_backoff: session.initial_backoff,
            ms_max_backoff: session.max_backoff,
            ms_connection_ready_timeout: session.ready_timeout,
            ms_connection_idle_timeout: session.idle_timeout,
            ms_learn_addr_from_peer: true,
            ms_dispatch_throttle_bytes: 100 << 20,
            ms_pq_max_tokens_per_priority: 16 << 20,
            ms_pq_min_cost: 64 << 10,
            ms_bind_ipv6: false,
            ms_bind_before_connect: false,
            ms_die_on_bad_msg: false,
            ms_die_on_unhandled_msg: false,
            ms_die_on_old_message: false,
            ms_die_on_skipped_message: false,
            ms_inject_socket_failures: 0,
            ms_inject_network_congestion: 0,
            ms_inject_internal_delays: Duration::ZERO,
            ms_inject_delay_type: String::new(),
            ms_inject_delay_probability: 0.0,
            ms_inject_delay_max: Duration::from_secs(1),
            ms_inject_seed: 0,
            ms_blackhole_mon: false,
            ms_blackhole_osd: false,
            ms_blackhole_mds: false,
            ms_blackhole_mgr: false,
            ms_blackhole_client: false,
            auth_cluster_required: rules.cluster_required,
            auth_service_required: rules.service_required,
            auth_client_required: rules.client_required,
            ms_cluster_mode: rules.cluster_mode,
            ms_service_mode: rules.service_mode,
            ms_client_mode: rules.client_mode,
            ms_mon_cluster_mode: rules.mon_cluster_mode,
            ms_mon_service_mode: rules.mon_service_mode,
            ms_mon_client_mode: rules.mon_client_mode,
            keyring: PathBuf::new(),
            auth_id: session.auth_id,
            ms_osd_compress_mode: compression.osd_mode,
            ms_osd_compress_min_size: compression.osd_min_size,
            ms_osd_compression_algorithm: compression.osd_methods,
            ms_compress_secure: compression.secure,
            worker_cpus: Vec::new(),
            worker_inbox_items: non_zero(8192),
            send_queue_messages: non_zero(limits.queue_messages),
            send_queue_bytes: limits.queue_bytes,
            accepting_connections: 1024,
            accepting_bytes: 64 << 20,
            accepting_connection_bytes: limits.unauthenticated_bytes,
            posix: PosixTable::default(),
            native: NativeTable::default(),
            dpdk: DpdkTable::default(),
        }
    }
}

/// Which transport carries the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MsType {
    /// The kernel's TCP.
    #[default]
    #[serde(rename = "async+posix")]
    Posix,
    /// Our own TCP over a DPDK port.
    #[serde(rename = "async+dpdk")]
    Dpdk,
    /// The kernel's TCP with two threads for each connection: for tests that compare.
    #[serde(rename = "simple")]
    Simple,
}

impl fmt::Display for MsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Posix => "async+posix",
            Self::Dpdk => "async+dpdk",
            Self::Simple => "simple",
        })
    }
}

/// A number of worker threads, 1 to [`OP_THREADS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct OpThreads(u8);

impl OpThreads {
    /// `count` threads; `None` outside 1 to [`OP_THREADS_MAX`].
    pub fn new(count: u8) -> Option<Self> {
        (1..=OP_THREADS_MAX).contains(&count).then_some(Self(count))
    }

    /// How many.
    pub fn count(self) -> NonZeroUsize {
        NonZeroUsize::new(self.0.into()).unwrap_or(NonZeroUsize::MIN)
    }
}

impl Default for OpThreads {
    fn default() -> Self {
        Self(3)
    }
}

impl TryFrom<u8> for OpThreads {
    type Error = String;
    fn try_from(count: u8) -> Result<Self, String> {
        Self::new(count).ok_or_else(|| format!("{count} is not between 1 and {OP_THREADS_MAX}"))
    }
}

impl From<OpThreads> for u8 {
    fn from(threads: OpThreads) -> Self {
        threads.0
    }
}

/// `[posix]`: kernel sockets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PosixTable {
    /// What workers wait for sockets with: `"epoll"`, `"kqueue"`, `"poll"` or `"select"`.
    #[serde(with = "text")]
    pub driver: Driver,
    /// Send small TCP segments at once.
    pub nodelay: bool,
    /// `SO_RCVBUF`; 0 leaves it to the kernel.
    pub rcvbuf_bytes: usize,
    /// `SO_SNDBUF`; 0 leaves it to the kernel.
    pub sndbuf_bytes: usize,
    /// Probe a silent peer after this long; 0 never.
    pub keepalive_ms: u64,
    /// Give up when sent bytes stay unacknowledged for this long; 0 leaves it to the kernel.
    pub user_timeout_ms: u64,
    /// Most connections per worker; with `simple`, which has 4096 at most, per messenger.
    pub max_connections: usize,
}

impl Default for PosixTable {
    fn default() -> Self {
        let posix = PosixConfig::default();
        Self {
            driver: posix.driver,
            nodelay: posix.nodelay,
            rcvbuf_bytes: 0,
            sndbuf_bytes: 0,
            keepalive_ms: 0,
            user_timeout_ms: 0,
            max_connections: posix.max_connections,
        }
    }
}

/// `[native]`: our own TCP/IP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NativeTable {
    /// Our addresses with their prefix lengths, IPv4 and IPv6.
    pub addrs: Vec<Cidr>,
    /// Next hop of IPv4 addresses outside our networks.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Next hop of IPv6 addresses outside our networks.
    pub gateway_v6: Option<Ipv6Addr>,
    /// 802.1Q VLAN of all our frames.
    pub vlan: Option<u16>,
    /// Receive buffer, and so the largest window, of a connection.
    pub rx_buffer_bytes: usize,
    /// Send buffer of a connection.
    pub tx_buffer_bytes: usize,
    /// Most connections per worker.
    pub max_connections: usize,
    /// Probe a silent peer this often; 0: three times in a `user_timeout_ms`.
    pub keepalive_ms: u64,
    /// Give up a peer that says nothing for this long though it should; 0 never.
    pub user_timeout_ms: u64,
    /// How many times faster than real time TCP's timers run: 5 makes the shortest retransmission
    /// timeout 200 ms.
    pub clock_multiplier: u32,
    /// What keeps a sender from overrunning the network.
    pub congestion: Congestion,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// Silence after which `idle = "adaptive"` naps.
    pub idle_spin_us: u64,
    /// Its longest nap, which a packet that ends a silence may wait.
    pub idle_nap_us: u64,
}

impl Default for NativeTable {
    fn default() -> Self {
        let native = NativeConfig::default();
        Self {
            addrs: Vec::new(),
            gateway_v4: None,
            gateway_v6: None,
            vlan: None,
            rx_buffer_bytes: native.rx_buffer_bytes,
            tx_buffer_bytes: native.tx_buffer_bytes,
            max_connections: native.max_connections,
            keepalive_ms: 0,
            user_timeout_ms: 60_000,
            clock_multiplier: native.clock_multiplier,
            congestion: Congestion::Cubic,
            idle: Idle::Adaptive,
            idle_spin_us: 1000,
            idle_nap_us: 80,
        }
    }
}

/// Congestion control of our own TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// CUBIC (RFC 9438), which takes losses without a queue for accidents.
    Cubic,
    /// NewReno (RFC 5681, RFC 6582).
    Reno,
    /// None: for links that never lose a frame.
    None,
}

/// What a worker of our own TCP does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Idle {
    /// Polls on, with a core of its own.
    Spin,
    /// Lets other threads of its core run.
    Yield,
    /// Lets others run, and naps when nothing has happened for `idle_spin_us`, at most `idle_nap_us`
    /// at a time.
    Adaptive,
}

/// `[dpdk]`: the port under our own TCP/IP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpdkTable {
    /// A software device to make, as EAL takes it: `"net_tap0,iface=msgr0"`. Either this or
    /// `port`.
    pub vdev: String,
    /// PCI address of a card that is bound to a DPDK driver. No other card is touched.
    pub port: String,
    /// Queue pairs, and so workers.
    pub queues: OpThreads,
    /// Memory for packets.
    pub memory_mb: u32,
    /// Take that memory from hugepages. Software devices work without.
    pub hugepages: bool,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// Longest IP packet.
    pub mtu: u16,
    /// The link is memory that two processes of this machine share (`net_memif`, `net_vhost`): no
    /// checksums of IP and TCP, at both ends. Those of messages stay.
    pub lossless_memory: bool,
    /// How long the calling end of a software link waits for the other end.
    pub peer_wait_ms: u64,
    /// Further arguments of EAL.
    pub eal_args: Vec<String>,
    /// A pcapng file to record every frame to, payloads included; empty: none. Queues after the
    /// first have files of their own, with `.1`, `.2` and so on behind the name. Workers write them
    /// themselves, so it costs time.
    pub capture: PathBuf,
    /// Bytes a file of `capture` may have; recording ends before the frame that would pass it.
    pub capture_bytes: u64,
}

/// What a recording may take unless configured: some ten seconds of a 1 Gbit/s link.
const CAPTURE_BYTES: u64 = 1 << 30;

impl Default for DpdkTable {
    fn default() -> Self {
        Self {
            vdev: String::new(),
            port: String::new(),
            queues: OpThreads(1),
            memory_mb: 256,
            hugepages: false,
            rx_descriptors: 512,
            tx_descriptors: 512,
            mtu: 1500,
            lossless_memory: false,
            peer_wait_ms: 5000,
            eal_args: Vec::new(),
            capture: PathBuf::new(),
            capture_bytes: CAPTURE_BYTES,
        }
    }
}

/// An IP address with the length of its network's prefix: `10.99.0.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address, host bits included.
    pub addr: IpAddr,
    /// Leading bits that name the network.
    pub prefix_len: u8,
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not an address such as \"10.99.0.2/24\"");
        let (addr, prefix_len) = text.split_once('/').ok_or_else(refused)?;
        let addr: IpAddr = addr.parse().map_err(|_| refused())?;
        let prefix_len = prefix_len.parse().map_err(|_| refused())?;
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        match prefix_len {
            0..=128 if prefix_len <= bits => Ok(Self { addr, prefix_len }),
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

impl Serialize for Cidr {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A configuration that cannot be used; says which key and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(what: String) -> Self {
        Self(what)
    }
}

impl Config {
    /// Reads TOML; keys that are not there keep their defaults.
    ///
    /// # Errors
    /// Names the key, its line, and what is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError(error.to_string().trim_end().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    /// The rules between keys.
    ///
    /// # Errors
    /// Names the keys that contradict each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            (
                self.ms_bind_port_min >= 1 && self.ms_bind_port_min <= self.ms_bind_port_max,
                "ms_bind_port_min must be at least 1 and at most ms_bind_port_max",
            ),
            (
                self.ms_initial_backoff <= self.ms_max_backoff,
                "ms_initial_backoff must be at most ms_max_backoff",
            ),
            (
                self.ms_pq_min_cost <= self.ms_pq_max_tokens_per_priority,
                "ms_pq_min_cost must be at most ms_pq_max_tokens_per_priority",
            ),
            (
                (0.0..=1.0).contains(&self.ms_inject_delay_probability),
                "ms_inject_delay_probability must be between 0 and 1",
            ),
            (self.ms_tcp_listen_backlog >= 1, "ms_tcp_listen_backlog must be at least 1"),
            (self.accepting_connections >= 1, "accepting_connections must be at least 1"),
            (
                self.accepting_connection_bytes >= ACCEPTING_CONNECTION_BYTES_MIN
                    && self.accepting_connection_bytes <= self.accepting_bytes,
                "accepting_connection_bytes must be at least 16384 and at most accepting_bytes",
            ),
            (
                self.ms_type != MsType::Dpdk || !self.native.addrs.is_empty(),
                "native.addrs must name at least one address for ms_type = \"async+dpdk\"",
            ),
            (
                self.ms_type != MsType::Dpdk
                    || self.dpdk.vdev.is_empty() != self.dpdk.port.is_empty(),
                "dpdk.vdev or dpdk.port, one of them, must be set for ms_type = \"async+dpdk\"",
            ),
            (
                !self.dpdk.lossless_memory || self.dpdk.port.is_empty(),
                "dpdk.lossless_memory is for a dpdk.vdev: a card's frames cross a cable",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, rule)) => Err(ConfigError((*rule).to_owned())),
        }
    }

    /// Timers and switches of its sessions.
    pub(crate) fn session_options(&self) -> SessionOptions {
        SessionOptions {
            crc_data: self.ms_crc_data,
            initial_backoff: self.ms_initial_backoff,
            max_backoff: self.ms_max_backoff,
            ready_timeout: self.ms_connection_ready_timeout,
            idle_timeout: self.ms_connection_idle_timeout,
            auth_id: self.auth_id.clone(),
            compression: CompressionOptions {
                osd_mode: self.ms_osd_compress_mode,
                osd_min_size: self.ms_osd_compress_min_size,
                osd_methods: self.ms_osd_compression_algorithm.clone(),
                secure: self.ms_compress_secure,
            },
            ..SessionOptions::default()
        }
    }

    /// What is allowed towards whom.
    pub(crate) fn auth_rules(&self) -> AuthRules {
        AuthRules {
            cluster_required: self.auth_cluster_required.clone(),
            service_required: self.auth_service_required.clone(),
            client_required: self.auth_client_required.clone(),
            cluster_mode: self.ms_cluster_mode.clone(),
            service_mode: self.ms_service_mode.clone(),
            client_mode: self.ms_client_mode.clone(),
            mon_cluster_mode: self.ms_mon_cluster_mode.clone(),
            mon_service_mode: self.ms_mon_service_mode.clone(),
            mon_client_mode: self.ms_mon_client_mode.clone(),
        }
    }

    /// What its peers may make us keep.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            queue_bytes: self.send_queue_bytes,
            queue_messages: self.send_queue_messages.get(),
            unauthenticated_bytes: self.accepting_connection_bytes,
            ..Limits::default()
        }
    }
}

/// The effective configuration, as TOML that [`Config::from_toml`] reads.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = toml::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

/// Ceph's times: seconds as a number, fractions allowed.
mod seconds {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(input)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

/// Words between commas, preferred first.
mod list {
    use messenger_proto::auth::{ParseAuthError, parse_list};
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<T: Display, S: Serializer>(
        words: &[T],
        out: S,
    ) -> Result<S::Ok, S::Error> {
        let words: Vec<_> = words.iter().map(T::to_string).collect();
        out.serialize_str(&words.join(", "))
    }

    pub(super) fn deserialize<'de, T, D>(input: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err = ParseAuthError> + PartialEq,
        D: Deserializer<'de>,
    {
        let words = parse_list(&String::deserialize(input)?);
        words.map_err(serde::de::Error::custom)
    }
}

/// Whatever is read from text and written as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(input: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_gives_cephs_defaults() {
        let config = Config::from_toml("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.ms_max_backoff, Duration::from_secs(15));
        assert_eq!(config.ms_async_op_threads.count().get(), 3);
    }

    #[test]
    fn the_effective_configuration_reads_back_as_itself() {
        let text = "ms_type = \"async+dpdk\"\nms_initial_backoff = 0.05\nworker_cpus = [1, 3]\n\
                    [native]\naddrs = [\"10.99.0.2/24\", \"fd00:99::2/64\"]\n\
                    gateway_v4 = \"10.99.0.1\"\n[dpdk]\nvdev = \"net_tap0\"\nqueues = 2\n";
        let config = Config::from_toml(text).unwrap();
        assert_eq!(config.ms_initial_backoff, Duration::from_millis(50));
        assert_eq!(config.native.addrs[1].prefix_len, 64);
        assert_eq!(Config::from_toml(&config.to_string()), Ok(config));
    }

    #[test]
    fn every_transport_reads_back_as_itself() {
        for ms_type in [MsType::Posix, MsType::Simple] {
            let config = Config::from_toml(&format!("ms_type = \"{ms_type}\""));
            assert_eq!(config.map(|config| config.ms_type), Ok(ms_type));
        }
    }

    #[test]
    fn a_misspelt_key_is_refused_and_named() {
        assert!(error("ms_crc_dta = false").contains("ms_crc_dta"));
        assert!(error("[posix]\nno_delay = true").contains("no_delay"));
        assert!(error("[native]\nmask = 1").contains("mask"));
        assert!(error("[dpdk]\nqueue = 1").contains("queue"));
    }

    #[test]
    fn a_value_out_of_range_is_refused_and_its_key_shown() {
        for (text, key) in [
            ("ms_async_op_threads = 0", "ms_async_op_threads"),
            ("ms_async_op_threads = 25", "ms_async_op_threads"),
            ("ms_type = \"async+rdma\"", "ms_type"),
            ("ms_initial_backoff = -1", "ms_initial_backoff"),
            ("ms_initial_backoff = 16", "ms_initial_backoff"),
            ("ms_bind_port_min = 8000", "ms_bind_port_min"),
            ("worker_inbox_items = 0", "worker_inbox_items"),
            ("accepting_connections = 0", "accepting_connections"),
            ("accepting_connection_bytes = 16383", "accepting_connection_bytes"),
            ("accepting_bytes = 65535", "accepting_bytes"),
            ("ms_type = \"async+dpdk\"", "native.addrs"),
            ("ms_type = \"async+dpdk\"\nnative.addrs = [\"10.0.0.1/8\"]", "dpdk.port"),
            ("dpdk.lossless_memory = true\ndpdk.port = \"0000:01:00.0\"", "lossless_memory"),
            ("posix.driver = \"iocp\"", "iocp"),
            ("native.idle = \"doze\"", "doze"),
            ("[native]\naddrs = [\"10.0.0.1\"]", "10.0.0.1"),
            ("[native]\naddrs = [\"10.0.0.1/33\"]", "10.0.0.1/33"),
        ] {
            let message = error(text);
            assert!(message.contains(key), "{text}: {message}");
        }
    }

    #[test]
    fn the_driver_of_kernel_sockets_goes_by_its_name() {
        assert_eq!(Config::default().posix.driver, Driver::NATIVE);
        let config = Config::from_toml("posix.driver = \"select\"").unwrap();
        assert_eq!(config.posix.driver, Driver::Select);
        assert_eq!(Config::from_toml(&config.to_string()), Ok(config));
    }

    #[test]
    fn a_whole_number_of_seconds_needs_no_point() {
        let config = Config::from_toml("ms_connection_idle_timeout = 30").unwrap();
        assert_eq!(config.ms_connection_idle_timeout, Duration::from_secs(30));
    }
}
