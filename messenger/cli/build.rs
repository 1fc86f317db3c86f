//! Notes the commit that is built, for the records of `msgr bench`.

use std::process::Command;

fn main() {
    let hash = git(&["rev-parse", "--short=12", "HEAD"]);
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]);
    let mark = if dirty.is_some_and(|changes| !changes.is_empty()) { "+changes" } else { "" };
    let commit = hash.map_or_else(|| "unknown".to_owned(), |hash| hash + mark);
    println!("cargo::rustc-env=MSGR_COMMIT={commit}");
    println!("cargo::rerun-if-changed=src");
    // A new commit shows in the log of HEAD; outside a repository there is none.
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned())
}
