//! A directory made to look like the sysfs and procfs of a machine with two NUMA nodes.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hugepage_setup::root::Root;
use serde_json::Value;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hugepage-setup");
/// KiB of the two page sizes.
pub(crate) const TWO_MIB: u64 = 2048;
pub(crate) const ONE_GIB: u64 = 1_048_576;

const NODE_MEMORY_KIB: u64 = 8 * ONE_GIB;

pub(crate) struct Machine {
    dir: tempfile::TempDir,
}

/// What a run of the program left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Machine {
    /// Two nodes of 8 GiB, no hugepages, nothing mounted, one process.
    pub(crate) fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        for page in [TWO_MIB, ONE_GIB] {
            for node in [0, 1] {
                machine.pool(node, page, 0, 0, 0);
            }
            machine.whole(page, 0);
        }
        for node in [0, 1] {
            machine.memory(node, NODE_MEMORY_KIB);
        }
        machine.set("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu pdpe1gb lm\n");
        machine.set("proc/mounts", "sysfs /sys sysfs rw 0 0\n");
        machine.set("etc/passwd", "root:x:0:0::/:/bin/sh\n");
        machine.set("etc/group", "root:x:0:\ndpdk:x:107:alice\n");
        machine.process(1, "init", 0, "");
        machine
    }

    pub(crate) fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    pub(crate) fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(crate) fn set(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn pool(&self, node: u32, kib: u64, total: u64, free: u64, surplus: u64) {
        let dir = format!("sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB");
        self.set(&format!("{dir}/nr_hugepages"), format!("{total}\n"));
        self.set(&format!("{dir}/free_hugepages"), format!("{free}\n"));
        self.set(&format!("{dir}/surplus_hugepages"), format!("{surplus}\n"));
    }

    pub(crate) fn whole(&self, kib: u64, reserved: u64) {
        let dir = format!("sys/kernel/mm/hugepages/hugepages-{kib}kB");
        self.set(&format!("{dir}/resv_hugepages"), format!("{reserved}\n"));
        self.set(&format!("{dir}/nr_overcommit_hugepages"), "0\n");
    }

    pub(crate) fn memory(&self, node: u32, free_kib: u64) {
        let text = format!(
            "Node {node} MemTotal:  {NODE_MEMORY_KIB} kB\nNode {node} MemFree:  {free_kib} kB\n"
        );
        self.set(&format!("sys/devices/system/node/node{node}/meminfo"), text);
    }

    pub(crate) fn process(&self, pid: u32, name: &str, held_kib: u64, maps: &str) {
        let status = format!("Name:\t{name}\nHugetlbPages:\t{held_kib:8} kB\n");
        self.set(&format!("proc/{pid}/status"), status);
        self.set(&format!("proc/{pid}/maps"), maps);
    }

    /// Makes `at` a mount as the kernel would list it.
    pub(crate) fn mounted(&self, at: &str, kind: &str, options: &str) {
        fs::create_dir_all(self.path(at.trim_start_matches('/'))).unwrap();
        let table = fs::read_to_string(self.path("proc/mounts")).unwrap();
        self.set("proc/mounts", format!("{table}none {at} {kind} {options} 0 0\n"));
    }

    /// A line of `maps` for a file of this machine.
    pub(crate) fn map_of(&self, file: &str) -> String {
        let meta = fs::metadata(self.path(file)).unwrap();
        let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        format!("7f0000000000-7f0000200000 rw-s 0 {major:02x}:{minor:02x} {} /{file}\n", meta.ino())
    }

    /// What `nr_hugepages` of a pool holds, without the end of line.
    pub(crate) fn pages(&self, node: u32, kib: u64) -> String {
        let dir = format!("sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB");
        fs::read_to_string(self.path(dir).join("nr_hugepages")).unwrap().trim().to_owned()
    }

    /// Every file with its contents.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }

    /// Runs the program against this machine.
    pub(crate) fn run(&self, words: &str) -> Run {
        let mut command = Command::new(PROGRAM);
        command.arg("--root").arg(self.dir.path()).args(words.split(' '));
        Run::of(&mut command)
    }

    /// Runs it with `--json` and parses what it printed.
    pub(crate) fn json(&self, words: &str) -> Value {
        let run = self.run(&format!("{words} --json"));
        assert_eq!(run.err, "", "with --json nothing goes to standard error");
        let document: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!(document["schema"], 1);
        assert_eq!(document["status"], run.status);
        document
    }
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status.code().expect("ends by itself, not by a signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
