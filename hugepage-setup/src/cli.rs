//! The words of the command line, and the help that explains them.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use hugepage_setup::error::{Invocation, quoted};
use hugepage_setup::plan::Nodes;
use hugepage_setup::size::{PageSize, Size};

const EXAMPLES: &str = "\
Examples:
  hugepage-setup show                          what there is, and who holds it
  sudo hugepage-setup reserve 1G               at least 1 GiB in 2 MiB pages
  sudo hugepage-setup reserve 4G --page 1G --node 1
  hugepage-setup check --need 512M             would a program get 512 MiB?
  sudo hugepage-setup release                  give back what nobody uses

Exit status:
  0  everything is as asked
  1  a check failed, or the kernel gave fewer pages than asked for
  2  the command line makes no sense here
  3  no permission, or the machine refused

Reservations last until the machine restarts. Only file-backed programs need a mount; DPDK's
--in-memory does not, and with --no-huge no hugepages are needed at all.";

const RESERVE_HELP: &str = "\
Makes sure the pool of a node has at least SIZE. Asking twice changes nothing the second time, and a
pool that is larger already stays so. With --free, SIZE must be free, whatever others use.

Several NUMA nodes: name one with --node (the node of the network card and its cores), or take SIZE
on each of them with --all-nodes. SIZE is always per node.

If the kernel gives fewer pages, those stay reserved, the exit status is 1, and the cause and the
command to try are printed; 'release' gives them back.

Examples:
  sudo hugepage-setup reserve 1G
  sudo hugepage-setup reserve 512M --free --node 0
  hugepage-setup reserve 2G --page 1G --dry-run";

const RELEASE_HELP: &str = "\
Gives back to the kernel the pages nobody uses: never a page in use, nor one promised to a program.
The pool is chosen as with 'reserve', so the same options undo it.

With --orphans, deletes instead the files in hugetlbfs mounts that no process maps; their pages are
then free. In a container this sees the container's processes only.

Examples:
  sudo hugepage-setup release                   all idle 2 MiB pages of the only node
  sudo hugepage-setup release --keep 512M --all-nodes
  sudo hugepage-setup release --orphans         files a dead program left behind";

const MOUNT_HELP: &str = "\
Examples:
  sudo hugepage-setup mount --user \"$(id -u)\"    for your own programs
  sudo hugepage-setup mount --group dpdk --mode 1770
  sudo hugepage-setup mount --page 1G --at /dev/hugepages-1G";

/// Shows, reserves and gives back hugepages, per NUMA node, and says why when it cannot.
#[derive(Debug, Parser)]
#[command(name = "hugepage-setup", version, after_help = EXAMPLES, args_override_self = true)]
pub(crate) struct Cli {
    /// Directory that stands for /, for rescue systems and tests
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "/",
        hide_default_value = true,
        display_order = 90
    )]
    pub(crate) root: PathBuf,

    /// Print one JSON document instead of text, errors included
    #[arg(long, global = true, display_order = 91)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show pools, mounts, and who holds pages
    Show,
    /// Make sure at least SIZE is reserved
    #[command(after_help = RESERVE_HELP, args_override_self = true)]
    Reserve(ReserveArgs),
    /// Give back what nobody uses
    #[command(after_help = RELEASE_HELP, args_override_self = true)]
    Release(ReleaseArgs),
    /// Make sure hugepages are mounted, for programs that keep them in files
    #[command(after_help = MOUNT_HELP, args_override_self = true)]
    Mount(MountArgs),
    /// Make sure nothing is mounted there
    #[command(args_override_self = true)]
    Unmount(UnmountArgs),
    /// Say whether a program would get its hugepages, and if not, why
    #[command(args_override_self = true)]
    Check(CheckArgs),
}

/// Which nodes.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// This NUMA node [default: the only one]
    #[arg(long, value_name = "N", conflicts_with = "all_nodes")]
    node: Option<u32>,

    /// Each NUMA node on its own
    #[arg(long)]
    all_nodes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReserveArgs {
    /// Memory per node, such as 512M or 2G; rounded up to whole pages
    #[arg(value_parser = some_size)]
    pub(crate) size: Size,

    /// Page size, 2M or 1G
    #[arg(long, value_name = "SIZE", default_value = "2M")]
    pub(crate) page: PageSize,

    /// SIZE must be free, not only reserved
    #[arg(long)]
    pub(crate) free: bool,

    #[command(flatten)]
    pub(crate) nodes: NodeArgs,

    /// Print the plan and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// Page size, 2M or 1G
    #[arg(long, value_name = "SIZE", default_value = "2M")]
    pub(crate) page: PageSize,

    /// Keep at least this much per node
    #[arg(long, value_name = "SIZE", default_value = "0M", hide_default_value = true)]
    pub(crate) keep: Size,

    /// Delete the files no process maps instead
    #[arg(long, conflicts_with_all = ["keep", "node", "all_nodes"])]
    pub(crate) orphans: bool,

    #[command(flatten)]
    pub(crate) nodes: NodeArgs,

    /// Print the plan and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// Page size, 2M or 1G
    #[arg(long, value_name = "SIZE", default_value = "2M")]
    pub(crate) page: PageSize,

    /// Where; made if it does not exist
    #[arg(long, value_name = "DIR", default_value = "/dev/hugepages", value_parser = mount_path)]
    pub(crate) at: PathBuf,

    /// Permissions in octal [default: 1770]
    #[arg(long, value_parser = octal_mode)]
    pub(crate) mode: Option<u32>,

    /// Owner, a name or a number [default: the caller, root under sudo]
    #[arg(long)]
    pub(crate) user: Option<String>,

    /// Group, a name or a number [default: the caller's]
    #[arg(long)]
    pub(crate) group: Option<String>,

    /// Print the plan and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Where
    #[arg(long, value_name = "DIR", default_value = "/dev/hugepages", value_parser = mount_path)]
    pub(crate) at: PathBuf,

    /// Print the plan and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Memory that must be free on one node (on each with --all-nodes)
    #[arg(long, value_name = "SIZE", value_parser = some_size)]
    pub(crate) need: Option<Size>,

    /// Page size, 2M or 1G
    #[arg(long, value_name = "SIZE", default_value = "2M")]
    pub(crate) page: PageSize,

    #[command(flatten)]
    pub(crate) nodes: NodeArgs,
}

impl Cli {
    /// How we were called, for advice that can be pasted. A program given by path keeps its path,
    /// because `sudo` looks elsewhere for bare names.
    pub(crate) fn invocation(&self) -> Invocation {
        let words: Vec<String> =
            std::env::args_os().map(|word| quoted(&word.to_string_lossy())).collect();
        let program = words.first().map_or("hugepage-setup", String::as_str);
        let program = match self.root.to_string_lossy() {
            root if root == "/" => program.to_owned(),
            root => format!("{program} --root {}", quoted(&root)),
        };
        let as_root = rustix::process::geteuid().is_root();
        Invocation { program, line: words.join(" "), as_root }
    }
}

impl Command {
    /// The word that names it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Show => "show",
            Self::Reserve(_) => "reserve",
            Self::Release(_) => "release",
            Self::Mount(_) => "mount",
            Self::Unmount(_) => "unmount",
            Self::Check(_) => "check",
        }
    }
}

impl NodeArgs {
    /// What the options mean together.
    pub(crate) fn choice(&self) -> Nodes {
        match (self.node, self.all_nodes) {
            (Some(node), _) => Nodes::Only(node),
            (None, true) => Nodes::Each,
            (None, false) => Nodes::Sole,
        }
    }
}

fn some_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error| format!("{error}"))?;
    if size.bytes() == 0 { Err("ask for more than nothing".to_owned()) } else { Ok(size) }
}

fn mount_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs {
        return Err("write the whole path, from / and without ..".to_owned());
    }
    Ok(path.components().collect()) // drops a slash at the end, which the mount table has not
}

fn octal_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o1777);
    mode.ok_or_else(|| "write an octal mode such as 1770 or 700".to_owned())
}
