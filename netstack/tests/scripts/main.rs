//! Scripts of calls and segments against our TCP, on a simulated clock.
//!
//! A script is a story about one rule of TCP: what the application calls, what the peer sends, and
//! what the stack has to send in between. The peer is made of single segments, so it can do what
//! no TCP of today does. `docs/tcp-conformance.md` lists all scripts.
//!
//! ```text
//!   parse      the text of a script
//!   segment    segments with every field open, and their packets
//!   world      the stack over a simulated cable, and the peer's end of it
//!   run        line by line
//!   page       the list in docs is whole
//! ```
//!
//! After its last line everything is closed, and nothing may be left of it.

#![expect(clippy::unwrap_used, reason = "a script that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

mod page;
mod parse;
mod run;
mod segment;
mod world;

/// Where the scripts are, in one directory for each kind.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");

/// The scripts of one directory, or the directories, by name.
fn entries(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn scripts(kind: &str) -> Vec<PathBuf> {
    let mut paths = entries(&Path::new(ROOT).join(kind));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "tcp"));
    paths
}

fn read(path: &Path) -> parse::Script {
    let text = fs::read_to_string(path).unwrap();
    parse::Script::parse(&text).unwrap_or_else(|error| panic!("{}:{error}", path.display()))
}

/// Runs all scripts of a kind and shows each that fails.
fn hold(kind: &str) {
    let scripts = scripts(kind);
    assert!(!scripts.is_empty());
    let failed: Vec<String> = scripts
        .iter()
        .filter_map(|path| {
            let error = run::run(&read(path)).err()?;
            let name = path.strip_prefix(ROOT).unwrap().display();
            Some(format!("{name}\n{error}"))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {}:\n\n{}", failed.len(), scripts.len(), failed.join("\n\n"));
}

/// One test for each kind of scripts.
macro_rules! kinds {
    ($($kind:ident)+) => {
        const KINDS: &[&str] = &[$(stringify!($kind)),+];
        $(
            #[test]
            fn $kind() {
                hold(stringify!($kind));
            }
        )+
    };
}

kinds! { open close data window loss time icmp stranger }
