//! What limits hugepages besides the pools: the CPU, and the control group we live in.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;
use crate::mounts::{MountLine, mount_table};
use crate::root::{Root, malformed};
use crate::size::{PageSize, Size};

/// The CPU flag without which x86-64 cannot map 1 GiB pages.
const GIB_PAGES_FLAG: &str = "pdpe1gb";

/// The most a process started here can still take, by its tightest control group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupRoom {
    /// Limit minus what the group's processes hold already.
    #[serde(rename = "left_bytes")]
    pub left: Size,
    /// The file that sets the limit.
    pub limit_file: PathBuf,
}

/// Whether the CPU maps 1 GiB pages; `None` where the question does not arise (not x86).
///
/// # Errors
/// [`Error::Read`] and [`Error::Malformed`].
pub fn maps_gib_pages(root: &Root) -> Result<Option<bool>, Error> {
    let text = root.text("proc/cpuinfo")?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    Ok(flags.map(|(_, flags)| flags.split_whitespace().any(|flag| flag == GIB_PAGES_FLAG)))
}

/// What our control group and those above it leave us, for one page size; `None` means no limit.
///
/// Only version 2 groups are looked at; in a container the files show the container's own view.
///
/// # Errors
/// [`Error::Read`] and [`Error::Malformed`].
pub fn group_room(root: &Root, page: PageSize) -> Result<Option<GroupRoom>, Error> {
    let mounts = mount_table(root)?;
    let Some(MountLine { at: top, .. }) = mounts.into_iter().find(|line| line.kind == "cgroup2")
    else {
        return Ok(None);
    };
    let membership = root.text("proc/self/cgroup")?;
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
    let mut tightest: Option<GroupRoom> = None;
    for group in Path::new(own).ancestors() {
        let Some(room) = room_of(root, &top.join(group), page)? else {
            continue;
        };
        if tightest.as_ref().is_none_or(|least| room.left < least.left) {
            tightest = Some(room);
        }
    }
    Ok(tightest)
}

fn room_of(root: &Root, group: &Path, page: PageSize) -> Result<Option<GroupRoom>, Error> {
    let file = |what| group.join(format!("hugetlb.{}.{what}", page.cgroup_name()));
    let limit_file = file("max");
    if !root.at(&limit_file).exists() {
        return Ok(None); // the controller is off, or this is the top group
    }
    let text = root.text(&limit_file)?;
    let limit: u64 = match text.trim() {
        "max" => return Ok(None),
        number => number
            .parse()
            .map_err(|_| malformed(&root.at(&limit_file), "a limit in bytes or max", &text))?,
    };
    let left = limit.saturating_sub(root.count(file("current"))?);
    Ok(Some(GroupRoom { left: Size::from_bytes(left), limit_file }))
}
