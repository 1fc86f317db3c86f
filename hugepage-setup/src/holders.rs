//! Who holds hugepages: processes, and files in hugetlbfs mounts that no process maps.
//!
//! ```text
//! /proc/PID/status   Name, HugetlbPages       readable by everybody
//! /proc/PID/maps     device, inode            readable by the owner and root
//! ```
//!
//! A file keeps its pages until it is deleted, so a program that dies, or only forgets, leaves
//! *orphans*: files whose device and inode appear in nobody's maps. A process that has touched no
//! hugepage is taken to map none, so the answer is in doubt only while a process that holds some
//! keeps its maps to itself; and it covers the processes this `/proc` shows: a container does not
//! see its neighbours.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;
use crate::mounts::Mount;
use crate::root::Root;
use crate::size::{PageSize, Size};

/// Most files listed in all mounts together; pools of more 2 MiB pages than this use larger pages.
pub const FILES_MAX: usize = 1 << 16;
/// How deep a mount is searched; Kubernetes nests its volumes a few levels.
pub const DEPTH_MAX: usize = 8;
/// Most bytes of one process's maps that are read: its 65,530 mappings with names of usual length.
const MAPS_LEN_MAX: u64 = 32 << 20;

/// Bytes in a block as `stat` counts them.
const STAT_BLOCK_LEN: u64 = 512;

/// Everybody who holds hugepages, as far as we may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holders {
    /// Processes with hugepages mapped, most memory first.
    pub processes: Vec<Process>,
    /// Files that no process we could read maps.
    pub orphans: Vec<Orphan>,
    /// Processes that may map files we cannot know of; while there are any, an orphan is a guess.
    pub unread_processes: usize,
    /// Mount points whose files we may not list.
    pub unread_mounts: Vec<PathBuf>,
}

/// A process with hugepages mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name, at most 15 bytes as the kernel keeps it.
    pub name: String,
    /// Hugepages of all sizes it has touched.
    #[serde(rename = "held_bytes")]
    pub held: Size,
}

/// A file in a hugetlbfs mount that nobody maps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// Its path.
    pub file: PathBuf,
    /// Size of its pages.
    #[serde(rename = "page_bytes")]
    pub page: PageSize,
    /// Memory it keeps.
    #[serde(rename = "held_bytes")]
    pub held: Size,
}

/// Device and inode, which name a file whatever path a process sees it under.
type FileId = (u64, u64);

/// Looks at all processes and at all files of `mounts`.
///
/// # Errors
/// [`Error::Read`] when `/proc` itself cannot be listed; a process that ends meanwhile is no error.
pub fn read(root: &Root, mounts: &[Mount]) -> Result<Holders, Error> {
    let mut files = Vec::new();
    let mut unread_mounts = Vec::new();
    for mount in mounts {
        if list_files(root, mount, &mount.at, DEPTH_MAX, &mut files).is_err() {
            unread_mounts.push(mount.at.clone());
        }
    }
    // After the files, so that a file made and mapped while we look is not taken for an orphan.
    let mut mapped = HashSet::new();
    let mut processes = Vec::new();
    let mut unread_processes = 0;
    let names = root.names("proc")?;
    for pid in names.iter().filter_map(|name| name.parse().ok()) {
        let status = process(root, pid);
        let holds_none = status.as_ref().is_some_and(|process| process.held == Size::default());
        match read_maps(&root.at(format!("proc/{pid}/maps")), &mut mapped) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !holds_none => {
                unread_processes += 1;
            }
            _ => {} // read, or ended meanwhile, or of no interest
        }
        processes.extend(status.filter(|_| !holds_none));
    }
    processes.sort_by(|a, b| b.held.cmp(&a.held).then(a.pid.cmp(&b.pid)));
    // `insert` also drops a file met twice through two mounts of one file system.
    files.retain(|(id, _)| mapped.insert(*id));
    let orphans = files.into_iter().map(|(_, orphan)| orphan).collect();
    Ok(Holders { processes, orphans, unread_processes, unread_mounts })
}

/// The process, if it still runs. Kernel threads have no memory of their own and so no such line.
fn process(root: &Root, pid: u32) -> Option<Process> {
    let status = root.text(format!("proc/{pid}/status")).ok()?;
    let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name)).map(str::trim);
    let held = field("HugetlbPages:")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(Process { pid, name: field("Name:")?.to_owned(), held: Size::from_kib(held) })
}

fn read_maps(file: &Path, mapped: &mut HashSet<FileId>) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(file)?.take(MAPS_LEN_MAX));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        mapped.extend(mapped_file(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    Ok(())
}

/// The file behind a line such as `7f00-7f20 rw-s 0 00:2f 1234 /dev/hugepages/rtemap_0`.
fn mapped_file(line: &str) -> Option<FileId> {
    let mut words = line.split_whitespace().skip(3);
    let (major, minor) = words.next()?.split_once(':')?;
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    let inode = words.next()?.parse().ok().filter(|inode| *inode != 0)?; // 0: no file at all
    Some((rustix::fs::makedev(number(major)?, number(minor)?), inode))
}

/// Adds every file below `dir`, mapped or not.
fn list_files(
    root: &Root,
    mount: &Mount,
    dir: &Path,
    depth: usize,
    files: &mut Vec<(FileId, Orphan)>,
) -> Result<(), Error> {
    for name in root.names(dir)? {
        let file = dir.join(name);
        // Not following links, so there is no loop; a file deleted meanwhile is no error.
        let Ok(meta) = fs::symlink_metadata(root.at(&file)) else {
            continue;
        };
        if meta.is_dir() && depth > 0 {
            list_files(root, mount, &file, depth - 1, files)?;
        } else if meta.is_file() && files.len() < FILES_MAX {
            let held = Size::from_bytes(meta.blocks().saturating_mul(STAT_BLOCK_LEN));
            files.push(((meta.dev(), meta.ino()), Orphan { file, page: mount.page, held }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mapped_file_is_known_by_device_and_inode() {
        let line = "7f0000000000-7f0000200000 rw-s 00000000 00:2f 1234  /dev/hugepages/rtemap_0";
        assert_eq!(mapped_file(line), Some((rustix::fs::makedev(0, 0x2f), 1234)));
    }

    #[test]
    fn memory_without_a_file_maps_nothing() {
        assert_eq!(mapped_file("7f00-7f20 rw-p 00000000 00:00 0  [heap]"), None);
        assert_eq!(mapped_file("7f00-7f20 rw-p"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_a_file_or_none(line in "[0-9a-f: -]{0,60}") {
            if let Some((_, inode)) = mapped_file(&line) {
                prop_assert_ne!(inode, 0);
            }
        }
    }
}
