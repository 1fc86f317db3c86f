//! Carrying a plan out, and reading back what came of it.
//!
//! The kernel takes any number of pages without complaint and then gives what it can, so a write
//! that succeeded proves nothing: every step is followed by a look at the pool or the mount table.
//! [`perform`] is the only function of this crate that changes the machine.

use std::ffi::CString;
use std::io;

use rustix::mount::{MountFlags, UnmountFlags};
use serde::Serialize;

use crate::error::{Error, Invocation};
use crate::inventory::{Node, Pool};
use crate::mounts::{HUGETLBFS, MountPoint};
use crate::plan::{Action, Plan, Step};
use crate::root::Root;
use crate::size::{PageSize, Size};

/// A step that was taken, and what the machine looks like after it.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// The step.
    #[serde(flatten)]
    pub step: Step,
    /// The pool as read back, if the step was about one.
    pub pool: Option<Pool>,
    /// Set when the kernel did less than it was told.
    pub shortfall: Option<Shortfall>,
}

/// The kernel did less than it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    /// Pages that were to be in the pool.
    pub wanted: u64,
    /// Pages that are.
    pub got: u64,
    /// Why, as far as the counters tell.
    pub reason: Reason,
    /// Size of one page.
    #[serde(rename = "page_bytes")]
    pub page: PageSize,
    /// Free memory left on the node.
    #[serde(rename = "memory_free_bytes")]
    pub memory_free: Size,
}

/// Why a pool did not get its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The node has less free memory than was missing.
    NoMemory,
    /// There is memory, but not in unbroken pieces of a page's size.
    Fragmented,
    /// Pages to be released came into use first.
    TakenMeanwhile,
}

impl Shortfall {
    /// What happened, in one sentence.
    pub fn cause(&self) -> String {
        let Self { wanted, got, page, memory_free, .. } = self;
        match self.reason {
            Reason::NoMemory => {
                format!(
                    "got {got} of {wanted} pages: only {memory_free} of the node's memory are free"
                )
            }
            Reason::Fragmented if *page >= PageSize::ONE_GIB => format!(
                "got {got} of {wanted} pages: {memory_free} are free, but not in unbroken pieces of \
                 {page}. The sure way is the kernel's boot line: hugepagesz={page} hugepages={wanted}"
            ),
            Reason::Fragmented => format!(
                "got {got} of {wanted} pages: {memory_free} are free, but not in unbroken pieces of \
                 {page}. Compact memory, or ask for fewer pages"
            ),
            Reason::TakenMeanwhile => {
                format!("{got} pages remain instead of {wanted}: programs took some meanwhile")
            }
        }
    }

    /// The one command to try next.
    pub fn command(&self, called: &Invocation) -> String {
        let (line, sudo) = (&called.line, called.sudo());
        let (value, knob) = match self.reason {
            Reason::NoMemory => (3, "drop_caches"),
            Reason::Fragmented => (1, "compact_memory"),
            Reason::TakenMeanwhile => return format!("{sudo}{line}"),
        };
        format!("echo {value} | {sudo}tee /proc/sys/vm/{knob} && {sudo}{line}")
    }
}

/// Takes the steps of a plan in order with `perform`, and reads back after each.
///
/// # Errors
/// The first step that fails ends it; those before it stay done, and the plan made anew skips them.
pub fn carry_out(
    root: &Root,
    plan: &Plan,
    mut perform: impl FnMut(&Root, &Action) -> io::Result<()>,
) -> Result<Vec<Done>, Error> {
    let mut done = Vec::new();
    for step in &plan.steps {
        perform(root, &step.action).map_err(|source| refusal(&step.action, source))?;
        done.push(read_back(root, step)?);
    }
    Ok(done)
}

/// Changes the machine. Mounting concerns the running machine, so it wants `/` as root.
///
/// # Errors
/// What the system says.
pub fn perform(root: &Root, action: &Action) -> io::Result<()> {
    match action {
        Action::SetPages { dir, to, .. } => {
            std::fs::write(root.at(dir.join("nr_hugepages")), to.to_string())
        }
        Action::DeleteFile { file, .. } => std::fs::remove_file(root.at(file)),
        Action::MakeDirectory { at } => std::fs::create_dir_all(root.at(at)),
        Action::Mount { .. } | Action::Unmount { .. } if !root.is_live() => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "mounts are the running machine's; with --root use --dry-run",
        )),
        Action::Mount { at, page, mode, uid, gid } => {
            let options = mount_options(*page, *mode, *uid, *gid);
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            Ok(rustix::mount::mount(HUGETLBFS, at, HUGETLBFS, flags, options.as_c_str())?)
        }
        Action::Unmount { at } => Ok(rustix::mount::unmount(at, UnmountFlags::NOFOLLOW)?),
    }
}

/// The data argument of `mount`, as the kernel's hugetlbfs page documents it.
fn mount_options(page: PageSize, mode: u32, uid: Option<u32>, gid: Option<u32>) -> CString {
    let mut text = format!("pagesize={page},mode={mode:o}");
    for (name, id) in [("uid", uid), ("gid", gid)] {
        text.extend(id.map(|id| format!(",{name}={id}")));
    }
    CString::new(text).expect("letters and digits hold no NUL")
}

fn read_back(root: &Root, step: &Step) -> Result<Done, Error> {
    let (mut pool, mut shortfall) = (None, None);
    match &step.action {
        Action::SetPages { node, page, from, to, dir } => {
            let after = Pool::read(root, dir, *page)?;
            let (_, memory_free) = Node::read_memory(root, *node)?;
            shortfall = short(&after, *from, *to, memory_free);
            pool = Some(after);
        }
        Action::Mount { at, page, .. } => match MountPoint::read(root, at)? {
            MountPoint::Hugepages(mount) if mount.page == *page => {}
            _ => {
                return Err(contradiction(&step.action, "the mount table does not show it"));
            }
        },
        Action::Unmount { at } => {
            if let MountPoint::Hugepages(_) = MountPoint::read(root, at)? {
                return Err(contradiction(&step.action, "another mount was beneath; run it again"));
            }
        }
        Action::DeleteFile { .. } | Action::MakeDirectory { .. } => {}
    }
    Ok(Done { step: step.clone(), pool, shortfall })
}

/// Compares a pool with what it was told to become.
fn short(after: &Pool, from: u64, to: u64, memory_free: Size) -> Option<Shortfall> {
    let got = after.persistent();
    let reason = if to < from && got > to {
        Reason::TakenMeanwhile
    } else if got >= to {
        return None;
    } else if memory_free < after.page.times(to - got) {
        Reason::NoMemory
    } else {
        Reason::Fragmented
    };
    Some(Shortfall { wanted: to, got, reason, page: after.page, memory_free })
}

fn refusal(action: &Action, source: io::Error) -> Error {
    let action = action.to_string();
    match source.kind() {
        io::ErrorKind::PermissionDenied => Error::Denied { action, source },
        io::ErrorKind::ReadOnlyFilesystem => Error::Denied { action, source },
        _ => Error::Refused { action, source },
    }
}

fn contradiction(action: &Action, what: &'static str) -> Error {
    Error::Refused { action: action.to_string(), source: io::Error::other(what) }
}
