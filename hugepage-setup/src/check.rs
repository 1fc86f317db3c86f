//! Whether a program could have its hugepages: pure verdicts, each with cause and command.
//!
//! A *fail* stops a program that asks for hugepages of this size; a *warn* stops some programs, or
//! costs memory; nothing here stops a program that asks for none.

use serde::Serialize;

use crate::error::{Error, Invocation, quoted_path};
use crate::holders::Holders;
use crate::host::GroupRoom;
use crate::inventory::{Inventory, Node, Pool};
use crate::mounts::MountAccess;
use crate::plan::{Nodes, select};
use crate::size::{PageSize, Size};

/// What every run of `check` ends with.
pub const NOTE: &str =
    "Nothing in this project needs hugepages to be tried: without them, EAL takes --no-huge.";

/// What to reserve when the user did not say: enough for a first run of any of our programs.
const EXAMPLE: Size = Size::from_bytes(512 << 20);

/// Most orphan files named in a cause.
const FILES_NAMED: usize = 3;

/// What is to be checked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which pool.
    pub page: PageSize,
    /// Memory that must be free; `None` asks only that something is.
    pub need: Option<Size>,
    /// Where. [`Nodes::Sole`] on a machine of several means: on some one node.
    pub nodes: Nodes,
}

/// What the verdicts are taken from.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Pools and mounts.
    pub inventory: Inventory,
    /// Processes and orphan files.
    pub holders: Holders,
    /// See [`crate::host::maps_gib_pages`].
    pub maps_gib_pages: Option<bool>,
    /// See [`crate::host::group_room`].
    pub group_room: Option<GroupRoom>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Stops some programs, or costs memory.
    Warn,
    /// Stops a program that asks for these hugepages.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A stable name.
    pub name: &'static str,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub cause: String,
    /// The one command that helps, if any is needed.
    pub command: Option<String>,
}

/// Runs every check.
///
/// # Errors
/// [`Error::NoSuchNode`]. A missing page size is a failed check, not an error.
pub fn run(facts: &Facts, request: &Request, called: &Invocation) -> Result<Vec<Check>, Error> {
    let inventory = &facts.inventory;
    let mut checks = Vec::new();
    if request.page == PageSize::ONE_GIB {
        checks.extend(facts.maps_gib_pages.map(cpu));
    }
    if let Err(error) = inventory.whole(request.page) {
        checks.push(fail("pages", error.to_string(), error.command(called)));
        return Ok(checks);
    }
    checks.extend(pages(inventory, request, called)?);
    checks.push(group(facts.group_room.as_ref(), request, called));
    checks.push(mount(inventory, request.page, called));
    checks.push(leftovers(&facts.holders, request.page, called));
    Ok(checks)
}

fn cpu(maps_gib_pages: bool) -> Check {
    if maps_gib_pages {
        ok("cpu", "maps 1G pages (flag pdpe1gb)".to_owned())
    } else {
        let cause = "has no flag pdpe1gb, so it cannot map 1G pages; in a virtual machine the host \
                     may hide it. Use 2M pages";
        fail("cpu", cause.to_owned(), None)
    }
}

fn pages(
    inventory: &Inventory,
    request: &Request,
    called: &Invocation,
) -> Result<Vec<Check>, Error> {
    let Request { page, need, nodes } = *request;
    let somewhere = nodes == Nodes::Sole;
    let pools = select(inventory, page, if somewhere { Nodes::Each } else { nodes })?;
    let verdict = |(node, pool): &(&Node, &Pool)| pool_check(inventory, node, pool, need, called);
    if !somewhere {
        return Ok(pools.iter().map(verdict).collect());
    }
    let best =
        pools.iter().max_by_key(|(node, pool)| (inventory.available(pool), u32::MAX - node.id));
    Ok(best.map(verdict).into_iter().collect()) // on some one node: the fullest speaks for all
}

fn pool_check(
    inventory: &Inventory,
    node: &Node,
    pool: &Pool,
    need: Option<Size>,
    called: &Invocation,
) -> Check {
    let (page, available) = (pool.page, inventory.available(pool));
    let (total, used) = (pool.total, pool.used());
    let found = format!(
        "node {} has {} free in {page} pages ({available} of {total}, {used} in use)",
        node.id,
        page.times(available),
    );
    let reserve = |size: Size| {
        let (sudo, program) = (called.sudo(), &called.program);
        Some(format!(
            "{sudo}{program} reserve {} --free --page {page} --node {}",
            exact(size),
            node.id
        ))
    };
    match need {
        None if available == 0 => {
            warn("pages", found, reserve(page.times(page.pages_for(EXAMPLE))))
        }
        None => ok("pages", found),
        Some(need) if available < page.pages_for(need) => {
            fail("pages", format!("{found}, {need} needed"), reserve(need))
        }
        Some(need) => ok("pages", format!("{found}, {need} needed")),
    }
}

/// A size that parses back to the same amount; only exact ones print without a fraction.
fn exact(size: Size) -> String {
    let text = size.to_string();
    match text.parse::<Size>() {
        Ok(same) if same == size => text,
        _ => format!("{}K", size.bytes().div_ceil(1024)),
    }
}

fn group(room: Option<&GroupRoom>, request: &Request, called: &Invocation) -> Check {
    let Some(GroupRoom { left, limit_file }) = room else {
        return ok("cgroup", format!("no control group limits {} pages", request.page));
    };
    let found = format!("{} leaves {left}", limit_file.display());
    let command = Some(format!("echo max | {}tee {}", called.sudo(), quoted_path(limit_file)));
    let advice = "outside a container lift it; in a pod raise the hugepages limit";
    match request.need {
        Some(need) if *left < need => {
            fail("cgroup", format!("{found}, {need} needed: {advice}"), command)
        }
        None if left.bytes() < request.page.bytes() => {
            warn("cgroup", format!("{found}, less than one page: {advice}"), command)
        }
        _ => ok("cgroup", found),
    }
}

fn mount(inventory: &Inventory, page: PageSize, called: &Invocation) -> Check {
    const FILES_ONLY: &str = "needed by file-backed programs only, not with --in-memory";
    let (sudo, program) = (called.sudo(), &called.program);
    let mounts = || inventory.mounts.iter().filter(|mount| mount.page == page);
    let writable = |access: &MountAccess| access.writable;
    if let Some(mount) = mounts().find(|mount| mount.access.as_ref().is_some_and(writable)) {
        return ok("mount", format!("{} takes {page} pages and is writable", mount.at.display()));
    }
    if let Some(mount) = mounts().next() {
        let cause = format!("{} is not writable by this user; {FILES_ONLY}", mount.at.display());
        let command = format!("{sudo}chown \"$(id -u)\" {}", quoted_path(&mount.at));
        return warn("mount", cause, Some(command));
    }
    let at = if page == PageSize::TWO_MIB {
        String::new()
    } else {
        format!(" --at /dev/hugepages-{page}")
    };
    let command = format!("{sudo}{program} mount --page {page}{at} --user \"$(id -u)\"");
    warn("mount", format!("no mount takes {page} pages; {FILES_ONLY}"), Some(command))
}

fn leftovers(holders: &Holders, page: PageSize, called: &Invocation) -> Check {
    let orphans: Vec<_> = holders.orphans.iter().filter(|orphan| orphan.page == page).collect();
    if orphans.is_empty() {
        let cause = match holders.unread_mounts.first() {
            None => "no file keeps pages without a process".to_owned(),
            Some(at) => format!("{} may not be listed by this user", at.display()),
        };
        return ok("leftovers", cause);
    }
    let held = orphans.iter().fold(0u64, |sum, orphan| sum.saturating_add(orphan.held.bytes()));
    let held = Size::from_bytes(held);
    let shown = orphans.iter().take(FILES_NAMED);
    let mut files: Vec<_> = shown.map(|orphan| orphan.file.display().to_string()).collect();
    if orphans.len() > FILES_NAMED {
        files.push(format!("{} more", orphans.len() - FILES_NAMED));
    }
    let sure = if holders.unread_processes == 0 { "" } else { " we may look into" };
    let cause = format!("files no process{sure} maps keep {held}: {}", files.join(", "));
    let (sudo, program) = (called.sudo(), &called.program);
    warn("leftovers", cause, Some(format!("{sudo}{program} release --orphans --page {page}")))
}

fn ok(name: &'static str, cause: String) -> Check {
    Check { name, state: State::Ok, cause, command: None }
}

fn warn(name: &'static str, cause: String, command: Option<String>) -> Check {
    Check { name, state: State::Warn, cause, command }
}

fn fail(name: &'static str, cause: String, command: Option<String>) -> Check {
    Check { name, state: State::Fail, cause, command }
}
