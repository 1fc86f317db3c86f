//! The program on the machine the tests run on: it only looks, and mounts in a namespace of its own.

#![expect(clippy::unwrap_used, reason = "a set-up that fails is a failed test")]

mod machine;

use std::process::Command;

use machine::{PROGRAM, Run};
use serde_json::Value;

fn run(words: &[&str]) -> (i32, Value) {
    let run = Run::of(Command::new(PROGRAM).args(words).arg("--json"));
    (run.status, serde_json::from_str(&run.out).unwrap())
}

#[test]
fn show_and_check_read_the_running_kernel() {
    let (status, document) = run(&["show"]);
    match status {
        0 => assert_ne!(document["inventory"]["nodes"], serde_json::json!([])),
        _ => assert_eq!(document["error"]["kind"], "no_hugepages"),
    }
    let (checked, document) = run(&["check"]);
    assert_eq!(checked == 3, status == 3, "{document}");
}

#[test]
fn a_real_mount_comes_and_goes_or_is_denied() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("huge pages");
    let script = r#"
        "$0" mount --mode 1777 --at "$1" && "$0" mount --mode 1777 --at "$1" && "$0" show --json &&
        "$0" unmount --at "$1" && "$0" unmount --at "$1""#;
    // A mount namespace of its own: whatever happens, no mount is left behind.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, PROGRAM]).arg(&at);
    let there = run(&["show"]).0 == 0;
    match command.output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).unwrap();
            let mounted = format!("ok    {} is mounted with 2M pages\n", at.display());
            assert!(text.contains(&mounted), "{text}");
            assert!(text.contains(&format!("\"at\": \"{}\"", at.display())), "{text}");
            let gone = format!("ok    nothing is mounted at {}\n", at.display());
            assert!(text.ends_with(&gone), "{text}");
        }
        _ if there => {
            let (status, document) = run(&["mount", "--at", at.to_str().unwrap()]);
            if status == 0 {
                // We may mount but not in a namespace of our own: take it away before failing.
                run(&["unmount", "--at", at.to_str().unwrap()]);
            }
            assert_eq!((status, &document["error"]["kind"]), (3, &"denied".into()), "{document}");
        }
        _ => assert_eq!(run(&["mount"]).1["error"]["kind"], "no_hugepages"),
    }
}
