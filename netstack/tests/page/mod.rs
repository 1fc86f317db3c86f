//! `docs/counters.md`, as its tests read it: the page must name what the code reports, no less and
//! no more.

use std::path::Path;

/// Compares a section's table with the names that were reported. A `*` in the table stands for any
/// part of a name.
#[track_caller]
pub(crate) fn assert_tells(section: &str, reported: &[&str]) {
    let told = names(section);
    for name in reported {
        let times = told.iter().filter(|pattern| matches(pattern, name)).count();
        assert_eq!(times, 1, "{name} is told {times} times in section {section:?}");
    }
    for pattern in &told {
        let is_there = reported.iter().any(|name| matches(pattern, name));
        assert!(is_there, "{pattern} of section {section:?} is reported by nobody");
    }
}

/// The first cells of the table under a heading.
fn names(section: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/counters.md");
    let page = std::fs::read_to_string(&path).expect("the page of counters");
    let heading = format!("## {section}");
    let rows = page.lines().skip_while(|line| *line != heading).skip(1);
    let rows = rows.take_while(|line| !line.starts_with("## "));
    let cells = rows.filter_map(|line| line.strip_prefix("| `")?.split_once('|'));
    let names = cells.flat_map(|(cell, _)| cell.split(','));
    let names: Vec<_> = names.map(|name| name.trim().trim_matches('`').to_owned()).collect();
    assert!(!names.is_empty(), "no section {heading:?} with a table in {}", path.display());
    names
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(start) else {
        return false;
    };
    (0..=name.len()).any(|at| matches(rest, &name[at..]))
}
