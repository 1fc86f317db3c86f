//! What the kernel has: pools per node and page size.
//!
//! ```text
//! /sys/devices/system/node/node0/hugepages/hugepages-2048kB/{nr,free,surplus}_hugepages
//! /sys/devices/system/node/node0/meminfo                    MemTotal, MemFree
//! /sys/kernel/mm/hugepages/hugepages-2048kB/{resv,nr_overcommit}_hugepages   whole machine only
//! ```
//!
//! A kernel without NUMA has no node directories; its one pool per size then counts as node 0.
//! The counters are separate files, so they need not agree to the page while others allocate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;
use crate::mounts::{self, Mount};
use crate::root::{Root, malformed};
use crate::size::{BYTES_MAX, PageSize, Size};

/// Most memory nodes read; the kernel's own limit is 1024.
pub const NODES_MAX: usize = 1024;

const _: () = assert!(BYTES_MAX.checked_mul(NODES_MAX as u64).is_some());

const NODES_DIR: &str = "sys/devices/system/node";
const WHOLE_DIR: &str = "sys/kernel/mm/hugepages";

/// Everything the planner decides from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Nodes that have memory, by number.
    pub nodes: Vec<Node>,
    /// Per page size, what the kernel counts for the whole machine only.
    pub whole: Vec<Whole>,
    /// hugetlbfs mounts, in the order they were made.
    pub mounts: Vec<Mount>,
}

/// One NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The kernel's number.
    pub id: u32,
    /// All memory of the node, hugepages included.
    #[serde(rename = "memory_bytes")]
    pub memory: Size,
    /// Memory of the node that holds nothing at all, caches not counted.
    #[serde(rename = "memory_free_bytes")]
    pub memory_free: Size,
    /// One pool per page size, smallest first.
    pub pools: Vec<Pool>,
}

/// The hugepages of one size on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Size of one page.
    #[serde(rename = "page_bytes")]
    pub page: PageSize,
    /// Pages there are, surplus included.
    pub total: u64,
    /// Pages nobody has touched; some may be promised (see [`Whole::reserved`]).
    pub free: u64,
    /// Pages beyond the pool, which vanish when their user lets go.
    pub surplus: u64,
    /// The pool's directory below the root.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// The counters of one page size that no node has of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Whole {
    /// Size of one page.
    #[serde(rename = "page_bytes")]
    pub page: PageSize,
    /// Free pages promised to a mapping that has not touched them yet.
    pub reserved: u64,
    /// Surplus pages the kernel may add on demand.
    pub overcommit: u64,
}

impl Pool {
    /// Pages in somebody's hands.
    pub fn used(&self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    /// Pages that stay in the pool when their user lets go; what `nr_hugepages` sets.
    pub fn persistent(&self) -> u64 {
        self.total.saturating_sub(self.surplus)
    }

    /// The file that sets the pool's size, below the root.
    pub fn size_file(&self) -> PathBuf {
        self.dir.join("nr_hugepages")
    }

    /// Reads the counters of one pool.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Malformed`], also for more pages than an address can reach.
    pub fn read(root: &Root, dir: &Path, page: PageSize) -> Result<Self, Error> {
        let count = |name: &str| pages(root, &dir.join(name), page);
        Ok(Self {
            page,
            total: count("nr_hugepages")?,
            free: count("free_hugepages")?,
            surplus: count("surplus_hugepages")?,
            dir: dir.to_owned(),
        })
    }
}

impl Node {
    /// The pool of one page size.
    pub fn pool(&self, page: PageSize) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.page == page)
    }

    /// Total and free memory of the node `id`, or of the machine where there are no nodes.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Malformed`].
    pub fn read_memory(root: &Root, id: u32) -> Result<(Size, Size), Error> {
        let of_node = Path::new(NODES_DIR).join(format!("node{id}/meminfo"));
        let file = if root.at(&of_node).exists() { of_node } else { "proc/meminfo".into() };
        let text = root.text(&file)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.split_once(name));
            let kib = line.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
            kib.map(Size::from_kib).ok_or_else(|| malformed(&root.at(&file), "meminfo", &text))
        };
        Ok((field("MemTotal:")?, field("MemFree:")?))
    }

    fn read(root: &Root, id: u32, dir: &Path) -> Result<Self, Error> {
        let (memory, memory_free) = Self::read_memory(root, id)?;
        let pools = page_sizes(root, dir)?
            .into_iter()
            .map(|(page, dir)| Pool::read(root, &dir, page))
            .collect::<Result<_, _>>()?;
        Ok(Self { id, memory, memory_free, pools })
    }
}

impl Inventory {
    /// Reads everything.
    ///
    /// # Errors
    /// [`Error::NoHugepages`], [`Error::Read`], [`Error::Malformed`].
    pub fn read(root: &Root) -> Result<Self, Error> {
        if !root.at(WHOLE_DIR).is_dir() {
            return Err(Error::NoHugepages);
        }
        Ok(Self {
            nodes: nodes(root)?,
            whole: whole(root)?,
            mounts: mounts::hugepage_mounts(root)?,
        })
    }

    /// The whole-machine counters of one page size.
    ///
    /// # Errors
    /// [`Error::NoSuchPage`].
    pub fn whole(&self, page: PageSize) -> Result<&Whole, Error> {
        self.whole.iter().find(|whole| whole.page == page).ok_or_else(|| Error::NoSuchPage {
            page,
            offered: self.whole.iter().map(|whole| whole.page).collect(),
        })
    }

    /// Pages of this pool that the next caller can have: free, and promised to nobody.
    ///
    /// The kernel keeps promises for the whole machine, so they are held against every pool.
    pub fn available(&self, pool: &Pool) -> u64 {
        pool.free.min(self.unpromised(pool.page))
    }

    /// Free pages of one size on all nodes, without those promised to a mapping.
    pub fn unpromised(&self, page: PageSize) -> u64 {
        let free: u64 = self.pools(page).map(|(_, pool)| pool.free).sum();
        let reserved = self.whole.iter().find(|whole| whole.page == page);
        free.saturating_sub(reserved.map_or(0, |whole| whole.reserved))
    }

    /// Nodes that have a pool of this page size, with that pool.
    pub fn pools(&self, page: PageSize) -> impl Iterator<Item = (&Node, &Pool)> {
        self.nodes.iter().filter_map(move |node| Some((node, node.pool(page)?)))
    }
}

fn nodes(root: &Root) -> Result<Vec<Node>, Error> {
    let names = if root.at(NODES_DIR).is_dir() { root.names(NODES_DIR)? } else { Vec::new() };
    let ids = names.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok());
    let mut dirs: BTreeMap<u32, PathBuf> = ids
        .map(|id: u32| (id, Path::new(NODES_DIR).join(format!("node{id}/hugepages"))))
        .filter(|(_, dir)| root.at(dir).is_dir())
        .take(NODES_MAX)
        .collect();
    if dirs.is_empty() {
        dirs.insert(0, WHOLE_DIR.into());
    }
    let mut nodes = Vec::new();
    for (id, dir) in dirs {
        let node = Node::read(root, id, &dir)?;
        if node.memory > Size::default() {
            nodes.push(node); // a node of CPUs alone can hold no pages
        }
    }
    Ok(nodes)
}

fn whole(root: &Root) -> Result<Vec<Whole>, Error> {
    let read = |(page, dir): (PageSize, PathBuf)| {
        Ok(Whole {
            page,
            reserved: pages(root, &dir.join("resv_hugepages"), page)?,
            overcommit: pages(root, &dir.join("nr_overcommit_hugepages"), page)?,
        })
    };
    page_sizes(root, Path::new(WHOLE_DIR))?.into_iter().map(read).collect()
}

/// Page sizes with a directory in `dir`, smallest first.
fn page_sizes(root: &Root, dir: &Path) -> Result<Vec<(PageSize, PathBuf)>, Error> {
    let names = root.names(dir)?;
    let sizes =
        names.iter().filter_map(|name| Some((PageSize::from_directory(name)?, dir.join(name))));
    Ok(sizes.collect::<BTreeMap<_, _>>().into_iter().collect())
}

/// A count of pages that make an amount of memory that can exist.
fn pages(root: &Root, file: &Path, page: PageSize) -> Result<u64, Error> {
    let count = root.count(file)?;
    match count.checked_mul(page.bytes()) {
        Some(bytes) if bytes <= BYTES_MAX => Ok(count),
        _ => Err(malformed(&root.at(file), "a possible count of pages", &count.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_disagree_give_no_negative_use() {
        let pool =
            Pool { page: PageSize::TWO_MIB, total: 1, free: 3, surplus: 2, dir: PathBuf::new() };
        assert_eq!((pool.used(), pool.persistent()), (0, 0));
    }
}
