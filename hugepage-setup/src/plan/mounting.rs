//! Mounting and unmounting hugetlbfs.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::inventory::Inventory;
use crate::mounts::MountPoint;
use crate::plan::{Action, Plan, Step};
use crate::size::PageSize;

/// Permission bits of a new mount: the owner and its group, who cannot delete each other's files.
pub const MOUNT_MODE: u32 = 0o1770;

/// Make sure hugepages are mounted. Absent fields take any value of an existing mount.
#[derive(Debug, Clone)]
pub struct MountRequest {
    /// Where, links resolved.
    pub at: PathBuf,
    /// Page size of the files.
    pub page: PageSize,
    /// Permission bits; [`MOUNT_MODE`] for a new mount.
    pub mode: Option<u32>,
    /// Owner; the caller for a new mount.
    pub uid: Option<u32>,
    /// Group; the caller's for a new mount.
    pub gid: Option<u32>,
}

/// Plans a mount.
///
/// # Errors
/// [`Error::NoSuchPage`], and whatever stands in the way at the mount point.
pub fn mount(
    inventory: &Inventory,
    point: &MountPoint,
    request: &MountRequest,
) -> Result<Plan, Error> {
    let MountRequest { at, page, mode, uid, gid } = request;
    inventory.whole(*page)?;
    let mut plan = Plan::default();
    match point {
        MountPoint::Hugepages(found) if found.page != *page => {
            return Err(Error::OtherPage { at: at.clone(), mounted: found.page, asked: *page });
        }
        MountPoint::Hugepages(found) => {
            if let Some(access) = &found.access {
                same_access(at, "mode", access.mode, *mode, |mode| format!("{mode:o}"))?;
                same_access(at, "user", access.uid, *uid, |id| id.to_string())?;
                same_access(at, "group", access.gid, *gid, |id| id.to_string())?;
            }
            plan.kept.push(format!("{} is mounted with {page} pages", at.display()));
            return Ok(plan);
        }
        MountPoint::Other(kind) => {
            return Err(Error::OtherFileSystem { at: at.clone(), kind: kind.clone() });
        }
        MountPoint::Occupied => return Err(Error::NotEmpty { at: at.clone() }),
        MountPoint::Absent => plan.steps.push(Step {
            action: Action::MakeDirectory { at: at.clone() },
            reason: "it does not exist".to_owned(),
        }),
        MountPoint::Empty => {}
    }
    let mode = mode.unwrap_or(MOUNT_MODE);
    plan.steps.push(Step {
        action: Action::Mount { at: at.clone(), page: *page, mode, uid: *uid, gid: *gid },
        reason: "nothing is mounted there".to_owned(),
    });
    Ok(plan)
}

/// Plans an unmount; `files` counts those in the mount that nobody maps, as far as we may look: they
/// are lost with it.
///
/// # Errors
/// [`Error::OtherFileSystem`].
pub fn unmount(point: &MountPoint, at: &Path, files: Option<usize>) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    match point {
        MountPoint::Hugepages(_) => plan.steps.push(Step {
            action: Action::Unmount { at: at.to_owned() },
            reason: match files {
                None => "its files may not be listed by this user".to_owned(),
                Some(0) => "no unused file is lost with it".to_owned(),
                Some(files) => format!("unused files lost with it: {files}"),
            },
        }),
        MountPoint::Other(kind) => {
            return Err(Error::OtherFileSystem { at: at.to_owned(), kind: kind.clone() });
        }
        _ => plan.kept.push(format!("nothing is mounted at {}", at.display())),
    }
    Ok(plan)
}

fn same_access(
    at: &Path,
    what: &'static str,
    found: u32,
    asked: Option<u32>,
    text: impl Fn(u32) -> String,
) -> Result<(), Error> {
    match asked {
        Some(asked) if asked != found => Err(Error::OtherAccess {
            at: at.to_owned(),
            what,
            found: text(found),
            asked: text(asked),
        }),
        _ => Ok(()),
    }
}
