//! The whole program against a machine made of files.

#![expect(clippy::unwrap_used, reason = "a set-up that fails is a failed test")]

mod machine;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use machine::{Machine, ONE_GIB, PROGRAM, Run, TWO_MIB};
use serde_json::json;

#[test]
fn show_lines_up_pools_mounts_processes_and_orphans() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 512, 480, 0);
    machine.pool(1, TWO_MIB, 64, 0, 4);
    machine.whole(TWO_MIB, 7);
    machine.memory(1, ONE_GIB + ONE_GIB / 2);
    machine.mounted("/dev/hugepages", "hugetlbfs", "rw,relatime,pagesize=2M,size=1048576");
    machine.process(4711, "msgr", 65536, "");
    fs::set_permissions(machine.path("dev/hugepages"), fs::Permissions::from_mode(0o1770)).unwrap();

    let run = machine.run("show");
    assert_eq!(run.status, 0, "{}", run.err);
    let (pools, rest) = run.out.split_once("\nMOUNTS\n").unwrap();
    let expected = "\
NODE  PAGE  TOTAL  FREE  USED  RESERVED  SURPLUS  SIZE  MEMORY FREE
   0    2M    512   480    32         -        0    1G  8G of 8G
   0    1G      0     0     0         -        0     0  8G of 8G
   1    2M     64     0    64         -        4  128M  1.5G of 8G
   1    1G      0     0     0         -        0     0  1.5G of 8G
 all    2M    576   480    96         7        4  1.1G
 all    1G      0     0     0         0        0     0
";
    assert_eq!(pools, expected);
    assert!(rest.starts_with("PAGE  LIMIT  MODE  "), "{rest}");
    assert!(rest.contains("  2M     1M  1770  "), "{rest}");
    assert!(rest.contains("\nPROCESSES\nHELD   PID  NAME\n 64M  4711  msgr\n"), "{rest}");
    assert!(rest.ends_with("\nFILES NO PROCESS MAPS  none\n"), "{rest}");
}

#[test]
fn show_as_json_counts_pages_and_bytes() {
    let machine = Machine::new();
    machine.pool(1, ONE_GIB, 3, 2, 1);
    machine.mounted("/mnt/my\\040pages", "hugetlbfs", "rw,pagesize=1024M");
    let document = machine.json("show");
    assert_eq!(document["command"], "show");
    let pool = json!({ "page_bytes": 1u64 << 30, "total": 3, "free": 2, "surplus": 1 });
    assert_eq!(document["inventory"]["nodes"][1]["pools"][1], pool);
    assert_eq!(document["inventory"]["mounts"][0]["at"], "/mnt/my pages");
    assert_eq!(document["inventory"]["mounts"][0]["page_bytes"], 1u64 << 30);
}

#[test]
fn reserving_on_several_nodes_needs_a_word_about_which() {
    let machine = Machine::new();
    let before = machine.files();
    let run = machine.run("reserve 1G");
    assert_eq!(run.status, 2);
    assert!(run.err.contains("NUMA nodes 0, 1: say which one, or --all-nodes"), "{}", run.err);
    assert!(run.err.ends_with("reserve 1G --node 0\n"), "{}", run.err);
    assert_eq!(machine.files(), before);
}

#[test]
fn reserve_touches_one_pool_and_the_second_time_none() {
    let machine = Machine::new();
    let first = machine.run("reserve 1G --node 1");
    assert_eq!((first.status, first.err.as_str()), (0, ""));
    assert_eq!(
        first.out,
        "plan  set node 1 from 0 to 512 pages of 2M (1G): 1G asked for, 0 reserved\n\
         done  node 1 now has 512 pages of 2M (1G), 0 of them free\n"
    );
    assert_eq!(machine.pages(1, TWO_MIB), "512");
    assert_eq!((machine.pages(0, TWO_MIB), machine.pages(1, ONE_GIB)), ("0".into(), "0".into()));

    let after_first = machine.files();
    let second = machine.run("reserve 1G --node 1");
    assert_eq!(second.out, "ok    node 1 has 512 pages of 2M reserved (1G), 1G asked for\n");
    assert_eq!(machine.files(), after_first);
}

#[test]
fn reserve_rounds_up_to_pages_on_each_node() {
    let machine = Machine::new();
    assert_eq!(machine.run("reserve 1025M --page 1G --all-nodes").status, 0);
    assert_eq!((machine.pages(0, ONE_GIB), machine.pages(1, ONE_GIB)), ("2".into(), "2".into()));
}

#[test]
fn reserve_never_lowers_a_pool() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 1024, 0, 0);
    assert_eq!(machine.run("reserve 64M --node 0").status, 0);
    assert_eq!(machine.pages(0, TWO_MIB), "1024");
}

#[test]
fn free_counts_what_the_next_program_can_have() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 100, 40, 10);
    machine.whole(TWO_MIB, 8); // 40 free, of which 8 are promised: 32 to be had
    assert_eq!(machine.run("reserve 64M --node 0 --free").status, 0);
    assert_eq!(machine.pages(0, TWO_MIB), "100", "32 pages are 64M");
    machine.json("reserve 80M --node 0 --free");
    // 8 more, on top of the total: surplus pages become lasting ones first.
    assert_eq!(machine.pages(0, TWO_MIB), "108");
}

#[test]
fn more_than_the_node_has_is_refused_before_the_kernel_is_asked() {
    let machine = Machine::new();
    machine.pool(0, ONE_GIB, 6, 6, 0);
    let document = machine.json("reserve 3G --node 0");
    assert_eq!(
        (&document["status"], &document["error"]["kind"]),
        (&json!(3), &json!("beyond_memory"))
    );
    let cause = "9G of hugepages do not fit node 0, which has 8G of memory in all";
    assert_eq!(document["error"]["cause"], cause);
    assert_eq!(machine.pages(0, TWO_MIB), "0");
}

#[test]
fn release_leaves_what_is_used_promised_or_kept() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 100, 60, 0);
    machine.pool(1, TWO_MIB, 50, 50, 0);
    machine.whole(TWO_MIB, 30); // of the 110 free pages 80 may go
    assert_eq!(machine.run("release --all-nodes --dry-run").status, 0);
    assert_eq!(machine.run("release --all-nodes").status, 0);
    assert_eq!((machine.pages(0, TWO_MIB), machine.pages(1, TWO_MIB)), ("40".into(), "30".into()));

    machine.pool(0, TWO_MIB, 100, 60, 0);
    machine.whole(TWO_MIB, 0);
    assert_eq!(machine.run("release --node 0 --keep 160M").status, 0);
    assert_eq!(machine.pages(0, TWO_MIB), "80");
}

#[test]
fn release_with_everything_in_use_says_so() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 12, 0, 0);
    let run = machine.run("release --node 0");
    assert_eq!(run.status, 0);
    assert_eq!(
        run.out,
        "ok    node 0 keeps its 12 pages of 2M: 12 in use, 0 promised to a program\n"
    );
}

#[test]
fn a_dry_run_changes_no_file() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 100, 60, 0);
    machine.mounted("/mnt/huge", "hugetlbfs", "rw,pagesize=2M");
    machine.set("mnt/huge/rtemap_0", "x");
    let before = machine.files();
    for words in [
        "reserve 1G --node 0",
        "release --node 0",
        "release --orphans",
        "mount",
        "unmount --at /mnt/huge",
    ] {
        let run = machine.run(&format!("{words} --dry-run"));
        assert_eq!(run.status, 0, "{words}: {}", run.err);
        assert!(
            run.out.starts_with("plan  ") && run.out.ends_with("nothing was changed\n"),
            "{}",
            run.out
        );
        let document = machine.json(&format!("{words} --dry-run"));
        assert_eq!(document["done"], json!([]));
        assert_ne!(document["plan"]["steps"], json!([]));
    }
    assert_eq!(machine.files(), before);
    assert!(!machine.path("dev/hugepages").exists());
}

#[test]
fn orphans_are_the_files_in_nobodys_maps() {
    let machine = Machine::new();
    machine.mounted("/dev/hugepages", "hugetlbfs", "rw,pagesize=2M");
    machine.set("dev/hugepages/rtemap_0", vec![0; 4096]);
    machine.set("dev/hugepages/pod/rtemap_1", vec![0; 4096]);
    machine.process(4711, "msgr", 2048, &machine.map_of("dev/hugepages/rtemap_0"));

    let document = machine.json("show");
    assert_eq!(document["holders"]["orphans"][0]["file"], "/dev/hugepages/pod/rtemap_1");
    assert_eq!(document["holders"]["orphans"].as_array().unwrap().len(), 1);
    assert_eq!(document["holders"]["processes"][0]["held_bytes"], 2 << 20);

    assert_eq!(machine.run("release --orphans").status, 0);
    assert!(machine.path("dev/hugepages/rtemap_0").exists());
    assert!(!machine.path("dev/hugepages/pod/rtemap_1").exists());
    assert_eq!(machine.json("release --orphans")["plan"]["steps"], json!([]));
}

#[test]
fn mount_accepts_what_is_there_and_refuses_what_differs() {
    let machine = Machine::new();
    machine.mounted("/dev/hugepages", "hugetlbfs", "rw,pagesize=2M");
    machine.mounted("/mnt/tmp", "tmpfs", "rw");
    machine.set("srv/data/file", "");
    let dir = machine.path("dev/hugepages");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();

    let same = machine.run("mount --at /dev/hugepages/");
    assert_eq!(
        (same.status, same.out.as_str()),
        (0, "ok    /dev/hugepages is mounted with 2M pages\n")
    );
    for (words, kind, advice) in [
        ("mount --page 1G", "other_page", "unmount --at /dev/hugepages && "),
        ("mount --mode 1770", "other_access", "chmod 1770 /dev/hugepages"),
        ("mount --group 4242", "other_access", "chgrp 4242 /dev/hugepages"),
        ("mount --group nobodys", "no_such_name", "groupadd nobodys"),
        ("mount --at /mnt/tmp", "other_file_system", "--at /mnt/hugepages"),
        ("mount --at /srv/data", "not_empty", "--at /mnt/hugepages"),
    ] {
        let error = &machine.json(words)["error"];
        assert_eq!(error["kind"], kind, "{words}");
        assert!(error["command"].as_str().unwrap().contains(advice), "{words}: {error}");
    }
}

#[test]
fn mount_plans_the_directory_and_names_become_numbers() {
    let machine = Machine::new();
    let document = machine.json("mount --group dpdk --dry-run");
    let steps = &document["plan"]["steps"];
    assert_eq!(
        (&steps[0]["action"], &steps[0]["at"]),
        (&json!("make_directory"), &json!("/dev/hugepages"))
    );
    assert_eq!((&steps[1]["action"], &steps[1]["gid"]), (&json!("mount"), &json!(107)));
    assert_eq!(steps[1]["mode"], 0o1770);
}

#[test]
fn mounting_under_another_root_is_refused() {
    let machine = Machine::new();
    let run = machine.run("mount");
    assert_eq!(run.status, 3);
    assert!(run.err.contains("with --root use --dry-run"), "{}", run.err);
}

#[test]
fn unmounting_nothing_is_done_already() {
    let machine = Machine::new();
    let run = machine.run("unmount");
    assert_eq!((run.status, run.out.as_str()), (0, "ok    nothing is mounted at /dev/hugepages\n"));
}

#[test]
fn check_passes_where_one_node_has_enough() {
    let machine = Machine::new();
    machine.pool(1, TWO_MIB, 256, 256, 0);
    let document = machine.json("check --need 512M");
    assert_eq!(document["status"], 0);
    assert_eq!(document["checks"][0]["state"], "ok");
    let run = machine.run("check --need 512M");
    assert!(run.out.contains("Nothing in this project needs hugepages to be tried"), "{}", run.out);

    let on_each = machine.json("check --need 512M --all-nodes");
    assert_eq!(on_each["status"], 1);
    assert_eq!(on_each["checks"][0]["state"], "fail");
    assert_eq!(on_each["checks"][1]["state"], "ok");
}

#[test]
fn a_failed_check_names_the_command_and_that_command_mends_it() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 256, 10, 0);
    let document = machine.json("check --need 512M --node 0");
    let check = &document["checks"][0];
    assert_eq!(
        check["cause"],
        "node 0 has 20M free in 2M pages (10 of 256, 246 in use), 512M needed"
    );
    let command = check["command"].as_str().unwrap();
    let (_, words) = command
        .split_once(&format!("--root {} ", machine.path("").display()).replace("/ ", " "))
        .unwrap();
    assert_eq!(words, "reserve 512M --free --page 2M --node 0");
    assert_eq!(machine.run(words).status, 0);
    assert_eq!(machine.pages(0, TWO_MIB), "502");
}

#[test]
fn check_knows_what_else_stands_in_the_way() {
    let machine = Machine::new();
    machine.pool(0, ONE_GIB, 4, 4, 0);
    machine.set("proc/cpuinfo", "flags : fpu lm\n");
    machine.mounted("/sys/fs/cgroup", "cgroup2", "rw");
    machine.set("proc/self/cgroup", "1:cpu:/x\n0::/pod/app\n");
    machine.set("sys/fs/cgroup/hugetlb.1GB.max", "max\n");
    machine.set("sys/fs/cgroup/pod/app/hugetlb.1GB.max", "8589934592\n");
    machine.set("sys/fs/cgroup/pod/app/hugetlb.1GB.current", "0\n");
    machine.set("sys/fs/cgroup/pod/hugetlb.1GB.max", "3221225472\n");
    machine.set("sys/fs/cgroup/pod/hugetlb.1GB.current", "2147483648\n");
    let document = machine.json("check --page 1G --need 2G");
    let checks = document["checks"].as_array().unwrap();
    let verdict = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        (check["state"].as_str().unwrap().to_owned(), check["cause"].as_str().unwrap().to_owned())
    };
    assert_eq!(document["status"], 1);
    assert_eq!(verdict("cpu").0, "fail");
    assert_eq!(verdict("pages").0, "ok");
    let (state, cause) = verdict("cgroup");
    assert_eq!(state, "fail");
    assert!(
        cause.starts_with("/sys/fs/cgroup/pod/hugetlb.1GB.max leaves 1G, 2G needed"),
        "{cause}"
    );
    assert_eq!(verdict("mount").0, "warn");
    assert_eq!(verdict("leftovers").0, "ok");
}

#[test]
fn check_warns_of_leftovers() {
    let machine = Machine::new();
    machine.mounted("/dev/hugepages", "hugetlbfs", "rw,pagesize=2M");
    for index in 0..5 {
        machine.set(&format!("dev/hugepages/rtemap_{index}"), "");
    }
    let run = machine.run("check");
    assert_eq!(run.status, 0, "a warning is no failure");
    assert!(run.out.contains("rtemap_1, /dev/hugepages/rtemap_2, 2 more\n"), "{}", run.out);
    assert!(run.out.contains("release --orphans --page 2M\n"), "{}", run.out);
}

#[test]
fn a_kernel_without_nodes_has_its_pool_on_node_0() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("sys/devices")).unwrap();
    machine.set("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 8388608 kB\n");
    for kib in [TWO_MIB, ONE_GIB] {
        for name in ["nr", "free", "surplus"] {
            machine
                .set(&format!("sys/kernel/mm/hugepages/hugepages-{kib}kB/{name}_hugepages"), "0\n");
        }
    }
    assert_eq!(machine.run("reserve 64M").status, 0);
    let file = machine.path("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    assert_eq!(fs::read_to_string(file).unwrap(), "32");
}

#[test]
fn a_kernel_without_hugepages_is_an_error_not_an_empty_table() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("sys/kernel")).unwrap();
    assert_eq!(machine.json("show")["error"]["kind"], "no_hugepages");
}

#[test]
fn hostile_contents_are_errors_that_name_the_file() {
    let hostile: [&[u8]; 6] =
        [b"", b"many", b"-1", b"18446744073709551615", b"99999999999999999999999", b"\xff\xfe\0"];
    let pristine = Machine::new();
    for (path, _) in pristine.files() {
        let file = path.strip_prefix(pristine.path("")).unwrap().to_str().unwrap();
        for contents in hostile {
            let machine = Machine::new();
            machine.set(file, contents);
            for words in ["show", "check --need 64M", "reserve 64M --node 0", "release --node 0"] {
                let run = machine.run(words);
                assert!((0..=3).contains(&run.status), "{file} {contents:?} {words}: {}", run.err);
                if run.status == 3 {
                    assert!(run.err.contains(file), "{file} {contents:?}: {}", run.err);
                }
            }
            if file.starts_with("sys/") {
                assert_eq!(
                    machine.json("show")["error"]["kind"],
                    "malformed",
                    "{file} {contents:?}"
                );
            }
        }
    }
}

#[test]
fn wrong_words_end_with_status_2() {
    let machine = Machine::new();
    for words in [
        "reserve 512",
        "reserve 0M",
        "reserve 1G --page 3M",
        "mount --at dev",
        "mount --at /a/../b",
        "frob",
    ] {
        assert_eq!(machine.run(words).status, 2, "{words}");
    }
    assert_eq!(machine.json("reserve 1G --node 7")["error"]["kind"], "no_such_node");
}

#[test]
fn without_root_the_advice_is_the_same_command_with_sudo() {
    let machine = Machine::new();
    fs::set_permissions(machine.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let file =
        machine.path("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages");
    fs::set_permissions(file, fs::Permissions::from_mode(0o444)).unwrap();
    let program = machine.path("hugepage-setup"); // where any user may run it
    // By `cp`: were the copy open for writing here, a test that forks meanwhile would keep it so,
    // and a file that is open for writing cannot be run.
    assert_eq!(Run::of(Command::new("cp").arg(PROGRAM).arg(&program)).status, 0);

    let mut command = Command::new(&program);
    command.args(["reserve", "64M", "--node", "0", "--root"]).arg(machine.path(""));
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let run = Run::of(&mut command);
    assert_eq!(run.status, 3);
    let line = format!(
        "sudo {} reserve 64M --node 0 --root {}",
        program.display(),
        machine.path("").display()
    );
    assert!(
        run.err.starts_with("error: no permission to set node 0 from 0 to 32 pages"),
        "{}",
        run.err
    );
    assert!(run.err.ends_with(&format!("  try: {line}\n")), "{}", run.err);
}
