//! The command line: words in, one of the library's requests out, tables or JSON back.

#![forbid(unsafe_code)]

mod cli;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use cli::{CheckArgs, Cli, Command, MountArgs, ReleaseArgs, ReserveArgs, UnmountArgs};
use hugepage_setup::check::{self, Check, Facts, NOTE, Request, State};
use hugepage_setup::error::{EXIT_DONE, EXIT_SHORT, Error, Invocation};
use hugepage_setup::inventory::Inventory;
use hugepage_setup::mounts::MountPoint;
use hugepage_setup::names::Table;
use hugepage_setup::plan::Plan;
use hugepage_setup::plan::mounting::{self, MountRequest};
use hugepage_setup::plan::pools::{self, Measure, Release, Reserve};
use hugepage_setup::report;
use hugepage_setup::root::Root;
use hugepage_setup::table::Paint;
use hugepage_setup::{apply, holders, host};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let program = Program {
        name: cli.command.name(),
        called: cli.invocation(),
        root: Root::new(&cli.root),
        json: cli.json,
        paint: Paint(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()),
    };
    let status = match program.run(&cli.command) {
        Ok(status) => status,
        Err(error) => program.complain(&error),
    };
    ExitCode::from(status)
}

/// One run of the program.
struct Program {
    name: &'static str,
    called: Invocation,
    root: Root,
    json: bool,
    paint: Paint,
}

impl Program {
    fn run(&self, command: &Command) -> Result<u8, Error> {
        match command {
            Command::Show => self.show(),
            Command::Reserve(args) => self.change(self.reserve(args)?, args.dry_run),
            Command::Release(args) => self.change(self.release(args)?, args.dry_run),
            Command::Mount(args) => self.change(self.mount(args)?, args.dry_run),
            Command::Unmount(args) => self.change(self.unmount(args)?, args.dry_run),
            Command::Check(args) => self.check(args),
        }
    }

    fn show(&self) -> Result<u8, Error> {
        let inventory = Inventory::read(&self.root)?;
        let holders = holders::read(&self.root, &inventory.mounts)?;
        if self.json {
            let body = json!({ "inventory": inventory, "holders": holders });
            print(&report::document(self.name, EXIT_DONE, body));
        } else {
            print(&report::show(&self.root, &inventory, &holders, self.paint));
        }
        Ok(EXIT_DONE)
    }

    fn reserve(&self, args: &ReserveArgs) -> Result<Plan, Error> {
        let measure = if args.free { Measure::Free } else { Measure::Total };
        let request =
            Reserve { size: args.size, page: args.page, nodes: args.nodes.choice(), measure };
        pools::reserve(&Inventory::read(&self.root)?, &request)
    }

    fn release(&self, args: &ReleaseArgs) -> Result<Plan, Error> {
        let inventory = Inventory::read(&self.root)?;
        if args.orphans {
            inventory.whole(args.page)?;
            return pools::delete_orphans(
                &holders::read(&self.root, &inventory.mounts)?,
                args.page,
            );
        }
        let request = Release { page: args.page, nodes: args.nodes.choice(), keep: args.keep };
        pools::release(&inventory, &request)
    }

    fn mount(&self, args: &MountArgs) -> Result<Plan, Error> {
        let id = |table: Table, name: &Option<String>| {
            name.as_ref().map(|name| table.id(&self.root, name)).transpose()
        };
        let request = MountRequest {
            at: self.root.resolve(&args.at),
            page: args.page,
            mode: args.mode,
            uid: id(Table::User, &args.user)?,
            gid: id(Table::Group, &args.group)?,
        };
        let point = MountPoint::read(&self.root, &request.at)?;
        mounting::mount(&Inventory::read(&self.root)?, &point, &request)
    }

    fn unmount(&self, args: &UnmountArgs) -> Result<Plan, Error> {
        let at = self.root.resolve(&args.at);
        let point = MountPoint::read(&self.root, &at)?;
        let files = match &point {
            MountPoint::Hugepages(mount) => {
                let holders = holders::read(&self.root, std::slice::from_ref(mount))?;
                holders.unread_mounts.is_empty().then_some(holders.orphans.len())
            }
            _ => None,
        };
        mounting::unmount(&point, &at, files)
    }

    /// Shows a plan, carries it out unless this is a dry run, and shows what came of it.
    fn change(&self, plan: Plan, dry_run: bool) -> Result<u8, Error> {
        if !self.json {
            print(&report::plan(&plan, self.paint));
        }
        let done = match dry_run {
            true => Vec::new(),
            false => apply::carry_out(&self.root, &plan, apply::perform)?,
        };
        let short = done.iter().any(|done| done.shortfall.is_some());
        let status = if short { EXIT_SHORT } else { EXIT_DONE };
        if self.json {
            let done = report::done_json(&done, &self.called);
            let body = json!({ "dry_run": dry_run, "plan": plan, "done": done });
            print(&report::document(self.name, status, body));
        } else if dry_run {
            print("dry run: nothing was changed\n");
        } else {
            print(&report::done(&done, &self.called, self.paint));
        }
        Ok(status)
    }

    fn check(&self, args: &CheckArgs) -> Result<u8, Error> {
        let request = Request { page: args.page, need: args.need, nodes: args.nodes.choice() };
        let inventory = Inventory::read(&self.root)?;
        let facts = Facts {
            holders: holders::read(&self.root, &inventory.mounts)?,
            maps_gib_pages: host::maps_gib_pages(&self.root)?,
            group_room: host::group_room(&self.root, args.page)?,
            inventory,
        };
        let checks = check::run(&facts, &request, &self.called)?;
        let failed = |check: &Check| check.state == State::Fail;
        let status = if checks.iter().any(failed) { EXIT_SHORT } else { EXIT_DONE };
        if self.json {
            print(&report::document(self.name, status, json!({ "checks": checks, "note": NOTE })));
        } else {
            print(&report::checks(&checks, self.paint));
        }
        Ok(status)
    }

    fn complain(&self, error: &Error) -> u8 {
        if self.json {
            print(&report::error_document(self.name, error, &self.called));
        } else {
            let paint = Paint(self.paint.0 && io::stderr().is_terminal());
            let text = report::error_text(error, &self.called, paint);
            let _ = io::stderr().write_all(text.as_bytes());
        }
        error.exit_status()
    }
}

/// Standard output may be a pipe whose reader has seen enough; that is no failure of ours.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
