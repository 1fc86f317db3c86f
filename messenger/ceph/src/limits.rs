//! Upper bounds of what a decoder takes, checked before anything is allocated for it.

/// Bytes of a name: of a monitor, a host, an object, a subscription, a configuration option.
pub const NAME_LEN_MAX: usize = 4 << 10;
/// Bytes of a text for people, of one command, of one configuration value.
pub const TEXT_LEN_MAX: usize = 1 << 20;
/// Bytes of an authentication payload.
pub const AUTH_LEN_MAX: usize = 64 << 10;
/// Authentication methods that a client offers; Ceph has three.
pub const AUTH_METHODS_MAX: usize = 16;
/// Bytes of an encoded map of monitors.
pub const MON_MAP_LEN_MAX: usize = 1 << 20;
/// Monitors of a cluster; Ceph's clusters have three to seven.
pub const MONITORS_MAX: usize = 256;
/// Buckets that locate a monitor.
pub const LOCATIONS_MAX: usize = 64;
/// Things subscribed to in one message.
pub const SUBSCRIPTIONS_MAX: usize = 64;
/// Words of one command; Ceph sends one.
pub const COMMAND_WORDS_MAX: usize = 256;
/// Options in one configuration message.
pub const CONFIG_OPTIONS_MAX: usize = 16 << 10;
/// Bytes a heartbeat is padded with; Ceph pads to 2000.
pub const PING_PAD_MAX: usize = u16::MAX as usize;
/// Operations in the reply to one request.
pub const OPERATIONS_MAX: usize = 64;
/// Bytes of JSON that is parsed: `osd dump` of ten thousand OSDs takes ten million.
pub const JSON_LEN_MAX: usize = 64 << 20;

const _: () = assert!(NAME_LEN_MAX < TEXT_LEN_MAX);
