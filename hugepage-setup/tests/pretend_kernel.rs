//! Plans carried out by a pretending kernel, which gives what it likes instead of what was asked.

#![expect(clippy::unwrap_used, reason = "a set-up that fails is a failed test")]

mod machine;

use std::cell::Cell;
use std::fs;
use std::io;

use hugepage_setup::apply::{self, Done, Reason};
use hugepage_setup::error::{Error, Invocation};
use hugepage_setup::holders::{Holders, Orphan};
use hugepage_setup::inventory::{Inventory, Pool};
use hugepage_setup::mounts::MountPoint;
use hugepage_setup::plan::mounting::{self, MountRequest};
use hugepage_setup::plan::pools::{self, Measure, Release, Reserve};
use hugepage_setup::plan::{Action, Nodes, Plan};
use hugepage_setup::root::Root;
use hugepage_setup::size::{PageSize, Size};
use machine::{Machine, ONE_GIB, TWO_MIB};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn called(as_root: bool) -> Invocation {
    Invocation { program: "hs".into(), line: "hs reserve".into(), as_root }
}

fn reserve(size: u64, page: PageSize, measure: Measure) -> Reserve {
    Reserve { size: Size::from_bytes(size), page, nodes: Nodes::Only(0), measure }
}

/// Sets a pool as the kernel does: no more than `most` pages, none taken from a user.
fn kernel(most: u64) -> impl FnMut(&Root, &Action) -> io::Result<()> {
    move |root, action| {
        let Action::SetPages { page, to, dir, .. } = action else {
            return apply::perform(root, action);
        };
        let pool = Pool::read(root, dir, *page).expect("the machine under test is well formed");
        let persistent =
            (*to).clamp(pool.used().saturating_sub(pool.surplus), most.max(pool.persistent()));
        // Growing makes surplus pages lasting ones before it adds any.
        let surplus = pool.surplus.saturating_sub(persistent.saturating_sub(pool.persistent()));
        let total = persistent + surplus;
        for (name, count) in [("nr", total), ("free", total - pool.used()), ("surplus", surplus)] {
            fs::write(root.at(dir.join(format!("{name}_hugepages"))), count.to_string())?;
        }
        Ok(())
    }
}

fn carry_out(machine: &Machine, request: &Reserve, most: u64) -> Vec<Done> {
    let plan = pools::reserve(&Inventory::read(&machine.root()).unwrap(), request).unwrap();
    apply::carry_out(&machine.root(), &plan, kernel(most)).unwrap()
}

#[test]
fn fewer_pages_with_memory_to_spare_means_fragmentation() {
    let machine = Machine::new();
    let done = carry_out(&machine, &reserve(1024 * MIB, PageSize::TWO_MIB, Measure::Total), 300);
    let short = done[0].shortfall.as_ref().unwrap();
    assert_eq!((short.wanted, short.got, short.reason), (512, 300, Reason::Fragmented));
    assert!(short.cause().starts_with("got 300 of 512 pages: 8G are free, but not in unbroken"));
    assert_eq!(
        short.command(&called(false)),
        "echo 1 | sudo tee /proc/sys/vm/compact_memory && sudo hs reserve"
    );
    assert_eq!(
        short.command(&called(true)),
        "echo 1 | tee /proc/sys/vm/compact_memory && hs reserve"
    );
}

#[test]
fn fewer_large_pages_point_to_the_boot_line() {
    let machine = Machine::new();
    let done = carry_out(&machine, &reserve(4096 * MIB, PageSize::ONE_GIB, Measure::Total), 1);
    let short = done[0].shortfall.as_ref().unwrap();
    assert!(short.cause().ends_with("hugepagesz=1G hugepages=4"), "{}", short.cause());
}

#[test]
fn fewer_pages_without_memory_say_so() {
    let machine = Machine::new();
    machine.memory(0, 10 * 1024);
    let done = carry_out(&machine, &reserve(64 * MIB, PageSize::TWO_MIB, Measure::Total), 20);
    let short = done[0].shortfall.as_ref().unwrap();
    assert_eq!(short.reason, Reason::NoMemory);
    assert_eq!(short.cause(), "got 20 of 32 pages: only 10M of the node's memory are free");
}

#[test]
fn pages_taken_while_releasing_stay() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 100, 100, 0);
    let request = Release { page: PageSize::TWO_MIB, nodes: Nodes::Only(0), keep: Size::default() };
    let plan = pools::release(&Inventory::read(&machine.root()).unwrap(), &request).unwrap();
    machine.pool(0, TWO_MIB, 100, 70, 0); // a program starts between plan and deed
    let done = apply::carry_out(&machine.root(), &plan, kernel(u64::MAX)).unwrap();
    let short = done[0].shortfall.as_ref().unwrap();
    assert_eq!((short.got, short.reason), (30, Reason::TakenMeanwhile));
    assert_eq!(machine.pages(0, TWO_MIB), "30");
}

#[test]
fn free_reservation_grows_past_surplus_pages() {
    let machine = Machine::new();
    machine.pool(0, TWO_MIB, 10, 0, 10); // ten pages in use, all of them surplus
    let done = carry_out(&machine, &reserve(8 * MIB, PageSize::TWO_MIB, Measure::Free), u64::MAX);
    assert_eq!(done[0].shortfall, None);
    assert_eq!(done[0].pool.as_ref().unwrap().free, 4);
}

#[test]
fn a_refusal_says_whether_rights_are_missing() {
    let machine = Machine::new();
    let inventory = Inventory::read(&machine.root()).unwrap();
    let plan =
        pools::reserve(&inventory, &reserve(MIB, PageSize::TWO_MIB, Measure::Total)).unwrap();
    for (kind, denied) in [
        (io::ErrorKind::PermissionDenied, true),
        (io::ErrorKind::ReadOnlyFilesystem, true),
        (io::ErrorKind::InvalidInput, false),
    ] {
        let error = apply::carry_out(&machine.root(), &plan, |_, _| Err(kind.into())).unwrap_err();
        assert_eq!(matches!(error, Error::Denied { .. }), denied, "{kind}");
        let advice = error.command(&called(false));
        assert_eq!(advice.as_deref(), denied.then_some("sudo hs reserve"), "{kind}");
        assert_eq!(error.command(&called(true)), None, "root has no sudo to try");
    }
}

#[test]
fn nothing_follows_a_step_that_failed() {
    let machine = Machine::new();
    let inventory = Inventory::read(&machine.root()).unwrap();
    let mut request = reserve(MIB, PageSize::TWO_MIB, Measure::Total);
    request.nodes = Nodes::Each;
    let plan = pools::reserve(&inventory, &request).unwrap();
    let calls = Cell::new(0);
    let result = apply::carry_out(&machine.root(), &plan, |_, _| {
        calls.set(calls.get() + 1);
        Err(io::ErrorKind::Other.into())
    });
    assert!(result.is_err());
    assert_eq!((plan.steps.len(), calls.get()), (2, 1));
}

fn mount_plan(machine: &Machine) -> Plan {
    let request = MountRequest {
        at: "/dev/hugepages".into(),
        page: PageSize::TWO_MIB,
        mode: None,
        uid: None,
        gid: None,
    };
    let root = machine.root();
    let point = MountPoint::read(&root, &request.at).unwrap();
    mounting::mount(&Inventory::read(&root).unwrap(), &point, &request).unwrap()
}

#[test]
fn a_mount_is_believed_when_the_mount_table_shows_it() {
    let machine = Machine::new();
    let plan = mount_plan(&machine);
    let done = apply::carry_out(&machine.root(), &plan, |root, action| match action {
        Action::Mount { .. } => {
            machine.mounted("/dev/hugepages", "hugetlbfs", "rw,pagesize=2M");
            Ok(())
        }
        other => apply::perform(root, other),
    });
    assert_eq!(done.unwrap().len(), 2);
    assert_eq!(mount_plan(&machine).steps, [], "the second time nothing is left to do");

    let silent = Machine::new();
    let result = apply::carry_out(&silent.root(), &mount_plan(&silent), |_, _| Ok(()));
    assert!(matches!(result, Err(Error::Refused { .. })));
}

#[test]
fn an_unmount_is_believed_when_the_mount_table_agrees() {
    let machine = Machine::new();
    machine.mounted("/dev/hugepages", "hugetlbfs", "rw,pagesize=2M");
    let at = std::path::Path::new("/dev/hugepages");
    let plan =
        mounting::unmount(&MountPoint::read(&machine.root(), at).unwrap(), at, Some(2)).unwrap();
    assert_eq!(plan.steps[0].reason, "unused files lost with it: 2");
    let still_there = apply::carry_out(&machine.root(), &plan, |_, _| Ok(()));
    assert!(matches!(still_there, Err(Error::Refused { .. })));
    let gone = apply::carry_out(&machine.root(), &plan, |_, _| {
        machine.set("proc/mounts", "");
        Ok(())
    });
    assert_eq!(gone.unwrap().len(), 1);
}

#[test]
fn nothing_is_deleted_on_a_guess() {
    let orphan = Orphan {
        file: "/dev/hugepages/rtemap_0".into(),
        page: PageSize::TWO_MIB,
        held: Size::from_bytes(2 * MIB),
    };
    let mut holders = Holders {
        processes: Vec::new(),
        orphans: vec![orphan],
        unread_processes: 0,
        unread_mounts: Vec::new(),
    };
    let plan = |holders: &Holders, page| pools::delete_orphans(holders, page);
    assert_eq!(plan(&holders, PageSize::TWO_MIB).unwrap().steps.len(), 1);
    assert_eq!(plan(&holders, PageSize::ONE_GIB).unwrap().steps, []);
    holders.unread_processes = 1;
    assert!(matches!(plan(&holders, PageSize::TWO_MIB), Err(Error::Blind { unread: 1 })));
    holders.unread_mounts.push("/dev/hugepages".into());
    assert!(matches!(plan(&holders, PageSize::TWO_MIB), Err(Error::Denied { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn reserving_twice_is_reserving_once(
        persistent in 0u64..200, surplus in 0u64..20, used in 0u64..220, promised in 0u64..20,
        pages in 1u64..300, free in any::<bool>(),
    ) {
        let machine = Machine::new();
        let total = persistent + surplus;
        let idle = total - used.min(total);
        machine.pool(0, TWO_MIB, total, idle, surplus);
        machine.whole(TWO_MIB, promised.min(idle));
        let measure = if free { Measure::Free } else { Measure::Total };
        let request = reserve(pages * 2 * MIB, PageSize::TWO_MIB, measure);

        carry_out(&machine, &request, u64::MAX);
        let once = machine.files();
        let inventory = Inventory::read(&machine.root()).unwrap();
        let pool = inventory.nodes[0].pool(PageSize::TWO_MIB).unwrap();
        let have = if free { inventory.available(pool) } else { pool.persistent() };
        prop_assert!(have >= pages, "{have} of {pages}");
        prop_assert!(pool.persistent() >= persistent, "never lowered");

        carry_out(&machine, &request, u64::MAX);
        prop_assert_eq!(machine.files(), once);
    }

    #[test]
    fn releasing_takes_nothing_from_anybody(
        totals in [0u64..100, 0..100], frees in [0u64..100, 0..100], promised in 0u64..150,
        keep in 0u64..50,
    ) {
        let machine = Machine::new();
        for node in [0, 1] {
            machine.pool(node as u32, ONE_GIB, totals[node], frees[node].min(totals[node]), 0);
        }
        machine.whole(ONE_GIB, promised);
        let before = Inventory::read(&machine.root()).unwrap();
        let request =
            Release { page: PageSize::ONE_GIB, nodes: Nodes::Each, keep: Size::from_bytes(keep << 30) };
        let plan = pools::release(&before, &request).unwrap();
        let done = apply::carry_out(&machine.root(), &plan, kernel(u64::MAX)).unwrap();
        prop_assert!(done.iter().all(|done| done.shortfall.is_none()));

        let after = Inventory::read(&machine.root()).unwrap();
        for ((_, was), (_, is)) in before.pools(PageSize::ONE_GIB).zip(after.pools(PageSize::ONE_GIB)) {
            prop_assert_eq!(was.used(), is.used());
            prop_assert!(is.total >= keep.min(was.total));
        }
        let free = |inventory: &Inventory| {
            inventory.pools(PageSize::ONE_GIB).map(|(_, pool)| pool.free).sum::<u64>()
        };
        prop_assert!(free(&after) >= promised.min(free(&before)), "promises are kept");
        prop_assert_eq!(pools::release(&after, &request).unwrap().steps, []);
    }
}
