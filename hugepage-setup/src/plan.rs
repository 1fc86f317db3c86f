//! What to change, and why: pure decisions from an inventory and a request.
//!
//! Two rules run through all of it. A request says what must be true afterwards, not what to add,
//! so asking twice changes nothing the second time. And nothing in somebody's hands is touched:
//! `reserve` never lowers a pool, `release` never goes below what is used or promised.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

pub mod mounting;
pub mod pools;

use crate::error::Error;
use crate::inventory::{Inventory, Node, Pool};
use crate::size::{PageSize, Size};

/// Which nodes a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// The one node of a machine that has only one; on others an error, because taking memory
    /// from every node surprises people.
    Sole,
    /// This one.
    Only(u32),
    /// Each of them, on its own.
    Each,
}

/// Steps in the order to take them, and what already is as asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What to do. Empty: nothing is left to do.
    pub steps: Vec<Step>,
    /// What needs no step, in words.
    pub kept: Vec<String>,
}

/// One change with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The change.
    #[serde(flatten)]
    pub action: Action,
    /// Why, in words.
    pub reason: String,
}

/// One change to the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Set the size of a pool.
    SetPages {
        /// The node.
        node: u32,
        /// Size of one page.
        #[serde(rename = "page_bytes")]
        page: PageSize,
        /// Pages in the pool now, without surplus.
        from: u64,
        /// Pages it is to have.
        to: u64,
        /// The pool's directory below the root.
        #[serde(skip)]
        dir: PathBuf,
    },
    /// Delete a file that keeps pages.
    DeleteFile {
        /// Its path.
        file: PathBuf,
        /// Memory that comes free.
        #[serde(rename = "held_bytes")]
        held: Size,
    },
    /// Make the directory to mount on.
    MakeDirectory {
        /// Its path.
        at: PathBuf,
    },
    /// Mount hugetlbfs.
    Mount {
        /// Where.
        at: PathBuf,
        /// Page size of the files.
        #[serde(rename = "page_bytes")]
        page: PageSize,
        /// Permission bits of the top directory.
        mode: u32,
        /// Owner of it, the caller if absent.
        uid: Option<u32>,
        /// Group of it, the caller's if absent.
        gid: Option<u32>,
    },
    /// Unmount hugetlbfs.
    Unmount {
        /// Where.
        at: PathBuf,
    },
}

/// The action as an infinitive: "set ...".
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetPages { node, page, from, to, .. } => {
                let size = page.times(*to);
                write!(f, "set node {node} from {from} to {to} pages of {page} ({size})")
            }
            Self::DeleteFile { file, held } => write!(f, "delete {} ({held})", file.display()),
            Self::MakeDirectory { at } => write!(f, "make the directory {}", at.display()),
            Self::Mount { at, page, mode, .. } => {
                write!(f, "mount {page} pages at {} with mode {mode:o}", at.display())
            }
            Self::Unmount { at } => write!(f, "unmount {}", at.display()),
        }
    }
}

/// The pools a request is about.
///
/// # Errors
/// [`Error::NoSuchPage`], [`Error::NoSuchNode`], [`Error::NodeNeeded`].
pub fn select(
    inventory: &Inventory,
    page: PageSize,
    nodes: Nodes,
) -> Result<Vec<(&Node, &Pool)>, Error> {
    inventory.whole(page)?;
    let pools: Vec<_> = inventory.pools(page).collect();
    let ids = || pools.iter().map(|(node, _)| node.id).collect();
    match nodes {
        Nodes::Each => Ok(pools),
        Nodes::Sole if pools.len() > 1 => Err(Error::NodeNeeded { nodes: ids() }),
        Nodes::Sole => Ok(pools),
        Nodes::Only(id) => match pools.iter().find(|(node, _)| node.id == id) {
            Some(found) => Ok(vec![*found]),
            None => Err(Error::NoSuchNode { node: id, nodes: ids() }),
        },
    }
}
