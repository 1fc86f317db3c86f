//! What a demo makes on the machine, and takes away again whatever happens.
//!
//! Everything here is undone by `Drop`: child processes, the network namespace, the directory of
//! sockets. Should this process be killed outright, its children are told by the kernel
//! (`--exit-with-parent`), so nothing is left running.

use std::io::{BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How long a child may take to say it is ready, and to end when asked.
const CHILD_PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition outside of us is looked at again.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// Most bytes of a child's messages that are kept for an error text.
const STDERR_KEPT: u64 = 64 << 10;

/// A name that no other process and no other call of this one uses.
fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("msgr-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory under the system's temporary one, private to this user.
#[derive(Debug)]
pub(crate) struct ScratchDir(PathBuf);

impl ScratchDir {
    pub(crate) fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(unique_name());
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A network namespace of our own, with its loopback up.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn create() -> Result<Self> {
        let name = unique_name();
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Runs `ip ARGS` inside.
    pub(crate) fn ip(&self, args: &[&str]) -> Result<()> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        ip(&all)
    }

    /// `program` with everything of it inside this namespace.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// The file that stands for this namespace.
    #[allow(dead_code, reason = "for the whole-program tests, which include this file")]
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Gives the kernel's side of an interface an address, once the interface exists.
    pub(crate) fn add_address(&self, interface: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let deadline = Instant::now() + CHILD_PATIENCE;
        let address = format!("{address}/{prefix}");
        let v6 = address.contains(':');
        let mut args = vec!["addr", "add", address.as_str(), "dev", interface];
        if v6 {
            args.push("nodad");
        }
        while let Err(error) = self.ip(&args) {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(POLL_EVERY);
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let out = Command::new("ip")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot run `ip`; install it with: apt-get install iproute2")?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        bail!("`ip {}` failed: {}", args.join(" "), why.trim());
    }
    Ok(())
}

/// A child process that prints JSON lines, ended when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Process {
    /// Starts `command` with its output read by us.
    pub(crate) fn spawn(name: &'static str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // Ctrl-C on the terminal reaches us alone; we end the children
            .spawn()
            .with_context(|| format!("cannot start the {name}"))?;
        let stdout = child.stdout.take().context("child without output")?;
        let stderr = child.stderr.take().context("child without error output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let mut stderr = stderr.take(STDERR_KEPT);
            let _ = stderr.read_to_string(&mut text);
            let _ = std::io::copy(stderr.get_mut(), &mut std::io::sink());
            text
        });
        Ok(Self { name, child, lines, errors: Some(errors) })
    }

    /// The next line of output, read as JSON.
    pub(crate) fn next_json(&mut self, patience: Duration) -> Result<serde_json::Value> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line)
                .with_context(|| format!("the {} printed something else: {line}", self.name)),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the {} said nothing for {patience:?}", self.name)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(self.obituary()),
        }
    }

    /// A line of output that is already here, read as JSON.
    #[allow(dead_code, reason = "for the whole-program tests, which include this file")]
    pub(crate) fn try_next_json(&mut self) -> Option<serde_json::Value> {
        self.lines.try_recv().ok().and_then(|line| serde_json::from_str(&line).ok())
    }

    /// Waits for the line a server prints when it is ready.
    pub(crate) fn wait_ready(&mut self) -> Result<serde_json::Value> {
        self.next_json(CHILD_PATIENCE)
    }

    /// Asks the process to end, waits for it, and says how it went.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.signal(rustix::process::Signal::TERM);
        let status = self.wait(CHILD_PATIENCE)?;
        if !status.success() {
            return Err(self.obituary());
        }
        Ok(())
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<anyhow::Error> {
        matches!(self.child.try_wait(), Ok(Some(_))).then(|| self.obituary())
    }

    /// Ends the process without asking, and waits for that.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the {} did not end within {patience:?}", self.name);
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(pid) =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Why the process ended, from its own words.
    fn obituary(&mut self) -> anyhow::Error {
        let status = match self.wait(CHILD_PATIENCE) {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let words = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        anyhow!("the {} ended ({status}): {}", self.name, words.trim())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(rustix::process::Signal::TERM);
            if self.wait(Duration::from_secs(5)).is_err() {
                self.kill();
            }
        }
    }
}
