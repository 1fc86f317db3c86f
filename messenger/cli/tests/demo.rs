//! `msgr demo` as a newcomer runs it. Needs root for its kernel-to-DPDK part.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod lab;

use std::collections::BTreeSet;
use std::process::Command;

use lab::msgr;

/// What a demo could leave behind: interfaces, namespaces, temporary files, runtime files of DPDK,
/// hugepages in use, and processes.
fn traces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (program, args) in [("ip", &["-o", "link"][..]), ("ip", &["netns", "list"])] {
        let out = Command::new(program).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        // Flags and counters of lasting interfaces may change; names may not.
        found.extend(
            text.lines()
                .filter_map(|l| l.split_whitespace().nth(usize::from(args[0] == "-o")))
                .map(str::to_owned),
        );
    }
    for dir in ["/tmp", "/var/run/dpdk", "/dev/hugepages"] {
        if let Ok(entries) = std::fs::read_dir(dir) {
            let names = entries.flatten().map(|e| format!("{dir}/{}", e.file_name().display()));
            found.extend(names.filter(|n| n.contains("msgr") || !n.starts_with("/tmp")));
        }
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let exe = std::fs::read_link(entry.path().join("exe"));
        if exe.is_ok_and(|exe| exe.ends_with("msgr")) {
            found.insert(format!("process {}", entry.file_name().display()));
        }
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    found.extend(meminfo.lines().filter(|l| l.starts_with("HugePages_")).map(str::to_owned));
    found
}

#[test]
fn the_demo_measures_all_three_and_leaves_nothing_behind() {
    lab::need_root();
    let before = traces();
    let out = msgr(&["demo", "--json", "--count", "2000"]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let result: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let names: Vec<_> =
        result["scenes"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["DPDK to DPDK", "kernel to DPDK", "kernel to kernel"]);
    for scene in result["scenes"].as_array().unwrap() {
        assert_eq!(scene["report"]["messages"], 2000, "{scene}");
        assert!(scene["report"]["latency_us"]["p50"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(result["left_out"].as_array().unwrap().len(), 0);
    let after = traces();
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn the_table_has_a_row_for_each_transport() {
    lab::need_root();
    let out = msgr(&["demo", "--count", "500"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    for name in ["DPDK to DPDK", "kernel to DPDK", "kernel to kernel", "p99.9", "msg/s"] {
        assert!(text.contains(name), "no {name} in:\n{text}");
    }
}

#[test]
fn without_root_it_shows_two_and_says_why_not_the_third() {
    lab::need_root(); // to be able to give it up
    let nobody = "65534";
    let dir = tempfile::Builder::new().prefix("unprivileged").tempdir_in("/tmp").unwrap();
    let program = dir.path().join("msgr");
    std::fs::copy(lab::MSGR, &program).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).unwrap();
    let out = Command::new("setpriv")
        .args(["--reuid", nobody, "--regid", nobody, "--clear-groups"])
        .arg(&program)
        .args(["demo", "--json", "--count", "500"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    let result: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(result["scenes"].as_array().unwrap().len(), 2);
    let why = result["left_out"][0]["why"].as_str().unwrap();
    assert!(why.contains("root"), "{why}");
}
