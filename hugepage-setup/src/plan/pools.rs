//! Growing and shrinking pools, and freeing the pages of files that nobody maps.

use std::io;

use crate::error::Error;
use crate::holders::Holders;
use crate::inventory::{Inventory, Node, Pool};
use crate::plan::{Action, Nodes, Plan, Step, select};
use crate::size::{PageSize, Size};

/// What a reservation counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// All pages of the pool, used ones too.
    Total,
    /// Pages the next caller can have.
    Free,
}

/// Make sure a pool is large enough.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Memory per node, rounded up to whole pages.
    pub size: Size,
    /// Which pool.
    pub page: PageSize,
    /// On which nodes.
    pub nodes: Nodes,
    /// What counts towards `size`.
    pub measure: Measure,
}

/// Give back what nobody uses.
#[derive(Debug, Clone)]
pub struct Release {
    /// Which pool.
    pub page: PageSize,
    /// On which nodes.
    pub nodes: Nodes,
    /// Memory per node the pool keeps in any case.
    pub keep: Size,
}

/// Plans a reservation.
///
/// # Errors
/// [`Error::NoSuchPage`], [`Error::NoSuchNode`], [`Error::NodeNeeded`], [`Error::BeyondMemory`].
pub fn reserve(inventory: &Inventory, request: &Reserve) -> Result<Plan, Error> {
    let Reserve { size, page, nodes, measure } = *request;
    let want = page.pages_for(size);
    let asked = page.times(want);
    let mut plan = Plan::default();
    for (node, pool) in select(inventory, page, nodes)? {
        let (have, to, word) = match measure {
            Measure::Total => (pool.persistent(), want, "reserved"),
            Measure::Free => {
                let have = inventory.available(pool);
                // Growing a pool first turns its surplus pages into lasting ones, which frees none:
                // so count from the total, surplus included.
                (have, pool.total.saturating_add(want.saturating_sub(have)), "free")
            }
        };
        let there = page.times(have);
        if have >= want {
            plan.kept.push(format!(
                "node {} has {have} pages of {page} {word} ({there}), {asked} asked for",
                node.id
            ));
            continue;
        }
        fits(node, pool, to)?;
        plan.steps.push(Step {
            action: set_pages(node, pool, to),
            reason: format!("{asked} asked for, {there} {word}"),
        });
    }
    Ok(plan)
}

/// Plans giving pages back to the kernel.
///
/// # Errors
/// [`Error::NoSuchPage`], [`Error::NoSuchNode`], [`Error::NodeNeeded`].
pub fn release(inventory: &Inventory, request: &Release) -> Result<Plan, Error> {
    let Release { page, nodes, keep } = *request;
    let mut plan = Plan::default();
    let mut unpromised = inventory.unpromised(page);
    for (node, pool) in select(inventory, page, nodes)? {
        let spare = pool.persistent().saturating_sub(page.pages_for(keep));
        let give = spare.min(pool.free).min(unpromised);
        let (used, promised) = (pool.used(), pool.free.saturating_sub(unpromised));
        unpromised -= give;
        let state = format!("{used} in use, {promised} promised to a program");
        if give == 0 {
            let total = pool.total;
            plan.kept.push(format!("node {} keeps its {total} pages of {page}: {state}", node.id));
        } else {
            plan.steps.push(Step {
                action: set_pages(node, pool, pool.persistent() - give),
                reason: format!("{give} idle, {state}"),
            });
        }
    }
    Ok(plan)
}

/// Plans deleting the files that nobody maps, in mounts of one page size.
///
/// # Errors
/// [`Error::Denied`] if a mount could not be listed, [`Error::Blind`] if there are such files but not
/// every process could be looked into.
pub fn delete_orphans(holders: &Holders, page: PageSize) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    for orphan in holders.orphans.iter().filter(|orphan| orphan.page == page) {
        plan.steps.push(Step {
            action: Action::DeleteFile { file: orphan.file.clone(), held: orphan.held },
            reason: "no process maps it".to_owned(),
        });
    }
    if let Some(at) = holders.unread_mounts.first() {
        let action = format!("list {}", at.display());
        return Err(Error::Denied { action, source: io::ErrorKind::PermissionDenied.into() });
    }
    if plan.steps.is_empty() {
        plan.kept.push(format!("no file of {page} pages is without a process"));
    } else if holders.unread_processes > 0 {
        return Err(Error::Blind { unread: holders.unread_processes });
    }
    Ok(plan)
}

/// All pools of a node together cannot take more than the node has.
fn fits(node: &Node, grown: &Pool, to: u64) -> Result<(), Error> {
    let others = node.pools.iter().filter(|pool| pool.page != grown.page);
    let others =
        others.fold(0u64, |sum, pool| sum.saturating_add(pool.page.times(pool.total).bytes()));
    let asked = Size::from_bytes(grown.page.times(to).bytes().saturating_add(others));
    if asked > node.memory {
        return Err(Error::BeyondMemory { node: node.id, asked, memory: node.memory });
    }
    Ok(())
}

fn set_pages(node: &Node, pool: &Pool, to: u64) -> Action {
    let (page, from) = (pool.page, pool.persistent());
    Action::SetPages { node: node.id, page, from, to, dir: pool.dir.clone() }
}
