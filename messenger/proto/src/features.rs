//! Feature bits that idents exchange. The bits both sides support select the encodings of all
//! later messages; they are Ceph's, and most of them concern payloads this crate never opens.

/// Acceptors of msgr1 tell how far the session got when they let a client in (bit 6).
pub const RECONNECT_SEQ: u64 = 1 << 6;

/// Footers of msgr1 have room for a signature (bit 23).
pub const MSG_AUTH: u64 = 1 << 23;

/// Addresses inside messages use the new form (bit 59).
pub const ADDR2: u64 = 1 << 59;

/// What release 16.2 supports, the set this implementation announces.
pub const SUPPORTED: u64 = 0x3f01_cfbd_fffd_ffff;

/// Bits without which we do not talk to a peer.
pub const REQUIRED: u64 = ADDR2;

const _: () = assert!(SUPPORTED & REQUIRED == REQUIRED);
