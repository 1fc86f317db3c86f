//! What can go wrong, each with its cause and the one command that helps.
//!
//! The exit status belongs to the error too, so that scripts can tell a wrong command line (2)
//! from a machine that says no (3).

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::size::{PageSize, Size};

/// Exit status: everything is as asked.
pub const EXIT_DONE: u8 = 0;
/// Exit status: a check failed, or the kernel gave less than was asked for.
pub const EXIT_SHORT: u8 = 1;
/// Exit status: the command line makes no sense on this machine.
pub const EXIT_USAGE: u8 = 2;
/// Exit status: no permission, or the machine refused.
pub const EXIT_REFUSED: u8 = 3;

/// A failure of the machine, or a wish it cannot grant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that should be readable is not.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file, below the root in use.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file's contents are not what the kernel documents.
    #[error("{} holds \"{}\" instead of {expected}", file.display(), found.escape_default())]
    Malformed {
        /// The file, below the root in use.
        file: PathBuf,
        /// What belongs there.
        expected: &'static str,
        /// The start of what is there.
        found: String,
    },
    /// Neither `/sys/devices/system/node` nor `/sys/kernel/mm` offers hugepages.
    #[error("this kernel has no hugepages: it was built without hugetlbfs, or /sys is not mounted")]
    NoHugepages,
    /// The page size exists, but not here.
    #[error("this machine has no {page} pages, only {}", list(offered))]
    NoSuchPage {
        /// The size asked for.
        page: PageSize,
        /// The sizes the kernel offers.
        offered: Vec<PageSize>,
    },
    /// No memory node has this number.
    #[error("there is no node {node} with memory; there is {}", list(nodes))]
    NoSuchNode {
        /// The node asked for.
        node: u32,
        /// The nodes that have memory.
        nodes: Vec<u32>,
    },
    /// Several nodes, and the caller named none.
    #[error(
        "this machine has NUMA nodes {}: say which one, or --all-nodes for each of them",
        list(nodes)
    )]
    NodeNeeded {
        /// The nodes that have memory.
        nodes: Vec<u32>,
    },
    /// More than the node has at all.
    #[error("{asked} of hugepages do not fit node {node}, which has {memory} of memory in all")]
    BeyondMemory {
        /// The node.
        node: u32,
        /// What its pools would take together.
        asked: Size,
        /// What the node has.
        memory: Size,
    },
    /// No user or group of this name.
    #[error("there is no {kind} \"{name}\" in {file}")]
    NoSuchName {
        /// `user` or `group`.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// Where names are looked up.
        file: &'static str,
    },
    /// Another file system sits at the mount point.
    #[error("{} is a mount of {kind}, not of hugepages", at.display())]
    OtherFileSystem {
        /// The mount point.
        at: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// Hugepages are mounted there, of another size.
    #[error("{} is mounted with {mounted} pages, not {asked}", at.display())]
    OtherPage {
        /// The mount point.
        at: PathBuf,
        /// The size it was mounted with.
        mounted: PageSize,
        /// The size asked for.
        asked: PageSize,
    },
    /// Hugepages are mounted there, for somebody else.
    #[error("{} is mounted with {what} {found}, not {asked}", at.display())]
    OtherAccess {
        /// The mount point.
        at: PathBuf,
        /// `mode`, `user` or `group`.
        what: &'static str,
        /// What it is.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// A mount would hide what is there.
    #[error("{} is not empty, and a mount would hide what it holds", at.display())]
    NotEmpty {
        /// The mount point.
        at: PathBuf,
    },
    /// Some processes kept their maps to themselves, so nobody can tell which files are orphans.
    #[error("files that seem unused may belong to {unread} processes that may not be looked into")]
    Blind {
        /// How many.
        unread: usize,
    },
    /// The system wants more rights.
    #[error("no permission to {action}")]
    Denied {
        /// What was tried, as an infinitive.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system said no for another reason.
    #[error("the kernel refused to {action}")]
    Refused {
        /// What was tried, as an infinitive.
        action: String,
        /// What the system said.
        source: io::Error,
    },
}

/// How this program was called, so that advice can be pasted as it stands.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The program with the options every command shares, quoted for a shell.
    pub program: String,
    /// The whole command line, quoted for a shell.
    pub line: String,
    /// Whether it runs as root already, so that `sudo` is no advice.
    pub as_root: bool,
}

impl Invocation {
    /// What goes in front of a command that needs root: nothing for root, who may not have `sudo`.
    pub fn sudo(&self) -> &'static str {
        if self.as_root { "" } else { "sudo " }
    }
}

impl Error {
    /// The exit status this error ends the program with.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NoSuchNode { .. } | Self::NodeNeeded { .. } | Self::NoSuchName { .. } => {
                EXIT_USAGE
            }
            _ => EXIT_REFUSED,
        }
    }

    /// A stable word for programs that read the JSON output.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Read { .. } => "unreadable",
            Self::Malformed { .. } => "malformed",
            Self::NoHugepages => "no_hugepages",
            Self::NoSuchPage { .. } => "no_such_page",
            Self::NoSuchNode { .. } => "no_such_node",
            Self::NodeNeeded { .. } => "node_needed",
            Self::BeyondMemory { .. } => "beyond_memory",
            Self::NoSuchName { .. } => "no_such_name",
            Self::OtherFileSystem { .. } => "other_file_system",
            Self::OtherPage { .. } => "other_page",
            Self::OtherAccess { .. } => "other_access",
            Self::NotEmpty { .. } => "not_empty",
            Self::Blind { .. } => "blind",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
        }
    }

    /// The message with everything that caused it, on one line.
    pub fn cause(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    /// The one command to run next, if one would help.
    pub fn command(&self, called: &Invocation) -> Option<String> {
        let (program, line, sudo) = (&called.program, &called.line, called.sudo());
        let for_root = || (!called.as_root).then(|| format!("sudo {line}"));
        match self {
            Self::Denied { .. } | Self::Blind { .. } => for_root(),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                for_root()
            }
            Self::NoSuchPage { offered, .. } => Some(format!("{line} --page {}", offered.first()?)),
            Self::NodeNeeded { nodes } => Some(format!("{line} --node {}", nodes.first()?)),
            Self::NoSuchNode { .. } | Self::BeyondMemory { .. } => Some(format!("{program} show")),
            Self::NoSuchName { kind: "group", name, .. } => {
                Some(format!("{sudo}groupadd {}", quoted(name)))
            }
            Self::OtherFileSystem { .. } | Self::NotEmpty { .. } => {
                Some(format!("{line} --at /mnt/hugepages"))
            }
            Self::OtherPage { at, .. } => {
                let at = quoted_path(at);
                Some(format!("{sudo}{program} unmount --at {at} && {sudo}{line}"))
            }
            Self::OtherAccess { at, what, asked, .. } => {
                Some(format!("{sudo}{} {} {}", tool(what), quoted(asked), quoted_path(at)))
            }
            Self::Refused { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                Some(format!("{program} show")) // it lists who holds pages
            }
            _ => None,
        }
    }
}

/// What changes the `mode`, `user` or `group` of a directory.
fn tool(what: &str) -> &'static str {
    match what {
        "mode" => "chmod",
        "user" => "chown",
        _ => "chgrp",
    }
}

/// `text` as one word of a shell command line.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A path as one word of a shell command line.
pub fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
