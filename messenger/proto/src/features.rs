//! Feature bits that idents exchange. The bits both sides support select the encodings of all
//! later messages; they are Ceph's, and most of them concern payloads this crate never opens.

/// Addresses inside messages use the new form (bit 59).
pub const ADDR2: u64 = 1 << 59;

/// What release 16.2 supports, the set this implementation announces.
pub const SUPPORTED: u64 = 0x3f01_cfbd_fffd_ffff;

/// Bits without which we do not talk to a peer.
pub const REQUIRED: u64 = ADDR2;

const _: () = assert!(SUPPORTED & REQUIRED == REQUIRED);
