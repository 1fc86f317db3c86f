//! Where hugepages are mounted, from `/proc/mounts`, and what a mount point looks like.
//!
//! A line reads `hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M,size=1048576 0 0`; with
//! several mounts on one directory the last line is the one that programs see.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use serde::Serialize;

use crate::error::Error;
use crate::root::{Root, malformed};
use crate::size::{PageSize, Size};

/// The file system type of hugepages.
pub const HUGETLBFS: &str = "hugetlbfs";

const MOUNTS: &str = "proc/mounts";

/// A hugetlbfs mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// The mount point as the kernel names it.
    pub at: PathBuf,
    /// The page size of its files.
    #[serde(rename = "page_bytes")]
    pub page: PageSize,
    /// Most memory its files may take, if the mount sets a limit.
    #[serde(rename = "limit_bytes")]
    pub limit: Option<Size>,
    /// Permission bits and owner of its top directory, unless we may not look.
    pub access: Option<MountAccess>,
}

/// Who may create files in a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountAccess {
    /// Permission bits, sticky bit included.
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Whether the calling user can create files.
    pub writable: bool,
}

/// What is found where hugepages are to be mounted, or are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountPoint {
    /// Nothing of this name.
    Absent,
    /// An empty directory, ready for a mount.
    Empty,
    /// A file, or a directory with something in it.
    Occupied,
    /// A mount of this other file system.
    Other(String),
    /// A hugetlbfs mount.
    Hugepages(Mount),
}

/// One line of the mount table, of any file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountLine {
    /// The mount point.
    pub at: PathBuf,
    /// The file system's type.
    pub kind: String,
    /// Its options, separated by commas.
    pub options: String,
}

impl MountPoint {
    /// Looks at `at`, a path with links resolved. Of mounts stacked there the topmost counts.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Malformed`].
    pub fn read(root: &Root, at: &Path) -> Result<Self, Error> {
        if let Some(line) = mount_table(root)?.into_iter().rfind(|line| line.at == at) {
            let ours = hugepage_mounts(root)?.into_iter().rfind(|mount| mount.at == at);
            return Ok(match ours {
                Some(mount) if line.kind == HUGETLBFS => Self::Hugepages(mount),
                _ => Self::Other(line.kind),
            });
        }
        let path = root.at(at);
        if path.symlink_metadata().is_err() {
            return Ok(Self::Absent);
        }
        let empty = path.is_dir() && root.names(at)?.is_empty();
        Ok(if empty { Self::Empty } else { Self::Occupied })
    }
}

/// The whole mount table, oldest first.
///
/// # Errors
/// [`Error::Read`] and [`Error::Malformed`].
pub fn mount_table(root: &Root) -> Result<Vec<MountLine>, Error> {
    let line = |line: &str| {
        let mut words = line.split(' ').skip(1); // the device says nothing for hugetlbfs
        let mut word = || words.next().map(unescaped);
        Some(MountLine { at: word()?.into(), kind: word()?, options: word()? })
    };
    root.text(MOUNTS)?
        .lines()
        .map(|text| line(text).ok_or_else(|| malformed(&root.at(MOUNTS), "a mount", text)))
        .collect()
}

/// The hugetlbfs mounts, oldest first.
///
/// # Errors
/// [`Error::Read`] and [`Error::Malformed`].
pub fn hugepage_mounts(root: &Root) -> Result<Vec<Mount>, Error> {
    let lines = mount_table(root)?.into_iter();
    lines.filter(|line| line.kind == HUGETLBFS).map(|line| hugepage_mount(root, line)).collect()
}

fn hugepage_mount(root: &Root, MountLine { at, options, .. }: MountLine) -> Result<Mount, Error> {
    let option = |name| options.split(',').find_map(|text: &str| text.strip_prefix(name));
    let wrong = || malformed(&root.at(MOUNTS), "hugetlbfs options", &options);
    let page = option("pagesize=").and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    // The kernel prints the limit in bytes, without a unit.
    let limit = option("size=").map(|text| text.parse().map_err(|_| wrong())).transpose()?;
    let access = mount_access(&root.at(&at));
    Ok(Mount { at, page, limit: limit.map(Size::from_bytes), access })
}

/// Asks the directory rather than the mount options, which a later `chmod` does not change.
fn mount_access(dir: &Path) -> Option<MountAccess> {
    let meta = fs::metadata(dir).ok()?;
    let writable = rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    Some(MountAccess { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), writable })
}

/// The mount table writes space, tab, newline and backslash as `\` and three octal digits.
fn unescaped(word: &str) -> String {
    let mut parts = word.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(u8::is_ascii) {
            Some(code) => text.extend([&char::from(code).to_string(), &part[3..]]),
            None => text.extend(["\\", part]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mount_table_escapes_are_undone() {
        assert_eq!(unescaped(r"/mnt/my\040pages"), "/mnt/my pages");
        assert_eq!(unescaped(r"a\134b\9\0"), r"a\b\9\0");
        assert_eq!(unescaped(r"\é12"), r"\é12");
    }

    proptest! {
        #[test]
        fn unescaping_never_panics_and_never_grows(word in r"[\\0-9a-zé]{0,20}") {
            prop_assert!(unescaped(&word).len() <= word.len());
        }
    }
}
