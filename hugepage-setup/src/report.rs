//! What is printed: lines and tables for people, one JSON document for programs.
//!
//! JSON goes to standard output whatever happens, errors included, and always has `schema`,
//! `command` and `status`. Fields are added without notice; when one changes its meaning or goes,
//! [`SCHEMA`] grows.

use serde::Serialize;
use serde_json::{Value, json};

use crate::apply::Done;
use crate::check::{Check, NOTE, State};
use crate::error::{Error, Invocation};
use crate::holders::Holders;
use crate::inventory::{Inventory, Node, Pool};
use crate::mounts::Mount;
use crate::names::Table as Names;
use crate::plan::{Action, Plan};
use crate::root::Root;
use crate::table::{Paint, Table};

/// Version of the JSON output.
pub const SCHEMA: u32 = 1;

/// Rows of processes and files shown before the rest is summed up; JSON has them all.
const ROWS_MAX: usize = 12;

/// A JSON document of one command, with `body`'s fields at the top level.
pub fn document(command: &str, status: u8, body: impl Serialize) -> String {
    let mut document = json!({ "schema": SCHEMA, "command": command, "status": status });
    let body = serde_json::to_value(body).expect("our types have text keys and no failing parts");
    if let (Value::Object(document), Value::Object(body)) = (&mut document, body) {
        document.extend(body);
    }
    format!("{document:#}\n")
}

/// What came of a plan, for programs.
pub fn done_json(done: &[Done], called: &Invocation) -> Value {
    let entry = |done: &Done| {
        let mut entry = json!(done);
        if let Some(shortfall) = &done.shortfall {
            entry["shortfall"]["cause"] = json!(shortfall.cause());
            entry["shortfall"]["command"] = json!(shortfall.command(called));
        }
        entry
    };
    done.iter().map(entry).collect()
}

/// An error for programs.
pub fn error_document(command: &str, error: &Error, called: &Invocation) -> String {
    let body = json!({ "error": {
        "kind": error.kind(), "cause": error.cause(), "command": error.command(called),
    }});
    document(command, error.exit_status(), body)
}

/// An error for people: the cause, then the command.
pub fn error_text(error: &Error, called: &Invocation, paint: Paint) -> String {
    let advice = match error {
        Error::Denied { .. } | Error::Blind { .. } if called.as_root => {
            Some("even root may not do this here, as in a container: do it on the host".to_owned())
        }
        _ => error.command(called).map(|command| format!("try: {command}")),
    };
    let advice = advice.map_or_else(String::new, |advice| format!("  {advice}\n"));
    format!("{} {}\n{advice}", paint.red("error:"), error.cause())
}

/// Everything `show` prints.
pub fn show(root: &Root, inventory: &Inventory, holders: &Holders, paint: Paint) -> String {
    let mut text = pools(inventory, paint);
    text += &section(paint, "MOUNTS", mounts(root, &inventory.mounts));
    text += &section(paint, "PROCESSES", processes(holders));
    text += &section(paint, "FILES NO PROCESS MAPS", orphans(holders));
    for at in &holders.unread_mounts {
        text += &format!("may not be listed by this user: {}\n", at.display());
    }
    if holders.unread_processes > 0 {
        let unread = holders.unread_processes;
        text += &format!("processes that map files unseen by this user: {unread}\n");
    }
    text
}

/// A plan, before it is carried out.
pub fn plan(plan: &Plan, paint: Paint) -> String {
    let mut text = String::new();
    for kept in &plan.kept {
        text += &format!("{}  {kept}\n", state_word(paint, State::Ok));
    }
    for step in &plan.steps {
        text += &format!("{}  {}: {}\n", paint.cyan("plan"), step.action, step.reason);
    }
    text
}

/// What came of a plan.
pub fn done(done: &[Done], called: &Invocation, paint: Paint) -> String {
    let mut text = String::new();
    for Done { step, pool, shortfall } in done {
        let state = match (&step.action, pool) {
            (Action::SetPages { node, .. }, Some(pool)) => now(*node, pool),
            (action, _) => action.to_string(),
        };
        let Some(shortfall) = shortfall else {
            text += &format!("{}  {state}\n", paint.green("done"));
            continue;
        };
        text += &format!("{}  {state}\n", paint.red("less"));
        text += &format!("      {}\n      try: {}\n", shortfall.cause(), shortfall.command(called));
    }
    text
}

/// The checks, the commands that help, and the verdict.
pub fn checks(checks: &[Check], paint: Paint) -> String {
    let mut text = String::new();
    for Check { name, state, cause, command } in checks {
        text += &format!("{}  {name:<11}{cause}\n", state_word(paint, *state));
        if let Some(command) = command {
            text += &format!("      try: {command}\n");
        }
    }
    text + NOTE + "\n"
}

fn now(node: u32, pool: &Pool) -> String {
    let Pool { page, total, free, .. } = pool;
    let size = page.times(*total);
    format!("node {node} now has {total} pages of {page} ({size}), {free} of them free")
}

fn pools(inventory: &Inventory, paint: Paint) -> String {
    let mut table = Table::new("NODE PAGE TOTAL FREE USED RESERVED SURPLUS SIZE MEMORY-FREE");
    let several = inventory.nodes.len() > 1;
    for Node { id, memory, memory_free, pools } in &inventory.nodes {
        for pool in pools {
            let whole = inventory.whole.iter().find(|whole| whole.page == pool.page);
            let reserved = whole.filter(|_| !several).map(|whole| whole.reserved);
            let memory = format!("{memory_free} of {memory}");
            table.row(pool_row(&id.to_string(), pool, reserved, memory));
        }
    }
    for whole in inventory.whole.iter().filter(|_| several) {
        let mut sum = Pool { page: whole.page, total: 0, free: 0, surplus: 0, dir: "".into() };
        for (_, pool) in inventory.pools(whole.page) {
            sum.total += pool.total;
            sum.free += pool.free;
            sum.surplus += pool.surplus;
        }
        table.row(pool_row("all", &sum, Some(whole.reserved), String::new()));
    }
    table.print(paint)
}

fn pool_row(node: &str, pool: &Pool, reserved: Option<u64>, memory: String) -> Vec<String> {
    let reserved = reserved.map_or_else(|| "-".to_owned(), |pages| pages.to_string());
    let mut row = vec![node.to_owned(), pool.page.to_string()];
    row.extend([pool.total, pool.free, pool.used()].map(|pages| pages.to_string()));
    row.extend([
        reserved,
        pool.surplus.to_string(),
        pool.page.times(pool.total).to_string(),
        memory,
    ]);
    row
}

fn mounts(root: &Root, mounts: &[Mount]) -> Option<Table> {
    let mut table = Table::new("PAGE LIMIT MODE OWNER WRITABLE PATH");
    for Mount { at, page, limit, access } in mounts {
        let unknown = || "?".to_owned();
        let access = access.as_ref();
        let owner = access.map(|access| {
            let user = Names::User.name(root, access.uid);
            format!("{user}:{}", Names::Group.name(root, access.gid))
        });
        table.row(vec![
            page.to_string(),
            limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
            access.map_or_else(unknown, |access| format!("{:o}", access.mode)),
            owner.unwrap_or_else(unknown),
            access.map_or_else(unknown, |access| {
                if access.writable { "yes" } else { "no" }.to_owned()
            }),
            at.display().to_string(),
        ]);
    }
    table.filled()
}

fn processes(holders: &Holders) -> Option<Table> {
    let mut table = Table::new("HELD PID NAME");
    for process in holders.processes.iter().take(ROWS_MAX) {
        let name = printable(&process.name);
        table.row(vec![process.held.to_string(), process.pid.to_string(), name]);
    }
    let rest = holders.processes.iter().skip(ROWS_MAX).map(|process| process.held);
    table.rest(rest, |count| vec![String::new(), format!("{count} more")]);
    table.filled()
}

fn orphans(holders: &Holders) -> Option<Table> {
    let mut table = Table::new("HELD PAGE FILE");
    for orphan in holders.orphans.iter().take(ROWS_MAX) {
        let file = printable(&orphan.file.to_string_lossy());
        table.row(vec![orphan.held.to_string(), orphan.page.to_string(), file]);
    }
    let rest = holders.orphans.iter().skip(ROWS_MAX).map(|orphan| orphan.held);
    table.rest(rest, |count| vec![String::new(), format!("{count} more")]);
    table.filled()
}

fn state_word(paint: Paint, state: State) -> String {
    match state {
        State::Ok => paint.green("ok  "),
        State::Warn => paint.yellow("warn"),
        State::Fail => paint.red("fail"),
    }
}

/// Names are chosen by whoever runs a program or makes a file: keep their escapes off the terminal.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn section(paint: Paint, title: &str, table: Option<Table>) -> String {
    match table {
        Some(table) => format!("\n{}\n{}", paint.bold(title), table.print(paint)),
        None => format!("\n{}  none\n", paint.bold(title)),
    }
}
