//! `docs/tcp-conformance.md` has a row for each script, and no other rows.

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/tcp-conformance.md");

/// A script's row.
fn row(path: &Path) -> String {
    let script = crate::read(path);
    let name = path.strip_prefix(crate::ROOT).unwrap().with_extension("");
    let status =
        script.gap.map_or_else(|| "holds".to_owned(), |gap| format!("**known gap**: {gap}"));
    format!("| `{}` | {} | {} | {status} |", name.display(), script.section, script.title)
}

#[test]
fn every_script_has_its_row_and_every_row_its_script() {
    let scripts = crate::KINDS.iter().flat_map(|kind| crate::scripts(kind));
    let wanted: BTreeSet<String> = scripts.map(|path| row(&path)).collect();
    let is_row = |line: &&str| line.starts_with("| `");
    let found: BTreeSet<String> = PAGE.lines().filter(is_row).map(str::to_owned).collect();
    let show =
        |rows: Vec<&String>| rows.into_iter().fold(String::new(), |all, row| all + row + "\n");
    let missing = show(wanted.difference(&found).collect());
    let extra = show(found.difference(&wanted).collect());
    assert!(missing.is_empty() && extra.is_empty(), "missing:\n{missing}not there:\n{extra}");
}

#[test]
fn every_directory_is_a_kind() {
    let directories =
        crate::entries(Path::new(crate::ROOT)).into_iter().filter(|path| path.is_dir());
    let names: BTreeSet<String> =
        directories.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let kinds: BTreeSet<String> = crate::KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    assert_eq!(names, kinds);
}
