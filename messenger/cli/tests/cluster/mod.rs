//! A real Ceph for one test: Debian's monitor and OSDs in a network namespace of their own.
//!
//! Authentication is *none* or cephx, in whichever mode `msgr` is told; objects live in memory, and
//! everything ends with the value that stands for it, also when a test panics. The daemons listen on
//! the kernel's end of the tap that `msgr` makes for DPDK; while there is no tap, the loopback
//! interface has that address.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use messenger_ceph::{OsdDump, placement};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::sandbox::{Namespace, Process};
use crate::lab::{KERNEL_V4, MSGR, PATIENCE, STACK_V4, inside, need_root};

pub(crate) mod member;

/// The pool that tests use.
pub(crate) const POOL: &str = "wire";
/// Placement groups of the pool: enough to spread over two OSDs.
const PG_NUM: u32 = 8;
/// The first is nobody's address: the second has to be found.
const MONITORS: &str = "10.99.0.1:3299,10.99.0.1:3300";
/// The same monitor over msgr1.
const V1_MONITORS: &str = "v1:10.99.0.1:6789";
pub(crate) const TAP: &str = "dt0";

/// Which TCP `msgr` uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    KernelTcp,
    Dpdk,
}

/// A running cluster.
pub(crate) struct Cluster {
    osds: Vec<Process>,
    monitor: Option<Process>,
    pub(crate) fsid: String,
    cephx: bool,
    monitors: &'static str,
    pub(crate) namespace: Namespace,
    dir: TempDir,
}

impl Drop for Cluster {
    /// Nobody needs what the daemons would save.
    fn drop(&mut self) {
        self.osds.iter_mut().chain(&mut self.monitor).for_each(Process::kill);
    }
}

impl Cluster {
    /// One monitor, so many OSDs, one pool; everybody is let in.
    pub(crate) fn start(osds: usize) -> Self {
        Self::start_with(osds, false)
    }

    /// The same, but who has no key stays outside; `msgr` has one, see [`Cluster::configure`].
    pub(crate) fn start_with_cephx(osds: usize) -> Self {
        Self::start_with(osds, true)
    }

    fn start_with(osds: usize, cephx: bool) -> Self {
        need_root();
        for program in ["ceph-mon", "ceph-osd", "rados", "monmaptool", "ceph-authtool"] {
            let installed = Command::new(program).arg("--version").output();
            assert!(installed.is_ok(), "there is no `{program}`; install it with: .ci/bootstrap");
        }
        let namespace = Namespace::create().expect("namespace");
        let address: IpAddr = KERNEL_V4.parse().unwrap();
        namespace.add_address("lo", address, 32).expect("the daemons' address");
        let dir = tempfile::tempdir().unwrap();
        let fsid = uuid();
        let (osds_started, monitors) = (Vec::new(), MONITORS);
        let mut cluster =
            Self { osds: osds_started, monitor: None, fsid, cephx, monitors, namespace, dir };
        cluster.make_keys(osds);
        cluster.start_monitor();
        for osd in 0..osds {
            cluster.make_osd(osd);
            let process = cluster.daemon("OSD", "ceph-osd", &osd.to_string());
            cluster.osds.push(process);
        }
        cluster.wait_for_osds();
        cluster.command(json!({ "prefix": "osd pool create", "pool": POOL, "pg_num": PG_NUM }));
        cluster
    }

    /// `msgr` speaks msgr1 from now.
    pub(crate) fn over_msgr1(&mut self) -> &Self {
        self.monitors = V1_MONITORS;
        self
    }

    /// Runs `msgr ceph ARGS` to its end.
    pub(crate) fn msgr(&self, over: Over, args: &[&str]) -> Output {
        self.spawn(over, args).wait_with_output().unwrap()
    }

    /// What `msgr ceph ARGS` prints if it succeeds.
    pub(crate) fn says(&self, over: Over, args: &[&str]) -> String {
        let out = self.msgr(over, args);
        assert!(out.status.success(), "msgr ceph {args:?} over {over:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// Starts `msgr ceph ARGS`.
    pub(crate) fn spawn(&self, over: Over, args: &[&str]) -> Child {
        let mut command = self.namespace.command(Path::new(MSGR));
        command.args(["--exit-with-parent", "ceph", "--mon", self.monitors, "--timeout", "30"]);
        if self.cephx {
            command.arg("--config").arg(self.file("msgr.toml"));
        }
        if over == Over::Dpdk {
            let (vdev, addr) = (format!("net_tap0,iface={TAP}"), format!("{STACK_V4}/24"));
            command.args(["--stack", "dpdk", "--vdev", &vdev, "--addr", &addr]);
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect(MSGR);
        if over == Over::Dpdk {
            join_tap(&self.namespace);
        }
        child
    }

    /// Where the OSDs are.
    pub(crate) fn osd_dump(&self) -> OsdDump {
        let dump = self.says(Over::KernelTcp, &["command", &placement::osd_dump().to_string()]);
        OsdDump::parse(dump.as_bytes()).unwrap()
    }

    /// Runs `body`, and the threads that it starts, where the daemons are.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace, body)
    }

    /// Runs Ceph's own `rados ARGS`, which has to succeed.
    pub(crate) fn rados(&self, args: &[&str]) {
        let mut command = self.namespace.command(Path::new("timeout"));
        command.args([&PATIENCE.as_secs().to_string(), "rados", "-c"]).arg(self.conf());
        let out = command.args(["-p", POOL]).args(args).output().unwrap();
        assert!(out.status.success(), "rados {args:?}: {out:?}");
    }

    /// A file in the cluster's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends an OSD as a crash does, or asks it to end and to save its objects.
    pub(crate) fn stop_osd(&mut self, osd: usize, crash: bool) {
        match crash {
            true => self.osds[osd].kill(),
            false => self.osds[osd].stop().expect("the OSD ends"),
        }
    }

    /// Starts an OSD again that has ended.
    pub(crate) fn start_osd(&mut self, osd: usize) {
        self.osds[osd] = self.daemon("OSD", "ceph-osd", &osd.to_string());
    }

    fn conf(&self) -> PathBuf {
        self.file("ceph.conf")
    }

    /// Has `msgr` authenticate as `client.ID` with a key of this file, and talk in this mode only.
    pub(crate) fn configure(&self, id: &str, keyring: &Path, mode: &str) {
        let text = format!(
            "auth_client_required = \"cephx\"\nauth_id = {id:?}\nkeyring = {keyring:?}\n\
             ms_async_op_threads = 1\nms_mon_client_mode = {mode:?}\nms_client_mode = {mode:?}\n"
        );
        std::fs::write(self.file("msgr.toml"), text).unwrap();
    }

    /// The file with everybody's keys.
    pub(crate) fn keyring(&self) -> PathBuf {
        self.file("keyring")
    }

    /// A file with a fresh key, which the cluster has never seen.
    pub(crate) fn make_key(&self, name: &str) -> PathBuf {
        let keyring = self.file("fresh-keyring");
        let mut tool = Command::new("ceph-authtool");
        succeed(tool.arg(&keyring).args(["--create-keyring", "--gen-key", "-n", name]));
        keyring
    }

    /// Makes everybody's keys, and leads `msgr` to its own.
    fn make_keys(&self, osds: usize) {
        let keyring = self.keyring();
        let all = ["mon", "osd"].map(|service| [service, "allow *"]);
        let daemons = (0..osds).map(|osd| format!("osd.{osd}"));
        for name in ["mon.".to_owned(), "client.admin".to_owned()].into_iter().chain(daemons) {
            let mut tool = Command::new("ceph-authtool");
            tool.arg(&keyring).args(["--gen-key", "-n", &name]);
            if !keyring.exists() {
                tool.arg("--create-keyring");
            }
            for cap in all {
                tool.arg("--cap").args(cap);
            }
            succeed(&mut tool);
        }
        self.configure("admin", &keyring, "secure");
    }

    fn start_monitor(&mut self) {
        let dir = self.dir.path().display().to_string();
        let plugins = plugin_dir();
        let auth = if self.cephx { "cephx" } else { "none" };
        let text = format!(
            "[global]\nfsid = {fsid}\nmon host = [v2:{KERNEL_V4}:3300,v1:{KERNEL_V4}:6789]\n\
             auth cluster required = {auth}\nauth service required = {auth}\n\
             auth client required = {auth}\nkeyring = {dir}/keyring\npublic addr = {KERNEL_V4}\ncluster addr = {KERNEL_V4}\n\
             run dir = {dir}\nadmin socket = {dir}/$name.asok\npid file = {dir}/$name.pid\n\
             plugin dir = {plugins}\nosd pool default size = 1\nosd pool default min size = 1\n\
             osd crush chooseleaf type = 0\nmon allow pool size one = true\n\
             mon data avail crit = 1\nmon data avail warn = 1\n\
             [mon]\nlog file = {dir}/$name.log\nmon data = {dir}/mon.$id\n\
             [osd]\nlog file = {dir}/$name.log\nosd data = {dir}/osd.$id\n\
             osd objectstore = memstore\nmemstore device bytes = 256M\n\
             osd max object name len = 256\n# Objects in memory are saved at an orderly end only.\n\
             osd fast shutdown = false\n[client]\nlog file = /dev/null\n",
            fsid = self.fsid,
        );
        std::fs::write(self.conf(), text).unwrap();
        std::fs::create_dir(self.file("mon.a")).unwrap();
        let monmap = self.file("monmap");
        let mut tool = Command::new("monmaptool");
        tool.args(["--create", "--fsid", &self.fsid, "--addv", "a"]);
        succeed(tool.arg(format!("[v2:{KERNEL_V4}:3300/0,v1:{KERNEL_V4}:6789/0]")).arg(&monmap));
        let mut mkfs = self.ceph("ceph-mon", "a");
        mkfs.arg("--mkfs").arg("--monmap").arg(&monmap);
        succeed(mkfs.arg("--keyring").arg(self.file("keyring")));
        self.monitor = Some(self.daemon("monitor", "ceph-mon", "a"));
    }

    fn make_osd(&self, osd: usize) {
        let (id, uuid) = (osd.to_string(), uuid());
        std::fs::create_dir(self.file(&format!("osd.{osd}"))).unwrap();
        self.command(json!({ "prefix": "osd new", "uuid": uuid, "id": osd }));
        succeed(self.ceph("ceph-osd", &id).args(["--mkfs", "--osd-uuid", &uuid]));
    }

    fn wait_for_osds(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stat = self.command(json!({ "prefix": "osd stat", "format": "json" }));
            let stat: Value = serde_json::from_str(&stat).unwrap();
            if stat["num_up_osds"] == self.osds.len() {
                return;
            }
            assert!(Instant::now() < deadline, "not all OSDs came up: {stat}");
            std::thread::sleep(PATIENCE / 300);
        }
    }

    /// Runs a command of the monitor, which has to succeed.
    pub(crate) fn command(&self, command: Value) -> String {
        self.says(Over::KernelTcp, &["command", &command.to_string()])
    }

    /// A command line of a daemon's program.
    fn ceph(&self, program: &str, id: &str) -> Command {
        // The kernel ends it if this process is killed.
        let mut command = self.namespace.command(Path::new("setpriv"));
        command.args(["--pdeathsig", "KILL", program, "-c"]).arg(self.conf()).args(["-i", id]);
        command
    }

    fn daemon(&self, name: &'static str, program: &str, id: &str) -> Process {
        let mut command = self.ceph(program, id);
        command.arg("-f");
        Process::spawn(name, command).expect(program)
    }
}

/// Gives the kernel its end of the tap, once there is one.
pub(crate) fn join_tap(namespace: &Namespace) {
    let address: IpAddr = KERNEL_V4.parse().unwrap();
    namespace.add_address(TAP, address, 24).expect("the kernel's end of the tap");
}

fn succeed(command: &mut Command) {
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{command:?}: {out:?}");
}

fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

/// Where Debian keeps Ceph's plug-ins: a directory named after the architecture.
fn plugin_dir() -> String {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = libraries.map(|path| path.join("ceph")).find(|path| path.join("crypto").is_dir());
    found.expect("the plug-ins of ceph-common").display().to_string()
}
