//! What can go wrong with DPDK, with its own words about why.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::time::Duration;

/// What DPDK logged, at warning level or worse, while a call was failing. Often empty: many of its
/// functions fail with a number only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause(pub(crate) Vec<String>);

impl Cause {
    /// The lines, oldest first.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; DPDK says: {}", self.0.join("; ")) }
    }
}

/// A failure of DPDK, of the machine under it, or of what was asked of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// EAL runs already, with other options; a process has one EAL.
    #[error("EAL runs already in this process with other options")]
    EalRunsDifferently,
    /// EAL was cleaned up, or failed to start, before: DPDK cannot be initialised a second time.
    #[error("EAL ended in this process and cannot be started again; start another process")]
    EalEnded,
    /// EAL did not start.
    #[error("EAL did not start: {error}{cause}")]
    EalStart {
        /// The error number as the system words it.
        error: io::Error,
        /// DPDK's log of the attempt.
        cause: Cause,
    },
    /// A text meant for DPDK cannot be one.
    #[error("{what} {text:?} cannot be used: {reason}")]
    Argument {
        /// Which text.
        what: &'static str,
        /// The text.
        text: String,
        /// Why not.
        reason: &'static str,
    },
    /// No port has this name.
    #[error("there is no port {name:?}; ports: {available:?}")]
    NoSuchPort {
        /// The name asked for.
        name: String,
        /// The ports there are.
        available: Vec<String>,
    },
    /// The only port was asked for and there is not exactly one.
    #[error("expected one port, found {available:?}; name one, or give a vdev")]
    NotOnePort {
        /// The ports there are.
        available: Vec<String>,
    },
    /// The port is open already in this process.
    #[error("{name} is in use in this process")]
    PortInUse {
        /// The port.
        name: String,
    },
    /// The other end of a software link did not appear.
    #[error("{name}: no peer after {waited:?}, the end that listens starts first{cause}")]
    NoPeer {
        /// The port.
        name: String,
        /// How long it was waited for.
        waited: Duration,
        /// DPDK's log of the last attempt.
        cause: Cause,
    },
    /// `net_virtio_user` shares memory as at most 8 files; other memory modes have one per page,
    /// and the driver would start, say the link is up, and lose every frame.
    #[error(
        "{name}: virtio_user needs MemoryMode::NoHuge, or InMemory with single_file_segments \
         (--no-huge, or --in-memory --single-file-segments)"
    )]
    VirtioUserMemory {
        /// The port.
        name: String,
    },
    /// The port cannot carry packets this long.
    #[error("{name}: an MTU of {wanted} is more than the {max} this port takes{advice}")]
    Mtu {
        /// The port.
        name: String,
        /// What was asked for, in bytes.
        wanted: u16,
        /// The most the port takes, in bytes.
        max: u16,
        /// What would help, or empty.
        advice: &'static str,
    },
    /// The mempool's buffers are too short: a frame would span several.
    #[error("{name}: frames need mbufs with room for {needed} bytes, the pool's have {room}")]
    Room {
        /// The port.
        name: String,
        /// Bytes a buffer must take.
        needed: usize,
        /// Bytes the pool's buffers take.
        room: usize,
    },
    /// The port has fewer queues than asked for. Most software devices have as many as their
    /// arguments say.
    #[error("{name}: {wanted} queue pairs wanted, the port has {max} (a vdev may take queues=N)")]
    Queues {
        /// The port.
        name: String,
        /// Queue pairs asked for.
        wanted: u16,
        /// Queue pairs there are.
        max: u16,
    },
    /// A DPDK function failed.
    #[error("{name}: {call} failed: {error}{cause}")]
    Call {
        /// The function.
        call: &'static str,
        /// The port, pool or thread it was called for.
        name: String,
        /// The error number as the system words it.
        error: io::Error,
        /// DPDK's log of the call.
        cause: Cause,
    },
    /// The driver reported success but its log says that the device did not start.
    #[error("{name}: the driver pretends to have started{cause}")]
    SilentFailure {
        /// The port.
        name: String,
        /// DPDK's log of the start.
        cause: Cause,
    },
    /// The link is up but the other end takes no frames.
    #[error("{name}: the other end took none of {sent} frames")]
    Stalled {
        /// The port.
        name: String,
        /// Frames the transmit queue took before it was full.
        sent: u64,
    },
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// A call that returned `code`, a negative error number.
    pub(crate) fn call(call: &'static str, name: &str, code: i32, cause: Cause) -> Self {
        Self::Call { call, name: name.to_owned(), error: os_error(code), cause }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            other => Self::other(other),
        }
    }
}

/// DPDK returns error numbers negated, or -1 for "see the log".
pub(crate) fn os_error(code: i32) -> io::Error {
    match code {
        -1 => io::Error::other("unspecified"),
        code => io::Error::from_raw_os_error(code.abs()),
    }
}

/// `text` as DPDK takes it.
pub(crate) fn c_string(what: &'static str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Argument {
        what,
        text: text.to_owned(),
        reason: "it has a zero byte inside",
    })
}
